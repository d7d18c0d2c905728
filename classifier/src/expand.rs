//! From a rule as written to patterns and a guard, for one IP version.

use crate::guard::{EndGuard, Guard, Ranges};
use crate::pattern::{Pattern, Prefix, Rank};
use crate::rule::{End, IpVersion, Ports, Rule, WITH_PORTS};
use ipnet::IpNet;

/// Patterns that a rule may become before its lists go into the guard, except the longest list.
const PATTERNS: usize = 256;

/// A rule for packets of one IP version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded<const W: usize> {
    /// It matches where one of these does, and, if that one is [guarded](Rank::GUARDED), the guard holds.
    pub patterns: Vec<Pattern<W>>,
    /// For the guarded ones; the same for all.
    pub guard: Option<Guard>,
}

/// The values one field of the patterns takes.
struct Fields<const W: usize> {
    protocols: Vec<Option<u8>>,
    networks: [Vec<Prefix<W>>; 2],
    ports: [Vec<PortField>; 2],
}

#[derive(Clone, Copy)]
struct PortField {
    ports: Ports,
    /// A named port's: the addresses of this set, and the guard has to see to the port.
    named: Option<u32>,
}

const ANY_PORT: PortField = PortField {
    ports: Ports::ALL,
    named: None,
};

/// What matches the packets of `version` that `rule` matches; nothing if it matches none. `W` is 1 for IPv4, 4 for
/// IPv6.
pub fn expand<const W: usize>(rule: &Rule, version: IpVersion, rank: Rank) -> Expanded<W> {
    let Some(protocols) = protocols(rule, version) else {
        return Expanded::default();
    };
    let ends = [&rule.source, &rule.target];
    let (Some(source), Some(target)) = (networks(ends[0], version), networks(ends[1], version)) else {
        return Expanded::default();
    };
    let mut guard = Guard {
        not_protocol: rule.not_protocol.filter(|_| rule.protocol.is_none()),
        not_icmp: rule.not_icmp,
        source: end_guard(ends[0], version),
        target: end_guard(ends[1], version),
        services: rule.services.clone(),
    };
    let mut ports = [port_fields(ends[0]), port_fields(ends[1])];
    if let Some(icmp) = rule.icmp {
        ports[1] = vec![PortField {
            ports: icmp.range(),
            named: None,
        }];
    }
    let mut fields = Fields {
        protocols,
        networks: [source, target],
        ports,
    };
    fields.shorten(ends, version, &mut guard);
    let always = !guard.is_empty();
    for (end, guard) in ends.into_iter().zip([&mut guard.source, &mut guard.target]) {
        // Only the patterns of named ports ask for them, but a guard that is asked has to know all.
        if !end.named_ports.is_empty() {
            (guard.ports, guard.named_ports) = (merged(&end.ports), end.named_ports.clone());
        }
    }
    let sets = [first_set(&rule.source, &[]), first_set(&rule.target, &rule.services)];
    Expanded {
        patterns: fields.patterns(sets, rank, always),
        guard: (!guard.is_empty()).then_some(guard),
    }
}

impl<const W: usize> Fields<W> {
    /// Moves lists into the guard, the shortest first, until their product is not too many patterns.
    fn shorten(&mut self, ends: [&End; 2], version: IpVersion, guard: &mut Guard) {
        loop {
            let lists = [
                self.networks[0].len(),
                self.networks[1].len(),
                self.ports[0].len(),
                self.ports[1].len(),
            ];
            let product = lists
                .iter()
                .fold(self.protocols.len(), |all, len| all.saturating_mul(*len));
            let longest = lists.into_iter().max().unwrap_or(1);
            let shortest = lists
                .iter()
                .enumerate()
                .filter(|(_, len)| **len > 1)
                .min_by_key(|(_, len)| **len);
            let Some((list, _)) = shortest.filter(|_| product > PATTERNS.max(longest * self.protocols.len())) else {
                return;
            };
            let (end, guard) = match list % 2 {
                0 => (ends[0], &mut guard.source),
                _ => (ends[1], &mut guard.target),
            };
            if list < 2 {
                self.networks[list] = vec![Prefix::ALL];
                guard.networks = Ranges::of(of_version(&end.networks, version));
            } else {
                self.ports[list - 2] = vec![ANY_PORT];
                (guard.ports, guard.named_ports) = (merged(&end.ports), end.named_ports.clone());
            }
        }
    }

    fn patterns(&self, sets: [u32; 2], rank: Rank, always: bool) -> Vec<Pattern<W>> {
        let mut patterns = vec![];
        for protocol in &self.protocols {
            for source in &self.networks[0] {
                for target in &self.networks[1] {
                    for source_ports in &self.ports[0] {
                        for target_ports in &self.ports[1] {
                            let named = source_ports.named.is_some() || target_ports.named.is_some();
                            patterns.push(Pattern {
                                source: *source,
                                target: *target,
                                source_ports: source_ports.ports,
                                target_ports: target_ports.ports,
                                protocol: *protocol,
                                source_set: Some(sets[0])
                                    .filter(|set| *set != 0)
                                    .or(source_ports.named)
                                    .unwrap_or(0),
                                target_set: Some(sets[1])
                                    .filter(|set| *set != 0)
                                    .or(target_ports.named)
                                    .unwrap_or(0),
                                rank: rank.guarded(always || named),
                            });
                        }
                    }
                }
            }
        }
        patterns
    }
}

