//! Source NAT: other sources outside, and the right ones back.

use std::collections::HashSet;
use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::{Received, echo, frame, icmp, open_all, port_mac, tcp, udp};

use super::{LEFT, address, back, families, only, out, plane, ports_of};

fn ports(packet: &Received) -> (u16, u16) {
    let word = |at: usize| u16::from_be_bytes([packet.payload[at], packet.payload[at + 1]]);
    (word(0), word(2))
}

#[test]
fn udp_gets_our_address_and_answers_find_their_way() {
    let mut plane = plane();
    for [host, own, far] in families() {
        let sent = only_out(&mut plane, &udp((host, 5000), (far, 53), 64, b"question"));
        // Its port was free; every byte is as if it had been sent from there.
        assert_eq!(sent.packet, udp((own, 5000), (far, 53), 63, b"question"));
        let answer = back(&mut plane, &udp((far, 53), (own, 5000), 64, b"answer"));
        let answer = only(&mut plane, answer);
        assert_eq!(answer.packet, udp((far, 53), (host, 5000), 63, b"answer"));
        assert_eq!(answer.to, LEFT);
        // Nobody else may answer, and nobody may ask from outside.
        for from in [
            (far, 54),
            (address(if far.is_ipv4() { "203.0.113.1" } else { "2001:db8:1::1" }), 53),
        ] {
            assert_eq!(back(&mut plane, &udp(from, (own, 5000), 64, b"nosy")), []);
        }
    }
}

fn only_out(plane: &mut Plane, packet: &[u8]) -> Received {
    let packets = out(plane, packet);
    only(plane, packets)
}

#[test]
fn tcp_and_echoes_too() {
    let mut plane = plane();
    for [host, own, far] in families() {
        let sent = only_out(&mut plane, &tcp((host, 4321), (far, 443), 64));
        assert_eq!(sent.packet, tcp((own, 4321), (far, 443), 63), "with its checksum");
        let ping = only_out(&mut plane, &echo(host, far, 1, b"ping"));
        assert_eq!((ping.source, ping.target), (own, far));
        let (kind, identifier) = (if far.is_ipv4() { 0 } else { 129 }, ping.word());
        let pong = back(&mut plane, &icmp(far, own, 64, (kind, 0), identifier, b"ping"));
        let pong = only(&mut plane, pong);
        assert_eq!((pong.source, pong.target, pong.word()), (far, host, 0x4d47_0001));
    }
}

#[test]
fn a_port_serves_many_connections_to_different_places_and_none_to_one() {
    let mut plane = Plane::new(&ports_of("5000-5003")).unwrap();
    let [[_, own, far], _] = families();
    let host = |number: u8| IpAddr::from([10, 1, 1, number]);
    // Four ports, far more connections.
    for number in 0..200 {
        let far = IpAddr::from([198, 51, 100, number]);
        for client in 0..4 {
            let sent = only_out(&mut plane, &udp((host(client), 7000), (far, 53), 64, b"x"));
            assert_eq!(sent.source, own);
            assert!((5000..=5003).contains(&ports(&sent).0));
        }
    }
    // To one place four of them are known, which have four ports; the fifth has none.
    let before = plane.dropped("admit/ports-exhausted");
    let sent: Vec<_> = (10..14)
        .map(|client| ports(&only_out(&mut plane, &udp((host(client), 7000), (far, 99), 64, b"x"))).0)
        .collect();
    assert_eq!(sent.iter().collect::<HashSet<_>>().len(), 4, "{sent:?}");
    assert_eq!(out(&mut plane, &udp((host(20), 7000), (far, 99), 64, b"x")), []);
    assert_eq!(plane.dropped("admit/ports-exhausted"), before + 1);
    // Those that have one keep it.
    for (client, port) in (10..14).zip(sent) {
        let again = only_out(&mut plane, &udp((host(client), 7000), (far, 99), 64, b"y"));
        assert_eq!(ports(&again).0, port);
        let answer = back(&mut plane, &udp((far, 99), (own, port), 64, b"z"));
        assert_eq!(only(&mut plane, answer).target, host(client));
    }
}

#[test]
fn what_is_excluded_or_leaves_elsewhere_keeps_its_source() {
    let yaml = ports_of("1024-65535").replace("address: 192.0.2.1,", "address: 192.0.2.1, exclude: [198.51.100.0/24],");
    let mut plane = Plane::new(&yaml).unwrap();
    let [[host, own, far], _] = families();
    let kept = only_out(&mut plane, &udp((host, 5000), (far, 53), 64, b"x"));
    assert_eq!(kept.source, host);
    let other = only_out(&mut plane, &udp((host, 5000), (address("203.0.113.9"), 53), 64, b"x"));
    assert_eq!(other.source, own);
}

