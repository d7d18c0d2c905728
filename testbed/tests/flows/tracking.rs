//! Which packets belong to a connection, and what a change does to it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use control::connections::{Filter, Following};
use testbed::Plane;
use testbed::packets::{tcp, udp, with_fragment};

use super::{address, back, families, only, out, plane, ports_of};

#[test]
fn the_middle_of_a_stream_opens_nothing() {
    let mut plane = plane();
    for [host, _, far] in families() {
        let mut segment = tcp((host, 4000), (far, 80), 64);
        let flags = segment.len() - 20 + 13;
        segment[flags] = 0x10;
        assert_eq!(out(&mut plane, &segment), []);
    }
    assert_eq!(plane.dropped("flows/no-connection"), 2);
    // From outside, and to nobody's port.
    let [[_, own, far], _] = families();
    let mut segment = tcp((far, 80), (own, 4000), 64);
    let flags = segment.len() - 20 + 13;
    segment[flags] = 0x12;
    assert_eq!(back(&mut plane, &segment), []);
    assert_eq!(plane.dropped("flows/no-connection"), 3);
}

#[test]
fn hop_limit_and_size_are_complained_about_to_the_sender_s_own_words() {
    let mut plane = plane();
    for [host, _, far] in families() {
        // The first packet, and one of a known connection.
        for _ in 0..2 {
            let packet = udp((host, 5000), (far, 53), 1, b"far");
            let [left] = plane.exchange(
                "left",
                &[super::frame(super::port_mac(1), super::LEFT, &packet)],
                ["left"],
            );
            let told = super::open(&left[0]);
            assert_eq!(told.target, host);
            assert_eq!(told.quote(), packet, "as it was sent");
            out(&mut plane, &udp((host, 5000), (far, 53), 64, b"near"));
            plane.advance(Duration::from_secs(2));
        }
    }
}

#[test]
fn a_changed_route_reaches_a_connection_with_its_next_packet() {
    let mut plane = plane();
    let [[host, _, far], _] = families();
    let packet = udp((host, 5000), (far, 53), 64, b"x");
    let first = out(&mut plane, &packet);
    assert_eq!(only(&mut plane, first).to, super::RIGHT);
    let other = "{apiVersion: margay/v1, kind: Neighbor, metadata: {name: other}, spec: {port: right, address: 192.0.2.10, mac: '02:00:00:00:00:0c'}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: far}, spec: {destination: 198.51.100.0/24, via: [{gateway: 192.0.2.10}]}}";
    plane.apply(other).unwrap();
    let second = out(&mut plane, &packet);
    let second = only(&mut plane, second);
    assert_eq!(second.to, [2, 0, 0, 0, 0, 0xc]);
    assert_eq!(second.source, address("192.0.2.1"), "with the source it had");
    plane
        .apply("{apiVersion: margay/v1, kind: Route, metadata: {name: far}, spec: {destination: 198.51.100.0/24, via: [{drop: true}]}}")
        .unwrap();
    assert_eq!(out(&mut plane, &packet), []);
    assert_eq!(plane.dropped("route/new/drop-route"), 1, "{:?}", plane.drops());
}

#[test]
fn a_packet_that_waits_for_its_neighbour_is_translated_when_it_goes() {
    let yaml: String = ports_of("1024-65535");
    let mut plane = Plane::new(&yaml).unwrap();
    let near = "10.1.0.2";
    // On the link of the right port, and never heard of.
    let packet = udp((address(near), 5000), (address("192.0.2.77"), 53), 64, b"x");
    let [asked] = plane.exchange(
        "left",
        &[super::frame(super::port_mac(1), super::LEFT, &packet)],
        ["right"],
    );
    assert_eq!(asked[0][12..14], [8, 6], "a question");
    let answer = testbed::packets::arp(
        super::port_mac(2),
        2,
        ([2, 0, 0, 0, 0, 0x4d], [192, 0, 2, 77].into()),
        (super::port_mac(2), [192, 0, 2, 1].into()),
    );
    let [sent] = plane.exchange("right", &[answer], ["right"]);
    let sent = super::open(&sent[0]);
    assert_eq!((sent.source, sent.to), (address("192.0.2.1"), [2, 0, 0, 0, 0, 0x4d]));
}

#[test]
fn silence_ends_a_connection() {
    let mut plane = plane();
    let [[host, own, far], _] = families();
    out(&mut plane, &udp((host, 5000), (far, 53), 64, b"x"));
    plane.advance(Duration::from_secs(30));
    assert_eq!(back(&mut plane, &udp((far, 53), (own, 5000), 64, b"x")).len(), 1);
    plane.advance(Duration::from_secs(70));
    assert_eq!(back(&mut plane, &udp((far, 53), (own, 5000), 64, b"x")).len(), 0);
}

