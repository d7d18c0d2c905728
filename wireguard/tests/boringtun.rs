//! The wire format and the protocol, held against another implementation in memory, in both roles.

mod common;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use common::{Host, SECOND, at, public};
use mock_instant::MockClock;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use wireguard::peer::PeerId;
use wireguard::tunnel::BUSY_BACKLOG;

const OURS: [u8; 32] = [1; 32];
const THEIRS: [u8; 32] = [2; 32];

/// The other implementation, whose clock is the thread's mock.
struct Other {
    tunnel: Tunn,
    address: SocketAddr,
    out: VecDeque<Vec<u8>>,
    arrived: Vec<Vec<u8>>,
    errors: Vec<String>,
}

impl Other {
    fn new(psk: Option<[u8; 32]>, keepalive: Option<u16>, limit: Option<u64>) -> Self {
        let secret = StaticSecret::from(THEIRS);
        let limiter = limit.map(|limit| Arc::new(RateLimiter::new(&PublicKey::from(&secret), limit)));
        let ours = PublicKey::from(public(&OURS));
        Self {
            tunnel: Tunn::new(secret, ours, psk, keepalive, 77, limiter),
            address: "192.0.2.2:2".parse().unwrap(),
            out: VecDeque::new(),
            arrived: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn send(&mut self, packet: &[u8]) {
        let mut space = vec![0; 2048];
        if let TunnResult::WriteToNetwork(bytes) = self.tunnel.encapsulate(packet, &mut space) {
            self.out.push_back(bytes.to_vec());
        }
    }

    fn receive(&mut self, datagram: &[u8], source: IpAddr) {
        let mut space = vec![0; 2048];
        let mut result = self.tunnel.decapsulate(Some(source), datagram, &mut space);
        // What it writes may be followed by packets that waited for a session.
        for _ in 0..100 {
            match result {
                TunnResult::Done => return,
                TunnResult::Err(error) => return self.errors.push(format!("{error:?}")),
                TunnResult::WriteToTunnelV4(packet, _) => return self.arrived.push(packet.to_vec()),
                TunnResult::WriteToTunnelV6(packet, _) => return self.arrived.push(packet.to_vec()),
                TunnResult::WriteToNetwork(bytes) => self.out.push_back(bytes.to_vec()),
            }
            result = self.tunnel.decapsulate(None, &[], &mut space);
        }
    }

    fn wake(&mut self) {
        let mut space = vec![0; 2048];
        if let TunnResult::WriteToNetwork(bytes) = self.tunnel.update_timers(&mut space) {
            self.out.push_back(bytes.to_vec());
        }
    }
}

/// Ours and theirs, at one time.
struct World {
    us: Host,
    them: Other,
    peer: PeerId,
    second: u64,
    initiations: [usize; 2],
}

impl World {
    fn new(psk: Option<[u8; 32]>, them: Other) -> Self {
        let mut us = Host::new(&OURS, "192.0.2.1:1", 3);
        let peer = us.add(public(&THEIRS), psk.unwrap_or_default(), Some(them.address), at(SECOND));
        Self {
            us,
            them,
            peer,
            second: 1,
            initiations: [0; 2],
        }
    }

    fn send_ours(&mut self, packet: &[u8]) {
        self.us.send(self.peer, packet, at(self.second * SECOND));
        self.settle();
    }

    fn send_theirs(&mut self, packet: &[u8]) {
        self.them.send(packet);
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            if let Some((_, bytes)) = self.us.out.pop_front() {
                self.initiations[0] += usize::from(bytes[0] == 1);
                self.them.receive(&bytes, self.us.address.ip());
            } else if let Some(bytes) = self.them.out.pop_front() {
                self.initiations[1] += usize::from(bytes[0] == 1);
                self.us
                    .receive(&bytes, self.them.address, at(self.second * SECOND))
                    .unwrap();
            } else {
                return;
            }
        }
        panic!("they do not come to rest");
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            MockClock::advance(Duration::from_secs(1));
            let now = at(self.second * SECOND);
            if self.us.tunnel.next_wake().is_some_and(|at| at <= now.ns) {
                self.us.wake(now);
            }
            self.them.wake();
            self.settle();
        }
    }

    /// All packets in order, without their padding on our side.
    fn check(&self, ours: &[Vec<u8>], theirs: &[Vec<u8>]) {
        assert_eq!(self.them.errors, [""; 0]);
        assert_eq!(self.them.arrived, ours);
        assert_eq!(self.us.arrived.len(), theirs.len());
        for ((peer, arrived), sent) in self.us.arrived.iter().zip(theirs) {
            assert_eq!((*peer, &arrived[..sent.len()]), (self.peer, &sent[..]));
        }
    }
}

/// An IPv4 or IPv6 packet of `length` bytes.
fn packet(version: u8, length: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![fill; length];
    if version == 4 {
        packet[..20].fill(0);
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    } else {
        packet[..40].fill(0);
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
    }
    packet
}

