//! A host with one interface: its control side and one worker, in simulated time.
#![allow(dead_code)] // each test file uses a part

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use wireguard::peer::PeerId;
use wireguard::session::single::{Opened, Unopened, open, seal};
use wireguard::session::{Ends, Lookup, Notice};
use wireguard::tunnel::{Action, Now, PeerConfig, Random, Refusal, Tunnel};
use zeroize::Zeroizing;

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MILLISECOND;

/// SplitMix64: the same numbers for the same seed.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

/// The moment `ns`, with a clock on the wall that goes right.
pub fn at(ns: u64) -> Now {
    Now {
        ns,
        wall: Duration::from_secs(1_700_000_000) + Duration::from_nanos(ns),
    }
}

/// Public key of a private one.
pub fn public(private: &[u8; 32]) -> [u8; 32] {
    *Tunnel::new(private, 1, Box::new(Seeded(0))).public_key()
}

pub struct Host {
    pub tunnel: Tunnel,
    pub lookup: Lookup,
    pub address: SocketAddr,
    /// Packets that wait for a session, at most 16 in all.
    pub waiting: VecDeque<(PeerId, Vec<u8>)>,
    /// Datagrams to send.
    pub out: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Packets that arrived and were authentic.
    pub arrived: Vec<(PeerId, Vec<u8>)>,
}

impl Host {
    pub fn new(private: &[u8; 32], address: &str, seed: u64) -> Self {
        let tunnel = Tunnel::new(private, 4, Box::new(Seeded(seed)));
        Self {
            lookup: Lookup::new(&tunnel.tables()),
            tunnel,
            address: address.parse().unwrap(),
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            arrived: Vec::new(),
        }
    }

    pub fn add(&mut self, public_key: [u8; 32], psk: [u8; 32], endpoint: Option<SocketAddr>, now: Now) -> PeerId {
        let config = PeerConfig {
            public_key,
            preshared_key: Zeroizing::new(psk),
            endpoint,
            persistent_keepalive_s: 0,
        };
        self.tunnel.add(&config, now).unwrap()
    }

    /// What the worker and the waiting room do with a packet from inside.
    pub fn send(&mut self, peer: PeerId, packet: &[u8], now: Now) {
        let outbound = self.lookup.peer(peer).unwrap().clone();
        let session = outbound.session();
        match (
            session.and_then(|session| seal(session, packet, now.ns)),
            outbound.ends(),
        ) {
            (Some((bytes, notice)), Some(ends)) => {
                self.out.push_back((ends.remote, bytes));
                self.tell([notice, None], now);
            }
            _ => {
                if self.waiting.len() < 16 {
                    self.waiting.push_back((peer, packet.to_vec()));
                }
                let wanted = outbound.activity.ask(now.ns).then_some(Notice::Wanted(peer));
                self.tell([wanted, None], now);
            }
        }
        self.act(now);
    }

    /// What the worker, or control, does with a datagram.
    pub fn receive(&mut self, bytes: &[u8], source: SocketAddr, now: Now) -> Result<(), String> {
        let result = if bytes.first() == Some(&4) {
            self.receive_packet(bytes, source, now).map_err(|why| why.to_string())
        } else {
            self.receive_handshake(bytes, source, 0, now)
                .map_err(|why| why.to_string())
        };
        self.act(now);
        result
    }

    pub fn receive_handshake(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        backlog: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        let result = self.tunnel.receive(bytes, self.way(source), backlog, now);
        self.act(now);
        result
    }

    pub fn receive_packet(&mut self, bytes: &[u8], source: SocketAddr, now: Now) -> Result<(), Unopened> {
        let ends = self.way(source);
        let Opened { packet, peer, notices } = open(&mut self.lookup, bytes, ends, now.ns)?;
        self.tell(notices, now);
        if !packet.is_empty() {
            self.arrived.push((peer, packet));
        }
        Ok(())
    }

    /// The way that something from `source` comes to us.
    fn way(&self, source: SocketAddr) -> Ends {
        Ends {
            remote: source,
            local: Some(self.address.ip()),
        }
    }

    /// Does what is due; to be called at `tunnel.next_wake`, or later.
    pub fn wake(&mut self, now: Now) {
        self.tunnel.wake(now);
        self.act(now);
    }

    fn tell(&mut self, notices: [Option<Notice>; 2], now: Now) {
        notices
            .into_iter()
            .flatten()
            .for_each(|notice| self.tunnel.notice(notice, now));
    }

    fn act(&mut self, now: Now) {
        while let Some(action) = self.tunnel.poll() {
            match action {
                Action::Send { ends, bytes } => self.out.push_back((ends.remote, bytes)),
                Action::Unreachable(peer) => self.waiting.retain(|(other, _)| *other != peer),
                Action::Established(peer) => {
                    let (go, stay) = self.waiting.drain(..).partition(|(other, _)| *other == peer);
                    self.waiting = stay;
                    let go: VecDeque<(PeerId, Vec<u8>)> = go;
                    go.into_iter().for_each(|(peer, packet)| self.send(peer, &packet, now));
                }
            }
        }
    }
}

/// Hosts `a` and `b` that know each other; only `a` knows where the other one is.
pub fn pair(psk: [u8; 32], now: Now) -> (Host, Host, PeerId, PeerId) {
    let (mut a, mut b) = (
        Host::new(&[1; 32], "192.0.2.1:1000", 11),
        Host::new(&[2; 32], "[2001:db8::2]:2000", 22),
    );
    let of_b = a.add(public(&[2; 32]), psk, Some(b.address), now);
    let of_a = b.add(public(&[1; 32]), psk, None, now);
    (a, b, of_b, of_a)
}

/// Carries datagrams between the two until there are no more.
pub fn settle(a: &mut Host, b: &mut Host, now: Now) {
    for _ in 0..1000 {
        if let Some((_, bytes)) = a.out.pop_front() {
            b.receive(&bytes, a.address, now).unwrap();
        } else if let Some((_, bytes)) = b.out.pop_front() {
            a.receive(&bytes, b.address, now).unwrap();
        } else {
            return;
        }
    }
    panic!("they do not come to rest");
}
