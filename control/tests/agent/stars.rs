//! The tutorial in which stars talk to each other: each step by its published meaning, and what becomes of everybody.

use crate::common::Cluster;
use crate::verdict::{Packet, allows};

/// Pods by name, namespace (whose label `role` is its own name) and address; each has its name as label `role`.
const PODS: &[(&str, &str, &str)] = &[
    ("management-ui", "management-ui", "10.0.0.1"),
    ("client", "client", "10.0.1.1"),
    ("frontend", "stars", "10.0.2.1"),
    ("backend", "stars", "10.0.2.2"),
];
/// What each of them listens on.
const PORTS: [u16; 4] = [9001, 9000, 80, 6379];

/// Nobody gets in.
const DEFAULT_DENY: &str = "{podSelector: {}}";
/// The user interface does.
const ALLOW_UI: &str =
    "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {role: management-ui}}}]}]}";
const BACKEND: &str = "{podSelector: {matchLabels: {role: backend}}, \
    ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}], ports: [{protocol: TCP, port: 6379}]}]}";
const FRONTEND: &str = "{podSelector: {matchLabels: {role: frontend}}, \
    ingress: [{from: [{namespaceSelector: {matchLabels: {role: client}}}], ports: [{protocol: TCP, port: 80}]}]}";

/// The policies so far, in the order of the tutorial: name, namespace, spec.
const STEPS: &[(&str, &str, &str)] = &[
    ("default-deny", "stars", DEFAULT_DENY),
    ("default-deny", "client", DEFAULT_DENY),
    ("allow-ui", "stars", ALLOW_UI),
    ("allow-ui", "client", ALLOW_UI),
    ("backend-policy", "stars", BACKEND),
    ("frontend-policy", "stars", FRONTEND),
];

fn documents(steps: usize) -> String {
    let namespaces = ["management-ui", "client", "stars"].map(|name| {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{role: {name}}}}}}}\n---\n")
    });
    let pods = PODS.iter().map(|(name, namespace, address)| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, \
             metadata: {{name: {name}, namespace: {namespace}, labels: {{role: {name}}}}}, \
             spec: {{orchestrator: k8s, pod: {name}, ipNetworks: [{address}], interfaceName: if-{name}, \
             profiles: [kns.{namespace}]}}}}\n---\n"
        )
    });
    let policies = STEPS[..steps].iter().map(|(name, namespace, spec)| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {spec}}}\n---\n"
        )
    });
    namespaces.into_iter().chain(pods).chain(policies).collect()
}

/// Who reaches whom after so many steps: a row for each who asks, a column for each who is asked, in the order of the pods.
fn check(steps: usize, table: [[u8; 4]; 4]) {
    let cluster = Cluster::of(&documents(steps));
    for (from, row) in PODS.iter().zip(table) {
        for ((to, port), expected) in PODS.iter().zip(PORTS).zip(row).filter(|((to, _), _)| to.0 != from.0) {
            let allowed = allows(&cluster.plane, &Packet::tcp(from.2, to.2, port));
            assert_eq!(
                allowed,
                expected == 1,
                "{} to {}:{port} after {steps} steps",
                from.0,
                to.0
            );
            // At a port that no policy speaks of, who is let in by its port is not.
            let elsewhere = allows(&cluster.plane, &Packet::tcp(from.2, to.2, 22));
            let by_port = from.0 != "management-ui" && to.1 == "stars" && steps > 4;
            assert_eq!(
                elsewhere,
                allowed && !by_port,
                "{} to {}:22 after {steps} steps",
                from.0,
                to.0
            );
        }
    }
}

#[test]
fn stars_talk_as_each_step_of_the_tutorial_says() {
    check(0, [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]);
    check(2, [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]);
    check(4, [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]);
    check(5, [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 0]]);
    check(6, [[0, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]]);
}
