//! Static NAT: workloads with addresses of their own outside.

use std::net::IpAddr;

use control::program::felix::{NatInfo, ToDataplane, WorkloadEndpoint, WorkloadEndpointId, WorkloadEndpointUpdate};
use testbed::Plane;
use testbed::packets::{Mac, Received, arp, echo, frame, open, port_mac, tcp, udp};

use super::address;

const POD: Mac = [2, 0, 0, 0, 0, 0xa];
const OTHER: Mac = [2, 0, 0, 0, 0, 0xb];
const WORLD: Mac = [2, 0, 0, 0, 0, 0xc];

const NETWORK: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: web}, spec: {device: web, driver: memory, addresses: [10.1.0.1/24, 'fd00:1::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: db}, spec: {device: db, driver: memory, addresses: [10.2.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: uplink}, spec: {device: uplink, driver: memory, addresses: [192.0.2.1/24, 'fd00:2::1/64']}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: web4}, spec: {port: web, address: 10.1.0.2, mac: '02:00:00:00:00:0a'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: web6}, spec: {port: web, address: 'fd00:1::2', mac: '02:00:00:00:00:0a'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: db4}, spec: {port: db, address: 10.2.0.2, mac: '02:00:00:00:00:0b'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world4}, spec: {port: uplink, address: 192.0.2.9, mac: '02:00:00:00:00:0c'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world6}, spec: {port: uplink, address: 'fd00:2::9', mac: '02:00:00:00:00:0c'}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: world4}, spec: {destination: 0.0.0.0/0, via: [{gateway: 192.0.2.9}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: world6}, spec: {destination: '::/0', via: [{gateway: 'fd00:2::9'}]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.0.0.0/12, natOutgoing: true}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: uplink}, spec: {node: here, interfaceName: uplink, profiles: [projectcalico-default-allow]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: db, namespace: shop},
 spec: {node: here, pod: db, interfaceName: db, ipNetworks: [10.2.0.2], profiles: [kns.shop]}}
";

const OUTSIDE: &str =
    "{internalIP: 10.1.0.2, externalIP: 192.0.2.50}, {internalIP: 'fd00:1::2', externalIP: '2001:db8:5::50'}";

fn web(nats: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: web, namespace: shop, labels: {{app: web}}}},
 spec: {{node: here, pod: web, interfaceName: web, ipNetworks: [10.1.0.2, 'fd00:1::2'], profiles: [kns.shop], ipNATs: [{nats}]}}}}\n"
    )
}

fn plane() -> Plane {
    Plane::new(&format!("{NETWORK}---\n{}", web(OUTSIDE))).unwrap()
}

/// What leaves by `to` of a packet that comes in by `from`.
fn pass(plane: &mut Plane, from: (&str, u8, Mac), to: &str, packet: &[u8]) -> Option<Received> {
    let [left] = plane.exchange(from.0, &[frame(port_mac(from.1), from.2, packet)], [to]);
    let mut packets = left
        .iter()
        .filter(|frame| frame[12..14] != [8, 6])
        .map(|frame| open(frame));
    let packet = packets.next();
    assert_eq!(packets.next(), None);
    packet
}

fn inward(plane: &mut Plane, packet: &[u8]) -> Option<Received> {
    pass(plane, ("uplink", 3, WORLD), "web", packet)
}

fn outward(plane: &mut Plane, packet: &[u8]) -> Option<Received> {
    pass(plane, ("web", 1, POD), "uplink", packet)
}

/// The workload inside and outside, and somebody far away.
fn families() -> [[IpAddr; 3]; 2] {
    [
        ["10.1.0.2", "192.0.2.50", "198.51.100.7"],
        ["fd00:1::2", "2001:db8:5::50", "2001:db8::7"],
    ]
    .map(|addresses| addresses.map(address))
}

