//! Policy as people write it, through the real wiring, in simulated time and without root: who may talk to whom, and what a
//! change does to connections.

mod changes;
mod counters;
mod flow_logs;
mod limits;
mod marks;
mod messages;
mod oracle;
mod recommend;
mod services;

use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::{Mac, frame, icmp, open, port_mac, udp};

/// Ports of two pods and the way to the world, and who is behind them.
const NETWORK: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: web}, spec: {device: web, driver: memory, addresses: [10.1.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: db}, spec: {device: db, driver: memory, addresses: [10.2.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: uplink}, spec: {device: uplink, driver: memory, addresses: [192.0.2.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: web}, spec: {port: web, address: 10.1.0.2, mac: '02:00:00:00:00:01'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: db}, spec: {port: db, address: 10.2.0.2, mac: '02:00:00:00:00:02'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world}, spec: {port: uplink, address: 192.0.2.9, mac: '02:00:00:00:00:03'}}
";

const PODS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: sales}}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: web, namespace: shop, labels: {app: web}},
 spec: {orchestrator: k8s, node: here, pod: web, endpoint: eth0, interfaceName: web, ipNetworks: [10.1.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {orchestrator: k8s, node: here, pod: db, endpoint: eth0, interfaceName: db, ipNetworks: [10.2.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: uplink}, spec: {node: here, interfaceName: uplink}}
";

/// Only web may ask the database, and only on its port.
const DATABASE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: database, namespace: shop},
 spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress],
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{protocol: UDP, port: 5432}]}]}}
";

const WEB: (&str, &str, u8) = ("web", "10.1.0.2", 1);
const DB: (&str, &str, u8) = ("db", "10.2.0.2", 2);
const WORLD: (&str, &str, u8) = ("uplink", "192.0.2.9", 3);

type Host = (&'static str, &'static str, u8);

fn plane(more: &[&str]) -> Plane {
    let documents = [&[NETWORK, PODS], more].concat().join("---\n");
    Plane::new(&documents).unwrap()
}

fn address(host: Host) -> IpAddr {
    host.1.parse().unwrap()
}

/// Whether a packet arrives; `from` and `to` are hosts.
fn passes(plane: &mut Plane, from: Host, to: Host, packet: &[u8]) -> bool {
    let mac: Mac = [2, 0, 0, 0, 0, from.2];
    let [arrived] = plane.exchange(from.0, &[frame(port_mac(from.2), mac, packet)], [to.0]);
    arrived.iter().any(|frame| open(frame).payload == packet[20..])
}

fn asks(plane: &mut Plane, from: Host, to: Host, ports: (u16, u16)) -> bool {
    let packet = udp((address(from), ports.0), (address(to), ports.1), 64, b"?");
    passes(plane, from, to, &packet)
}

#[test]
fn who_may_talk_to_whom() {
    let mut plane = plane(&[DATABASE]);
    let table = [
        (WEB, DB, 5432, true),
        (WEB, DB, 5433, false),
        (DB, WEB, 80, true),
        (WORLD, DB, 5432, false),
        (WORLD, WEB, 80, true),
        (WEB, WORLD, 80, true),
        (DB, WORLD, 80, true),
    ];
    for (from, to, port, allowed) in table {
        assert_eq!(
            asks(&mut plane, from, to, (4000, port)),
            allowed,
            "{} to {} port {port}: {:?}",
            from.0,
            to.0,
            plane.drops()
        );
    }
    // Answers belong to what was allowed.
    assert!(asks(&mut plane, DB, WEB, (5432, 4000)));
}

#[test]
fn without_policy_nothing_is_tracked_and_all_pass() {
    let mut plane = Plane::new(NETWORK).unwrap();
    assert!(asks(&mut plane, WORLD, DB, (4000, 5432)));
    assert_eq!(plane.packets("flows"), 0);
}

#[test]
fn a_policy_that_comes_cuts_what_it_forbids_in_both_directions() {
    let mut plane = plane(&[]);
    assert!(asks(&mut plane, WORLD, DB, (4000, 5432)));
    assert!(asks(&mut plane, DB, WORLD, (5432, 4000)));
    plane.apply(DATABASE).unwrap();
    // The answer first: it is judged as what it answers.
    assert!(!asks(&mut plane, DB, WORLD, (5432, 4000)));
    assert!(!asks(&mut plane, WORLD, DB, (4000, 5432)));
    plane
        .delete("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: database, namespace: shop}}")
        .unwrap();
    assert!(asks(&mut plane, WORLD, DB, (4000, 5432)));
}

