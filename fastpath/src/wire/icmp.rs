//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the part both share.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER: usize = 8;

/// Whether a message of a family says that a packet was too large for a link (RFC 1191 section 3, RFC 4443 section 3.2).
pub fn is_path_mtu(kind: u8, code: u8, is_v4: bool) -> bool {
    match is_v4 {
        true => (kind, code) == (v4::UNREACHABLE, 4),
        false => kind == v6::TOO_BIG,
    }
}

/// ICMP types (RFC 792).
pub mod v4 {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// The hop limit ran out.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A field makes no sense.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether a message of this type speaks of an error: no error is sent about it (RFC 1812 section 4.3.2.7).
    pub fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | 4 | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// ICMPv6 types (RFC 4443, RFC 4861).
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// The hop limit ran out.
    pub const TIME_EXCEEDED: u8 = 3;
    /// A field makes no sense.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// Whether a message of this type speaks of an error: no error is sent about it (RFC 4443 section 2.4 (e.1)).
    pub fn is_error(kind: u8) -> bool {
        kind < 128 || kind == REDIRECT
    }
}

/// The header: type, code, checksum and a word whose meaning depends on the type.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Of the message; ICMPv6: and of the pseudo-header.
    pub checksum: [u8; 2],
    /// Echo: the identifier.
    pub first: U16,
    /// Echo: the sequence number. Too big: the MTU.
    pub second: U16,
}
const _: () = assert!(size_of::<Header>() == HEADER);
