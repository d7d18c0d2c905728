//! Rules that name services: their endpoints are what slices say, and follow them.

use control::program::felix::ToDataplane;

use crate::common::Cluster;
use crate::verdict::{Packet, allows};

const PODS: &str = "
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: web, namespace: shop},
 spec: {pod: web, ipNetworks: [10.0.0.1, 'fd00::1'], interfaceName: web0}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {types: [Egress, Ingress],
 egress: [{action: Allow, destination: {services: {name: db}}}],
 ingress: [{action: Allow, protocol: TCP, source: {services: {name: db, namespace: other}, notPorts: ['1:1023']},
            destination: {ports: [80]}}]}}
";

const WEB: &str = "10.0.0.1";

/// A slice of the service `name` with such addresses and ports.
fn slice(namespace: &str, name: &str, number: u8, addresses: &str, ports: &str) -> String {
    format!(
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {{name: {name}-{number}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}},
  endpoints: [{{addresses: [{addresses}]}}], ports: [{ports}]}}\n"
    )
}

const POSTGRES: &str = "{port: 5432}";

/// What members come and go.
fn deltas(messages: &[ToDataplane]) -> Vec<String> {
    let delta = |message: &ToDataplane| match message {
        ToDataplane::IpSetDeltaUpdate(delta) => format!("+{:?} -{:?}", delta.added_members, delta.removed_members),
        other => panic!("not a delta: {other:?}"),
    };
    messages.iter().map(delta).collect()
}

#[test]
fn where_packets_go_is_an_address_with_its_port_and_where_they_come_from_an_address() {
    let ports = "{port: 5432}, {name: dns, protocol: UDP, port: 53}, {name: any}";
    let to = slice("shop", "db", 1, "10.0.0.2, 10.0.0.3", ports);
    let from = slice("other", "db", 1, "10.0.0.4", "");
    let cluster = Cluster::of(&[PODS, &to, &from].concat());
    for (packet, allowed) in [
        (Packet::tcp(WEB, "10.0.0.2", 5432), true),
        (Packet::tcp(WEB, "10.0.0.3", 5432), true),
        (Packet::udp(WEB, "10.0.0.2", 53), true),
        (Packet::udp(WEB, "10.0.0.2", 5432), false),
        (Packet::tcp(WEB, "10.0.0.2", 80), false),
        (Packet::tcp(WEB, "10.0.0.4", 5432), false),
        (Packet::tcp("10.0.0.4", WEB, 80), true),
        (Packet::tcp("10.0.0.4", WEB, 81), false),
        (Packet::tcp("10.0.0.2", WEB, 80), false),
        (
            Packet {
                source_port: 80,
                ..Packet::tcp("10.0.0.4", WEB, 80)
            },
            false,
        ),
    ] {
        assert_eq!(allows(&cluster.plane, &packet), allowed, "{packet:?}");
    }
}

#[test]
fn endpoints_that_are_not_ready_are_endpoints_still() {
    let conditions = "conditions: {ready: false, serving: true, terminating: true}";
    let slice = slice("shop", "db", 1, "10.0.0.2", POSTGRES);
    let slice = slice.replace("addresses: [10.0.0.2]", &format!("addresses: [10.0.0.2], {conditions}"));
    let cluster = Cluster::of(&[PODS, &slice].concat());
    assert!(allows(&cluster.plane, &Packet::tcp(WEB, "10.0.0.2", 5432)));
}

#[test]
fn a_slice_that_changes_tells_of_itself_only() {
    let mut cluster = Cluster::of(&[PODS, &slice("shop", "db", 1, "10.0.0.2", POSTGRES)].concat());
    let more = slice("shop", "db", 2, "10.0.0.2, 10.0.0.3", POSTGRES);
    assert_eq!(deltas(&cluster.apply(&more)), ["+[\"10.0.0.3,tcp:5432\"] -[]"]);
    // Another slice has it, too.
    let less = slice("shop", "db", 2, "10.0.0.4", POSTGRES);
    assert_eq!(
        deltas(&cluster.apply(&less)),
        ["+[\"10.0.0.4,tcp:5432\"] -[\"10.0.0.3,tcp:5432\"]"]
    );
    // A slice that goes from one service to another.
    let moved = less.replace("service-name: db", "service-name: cache");
    assert_eq!(deltas(&cluster.apply(&moved)), ["+[] -[\"10.0.0.4,tcp:5432\"]"]);
    assert_eq!(deltas(&cluster.delete(&moved)), Vec::<String>::new());
    // Nobody names the service of this namespace.
    let foreign = slice("else", "db", 1, "10.0.0.9", POSTGRES);
    assert_eq!(deltas(&cluster.apply(&foreign)), Vec::<String>::new());
    assert_eq!(cluster.plane, cluster.anew());
    let last = slice("shop", "db", 1, "10.0.0.2", POSTGRES);
    assert_eq!(deltas(&cluster.delete(&last)), ["+[] -[\"10.0.0.2,tcp:5432\"]"]);
    assert!(!allows(&cluster.plane, &Packet::tcp(WEB, "10.0.0.2", 5432)));
}
