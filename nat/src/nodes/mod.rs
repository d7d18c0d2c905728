//! The nodes of flows: one idea, one file.
//!
//! `flows` finds the connection of a packet; of a new or stale one, what follows decides: [`balance`] gives one to a
//! service its backend, and `admit` writes the verdict down; `rewrite` replays it. Between, the packet's bytes stay as they
//! came.

pub mod admit;
pub mod balance;
pub mod flows;
pub mod fragments;
pub mod rewrite;
pub mod sweep;
#[cfg(test)]
pub(crate) mod testing;
