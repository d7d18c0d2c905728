//! Keys and segments of made-up clients.

use fastpath::meta::{Endpoint, Flags, VrfId};
use nat::key::Key;

/// Both keys of client `n`'s connection to a service, whose backend answers from elsewhere.
pub fn keys(n: u32, protocol: u8) -> [Key; 2] {
    let [a, b, c, d] = n.to_be_bytes();
    let client = Endpoint::v4([10, b, c, d], 1024 + u16::from(a));
    let key = |source, target| Key::new(&source, &target, protocol, VrfId(0), Flags::IPV4);
    let service = Endpoint::v4([192, 0, 2, 1], 80);
    [key(client, service), key(Endpoint::v4([172, 16, 0, 9], 8080), client)]
}

/// A TCP header without options or data.
#[allow(dead_code)]
pub fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes[14..16].copy_from_slice(&8000u16.to_be_bytes());
    bytes
}
