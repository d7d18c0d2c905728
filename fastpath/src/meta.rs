//! What is known about a packet, kept beside its frame: one cache line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A transport endpoint; IPv4 addresses are mapped into IPv6 (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Endpoint {
    /// Address, network order.
    pub address: [u8; 16],
    /// Port, host order. ICMP: the identifier (source), type and code (target); 0 where there is none.
    pub port: u16,
}

/// The twelve bytes before an IPv4 address that is mapped into IPv6.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Endpoint {
    /// An IPv4 endpoint.
    #[inline(always)]
    pub fn v4(address: [u8; 4], port: u16) -> Self {
        let mut mapped = [0; 16];
        mapped[..12].copy_from_slice(&MAPPED);
        mapped[12..].copy_from_slice(&address);
        Self { address: mapped, port }
    }

    /// The IPv4 address, host order. Meaningful where [`Flags::IPV4`] is set.
    #[inline(always)]
    pub fn v4_bits(&self) -> u32 {
        u32::from_be_bytes([self.address[12], self.address[13], self.address[14], self.address[15]])
    }

    /// The IPv6 address, host order.
    #[inline(always)]
    pub fn v6_bits(&self) -> u128 {
        u128::from_be_bytes(self.address)
    }

    /// The address, in its own family.
    pub fn ip(&self) -> IpAddr {
        match self.address.first_chunk::<12>() {
            Some(&MAPPED) => Ipv4Addr::from(self.v4_bits()).into(),
            _ => Ipv6Addr::from(self.address).into(),
        }
    }
}

/// Bits of [`Meta::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flags(u8);

impl Flags {
    /// Its way through the graph is recorded. Written by the engine.
    pub const TRACED: Self = Self(1);
    /// We made it: its hop limit is not lowered, and no error is sent about it. Written by the nodes that answer.
    pub const OWN: Self = Self(2);
    /// IPv4; otherwise IPv6. Written by `parse`.
    pub const IPV4: Self = Self(4);
    /// A fragment other than the first: it has no transport header. Written by `parse`.
    pub const LATER_FRAGMENT: Self = Self(8);
    /// It came to a broadcast or multicast link address: no error may be sent about it. Written by `parse`.
    pub const TO_MANY: Self = Self(16);
    /// It belongs to a flow, or is to make one. Written by `parse`, taken away by `rewrite`, which is done with it.
    pub const TRACKED: Self = Self(32);
    /// It goes against the direction in which its connection was opened. Written by `flows`.
    pub const REPLY: Self = Self(64);
    /// A fragment, the first one too. Written by `parse`, taken away where its ports are known.
    pub const FRAGMENT: Self = Self(128);

    /// Whether any bit of `other` is set.
    #[inline(always)]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets the bits of `other`.
    #[inline(always)]
    pub fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears the bits of `other`.
    #[inline(always)]
    pub fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// `self` where `condition` holds, else nothing; without a branch.
    #[inline(always)]
    pub fn when(self, condition: bool) -> Self {
        Self(self.0 * u8::from(condition))
    }

    /// Both.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Names a port of the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PortId(pub u16);

impl PortId {
    /// Its place in tables of ports.
    #[inline(always)]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Names a table of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct VrfId(pub u16);

/// What earlier nodes know about a packet. Each field names the node that writes it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Meta {
    /// Written by `parse`.
    pub source: Endpoint,
    /// Written by `parse`; by `flows` and `balance` once they know where it really goes. Its bytes stay as they came until
    /// `rewrite`.
    pub target: Endpoint,
    /// IP protocol number of the transport header. Written by `parse`.
    pub protocol: u8,
    /// See [`Flags`].
    pub flags: Flags,
    /// Bytes from the start of the packet to its network header. Written by `parse`.
    pub network_offset: u8,
    /// Bytes from the network header to the transport header. Written by `parse`.
    pub transport_offset: u8,
    /// Receiving port. Written by sources.
    pub port: PortId,
    /// Sending port. Written by `route` and whoever answers; by `local` for packets to a tunnel of ours.
    pub egress: PortId,
    pub(crate) data_offset: u16,
    pub(crate) data_length: u16,
    /// Hash of the flow key, equal for the packets of one direction. Written by `parse`.
    pub hash: u32,
    /// Index of the adjacency, or a code of [`crate::forwarding`]. Written by `route` and `flows`, read by `adjacency`. Behind the edge into a tunnel: which of its peers
    /// the packet is for, written by `wg-peer`.
    pub adjacency: u32,
    /// Leg of its connection. Written by `flows`, and by `admit` for a new one. Of what a tunnel sealed: see
    /// [`Meta::seal_by`].
    pub flow: u32,
    /// Table of routes. Written by `parse`.
    pub vrf: VrfId,
    /// What went wrong, for `icmp-error`. Written by the node that leads there.
    pub complaint: u8,
    /// What `balance` has to tell `admit` of a packet without a verdict. Written by `flows` and `balance`. Before those, of
    /// a fragment: why it is dropped, if it is.
    pub reserved: u8,
}
const _: () = assert!(size_of::<Meta>() == 64);

impl Meta {
    /// Bytes of the packet.
    #[inline(always)]
    pub fn length(&self) -> u16 {
        self.data_length
    }

    /// Notes that this packet of ours is what the tunnel behind `port` sealed: that tunnel's routes are not for it.
    #[inline(always)]
    pub fn seal_by(&mut self, port: PortId) {
        self.flow = SEALED | u32::from(port.0);
    }

    /// Whether the tunnel behind `port` sealed it.
    #[inline(always)]
    pub fn is_sealed_by(&self, port: PortId) -> bool {
        self.flow == SEALED | u32::from(port.0)
    }
}

/// No leg has so high a number, and none at all is all ones: a packet that was not sealed is never taken for one that was.
const SEALED: u32 = 0x8000_0000;
