//! Ports of the node that lead to workloads.

use testbed::Plane;
use testbed::packets::{Received, frame, open, port_mac, tcp, udp};

use super::{BACKENDS, CLIENT, NETWORK, address, service};

const PORTS: &str =
    "{protocol: UDP, port: 53, hostPort: 5300}, {protocol: TCP, port: 8080, hostPort: 80, hostIP: 10.1.0.1}";

fn workload(name: &str, node: &str, address: &str, ports: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: {name}, namespace: shop}},
 spec: {{node: '{node}', pod: {name}, ipNetworks: [{address}], ports: [{ports}]}}}}\n"
    )
}

fn dns(ports: &str) -> String {
    workload("dns", "here", "10.2.0.254", ports)
}

fn plane() -> Plane {
    Plane::on_node(&format!("{NETWORK}---\n{}", dns(PORTS)), "here").unwrap()
}

/// What leaves by a port of a packet that the client, or the workload, sends.
fn pass(plane: &mut Plane, inward: bool, to: &str, packet: &[u8]) -> Option<Received> {
    let (from, sent) = match inward {
        true => ("left", frame(port_mac(1), CLIENT, packet)),
        false => ("right", frame(port_mac(2), BACKENDS, packet)),
    };
    let [left] = plane.exchange(from, &[sent], [to]);
    let mut packets = left
        .iter()
        .filter(|frame| frame[12..14] != [8, 6])
        .map(|frame| open(frame));
    let first = packets.next();
    assert_eq!(packets.next(), None);
    first
}

#[test]
fn a_port_of_the_node_leads_to_its_workload_and_answers_come_from_there() {
    let mut plane = plane();
    let (client, pod) = (address("10.1.0.2"), address("10.2.0.254"));
    // Without a hostIP at each of the node's addresses.
    for node in ["10.1.0.1", "10.2.0.1"].map(address) {
        let asked = pass(&mut plane, true, "right", &udp((client, 4000), (node, 5300), 64, b"?"));
        assert_eq!(asked.unwrap().packet, udp((client, 4000), (pod, 53), 63, b"?"));
        let answer = pass(&mut plane, false, "left", &udp((pod, 53), (client, 4000), 64, b"!"));
        assert_eq!(answer.unwrap().packet, udp((node, 5300), (client, 4000), 63, b"!"));
        plane.advance(std::time::Duration::from_secs(61));
    }
    let opened = pass(
        &mut plane,
        true,
        "right",
        &tcp((client, 4000), (address("10.1.0.1"), 80), 64),
    );
    assert_eq!(opened.unwrap().packet, tcp((client, 4000), (pod, 8080), 63));
    let elsewhere = pass(
        &mut plane,
        true,
        "right",
        &tcp((client, 4001), (address("10.2.0.1"), 80), 64),
    );
    assert_eq!(elsewhere, None, "that address has no such port");
}

#[test]
fn the_workload_reaches_itself_by_it() {
    let mut plane = plane();
    let (pod, node) = (address("10.2.0.254"), address("10.2.0.1"));
    let asked = pass(&mut plane, false, "right", &udp((pod, 4000), (node, 5300), 64, b"?")).unwrap();
    assert_eq!((asked.source, asked.target), (node, pod));
}

#[test]
fn it_is_shown_follows_its_workload_and_is_of_its_node() {
    let mut plane = plane();
    let text = control::show::services::table(&plane.views().services());
    for part in [
        "service shop/dns (HostPort)",
        "53/UDP at *:5300",
        "8080/TCP at 10.1.0.1:80",
        "10.2.0.254:53",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ask = |plane: &mut Plane, port| {
        let packet = udp((address("10.1.0.2"), 4000), (address("10.1.0.1"), port), 64, b"?");
        pass(plane, true, "right", &packet).map(|packet| packet.target)
    };
    assert_eq!(ask(&mut plane, 5300), Some(address("10.2.0.254")));
    plane.apply(&dns("{protocol: UDP, port: 53, hostPort: 5301}")).unwrap();
    assert_eq!(
        (ask(&mut plane, 5300), ask(&mut plane, 5301)),
        (None, Some(address("10.2.0.254")))
    );
    // The same port of another node is that one's business.
    let there = workload(
        "there",
        "elsewhere",
        "10.3.0.1",
        "{protocol: UDP, port: 53, hostPort: 5301}",
    );
    let before = plane.views().services();
    plane.apply(&there).unwrap();
    assert_eq!(plane.views().services(), before);
    plane.delete(&there).unwrap();
    plane.delete(&dns("")).unwrap();
    assert_eq!(ask(&mut plane, 5301), None);
    assert_eq!(plane.views().services(), []);
}

#[test]
fn a_port_that_somebody_has_is_refused_whoever_comes_first() {
    let node_port = service("type: NodePort,").replace("port: 53, ", "port: 53, nodePort: 5300, ");
    let external = service("externalIPs: [10.1.0.1],");
    let twin = |ports: &str| workload("twin", "here", "10.3.0.1", ports);
    let everywhere = twin("{protocol: TCP, port: 1, hostPort: 80}");
    let same = twin("{protocol: UDP, port: 1, hostPort: 5300}");
    let at_one = twin("{protocol: UDP, port: 1, hostPort: 5300, hostIP: 10.2.0.1}");
    let cases = [
        (&node_port, "Service/shop/web", "5300/UDP"),
        (&external, "Service/shop/web", "80/TCP"),
        (&everywhere, "WorkloadEndpoint/shop/twin", "80/TCP"),
        (&same, "WorkloadEndpoint/shop/twin", "5300/UDP"),
        (&at_one, "WorkloadEndpoint/shop/twin", "5300/UDP"),
    ];
    for (document, name, port) in cases {
        let refused = plane().apply(document).unwrap_err().to_string();
        assert!(
            refused.contains("WorkloadEndpoint/shop/dns") && refused.contains(port),
            "{refused}"
        );
        let mut first = Plane::on_node(&format!("{NETWORK}---\n{document}"), "here").unwrap();
        let refused = first.apply(&dns(PORTS)).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains(port), "{refused}");
    }
    for (ports, part) in [
        (
            "{protocol: TCP, port: 1, hostPort: 2, hostIP: 'fd00::1'}",
            "no address in ipNetworks of the family",
        ),
        (
            "{protocol: TCP, port: 1, hostPort: 2, hostIP: nowhere}",
            "is no address",
        ),
        ("{protocol: TCP, port: 1, hostIP: 10.1.0.1}", "needs a hostPort"),
        ("{protocol: ICMP, port: 1, hostPort: 2}", "has no ports"),
        (
            "{protocol: TCP, port: 1, hostPort: 2}, {protocol: TCP, port: 3, hostPort: 2}",
            "is given twice",
        ),
        ("{protocol: TCP, port: 1, hostPort: 70000}", "hostPort"),
    ] {
        let refused = plane().apply(&dns(ports)).unwrap_err().to_string();
        assert!(refused.contains(part), "{ports}: {refused}");
    }
    // Of other protocols and at other addresses they are others.
    let others = "{protocol: TCP, port: 1, hostPort: 5300}, {protocol: TCP, port: 1, hostPort: 80, hostIP: 10.2.0.1}";
    plane().apply(&twin(others)).unwrap();
}