#[test]
fn a_label_that_changes_lets_in() {
    let mut plane = plane(&[DATABASE]);
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    let relabelled = PODS.replace("labels: {app: web}", "labels: {app: shop}");
    plane.apply(&relabelled).unwrap();
    assert!(!asks(&mut plane, WEB, DB, (4000, 5432)));
    plane.apply(PODS).unwrap();
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
}

#[test]
fn a_workload_that_lies_about_itself_is_not_heard() {
    let mut plane = plane(&[]);
    let packet = udp(("10.1.0.99".parse().unwrap(), 4000), (address(DB), 5432), 64, b"?");
    assert!(!passes(&mut plane, WEB, DB, &packet));
    let spoofed: u64 = plane
        .drops()
        .iter()
        .filter(|(name, _)| name.contains("spoofed"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(spoofed, 1, "{:?}", plane.drops());
}

#[test]
fn an_interface_nobody_described_is_closed() {
    let undescribed: Vec<&str> = PODS
        .split("---\n")
        .filter(|document| !document.contains("HostEndpoint"))
        .collect();
    let mut plane = Plane::new(&[NETWORK, &undescribed.join("---\n")].join("---\n")).unwrap();
    assert!(!asks(&mut plane, WORLD, DB, (4000, 5432)));
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
}

#[test]
fn endpoints_of_other_nodes_are_addresses_here_and_nothing_is_open_because_of_them() {
    let documents = [NETWORK, PODS, DATABASE].join("---\n");
    let mut named = Plane::on_node(&documents, "here").unwrap();
    assert!(asks(&mut named, WEB, DB, (4000, 5432)));
    assert!(!asks(&mut named, WEB, DB, (4000, 5433)));

    let elsewhere = documents.replace("node: here, pod: web", "node: there, pod: web");
    let mut named = Plane::on_node(&elsewhere, "here").unwrap();
    // Nobody describes the port here, though somebody there has an interface of that name.
    assert!(!asks(&mut named, WEB, DB, (4000, 5432)));
    // It comes over the network, and the policy of the database knows its address.
    let routed = "
{apiVersion: margay/v1, kind: Route, metadata: {name: web}, spec: {destination: 10.1.0.2/32, via: [{gateway: 192.0.2.9}]}}
";
    named.apply(routed).unwrap();
    let packet = udp((address(WEB), 4000), (address(DB), 5432), 64, b"?");
    assert!(passes(&mut named, WORLD, DB, &packet), "{:?}", named.drops());

    let nobody = documents.replace("node: here", "node: there");
    let mut named = Plane::on_node(&nobody, "here").unwrap();
    for (from, to) in [(WEB, DB), (WORLD, WEB)] {
        assert!(!asks(&mut named, from, to, (4000, 5432)), "all are elsewhere");
    }
}

#[test]
fn tiers_pass_and_staged_policies_only_watch() {
    let tiers = "
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 100}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: security.floor},
 spec: {tier: security, order: 1, selector: app == 'db', types: [Ingress],
  ingress: [{action: Deny, protocol: ICMP}, {action: Pass}]}}
---
{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: strict},
 spec: {tier: default, order: 1, selector: app == 'db', types: [Ingress], ingress: [{action: Deny}]}}
";
    let mut plane = plane(&[tiers]);
    assert!(
        asks(&mut plane, WEB, DB, (4000, 5432)),
        "the staged policy denies nothing: {:?}",
        plane.drops()
    );
    let ping = icmp(address(WEB), address(DB), 64, (8, 0), 1, b"?");
    assert!(!passes(&mut plane, WEB, DB, &ping));
    let enforced = tiers.replace(
        "StagedGlobalNetworkPolicy, metadata: {name: strict}",
        "GlobalNetworkPolicy, metadata: {name: default.strict}",
    );
    plane.apply(&enforced).unwrap();
    assert!(!asks(&mut plane, WEB, DB, (4000, 5432)));
}
