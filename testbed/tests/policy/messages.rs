//! Policy told as Felix tells it, message by message.

use std::net::IpAddr;

use control::program::felix::*;
use testbed::Plane;
use testbed::packets::{Mac, Received, frame, open, port_mac, tcp, udp};

const CLIENT: Mac = [2, 0, 0, 0, 0, 0xa];
const SERVER: Mac = [2, 0, 0, 0, 0, 0xb];

const PORTS: &str = "{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/16]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, addresses: [10.2.0.1/16]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left}, spec: {port: left, address: 10.1.0.2, mac: '02:00:00:00:00:0a'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right}, spec: {port: right, address: 10.2.0.2, mac: '02:00:00:00:00:0b'}}";

fn plane() -> Plane {
    Plane::new(PORTS).unwrap()
}

fn id(name: &str) -> PolicyId {
    PolicyId {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: "NetworkPolicy".to_owned(),
    }
}

fn rule(port: u16) -> Rule {
    Rule {
        protocol: Some(Protocol::Number(17)),
        dst: RuleEnd {
            ports: vec![PortRange {
                first: port,
                last: port,
            }],
            ..RuleEnd::default()
        },
        ..Rule::default()
    }
}

/// The server hears UDP at one port.
fn hears(port: u16) -> ToDataplane {
    let policy = Policy {
        inbound_rules: vec![rule(port)],
        tier: "default".to_owned(),
        ..Policy::default()
    };
    ToDataplane::ActivePolicyUpdate(ActivePolicyUpdate {
        id: id("server"),
        policy,
    })
}

fn workload(name: &str, interface: &str, address: &str, ingress: &[&str]) -> ToDataplane {
    let tier = TierInfo {
        name: "default".to_owned(),
        ingress_policies: ingress.iter().map(|name| id(name)).collect(),
        ..TierInfo::default()
    };
    let endpoint = WorkloadEndpoint {
        state: "active".to_owned(),
        name: interface.to_owned(),
        ipv4_nets: vec![address.to_owned()],
        profile_ids: vec!["all".to_owned()],
        tiers: vec![tier],
        ..WorkloadEndpoint::default()
    };
    let id = WorkloadEndpointId {
        orchestrator_id: "k8s".to_owned(),
        workload_id: format!("shop/{name}"),
        endpoint_id: "eth0".to_owned(),
    };
    ToDataplane::WorkloadEndpointUpdate(WorkloadEndpointUpdate { id, endpoint })
}

/// A client on the left, a server on the right.
fn snapshot() -> Vec<ToDataplane> {
    let all = ActiveProfileUpdate {
        id: "all".to_owned(),
        inbound_rules: vec![Rule::default()],
        outbound_rules: vec![Rule::default()],
    };
    vec![
        hears(53),
        ToDataplane::ActiveProfileUpdate(all),
        workload("client", "left", "10.1.0.2/32", &[]),
        workload("server", "right", "10.2.0.2/32", &["server"]),
        ToDataplane::InSync,
    ]
}

fn ends() -> [IpAddr; 2] {
    [[10, 1, 0, 2].into(), [10, 2, 0, 2].into()]
}

/// What leaves on the right of a packet from the left.
fn out(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    let [right] = plane.exchange("left", &[frame(port_mac(1), CLIENT, packet)], ["right"]);
    right.iter().map(|frame| open(frame)).collect()
}

/// What leaves on the left of a packet from the right.
fn back(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    let [left] = plane.exchange("right", &[frame(port_mac(2), SERVER, packet)], ["left"]);
    left.iter().map(|frame| open(frame)).collect()
}

#[test]
fn only_what_policy_allows_passes_and_answers_come_back() {
    let mut plane = plane();
    let [client, server] = ends();
    let to = |port| udp((client, 5000), (server, port), 64, b"x");
    assert_eq!(out(&mut plane, &to(54)).len(), 1, "nobody has policy yet");
    plane.tell(snapshot());
    assert_eq!(out(&mut plane, &to(53)).len(), 1, "drops: {:?}", plane.drops());
    assert_eq!(back(&mut plane, &udp((server, 53), (client, 5000), 64, b"y")).len(), 1);
    assert_eq!(out(&mut plane, &to(54)), []);
    assert_eq!(plane.dropped("classify/no-policy-allows"), 1);
    let spoofed = udp(([10, 1, 0, 3].into(), 5000), (server, 53), 64, b"x");
    assert_eq!(out(&mut plane, &spoofed), []);
    assert_eq!(plane.dropped("untracked/spoofed-source"), 1);
    let opening = tcp((client, 5000), (server, 80), 64);
    assert_eq!(out(&mut plane, &opening), []);
}

#[test]
fn a_change_cuts_a_connection_both_ways_with_its_next_packet() {
    let mut plane = plane();
    let [client, server] = ends();
    let question = udp((client, 5000), (server, 53), 64, b"x");
    let answer = udp((server, 53), (client, 5000), 64, b"y");
    plane.tell(snapshot());
    assert_eq!(out(&mut plane, &question).len(), 1);
    assert_eq!(back(&mut plane, &answer).len(), 1);
    plane.tell(vec![hears(54)]);
    assert_eq!(back(&mut plane, &answer), [], "judged as what it answers");
    assert_eq!(out(&mut plane, &question), []);
    assert_eq!(plane.dropped("classify/no-policy-allows"), 2);
    plane.tell(vec![hears(53)]);
    assert_eq!(out(&mut plane, &question).len(), 1);
    assert_eq!(back(&mut plane, &answer).len(), 1);
}

#[test]
fn senders_are_told_where_that_is_set() {
    let mut plane = plane();
    let [client, server] = ends();
    plane.tell(snapshot());
    let config = [("IptablesFilterDenyAction".to_owned(), "Reject".to_owned())].into();
    plane.tell(vec![ToDataplane::ConfigUpdate(ConfigUpdate { config })]);
    let packet = udp((client, 5000), (server, 54), 64, b"x");
    let [left] = plane.exchange("left", &[frame(port_mac(1), CLIENT, &packet)], ["left"]);
    assert_eq!(left.len(), 1, "drops: {:?}", plane.drops());
    let told = open(&left[0]);
    assert_eq!((told.target, told.icmp()), (client, (3, 13)));
}
