//! Datagrams in pieces: ports, policy and translation are those of the first one, whatever comes first.

use crate::packets::{ECHO, End, Plain, TCP, UDP, port_mac};
use crate::plane::{INSIDE, OUTSIDE, Plane};
use crate::{PAIRS, PUBLIC, answer, end, ends, masquerade};

/// Bytes of a datagram's data in each piece.
const PIECE: usize = 1200;

/// The frames of a packet in pieces, and how the last of them is numbered.
fn cut(packet: &Plain, port: usize, identification: u8) -> Vec<Vec<u8>> {
    let whole = packet.packet();
    let is_v4 = whole[0] >> 4 == 4;
    let (head, body) = whole.split_at(if is_v4 { 20 } else { 40 });
    let count = body.len().div_ceil(PIECE);
    let piece = |(at, bytes): (usize, &[u8])| {
        let (more, offset) = (at + 1 < count, (at * PIECE) as u16);
        let mut head = head.to_vec();
        if is_v4 {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            head[2..4].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
            head[5] = identification;
            head[6..8].copy_from_slice(&field.to_be_bytes());
            head[10..12].fill(0);
            let sum = !crate::packets::sum(&[&head]);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let field = (offset | u16::from(more)).to_be_bytes();
            head[4..6].copy_from_slice(&(8 + bytes.len() as u16).to_be_bytes());
            let next = std::mem::replace(&mut head[6], 44);
            head.extend([next, 0, field[0], field[1], 0, 0, 0, identification]);
        }
        let kind: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
        [&port_mac(port), [2, 0, 0, 0, 0, 0x11].as_slice(), &kind, &head, bytes].concat()
    };
    body.chunks(PIECE).enumerate().map(piece).collect()
}

/// The packet whose pieces these are, in any order; its checksums have to be right.
fn join(frames: &[Vec<u8>]) -> Plain {
    let mut pieces: Vec<(u16, &[u8])> = vec![];
    let mut head = vec![];
    for frame in frames {
        let packet = &frame[14..];
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        if packet[0] >> 4 == 4 {
            assert_eq!(
                crate::packets::sum(&[&packet[..20]]),
                0xffff,
                "the header checksum is wrong"
            );
            pieces.push(((word(6) & 0x1fff) * 8, &packet[20..]));
            head = packet[..20].to_vec();
        } else {
            pieces.push((word(42) & !7, &packet[48..]));
            head = packet[..40].to_vec();
            head[6] = packet[40];
        }
    }
    pieces.sort_unstable();
    let body: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let length = body.len() as u16;
    if head.len() == 20 {
        head[2..8].copy_from_slice(&[(length + 20).to_be_bytes(), [0x12, 0x34], [0; 2]].concat());
        head[10..12].fill(0);
        let sum = !crate::packets::sum(&[&head]);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        head[4..6].copy_from_slice(&length.to_be_bytes());
    }
    Plain::open(&[&[0; 14], head.as_slice(), &body].concat())
}

fn large(protocol: u8, client: End, server: End) -> Plain {
    let mut packet = Plain::new(protocol, client, server);
    packet.data = (0..3000u16).map(|at| (at % 251) as u8).collect();
    packet
}

#[test]
fn pieces_are_translated_like_their_first() {
    for ((client, server), public) in PAIRS.into_iter().zip(PUBLIC) {
        for protocol in [UDP, ECHO] {
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
                let mut plane = Plane::new(100, masquerade(5000..=5999));
                let (client, server) = ends(protocol, (client, 40_000), (server, 53));
                let there = large(protocol, client, server);
                let pieces = cut(&there, INSIDE, 7);
                assert_eq!(pieces.len(), 3);
                let out = plane.exchange(INSIDE, &order.map(|at| pieces[at].clone()));
                assert_eq!(out[OUTSIDE].len(), 3, "{protocol} {order:?}");
                let sent = join(&out[OUTSIDE]);
                assert_eq!(sent.source.0, end(public, 0).0);
                assert!((5000..=5999).contains(&sent.source.1));
                assert_eq!(sent.data, there.data);
                let out = plane.exchange(OUTSIDE, &order.map(|at| cut(&answer(&sent), OUTSIDE, 9)[at].clone()));
                let got = join(&out[INSIDE]);
                assert_eq!(
                    (got.source, got.target, got.data),
                    (there.target, there.source, there.data)
                );
                assert_eq!(plane.tracking.table.len(), 1);
            }
        }
    }
}

