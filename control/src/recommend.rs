//! From flows that were seen to policies that would allow just those: staged ones, for a person to read and to enforce.
//!
//! Workloads are grouped by namespace and the label that says what they are; each group gets one policy, with a rule for
//! each kind of peer. What was denied is not proposed.

mod kubernetes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::flow_logs::{EndKind, FlowLog, LogEnd, workload_name};
use crate::resource::{Kind, Resource};
use crate::store::Store;

/// Labels that say what a workload is, the best first.
const TELLING: [&str; 3] = ["app", "k8s-app", "app.kubernetes.io/name"];
/// Addresses of one /24, or one /64, that are written one by one; of more, the prefix is.
const ADDRESSES_MAX: usize = 8;

/// Policies that would allow what was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    /// What they cannot say, in sentences.
    pub notes: Vec<String>,
    /// The policies: documents of kind StagedNetworkPolicy, or StagedKubernetesNetworkPolicy.
    #[schema(value_type = Vec<Object>)]
    pub policies: Vec<Value>,
}

/// In whose words policies are proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Calico's StagedNetworkPolicy, which says everything that was seen.
    #[default]
    Calico,
    /// StagedKubernetesNetworkPolicy, for who enforces Kubernetes' NetworkPolicy.
    Kubernetes,
}

/// Workloads that one policy is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    namespace: String,
    label: String,
    value: String,
}

/// The other end of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Group(Group),
    /// A set, by its prefixes.
    Nets(Vec<IpNet>),
    /// All addresses without a name.
    Addresses,
}

/// What a rule lets through, but for ports and addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RuleKey {
    peer: Peer,
    protocol: String,
    icmp: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct RuleBody {
    ports: BTreeSet<u16>,
    /// Of peers that are addresses, each with the ports it was seen with.
    addresses: BTreeMap<IpAddr, BTreeSet<u16>>,
}

/// Rules for packets to, and from, a group.
type Rules = [BTreeMap<RuleKey, RuleBody>; 2];

const INGRESS: usize = 0;
const EGRESS: usize = 1;

/// Proposes policies for the workloads of `namespace`, or of all, that would allow the flows of `logs` that were allowed.
pub fn recommend(logs: &[FlowLog], store: &Store, namespace: Option<&str>, form: Form) -> Recommendation {
    let known = Known::of(store);
    let mut groups: BTreeMap<Group, Rules> = BTreeMap::new();
    let mut notes = BTreeSet::new();
    for log in logs.iter().filter(|log| log.verdict.action == "allow") {
        if log.source.kind == EndKind::Other {
            notes.insert(
                "there were too many different flows at a time: those added up as `(others)` are not allowed"
                    .to_owned(),
            );
            continue;
        }
        for (direction, mine, other) in [(EGRESS, &log.source, &log.target), (INGRESS, &log.target, &log.source)] {
            if mine.kind != EndKind::Workload {
                continue;
            }
            let name = mine.name.as_deref().unwrap_or_default();
            match known.group(mine) {
                Some(group) if namespace.is_none_or(|wanted| wanted == group.namespace) => {
                    add(
                        &mut groups.entry(group).or_default()[direction],
                        known.peer(other),
                        log,
                        other,
                    );
                }
                Some(_) => {}
                None => {
                    notes.insert(format!(
                        "{name} is gone, or has none of the labels {}: no policy is for it",
                        TELLING.join(", ")
                    ));
                }
            }
        }
    }
    let policies = groups.iter().map(|(group, rules)| match form {
        Form::Calico => policy(group, rules),
        Form::Kubernetes => kubernetes::policy(group, rules, &mut notes),
    });
    Recommendation {
        policies: policies.collect(),
        notes: notes.into_iter().collect(),
    }
}

fn add(rules: &mut BTreeMap<RuleKey, RuleBody>, peer: Peer, log: &FlowLog, other: &LogEnd) {
    let is_addresses = peer == Peer::Addresses;
    let key = RuleKey {
        peer,
        protocol: protocol(&log.protocol),
        icmp: log.icmp.clone(),
    };
    let body = rules.entry(key).or_default();
    match other.address.as_ref().and_then(|address| address.parse().ok()) {
        Some(address) if is_addresses => body.addresses.entry(address).or_default().extend(log.port),
        _ => body.ports.extend(log.port),
    }
}

