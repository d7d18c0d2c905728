//! Calico's own policy: tiers, passes, global policies, sets, accounts and named ports, by their published meaning.

use crate::common::Cluster;
use crate::verdict::{Packet, allows};

const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { team: blue } }
---
apiVersion: v1
kind: Namespace
metadata: { name: ops, labels: { team: red } }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: cashier, namespace: shop, labels: { trusted: 'yes' } }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: web, namespace: shop, labels: { app: web } }
spec:
  { pod: web, ipNetworks: [10.0.0.1], interfaceName: web0, profiles: [kns.shop], ports: [{ name: http, protocol: TCP, port: 8080 }] }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: till, namespace: shop, labels: { app: till } }
spec: { pod: till, ipNetworks: [10.0.0.2], interfaceName: till0, profiles: [kns.shop, ksa.shop.cashier], serviceAccountName: cashier }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: admin, namespace: ops, labels: { app: admin } }
spec: { pod: admin, ipNetworks: [10.0.1.1], interfaceName: admin0, profiles: [kns.ops] }
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: { name: threats, labels: { feed: threats } }
spec: { nets: [198.51.100.0/24] }
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: { name: partners, namespace: shop, labels: { feed: partners } }
spec: { nets: [192.0.2.0/28] }
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: { name: security }
spec: { order: 100 }
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: { name: lenient }
spec: { order: 200, defaultAction: Pass }
---
";

fn policy(kind: &str, name: &str, spec: &str) -> String {
    let namespace = if kind.contains("Global") {
        ""
    } else {
        ", namespace: shop"
    };
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}{namespace}}}, spec: {spec}}}\n---\n"
    )
}

/// Of TCP: from whom to whom, at which port, and whether.
type Row = (&'static str, &'static str, u16, bool);

const WEB: &str = "10.0.0.1";
const TILL: &str = "10.0.0.2";
const ADMIN: &str = "10.0.1.1";
const THREAT: &str = "198.51.100.7";
const PARTNER: &str = "192.0.2.3";

fn check(policies: &str, table: &[Row]) {
    let cluster = Cluster::of(&format!("{WORLD}{policies}"));
    assert_eq!(cluster.plane, cluster.anew());
    for (from, to, port, expected) in table {
        let packet = Packet::tcp(from, to, *port);
        assert_eq!(
            allows(&cluster.plane, &packet),
            *expected,
            "{from} to {to}:{port} with\n{policies}"
        );
    }
}

#[test]
fn deny_all_for_everybody_but_a_namespace() {
    // Calico's "default deny", which leaves out namespaces of the system.
    let spec = "{namespaceSelector: \"team != 'red'\", types: [Ingress, Egress]}";
    check(
        &policy("GlobalNetworkPolicy", "deny-app-policy", spec),
        &[
            (WEB, TILL, 80, false),
            (PARTNER, ADMIN, 80, true),
            (ADMIN, WEB, 80, false),
        ],
    );
}

#[test]
fn a_namespaced_policy_speaks_of_its_namespace() {
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {selector: has(app)}}]}";
    check(
        &policy("NetworkPolicy", "inside", spec),
        &[
            (TILL, WEB, 80, true),
            (ADMIN, WEB, 80, false),
            (PARTNER, WEB, 80, false),
        ],
    );
    let spec = "{selector: app == 'web', \
                ingress: [{action: Allow, source: {selector: has(app), namespaceSelector: \"team == 'red'\"}}]}";
    check(
        &policy("NetworkPolicy", "outside", spec),
        &[(TILL, WEB, 80, false), (ADMIN, WEB, 80, true)],
    );
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {notSelector: app == 'till'}}]}";
    check(
        &policy("NetworkPolicy", "but", spec),
        &[
            (TILL, WEB, 80, false),
            (ADMIN, WEB, 80, false),
            (PARTNER, WEB, 80, true),
        ],
    );
}

#[test]
fn sets_are_found_by_labels() {
    let threats = "{order: 1, selector: all(), ingress: [{action: Deny, source: {selector: feed == 'threats'}}], \
                   egress: [{action: Deny, destination: {selector: feed == 'threats'}}]}";
    let rest = "{order: 2, ingress: [{action: Allow}], egress: [{action: Allow}]}";
    check(
        &(policy("GlobalNetworkPolicy", "threats", threats) + &policy("GlobalNetworkPolicy", "rest", rest)),
        &[
            (THREAT, WEB, 80, false),
            (WEB, THREAT, 80, false),
            (PARTNER, WEB, 80, true),
        ],
    );
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {selector: feed == 'partners'}}]}";
    check(
        &policy("NetworkPolicy", "partners", spec),
        &[(PARTNER, WEB, 80, true), (TILL, WEB, 80, false)],
    );
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {namespaceSelector: global()}}]}";
    check(
        &policy("NetworkPolicy", "outside", spec),
        &[
            (THREAT, WEB, 80, true),
            (PARTNER, WEB, 80, false),
            (TILL, WEB, 80, false),
        ],
    );
}