#[test]
fn an_address_beside_our_own_is_answered_for() {
    let yaml = ports_of("1024-65535").replace("address: 192.0.2.1,", "addresses: [192.0.2.50, 192.0.2.51],");
    let mut plane = Plane::new(&yaml).unwrap();
    let [[_, _, far], _] = families();
    let sources: HashSet<IpAddr> = (1..40)
        .map(|client| {
            only_out(
                &mut plane,
                &udp((IpAddr::from([10, 1, 1, client]), 5000), (far, 53), 64, b"x"),
            )
            .source
        })
        .collect();
    assert_eq!(sources, HashSet::from([address("192.0.2.50"), address("192.0.2.51")]));
    let IpAddr::V4(asked) = address("192.0.2.51") else {
        unreachable!()
    };
    let question = testbed::packets::arp(
        [0xff; 6],
        1,
        ([2, 0, 0, 0, 0, 0xb], [192, 0, 2, 9].into()),
        ([0; 6], asked),
    );
    let [answers] = plane.exchange("right", &[question], ["right"]);
    assert_eq!(answers.len(), 1, "who has it is told");
    // Once the rule has gone, nobody has it.
    plane
        .delete("{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out4}}")
        .unwrap();
    let question = testbed::packets::arp(
        [0xff; 6],
        1,
        ([2, 0, 0, 0, 0, 0xb], [192, 0, 2, 9].into()),
        ([0; 6], asked),
    );
    let [answers] = plane.exchange("right", &[question], ["right"]);
    assert_eq!(answers.len(), 0);
}

#[test]
fn a_vector_of_new_connections_is_made_at_once() {
    let mut plane = plane();
    let [[host, own, far], _] = families();
    let frames: Vec<_> = (0..200u16)
        .flat_map(|port| {
            // Twice: the second packet meets what the first has made in the same vector.
            let packet = frame(
                port_mac(1),
                LEFT,
                &udp((host, 10_000 + port), (far, 53), 64, &port.to_be_bytes()),
            );
            [packet.clone(), packet]
        })
        .collect();
    let [right] = plane.exchange("left", &frames, ["right"]);
    let sent = open_all(&right);
    assert_eq!(sent.len(), 400, "{:?}", plane.drops());
    assert!(sent.iter().all(|packet| packet.source == own));
    assert_eq!(sent.iter().map(ports).collect::<HashSet<_>>().len(), 200);
}

#[test]
fn a_connection_made_before_the_rule_keeps_its_source() {
    let [v4, _] =
        ["out4", "out6"].map(|name| format!("{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: {name}}}}}"));
    let mut plane = plane();
    plane.delete(&v4).unwrap();
    let [[host, own, far], _] = families();
    assert_eq!(
        only_out(&mut plane, &udp((host, 5000), (far, 53), 64, b"x")).source,
        host
    );
    plane.apply(&ports_of("1024-65535")).unwrap();
    assert_eq!(
        only_out(&mut plane, &udp((host, 5000), (far, 53), 64, b"x")).source,
        host
    );
    assert_eq!(
        only_out(&mut plane, &udp((host, 5001), (far, 53), 64, b"x")).source,
        own
    );
}

#[test]
fn rules_that_make_no_sense_are_refused_by_name() {
    let mut plane = plane();
    let rule = |name: &str, spec: &str| {
        format!("{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: {name}}}, spec: {spec}}}")
    };
    let cases = [
        ("{source: 10.1.0.0/16, address: 192.0.2.1, ports: 9-8}", "upside down"),
        (
            "{source: 10.1.0.0/16, address: 192.0.2.1, ports: 0-8}",
            "`0` is not a port",
        ),
        (
            "{source: 10.1.0.0/16, address: 192.0.2.1, ports: 70000}",
            "`70000` is not a port",
        ),
        ("{source: 10.1.0.0/16}", "spec.address"),
        ("{source: 10.1.0.0/16, addresses: []}", "spec.address: is missing"),
        ("{source: 10.1.0.1/16, address: 192.0.2.1}", "spec.source"),
        (
            "{source: 10.1.0.0/16, address: 'fd00:2::1'}",
            "is IPv6, but the source 10.1.0.0/16 is IPv4",
        ),
        ("{source: 10.1.0.0/16, address: 203.0.113.1}", "on no connected prefix"),
        (
            "{source: 10.1.0.0/16, address: 192.0.2.1, outPort: nowhere}",
            "Port/nowhere",
        ),
        (
            "{source: 10.1.0.0/16, address: 192.0.2.1}",
            "are taken by SourceNat/out4",
        ),
        ("{source: 10.1.0.0/16, address: 192.0.2.1, port: 7}", "unknown field"),
    ];
    for (spec, part) in cases {
        let refused = plane
            .apply(&rule("second", spec))
            .err()
            .unwrap_or_else(|| panic!("{spec}"))
            .to_string();
        assert!(refused.contains(part), "{spec}: {refused}");
        assert!(refused.contains("second"), "{refused}");
    }
    plane
        .apply(&rule("second", "{source: 10.1.0.0/16, address: 192.0.2.7}"))
        .unwrap();
}
