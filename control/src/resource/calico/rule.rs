//! One rule of a policy or a profile, as Calico's API has it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{self, Ports, Protocol};
use super::policy::PolicyType;
use crate::agent::selector::Selector;
use crate::resource::{Invalid, check_label};

/// The most rules of one direction of one policy.
pub const RULES_MAX: usize = 20_000;

/// A rule: it matches where everything it says is so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What becomes of a packet that matches.
    pub action: Action,
    /// 4 or 6; either without it.
    #[serde(
        default,
        rename = "ipVersion",
        deserialize_with = "ip_version",
        skip_serializing_if = "Option::is_none"
    )]
    pub ip_version: Option<u8>,
    /// The protocol a packet has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The protocol it must not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<Protocol>,
    /// The ICMP message it has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpFields>,
    /// The ICMP message it must not be.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpFields>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub source: EntityRule,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub destination: EntityRule,
    /// Refused: no packet tells what is in an HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Value>,
    /// Annotations, which mean nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It may go.
    Allow,
    /// It is dropped.
    Deny,
    /// It is logged, and the next rule is asked.
    Log,
    /// The next tier is asked.
    Pass,
}

/// A type of ICMP message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpFields {
    /// The type, 0 to 254.
    #[serde(
        default,
        rename = "type",
        deserialize_with = "some_byte",
        skip_serializing_if = "Option::is_none"
    )]
    pub r#type: Option<u8>,
    /// The code, 0 to 255; any without it.
    #[serde(default, deserialize_with = "some_byte", skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Annotations of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// For people.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// What a rule says of one end of a packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EntityRule {
    /// In one of these prefixes.
    #[serde(deserialize_with = "fields::nets", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<IpNet>,
    /// In none of these.
    #[serde(deserialize_with = "fields::nets", skip_serializing_if = "Vec::is_empty")]
    pub not_nets: Vec<IpNet>,
    /// An endpoint or set that this selects; of a policy in a namespace, in that one, unless `namespaceSelector` says
    /// otherwise.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// None that this selects.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub not_selector: Option<Selector>,
    /// In a namespace that this selects; `global()` is what is in none.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Endpoints of these service accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// The endpoints of a service: as where packets go with their ports and nothing beside it, as where they come from
    /// with ports beside it at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// One of these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Ports>,
}

/// Service accounts by name, by label, or by both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceAccountMatch {
    /// One of these; any if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// One that this selects.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMatch {
    /// Its name.
    pub name: String,
    /// Its namespace; the policy's own without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl EntityRule {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where rules stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The direction, as seen from an endpoint.
    pub(super) direction: PolicyType,
    /// Whether what they stand in has a namespace, which is then theirs.
    pub(super) namespaced: bool,
}

/// Whether the rules of one direction go together.
pub(super) fn check_rules(rules: &[Rule], place: Place) -> Result<(), Invalid> {
    let field = match place.direction {
        PolicyType::Ingress => "spec.ingress",
        PolicyType::Egress => "spec.egress",
    };
    if rules.len() > RULES_MAX {
        let reason = format!(
            "has {} rules; expected at most {RULES_MAX}: write sets, not addresses",
            rules.len()
        );
        return Err(Invalid::at(field, reason));
    }
    for (at, rule) in rules.iter().enumerate() {
        check_rule(rule, place).map_err(|Invalid { field: inner, reason }| {
            let dot = if inner.is_empty() { "" } else { "." };
            Invalid::at(format!("{field}[{at}]{dot}{inner}"), reason)
        })?;
    }
    Ok(())
}

fn check_rule(rule: &Rule, place: Place) -> Result<(), Invalid> {
    if rule.http.is_some() {
        let reason = "matches HTTP, which is inside of connections; say it in a proxy, and protocol and ports here";
        return Err(Invalid::at("http", reason));
    }
    check_icmp(rule)?;
    check_families(rule)?;
    let ends = [("source", &rule.source), ("destination", &rule.destination)];
    for (name, end) in ends {
        let has_ports = rule.protocol.is_some_and(Protocol::has_ports);
        for (field, ports) in [("ports", &end.ports), ("notPorts", &end.not_ports)] {
            if !ports.is_empty() && !has_ports {
                let reason = "ports need a `protocol` that has them: TCP, UDP or SCTP";
                return Err(Invalid::at(format!("{name}.{field}"), reason));
            }
        }
        fields::not_global(end.selector.as_ref(), &format!("{name}.selector"))?;
        fields::not_global(end.not_selector.as_ref(), &format!("{name}.notSelector"))?;
        check_accounts(end, name)?;
    }
    check_services(rule, place)
}

