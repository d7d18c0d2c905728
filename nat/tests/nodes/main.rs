//! The nodes of flows in a graph: what comes in, what must go out. No root, no clock, no device.

mod fragments;
mod oracle;
mod packets;
mod plane;

use fastpath::meta::VrfId;
use fastpath::rib::Target;
use nat::snat::Rule;
use packets::{ECHO, End, Plain, SCTP, TCP, UDP, error, open_error};
use plane::{INSIDE, OUTSIDE, Plane, TUNNEL};
use std::collections::BTreeSet;

const PROTOCOLS: [u8; 5] = [TCP, UDP, ECHO, SCTP, 47];

pub(crate) fn end(address: &str, port: u16) -> End {
    (address.parse().unwrap(), port)
}

/// Clients get these, once of each family.
pub(crate) const PUBLIC: [&str; 2] = ["192.0.2.1", "2001:db8::77"];
/// A client and a server.
pub(crate) const PAIRS: [(&str, &str); 2] = [("10.1.0.9", "198.51.100.7"), ("fd00:1::9", "2001:db8:ffff::7")];

/// Whoever is inside speaks to the outside under one address.
pub(crate) fn masquerade(ports: std::ops::RangeInclusive<u16>) -> Vec<Rule> {
    let rule = |source: &str, length, address: &str| Rule {
        vrf: VrfId(0),
        sources: vec![(source.parse().unwrap(), length)],
        excluded: vec![],
        out_port: None,
        addresses: vec![address.parse().unwrap()],
        ports: ports.clone(),
    };
    vec![rule("10.1.0.0", 16, PUBLIC[0]), rule("fd00:1::", 64, PUBLIC[1])]
}

/// Both ends as they are on this protocol's wire: an echo has one identifier, others have no ports.
pub(crate) fn ends(protocol: u8, client: (&str, u16), server: (&str, u16)) -> (End, End) {
    match protocol {
        ECHO => (end(client.0, client.1), end(server.0, client.1)),
        TCP | UDP | SCTP => (end(client.0, client.1), end(server.0, server.1)),
        _ => (end(client.0, 0), end(server.0, 0)),
    }
}

pub(crate) fn answer(opened: &Plain) -> Plain {
    Plain {
        source: opened.target,
        target: opened.source,
        flags: match opened.protocol {
            TCP => 0x12,
            ECHO => 1,
            _ => 0,
        },
        ..opened.clone()
    }
}

#[test]
fn without_rules_connections_are_followed_and_nothing_is_changed() {
    let mut plane = Plane::new(100, vec![]);
    for (client, server) in PAIRS {
        for protocol in PROTOCOLS {
            let (client, server) = ends(protocol, (client, 40_000), (server, 80));
            let there = Plain::new(protocol, client, server);
            for _ in 0..3 {
                assert_eq!(plane.pass(INSIDE, &there), Some(there.clone()));
            }
            let back = answer(&there);
            assert_eq!(plane.pass(OUTSIDE, &back), Some(back.clone()));
        }
    }
    assert_eq!(plane.tracking.table.len() as usize, 2 * PROTOCOLS.len());
    assert_eq!(
        plane.seen("admit") as usize,
        2 * 2 * PROTOCOLS.len(),
        "once for each direction"
    );
}

#[test]
fn clients_get_another_source_and_answers_find_back() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    for ((client, server), public) in PAIRS.into_iter().zip(PUBLIC) {
        for protocol in PROTOCOLS {
            let (client, server) = ends(protocol, (client, 40_000), (server, 80));
            let there = Plain::new(protocol, client, server);
            let sent = plane.pass(INSIDE, &there).expect("it goes on");
            let kept = Plain {
                source: end(public, client.1),
                ..there.clone()
            };
            assert_eq!(sent, kept, "with its own port, which is free");
            assert_eq!(plane.pass(INSIDE, &there), Some(sent.clone()), "and always so");
            let back = plane.pass(OUTSIDE, &answer(&sent)).expect("the answer comes back");
            assert_eq!(back, answer(&there));
        }
    }
}

#[test]
fn two_clients_with_one_port_get_two() {
    for protocol in [TCP, UDP, ECHO, SCTP] {
        let mut plane = Plane::new(100, masquerade(1024..=65535));
        let mut used = BTreeSet::new();
        for host in 10..20 {
            let client = format!("10.1.0.{host}");
            let (client, server) = ends(protocol, (&client, 40_000), ("198.51.100.7", 80));
            let there = Plain::new(protocol, client, server);
            let sent = plane.pass(INSIDE, &there).expect("it goes on");
            assert!(used.insert(sent.source), "somebody else has {:?}", sent.source);
            let back = plane.pass(OUTSIDE, &answer(&sent));
            assert_eq!(back.map(|back| back.target), Some(client));
        }
    }
}

