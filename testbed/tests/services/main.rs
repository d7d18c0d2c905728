//! Services through the real wiring: a client, a virtual address, backends, in simulated time and without root.

mod dsr;
mod host_ports;
mod many;
mod on_link;
mod used;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use testbed::Plane;
use testbed::packets::{Mac, Received, frame, open, port_mac, tcp, udp};

const CLIENT: Mac = [2, 0, 0, 0, 0, 0xa];
const BACKENDS: Mac = [2, 0, 0, 0, 0, 0xb];

const NETWORK: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, addresses: [10.2.0.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: client}, spec: {port: left, address: 10.1.0.2, mac: '02:00:00:00:00:0a'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: node}, spec: {port: right, address: 10.2.0.254, mac: '02:00:00:00:00:0b'}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: clients}, spec: {destination: 10.1.1.0/24, via: [{gateway: 10.1.0.2}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: pods}, spec: {destination: 10.3.0.0/16, via: [{gateway: 10.2.0.254}]}}
";

fn service(more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{clusterIP: 10.96.0.10, {more}
  ports: [{{name: http, protocol: TCP, port: 80, targetPort: 8080}}, {{name: dns, protocol: UDP, port: 53, targetPort: 5353}}]}}}}\n"
    )
}

fn slice(backends: &[u8]) -> String {
    let endpoints = backends
        .iter()
        .map(|number| format!("{{addresses: [10.3.0.{number}], conditions: {{ready: true}}}}"));
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}},
  ports: [{{name: http, protocol: TCP, port: 8080}}, {{name: dns, protocol: UDP, port: 5353}}], endpoints: [{endpoints}]}}\n"
    )
}

