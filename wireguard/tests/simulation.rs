//! Two hosts in simulated time, over a network that loses, repeats, delays and reorders, with clocks that jump and an
//! address that moves: sessions always heal when the network does, nothing is accepted twice, no plaintext leaves,
//! numbers never repeat, and in the end all is quiet and wiped.

mod common;

use common::{Host, MILLISECOND, SECOND, Seeded, pair, settle};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;
use wireguard::peer::PeerId;
use wireguard::session::Ends;
use wireguard::tunnel::Now;

/// In every packet, so that it is found should one leave unencrypted.
const MARK: &[u8; 16] = b"do not show this";

/// How bad the network is, for a while.
#[derive(Clone, Debug)]
struct Weather {
    seconds: u64,
    /// Of 100 datagrams.
    lost: u64,
    /// Of 100.
    doubled: u64,
    /// Datagrams take up to this long, each its own time.
    delay_ms: u64,
    /// Packets a second each host sends; 0 for a quiet time.
    rate: [u64; 2],
    /// At its start clocks jump: host, seconds on the wall (either way), seconds of sleep.
    jump: Option<(usize, i64, u64)>,
    /// At its start host 0 moves to another address.
    moves: bool,
}

fn weather() -> impl Strategy<Value = Weather> {
    let jump = prop::option::weighted(
        0.3,
        (0..2usize, -100_000i64..100_000, prop_oneof![Just(0u64), 0..1000u64]),
    );
    let lost = prop_oneof![3 => Just(0u64), 3 => 0..60u64, 1 => Just(100u64)];
    (
        1..250u64,
        lost,
        0..30u64,
        0..3000u64,
        [0..3u64, 0..3u64],
        jump,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(seconds, lost, doubled, delay_ms, rate, jump, moves)| Weather {
            seconds,
            lost,
            doubled,
            delay_ms,
            rate,
            jump,
            moves,
        })
}

const CALM: Weather = Weather {
    seconds: 60,
    lost: 0,
    doubled: 0,
    delay_ms: 20,
    rate: [1, 1],
    jump: None,
    moves: false,
};

struct World {
    hosts: [Host; 2],
    peers: [PeerId; 2],
    now_ns: u64,
    /// What each host's clocks are ahead of the world's: monotonic, and on the wall.
    ahead: [(u64, i64); 2],
    /// By time of arrival: to, from, bytes.
    flying: BTreeMap<(u64, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    random: Seeded,
    sent: u64,
    datagrams: u64,
    /// Index and counter of every packet that left a host.
    numbers: HashSet<(usize, u32, u64)>,
}

impl World {
    fn new(psk: u8, seed: u64) -> Self {
        let (a, b, of_b, of_a) = pair([psk; 32], common::at(SECOND));
        Self {
            hosts: [a, b],
            peers: [of_b, of_a],
            now_ns: SECOND,
            ahead: [(0, 0); 2],
            flying: BTreeMap::new(),
            random: Seeded(seed),
            sent: 0,
            datagrams: 0,
            numbers: HashSet::new(),
        }
    }

    fn clock(&self, host: usize) -> Now {
        let (monotonic, wall) = self.ahead[host];
        let seconds = 1_700_000_000u64.saturating_add_signed(wall);
        Now {
            ns: self.now_ns + monotonic,
            wall: Duration::from_secs(seconds) + Duration::from_nanos(self.now_ns + monotonic),
        }
    }

    fn run(&mut self, weather: &Weather) {
        if let Some((host, wall, sleep)) = weather.jump {
            self.ahead[host].0 += sleep * SECOND;
            self.ahead[host].1 += wall;
        }
        if weather.moves {
            self.hosts[0].address.set_port(self.random.below(60_000) as u16 + 1);
        }
        let (end, mut tick) = (self.now_ns + weather.seconds * SECOND, self.now_ns);
        for _ in 0..1_000_000 {
            let wakes = [0, 1].map(|host| {
                let at = self.hosts[host].tunnel.next_wake()?;
                Some(at.saturating_sub(self.ahead[host].0).max(self.now_ns))
            });
            let arrival = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let events = [wakes[0], wakes[1], arrival, Some(tick)];
            let next = events.into_iter().flatten().min().unwrap_or(end);
            if next >= end {
                self.now_ns = end;
                return;
            }
            self.now_ns = next;
            if arrival == Some(next) {
                self.arrive();
            } else if next == tick {
                tick += SECOND;
                (0..2).for_each(|host| (0..weather.rate[host]).for_each(|_| self.send(host)));
            } else {
                let host = usize::from(wakes[0] != Some(next));
                let now = self.clock(host);
                self.hosts[host].wake(now);
            }
            self.fly(weather);
        }
        panic!("more happens than can");
    }

