//! Flows: find, create, translate, balance, expire.
//!
//! Every packet of a tracked protocol belongs to a connection; a connection is two legs, one a direction, found by the
//! 40-byte [key](key) of a packet in one [table](table) for the whole process. Beside the table stand what a leg
//! remembers of its [protocol] ([`tcp`], [`sctp`]), how long it may be silent ([`timeouts`]), who removes it then
//! ([`expiry`]), the ports of [fragments] that carry none, and which backend of a [service] a new connection goes to
//! ([`maglev`], [`affinity`]).
//!
//! What begins and ends is told in a [journal]. The [nodes] put that into the graph; [`snat`] says which connections get another source,
//! and [`fixed`] which addresses stand for others.

pub mod affinity;
pub mod expiry;
pub mod fixed;
pub mod fragments;
pub mod journal;
pub mod key;
pub mod leg;
pub mod maglev;
pub mod nodes;
pub mod protocol;
mod quote;
pub mod sctp;
pub mod service;
pub mod snat;
pub(crate) mod sync;
pub mod table;
pub mod tcp;
pub mod time;
pub mod timeouts;
pub mod tracking;
mod translate;