#[test]
fn a_port_that_a_tunnel_listens_on_is_nobody_elses() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    for (protocol, given_away) in [(UDP, false), (TCP, true)] {
        for (client, server) in PAIRS {
            let there = Plain::new(protocol, end(client, TUNNEL), end(server, TUNNEL));
            let sent = plane.pass(INSIDE, &there).expect("it goes on");
            assert_eq!(sent.source.1 == TUNNEL, given_away, "{sent:?}");
            assert_eq!(plane.pass(OUTSIDE, &answer(&sent)), Some(answer(&there)));
        }
    }
}

#[test]
fn one_port_serves_connections_to_many_places() {
    let mut plane = Plane::new(1000, masquerade(5000..=5001));
    let mut connections = vec![];
    for server in 1..=200 {
        for client in 1..=2 {
            let client = end(&format!("10.1.0.{}", client + 10), 40_000);
            let there = Plain::new(UDP, client, end(&format!("198.51.100.{server}"), 53));
            let sent = plane.pass(INSIDE, &there).expect("a port is free");
            assert!((5000..=5001).contains(&sent.source.1));
            connections.push((there, sent));
        }
    }
    for (there, sent) in &connections {
        assert_eq!(plane.pass(OUTSIDE, &answer(sent)), Some(answer(there)));
    }
    let third = Plain::new(UDP, end("10.1.0.77", 40_000), end("198.51.100.1", 53));
    assert_eq!(plane.pass(INSIDE, &third), None);
    assert_eq!(plane.dropped("admit/ports-exhausted"), 1);
    let elsewhere = Plain::new(UDP, end("10.1.0.77", 40_000), end("203.0.113.1", 53));
    assert!(
        plane.pass(INSIDE, &elsewhere).is_some(),
        "another place has all ports free"
    );
}

#[test]
fn mid_stream_opens_nothing() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    for flags in [0x10, 0x12, 0x11, 0x04, 0x18, 0x00] {
        let mut there = Plain::new(TCP, end("10.1.0.9", 40_000), end("198.51.100.7", 80));
        there.flags = flags;
        assert_eq!(plane.pass(INSIDE, &there), None);
    }
    assert_eq!(plane.dropped("flows/no-connection"), 6);
    assert!(plane.tracking.table.is_empty());
}

#[test]
fn errors_are_translated_outside_and_inside() {
    for ((client, server), public) in PAIRS.into_iter().zip(PUBLIC) {
        for protocol in [TCP, UDP, ECHO] {
            let mut plane = Plane::new(100, masquerade(5000..=5999));
            let (client, server) = ends(protocol, (client, 40_000), (server, 80));
            let there = Plain::new(protocol, client, server);
            let sent = plane.pass(INSIDE, &there).expect("it goes on");
            let router = if client.0.is_ipv4() {
                "203.0.113.9"
            } else {
                "2001:db8:9::9"
            };
            for reporter in [router.parse().unwrap(), server.0] {
                let out = plane.exchange(OUTSIDE, &[error(OUTSIDE, reporter, &sent)]);
                assert_eq!(out[INSIDE].len(), 1, "{protocol} {reporter}");
                let (from, to, about) = open_error(&out[INSIDE][0]);
                assert_eq!((from, to, about), (reporter, client.0, there.clone()));
            }
            // And the other way: the client refuses an answer.
            let got = plane.pass(OUTSIDE, &answer(&sent)).expect("the answer comes back");
            let out = plane.exchange(INSIDE, &[error(INSIDE, client.0, &got)]);
            let (from, to, about) = open_error(&out[OUTSIDE][0]);
            assert_eq!((from, to, about), (end(public, 0).0, server.0, answer(&sent)));
            let mut unrelated = sent.clone();
            unrelated.target.0 = router.parse().unwrap();
            let out = plane.exchange(OUTSIDE, &[error(OUTSIDE, router.parse().unwrap(), &unrelated)]);
            assert_eq!(out, [vec![], vec![]] as [Vec<Vec<u8>>; 2]);
            assert_eq!(plane.dropped("flows/unrelated-error"), 1);
        }
    }
}

#[test]
fn a_changed_route_is_followed_by_the_next_packet() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    let there = Plain::new(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let sent = plane.pass(INSIDE, &there).unwrap();
    assert!(plane.pass(OUTSIDE, &answer(&sent)).is_some());
    plane.reroute("198.51.100.0/24", &Target::Drop);
    assert_eq!(plane.pass(INSIDE, &there), None, "its way has gone");
    assert_eq!(plane.dropped("route/new/drop-route"), 1);
    assert_eq!(
        plane.pass(OUTSIDE, &answer(&sent)),
        Some(answer(&there)),
        "that of answers has not"
    );
    plane.gateway(OUTSIDE, "198.51.100.0/24", "192.0.2.3");
    plane.reroute("203.0.113.0/24", &Target::Drop);
    assert_eq!(
        plane.pass(INSIDE, &there),
        Some(sent.clone()),
        "the same source as before"
    );
    let decided = plane.seen("admit");
    assert_eq!(plane.pass(INSIDE, &there), Some(sent));
    assert_eq!(plane.seen("admit"), decided, "and it was decided once");
}

