//! Tunnels between two ends with somebody in the middle, who knows both public keys: what comes out of the tunnel is what was
//! put in, once, and whatever was done on the way, they find together again.

#[path = "../../../wireguard/tests/common/mod.rs"]
mod common;

use std::collections::HashSet;

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use common::{Host, MILLISECOND, SECOND, at, pair, public};
use wireguard::message::MACS;
use wireguard::peer::PeerId;

use super::Run;

/// Most steps of an input: handshakes are slow.
const STEPS: usize = 64;
/// Initiations of one peer are answered at this distance at least (whitepaper section 5.1), and asked anew after 5 s.
const PATIENCE_NS: u64 = 6 * SECOND;
/// Sessions that only one end believes in are given up after three minutes (section 6.2).
const ATTEMPTS: usize = 40;

/// Sets it up.
pub fn start() -> Run {
    Box::new(|input| {
        let mut world = World::new();
        let mut script = Script(input);
        for _ in 0..STEPS {
            let Some(step) = script.byte() else { break };
            world.step(step, &mut script);
        }
        world.heal();
    })
}

/// What is still to be read of an input. Of nothing come zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or_default())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.number().min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }
}

struct World {
    hosts: [Host; 2],
    peers: [PeerId; 2],
    keys: [[u8; 32]; 2],
    now_ns: u64,
    /// The number of the last packet; each has its own.
    number: u32,
    /// What may still come out at each end.
    due: [HashSet<Vec<u8>>; 2],
    last: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let (a, b, of_b, of_a) = pair([7; 32], at(SECOND));
        Self {
            hosts: [a, b],
            peers: [of_b, of_a],
            keys: [1, 2].map(|number| public(&[number; 32])),
            now_ns: SECOND,
            number: 0,
            due: Default::default(),
            last: vec![],
        }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let from = usize::from(step & 1);
        match step >> 1 & 15 {
            0 => drop(self.send(from, script.number())),
            1 | 2 => self.carry(from, |_| {}),
            3 => drop(self.hosts[from].out.pop_front()),
            4 => self.hosts[from]
                .out
                .rotate_left(usize::from(self.hosts[from].out.len() > 1)),
            5 => {
                let (place, bits) = (script.number(), script.number() as u8);
                self.carry(from, |bytes| flip(bytes, place, bits));
            }
            6 => {
                let length = script.number();
                self.carry(from, |bytes| bytes.truncate(length));
            }
            7 => self.hear(from, &self.last.clone()),
            8 => self.hear(from, &script.bytes()),
            9 => {
                let mut bytes = script.bytes();
                sign(&self.keys[from], &mut bytes);
                self.hear(from, &bytes);
            }
            10 => {
                // Changed where the first MAC does not tell.
                let (place, bits, key) = (script.number(), script.number() as u8, self.keys[1 - from]);
                self.carry(from, |bytes| {
                    flip(bytes, place, bits);
                    sign(&key, bytes);
                });
            }
            11 => self.pass(script.number() as u64 * MILLISECOND),
            12 => self.pass(script.number() as u64 * SECOND),
            _ => {}
        }
    }

    /// Puts a packet into the tunnel.
    fn send(&mut self, from: usize, length: usize) -> Vec<u8> {
        self.number += 1;
        let mut packet = self.number.to_be_bytes().to_vec();
        packet.resize(4 + length, 0xa5);
        self.hosts[from].send(self.peers[from], &packet, at(self.now_ns));
        // Padded to 16 bytes on the way (section 5.4.6).
        packet.resize(packet.len().next_multiple_of(16), 0);
        self.due[1 - from].insert(packet.clone());
        packet
    }

    /// Has the next datagram arrive, after somebody has changed it.
    fn carry(&mut self, from: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some((_, mut bytes)) = self.hosts[from].out.pop_front() {
            self.last = bytes.clone();
            change(&mut bytes);
            self.hear(1 - from, &bytes);
        }
    }

    fn hear(&mut self, number: usize, bytes: &[u8]) {
        let source = self.hosts[1 - number].address;
        let host = &mut self.hosts[number];
        let _ = host.receive(bytes, source, at(self.now_ns));
        for (_, packet) in std::mem::take(&mut host.arrived) {
            assert!(
                self.due[number].remove(&packet),
                "nobody sent {packet:02x?}, or it came twice"
            );
        }
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        for host in &mut self.hosts {
            host.wake(at(self.now_ns));
        }
    }

    /// Nobody is in the middle any more: a packet arrives, each way.
    fn heal(&mut self) {
        for from in [0, 1] {
            let arrives = (0..ATTEMPTS).any(|_| {
                let packet = self.send(from, 1);
                self.quiet();
                let is_there = !self.due[1 - from].contains(&packet);
                if !is_there {
                    self.pass(PATIENCE_NS);
                    self.quiet();
                }
                is_there
            });
            assert!(arrives, "the tunnel from {from} is dead");
        }
    }

    /// Carries datagrams until there are no more.
    fn quiet(&mut self) {
        for _ in 0..1000 {
            let Some(from) = (0..2).find(|from| !self.hosts[*from].out.is_empty()) else {
                return;
            };
            self.carry(from, |_| {});
        }
        panic!("they do not come to rest");
    }
}

fn flip(bytes: &mut [u8], place: usize, bits: u8) {
    let length = bytes.len().max(1);
    bytes.get_mut(place % length).into_iter().for_each(|byte| *byte ^= bits);
}

/// Gives a message the first MAC that its receiver looks at (section 5.4.4).
fn sign(receiver: &[u8; 32], bytes: &mut [u8]) {
    let Some((text, macs)) = bytes.split_last_chunk_mut::<MACS>() else {
        return;
    };
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(receiver);
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key.finalize()).unwrap();
    Mac::update(&mut mac, text);
    macs[..16].copy_from_slice(&mac.finalize().into_bytes());
}
