//! Source NAT: which connections get another source address, and which ports they may have there.
//!
//! The mapping depends on both ends of a connection (RFC 4787 section 4.1, address and port-dependent): one port serves
//! any number of connections to different places, so that there are far more than 64 Ki behind one address. Filtering
//! follows: only who was spoken to may answer. A client keeps one address (paired pooling, RFC 4787 REQ-2), and its port
//! where that is free.

use crate::fixed::Fixed;
use fastpath::interfaces::shares_prefix;
use fastpath::meta::{PortId, VrfId};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A prefix: an address, and the length of what counts of it.
pub type Prefix = (IpAddr, u8);

/// Which connections, and what they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Table of routes that they come in by.
    pub vrf: VrfId,
    /// They come from one of these.
    pub sources: Vec<Prefix>,
    /// They go to none of these.
    pub excluded: Vec<Prefix>,
    /// They leave by this port; by any where there is none.
    pub out_port: Option<PortId>,
    /// Their new source address is one of these, of their family; where there is none, the one of the port they leave by.
    pub addresses: Vec<IpAddr>,
    /// Their new source port is one of these.
    pub ports: RangeInclusive<u16>,
}

/// What a connection looks like to a rule.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    /// Table of routes that it came in by.
    pub vrf: VrfId,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it really goes to.
    pub target: IpAddr,
    /// Where it leaves.
    pub out_port: PortId,
}

/// Rules in order: the first that matches counts. A snapshot, replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In order.
    pub rules: Vec<Rule>,
    /// Who has an address of its own outside. It comes before all rules.
    pub fixed: Fixed,
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let fixed = Fixed::default();
        Self { rules, fixed }
    }
}

impl Rules {
    /// Whether nobody gets another source.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.fixed.is_empty()
    }

    /// The rule that a connection falls under, if any.
    pub fn find(&self, connecting: &Connecting) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(connecting))
    }
}

impl Rule {
    /// The address and the ports that connections of `client` get, where `own` answers with the address of the port they
    /// leave by. None where that is asked for, and there is none.
    pub fn pool(&self, client: IpAddr, own: impl FnOnce() -> Option<IpAddr>) -> Option<Pool> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        if self.addresses.is_empty() {
            return own().map(|address| Pool { address, first, last });
        }
        // Equal for all connections of a client.
        let hash = match client {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() as u64 ^ (address.to_bits() >> 64) as u64,
        };
        let count = self.addresses.len() as u64;
        let at = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % count;
        let address = *self.addresses.get(at as usize)?;
        Some(Pool { address, first, last })
    }

    fn matches(&self, connecting: &Connecting) -> bool {
        let within = |prefixes: &[Prefix], address| {
            prefixes
                .iter()
                .any(|(prefix, length)| shares_prefix(*prefix, address, *length))
        };
        self.vrf == connecting.vrf
            && self.out_port.is_none_or(|port| port == connecting.out_port)
            && within(&self.sources, connecting.source)
            && !within(&self.excluded, connecting.target)
            && self
                .addresses
                .iter()
                .all(|address| address.is_ipv4() == connecting.source.is_ipv4())
    }
}

/// Where a connection's new source is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The address.
    pub address: IpAddr,
    /// The lowest port.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Pool {
    /// Every port but the well-known ones.
    pub fn whole(address: IpAddr) -> Self {
        Self {
            address,
            first: 1024,
            last: u16::MAX,
        }
    }

    /// Every port, for one that has the address to itself.
    pub fn alone(address: IpAddr) -> Self {
        Self {
            first: 1,
            ..Self::whole(address)
        }
    }

    /// The same on an address that the kernel has, too: only ports that it gives to no connection of its own, unless the
    /// rule says others. `echo` for the identifiers of ICMP, of which the kernel gives any.
    pub fn shared(self, echo: bool) -> Self {
        let ours = if echo { SHARED_IDENTIFIERS } else { SHARED_PORTS };
        let (first, last) = (self.first.max(*ours.start()), self.last.min(*ours.end()));
        if first > last {
            self
        } else {
            Self { first, last, ..self }
        }
    }

    /// The same for a protocol without ports.
    pub fn portless(self) -> Self {
        Self {
            first: 0,
            last: 0,
            ..self
        }
    }

    /// Up to [`TRIES`] different ports to try in order: first the client's own, where that is one of them; then from a
    /// place that `hash` chooses, those of the same parity (RFC 4787 REQ-4 for those that still care).
    pub fn candidates(self, own: u16, hash: u32) -> impl Iterator<Item = u16> {
        let Self { first, last, .. } = self;
        let size = u32::from(last.saturating_sub(first)) + 1;
        let start = (u64::from(hash) * u64::from(size)) >> 32;
        let kept = (first..=last).contains(&own).then_some(own);
        // Two steps keep the parity until the end of an even range; a size that is odd comes to the others by itself.
        let step = if size.is_multiple_of(2) { 2 } else { 1 };
        let start = start as u32 / step * step + u32::from(own ^ first) % step;
        let rounds = (0..size).map(move |count| {
            let lap = count * step / size;
            first + ((start + count * step + lap) % size) as u16
        });
        kept.into_iter()
            .chain(rounds.filter(move |port| Some(*port) != kept))
            .take(TRIES)
    }
}

