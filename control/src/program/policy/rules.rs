//! Rules as Felix writes them, to rules as the classifier reads them. What is not understood never allows: the policy
//! that has it denies everything, and a warning says so.

use std::collections::HashMap;

use classifier::rule::{Action, End, Icmp, IpVersion, Ports, Rule, SetId};
use ipnet::IpNet;

use crate::program::felix;

/// What cannot be carried out as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Odd {
    #[error("the action `{0}` is none of allow, deny, pass, next-tier and log")]
    Action(String),
    #[error("the protocol `{0}` is not known")]
    Protocol(String),
    #[error("the network `{0}` is none")]
    Network(String),
    #[error("it looks at HTTP, which packets do not tell; it never matches")]
    Http,
}

/// The sets that are there, by name.
pub(super) type SetIds = HashMap<String, SetId>;

/// One rule, and what is odd about it.
pub(super) fn rule(written: &felix::Rule, sets: &SetIds) -> (Rule, Option<Odd>) {
    match convert(written, sets) {
        // A plain allow it must not be, and nothing else is meant by it.
        Ok(rule) if written.http_match && rule.action == Action::Allow => (never(), Some(Odd::Http)),
        Ok(_) if written.http_match => (unfinished(), Some(Odd::Http)),
        Ok(rule) => (rule, None),
        Err(odd) => (unfinished(), Some(odd)),
    }
}

/// The names of the sets that a rule mentions.
pub(super) fn set_names(rule: &felix::Rule) -> impl Iterator<Item = &String> {
    let ends = [&rule.src, &rule.dst].into_iter();
    let lists = ends.flat_map(|end| {
        [
            &end.ip_set_ids,
            &end.not_ip_set_ids,
            &end.named_port_ip_set_ids,
            &end.not_named_port_ip_set_ids,
        ]
    });
    lists.chain([&rule.dst_ip_port_set_ids]).flatten()
}

/// The number of a protocol, by name in any case, or by number.
pub fn protocol_number(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}

/// A rule that matches no packet: its place is taken.
fn never() -> Rule {
    Rule {
        ip_version: Some(IpVersion::V6),
        source: End {
            networks: vec![IpNet::from(std::net::IpAddr::from([0, 0, 0, 0]))],
            ..End::default()
        },
        ..Rule::all(Action::Deny)
    }
}

/// A rule that makes its policy deny everything.
fn unfinished() -> Rule {
    Rule {
        source: End {
            sets: vec![SetId::MISSING],
            ..End::default()
        },
        ..Rule::all(Action::Deny)
    }
}

fn convert(written: &felix::Rule, sets: &SetIds) -> Result<Rule, Odd> {
    let protocol = |protocol: &Option<felix::Protocol>| match protocol {
        None => Ok(None),
        Some(felix::Protocol::Number(number)) => Ok(Some(*number)),
        Some(felix::Protocol::Name(name)) => {
            let number = protocol_number(name).ok_or_else(|| Odd::Protocol(name.clone()))?;
            Ok(Some(number))
        }
    };
    let icmp = |icmp: &Option<felix::Icmp>| {
        icmp.map(|icmp| Icmp {
            kind: icmp.r#type,
            code: icmp.code,
        })
    };
    Ok(Rule {
        action: action(&written.action)?,
        ip_version: written.ip_version.map(|version| match version {
            felix::IpVersion::V4 => IpVersion::V4,
            felix::IpVersion::V6 => IpVersion::V6,
        }),
        protocol: protocol(&written.protocol)?,
        not_protocol: protocol(&written.not_protocol)?,
        icmp: icmp(&written.icmp),
        not_icmp: icmp(&written.not_icmp),
        source: end(&written.src, sets)?,
        target: end(&written.dst, sets)?,
        services: ids(&written.dst_ip_port_set_ids, sets),
    })
}

fn action(written: &str) -> Result<Action, Odd> {
    Ok(match written.to_ascii_lowercase().as_str() {
        "allow" | "" => Action::Allow,
        "deny" => Action::Deny,
        "pass" | "next-tier" => Action::Pass,
        "log" => Action::Log,
        _ => return Err(Odd::Action(written.to_owned())),
    })
}

fn end(written: &felix::RuleEnd, sets: &SetIds) -> Result<End, Odd> {
    let ports = |ranges: &[felix::PortRange]| {
        ranges
            .iter()
            .map(|range| Ports {
                first: range.first,
                last: range.last,
            })
            .collect()
    };
    Ok(End {
        networks: networks(&written.net)?,
        not_networks: networks(&written.not_net)?,
        sets: ids(&written.ip_set_ids, sets),
        not_sets: ids(&written.not_ip_set_ids, sets),
        ports: ports(&written.ports),
        named_ports: ids(&written.named_port_ip_set_ids, sets),
        not_ports: ports(&written.not_ports),
        not_named_ports: ids(&written.not_named_port_ip_set_ids, sets),
    })
}

fn networks(written: &[String]) -> Result<Vec<IpNet>, Odd> {
    let parse = |text: &String| network(text).ok_or_else(|| Odd::Network(text.clone()));
    written.iter().map(parse).collect()
}

fn ids(names: &[String], sets: &SetIds) -> Vec<SetId> {
    let id = |name| sets.get(name).copied().unwrap_or(SetId::MISSING);
    names.iter().map(id).collect()
}

/// A prefix, or an address as one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
        .map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_never_allows() {
        let sets = SetIds::new();
        let written = |change: fn(&mut felix::Rule)| {
            let mut written = felix::Rule::default();
            change(&mut written);
            rule(&written, &sets)
        };
        assert_eq!(written(|_| {}), (Rule::all(Action::Allow), None));
        let (rule, odd) = written(|rule| rule.http_match = true);
        assert_eq!((rule, odd), (never(), Some(Odd::Http)));
        for odd in [
            written(|rule| rule.action = "permit".to_owned()),
            written(|rule| rule.protocol = Some(felix::Protocol::Name("gre".to_owned()))),
            written(|rule| rule.src.net = vec!["10.0.0.0/33".to_owned()]),
        ] {
            assert!(odd.0 == unfinished() && odd.1.is_some(), "{odd:?}");
        }
        let (rule, odd) = written(|rule| rule.dst.ip_set_ids = vec!["s:none".to_owned()]);
        assert_eq!((rule.target.sets, odd), (vec![SetId::MISSING], None));
    }
}