fn plane(more: &str, backends: &[u8]) -> Plane {
    Plane::new(&format!("{NETWORK}---\n{}---\n{}", service(more), slice(backends))).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn client(number: u8) -> IpAddr {
    IpAddr::from([10, 1, 1, number])
}

fn virtual_address() -> IpAddr {
    address("10.96.0.10")
}

fn out(plane: &mut Plane, packet: &[u8]) -> Option<Received> {
    let [mut right] = plane.exchange("left", &[frame(port_mac(1), CLIENT, packet)], ["right"]);
    right.retain(|frame| frame[12..14] != [8, 6]);
    assert!(right.len() < 2);
    right.first().map(|frame| open(frame))
}

fn back(plane: &mut Plane, packet: &[u8]) -> Option<Received> {
    let [left] = plane.exchange("right", &[frame(port_mac(2), BACKENDS, packet)], ["left"]);
    left.first().map(|frame| open(frame))
}

fn told(plane: &mut Plane, packet: &[u8]) -> Received {
    let [left] = plane.exchange("left", &[frame(port_mac(1), CLIENT, packet)], ["left"]);
    assert_eq!(left.len(), 1, "{:?}", plane.drops());
    open(&left[0])
}

/// The backend that a datagram of a client from a port goes to.
fn choice(plane: &mut Plane, number: u8, port: u16) -> IpAddr {
    let sent = out(plane, &udp((client(number), port), (virtual_address(), 53), 64, b"?"));
    sent.unwrap_or_else(|| panic!("{:?}", plane.drops())).target
}

#[test]
fn a_client_speaks_to_the_service_and_hears_from_it() {
    let mut plane = plane("", &[1, 2, 3]);
    let opening = out(&mut plane, &tcp((client(1), 4000), (virtual_address(), 80), 64)).unwrap();
    let backend = opening.target;
    assert_eq!(
        opening.packet,
        tcp((client(1), 4000), (backend, 8080), 63),
        "every byte"
    );
    assert_eq!(opening.to, BACKENDS);
    let mut answer = tcp((backend, 8080), (client(1), 4000), 64);
    let mut expected = tcp((virtual_address(), 80), (client(1), 4000), 63);
    let flags = |packet: &mut Vec<u8>| {
        packet[33] = 0x12;
        let sum = u16::from_be_bytes([packet[36], packet[37]]);
        packet[36..38].copy_from_slice(&(sum - 0x10).to_be_bytes());
    };
    flags(&mut answer);
    flags(&mut expected);
    assert_eq!(back(&mut plane, &answer).unwrap().packet, expected);
}

#[test]
fn connections_spread_and_each_keeps_its_backend() {
    let mut plane = plane("", &[1, 2, 3]);
    let chosen: Vec<_> = (0..150).map(|port| choice(&mut plane, 1, 2000 + port)).collect();
    let mut shares = BTreeMap::<IpAddr, u32>::new();
    chosen
        .iter()
        .for_each(|backend| *shares.entry(*backend).or_default() += 1);
    assert!(
        shares.len() == 3 && shares.values().all(|share| *share > 25),
        "{shares:?}"
    );
    let again: Vec<_> = (0..150).map(|port| choice(&mut plane, 1, 2000 + port)).collect();
    assert_eq!(chosen, again);
}

#[test]
fn a_backend_that_goes_takes_no_new_connections_and_the_others_keep_theirs() {
    let mut plane = plane("", &[1, 2, 3]);
    let before: Vec<_> = (0..100).map(|port| choice(&mut plane, 1, 2000 + port)).collect();
    let syn = |port: u16| tcp((client(2), port), (virtual_address(), 80), 64);
    let streams: Vec<_> = (0..40)
        .map(|port| out(&mut plane, &syn(3000 + port)).unwrap().target)
        .collect();
    plane.apply(&slice(&[1, 2])).unwrap();
    let gone = address("10.3.0.3");
    for (port, old) in before.iter().enumerate() {
        let now = choice(&mut plane, 1, 2000 + port as u16);
        assert!(now != gone && (now == *old || *old == gone), "{old} became {now}");
    }
    for (port, old) in streams.iter().enumerate() {
        let again = out(&mut plane, &syn(3000 + port as u16)).unwrap();
        assert_eq!(again.target, *old, "an established stream stays where its other end is");
    }
    assert!((0..100).all(|port| choice(&mut plane, 3, 7000 + port) != gone));
}

#[test]
fn affinity_keeps_a_client_at_its_backend() {
    let mut plane = plane("sessionAffinity: ClientIP,", &[1, 2, 3, 4]);
    let first = choice(&mut plane, 9, 1000);
    assert!((0..60).all(|port| choice(&mut plane, 9, 1001 + port) == first));
    plane.apply(&slice(&[1, 2, 3, 4, 5, 6, 7, 8])).unwrap();
    assert_eq!(choice(&mut plane, 9, 5000), first, "though there are others now");
    plane.advance(Duration::from_secs(1));
    let others: Vec<_> = (10..40).map(|number| choice(&mut plane, number, 1000)).collect();
    assert!(others.iter().any(|other| *other != first));
}

#[test]
fn a_service_without_backends_says_so_at_once() {
    let mut plane = plane("", &[]);
    let reset = told(&mut plane, &tcp((client(1), 4000), (virtual_address(), 80), 64));
    assert_eq!(
        (reset.source, reset.target, reset.protocol),
        (virtual_address(), client(1), 6)
    );
    assert_eq!(reset.payload[13] & 4, 4, "RST");
    let unreachable = told(&mut plane, &udp((client(1), 4000), (virtual_address(), 53), 64, b"?"));
    assert_eq!((unreachable.target, unreachable.icmp()), (client(1), (3, 3)));
}

#[test]
fn a_client_that_is_its_own_backend_reaches_itself() {
    let yaml = format!("{NETWORK}---\n{}---\n{}", service(""), slice(&[1]));
    let mut plane = Plane::new(&yaml).unwrap();
    let itself = address("10.3.0.1");
    let packet = udp((itself, 4000), (virtual_address(), 53), 64, b"?");
    let [right] = plane.exchange("right", &[frame(port_mac(2), BACKENDS, &packet)], ["right"]);
    let asked = open(&right[0]);
    assert_eq!(
        (asked.source, asked.target),
        (address("10.2.0.1"), itself),
        "not from itself"
    );
    let port = u16::from_be_bytes([asked.payload[0], asked.payload[1]]);
    let answer = udp((itself, 5353), (address("10.2.0.1"), port), 64, b"!");
    let [right] = plane.exchange("right", &[frame(port_mac(2), BACKENDS, &answer)], ["right"]);
    assert_eq!(
        open(&right[0]).packet,
        udp((virtual_address(), 53), (itself, 4000), 63, b"!")
    );
}

#[test]
fn without_a_service_nothing_is_tracked_any_more() {
    let mut plane = plane("", &[1]);
    choice(&mut plane, 1, 1000);
    plane
        .delete("{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}}")
        .unwrap();
    let before = plane.packets("flows");
    let packet = udp((client(1), 1000), (address("10.3.0.1"), 53), 64, b"?");
    assert!(out(&mut plane, &packet).is_some());
    assert_eq!(plane.packets("flows"), before);
}