    fn send(&mut self, host: usize) {
        self.sent += 1;
        let mut packet = MARK.to_vec();
        packet.extend_from_slice(&self.sent.to_be_bytes());
        packet.resize(24 + self.random.below(40) as usize, 0);
        let (peer, now) = (self.peers[host], self.clock(host));
        self.hosts[host].send(peer, &packet, now);
    }

    fn arrive(&mut self) {
        let Some((_, (to, from, bytes))) = self.flying.pop_first() else {
            return;
        };
        if let Some(host) = (0..2).find(|&host| self.hosts[host].address == to) {
            let now = self.clock(host);
            // What was repeated or came too late is refused; the oracle looks at what was not.
            _ = self.hosts[host].receive(&bytes, from, now);
        }
    }

    fn fly(&mut self, weather: &Weather) {
        for host in 0..2 {
            while let Some((to, bytes)) = self.hosts[host].out.pop_front() {
                assert!(!bytes.windows(8).any(|window| window == &MARK[..8]), "plaintext left");
                if bytes[0] == 4 {
                    let index = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
                    let counter = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
                    assert!(self.numbers.insert((host, index, counter)), "a number was used twice");
                }
                let copies = if self.random.below(100) < weather.doubled { 2 } else { 1 };
                for _ in 0..copies {
                    if self.random.below(100) >= weather.lost {
                        self.datagrams += 1;
                        let delay = self.random.below(weather.delay_ms * MILLISECOND + 1);
                        let flight = (to, self.hosts[host].address, bytes.clone());
                        self.flying.insert((self.now_ns + delay, self.datagrams), flight);
                    }
                }
            }
        }
    }

