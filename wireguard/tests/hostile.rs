//! What an attacker can send: pieces, flipped bits, replays and floods. Nothing panics, nothing changes.

mod common;

use common::{Host, MILLISECOND, SECOND, at, pair, public, settle};
use std::net::SocketAddr;
use wireguard::cookie::{BURST, PER_SECOND};
use wireguard::message::{COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT};
use wireguard::replay::Replay;
use wireguard::session::Refused;
use wireguard::session::single::Unopened;
use wireguard::tunnel::{BUSY_BACKLOG, NotAdded, PeerConfig, Refusal};

/// An honest exchange, stopped before the message of type `kind` arrives: who would receive it, and the message.
fn before(kind: u32) -> (Host, SocketAddr, Vec<u8>) {
    let (mut a, mut b, of_b, _) = pair([7; 32], at(SECOND));
    a.send(of_b, b"0123456789abcdef", at(SECOND));
    let (_, initiation) = a.out.pop_front().unwrap();
    if kind == COOKIE_REPLY {
        b.receive_handshake(&initiation, a.address, BUSY_BACKLOG, at(SECOND))
            .unwrap_err();
    } else if kind != INITIATION {
        b.receive(&initiation, a.address, at(SECOND)).unwrap();
    }
    match kind {
        INITIATION => (b, a.address, initiation),
        TRANSPORT => {
            let (_, response) = b.out.pop_front().unwrap();
            a.receive(&response, b.address, at(SECOND)).unwrap();
            let packet = a.out.iter().find(|(_, bytes)| bytes.len() > 32).unwrap();
            (b, a.address, packet.1.clone())
        }
        _ => {
            let (_, answer) = b.out.pop_front().unwrap();
            assert_eq!(answer[0], kind as u8);
            (a, b.address, answer)
        }
    }
}

/// Bytes of both MACs, of which the second says nothing to a receiver that is not busy (5.3).
fn ignored(kind: u32, length: usize) -> usize {
    if kind == INITIATION || kind == RESPONSE {
        length - 16
    } else {
        length
    }
}

#[test]
fn flipped_bits_and_pieces_of_every_message_change_nothing() {
    for kind in [INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT] {
        let (mut host, source, message) = before(kind);
        let state = |host: &Host| {
            (
                host.tunnel.status(wireguard::peer::PeerId(0)),
                host.tunnel.next_wake(),
                host.out.len(),
            )
        };
        let untouched = state(&host);
        for bit in 0..ignored(kind, message.len()) * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                host.receive(&flipped, source, at(SECOND)).is_err(),
                "type {kind}, bit {bit}"
            );
        }
        for length in 0..message.len() {
            assert!(host.receive(&message[..length], source, at(SECOND)).is_err());
            let longer = [&message[..], &vec![0; length + 1]].concat();
            assert!(host.receive(&longer, source, at(SECOND)).is_err());
        }
        assert_eq!(state(&host), untouched);
        assert!(host.arrived.is_empty());
        host.receive(&message, source, at(SECOND)).unwrap();
    }
}

#[test]
fn nothing_can_be_said_twice() {
    for kind in [INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT] {
        let (mut host, source, message) = before(kind);
        host.receive(&message, source, at(SECOND)).unwrap();
        let untouched = (host.tunnel.status(wireguard::peer::PeerId(0)), host.out.len());
        for second in 1..400 {
            let elsewhere = "198.51.100.1:1".parse().unwrap();
            host.receive(&message, elsewhere, at(second * SECOND)).unwrap_err();
        }
        assert_eq!(
            (host.tunnel.status(wireguard::peer::PeerId(0)), host.out.len()),
            untouched
        );
        assert!(host.arrived.len() <= 1);
    }
}

#[test]
fn a_replayed_packet_is_named() {
    let (mut host, source, message) = before(TRANSPORT);
    host.receive_packet(&message, source, at(SECOND)).unwrap();
    let seen = Unopened::Refused(Refused::Replay(Replay::Seen));
    assert_eq!(host.receive_packet(&message, source, at(SECOND)), Err(seen));
    assert_eq!(
        host.receive_packet(&message, source, at(200 * SECOND)),
        Err(Unopened::Refused(Refused::Expired))
    );
}

