//! The nodes of plain IP forwarding: one idea, one file.

pub mod adjacency;
pub mod arp;
pub mod decapsulate;
pub mod encapsulate;
pub mod fragment;
pub mod icmp_error;
pub mod inbound;
pub mod local;
mod lookups;
pub mod ndp;
pub mod parse;
pub mod path_mtu;
pub mod police;
pub mod port_in;
pub mod port_out;
pub mod proxy;
pub mod punt;
pub mod reject;
pub mod resume;
pub mod reverse_path;
pub mod route;
pub mod undeliverable;