    /// Numbers of the packets that arrived at a host; each once.
    fn arrived(&self, host: usize) -> HashSet<u64> {
        let packets = &self.hosts[host].arrived;
        let numbers: HashSet<u64> = packets
            .iter()
            .map(|(_, packet)| u64::from_be_bytes(packet[16..24].try_into().unwrap()))
            .collect();
        assert_eq!(numbers.len(), packets.len(), "a packet was accepted twice");
        numbers
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sessions_heal_and_nothing_is_accepted_twice(
        psk in 0..2u8, seed: u64, weathers in prop::collection::vec(weather(), 0..6)
    ) {
        let mut world = World::new(psk, seed);
        weathers.iter().for_each(|weather| world.run(weather));
        // A minute of calm to find together, and from then on everything arrives: through two renewals of the session.
        world.run(&CALM);
        let healed = world.sent;
        world.run(&Weather { seconds: 300, ..CALM });
        let expected = world.sent;
        world.run(&Weather { rate: [0, 0], seconds: 30, ..CALM });
        let [at_a, at_b] = [world.arrived(0), world.arrived(1)];
        for number in healed + 1..=expected {
            prop_assert!(at_a.contains(&number) || at_b.contains(&number), "packet {number} of {expected} is missing");
        }
        // Silence: keepalives do not answer each other, and keys are gone after nine minutes.
        let before = world.datagrams;
        world.run(&Weather { rate: [0, 0], seconds: 600, ..CALM });
        prop_assert!(world.datagrams - before <= 4, "{} datagrams of two silent hosts", world.datagrams - before);
        for host in &mut world.hosts {
            prop_assert_eq!(host.tunnel.next_wake(), None);
            prop_assert!(host.lookup.peer(PeerId(0)).unwrap().session().is_none());
        }
    }
}

#[test]
fn a_host_that_forgot_everything_is_found_again() {
    let mut world = World::new(0, 5);
    world.run(&CALM);
    let address = world.hosts[1].address;
    let now = world.clock(1);
    let mut reborn = Host::new(&[2; 32], &address.to_string(), 33);
    let of_a = reborn.add(common::public(&[1; 32]), [0; 32], None, now);
    (world.hosts[1], world.peers[1]) = (reborn, of_a);
    world.run(&CALM);
    let expected = world.sent;
    world.run(&CALM);
    let known: HashSet<u64> = world.arrived(0).union(&world.arrived(1)).copied().collect();
    assert!((expected + 1..world.sent).all(|number| known.contains(&number)));
}

#[test]
fn both_may_ask_at_once() {
    let now = common::at(SECOND);
    let (mut a, mut b, of_b, of_a) = pair([0; 32], now);
    b.tunnel.set_endpoint(of_a, Ends::to(a.address), now);
    a.send(of_b, b"from a", now);
    b.send(of_a, b"from b", now);
    settle(&mut a, &mut b, now);
    assert_eq!(a.arrived.len() + b.arrived.len(), 2);
    for second in 2..100 {
        let now = common::at(second * SECOND);
        a.send(of_b, b"from a", now);
        b.send(of_a, b"from b", now);
        settle(&mut a, &mut b, now);
        assert_eq!(a.arrived.len() + b.arrived.len(), 2 * second as usize);
    }
}

#[test]
fn a_removed_peer_is_gone_and_its_packets_with_it() {
    let now = common::at(SECOND);
    let (mut a, mut b, of_b, of_a) = pair([0; 32], now);
    a.send(of_b, b"hello", now);
    settle(&mut a, &mut b, now);
    a.send(of_b, b"hello", now);
    let (_, packet) = a.out.pop_front().unwrap();
    let held = b.lookup.peer(of_a).unwrap().session().cloned().unwrap();
    b.tunnel.remove(of_a, now);
    assert!(b.receive(&packet, a.address, now).is_err());
    assert!(
        held.send_key().is_none() && held.receive_key().is_none(),
        "wiped, though a worker has it"
    );
    assert_eq!((b.tunnel.next_wake(), b.tunnel.status(of_a)), (None, None));
}

#[test]
fn a_peer_that_starts_anew_is_answered_before_control_has_heard() {
    let now = common::at(SECOND);
    let (mut a, mut b, of_b, of_a) = pair([0; 32], now);
    a.send(of_b, b"hello", now);
    settle(&mut a, &mut b, now);
    // It comes back with nothing but its keys, somewhere else.
    let now = common::at(30 * SECOND);
    let mut a = Host::new(&[1; 32], "192.0.2.77:7777", 33);
    let of_b = a.add(common::public(&[2; 32]), [0; 32], Some(b.address), now);
    a.send(of_b, b"again", now);
    let (_, initiation) = a.out.pop_front().unwrap();
    b.receive(&initiation, a.address, now).unwrap();
    let old = b.lookup.peer(of_a).unwrap().session().unwrap().local();
    let (_, response) = b.out.pop_front().unwrap();
    a.receive(&response, b.address, now).unwrap();
    let (_, first) = a.out.pop_front().unwrap();
    // A worker opens the packet; its notice is still on the way to control.
    let ends = Ends {
        remote: a.address,
        local: Some(b.address.ip()),
    };
    let opened = wireguard::session::single::open(&mut b.lookup, &first, ends, now.ns).unwrap();
    let outbound = b.lookup.peer(of_a).unwrap();
    let session = outbound.session().unwrap();
    assert_ne!(session.local(), old);
    assert_eq!(outbound.ends().unwrap().remote, a.address);
    let (answer, _) = wireguard::session::single::seal(session, b"welcome back", now.ns).unwrap();
    a.receive(&answer, b.address, now).unwrap();
    assert_eq!(a.arrived.len(), 1);
    // Nothing changes when control hears at last.
    opened
        .notices
        .into_iter()
        .flatten()
        .for_each(|notice| b.tunnel.notice(notice, now));
    b.send(of_a, b"and again", now);
    settle(&mut a, &mut b, now);
    assert_eq!(a.arrived.len(), 2);
}

#[test]
fn a_preshared_key_changes_in_place() {
    let (mut a, mut b, of_b, of_a) = pair([1; 32], common::at(SECOND));
    a.tunnel.set_preshared_key(of_b, &[2; 32], common::at(SECOND));
    a.send(of_b, b"hello", common::at(SECOND));
    let (_, bytes) = a.out.pop_front().unwrap();
    b.receive(&bytes, a.address, common::at(SECOND)).unwrap();
    let (_, bytes) = b.out.pop_front().unwrap();
    assert!(a.receive(&bytes, b.address, common::at(SECOND)).is_err());
    b.tunnel.set_preshared_key(of_a, &[2; 32], common::at(2 * SECOND));
    let next = common::at(a.tunnel.next_wake().unwrap());
    a.wake(next);
    settle(&mut a, &mut b, next);
    assert_eq!(b.arrived.len(), 1);
}
