//! Direct server return: the balancing node passes packets on as they came, by a tunnel, and the backend's node answers the
//! client itself. `a` balances, `b` has the backends; both are on the clients' link.

use std::net::IpAddr;
use std::time::Duration;

use control::connections::Filter;
use control::show::flows::FlowState;
use testbed::Plane;
use testbed::packets::{Mac, fix_v4, frame, ip, open, port_mac, tcp, udp};

use super::address;

const CLIENT: Mac = [2, 0, 0, 0, 0, 0xa];
const NODE: Mac = [2, 0, 0, 0, 0, 0xb];
const POD: Mac = [2, 0, 0, 0, 0, 0xc];

/// A client, a virtual address, an external address and a backend, in both families.
const CLIENTS: [&str; 2] = ["10.1.0.9", "fd00:1::9"];
const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const EXTERNAL: &str = "192.0.2.10";
const BACKENDS: [&str; 2] = ["10.3.0.1", "fd00:3::1"];

fn documents(documents: &[String]) -> String {
    documents.join("\n---\n")
}

fn port(name: &str, spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Port, metadata: {{name: {name}}}, spec: {{device: {name}, {spec}}}}}")
}

fn neighbor(name: &str, port: &str, address: &str, last: &str) -> String {
    format!(
        "{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: {name}}}, \
         spec: {{port: {port}, address: '{address}', mac: '02:00:00:00:00:{last}'}}}}"
    )
}

fn route(name: &str, destination: &str, via: &str) -> String {
    format!(
        "{{apiVersion: margay/v1, kind: Route, metadata: {{name: {name}}}, \
         spec: {{destination: '{destination}', via: [{via}]}}}}"
    )
}

/// What both nodes have: clients on `front`, each other on `right`, a tunnel between them.
fn node(own: u8, other: u8) -> Vec<String> {
    vec![
        port(
            "front",
            &format!("driver: memory, addresses: [10.1.0.{own}/24, 'fd00:1::a{own}/64']"),
        ),
        port("right", &format!("driver: memory, addresses: [10.2.0.{own}/24]")),
        port(
            "tunl0",
            &format!(
                "driver: ipip, local: 10.2.0.{own}, remote: 10.2.0.{other}, \
                 addresses: [10.8.0.{own}/30, 'fd00:8::{own}/64']"
            ),
        ),
        neighbor("client4", "front", CLIENTS[0], "0a"),
        neighbor("client6", "front", CLIENTS[1], "0a"),
        neighbor("other", "right", &format!("10.2.0.{other}"), "0b"),
    ]
}

fn service(annotations: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}},
  spec: {{clusterIP: {}, clusterIPs: [{}, '{}'], externalIPs: [{EXTERNAL}], externalTrafficPolicy: Cluster,
  ports: [{{name: http, protocol: TCP, port: 80}}, {{name: dns, protocol: UDP, port: 53}}]}}}}",
        CLUSTER[0], CLUSTER[0], CLUSTER[1]
    )
}

fn direct() -> String {
    service("margay/direct-server-return: tunnel")
}

/// Backends of IPv4 by last byte, and the node and conditions of each.
fn slice(backends: &[(u8, &str, &str)]) -> String {
    let endpoints = backends.iter().map(|(last, node, conditions)| {
        format!("{{addresses: [10.3.0.{last}], nodeName: {node}, conditions: {{{conditions}}}}}")
    });
    slice_of("v4", "IPv4", &endpoints.collect::<Vec<_>>().join(", "))
}

fn slice_of(name: &str, family: &str, endpoints: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family},
  metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}},
  ports: [{{name: http, protocol: TCP, port: 8080}}, {{name: dns, protocol: UDP, port: 5353}}], endpoints: [{endpoints}]}}"
    )
}

const READY: &str = "ready: true";
const DRAINING: &str = "ready: false, serving: true, terminating: true";

