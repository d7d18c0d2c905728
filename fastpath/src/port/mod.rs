//! Ports: where packets come from and where they go.

pub mod xdp;