#[test]
fn strangers_get_no_answer() {
    let mut b = Host::new(&[2; 32], "192.0.2.2:2", 1);
    let (mut a, other, of_b, _) = pair([0; 32], at(SECOND));
    a.send(of_b, b"hello", at(SECOND));
    let (_, initiation) = a.out.pop_front().unwrap();
    assert_eq!(
        b.receive_handshake(&initiation, other.address, 0, at(SECOND)),
        Err(Refusal::Stranger)
    );
    let mut not_b = Host::new(&[3; 32], "192.0.2.3:3", 1);
    assert_eq!(
        not_b.receive_handshake(&initiation, a.address, 0, at(SECOND)),
        Err(Refusal::WrongMac)
    );
    assert!(b.out.is_empty() && not_b.out.is_empty());
}

#[test]
fn a_busy_host_answers_only_who_owns_its_address() {
    let (mut a, mut b, of_b, _) = pair([0; 32], at(SECOND));
    a.send(of_b, b"hello", at(SECOND));
    let (_, first) = a.out.pop_front().unwrap();
    // A thousand forged addresses: a cookie each, and no state.
    for port in 1..1000 {
        let forged = SocketAddr::new("203.0.113.9".parse().unwrap(), port);
        assert_eq!(
            b.receive_handshake(&first, forged, BUSY_BACKLOG, at(SECOND)),
            Err(Refusal::Cookie)
        );
        let (to, reply) = b.out.pop_front().unwrap();
        assert_eq!((to, reply.len()), (forged, 64));
    }
    assert_eq!(
        b.receive_handshake(&first, a.address, 0, at(SECOND)),
        Err(Refusal::Cookie),
        "still busy"
    );
    let (_, reply) = b.out.pop_front().unwrap();
    a.receive(&reply, b.address, at(SECOND)).unwrap();

    // The next attempt, five seconds later, carries the cookie.
    let next = a.tunnel.next_wake().unwrap();
    assert!((6 * SECOND..7 * SECOND).contains(&next));
    a.wake(at(next));
    let (_, second) = a.out.pop_front().unwrap();
    let elsewhere = "203.0.113.9:1000".parse().unwrap();
    assert_eq!(
        b.receive_handshake(&second, elsewhere, BUSY_BACKLOG, at(next)),
        Err(Refusal::Cookie)
    );
    b.out.clear();
    assert_eq!(b.receive_handshake(&second, a.address, BUSY_BACKLOG, at(next)), Ok(()));
    settle(&mut a, &mut b, at(next));
    assert_eq!(b.arrived.len(), 1);
}

#[test]
fn a_source_with_a_cookie_is_still_limited() {
    let (mut a, mut b, of_b, _) = pair([0; 32], at(SECOND));
    a.send(of_b, b"hello", at(SECOND));
    let (_, first) = a.out.pop_front().unwrap();
    b.receive_handshake(&first, a.address, BUSY_BACKLOG, at(SECOND))
        .unwrap_err();
    let (_, reply) = b.out.pop_front().unwrap();
    a.receive(&reply, b.address, at(SECOND)).unwrap();
    let next = a.tunnel.next_wake().unwrap();
    a.wake(at(next));
    let (_, second) = a.out.pop_front().unwrap();
    let mut said = |ns| b.receive_handshake(&second, a.address, BUSY_BACKLOG, at(ns));
    assert_eq!(said(next), Ok(()));
    let flood: Vec<_> = (0..1000).map(|n| said(next + n * MILLISECOND)).collect();
    let passed = flood.iter().filter(|said| **said == Err(Refusal::Replayed)).count() as u64;
    assert_eq!(
        flood.iter().filter(|said| **said == Err(Refusal::TooMany)).count() as u64,
        1000 - passed
    );
    assert!(passed <= PER_SECOND + BURST, "{passed}");
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let mut a = Host::new(&[1; 32], "192.0.2.1:1", 1);
    let mut add = |public_key| {
        let config = PeerConfig {
            public_key,
            preshared_key: Default::default(),
            endpoint: None,
            persistent_keepalive_s: 0,
        };
        a.tunnel.add(&config, at(0)).map(drop)
    };
    assert_eq!(add(public(&[1; 32])), Err(NotAdded::Own));
    assert!(matches!(add([0; 32]), Err(NotAdded::WeakKey(_))));
    assert_eq!(add(public(&[2; 32])), Ok(()));
    assert_eq!(add(public(&[2; 32])), Err(NotAdded::Twice));
    (3..6).for_each(|n| add(public(&[n; 32])).unwrap());
    assert_eq!(add(public(&[9; 32])), Err(NotAdded::Full));
}
