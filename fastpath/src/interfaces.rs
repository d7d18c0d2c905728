//! The ports as nodes see them: addresses, MTU, table of routes. A snapshot, replaced as a whole.

use crate::events::Mac;
use crate::forwarding::Forwarding;
use crate::meta::{Meta, PortId, VrfId};
use crate::wire::ndp;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link address.
    pub mac: Mac,
    /// Most bytes of a packet from the network header on.
    pub mtu: u16,
    /// Where packets that come in here are routed.
    pub vrf: VrfId,
    /// What comes in here belongs to flows.
    pub tracked: bool,
    /// The kernel has its addresses, too, and gets what is for them; few of their ports are ours.
    pub shared: bool,
    /// Its addresses and the lengths of their subnets' prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// Its IPv4 addresses, with the lengths of their prefixes.
    pub fn v4(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> + '_ {
        self.addresses.iter().filter_map(|(address, length)| match address {
            IpAddr::V4(address) => Some((*address, *length)),
            IpAddr::V6(_) => None,
        })
    }

    /// Its IPv6 addresses, with the lengths of their prefixes; not the link-local one.
    pub fn v6(&self) -> impl Iterator<Item = (Ipv6Addr, u8)> + '_ {
        self.addresses.iter().filter_map(|(address, length)| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some((*address, *length)),
        })
    }

    /// The link-local address it answers to.
    pub fn link_local(&self) -> Ipv6Addr {
        ndp::link_local(self.mac).into()
    }

    /// Whether the address is one of its own.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.0 == address) || address == IpAddr::V6(self.link_local())
    }

    /// Its address to speak to `peer` from: the one whose subnet `peer` is in, else the first of the family.
    pub fn source_for(&self, peer: IpAddr) -> Option<IpAddr> {
        let family = self.addresses.iter().filter(|(own, _)| own.is_ipv4() == peer.is_ipv4());
        let near = family.clone().find(|(own, length)| shares_prefix(*own, peer, *length));
        near.or(family.clone().next()).map(|(own, _)| *own)
    }
}

/// Whether two addresses of one family agree in their first `length` bits.
pub fn shares_prefix(one: IpAddr, other: IpAddr, length: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(length.min(32))
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(length.min(128))
        }
        _ => false,
    }
}

/// A UDP port of ours where packets come in that a tunnel wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Table of routes that they come in by.
    pub vrf: VrfId,
    /// Their UDP port.
    pub udp_port: u16,
    /// The tunnel's port.
    pub port: PortId,
}

/// All ports, and who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Ports, by their ids. The port of a tunnel has no queue, and a link address of zeros.
    pub ports: Vec<Option<Interface>>,
    /// What tunnels listen on, on every address of ours.
    pub listeners: Vec<Listener>,
}

impl Interfaces {
    /// The port, if it exists.
    #[inline(always)]
    pub fn get(&self, port: PortId) -> Option<&Interface> {
        self.ports.get(port.index()).and_then(Option::as_ref)
    }

    /// Most bytes from the network header on that a packet may have where it is going: to its adjacency, or else by the
    /// tunnel it would leave by.
    pub fn mtu(&self, forwarding: &Forwarding, meta: &Meta) -> u16 {
        match forwarding.adjacency(meta.adjacency) {
            Some(adjacency) => adjacency.mtu(),
            None => self.get(meta.egress).map_or(0, |interface| interface.mtu),
        }
    }

    /// The tunnel that listens on a UDP port.
    #[inline]
    pub fn listener(&self, vrf: VrfId, udp_port: u16) -> Option<PortId> {
        let hears = |listener: &&Listener| listener.udp_port == udp_port && listener.vrf == vrf;
        self.listeners.iter().find(hears).map(|listener| listener.port)
    }

    /// An address to send an ICMP message to `peer` from: the receiving port's, else any of its table of routes
    /// (RFC 1812 section 4.3.2.4).
    pub fn source_for(&self, port: PortId, vrf: VrfId, peer: IpAddr) -> Option<IpAddr> {
        let others = self.ports.iter().flatten().filter(|interface| interface.vrf == vrf);
        self.get(port)
            .into_iter()
            .chain(others)
            .find_map(|interface| interface.source_for(peer))
    }
}
