//! Rules as written to rules of messages, with the sets they name.

use std::collections::BTreeMap;

use super::selector::{Expression, NAMESPACE};
use super::sets::{Definition, ServicePart};
use crate::program::felix;
use crate::resource::calico::{Action, EntityRule, IcmpFields, Ports, Protocol, Rule, ServiceAccountMatch};

/// What the labels of a namespace are seen under.
pub(super) const OF_NAMESPACE: &str = "pcns.";
/// What the labels of a service account are seen under.
pub(super) const OF_ACCOUNT: &str = "pcsa.";
/// What a workload of a service account is labelled with.
pub(super) const ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// The sets that rules name, by their names.
pub(super) type Named = BTreeMap<String, Definition>;

/// What one end of a packet has to be.
#[derive(Default)]
pub(super) struct End<'a> {
    /// Something such.
    pub(super) selected: Option<Expression>,
    /// Nothing such.
    pub(super) not_selected: Option<Expression>,
    pub(super) nets: Vec<String>,
    pub(super) not_nets: Vec<String>,
    pub(super) ports: &'a [Ports],
    pub(super) not_ports: &'a [Ports],
}

/// Rules of a policy in `namespace`, or in none.
pub(super) fn rules(rules: &[Rule], namespace: Option<&str>, named: &mut Named) -> Vec<felix::Rule> {
    rules.iter().map(|written| rule(written, namespace, named)).collect()
}

/// Namespaces that `selector` selects, as what is in them sees it.
pub(super) fn in_namespaces(selector: &Expression) -> Expression {
    selector.prefixed(OF_NAMESPACE, &Expression::Has(NAMESPACE.to_owned()))
}

/// An end in the form of messages.
pub(super) fn end(end: End<'_>, protocol: Option<Protocol>, named: &mut Named) -> felix::RuleEnd {
    let ports_of = end.selected.clone().unwrap_or(Expression::All);
    let mut name = |definition: Definition| {
        let id = definition.id();
        named.insert(id.clone(), definition);
        id
    };
    let protocol = protocol.map_or(0, Protocol::number);
    let mut named_ports = |ports: &[Ports]| -> Vec<String> {
        let names = ports.iter().filter_map(|ports| match ports {
            Ports::Named(port) => Some(port.clone()),
            Ports::Range(..) => None,
        });
        names
            .map(|port| name(Definition::NamedPort(ports_of.clone(), protocol, port)))
            .collect()
    };
    let named_port_ip_set_ids = named_ports(end.ports);
    let not_named_port_ip_set_ids = named_ports(end.not_ports);
    let mut set = |of: Option<Expression>| of.map(|of| name(Definition::Selector(of))).into_iter().collect();
    felix::RuleEnd {
        net: end.nets,
        not_net: end.not_nets,
        ip_set_ids: set(end.selected),
        not_ip_set_ids: set(end.not_selected),
        ports: ranges(end.ports),
        not_ports: ranges(end.not_ports),
        named_port_ip_set_ids,
        not_named_port_ip_set_ids,
    }
}

/// A protocol in the form of messages.
pub(super) fn protocol(protocol: Protocol) -> felix::Protocol {
    match protocol {
        Protocol::Name(name) => felix::Protocol::Name(name.to_ascii_lowercase()),
        Protocol::Number(number) => felix::Protocol::Number(number),
    }
}

fn rule(rule: &Rule, namespace: Option<&str>, named: &mut Named) -> felix::Rule {
    let mut src = entity(&rule.source, rule.protocol, namespace, named);
    src.ip_set_ids
        .extend(service(&rule.source, ServicePart::Addresses, namespace, named));
    felix::Rule {
        action: match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Log => "log",
            Action::Pass => "next-tier",
        }
        .to_owned(),
        ip_version: rule.ip_version.map(|version| match version {
            4 => felix::IpVersion::V4,
            _ => felix::IpVersion::V6,
        }),
        protocol: rule.protocol.map(protocol),
        not_protocol: rule.not_protocol.map(protocol),
        src,
        dst: entity(&rule.destination, rule.protocol, namespace, named),
        dst_ip_port_set_ids: service(&rule.destination, ServicePart::Ports, namespace, named),
        icmp: rule.icmp.and_then(icmp),
        not_icmp: rule.not_icmp.and_then(icmp),
        http_match: rule.http.is_some(),
    }
}

fn entity(of: &EntityRule, protocol: Option<Protocol>, namespace: Option<&str>, named: &mut Named) -> felix::RuleEnd {
    let ends = End {
        selected: selected(of, namespace),
        not_selected: of.not_selector.as_ref().map(|selector| selector.expression().clone()),
        nets: of.nets.iter().map(ToString::to_string).collect(),
        not_nets: of.not_nets.iter().map(ToString::to_string).collect(),
        ports: &of.ports,
        not_ports: &of.not_ports,
    };
    end(ends, protocol, named)
}

/// What an end has to be by its labels. As soon as a policy in a namespace speaks of labels, it speaks of its own
/// namespace, unless it names others.
fn selected(of: &EntityRule, namespace: Option<&str>) -> Option<Expression> {
    let accounts = of.service_accounts.as_ref().and_then(accounts);
    let labels = of.selector.as_ref().map(|selector| selector.expression().clone());
    let within = match &of.namespace_selector {
        Some(selector) => Some(in_namespaces(selector.expression())),
        None => namespace
            .filter(|_| accounts.is_some() || labels.is_some() || of.not_selector.is_some())
            .map(|namespace| Expression::Equal(NAMESPACE.to_owned(), namespace.to_owned())),
    };
    let parts: Vec<_> = within.into_iter().chain(accounts).chain(labels).collect();
    (!parts.is_empty()).then(|| Expression::all_of(parts))
}

fn accounts(of: &ServiceAccountMatch) -> Option<Expression> {
    let labels = of.selector.as_ref();
    let labels = labels.map(|selector| selector.expression().prefixed(OF_ACCOUNT, &Expression::All));
    let names = of.names.iter().cloned().collect();
    let names = (!of.names.is_empty()).then(|| Expression::In(ACCOUNT.to_owned(), names));
    let parts: Vec<_> = labels.into_iter().chain(names).collect();
    (!parts.is_empty()).then(|| Expression::all_of(parts))
}

fn service(of: &EntityRule, part: ServicePart, namespace: Option<&str>, named: &mut Named) -> Vec<String> {
    let definition = of.services.as_ref().map(|service| {
        let namespace = service.namespace.as_deref().or(namespace).unwrap_or_default();
        Definition::Service((namespace.to_owned(), service.name.clone()), part)
    });
    let name = |definition: Definition| {
        let id = definition.id();
        named.insert(id.clone(), definition);
        id
    };
    definition.map(name).into_iter().collect()
}

fn icmp(fields: IcmpFields) -> Option<felix::Icmp> {
    fields.r#type.map(|r#type| felix::Icmp {
        r#type,
        code: fields.code,
    })
}

fn ranges(ports: &[Ports]) -> Vec<felix::PortRange> {
    let ranges = ports.iter().filter_map(|ports| match ports {
        Ports::Range(first, last) => Some(felix::PortRange {
            first: *first,
            last: *last,
        }),
        Ports::Named(_) => None,
    });
    ranges.collect()
}