#[test]
fn tiers_in_order_with_pass_and_default_action() {
    let pass = "{tier: security, order: 1, selector: has(app), ingress: [\
                {action: Deny, source: {selector: feed == 'threats'}}, \
                {action: Pass, source: {nets: [192.0.2.0/24, 198.51.100.0/24]}}]}";
    let app = "{selector: app == 'web', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}";
    let policies = policy("GlobalNetworkPolicy", "security", pass) + &policy("NetworkPolicy", "app", app);
    check(
        &policies,
        &[
            (THREAT, WEB, 80, false),
            (PARTNER, WEB, 80, true),
            (PARTNER, WEB, 81, false),
            // The end of tier security.
            (TILL, WEB, 80, false),
            // Passed, and nothing in tier default is for it.
            (PARTNER, TILL, 80, true),
        ],
    );
    // With the default action Pass the end of the tier is no end.
    check(
        &policies.replace("tier: security", "tier: lenient"),
        &[(TILL, WEB, 80, true), (TILL, WEB, 81, false), (THREAT, WEB, 80, false)],
    );
}

#[test]
fn order_and_then_name() {
    let allow = |order: &str| {
        policy(
            "NetworkPolicy",
            "b",
            &format!("{{{order} ingress: [{{action: Allow}}]}}"),
        )
    };
    let deny = |order: &str| {
        policy(
            "NetworkPolicy",
            "a",
            &format!("{{{order} ingress: [{{action: Deny}}]}}"),
        )
    };
    for (b, a, expected) in [
        ("", "", false),
        ("order: 1,", "order: 2,", true),
        ("order: 1,", "", true),
        ("", "order: 5000000,", false),
        ("order: 1,", "order: 1,", false),
        ("order: -0.5,", "order: 0,", true),
    ] {
        check(&(allow(b) + &deny(a)), &[(TILL, WEB, 80, expected)]);
    }
}

#[test]
fn kubernetes_policies_stand_at_1000() {
    let kubernetes = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: all, namespace: shop}, \
                      spec: {podSelector: {}, ingress: [{}]}}\n---\n";
    for (order, expected) in [("999", false), ("1001", true), ("1000", false)] {
        let spec = format!("{{order: {order}, ingress: [{{action: Deny}}]}}");
        check(
            &(kubernetes.to_owned() + &policy("NetworkPolicy", "deny", &spec)),
            &[(TILL, WEB, 80, expected)],
        );
    }
}

#[test]
fn service_accounts() {
    for accounts in [
        "{names: [cashier]}",
        "{selector: trusted == 'yes'}",
        "{names: [cashier, x], selector: has(trusted)}",
    ] {
        let spec = format!(
            "{{selector: app == 'web', ingress: [{{action: Allow, source: {{serviceAccounts: {accounts}}}}}]}}"
        );
        check(
            &policy("NetworkPolicy", "cashiers", &spec),
            &[
                (TILL, WEB, 80, true),
                (ADMIN, WEB, 80, false),
                (PARTNER, WEB, 80, false),
            ],
        );
    }
    let spec = "{serviceAccountSelector: all(), ingress: [{action: Deny}]}";
    check(
        &policy("GlobalNetworkPolicy", "accounts", spec),
        &[(WEB, TILL, 80, false), (TILL, WEB, 80, true)],
    );
}

#[test]
fn named_ports_follow_their_endpoint() {
    let spec = "{types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [http, 9090]}}]}";
    check(
        &policy("NetworkPolicy", "http", spec),
        &[
            (ADMIN, WEB, 8080, true),
            (ADMIN, WEB, 9090, true),
            (ADMIN, WEB, 80, false),
            (ADMIN, TILL, 8080, false),
        ],
    );
    let spec = "{ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [http, '20:30']}}]}";
    check(
        &policy("NetworkPolicy", "but", spec),
        &[
            (ADMIN, WEB, 8080, false),
            (ADMIN, WEB, 25, false),
            (ADMIN, TILL, 8080, true),
        ],
    );
}

#[test]
fn log_goes_on() {
    let spec = "{ingress: [{action: Log}, {action: Deny, source: {nets: [10.0.1.1]}}, {action: Allow}]}";
    check(
        &policy("NetworkPolicy", "log", spec),
        &[(ADMIN, WEB, 80, false), (TILL, WEB, 80, true)],
    );
}