#[test]
fn the_world_reaches_a_workload_by_its_address_outside() {
    let mut plane = plane();
    for [inside, outside, far] in families() {
        let came = inward(&mut plane, &tcp((far, 5000), (outside, 22), 64));
        assert_eq!(
            came.unwrap().packet,
            tcp((far, 5000), (inside, 22), 63),
            "{:?}",
            plane.drops()
        );
        let asked = inward(&mut plane, &udp((far, 5000), (outside, 53), 64, b"?")).unwrap();
        assert_eq!(asked.packet, udp((far, 5000), (inside, 53), 63, b"?"));
        let answer = outward(&mut plane, &udp((inside, 53), (far, 5000), 64, b"!")).unwrap();
        assert_eq!(answer.packet, udp((outside, 53), (far, 5000), 63, b"!"));
        let ping = inward(&mut plane, &echo(far, outside, 1, b"ping")).unwrap();
        assert_eq!((ping.source, ping.target), (far, inside));
    }
}

#[test]
fn what_it_begins_comes_from_there_and_keeps_its_port_but_what_is_near_sees_itself() {
    let mut plane = plane();
    for [inside, outside, far] in families() {
        // A port below those of pools: the address is its own.
        let sent = outward(&mut plane, &udp((inside, 123), (far, 123), 64, b"time?")).unwrap();
        assert_eq!(sent.packet, udp((outside, 123), (far, 123), 63, b"time?"));
        let answer = inward(&mut plane, &udp((far, 123), (outside, 123), 64, b"noon")).unwrap();
        assert_eq!(answer.packet, udp((far, 123), (inside, 123), 63, b"noon"));
    }
    let [[inside, ..], _] = families();
    let db = address("10.2.0.2");
    let near = pass(&mut plane, ("web", 1, POD), "db", &udp((inside, 5), (db, 53), 64, b"?"));
    assert_eq!(near.unwrap().source, inside, "in a pool");
}

#[test]
fn neighbours_and_the_workload_itself_reach_it_by_that_address_too() {
    let mut plane = plane();
    let [[inside, outside, _], _] = families();
    let db = (address("10.2.0.2"), 4000);
    let asked = pass(&mut plane, ("db", 2, OTHER), "web", &udp(db, (outside, 53), 64, b"?"));
    assert_eq!(asked.unwrap().packet, udp(db, (inside, 53), 63, b"?"));
    let answer = pass(&mut plane, ("web", 1, POD), "db", &udp((inside, 53), db, 64, b"!"));
    assert_eq!(answer.unwrap().source, outside);
    let itself = pass(
        &mut plane,
        ("web", 1, POD),
        "web",
        &udp((inside, 7), (outside, 53), 64, b"me?"),
    );
    assert_eq!(itself.unwrap().packet, udp((outside, 7), (inside, 53), 63, b"me?"));
    let heard = pass(
        &mut plane,
        ("web", 1, POD),
        "web",
        &udp((inside, 53), (outside, 7), 64, b"me!"),
    );
    assert_eq!(heard.unwrap().packet, udp((outside, 53), (inside, 7), 63, b"me!"));
}

#[test]
fn policy_sees_the_address_inside() {
    let mut plane = plane();
    let [[inside, outside, far], _] = families();
    plane
        .apply(
            "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: ssh}, spec: {selector: app == 'web',
  ingress: [{action: Allow, protocol: TCP, destination: {nets: [10.1.0.2/32], ports: [22]}}]}}",
        )
        .unwrap();
    assert_eq!(
        inward(&mut plane, &tcp((far, 5000), (outside, 22), 64)).unwrap().target,
        inside
    );
    assert_eq!(inward(&mut plane, &tcp((far, 5000), (outside, 23), 64)), None);
}

#[test]
fn the_address_is_answered_for_while_the_workload_has_it() {
    let mut plane = plane();
    let question = arp(
        [0xff; 6],
        1,
        (WORLD, [192, 0, 2, 9].into()),
        ([0; 6], [192, 0, 2, 50].into()),
    );
    let answers = |plane: &mut Plane| plane.exchange("uplink", std::slice::from_ref(&question), ["uplink"])[0].len();
    assert_eq!(answers(&mut plane), 1);
    plane.apply(&web("")).unwrap();
    assert_eq!(answers(&mut plane), 0);
    let [[inside, outside, far], _] = families();
    assert_eq!(inward(&mut plane, &tcp((far, 5000), (outside, 22), 64)), None);
    let sent = outward(&mut plane, &udp((inside, 123), (far, 123), 64, b"?")).unwrap();
    assert_eq!(sent.source, address("192.0.2.1"), "as others of its pool");
}

