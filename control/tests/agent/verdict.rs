//! Who may talk to whom, straight from Calico's semantics, one packet at a time and with no cleverness.

use std::net::IpAddr;

use control::program::felix::{
    Icmp, IpVersion, PolicyId, PortRange, Protocol, Rule, RuleEnd, TierInfo, WorkloadEndpoint,
};

use crate::common::Listener;

/// A packet that opens a connection.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub port: u16,
    pub icmp: Option<(u8, u8)>,
}

impl Packet {
    pub fn tcp(source: &str, destination: &str, port: u16) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 6,
            source_port: 40_000,
            port,
            icmp: None,
        }
    }

    pub fn udp(source: &str, destination: &str, port: u16) -> Self {
        Self {
            protocol: 17,
            ..Self::tcp(source, destination, port)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Allow,
    Deny,
    Pass,
}

/// Whether both ends let the packet through. What is no workload has no say.
pub fn allows(plane: &Listener, packet: &Packet) -> bool {
    let end = |address: IpAddr| {
        plane.workloads.values().find(|workload| {
            let mut nets = workload.ipv4_nets.iter().chain(&workload.ipv6_nets);
            nets.any(|net| contains(net, address))
        })
    };
    let egress = |workload: &WorkloadEndpoint| {
        let policies = |tier: &TierInfo| tier.egress_policies.clone();
        decide(plane, workload, policies, |rules| rules.1, packet)
    };
    let ingress = |workload: &WorkloadEndpoint| {
        let policies = |tier: &TierInfo| tier.ingress_policies.clone();
        decide(plane, workload, policies, |rules| rules.0, packet)
    };
    end(packet.source).is_none_or(egress) && end(packet.destination).is_none_or(ingress)
}

type Both<'a> = (&'a [Rule], &'a [Rule]);

fn decide(
    plane: &Listener,
    workload: &WorkloadEndpoint,
    policies: fn(&TierInfo) -> Vec<PolicyId>,
    side: for<'a> fn(Both<'a>) -> &'a [Rule],
    packet: &Packet,
) -> bool {
    for tier in &workload.tiers {
        let mut real = policies(tier);
        real.retain(|id| !id.is_staged());
        let decided = real.iter().find_map(|id| {
            let policy = &plane.policies[id];
            first(plane, side((&policy.inbound_rules, &policy.outbound_rules)), packet)
        });
        match decided {
            Some(Decision::Allow) => return true,
            Some(Decision::Deny) => return false,
            Some(Decision::Pass) => {}
            None if real.is_empty() || tier.default_action == "Pass" => {}
            None => return false,
        }
    }
    let profiles = workload.profile_ids.iter().filter_map(|id| plane.profiles.get(id));
    let mut decided = profiles.filter_map(|(inbound, outbound)| first(plane, side((inbound, outbound)), packet));
    decided.next() == Some(Decision::Allow)
}

fn first(plane: &Listener, rules: &[Rule], packet: &Packet) -> Option<Decision> {
    let matching = rules.iter().filter(|rule| matches(plane, rule, packet));
    let decisions = matching.filter_map(|rule| match rule.action.as_str() {
        "allow" => Some(Decision::Allow),
        "deny" => Some(Decision::Deny),
        "next-tier" => Some(Decision::Pass),
        "log" => None,
        other => panic!("no action {other}"),
    });
    decisions.into_iter().next()
}

fn matches(plane: &Listener, rule: &Rule, packet: &Packet) -> bool {
    let version = match rule.ip_version {
        None => true,
        Some(IpVersion::V4) => packet.source.is_ipv4(),
        Some(IpVersion::V6) => packet.source.is_ipv6(),
    };
    let icmp = |of: &Icmp| {
        packet
            .icmp
            .is_some_and(|(r#type, code)| of.r#type == r#type && of.code.is_none_or(|of| of == code))
    };
    let service = rule.dst_ip_port_set_ids.iter().all(|set| {
        has_port(plane, set, packet.destination, packet.protocol, packet.port) //
    });
    version
        && rule
            .protocol
            .as_ref()
            .is_none_or(|protocol| number(protocol) == packet.protocol)
        && rule
            .not_protocol
            .as_ref()
            .is_none_or(|protocol| number(protocol) != packet.protocol)
        && rule.icmp.as_ref().is_none_or(icmp)
        && !rule.not_icmp.as_ref().is_some_and(icmp)
        && service
        && end_matches(plane, &rule.src, packet.source, packet.protocol, packet.source_port)
        && end_matches(plane, &rule.dst, packet.destination, packet.protocol, packet.port)
}

fn end_matches(plane: &Listener, end: &RuleEnd, address: IpAddr, protocol: u8, port: u16) -> bool {
    let in_net = |nets: &[String]| nets.iter().any(|net| contains(net, address));
    let in_set = |id: &String| plane.sets[id].keys().any(|net| contains(net, address));
    let in_range = |ranges: &[PortRange]| ranges.iter().any(|range| (range.first..=range.last).contains(&port));
    let named = |ids: &[String]| ids.iter().any(|id| has_port(plane, id, address, protocol, port));
    let any_port = end.ports.is_empty() && end.named_port_ip_set_ids.is_empty();
    (end.net.is_empty() || in_net(&end.net))
        && !in_net(&end.not_net)
        && end.ip_set_ids.iter().all(in_set)
        && !end.not_ip_set_ids.iter().any(in_set)
        && (any_port || in_range(&end.ports) || named(&end.named_port_ip_set_ids))
        && !in_range(&end.not_ports)
        && !named(&end.not_named_port_ip_set_ids)
}

fn has_port(plane: &Listener, id: &str, address: IpAddr, protocol: u8, port: u16) -> bool {
    let name = match protocol {
        6 => "tcp",
        17 => "udp",
        132 => "sctp",
        _ => return false,
    };
    plane.sets[id].contains_key(&format!("{address},{name}:{port}"))
}

fn number(protocol: &Protocol) -> u8 {
    match protocol {
        Protocol::Number(number) => *number,
        Protocol::Name(name) => match name.as_str() {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "icmpv6" => 58,
            "sctp" => 132,
            "udplite" => 136,
            other => panic!("no protocol {other}"),
        },
    }
}

fn contains(net: &str, address: IpAddr) -> bool {
    let (network, length) = net.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u32::from(network) ^ u32::from(address))
                .checked_shr(32 - length)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address))
                .checked_shr(128 - length)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}
