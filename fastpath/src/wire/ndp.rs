//! Neighbour discovery for IPv6 (RFC 4861).

use super::checksum::Sum;
use super::{icmp, ipv6, protocol};
use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Option: link address of who sends this.
pub const SOURCE_LINK: u8 = 1;
/// Option: link address of who is meant.
pub const TARGET_LINK: u8 = 2;
/// In an advertisement's flags: sent by a router, asked for, and replacing what was known.
pub const ROUTER_SOLICITED_OVERRIDE: u32 = 0xe000_0000;
/// In an advertisement's flags: it was asked for.
pub const SOLICITED: u32 = 0x4000_0000;
/// Replaces what was known before.
pub const OVERRIDE: u32 = 0x2000_0000;

/// A solicitation or advertisement: ICMPv6 header, target, and one link address option.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Message {
    /// Type: 135 or 136.
    pub kind: u8,
    /// 0.
    pub code: u8,
    /// Of the message and the pseudo-header.
    pub checksum: [u8; 2],
    /// Advertisement: R, S, O.
    pub flags: U32,
    /// The address asked for or told.
    pub target: [u8; 16],
    /// [`SOURCE_LINK`] or [`TARGET_LINK`].
    pub option: u8,
    /// 1, in units of eight bytes.
    pub option_length: u8,
    /// The link address.
    pub link: [u8; 6],
}

/// Bytes of [`Message`].
pub const MESSAGE: usize = size_of::<Message>();
/// Bytes of a message without its option.
pub const MESSAGE_FIXED: usize = 24;
/// Every message has it, so that it cannot come from beyond the link (RFC 4861 section 7.1).
pub const HOP_LIMIT: u8 = 255;

impl Message {
    /// A message with its checksum.
    pub fn new(kind: u8, flags: u32, target: [u8; 16], link: [u8; 6], from_to: ([u8; 16], [u8; 16])) -> Self {
        let option = if kind == icmp::v6::NEIGHBOUR_SOLICITATION {
            SOURCE_LINK
        } else {
            TARGET_LINK
        };
        let flags = U32::new(flags);
        let mut message = Self {
            kind,
            code: 0,
            checksum: [0; 2],
            flags,
            target,
            option,
            option_length: 1,
            link,
        };
        message.checksum = checksum(from_to.0, from_to.1, message.as_bytes());
        message
    }
}

/// The ICMPv6 checksum of a message (RFC 8200 section 8.1).
pub fn checksum(source: [u8; 16], target: [u8; 16], message: &[u8]) -> [u8; 2] {
    let length = (message.len() as u32).to_be_bytes();
    let pseudo = Sum::default()
        .with(&source)
        .with(&target)
        .with(&length)
        .with(&[0, 0, 0, protocol::ICMPV6]);
    pseudo.with(message).finish()
}

/// The link address in an option of this kind, among the options of a message; none if they are malformed.
pub fn link_address(mut options: &[u8], kind: u8) -> Option<[u8; 6]> {
    while let [option, length, ..] = options {
        let bytes = usize::from(*length) * 8;
        if bytes == 0 || bytes > options.len() {
            return None;
        }
        if *option == kind && bytes == 8 {
            return options[2..8].try_into().ok();
        }
        options = &options[bytes..];
    }
    None
}

/// The group that the holder of an address listens to (RFC 4291 section 2.7.1).
pub fn solicited_node(address: [u8; 16]) -> [u8; 16] {
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&address[13..]);
    group
}

/// The link-local address made of a link address (RFC 4291 appendix A).
pub fn link_local(mac: [u8; 6]) -> [u8; 16] {
    [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        mac[0] ^ 2,
        mac[1],
        mac[2],
        0xff,
        0xfe,
        mac[3],
        mac[4],
        mac[5],
    ]
}

/// A neighbour solicitation from its IPv6 header on.
pub fn solicitation(
    source: [u8; 16],
    mac: [u8; 6],
    wanted: [u8; 16],
    target: [u8; 16],
) -> [u8; ipv6::HEADER + MESSAGE] {
    let message = Message::new(icmp::v6::NEIGHBOUR_SOLICITATION, 0, wanted, mac, (source, target));
    let header = ipv6::Header::new(source, target, protocol::ICMPV6, HOP_LIMIT, MESSAGE as u16);
    let mut packet = [0; ipv6::HEADER + MESSAGE];
    packet[..ipv6::HEADER].copy_from_slice(header.as_bytes());
    packet[ipv6::HEADER..].copy_from_slice(message.as_bytes());
    packet
}