#[test]
fn packets_pass_both_ways_in_both_roles_with_and_without_a_preshared_key() {
    for (psk, ours_first) in [
        (None, true),
        (None, false),
        (Some([9; 32]), true),
        (Some([9; 32]), false),
    ] {
        let mut world = World::new(psk, Other::new(psk, None, None));
        let packets: Vec<Vec<u8>> = (40..140)
            .map(|n| packet(if n % 2 == 0 { 4 } else { 6 }, n, n as u8))
            .collect();
        for sent in &packets {
            if ours_first {
                world.send_ours(sent);
                world.send_theirs(sent);
            } else {
                world.send_theirs(sent);
                world.send_ours(sent);
            }
        }
        world.check(&packets, &packets);
        assert_eq!(world.initiations, if ours_first { [1, 0] } else { [0, 1] });
    }
}

#[test]
fn another_preshared_key_lets_nothing_pass() {
    for ours_first in [true, false] {
        let mut world = World::new(Some([9; 32]), Other::new(Some([8; 32]), None, None));
        let sent = packet(4, 100, 1);
        if ours_first {
            world.us.send(world.peer, &sent, at(SECOND));
        } else {
            world.them.send(&sent);
        }
        for _ in 0..4 {
            while let Some((_, bytes)) = world.us.out.pop_front() {
                world.them.receive(&bytes, world.us.address.ip());
            }
            while let Some(bytes) = world.them.out.pop_front() {
                _ = world.us.receive(&bytes, world.them.address, at(SECOND));
            }
        }
        assert!(world.us.arrived.is_empty() && world.them.arrived.is_empty());
        assert_eq!(world.us.tunnel.status(world.peer).unwrap().last_handshake, None);
    }
}

#[test]
fn sessions_are_renewed_without_losing_a_packet() {
    for ours_first in [true, false] {
        let mut world = World::new(None, Other::new(None, None, None));
        let mut sent = Vec::new();
        for n in 0..700 {
            sent.push(packet(4, 60, n as u8));
            if ours_first {
                world.send_ours(&sent[n]);
                world.send_theirs(&sent[n]);
            } else {
                world.send_theirs(&sent[n]);
                world.send_ours(&sent[n]);
            }
            world.wait(1);
        }
        world.check(&sent, &sent);
        let [ours, theirs] = world.initiations;
        assert!(ours + theirs >= 5, "{ours} and {theirs} initiations in 700 seconds");
        assert!(if ours_first { theirs == 0 } else { ours == 0 }, "the initiator renews");
    }
}

#[test]
fn keepalives_keep_alive() {
    // Only we talk: they have to say that they hear us, or we would ask for a new session.
    let mut world = World::new(None, Other::new(None, None, None));
    for _ in 0..100 {
        world.send_ours(&packet(4, 60, 1));
        world.wait(1);
    }
    assert_eq!(world.initiations, [1, 0]);
    // Only they talk: the same from our side.
    let mut world = World::new(None, Other::new(None, None, None));
    for _ in 0..100 {
        world.send_theirs(&packet(4, 60, 1));
        world.wait(1);
    }
    assert_eq!(world.initiations, [0, 1]);
    assert_eq!((world.us.arrived.len(), world.them.errors.len()), (100, 0));

    // Nobody talks, but keepalives are persistent.
    let mut world = World::new(None, Other::new(None, Some(25), None));
    world.us.tunnel.set_persistent_keepalive(world.peer, 25, at(SECOND));
    world.us.wake(at(SECOND));
    world.wait(500);
    let bytes = world.us.tunnel.status(world.peer).unwrap();
    assert!(
        bytes.sent_bytes > 15 * 32 && bytes.received_bytes > 15 * 32,
        "{bytes:?}"
    );
    assert_eq!(world.them.errors, [""; 0]);
}

#[test]
fn they_are_busy_and_we_bring_the_cookie() {
    let mut world = World::new(None, Other::new(None, None, Some(0)));
    world.send_ours(&packet(4, 60, 1));
    assert!(world.them.arrived.is_empty());
    world.wait(6);
    world.check(&[packet(4, 60, 1)], &[]);
    assert_eq!(world.initiations, [2, 0]);
}

#[test]
fn we_are_busy_and_they_bring_the_cookie() {
    let mut world = World::new(None, Other::new(None, None, None));
    world.them.send(&packet(4, 60, 1));
    let initiation = world.them.out.pop_front().unwrap();
    let busy = world
        .us
        .receive_handshake(&initiation, world.them.address, BUSY_BACKLOG, at(SECOND));
    busy.unwrap_err();
    world.settle();
    world.second += 6;
    MockClock::advance(Duration::from_secs(6));
    world.them.wake();
    let initiation = world.them.out.pop_front().unwrap();
    let now = at(world.second * SECOND);
    world
        .us
        .receive_handshake(&initiation, world.them.address, BUSY_BACKLOG, now)
        .unwrap();
    world.settle();
    world.check(&[], &[packet(4, 60, 1)]);
}