#[test]
fn an_address_that_somebody_has_is_refused_whoever_comes_first() {
    let mut plane = plane();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {clusterIP: 10.96.0.1, externalIPs: [192.0.2.50], ports: [{port: 80}]}}";
    let pool = "{apiVersion: margay/v1, kind: SourceNat, metadata: {name: a}, spec: {source: 10.1.0.0/16, address: 192.0.2.50}}";
    let port = "{apiVersion: margay/v1, kind: Port, metadata: {name: more}, spec: {device: more, driver: memory, addresses: ['2001:db8:5::50/64']}}";
    let twin = web(OUTSIDE)
        .replace("name: web,", "name: twin,")
        .replace("pod: web, interfaceName: web", "pod: twin, interfaceName: twin");
    for (document, name) in [
        (service, "Service/shop/a"),
        (pool, "SourceNat/a"),
        (port, "Port/more"),
        (&*twin, "WorkloadEndpoint/shop/twin"),
    ] {
        let refused = plane.apply(document).unwrap_err().to_string();
        assert!(refused.contains("WorkloadEndpoint/shop/web"), "{refused}");
        let mut first = Plane::new(NETWORK).unwrap();
        first.apply(document).unwrap();
        let refused = first.apply(&web(OUTSIDE)).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("externalIP"), "{refused}");
    }
    for (nats, part) in [
        (
            "{internalIP: 10.1.0.2, externalIP: 'fd00::9'}",
            "is not of the family of 10.1.0.2",
        ),
        (
            "{internalIP: 10.1.0.2, externalIP: 224.0.0.1}",
            "expected a unicast address",
        ),
        (
            "{internalIP: 10.1.0.3, externalIP: 192.0.2.51}",
            "no address of the endpoint's ipNetworks",
        ),
        (
            "{internalIP: 10.1.0.2, externalIP: 192.0.2.51}, {internalIP: 10.1.0.2, externalIP: 192.0.2.51}",
            "is given twice",
        ),
        (
            "{internalIP: 10.1.0.2, externalIP: 192.0.2.1}",
            "already belongs to Port/uplink",
        ),
    ] {
        let refused = plane.apply(&web(nats)).unwrap_err().to_string();
        assert!(refused.contains(part), "{nats}: {refused}");
    }
}

#[test]
fn messages_of_felix_say_the_same() {
    let mut plane = plane();
    let [[inside, outside, far], _] = families();
    let id = WorkloadEndpointId {
        orchestrator_id: "k8s".to_owned(),
        workload_id: "shop/web".to_owned(),
        endpoint_id: "eth0".to_owned(),
    };
    let endpoint = WorkloadEndpoint {
        state: "active".to_owned(),
        name: "web".to_owned(),
        ipv4_nets: vec!["10.1.0.2/32".to_owned()],
        profile_ids: vec!["kns.shop".to_owned()],
        ipv4_nat: vec![NatInfo {
            ext_ip: "192.0.2.77".to_owned(),
            int_ip: "10.1.0.2".to_owned(),
        }],
        ..WorkloadEndpoint::default()
    };
    let update = WorkloadEndpointUpdate { id, endpoint };
    plane.tell(vec![ToDataplane::WorkloadEndpointUpdate(update)]);
    let elsewhere = address("192.0.2.77");
    let came = inward(&mut plane, &tcp((far, 5000), (elsewhere, 22), 64)).unwrap();
    assert_eq!(came.target, inside);
    assert_eq!(inward(&mut plane, &tcp((far, 5000), (outside, 22), 64)), None);
    let sent = outward(&mut plane, &udp((inside, 123), (far, 123), 64, b"?")).unwrap();
    assert_eq!(sent.source, elsewhere);
}