fn both_slices() -> String {
    let v6 = format!("{{addresses: ['{}'], nodeName: b}}", BACKENDS[1]);
    documents(&[slice(&[(1, "b", READY)]), slice_of("v6", "IPv6", &v6)])
}

/// The balancing node.
fn a(service: &str, slices: &str) -> Plane {
    let mut all = node(1, 2);
    all.push(route("pods4", "10.3.0.0/24", "{port: tunl0}"));
    all.push(route("pods6", "fd00:3::/64", "{port: tunl0}"));
    all.extend([service.to_owned(), slices.to_owned()]);
    Plane::on_node(&documents(&all), "a").unwrap_or_else(|error| panic!("{error}"))
}

/// The node of the backends.
fn b(service: &str, slices: &str) -> Plane {
    let mut all = node(2, 1);
    all.push(port(
        "pods",
        "driver: memory, addresses: [10.3.0.254/24, 'fd00:3::fe/64']",
    ));
    for last in 1..4 {
        all.push(neighbor(&format!("pod{last}"), "pods", &format!("10.3.0.{last}"), "0c"));
    }
    all.push(neighbor("pod6", "pods", BACKENDS[1], "0c"));
    all.extend([service.to_owned(), slices.to_owned()]);
    Plane::on_node(&documents(&all), "b").unwrap_or_else(|error| panic!("{error}"))
}

