//! Rules as they are written.

use super::messages::MessageError;
use super::wire;
use crate::program::felix::{Icmp, IpVersion, PortRange, Protocol, Rule, RuleEnd};

/// Reads the rules of one direction.
///
/// # Errors
/// A number is out of range: a rule that were left out could allow too much.
pub fn read(rules: Vec<wire::Rule>) -> Result<Vec<Rule>, MessageError> {
    rules.into_iter().map(rule).collect()
}

fn rule(rule: wire::Rule) -> Result<Rule, MessageError> {
    let not_icmp = rule.not_icmp.map(|kind| match kind {
        wire::NotIcmp::Type(kind) => wire::Icmp::Type(kind),
        wire::NotIcmp::TypeCode(both) => wire::Icmp::TypeCode(both),
    });
    Ok(Rule {
        action: rule.action,
        ip_version: ip_version(rule.ip_version)?,
        protocol: protocol(rule.protocol)?,
        not_protocol: protocol(rule.not_protocol)?,
        src: RuleEnd {
            net: rule.src_net,
            not_net: rule.not_src_net,
            ip_set_ids: rule.src_ip_set_ids,
            not_ip_set_ids: rule.not_src_ip_set_ids,
            ports: ports(rule.src_ports)?,
            not_ports: ports(rule.not_src_ports)?,
            named_port_ip_set_ids: rule.src_named_port_ip_set_ids,
            not_named_port_ip_set_ids: rule.not_src_named_port_ip_set_ids,
        },
        dst: RuleEnd {
            net: rule.dst_net,
            not_net: rule.not_dst_net,
            ip_set_ids: rule.dst_ip_set_ids,
            not_ip_set_ids: rule.not_dst_ip_set_ids,
            ports: ports(rule.dst_ports)?,
            not_ports: ports(rule.not_dst_ports)?,
            named_port_ip_set_ids: rule.dst_named_port_ip_set_ids,
            not_named_port_ip_set_ids: rule.not_dst_named_port_ip_set_ids,
        },
        dst_ip_port_set_ids: rule.dst_ip_port_set_ids,
        icmp: icmp(rule.icmp)?,
        not_icmp: icmp(not_icmp)?,
        http_match: rule.http_match.is_some(),
    })
}

fn ip_version(number: i32) -> Result<Option<IpVersion>, MessageError> {
    match number {
        0 => Ok(None),
        4 => Ok(Some(IpVersion::V4)),
        6 => Ok(Some(IpVersion::V6)),
        number => Err(MessageError::OutOfRange {
            what: "IP version",
            number,
        }),
    }
}

fn protocol(protocol: Option<wire::Protocol>) -> Result<Option<Protocol>, MessageError> {
    use wire::NumberOrName as Written;
    let written = protocol.map(|protocol| protocol.number_or_name.unwrap_or(Written::Number(0)));
    Ok(match written {
        None => None,
        Some(Written::Name(name)) => Some(Protocol::Name(name)),
        Some(Written::Number(number)) => Some(Protocol::Number(in_range("protocol", number)?)),
    })
}

fn ports(ranges: Vec<wire::PortRange>) -> Result<Vec<PortRange>, MessageError> {
    let range = |range: wire::PortRange| {
        Ok(PortRange {
            first: in_range("port", range.first)?,
            last: in_range("port", range.last)?,
        })
    };
    ranges.into_iter().map(range).collect()
}

fn icmp(kind: Option<wire::Icmp>) -> Result<Option<Icmp>, MessageError> {
    let (kind, code) = match kind {
        None => return Ok(None),
        Some(wire::Icmp::Type(kind)) => (kind, None),
        Some(wire::Icmp::TypeCode(both)) => (both.kind, Some(both.code)),
    };
    Ok(Some(Icmp {
        r#type: in_range("ICMP type", kind)?,
        code: code.map(|code| in_range("ICMP code", code)).transpose()?,
    }))
}

fn in_range<T: TryFrom<i32>>(what: &'static str, number: i32) -> Result<T, MessageError> {
    T::try_from(number).map_err(|_| MessageError::OutOfRange { what, number })
}
