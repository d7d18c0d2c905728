//! Ethernet II (IEEE 802.3).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER: usize = 14;
/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// To everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Destination.
    pub target: [u8; 6],
    /// Source.
    pub source: [u8; 6],
    /// What follows.
    pub ether_type: U16,
}
const _: () = assert!(size_of::<Header>() == HEADER);

/// The link address that an IPv6 multicast group is sent to (RFC 2464 section 7).
pub fn multicast(group: [u8; 16]) -> [u8; 6] {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}