/// A segment with these flags.
fn segment(from: (IpAddr, u16), to: (IpAddr, u16), hops: u8, flags: u8) -> Vec<u8> {
    let mut packet = tcp(from, to, hops);
    let header = if from.0.is_ipv4() { 20 } else { 40 };
    let was = std::mem::replace(&mut packet[header + 13], flags);
    let sum = u16::from_be_bytes([packet[header + 16], packet[header + 17]]);
    let sum = sum.wrapping_add(u16::from(was)).wrapping_sub(u16::from(flags));
    packet[header + 16..header + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Packets that leave by `right` when the client sends one to `a`.
fn passed(plane: &mut Plane, packet: &[u8]) -> Vec<Vec<u8>> {
    let [right] = plane.exchange("front", &[frame(port_mac(1), CLIENT, packet)], ["right"]);
    let packets = right.into_iter().filter(|frame| frame[12..14] != [8, 6]);
    packets.map(|frame| frame[14..].to_vec()).collect()
}

/// What was in the tunnel, which is to lead from `a` to `b`.
fn unwrapped(plane: &mut Plane, packet: &[u8]) -> Vec<u8> {
    let mut outer = passed(plane, packet);
    assert_eq!(outer.len(), 1, "{:?}", plane.drops());
    let outer = outer.remove(0);
    let inner = if packet[0] >> 4 == 4 { 4 } else { 41 };
    assert_eq!((outer[0], outer[9]), (0x45, inner), "in the tunnel");
    assert_eq!(outer[12..20], [10, 2, 0, 1, 10, 2, 0, 2]);
    outer[20..].to_vec()
}

/// What the pods of `b` get of a packet from the tunnel.
fn delivered(plane: &mut Plane, inner: &[u8]) -> Vec<Vec<u8>> {
    let transport = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let mut outer = ip(address("10.2.0.1"), address("10.2.0.2"), transport, 64, inner);
    fix_v4(&mut outer);
    let [pods] = plane.exchange("right", &[frame(port_mac(2), NODE, &outer)], ["pods"]);
    let packets = pods.into_iter().filter(|frame| frame[12..14] != [8, 6]);
    packets.map(|frame| frame[14..].to_vec()).collect()
}

/// What the clients get of a packet of a pod of `b`.
fn answered(plane: &mut Plane, packet: &[u8]) -> Vec<u8> {
    let [front] = plane.exchange("pods", &[frame(port_mac(4), POD, packet)], ["front"]);
    assert_eq!(front.len(), 1, "{:?}", plane.drops());
    front[0][14..].to_vec()
}

#[test]
fn answers_go_past_the_node_that_balances() {
    let (mut a, mut b) = (a(&direct(), &both_slices()), b(&direct(), &both_slices()));
    for family in 0..2 {
        let (client, backend) = ((address(CLIENTS[family]), 4000), (address(BACKENDS[family]), 8080));
        let service = (address(CLUSTER[family]), 80);
        for (flags, back) in [(SYN, SYN | ACK), (ACK, ACK)] {
            let inner = unwrapped(&mut a, &segment(client, service, 64, flags));
            assert_eq!(inner, segment(client, service, 63, flags), "as it came");
            let [delivered] = delivered(&mut b, &inner).try_into().unwrap();
            assert_eq!(delivered, segment(client, backend, 62, flags));
            let answer = answered(&mut b, &segment(backend, client, 64, back));
            assert_eq!(answer, segment(service, client, 63, back), "from the service itself");
        }
    }
    // The half that `a` sees is enough for it to remember them for long.
    a.advance(Duration::from_secs(1000));
    let flows = a.views().connections().page(&Filter::default(), 0).0;
    assert_eq!(flows.len(), 2);
    for flow in flows {
        assert_eq!(
            (flow.state, flow.packets, flow.reply_packets),
            (FlowState::Established, 2, 0)
        );
        assert!(flow.translated_target.is_some(), "who answers is known");
    }
    let (client, service) = ((address(CLIENTS[0]), 4000), (address(CLUSTER[0]), 80));
    unwrapped(&mut a, &segment(client, service, 64, ACK));
    assert!(a.views().services()[0].direct);
    // A reset ends it.
    unwrapped(&mut a, &segment(client, service, 64, RST | ACK));
    a.advance(Duration::from_secs(60));
    assert_eq!(passed(&mut a, &segment(client, service, 64, ACK)).len(), 0);
}

#[test]
fn a_handshake_that_the_client_does_not_complete_is_forgotten() {
    let mut a = a(&direct(), &both_slices());
    let (client, service) = ((address(CLIENTS[0]), 4000), (address(CLUSTER[0]), 80));
    unwrapped(&mut a, &segment(client, service, 64, SYN));
    a.advance(Duration::from_secs(30));
    assert_eq!(a.views().connections().live(), 0);
}

#[test]
fn a_client_from_outside_keeps_its_address() {
    let (client, service) = ((address(CLIENTS[0]), 4000), (address(EXTERNAL), 53));
    let question = udp(client, service, 64, b"?");
    let mut direct = a(&direct(), &both_slices());
    assert_eq!(unwrapped(&mut direct, &question), udp(client, service, 63, b"?"));
    // Answers that are to come back by the node need an address of it.
    let mut back = a(&service_without(), &both_slices());
    let inner = unwrapped(&mut back, &question);
    let sent = open(&frame(NODE, CLIENT, &inner));
    assert_eq!((sent.source, sent.target), (address("10.8.0.1"), address(BACKENDS[0])));
    // So it is where no tunnel leads to the backend.
    direct
        .apply(&route("pods4", "10.3.0.0/24", "{gateway: 10.2.0.2}"))
        .unwrap();
    let [sent] = passed(&mut direct, &udp((client.0, 4001), service, 64, b"?"))
        .try_into()
        .unwrap();
    let sent = open(&frame(NODE, CLIENT, &sent));
    assert_eq!((sent.source, sent.target), (address("10.2.0.1"), address(BACKENDS[0])));
    // What was direct cannot be anything else.
    assert_eq!(passed(&mut direct, &question).len(), 0);
    assert_eq!(direct.dropped("admit/no-direct-way"), 1);
}

fn service_without() -> String {
    service("")
}

#[test]
fn a_backend_that_drains_keeps_what_it_has() {
    let slices = slice(&[(1, "b", READY), (2, "b", READY), (3, "b", READY)]);
    let (mut a, mut b) = (a(&direct(), &slices), b(&direct(), &slices));
    let service = (address(CLUSTER[0]), 80);
    let chosen = |a: &mut Plane, b: &mut Plane, port: u16, flags: u8| {
        let inner = unwrapped(a, &segment((address(CLIENTS[0]), port), service, 64, flags));
        let [delivered] = delivered(b, &inner).try_into().unwrap();
        open(&frame(POD, NODE, &delivered)).target
    };
    let before: Vec<_> = (0..30).map(|port| chosen(&mut a, &mut b, 4000 + port, SYN)).collect();
    let other = slice(&[(1, "b", DRAINING), (2, "b", READY), (3, "b", READY)]);
    a.apply(&other).unwrap();
    b.apply(&other).unwrap();
    for (port, backend) in before.iter().enumerate() {
        assert_eq!(chosen(&mut a, &mut b, 4000 + port as u16, ACK), *backend);
    }
    let draining = address(BACKENDS[0]);
    assert!(before.contains(&draining), "a test of nothing");
    assert!((0..30).all(|port| chosen(&mut a, &mut b, 5000 + port, SYN) != draining));
    // Of the same backends both nodes choose the same.
    let told = a.views().connections().page(&Filter::default(), 0).0;
    let of_b = b.views().connections().page(&Filter::default(), 0).0;
    for flow in told {
        let same = of_b.iter().find(|other| other.source == flow.source).unwrap();
        assert_eq!(same.translated_target, flow.translated_target);
    }
}

#[test]
fn nodes_that_disagree_do_not_pass_packets_to_and_fro() {
    let elsewhere = slice(&[(1, "a", READY)]);
    let (client, service) = ((address(CLIENTS[0]), 4000), (address(CLUSTER[0]), 53));
    let mut b = b(&direct(), &elsewhere);
    let question = udp(client, service, 63, b"?");
    let [sent] = delivered(&mut b, &question).try_into().unwrap();
    let sent = open(&frame(POD, NODE, &sent));
    assert_eq!(sent.target, address(BACKENDS[0]), "for the backend alone");
    // One here is nearer than one that another node would have to be asked for.
    let both = slice(&[(1, "a", READY), (2, "b", READY)]);
    b.apply(&both).unwrap();
    for port in 5000..5020 {
        let [sent] = delivered(&mut b, &udp((client.0, port), service, 63, b"?"))
            .try_into()
            .unwrap();
        assert_eq!(open(&frame(POD, NODE, &sent)).target, address("10.3.0.2"));
    }
}

#[test]
fn a_client_is_told_what_fits_into_the_tunnel() {
    let mut a = a(&direct(), &both_slices());
    for family in 0..2 {
        let (client, service) = ((address(CLIENTS[family]), 4000), (address(CLUSTER[family]), 53));
        let header = if family == 0 { 28 } else { 48 };
        let mut large = udp(client, service, 64, &vec![7; 1481 - header]);
        if family == 0 {
            large[6] = 0x40;
            fix_v4(&mut large);
        }
        let [told] = a.exchange("front", &[frame(port_mac(1), CLIENT, &large)], ["front"]);
        let told = open(&told[0]);
        assert_eq!((told.icmp(), told.word()), ([(3, 4), (2, 0)][family], 1480));
        let quoted: &[u8] = &large[..header];
        assert!(told.quote().starts_with(quoted), "as the client sent it");
    }
    // What may be cut is cut, and as it came otherwise.
    let (client, service) = ((address(CLIENTS[0]), 4001), (address(CLUSTER[0]), 53));
    let pieces = passed(&mut a, &udp(client, service, 64, &[7; 1472]));
    assert_eq!(pieces.len(), 2);
    for piece in pieces {
        assert_eq!(piece[36..40], [10, 96, 0, 10], "to the service");
    }
}

#[test]
fn another_way_of_return_is_refused() {
    let error = Plane::new(&service("margay/direct-server-return: pigeon"))
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(
        error.contains("expected `tunnel`") && error.contains("direct-server-return"),
        "{error}"
    );
}