/// What resources say of workloads and sets.
struct Known {
    workloads: BTreeMap<String, Group>,
    sets: BTreeMap<(EndKind, String), Vec<IpNet>>,
}

impl Known {
    fn of(store: &Store) -> Self {
        let mut known = Self {
            workloads: BTreeMap::new(),
            sets: BTreeMap::new(),
        };
        for (key, resource) in store.of_kind(Kind::WorkloadEndpoint) {
            let labels = &resource.metadata().labels;
            let telling = TELLING.iter().find_map(|label| Some((*label, labels.get(*label)?)));
            if let (Some((label, value)), Some(namespace)) = (telling, &key.namespace) {
                let group = Group {
                    namespace: namespace.clone(),
                    label: label.to_owned(),
                    value: value.clone(),
                };
                known.workloads.insert(workload_name(key, Some(resource)), group);
            }
        }
        for kind in [Kind::NetworkSet, Kind::GlobalNetworkSet] {
            for (key, resource) in store.of_kind(kind) {
                let (kind, nets) = match &**resource {
                    Resource::NetworkSet(object) => (EndKind::Set, &object.body.spec.nets),
                    Resource::GlobalNetworkSet(object) => (EndKind::GlobalSet, &object.body.spec.nets),
                    _ => continue,
                };
                known.sets.insert((kind, workload_name(key, None)), nets.clone());
            }
        }
        known
    }

    fn group(&self, end: &LogEnd) -> Option<Group> {
        self.workloads.get(end.name.as_deref()?).cloned()
    }

    fn peer(&self, end: &LogEnd) -> Peer {
        let name = end.name.clone().unwrap_or_default();
        let set = || self.sets.get(&(end.kind, name)).cloned().map(Peer::Nets);
        match end.kind {
            EndKind::Workload => self.group(end).map(Peer::Group),
            EndKind::Set | EndKind::GlobalSet => set(),
            _ => None,
        }
        .unwrap_or(Peer::Addresses)
    }
}

/// As policies have it.
fn protocol(name: &str) -> String {
    match name {
        "icmpv6" | "icmp6" => "ICMPv6".to_owned(),
        "udplite" => "UDPLite".to_owned(),
        name => name.to_ascii_uppercase(),
    }
}

fn policy(group: &Group, rules: &Rules) -> Value {
    let lists = [INGRESS, EGRESS].map(|direction| {
        let rules = rules[direction].iter();
        let rules = rules.flat_map(|(key, body)| rules_of(key, body, group, direction));
        Value::Array(rules.collect())
    });
    let [ingress, egress] = lists;
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "StagedNetworkPolicy",
        "metadata": {"name": format!("recommended-{}", name(&group.value)), "namespace": group.namespace},
        "spec": {
            "tier": "default",
            "selector": selector(group),
            "types": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    })
}

/// What of a label's value can be in the name of a policy.
fn name(value: &str) -> String {
    let value = value.to_ascii_lowercase().replace('_', "-");
    value
        .trim_matches(|letter: char| !letter.is_ascii_alphanumeric())
        .to_owned()
}

fn selector(group: &Group) -> String {
    format!("{} == '{}'", group.label, group.value)
}

fn rules_of(key: &RuleKey, body: &RuleBody, group: &Group, direction: usize) -> Vec<Value> {
    let rules = seen_with(key, body).into_iter();
    rules
        .map(|(ends, ports)| rule(key, entity(&ends, group), ports, direction))
        .collect()
}

/// The other ends of a rule.
enum Ends<'a> {
    Group(&'a Group),
    Nets(Vec<IpNet>),
}

/// The other ends that are one rule each, with the ports that they were seen with.
fn seen_with<'a>(key: &'a RuleKey, body: &'a RuleBody) -> Vec<(Ends<'a>, &'a BTreeSet<u16>)> {
    match &key.peer {
        Peer::Group(other) => vec![(Ends::Group(other), &body.ports)],
        Peer::Nets(nets) => vec![(Ends::Nets(nets.clone()), &body.ports)],
        Peer::Addresses => {
            // Addresses that were seen with the same ports stand together.
            let mut together: BTreeMap<&BTreeSet<u16>, Vec<IpAddr>> = BTreeMap::new();
            for (address, ports) in &body.addresses {
                together.entry(ports).or_default().push(*address);
            }
            let rules = together.into_iter();
            rules
                .map(|(ports, addresses)| (Ends::Nets(nets(&addresses)), ports))
                .collect()
        }
    }
}

