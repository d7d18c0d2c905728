//! NetworkPolicy of Kubernetes to a policy of Calico's: in tier `default`, order 1000.

use super::policies::{Compiled, Stage};
use super::rules::{self, End, Named};
use super::selector::{Expression, NAMESPACE};
use crate::program::felix::{self, PolicyId};
use crate::resource::calico::{DEFAULT_TIER, Ports, Protocol};
use crate::resource::kubernetes::{KubernetesNetworkPolicySpec, LabelSelector, Peer, PolicyPort};

/// What the names of such policies start with.
const PREFIX: &str = "knp.default.";
/// Where they stand among those of Calico's in the tier.
const ORDER: f64 = 1000.0;
/// Which workloads are pods.
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";

/// What a policy of Kubernetes means, or a staged one.
pub(super) fn compile(name: &str, namespace: &str, kind: &str, spec: &KubernetesNetworkPolicySpec) -> Compiled {
    let mut named = Named::new();
    let mut direction = |of: Vec<(&[Peer], &[PolicyPort])>, side: Side| -> Vec<felix::Rule> {
        let rules = of.into_iter();
        let rules = rules.flat_map(|(peers, ports)| direction_rules(peers, ports, side, namespace, &mut named));
        rules.collect()
    };
    let inbound_rules = spec.ingress.iter().map(|rule| (&*rule.from, &*rule.ports)).collect();
    let outbound_rules = spec.egress.iter().map(|rule| (&*rule.to, &*rule.ports)).collect();
    let policy = felix::Policy {
        inbound_rules: direction(inbound_rules, Side::Source),
        outbound_rules: direction(outbound_rules, Side::Destination),
        tier: DEFAULT_TIER.to_owned(),
        ..felix::Policy::default()
    };
    let (ingress, egress) = spec.directions();
    Compiled {
        id: PolicyId {
            name: format!("{PREFIX}{name}"),
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
        },
        order: Some(ORDER),
        selector: pods(&spec.pod_selector, Some(namespace)),
        ingress,
        egress,
        stage: Stage::Normal { forward: false },
        policy,
        named,
    }
}

/// The end of a packet that peers are.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// One rule for each peer and protocol, since a rule has one protocol.
fn direction_rules(
    peers: &[Peer],
    ports: &[PolicyPort],
    side: Side,
    namespace: &str,
    named: &mut Named,
) -> Vec<felix::Rule> {
    let peers: Vec<_> = if peers.is_empty() {
        vec![None]
    } else {
        peers.iter().map(Some).collect()
    };
    let mut made = vec![];
    for peer in peers {
        for (protocol, ports) in by_protocol(ports) {
            let peer = peer.map(|peer| peer_end(peer, namespace)).unwrap_or_default();
            let to = |end: End<'_>, named: &mut Named| rules::end(end, protocol, named);
            let (src, dst) = match side {
                Side::Source => {
                    let ports = End {
                        ports: &ports,
                        ..End::default()
                    };
                    (to(peer, named), to(ports, named))
                }
                Side::Destination => (felix::RuleEnd::default(), to(End { ports: &ports, ..peer }, named)),
            };
            made.push(felix::Rule {
                action: "allow".to_owned(),
                protocol: protocol.map(rules::protocol),
                src,
                dst,
                ..felix::Rule::default()
            });
        }
    }
    made
}

/// Each protocol with its ports; with none where any port will do.
fn by_protocol(ports: &[PolicyPort]) -> Vec<(Option<Protocol>, Vec<Ports>)> {
    if ports.is_empty() {
        return vec![(None, vec![])];
    }
    let mut of: Vec<(Option<Protocol>, Vec<Ports>)> = vec![];
    for protocol in ports.iter().map(|port| port.protocol) {
        if of.iter().any(|(known, _)| *known == Some(protocol)) {
            continue;
        }
        let its = ports.iter().filter(|port| port.protocol == protocol);
        let its: Option<Vec<Ports>> = its.map(PolicyPort::ports).collect();
        of.push((Some(protocol), its.unwrap_or_default()));
    }
    of
}

fn peer_end<'a>(peer: &Peer, namespace: &str) -> End<'a> {
    if let Some(block) = &peer.ip_block {
        return End {
            nets: vec![block.cidr.to_string()],
            not_nets: block.except.iter().map(ToString::to_string).collect(),
            ..End::default()
        };
    }
    let namespaces = peer.namespace_selector.as_ref();
    let namespaces = namespaces.map(|selector| rules::in_namespaces(&selector.expression()));
    let own = namespaces.is_none().then_some(namespace);
    let pods = peer.pod_selector.as_ref().map(|selector| pods(selector, own));
    End {
        selected: Some(Expression::all_of(namespaces.into_iter().chain(pods))),
        ..End::default()
    }
}

/// Pods with such labels, in `namespace` or in any.
fn pods(selector: &LabelSelector, namespace: Option<&str>) -> Expression {
    let is = |key: &str, value: &str| Expression::Equal(key.to_owned(), value.to_owned());
    let within = namespace.map(|namespace| is(NAMESPACE, namespace));
    let pods = [is(ORCHESTRATOR, "k8s"), selector.expression()];
    Expression::all_of(within.into_iter().chain(pods))
}
