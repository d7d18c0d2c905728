//! The tunnel's nodes: one idea, one file.
//!
//! Into a tunnel: [`peer`] decides whose packet it is, [`encrypt`] seals it, or [`park`] keeps it until there is a session.
//! Out of one: [`decrypt`].

pub mod decrypt;
pub mod encrypt;
pub mod mss;
pub mod park;
pub mod peer;
