//! What passes: every size, every family in every other, several peers, hubs, marks, segment sizes.

use std::net::IpAddr;

use testbed::packets::{fix_v4, ip, udp, with_fragment};

use super::World;
use super::gateway::{Gateway, LINK_MTU, MTU, Settings, host, inside, outside, within};

/// A datagram in an IP packet of `length` bytes, from the host behind one gateway to that behind another.
pub fn packet(from: u8, to: u8, is_v4: bool, length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length - header(is_v4) - 8)
        .map(|at| (at * 7 + length) as u8)
        .collect();
    udp((host(from, is_v4), 1000), (host(to, is_v4), 2000), 64, &payload)
}

pub fn header(is_v4: bool) -> usize {
    if is_v4 { 20 } else { 40 }
}

/// The packet after so many hops.
pub fn hopped(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] -= hops;
        fix_v4(&mut packet);
    } else {
        packet[7] -= hops;
    }
    packet
}

/// Where the WireGuard message starts in a frame on the wire.
pub fn message_at(frame: &[u8]) -> usize {
    let is_v4 = frame[12..14] == [8, 0];
    14 + header(is_v4) + 8
}

/// Sends these from the host behind `from`, and says what came to the host behind `to`.
pub fn pass(world: &mut World, from: u8, to: u8, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut received = vec![];
    for some in packets.chunks(256) {
        some.iter()
            .for_each(|packet| world.gateways[usize::from(from) - 1].send(packet));
        world.settle();
        received.extend(world.gateways[usize::from(to) - 1].received());
    }
    received
}

#[test]
fn every_size_passes_in_every_family_both_ways_in_order() {
    for (outer, inner) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = World::established(outer, Settings::default());
        for (from, to) in [(1, 2), (2, 1)] {
            let lengths = header(inner) + 8..=usize::from(MTU);
            let sent: Vec<Vec<u8>> = lengths.map(|length| packet(from, to, inner, length)).collect();
            let received = pass(&mut world, from, to, &sent);
            let expected: Vec<Vec<u8>> = sent.into_iter().map(|packet| hopped(packet, 2)).collect();
            assert!(received == expected, "{outer} {inner}: {:?}", world.drops());
        }
        assert_eq!(
            world
                .gateways
                .iter()
                .map(|gateway| gateway.drops().len())
                .sum::<usize>(),
            0
        );
    }
}

#[test]
fn the_shortest_packets_pass_that_are_nothing_but_a_header() {
    for (outer, inner) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = World::established(outer, Settings::default());
        let sent = ip(host(1, inner), host(2, inner), 253, 9, &[]);
        assert_eq!(pass(&mut world, 1, 2, std::slice::from_ref(&sent)), [hopped(sent, 2)]);
    }
}

#[test]
fn the_wire_shows_tunnels_only() {
    for (outer, inner) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = World::pair(outer);
        let secret = b"nobody but the two ends may read this";
        let text = udp((host(1, inner), 1000), (host(2, inner), 2000), 64, secret);
        assert_eq!(pass(&mut world, 1, 2, std::slice::from_ref(&text)).len(), 1);
        let answer = udp((host(2, inner), 2000), (host(1, inner), 1000), 64, secret);
        assert_eq!(pass(&mut world, 2, 1, &[answer]).len(), 1);
        assert!(world.wire.len() >= 5, "a handshake and two packets");
        for frame in &world.wire {
            let udp = message_at(frame) - 8;
            assert_eq!(frame[udp..udp + 4], [0xca, 0x6c, 0xca, 0x6c], "port 51820 both ways");
            assert!(
                !frame
                    .windows(8)
                    .any(|bytes| secret.windows(8).any(|part| part == bytes))
            );
            let inner_source = match host(1, inner) {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            assert!(!frame.windows(inner_source.len()).any(|bytes| bytes == inner_source));
        }
    }
}

