//! The nodes of the graph, in the order in which packets meet them: one idea, one file.
//!
//! [`untracked`] stands before connections are tracked, [`pre_dnat`] before services are translated, [`classify`] where it
//! is known where a packet goes.

pub mod classify;
pub mod pre_dnat;
pub(crate) mod questions;
pub mod untracked;
