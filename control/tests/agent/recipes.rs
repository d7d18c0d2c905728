//! The recipes people learn Kubernetes' NetworkPolicy from, each with who may talk to whom by its published meaning.

use crate::common::Cluster;
use crate::verdict::{Packet, allows};

/// Pods by name, namespace, labels and address.
const PODS: &[(&str, &str, &str, &str)] = &[
    ("web", "default", "app: web, role: frontend", "10.0.0.1"),
    ("api", "default", "app: bookstore, role: api", "10.0.0.2"),
    ("store", "default", "app: bookstore, role: frontend", "10.0.0.3"),
    ("other", "default", "app: other", "10.0.0.4"),
    ("client", "prod", "app: client", "10.0.1.1"),
    ("monitor", "prod", "type: monitoring", "10.0.1.2"),
    ("dns", "kube-system", "k8s-app: kube-dns", "10.0.2.1"),
    ("v6", "prod", "app: six", "fd00::6"),
];
const NAMESPACES: &[(&str, &str)] = &[
    ("default", "{}"),
    ("prod", "{purpose: production}"),
    ("kube-system", "{}"),
];
const WORLD: &str = "203.0.113.9";

fn world() -> String {
    let namespaces = NAMESPACES.iter().map(|(name, labels)| {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}\n---\n")
    });
    let pods = PODS.iter().map(|(name, namespace, labels, address)| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
             spec: {{orchestrator: k8s, pod: {name}, ipNetworks: ['{address}'], interfaceName: if-{name}, \
             profiles: [kns.{namespace}], ports: [{{name: http, protocol: TCP, port: 80}}]}}\n---\n"
        )
    });
    namespaces.chain(pods).collect()
}

fn address(name: &str) -> &str {
    PODS.iter()
        .find(|(pod, ..)| *pod == name)
        .map_or(WORLD, |(.., address)| address)
}

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: {namespace}}}, \
         spec: {spec}}}\n---\n"
    )
}

/// Of TCP: who, to whom, at which port, and whether.
type Row = (&'static str, &'static str, u16, bool);

fn check(policies: &str, table: &[Row]) {
    let cluster = Cluster::of(&(world() + policies));
    for (from, to, port, expected) in table {
        let packet = Packet::tcp(address(from), address(to), *port);
        assert_eq!(
            allows(&cluster.plane, &packet),
            *expected,
            "{from} to {to}:{port} with\n{policies}"
        );
    }
}

#[test]
fn without_policy_everybody_talks() {
    check(
        "",
        &[
            ("other", "web", 80, true),
            ("world", "web", 80, true),
            ("web", "world", 80, true),
        ],
    );
}

#[test]
fn deny_all_traffic_to_an_application() {
    check(
        &policy(
            "web-deny-all",
            "default",
            "{podSelector: {matchLabels: {app: web}}, ingress: []}",
        ),
        &[
            ("other", "web", 80, false),
            ("client", "web", 80, false),
            ("world", "web", 80, false),
            ("web", "other", 80, true),
            ("other", "api", 80, true),
        ],
    );
}

#[test]
fn limit_traffic_to_an_application() {
    let spec = "{podSelector: {matchLabels: {app: bookstore, role: api}}, \
                ingress: [{from: [{podSelector: {matchLabels: {app: bookstore}}}]}]}";
    check(
        &policy("api-allow", "default", spec),
        &[
            ("store", "api", 80, true),
            ("web", "api", 80, false),
            ("client", "api", 80, false),
            ("web", "store", 80, true),
        ],
    );
}

#[test]
fn allow_all_overrides_deny_all() {
    let deny = policy(
        "web-deny-all",
        "default",
        "{podSelector: {matchLabels: {app: web}}, ingress: []}",
    );
    let allow = policy(
        "web-allow-all",
        "default",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}",
    );
    check(
        &(deny + &allow),
        &[("other", "web", 80, true), ("world", "web", 80, true)],
    );
}

#[test]
fn default_deny_in_a_namespace() {
    check(
        &policy("default-deny-all", "default", "{podSelector: {}, ingress: []}"),
        &[
            ("other", "web", 80, false),
            ("world", "api", 80, false),
            ("web", "client", 80, true),
            ("other", "monitor", 80, true),
        ],
    );
}

#[test]
fn deny_from_other_namespaces() {
    check(
        &policy(
            "deny-from-others",
            "default",
            "{podSelector: {matchLabels: {}}, ingress: [{from: [{podSelector: {}}]}]}",
        ),
        &[
            ("other", "web", 80, true),
            ("client", "web", 80, false),
            ("world", "web", 80, false),
        ],
    );
}

#[test]
fn allow_from_all_namespaces_but_not_from_outside() {
    let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]}";
    check(
        &policy("web-allow-all-namespaces", "default", spec),
        &[
            ("other", "web", 80, true),
            ("client", "web", 80, true),
            ("world", "web", 80, false),
        ],
    );
}

#[test]
fn allow_from_one_namespace() {
    let by_label = "{podSelector: {matchLabels: {app: web}}, \
                    ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: production}}}]}]}";
    let by_name = "{podSelector: {matchLabels: {app: web}}, \
                   ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}]}]}";
    for spec in [by_label, by_name] {
        check(
            &policy("web-allow-prod", "default", spec),
            &[
                ("client", "web", 80, true),
                ("other", "web", 80, false),
                ("dns", "web", 80, false),
            ],
        );
    }
}