/// Ports of ours on an address that we share with the kernel: those above its own (`net.ipv4.ip_local_port_range`, 32768
/// to 60999 unless changed).
pub const SHARED_PORTS: RangeInclusive<u16> = 61000..=u16::MAX;
/// Identifiers of ICMP echo that are ours there. The kernel has no range for its own: one ping in 256 of the host's is lost.
pub const SHARED_IDENTIFIERS: RangeInclusive<u16> = 65280..=u16::MAX;

/// Ports tried for one connection: with as many of them taken towards one place, the pool is as good as used up.
pub const TRIES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn rule() -> Rule {
        Rule {
            vrf: VrfId(0),
            sources: vec![("10.1.0.0".parse().unwrap(), 16)],
            excluded: vec![("10.0.0.0".parse().unwrap(), 8)],
            out_port: Some(PortId(2)),
            addresses: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            ports: 1024..=65535,
        }
    }

    fn connecting(source: &str, target: &str, port: u16) -> Connecting {
        Connecting {
            vrf: VrfId(0),
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            out_port: PortId(port),
        }
    }

    #[test]
    fn a_rule_matches_what_it_says() {
        let rules = Rules::from(vec![rule()]);
        let gets = |source, target, port| rules.find(&connecting(source, target, port)).is_some();
        assert!(gets("10.1.2.3", "8.8.8.8", 2));
        assert!(!gets("10.2.2.3", "8.8.8.8", 2), "from elsewhere");
        assert!(!gets("10.1.2.3", "10.9.9.9", 2), "to what is excluded");
        assert!(!gets("10.1.2.3", "8.8.8.8", 3), "by another port");
        assert!(!gets("fd00::1", "2001:db8::1", 2), "of the other family");
    }

    #[test]
    fn a_client_keeps_its_address_and_all_are_used() {
        let rules = Rules::from(vec![rule()]);
        let address = |host: u8, target: u8| {
            let connecting = connecting(&format!("10.1.2.{host}"), &format!("8.8.8.{target}"), 2);
            let rule = rules.find(&connecting).unwrap();
            rule.pool(connecting.source, || None).unwrap().address
        };
        assert!((0..50).all(|target| address(7, target) == address(7, 0)));
        let used: BTreeSet<_> = (0..50).map(|host| address(host, 0)).collect();
        assert_eq!(used.len(), 2);
    }

    #[test]
    fn without_addresses_it_is_the_ports_own() {
        let rule = Rule {
            addresses: vec![],
            ..rule()
        };
        let client = "10.1.2.3".parse().unwrap();
        let own: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(rule.pool(client, || Some(own)), Some(Pool::whole(own)));
        assert_eq!(rule.pool(client, || None), None);
    }

    #[test]
    fn candidates_are_different_in_range_and_begin_with_the_own_port() {
        for (first, last) in [(1024, 65535), (5000, 5000), (5000, 5006), (5000, 5007), (0, 65535)] {
            let pool = Pool {
                address: "192.0.2.1".parse().unwrap(),
                first,
                last,
            };
            let size = usize::from(last - first) + 1;
            for hash in [0, 1, 12345, u32::MAX] {
                for own in [0, 80, 5003, 40000, 65535] {
                    let all: Vec<u16> = pool.candidates(own, hash).collect();
                    let distinct: BTreeSet<_> = all.iter().collect();
                    assert_eq!((all.len(), distinct.len()), (size.min(TRIES), size.min(TRIES)));
                    assert!(all.iter().all(|port| (first..=last).contains(port)));
                    if (first..=last).contains(&own) {
                        assert_eq!(all[0], own);
                    }
                    if size > 2 * TRIES {
                        let like = all.iter().filter(|port| (**port ^ own) & 1 == 0).count();
                        assert_eq!(like, TRIES, "of its parity");
                    }
                }
            }
        }
    }
}