fn entity(ends: &Ends<'_>, group: &Group) -> Map<String, Value> {
    match ends {
        Ends::Group(other) => {
            let mut peer = Map::from_iter([("selector".to_owned(), selector(other).into())]);
            if other.namespace != group.namespace {
                let namespace = format!("projectcalico.org/name == '{}'", other.namespace);
                peer.insert("namespaceSelector".to_owned(), namespace.into());
            }
            peer
        }
        Ends::Nets(nets) => {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            Map::from_iter([("nets".to_owned(), nets.into())])
        }
    }
}

/// Few addresses as they are; of many that are near each other, what they have in common.
fn nets(addresses: &[IpAddr]) -> Vec<IpNet> {
    let mut near: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
    for address in addresses {
        let length = if address.is_ipv4() { 24 } else { 64 };
        if let Ok(net) = IpNet::new(*address, length) {
            near.entry(net.trunc()).or_default().push(IpNet::from(*address));
        }
    }
    let nets = near.into_iter().flat_map(|(net, addresses)| {
        if addresses.len() > ADDRESSES_MAX {
            vec![net]
        } else {
            addresses
        }
    });
    IpNet::aggregate(&nets.collect())
}

fn rule(key: &RuleKey, peer: Map<String, Value>, ports: &BTreeSet<u16>, direction: usize) -> Value {
    let (mut source, mut destination) = match direction {
        INGRESS => (peer, Map::new()),
        _ => (Map::new(), peer),
    };
    if !ports.is_empty() {
        destination.insert("ports".to_owned(), ranges(ports).into());
    }
    let protocol = key
        .protocol
        .parse::<u8>()
        .map_or_else(|_| json!(key.protocol), |number| json!(number));
    let mut rule = Map::from_iter([("action".to_owned(), "Allow".into()), ("protocol".to_owned(), protocol)]);
    if let Some((kind, code)) = key.icmp.as_ref().and_then(|icmp| icmp.split_once('/')) {
        let number = |text: &str| text.parse::<u8>().unwrap_or_default();
        rule.insert("icmp".to_owned(), json!({"type": number(kind), "code": number(code)}));
    }
    for (field, end) in [("source", &mut source), ("destination", &mut destination)] {
        if !end.is_empty() {
            rule.insert(field.to_owned(), std::mem::take(end).into());
        }
    }
    rule.into()
}

/// Ports in a row as one range, first and last.
fn ports_in_a_row(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = vec![];
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *port => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    ranges
}

/// As Calico's rules have them.
fn ranges(ports: &BTreeSet<u16>) -> Vec<Value> {
    let write = |(first, last): (u16, u16)| match first == last {
        true => json!(first),
        false => json!(format!("{first}:{last}")),
    };
    ports_in_a_row(ports).into_iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_near_each_other_become_a_prefix_when_they_are_many() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let few = ["192.0.2.1", "192.0.2.7", "2001:db8::1"].map(parse);
        let text = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(nets(&few)), ["192.0.2.1/32", "192.0.2.7/32", "2001:db8::1/128"]);
        let many: Vec<_> = (0..9).map(|last| IpAddr::from([198, 51, 100, last * 3])).collect();
        assert_eq!(text(nets(&many)), ["198.51.100.0/24"]);
    }

    #[test]
    fn ports_in_a_row_are_a_range() {
        let ports = BTreeSet::from([80, 443, 8000, 8001, 8002, 65_535]);
        assert_eq!(
            ranges(&ports),
            [json!(80), json!(443), json!("8000:8002"), json!(65_535)]
        );
    }

    #[test]
    fn a_label_gives_a_name_that_policies_may_have() {
        assert_eq!(["web", "My_App", "-x-"].map(name), ["web", "my-app", "x"]);
    }
}