#[test]
fn outer_headers_are_as_they_should_be() {
    for (outer, inner) in [(true, true), (false, false)] {
        let mut world = World::established(outer, Settings::default());
        // Lengths inside, and what has to be there outside: 16 of header, padding to a multiple of 16, 16 of tag.
        let lengths = [60, 64, 65, usize::from(MTU) - 1, usize::from(MTU)];
        let padded = [64, 64, 80, usize::from(MTU), usize::from(MTU)];
        let sent: Vec<Vec<u8>> = lengths.map(|length| packet(1, 2, inner, length)).into();
        pass(&mut world, 1, 2, &sent);
        let frames: Vec<&Vec<u8>> = world
            .wire
            .iter()
            .filter(|frame| frame[message_at(frame)] == 4)
            .collect();
        let mut identifications = std::collections::HashSet::new();
        assert_eq!(frames.len(), lengths.len());
        for (frame, padded) in frames.into_iter().zip(padded) {
            let at = message_at(frame);
            assert_eq!(frame.len() - at, padded + 32);
            let (ip, udp) = (&frame[14..], &frame[at - 8..at]);
            assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), frame.len() - at + 8);
            if outer {
                let mut right = ip.to_vec();
                fix_v4(&mut right);
                assert_eq!(right, ip, "the header's checksum");
                assert_eq!(
                    (ip[1], ip[6] & 0x40, ip[8], &udp[6..]),
                    (0, 0, 64, &[0, 0][..]),
                    "may be fragmented"
                );
                assert!(identifications.insert([ip[4], ip[5]]));
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
            } else {
                assert_eq!((&ip[..4], ip[7]), (&[0x60, 0, 0, 0][..], 64));
                testbed::packets::open(frame); // checks lengths and the UDP checksum
            }
            assert!(frame.len() - 14 <= usize::from(LINK_MTU), "fits the link");
        }
    }
}

#[test]
fn a_hub_leads_from_tunnel_to_tunnel() {
    let mut world = World::of(4, Settings::default());
    // Gateway 1 is the hub: 2, 3 and 4 know it only, and reach each other by it.
    for spoke in 2..=4 {
        world.gateways[0].add(spoke, None, &[]);
        world.gateways[usize::from(spoke) - 1].add(1, Some(outside(1, true)), &["10.0.0.0/8", "fd00::/8"]);
    }
    for (from, to) in [(2, 1), (3, 1), (4, 1)] {
        assert_eq!(pass(&mut world, from, to, &[packet(from, to, true, 100)]).len(), 1);
    }
    for inner in [true, false] {
        for (from, to) in [(2, 3), (3, 4), (4, 2)] {
            let sent: Vec<Vec<u8>> = (100..200).map(|length| packet(from, to, inner, length)).collect();
            let expected: Vec<Vec<u8>> = sent.iter().map(|packet| hopped(packet.clone(), 3)).collect();
            assert!(pass(&mut world, from, to, &sent) == expected, "{:?}", world.drops());
        }
    }
}

#[test]
fn packets_of_several_peers_go_through_one_vector() {
    let mut world = World::of(5, Settings::default());
    for other in 2..=5 {
        world.gateways[0].add(other, Some(outside(other, other % 2 == 0)), &[]);
        world.gateways[usize::from(other) - 1].add(1, None, &[]);
    }
    for other in 2..=5 {
        assert_eq!(pass(&mut world, 1, other, &[packet(1, other, true, 100)]).len(), 1);
    }
    // Out of the hub, mixed; and back into it in one vector.
    for n in 0..240usize {
        let other = 2 + (n * n % 7 % 4) as u8;
        world.gateways[0].send(&packet(1, other, n % 3 == 0, 60 + n));
        world.gateways[usize::from(other) - 1].send(&packet(other, 1, n % 3 == 0, 60 + n));
    }
    world.settle();
    for other in 2..=5u8 {
        let numbers = (0..240usize).filter(|n| 2 + (n * n % 7 % 4) as u8 == other);
        let expected: Vec<Vec<u8>> = numbers
            .map(|n| hopped(packet(1, other, n % 3 == 0, 60 + n), 2))
            .collect();
        assert!(
            world.gateways[usize::from(other) - 1].received() == expected,
            "{:?}",
            world.drops()
        );
    }
    assert_eq!(world.gateways[0].received().len(), 240, "{:?}", world.drops());
}

#[test]
fn the_gateway_itself_answers_through_the_tunnel() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        let hosts = [within(2, inner), inside(2, inner)];
        for target in hosts {
            let request = testbed::packets::echo(host(1, inner), target, 7, b"are you there?");
            world.gateways[0].send(&request);
            world.settle();
            let answers = world.gateways[0].received();
            let answer = testbed::packets::open(&testbed::packets::frame([0; 6], [0; 6], &answers[0]));
            assert_eq!(
                (answers.len(), answer.source, answer.icmp().0),
                (1, target, if inner { 0 } else { 129 })
            );
        }
    }
}

