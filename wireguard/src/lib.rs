//! The tunnel protocol without sockets or clocks, and its two nodes.
//!
//! WireGuard as in its whitepaper ("WireGuard: Next Generation Kernel Network Tunnel", 2020; sections below are its).
//! Time and bytes come in, actions and the next wake-up come out. [`tunnel::Tunnel`] runs on the control side: it has
//! the keys, makes handshakes and keeps the timers. Workers encrypt and decrypt with what it publishes:
//! [`session::Session`]s, found by index or peer in [`session::Slots`], and the peers' [`allowed_ips`]. The [`aead`] seals
//! and opens many packets at once. The [`nodes`] do so in the graph, and tell control by the [`mailbox`].

pub mod aead;
pub mod allowed_ips;
pub mod cookie;
pub mod handshake;
pub mod interface;
pub mod mailbox;
pub mod message;
pub mod nodes;
pub mod outer;
pub mod peer;
pub mod replay;
pub mod session;
pub(crate) mod sync;
pub mod timers;
pub mod tunnel;