fn check_icmp(rule: &Rule) -> Result<(), Invalid> {
    for (field, icmp) in [("icmp", rule.icmp), ("notICMP", rule.not_icmp)] {
        let Some(IcmpFields { r#type, code }) = icmp else {
            continue;
        };
        if !matches!(rule.protocol.map(Protocol::number), Some(1 | 58)) {
            return Err(Invalid::at(field, "needs `protocol: ICMP` or `protocol: ICMPv6`"));
        }
        if r#type.is_none() && code.is_some() {
            return Err(Invalid::at(
                format!("{field}.code"),
                "is a code of no type; give the `type`, too",
            ));
        }
        if r#type == Some(255) {
            return Err(Invalid::at(
                format!("{field}.type"),
                "is 255, which is reserved; expected 0 to 254",
            ));
        }
    }
    Ok(())
}

/// A rule is of one family at most, for prefixes of the other could never match.
fn check_families(rule: &Rule) -> Result<(), Invalid> {
    let protocol = match rule.protocol.map(Protocol::number) {
        Some(1) => Some((4, "protocol")),
        Some(58) => Some((6, "protocol")),
        _ => None,
    };
    let version = rule.ip_version.map(|version| (version, "ipVersion"));
    let nets = [
        ("source.nets", &rule.source.nets),
        ("source.notNets", &rule.source.not_nets),
        ("destination.nets", &rule.destination.nets),
        ("destination.notNets", &rule.destination.not_nets),
    ];
    let families = nets.into_iter().flat_map(|(field, nets)| {
        nets.iter().map(move |net| match net {
            IpNet::V4(_) => (4, field),
            IpNet::V6(_) => (6, field),
        })
    });
    let mut said = version.into_iter().chain(protocol).chain(families);
    let Some((first, by)) = said.next() else { return Ok(()) };
    match said.find(|(family, _)| *family != first) {
        Some((other, field)) => {
            let reason = format!("is of IPv{other}, and {by} of IPv{first}; write a rule for each");
            Err(Invalid::at(field, reason))
        }
        None => Ok(()),
    }
}

fn check_accounts(end: &EntityRule, name: &str) -> Result<(), Invalid> {
    let Some(accounts) = &end.service_accounts else {
        return Ok(());
    };
    let field = format!("{name}.serviceAccounts");
    fields::not_global(accounts.selector.as_ref(), &format!("{field}.selector"))?;
    for (at, account) in accounts.names.iter().enumerate() {
        fields::check_subdomain(account).map_err(|reason| Invalid::at(format!("{field}.names[{at}]"), reason))?;
    }
    Ok(())
}

/// A service is who a packet goes to or comes from, at the other end.
fn check_services(rule: &Rule, place: Place) -> Result<(), Invalid> {
    let (source, destination) = (("source", &rule.source), ("destination", &rule.destination));
    let ((near, own), (far, end), ports_beside) = match place.direction {
        PolicyType::Ingress => (destination, source, true),
        PolicyType::Egress => (source, destination, false),
    };
    if own.services.is_some() {
        let reason = format!("is the policy's own end in this direction, which its selector says; write it at `{far}`");
        return Err(Invalid::at(format!("{near}.services"), reason));
    }
    let Some(service) = &end.services else {
        return Ok(());
    };
    let field = format!("{far}.services");
    let mut alone = EntityRule {
        services: end.services.clone(),
        ..EntityRule::default()
    };
    if ports_beside {
        alone.ports.clone_from(&end.ports);
        alone.not_ports.clone_from(&end.not_ports);
    }
    if *end != alone {
        let reason =
            "stands beside other fields; a service says addresses and ports by itself, so leave the others out";
        return Err(Invalid::at(field, reason));
    }
    check_label(&service.name).map_err(|reason| Invalid::at(format!("{field}.name"), reason))?;
    match &service.namespace {
        Some(namespace) => check_label(namespace),
        None if place.namespaced => Ok(()),
        None => Err("is missing, and there is none to take its place; say where the service is".to_owned()),
    }
    .map_err(|reason| Invalid::at(format!("{field}.namespace"), reason))
}

fn ip_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        None => Ok(None),
        Some(4) => Ok(Some(4)),
        Some(6) => Ok(Some(6)),
        Some(other) => Err(serde::de::Error::custom(format_args!("expected 4 or 6, not {other}"))),
    }
}

fn some_byte<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    crate::resource::fields::within::<_, 0, 255>(deserializer).map(|byte| u8::try_from(byte).ok())
}