#[test]
fn protocols_and_icmp() {
    let spec = "{selector: app == 'web', ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}, \
                {action: Allow, notProtocol: TCP, protocol: 17}]}";
    let cluster = Cluster::of(&format!("{WORLD}{}", policy("NetworkPolicy", "ping", spec)));
    let icmp = |r#type| Packet {
        protocol: 1,
        icmp: Some((r#type, 0)),
        ..Packet::tcp(TILL, WEB, 0)
    };
    assert!(allows(&cluster.plane, &icmp(8)));
    assert!(!allows(&cluster.plane, &icmp(13)));
    assert!(allows(&cluster.plane, &Packet::udp(TILL, WEB, 1)));
    assert!(!allows(&cluster.plane, &Packet::tcp(TILL, WEB, 1)));
}

#[test]
fn no_label_of_a_workload_makes_it_another_namespaces() {
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]}";
    let forged = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: forged, namespace: shop, labels: { pcns.team: red, projectcalico.org/namespace: ops } }
spec: { pod: forged, ipNetworks: [10.0.0.66], interfaceName: forged0, profiles: [kns.shop] }
---
";
    check(
        &(policy("NetworkPolicy", "red", spec) + forged),
        &[("10.0.0.66", WEB, 80, false), (ADMIN, WEB, 80, true)],
    );
}

#[test]
fn what_a_namespace_is_labelled_later_counts() {
    let spec = "{selector: app == 'web', ingress: [{action: Allow, source: {namespaceSelector: \"team == 'green'\"}}]}";
    let mut cluster = Cluster::of(&format!("{WORLD}{}", policy("NetworkPolicy", "green", spec)));
    let packet = Packet::tcp(ADMIN, WEB, 80);
    assert!(!allows(&cluster.plane, &packet));
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: green}}}");
    assert!(allows(&cluster.plane, &packet));
    cluster.delete("{apiVersion: v1, kind: Namespace, metadata: {name: ops}}");
    assert!(!allows(&cluster.plane, &packet));
}

#[test]
fn host_endpoints_have_four_kinds_of_tiers() {
    let host = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: { name: uplink, labels: { role: edge } }
spec: { node: n1, interfaceName: eth0, expectedIPs: [192.0.2.1, 'fd00::1'], profiles: [projectcalico-default-allow] }
---
";
    let edge =
        |name: &str, more: &str| policy("GlobalNetworkPolicy", name, &format!("{{selector: has(role), {more}}}"));
    let policies = edge(
        "untracked",
        "doNotTrack: true, applyOnForward: true, ingress: [{action: Allow}]",
    ) + &edge(
        "early",
        "preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]",
    ) + &edge("normal", "ingress: [{action: Allow}]")
        + &edge("forward", "applyOnForward: true, egress: [{action: Allow}]")
        + &policy(
            "GlobalNetworkPolicy",
            "inside",
            "{selector: has(app), ingress: [{action: Allow}]}",
        );
    let cluster = Cluster::of(&format!("{WORLD}{host}{policies}"));
    let uplink = &cluster.plane.hosts["uplink"];
    let names = |tiers: &[control::program::felix::TierInfo]| -> Vec<(String, String)> {
        let join = |ids: &[control::program::felix::PolicyId]| {
            ids.iter().map(|id| id.name.as_str()).collect::<Vec<_>>().join(",")
        };
        tiers
            .iter()
            .map(|tier| (join(&tier.ingress_policies), join(&tier.egress_policies)))
            .collect()
    };
    let one = |ingress: &str, egress: &str| vec![(ingress.to_owned(), egress.to_owned())];
    assert_eq!(names(&uplink.untracked_tiers), one("untracked", ""));
    assert_eq!(names(&uplink.pre_dnat_tiers), one("early", ""));
    assert_eq!(names(&uplink.tiers), one("normal", "forward"));
    assert_eq!(names(&uplink.forward_tiers), one("", "forward"));
    assert_eq!(uplink.expected_ipv6_addrs, ["fd00::1"]);
    assert!(cluster.plane.profiles.contains_key("projectcalico-default-allow"));
    let web = cluster
        .plane
        .workloads
        .values()
        .find(|workload| workload.name == "web0")
        .unwrap();
    assert_eq!(names(&web.tiers), one("inside", ""));
}

#[test]
fn pools_that_leave_with_an_address_of_the_host() {
    let pool = "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, \
                spec: {cidr: 10.0.0.0/16, natOutgoing: true, ipipMode: Always, blockSize: 26, nodeSelector: all()}}";
    let mut cluster = Cluster::of(pool);
    assert_eq!(
        cluster.agent.pools().collect::<Vec<_>>(),
        [("10.0.0.0/16".parse().unwrap(), true)]
    );
    cluster.delete(pool);
    assert_eq!(cluster.agent.pools().count(), 0);
}