#[test]
fn a_deleted_connection_leaves_its_port_to_another() {
    let mut plane = Plane::new(&ports_of("2000-2000")).unwrap();
    let delete = |plane: &mut Plane, filter: &str| {
        let filter = Filter::parse(filter).unwrap();
        plane.views().connections().delete(&filter).unwrap()
    };
    for [host, own, far] in families() {
        let question = |port| udp((host, port), (far, 53), 64, b"x");
        let answer = udp((far, 53), (own, 2000), 64, b"y");
        assert_eq!(out(&mut plane, &question(5000)).len(), 1);
        assert_eq!(out(&mut plane, &question(5001)).len(), 0, "its one port is taken");
        let filter = format!("host {host} and port 5000");
        assert_eq!(delete(&mut plane, &format!("{filter} and tcp")), 0);
        assert_eq!(delete(&mut plane, &filter), 1);
        assert_eq!(delete(&mut plane, &filter), 0);
        assert_eq!(out(&mut plane, &question(5001)).len(), 1);
        let received = back(&mut plane, &answer);
        assert_eq!(
            only(&mut plane, received).packet,
            udp((far, 53), (host, 5001), 63, b"y")
        );
    }
    assert_eq!(delete(&mut plane, ""), 2);
    assert_eq!(plane.views().connections().live(), 0);
}

/// Whole lines that came until there were `count`.
fn told(following: &mut Following, count: usize) -> Vec<String> {
    let mut context = Context::from_waker(Waker::noop());
    let mut lines: Vec<String> = vec![];
    for _ in 0..2_000 {
        while let Poll::Ready(Some(more)) = pin!(following.next()).poll(&mut context) {
            lines.extend(String::from_utf8(more).unwrap().lines().map(str::to_owned));
        }
        if lines.len() >= count {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    lines
}

#[test]
fn the_life_of_connections_is_told() {
    let mut plane = plane();
    let [[host, own, far], _] = families();
    let filter = Filter::parse("net 10.1.0.0/16 and udp").unwrap();
    let mut following = plane.views().connections().follow(filter).unwrap();
    for port in [5000, 5001] {
        out(&mut plane, &udp((host, port), (far, 53), 64, b"x"));
        back(&mut plane, &udp((far, 53), (own, port), 64, b"y"));
    }
    let ends = |lines: &[String], event: &str, port: u16| {
        let port = format!("\"port\":{port}}}");
        let is = |line: &&String| line.starts_with(&format!("{{\"event\":\"{event}\"")) && line.contains(&port);
        lines.iter().filter(is).count()
    };
    let lines = told(&mut following, 2);
    assert_eq!(
        [5000, 5001].map(|port| ends(&lines, "create", port)),
        [1, 1],
        "{lines:?}"
    );
    let deleted = plane.views().connections().delete(&Filter::parse("port 5000").unwrap());
    assert_eq!(deleted.unwrap(), 1);
    plane.advance(Duration::from_secs(100));
    let lines = told(&mut following, 2);
    assert_eq!([5000, 5001].map(|port| ends(&lines, "end", port)), [1, 1], "{lines:?}");
    let reason = |reason: &str| lines.iter().find(|line| line.contains(reason)).unwrap();
    for (why, port) in [("deleted", 5000), ("timeout", 5001)] {
        let line = reason(&format!("\"reason\":\"{why}\""));
        assert!(line.contains(&format!("\"port\":{port}}}")), "{line}");
        assert!(
            line.contains("\"packets\":1,") && line.contains("\"reply_packets\":1,"),
            "{line}"
        );
    }
}

#[test]
fn a_plane_without_rules_tracks_nothing() {
    let yaml = ports_of("1024-65535");
    let plain: String = yaml
        .split("---\n")
        .filter(|document| !document.contains("SourceNat"))
        .collect::<Vec<_>>()
        .join("---\n");
    let mut plane = Plane::new(&plain).unwrap();
    let [[host, _, far], _] = families();
    assert_eq!(out(&mut plane, &udp((host, 5000), (far, 53), 64, b"x")).len(), 1);
    assert_eq!(plane.packets("flows"), 0);
}

#[test]
fn fragments_share_the_ports_of_the_first_whichever_comes_first() {
    let mut plane = plane();
    let [[host, own, far], _] = families();
    let whole = udp((host, 5000), (far, 53), 64, &[7; 32]);
    for (identification, order) in [(1u16, [0, 1]), (2, [1, 0])] {
        let piece = |number: usize| {
            let (header, payload) = whole.split_at(20);
            let part = [&payload[..24], &payload[24..]][number];
            let mut packet = [header, part].concat();
            packet[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            let (flags, offset) = [(0x2000, 0), (0, 24)][number];
            with_fragment(packet, flags, offset)
        };
        let sent: Vec<_> = order
            .iter()
            .flat_map(|number| out(&mut plane, &piece(*number)))
            .collect();
        assert_eq!(sent.len(), 2, "{:?}", plane.drops());
        assert!(sent.iter().all(|packet| packet.source == own && packet.hop_limit == 63));
        let bytes: usize = sent.iter().map(|packet| packet.payload.len()).sum();
        assert_eq!(bytes, 40);
    }
}
