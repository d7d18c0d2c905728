//! ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Who has this address?
pub const REQUEST: u16 = 1;
/// I have it.
pub const REPLY: u16 = 2;

/// A packet, after the Ethernet header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Packet {
    /// 1: Ethernet.
    pub hardware: U16,
    /// 0x0800: IPv4.
    pub protocol: U16,
    /// 6.
    pub hardware_length: u8,
    /// 4.
    pub protocol_length: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// Of who sends this.
    pub sender_mac: [u8; 6],
    /// Of who sends this.
    pub sender: [u8; 4],
    /// Of who is meant; zero in a request.
    pub target_mac: [u8; 6],
    /// Of who is meant.
    pub target: [u8; 4],
}

impl Packet {
    /// A packet of this kind.
    pub fn new(operation: u16, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Self {
        Self {
            hardware: U16::new(1),
            protocol: U16::new(super::ethernet::IPV4),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender: sender.1,
            target_mac: target.0,
            target: target.1,
        }
    }

    /// Whether it speaks of IPv4 over Ethernet.
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware.get() == 1
            && self.protocol.get() == super::ethernet::IPV4
            && self.hardware_length == 6
            && self.protocol_length == 4
    }
}
