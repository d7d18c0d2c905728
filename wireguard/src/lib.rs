//! The tunnel protocol without sockets or clocks, and its two nodes.
//!
//! Will hold the handshake, sessions, replay windows, allowed IPs, the AEAD (portable and SIMD) and the nodes
//! `wg-decrypt` and `wg-encrypt`. Nothing is here yet.