/// The protocols to look for, `None` for any; nothing if no packet can match.
fn protocols(rule: &Rule, version: IpVersion) -> Option<Vec<Option<u8>>> {
    let implied = match rule.protocol {
        Some(1) => Some(IpVersion::V4),
        Some(58) => Some(IpVersion::V6),
        _ => None,
    };
    let other = |wanted: Option<IpVersion>| wanted.is_some_and(|wanted| wanted != version);
    if other(rule.ip_version) || other(implied) {
        return None;
    }
    let has_ports = |end: &End| !end.ports.is_empty() || !end.named_ports.is_empty();
    let ports = has_ports(&rule.source) || has_ports(&rule.target) || !rule.services.is_empty();
    let icmp = rule.icmp.is_some();
    let possible = |protocol: &u8| {
        (!ports || WITH_PORTS.contains(protocol))
            && (!icmp || *protocol == version.icmp())
            && rule.not_protocol != Some(*protocol)
    };
    let protocols: Vec<Option<u8>> = match rule.protocol {
        Some(protocol) => vec![protocol],
        None if icmp => vec![version.icmp()],
        None if ports => WITH_PORTS.to_vec(),
        None => return Some(vec![None]),
    }
    .into_iter()
    .filter(possible)
    .map(Some)
    .collect();
    (!protocols.is_empty()).then_some(protocols)
}

/// The prefixes of one end; nothing if no address of this version can match.
fn networks<const W: usize>(end: &End, version: IpVersion) -> Option<Vec<Prefix<W>>> {
    if of_version(&end.not_networks, version).any(|network| network.prefix_len() == 0) {
        return None;
    }
    if end.networks.is_empty() {
        return Some(vec![Prefix::ALL]);
    }
    let mut prefixes: Vec<Prefix<W>> = of_version(&end.networks, version).map(prefix).collect();
    prefixes.sort_unstable_by_key(|prefix| (prefix.length, prefix.address));
    prefixes.dedup();
    (!prefixes.is_empty()).then_some(prefixes)
}

fn of_version(networks: &[IpNet], version: IpVersion) -> impl Iterator<Item = &IpNet> {
    networks.iter().filter(move |network| match version {
        IpVersion::V4 => matches!(network, IpNet::V4(_)),
        IpVersion::V6 => matches!(network, IpNet::V6(_)),
    })
}

fn prefix<const W: usize>(network: &IpNet) -> Prefix<W> {
    let bits = match network {
        IpNet::V4(network) => u128::from(network.network().to_bits()),
        IpNet::V6(network) => network.network().to_bits(),
    };
    Prefix {
        address: std::array::from_fn(|w| (bits >> (32 * (W - 1 - w))) as u32),
        length: network.prefix_len(),
    }
}

fn port_fields(end: &End) -> Vec<PortField> {
    let numbers = merged(&end.ports)
        .into_iter()
        .map(|ports| PortField { ports, named: None });
    let named = end.named_ports.iter().map(|set| PortField {
        ports: Ports::ALL,
        named: Some(set.0),
    });
    if end.ports.is_empty() && end.named_ports.is_empty() {
        return vec![ANY_PORT];
    }
    numbers.chain(named).collect()
}

/// The same ports in as few ranges as there can be. One whose end comes before its start has none.
fn merged(ports: &[Ports]) -> Vec<Ports> {
    let mut all: Vec<Ports> = ports
        .iter()
        .filter(|ports| ports.first <= ports.last)
        .copied()
        .collect();
    all.sort_unstable();
    let mut apart: Vec<Ports> = vec![];
    for ports in all {
        match apart.last_mut() {
            Some(last) if u32::from(ports.first) <= u32::from(last.last) + 1 => last.last = last.last.max(ports.last),
            _ => apart.push(ports),
        }
    }
    apart
}

/// The set that the pattern asks for.
fn first_set(end: &End, services: &[crate::rule::SetId]) -> u32 {
    end.sets.first().or(services.first()).map_or(0, |set| set.0)
}

/// What the pattern of one end leaves to the guard, but for ports.
fn end_guard(end: &End, version: IpVersion) -> EndGuard {
    EndGuard {
        not_networks: Ranges::of(of_version(&end.not_networks, version)),
        sets: end.sets.iter().skip(1).copied().collect(),
        not_sets: end.not_sets.clone(),
        not_ports: end.not_ports.clone(),
        not_named_ports: end.not_named_ports.clone(),
        ..EndGuard::default()
    }
}