#[test]
fn pieces_that_come_vectors_apart_are_of_one_connection() {
    let mut plane = Plane::new(100, masquerade(5000..=5999));
    let there = large(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let mut sent = vec![];
    for piece in cut(&there, INSIDE, 7).into_iter().rev() {
        sent.extend(plane.exchange(INSIDE, &[piece])[OUTSIDE].clone());
    }
    assert_eq!(sent.len(), 3, "the last to come lets the others go");
    assert_eq!(join(&sent).data, there.data);
}

#[test]
fn pieces_without_a_first_end_by_name() {
    let mut plane = Plane::new(100, vec![]);
    let there = large(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    let pieces = cut(&there, INSIDE, 7);
    assert_eq!(plane.exchange(INSIDE, &pieces[1..])[OUTSIDE].len(), 0);
    plane.wait(1);
    assert_eq!(plane.dropped("fragment-ports/fragment-no-first"), 2);
    assert_eq!(
        plane.exchange(INSIDE, &pieces[..1])[OUTSIDE].len(),
        1,
        "too late for them"
    );
    assert_eq!(plane.exchange(INSIDE, &pieces[..1])[OUTSIDE].len(), 0);
    assert_eq!(plane.dropped("fragment-ports/fragment-repeated"), 1);
}

#[test]
fn pieces_that_overlap_end_their_datagram() {
    let mut plane = Plane::new(100, vec![]);
    let there = large(UDP, end("fd00:1::9", 40_000), end("2001:db8:ffff::7", 53));
    let pieces = cut(&there, INSIDE, 7);
    let mut odd = pieces[1].clone();
    // Eight bytes into the first one.
    let field = (PIECE as u16 - 8) | 1;
    odd[14 + 42..14 + 44].copy_from_slice(&field.to_be_bytes());
    let out = plane.exchange(INSIDE, &[pieces[0].clone(), odd, pieces[1].clone(), pieces[2].clone()]);
    assert_eq!(out[OUTSIDE].len(), 1);
    assert_eq!(plane.dropped("fragment-ports/fragment-overlap"), 3);
}

#[test]
fn pieces_of_what_opens_no_connection_go_nowhere() {
    let mut plane = Plane::new(100, vec![]);
    let mut there = large(TCP, end("10.1.0.9", 40_000), end("198.51.100.7", 80));
    there.flags = 0x10;
    assert_eq!(plane.exchange(INSIDE, &cut(&there, INSIDE, 7))[OUTSIDE].len(), 0);
    assert_eq!(plane.dropped("flows/no-connection"), 1);
    assert_eq!(plane.dropped("flows/fragment-unknown"), 2);
    assert!(plane.tracking.table.is_empty());
}

#[test]
fn a_flood_of_pieces_leaves_whole_packets_alone() {
    let mut plane = Plane::new(100, vec![]);
    let there = Plain::new(UDP, end("10.1.0.9", 40_000), end("198.51.100.7", 53));
    assert!(plane.pass(INSIDE, &there).is_some());
    for host in 0..20u8 {
        let flood = |identification| {
            let client = end(&format!("10.1.9.{host}"), 9);
            cut(&large(UDP, client, end("198.51.100.7", 9)), INSIDE, identification)[1].clone()
        };
        let frames: Vec<_> = (0..100).map(flood).collect();
        assert_eq!(plane.exchange(INSIDE, &frames)[OUTSIDE].len(), 0);
        assert!(plane.pass(INSIDE, &there).is_some());
    }
    plane.wait(1);
    let drops = ["fragment-no-first", "fragment-forgotten"].map(|why| plane.dropped(&format!("fragment-ports/{why}")));
    assert_eq!(drops.iter().sum::<u64>(), 2000, "{drops:?}");
}
