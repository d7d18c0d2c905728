//! The nodes of flows: one idea, one file.
//!
//! `flows` finds the connection of a packet; of a new or stale one, what follows decides, and `admit` writes the verdict
//! down; `rewrite` replays it. Between the two the packet's bytes stay as they came.

pub mod admit;
pub mod flows;
pub mod fragments;
pub mod rewrite;
pub mod sweep;