#[test]
fn congestion_marks_cross_the_tunnel() {
    // Not-ECT, ECT(1), ECT(0), CE: what the sender marks is seen outside; RFC 6040 figure 4 says what comes out.
    let figure = |inner: u8, outer: u8| match (inner, outer) {
        (0, 3) => None,
        (0, _) => Some(0),
        (_, 3) | (3, _) => Some(3),
        (2, 1) => Some(1),
        (inner, _) => Some(inner),
    };
    for (outside, inside) in [(true, true), (true, false), (false, true), (false, false)] {
        for (inner, outer) in (0..4u8).flat_map(|inner| (0..4u8).map(move |outer| (inner, outer))) {
            let mut world = World::established(outside, Settings::default());
            let sent = marked(packet(1, 2, inside, 100), 0xb8 | inner);
            world.gateways[0].send(&sent);
            world.gateways[0].turn(world.now);
            let frames = world.frames();
            assert_eq!(class(&frames[0][14..]), inner, "copied, and nothing of the DSCP");
            world.gateways[1].hear(&[&frames[0][..14], &marked(frames[0][14..].to_vec(), outer)].concat());
            world.settle();
            let expected = figure(inner, outer).map(|mark| hopped(marked(sent, 0xb8 | mark), 2));
            assert_eq!(
                world.gateways[1].received(),
                Vec::from_iter(expected),
                "{inner} in {outer}"
            );
            let lost = world.gateways[1].drops();
            assert_eq!(
                lost.contains_key("wg-decrypt: ecn-not-capable"),
                (inner, outer) == (0, 3)
            );
        }
    }
}

fn marked(mut packet: Vec<u8>, class: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[1] = class;
        fix_v4(&mut packet);
    } else {
        (packet[0], packet[1]) = (0x60 | class >> 4, class << 4);
    }
    packet
}

fn class(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1],
        _ => packet[0] << 4 | packet[1] >> 4,
    }
}

#[test]
fn segment_sizes_are_clamped_both_ways_where_it_is_said() {
    for clamp_mss in [true, false] {
        let mut world = World::established(true, Settings { clamp_mss, mtu: 1400 });
        // Only one end clamps, so it has to do so in both directions.
        let other = Gateway::new(
            2,
            Settings {
                clamp_mss: false,
                mtu: 1400,
            },
        );
        world.gateways[1] = other;
        world.gateways[1].add(1, None, &[]);
        world.now += 200 * super::SECOND;
        assert_eq!(
            pass(&mut world, 1, 2, &[packet(1, 2, true, 60)]).len(),
            1,
            "{:?}",
            world.drops()
        );
        for (inner, fits) in [(true, 1360u16), (false, 1340)] {
            for (from, to) in [(1, 2), (2, 1)] {
                let received = pass(&mut world, from, to, &[syn(host(from, inner), host(to, inner), 1460)]);
                let offer = &received[0][header(inner) + 22..header(inner) + 24];
                assert_eq!(
                    offer,
                    if clamp_mss { fits } else { 1460 }.to_be_bytes(),
                    "{inner} from {from}"
                );
            }
        }
    }
}

/// A TCP segment that opens a connection and offers to take segments of this size.
fn syn(from: IpAddr, to: IpAddr, segment: u16) -> Vec<u8> {
    let [high, low] = segment.to_be_bytes();
    let head = [
        0x04, 0, 0x08, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 4, 0, 0, 0, 0, 0, 2, 4, high, low,
    ];
    ip(from, to, 6, 64, &head)
}

#[test]
fn fragments_pass_as_they_are() {
    let mut world = World::established(true, Settings::default());
    let whole = packet(1, 2, true, 120);
    let (first, second) = (&whole[..20 + 48], [&whole[..20], &whole[20 + 48..]].concat());
    let with_length = |mut packet: Vec<u8>| {
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let pieces = [
        with_fragment(with_length(first.to_vec()), 0x2000, 0),
        with_fragment(with_length(second), 0, 48),
    ];
    let expected: Vec<Vec<u8>> = pieces.iter().map(|piece| hopped(piece.clone(), 2)).collect();
    assert_eq!(pass(&mut world, 1, 2, &pieces), expected);
}
