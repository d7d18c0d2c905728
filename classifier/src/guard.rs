//! Guards: the conditions of a rule that no pattern can say. They are looked at only where its pattern matches.

use crate::packet::Packet;
use crate::rule::{Icmp, Ports, SetId};
use crate::sets::{Class, Memory};
use fastpath::meta::Endpoint;
use ipnet::IpNet;

/// The prefix that IPv4 is mapped into (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xffff_0000_0000;

/// What has to hold beside a rule's pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Not this protocol.
    pub not_protocol: Option<u8>,
    /// Not ICMP of this kind.
    pub not_icmp: Option<Icmp>,
    /// At the source.
    pub source: EndGuard,
    /// At the target.
    pub target: EndGuard,
    /// The target with its port is in each.
    pub services: Vec<SetId>,
}

/// What has to hold at one end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndGuard {
    /// In one of these, if there are any.
    pub networks: Ranges,
    /// In none of these.
    pub not_networks: Ranges,
    /// In each of these.
    pub sets: Vec<SetId>,
    /// In none of these.
    pub not_sets: Vec<SetId>,
    /// In one of these, or of those named, if there are any of either.
    pub ports: Vec<Ports>,
    /// As `ports`.
    pub named_ports: Vec<SetId>,
    /// In none of these.
    pub not_ports: Vec<Ports>,
    /// In none of these.
    pub not_named_ports: Vec<SetId>,
}

/// Ranges of addresses, both ends among them, in order and apart. IPv4 addresses are mapped into IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// The addresses of `networks`.
    pub fn of<'a>(networks: impl IntoIterator<Item = &'a IpNet>) -> Ranges {
        let mut all: Vec<(u128, u128)> = networks.into_iter().map(ends).collect();
        all.sort_unstable();
        let mut apart: Vec<(u128, u128)> = vec![];
        for (first, last) in all {
            match apart.last_mut() {
                Some(range) if first <= range.1 => range.1 = range.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Ranges(apart)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, address: u128) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

impl Guard {
    /// Whether it holds for a packet whose addresses are of these classes.
    pub fn holds(&self, packet: &Packet, [source, target]: [Class; 2], memory: &Memory) -> bool {
        let icmp = |icmp: Icmp| packet.is_icmp() && icmp.range().contains(packet.target.port);
        let service =
            |set: &SetId| packet.has_ports() && memory.has_port(target, set.0, packet.protocol, packet.target.port);
        self.not_protocol.is_none_or(|protocol| protocol != packet.protocol)
            && !self.not_icmp.is_some_and(icmp)
            && self.source.holds(packet, &packet.source, source, memory)
            && self.target.holds(packet, &packet.target, target, memory)
            && self.services.iter().all(service)
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Guard::default()
    }
}

impl EndGuard {
    fn holds(&self, packet: &Packet, end: &Endpoint, class: Class, memory: &Memory) -> bool {
        let address = end.v6_bits();
        let has = |set: &SetId| memory.has(class, set.0);
        let named = |sets: &[SetId]| {
            packet.has_ports()
                && sets
                    .iter()
                    .any(|set| memory.has_port(class, set.0, packet.protocol, end.port))
        };
        let among = |ports: &[Ports]| packet.has_ports() && ports.iter().any(|ports| ports.contains(end.port));
        (self.networks.is_empty() || self.networks.contain(address))
            && !self.not_networks.contain(address)
            && self.sets.iter().all(has)
            && !self.not_sets.iter().any(has)
            && ((self.ports.is_empty() && self.named_ports.is_empty())
                || among(&self.ports)
                || named(&self.named_ports))
            && !among(&self.not_ports)
            && !named(&self.not_named_ports)
    }
}

fn ends(network: &IpNet) -> (u128, u128) {
    match network {
        IpNet::V4(network) => (
            MAPPED | u128::from(network.network().to_bits()),
            MAPPED | u128::from(network.broadcast().to_bits()),
        ),
        IpNet::V6(network) => (network.network().to_bits(), network.broadcast().to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_become_one() {
        let networks = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let ranges = Ranges::of(&networks);
        assert_eq!(ranges.0.len(), 3);
        for (address, inside) in [
            ([10, 0, 0, 0], true),
            ([10, 255, 255, 255], true),
            ([11, 0, 0, 0], false),
            ([9, 255, 255, 255], false),
            ([192, 0, 2, 1], true),
            ([192, 0, 2, 2], false),
        ] {
            assert_eq!(
                ranges.contain(Endpoint::v4(address, 0).v6_bits()),
                inside,
                "{address:?}"
            );
        }
        assert!(ranges.contain(0x2001_0db8 << 96));
        assert!(!Ranges::default().contain(0));
    }
}
