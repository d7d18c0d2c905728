//! Calico's pools: what leaves one with `natOutgoing` for the world does so with the address of the port it leaves by.

use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::udp;

use super::{address, back, families, only, out, ports_of};

const POOLS: &str = "
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods4}, spec: {cidr: 10.1.0.0/16, natOutgoing: true}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods6}, spec: {cidr: 'fd00:1::/64', natOutgoing: true}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: others4}, spec: {cidr: 203.0.113.0/24}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: others6}, spec: {cidr: '2001:db8:1::/64'}}
";

/// The same network without SourceNats.
fn network() -> String {
    let documents = ports_of("1-2");
    let documents = documents.split("---\n").filter(|text| !text.contains("SourceNat"));
    documents.collect::<Vec<_>>().join("---\n")
}

/// The source that the far side sees.
fn seen(plane: &mut Plane, from: IpAddr, to: IpAddr, port: u16) -> IpAddr {
    let packets = out(plane, &udp((from, port), (to, 53), 64, b"question"));
    only(plane, packets).source
}

#[test]
fn what_leaves_the_pools_has_the_ports_address_and_answers_come_back() {
    let mut plane = Plane::new(&[&network(), POOLS].join("---\n")).unwrap();
    for [host, own, far] in families() {
        assert_eq!(seen(&mut plane, host, far, 5000), own);
        let answer = back(&mut plane, &udp((far, 53), (own, 5000), 64, b"answer"));
        let answer = only(&mut plane, answer);
        assert_eq!(answer.packet, udp((far, 53), (host, 5000), 63, b"answer"));
        let pod = address(if far.is_ipv4() { "203.0.113.5" } else { "2001:db8:1::5" });
        assert_eq!(seen(&mut plane, host, pod, 5000), host, "it goes to another pool");
    }
    // Who is in a pool without it, or in none, keeps its address.
    for stranger in ["203.0.113.6", "198.18.0.1"].map(address) {
        assert_eq!(seen(&mut plane, stranger, address("198.51.100.7"), 5000), stranger);
    }
}

#[test]
fn pools_come_change_and_go() {
    let mut plane = Plane::new(&network()).unwrap();
    let [[host, own, far], _] = families();
    assert_eq!(seen(&mut plane, host, far, 5000), host);
    assert_eq!(plane.packets("flows"), 0, "nothing asks for connections");
    plane.apply(POOLS).unwrap();
    assert_eq!(seen(&mut plane, host, far, 5001), own);
    // A connection keeps what it has, and a new one gets what is said then.
    plane
        .apply(&POOLS.replace("cidr: 203.0.113.0/24", "cidr: 198.51.100.0/24"))
        .unwrap();
    assert_eq!(seen(&mut plane, host, far, 5001), own);
    assert_eq!(seen(&mut plane, host, far, 5002), host);
    plane.delete(POOLS).unwrap();
    let tracked = plane.packets("flows");
    assert_eq!(seen(&mut plane, host, far, 5003), host);
    assert_eq!(plane.packets("flows"), tracked, "nothing asks any more");
}

#[test]
fn what_is_written_of_an_address_comes_before_its_pool() {
    let mut plane = Plane::new(&[&network(), POOLS].join("---\n")).unwrap();
    let [[host, own, far], _] = families();
    plane
        .apply("{apiVersion: margay/v1, kind: SourceNat, metadata: {name: one}, spec: {source: 10.1.0.2/32, address: 192.0.2.77}}")
        .unwrap();
    assert_eq!(seen(&mut plane, host, far, 5000), address("192.0.2.77"));
    assert_eq!(seen(&mut plane, address("10.1.0.3"), far, 5000), own);
}
