//! `kind: NetworkPolicy` of `networking.k8s.io/v1`: who may talk to pods, and whom they may talk to.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LabelSelector;
use crate::resource::calico::{self, PolicyType, Ports, Protocol, check_subdomain};
use crate::resource::{Body, Invalid, fields};

/// The most rules of one direction of one policy, after what each has of peers and ports.
const RULES_MAX: usize = calico::RULES_MAX;

/// The body of a NetworkPolicy of Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesNetworkPolicy {
    /// What the policy is.
    #[serde(default)]
    pub spec: KubernetesNetworkPolicySpec,
    /// What a cluster says of it; means nothing here.
    #[serde(default, skip_serializing)]
    pub status: Option<Value>,
}

/// What a NetworkPolicy of Kubernetes is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesNetworkPolicySpec {
    /// The pods it is for, in its namespace.
    pub pod_selector: LabelSelector,
    /// Who may talk to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Whom they may talk to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// The directions it decides. Default ingress, and egress if it has rules for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
}

/// Who may talk to pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngressRule {
    /// Any of these; everybody if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// To any of these; all ports if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// Whom pods may talk to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressRule {
    /// Any of these; everybody if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// To any of these; all ports if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// The other end: pods, or addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Peer {
    /// Such pods; all of them without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// In such namespaces; in the policy's own without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Or these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// In this prefix.
    #[serde(deserialize_with = "fields::destination")]
    pub cidr: IpNet,
    /// In none of these, which are inside of it.
    #[serde(
        default,
        deserialize_with = "crate::resource::calico::nets",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub except: Vec<IpNet>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPort {
    /// TCP, UDP or SCTP. Default TCP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// A number or a name; all ports without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Ports>,
    /// The last port of a range that starts at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

impl PolicyPort {
    /// What a rule says of the destination; nothing where it is any port.
    pub fn ports(&self) -> Option<Ports> {
        match (&self.port, self.end_port) {
            (Some(Ports::Range(first, _)), Some(last)) => Some(Ports::Range(*first, last)),
            (port, _) => port.clone(),
        }
    }
}

impl KubernetesNetworkPolicySpec {
    /// Whether it decides packets to, and packets from its pods.
    pub fn directions(&self) -> (bool, bool) {
        if self.policy_types.is_empty() {
            return (true, !self.egress.is_empty());
        }
        let has = |of| self.policy_types.contains(&of);
        (has(PolicyType::Ingress), has(PolicyType::Egress))
    }

    pub(in crate::resource) fn check(&self) -> Result<(), Invalid> {
        self.pod_selector.check("spec.podSelector")?;
        let ingress = self.ingress.iter().map(|rule| (&rule.from, &rule.ports));
        check_direction(ingress.collect(), "spec.ingress", "from")?;
        let egress = self.egress.iter().map(|rule| (&rule.to, &rule.ports));
        check_direction(egress.collect(), "spec.egress", "to")
    }

    pub(in crate::resource) fn row(&self) -> Vec<String> {
        let (ingress, egress) = self.directions();
        let types = [(ingress, "Ingress"), (egress, "Egress")];
        let types: Vec<_> = types
            .into_iter()
            .filter_map(|(has, name)| has.then_some(name))
            .collect();
        vec![self.pod_selector.expression().to_string(), types.join(", ")]
    }
}

impl Body for KubernetesNetworkPolicy {
    const API_VERSION: &'static str = "networking.k8s.io/v1";
    const KIND: &'static str = "NetworkPolicy";
    /// Its short name is taken by Calico's: as for calicoctl, `networkpolicies` alone are those.
    const PLURAL: &'static str = "networkpolicies.networking.k8s.io";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &["POD SELECTOR", "TYPES"];

    fn row(&self) -> Vec<String> {
        self.spec.row()
    }

    fn check(&self) -> Result<(), Invalid> {
        self.spec.check()
    }

    fn check_name(name: &str) -> Result<(), String> {
        check_subdomain(name)
    }
}

type Direction<'a> = Vec<(&'a Vec<Peer>, &'a Vec<PolicyPort>)>;

fn check_direction(rules: Direction<'_>, field: &str, end: &str) -> Result<(), Invalid> {
    let size = |of: usize| of.max(1);
    let total: usize = rules
        .iter()
        .map(|(peers, ports)| size(peers.len()).saturating_mul(size(ports.len())))
        .sum();
    if total > RULES_MAX {
        let reason = format!("makes {total} rules of its peers and ports; expected at most {RULES_MAX}");
        return Err(Invalid::at(field, reason));
    }
    for (at, (peers, ports)) in rules.into_iter().enumerate() {
        for (number, peer) in peers.iter().enumerate() {
            check_peer(peer, &format!("{field}[{at}].{end}[{number}]"))?;
        }
        for (number, port) in ports.iter().enumerate() {
            check_port(port, &format!("{field}[{at}].ports[{number}]"))?;
        }
    }
    Ok(())
}

fn check_peer(peer: &Peer, field: &str) -> Result<(), Invalid> {
    let selectors = [
        ("podSelector", &peer.pod_selector),
        ("namespaceSelector", &peer.namespace_selector),
    ];
    let mut said = selectors
        .into_iter()
        .filter_map(|(name, selector)| Some((name, selector.as_ref()?)));
    match (&peer.ip_block, said.clone().next()) {
        (Some(_), Some(_)) => Err(Invalid::at(
            format!("{field}.ipBlock"),
            "stands beside a selector; write a peer for each",
        )),
        (None, None) => Err(Invalid::at(
            field,
            "says nothing; expected podSelector, namespaceSelector or ipBlock",
        )),
        (None, Some(_)) => said.try_for_each(|(name, selector)| selector.check(&format!("{field}.{name}"))),
        (Some(block), None) => {
            let outside = block
                .except
                .iter()
                .find(|except| !block.cidr.contains(*except) || **except == block.cidr);
            outside.map_or(Ok(()), |except| {
                let reason = format!("{except} is not a part of {}", block.cidr);
                Err(Invalid::at(format!("{field}.ipBlock.except"), reason))
            })
        }
    }
}

fn check_port(port: &PolicyPort, field: &str) -> Result<(), Invalid> {
    if !port.protocol.has_ports() {
        let reason = format!("{} has no ports; expected TCP, UDP or SCTP", port.protocol);
        return Err(Invalid::at(format!("{field}.protocol"), reason));
    }
    match (&port.port, port.end_port) {
        (Some(Ports::Range(first, last)), _) if first != last || *first == 0 => Err(Invalid::at(
            format!("{field}.port"),
            "expected one port from 1 to 65535; a range has an `endPort`",
        )),
        (Some(Ports::Range(first, _)), Some(last)) if last < *first => Err(Invalid::at(
            format!("{field}.endPort"),
            format!("is less than port {first}"),
        )),
        (None | Some(Ports::Named(_)), Some(_)) => Err(Invalid::at(
            format!("{field}.endPort"),
            "needs a `port` that is a number",
        )),
        _ => Ok(()),
    }
}

fn tcp() -> Protocol {
    Protocol::Name("TCP")
}