#[test]
fn a_connection_keeps_its_source_when_rules_change() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    let there = Plain::new(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let sent = plane.pass(INSIDE, &there).unwrap();
    plane.set_rules(vec![]);
    assert_eq!(
        plane.pass(INSIDE, &there),
        Some(sent.clone()),
        "its server knows it by that"
    );
    assert_eq!(plane.pass(OUTSIDE, &answer(&sent)), Some(answer(&there)));
    let another = Plain::new(UDP, end("10.1.0.9", 40_001), end("198.51.100.7", 53));
    assert_eq!(plane.pass(INSIDE, &another), Some(another));
}

#[test]
fn hop_limits_end_before_translation() {
    for ((client, server), own) in PAIRS.into_iter().zip(["10.1.0.1", "fd00:1::1"]) {
        let mut plane = Plane::new(100, masquerade(1024..=65535));
        let mut there = Plain::new(UDP, end(client, 40_000), end(server, 53));
        there.hops = 1;
        for _ in 0..2 {
            let out = plane.exchange(INSIDE, &[there.frame(INSIDE)]);
            let (from, to, about) = open_error(&out[INSIDE][0]);
            assert_eq!((from, to), (end(own, 0).0, there.source.0));
            assert_eq!(about, there, "as its sender knows it");
        }
    }
}

#[test]
fn what_is_too_big_is_told_before_translation() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    let mut there = Plain::new(UDP, end("fd00:1::9", 40_000), end("2001:db8:ffff::7", 53));
    there.data = vec![7; 1460];
    let out = plane.exchange(INSIDE, &[there.frame(INSIDE)]);
    assert_eq!(out[OUTSIDE].len(), 0);
    let message = &out[INSIDE][0][54..];
    assert_eq!(
        (message[0], &message[4..8]),
        (2, [0, 0, 5, 220].as_slice()),
        "the MTU is 1,500"
    );
    assert_eq!(message[8..48], there.packet()[..40], "about the packet as it was sent");
}

#[test]
fn a_full_table_keeps_what_is_established() {
    let mut plane = Plane::new(16, vec![]);
    let connection = |client: u16| Plain::new(UDP, end("10.1.0.9", client), end("198.51.100.7", 53));
    for client in 1000..1016 {
        assert!(plane.pass(INSIDE, &connection(client)).is_some());
        assert!(plane.pass(OUTSIDE, &answer(&connection(client))).is_some());
    }
    assert_eq!(plane.pass(INSIDE, &connection(2000)), None);
    assert_eq!(plane.dropped("admit/flow-table-full"), 1);
    for client in 1000..1016 {
        assert!(plane.pass(INSIDE, &connection(client)).is_some());
        assert!(plane.pass(OUTSIDE, &answer(&connection(client))).is_some());
    }
    assert_eq!(plane.tracking.table.len(), 16);
}

#[test]
fn a_flood_makes_room_for_itself_only() {
    let mut plane = Plane::new(64, vec![]);
    let old = Plain::new(UDP, end("10.1.0.9", 1000), end("198.51.100.7", 53));
    assert!(plane.pass(INSIDE, &old).is_some());
    assert!(plane.pass(OUTSIDE, &answer(&old)).is_some());
    for client in 0..1000u16 {
        let flood = Plain::new(TCP, end("10.1.0.66", 1024 + client), end("198.51.100.7", 80));
        assert!(plane.pass(INSIDE, &flood).is_some());
    }
    assert!(plane.tracking.table.len() <= 64);
    let decided = plane.seen("admit");
    assert!(plane.pass(INSIDE, &old).is_some());
    assert_eq!(plane.seen("admit"), decided, "it was never forgotten");
}

#[test]
fn silence_ends_a_connection() {
    let mut plane = Plane::new(100, masquerade(1024..=65535));
    let there = Plain::new(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let sent = plane.pass(INSIDE, &there).unwrap();
    plane.wait(50);
    assert!(plane.pass(OUTSIDE, &answer(&sent)).is_some(), "UDP has a minute");
    plane.wait(70);
    assert!(plane.tracking.table.is_empty());
    let late = plane.pass(OUTSIDE, &answer(&sent));
    assert_eq!(late, None, "nobody is there for it");
}

#[test]
fn a_vector_of_the_first_packets_of_one_connection_makes_one() {
    let mut plane = Plane::new(100, masquerade(5000..=5999));
    let there = Plain::new(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let out = plane.exchange(INSIDE, &vec![there.frame(INSIDE); 200]);
    assert_eq!(out[OUTSIDE].len(), 200);
    let sources: BTreeSet<End> = out[OUTSIDE].iter().map(|frame| Plain::open(frame).source).collect();
    assert_eq!(sources.len(), 1);
    assert_eq!(plane.tracking.table.len(), 1);
    let leg = plane.tracking.table.connections_from(0).next().unwrap();
    assert_eq!(leg.there().packets(), 200, "and counts them all");
}