#[test]
fn pods_and_namespaces_together_or_either() {
    let labels = "podSelector: {matchLabels: {type: monitoring}}";
    let namespaces = "namespaceSelector: {matchLabels: {purpose: production}}";
    let spec = |from: String| format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{from}]}}]}}");
    check(
        &policy("both", "default", &spec(format!("{{{labels}, {namespaces}}}"))),
        &[
            ("monitor", "web", 80, true),
            ("client", "web", 80, false),
            ("other", "web", 80, false),
        ],
    );
    check(
        &policy("either", "default", &spec(format!("{{{labels}}}, {{{namespaces}}}"))),
        &[
            ("monitor", "web", 80, true),
            ("client", "web", 80, true),
            ("other", "web", 80, false),
        ],
    );
}

#[test]
fn allow_from_outside() {
    let deny = policy("default-deny-all", "default", "{podSelector: {}}");
    let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: []}]}";
    check(
        &(deny + &policy("web-allow-external", "default", spec)),
        &[("world", "web", 80, true), ("world", "api", 80, false)],
    );
}

#[test]
fn ports_by_number_name_and_range() {
    for (ports, open, closed) in [
        ("{port: 5000}", 5000, 8000),
        ("{port: http}", 80, 81),
        ("{port: 32000, endPort: 32768}", 32_768, 32_769),
        ("{protocol: UDP, port: 53}, {port: 53}", 53, 54),
        ("{protocol: TCP}, {protocol: TCP, port: 1}", 9999, 0),
    ] {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, \
             ingress: [{{ports: [{ports}], from: [{{podSelector: {{matchLabels: {{app: other}}}}}}]}}]}}"
        );
        let mut table = vec![("other", "web", open, true), ("api", "web", open, false)];
        if closed > 0 {
            table.push(("other", "web", closed, false));
        }
        check(&policy("web-ports", "default", &spec), &table);
    }
}

#[test]
fn several_selectors_and_expressions() {
    let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [\
                {podSelector: {matchExpressions: [{key: app, operator: In, values: [bookstore, inventory]}, \
                {key: role, operator: NotIn, values: [api]}]}}, \
                {podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}, {key: app, operator: Exists}]}}]}]}";
    check(
        &policy("web-several", "default", spec),
        &[
            ("store", "web", 80, true),
            ("api", "web", 80, false),
            ("other", "web", 80, true),
            ("client", "web", 80, false),
        ],
    );
}

#[test]
fn deny_egress_from_an_application() {
    let spec = "{podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: []}";
    check(
        &policy("other-deny-egress", "default", spec),
        &[
            ("other", "web", 80, false),
            ("other", "world", 80, false),
            ("web", "other", 80, true),
        ],
    );
}

#[test]
fn egress_to_dns_and_pods_but_not_outside() {
    let spec = "{podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: [\
                {ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}, {to: [{namespaceSelector: {}}]}]}";
    let policies = policy("other-deny-external", "default", spec);
    check(
        &policies,
        &[
            ("other", "web", 80, true),
            ("other", "client", 80, true),
            ("other", "world", 80, false),
            ("other", "world", 53, true),
        ],
    );
    let cluster = Cluster::of(&(world() + &policies));
    let dns = |port| Packet::udp(address("other"), WORLD, port);
    assert!(allows(&cluster.plane, &dns(53)));
    assert!(!allows(&cluster.plane, &dns(54)));
}

#[test]
fn blocks_of_addresses_with_exceptions() {
    let spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], \
                ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/29]}}]}], \
                egress: [{to: [{ipBlock: {cidr: 10.0.0.0/16}}], ports: [{port: 80}]}]}";
    let policies = policy("web-blocks", "default", spec);
    check(
        &policies,
        &[
            ("world", "web", 80, true),
            ("other", "web", 80, false),
            ("web", "client", 80, true),
            ("web", "client", 81, false),
            ("web", "world", 80, false),
        ],
    );
    let cluster = Cluster::of(&(world() + &policies));
    assert!(!allows(&cluster.plane, &Packet::tcp("203.0.113.7", address("web"), 80)));
}

#[test]
fn a_policy_without_types_isolates_egress_only_if_it_speaks_of_it() {
    let quiet = policy("quiet", "default", "{podSelector: {matchLabels: {app: web}}}");
    check(&quiet, &[("other", "web", 80, false), ("web", "other", 80, true)]);
    let spec = "{podSelector: {matchLabels: {app: web}}, egress: [{ports: [{port: 443}]}]}";
    check(
        &policy("speaks", "default", spec),
        &[
            ("other", "web", 80, false),
            ("web", "other", 80, false),
            ("web", "other", 443, true),
        ],
    );
}

#[test]
fn both_families() {
    let spec = "{podSelector: {matchLabels: {app: six}}, ingress: [{from: [{podSelector: {matchLabels: {app: six}}}, \
                {ipBlock: {cidr: 'fd00:1::/64'}}]}]}";
    let cluster = Cluster::of(&(world() + &policy("six", "prod", spec)));
    assert!(allows(&cluster.plane, &Packet::tcp("fd00:1::9", "fd00::6", 80)));
    assert!(!allows(&cluster.plane, &Packet::tcp("fd00:2::9", "fd00::6", 80)));
}

#[test]
fn a_staged_policy_is_told_and_decides_nothing() {
    let staged = "{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: deny}, \
                  spec: {podSelector: {}, policyTypes: [Ingress]}}";
    let cluster = Cluster::of(&(world() + staged));
    assert!(
        cluster
            .plane
            .policies
            .keys()
            .any(|id| id.is_staged() && id.name == "knp.default.deny")
    );
    assert!(allows(
        &cluster.plane,
        &Packet::tcp(address("other"), address("web"), 80)
    ));
    let ignored = staged.replace("podSelector", "stagedAction: Ignore, podSelector");
    assert!(Cluster::of(&(world() + &ignored)).plane.policies.is_empty());
}
