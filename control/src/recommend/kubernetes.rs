//! What was seen, in the words of Kubernetes' NetworkPolicy: fewer than Calico's, so some of it cannot be said.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{EGRESS, Ends, Group, INGRESS, RuleBody, RuleKey, Rules, name, ports_in_a_row, seen_with};

/// Protocols that it has names for.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// The label that Kubernetes gives to each namespace: its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A StagedKubernetesNetworkPolicy; what it cannot say goes to `notes`.
pub(super) fn policy(group: &Group, rules: &Rules, notes: &mut BTreeSet<String>) -> Value {
    let [ingress, egress] = [INGRESS, EGRESS].map(|direction| list(group, &rules[direction], direction, notes));
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "StagedKubernetesNetworkPolicy",
        "metadata": {"name": format!("recommended-{}", name(&group.value)), "namespace": group.namespace},
        "spec": {
            "podSelector": selector(group),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    })
}

fn list(group: &Group, rules: &BTreeMap<RuleKey, RuleBody>, direction: usize, notes: &mut BTreeSet<String>) -> Value {
    let mut list = vec![];
    for (key, body) in rules {
        if !PROTOCOLS.contains(&key.protocol.as_str()) {
            let (namespace, value, protocol) = (&group.namespace, &group.value, &key.protocol);
            notes.insert(format!(
                "{namespace}/{value}: {protocol} was seen and is not allowed, for Kubernetes' NetworkPolicy has no word for it"
            ));
            continue;
        }
        for (ends, ports) in seen_with(key, body) {
            list.push(rule(key, &peers(&ends, group), ports, direction));
        }
    }
    list.into()
}

fn rule(key: &RuleKey, peers: &[Value], ports: &BTreeSet<u16>, direction: usize) -> Value {
    let one = |(first, last): (u16, u16)| match first == last {
        true => json!({"protocol": key.protocol, "port": first}),
        false => json!({"protocol": key.protocol, "port": first, "endPort": last}),
    };
    let mut written: Vec<Value> = ports_in_a_row(ports).into_iter().map(one).collect();
    if written.is_empty() {
        written.push(json!({"protocol": key.protocol}));
    }
    let field = if direction == INGRESS { "from" } else { "to" };
    json!({field: peers, "ports": written})
}

fn peers(ends: &Ends<'_>, group: &Group) -> Vec<Value> {
    match ends {
        Ends::Group(other) if other.namespace == group.namespace => vec![json!({"podSelector": selector(other)})],
        Ends::Group(other) => {
            let namespace = json!({"matchLabels": {NAMESPACE_NAME: other.namespace}});
            vec![json!({"podSelector": selector(other), "namespaceSelector": namespace})]
        }
        Ends::Nets(nets) => nets
            .iter()
            .map(|net| json!({"ipBlock": {"cidr": net.to_string()}}))
            .collect(),
    }
}

fn selector(group: &Group) -> Value {
    json!({"matchLabels": {group.label.as_str(): group.value}})
}
