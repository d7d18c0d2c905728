//! The ports as nodes see them: addresses, MTU, table of routes. A snapshot, replaced as a whole.

use crate::dscp::Marking;
use crate::events::Mac;
use crate::forwarding::Forwarding;
use crate::meta::{Meta, PortId, VrfId};
use crate::overlay::Overlays;
use crate::punt::Crossing;
use crate::qos::Limiter;
use crate::wire::ndp;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// It is a VLAN of another port's link: a tag on what comes in here is a second one.
    pub is_vlan: bool,
    /// Which sources what comes in here may have.
    pub reverse_path: ReversePath,
    /// For whom it answers on its link beside itself.
    pub proxy: Proxy,
    /// How much may come in.
    pub limiter: Option<Arc<Limiter>>,
    /// How what comes in is marked.
    pub marking: Option<Marking>,
    /// With whom it shares its link.
    pub crossing: Crossing,
}

/// Whether a way has to lead back to a packet's source (RFC 3704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReversePath {
    /// None has to.
    #[default]
    Off,
    /// Any.
    Loose,
    /// By the port that it came in by.
    Strict,
}

/// For whom a port answers on its link beside itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// For nobody.
    #[default]
    Nobody,
    /// For addresses that packets would be sent to by another port.
    Routed,
    /// For these prefixes, whether there is a route or not, unless it leads to the port itself.
    Prefixes(Vec<(IpAddr, u8)>),
}

impl Interface {
    /// Whether what comes in here is limited or marked.
    pub fn is_policed(&self) -> bool {
        self.limiter.is_some() || self.marking.is_some()
    }

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

    /// Whether there is a host behind it that gets what is not ours.
    pub fn has_host(&self) -> bool {
        matches!(self.crossing, Crossing::Host(_))
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
    /// Tunnels that are ports with neighbours.
    pub overlays: Overlays,
    /// Our addresses, to be found fast.
    pub own: OwnAddresses,
}

/// Bits of the filter in [`OwnAddresses`].
const FILTER_BITS: u32 = 11;

/// The addresses of all ports by table of routes, behind a filter that most of the world's addresses do not pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    filter: [u64; 1 << FILTER_BITS >> 6],
    exact: HashSet<(VrfId, IpAddr)>,
}

impl OwnAddresses {
    /// The addresses of these ports.
    pub fn of<'a>(ports: impl Iterator<Item = &'a Interface>) -> Self {
        let mut own = Self::default();
        for (vrf, address) in ports.flat_map(|port| port.addresses.iter().map(|address| (port.vrf, address.0))) {
            let place = match address {
                IpAddr::V4(address) => place(u64::from(address.to_bits())),
                IpAddr::V6(address) => place(fold(address.to_bits())),
            };
            own.filter[place >> 6] |= 1 << (place & 63);
            own.exact.insert((vrf, address));
        }
        own
    }

    /// Whether an IPv4 address is one of ours in a table.
    #[inline(always)]
    pub fn has_v4(&self, vrf: VrfId, address: u32) -> bool {
        self.may_have(u64::from(address)) && self.has(vrf, Ipv4Addr::from_bits(address).into())
    }

    /// Whether an IPv6 address is one of ours in a table.
    #[inline(always)]
    pub fn has_v6(&self, vrf: VrfId, address: u128) -> bool {
        self.may_have(fold(address)) && self.has(vrf, Ipv6Addr::from_bits(address).into())
    }

    #[inline(always)]
    fn may_have(&self, bits: u64) -> bool {
        let place = place(bits);
        self.filter[place >> 6] >> (place & 63) & 1 != 0
    }

    #[cold]
    fn has(&self, vrf: VrfId, address: IpAddr) -> bool {
        self.exact.contains(&(vrf, address))
    }
}

#[inline(always)]
fn place(bits: u64) -> usize {
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)) as usize
}

#[inline(always)]
fn fold(address: u128) -> u64 {
    (address >> 64) as u64 ^ (address as u64).rotate_left(29)
}

impl Interfaces {
    /// These ports, and who listens.
    pub fn new(ports: Vec<Option<Interface>>, listeners: Vec<Listener>) -> Self {
        let own = OwnAddresses::of(ports.iter().flatten());
        let overlays = Overlays::default();
        Self {
            ports,
            listeners,
            overlays,
            own,
        }
    }

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
