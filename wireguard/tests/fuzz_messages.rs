//! Fuzzing of every message type: noise, and recorded messages changed as somebody would who knows both public keys and
//! hears everything. Nothing panics, nothing grows, and nothing is accepted but what the other side made.
//!
//! The corpus holds a datagram a file, in hexadecimal digits. One that ever did harm is printed when it does, and goes
//! there: all of them are tried in every test run, and changed in every fuzzing run. `CASES=100000` makes that longer.

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::LazyLock;

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use common::{Host, SECOND, at, pair, public};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wireguard::handshake::{Identity, PeerKeys, initiate};
use wireguard::message::{COOKIE_REPLY, INITIATION, MACS, RESPONSE, TRANSPORT, parse};
use wireguard::peer::PeerId;
use wireguard::tunnel::BUSY_BACKLOG;
use zerocopy::IntoBytes;

/// By the file's name.
static CORPUS: LazyLock<BTreeMap<String, Datagram>> = LazyLock::new(|| {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")).unwrap();
    let read = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, Datagram::parse(&fs::read_to_string(&path).unwrap()))
    });
    read.collect()
});
/// Public keys of both hosts.
static KEYS: LazyLock<[[u8; 32]; 2]> = LazyLock::new(|| [1, 2].map(|number| public(&[number; 32])));

/// Shown as a file of the corpus has it.
#[derive(Clone, PartialEq)]
struct Datagram(Vec<u8>);

impl Datagram {
    fn parse(digits: &str) -> Self {
        let digits = digits.trim();
        let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
        Self(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
    }

    /// Gives it the first MAC that its receiver looks at, before anything else (5.4.4).
    fn sign(&mut self, receiver: &[u8; 32]) {
        let Some((text, macs)) = self.0.split_last_chunk_mut::<MACS>() else {
            return;
        };
        let key = Blake2s256::new().chain_update(b"mac1----").chain_update(receiver);
        let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key.finalize()).unwrap();
        Mac::update(&mut mac, text);
        macs[..16].copy_from_slice(&mac.finalize().into_bytes());
    }

    /// What the keys of the two prove. Left out are the sender's index and the MACs of a handshake message: only the first
    /// MAC covers that index, and everybody can make it (5.4.2 to 5.4.4). Who changes messages on their way can spoil a
    /// handshake by it, as by keeping them.
    fn proven(&self) -> [&[u8]; 2] {
        match self.0.len() {
            length @ (148 | 92) if matches!(self.0[0], 1 | 2) => [&self.0[..4], &self.0[8..length - MACS]],
            _ => [&self.0, &[]],
        }
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A host at a point of an honest exchange, and who talks to it.
struct Scene {
    host: Host,
    source: SocketAddr,
    /// What it may accept now, the first above all.
    genuine: Vec<Datagram>,
}

impl Scene {
    /// Before the message of this type arrives.
    fn before(kind: u32) -> Self {
        let (mut a, mut b, of_b, _) = pair([7; 32], at(SECOND));
        a.send(of_b, b"0123456789abcdef", at(SECOND));
        let initiation = take(&mut a);
        let source = a.address;
        if kind == INITIATION {
            let genuine = vec![initiation];
            return Self {
                host: b,
                source,
                genuine,
            };
        }
        // A cookie first: a busy host answers, and then makes the session all the same.
        b.receive_handshake(&initiation.0, source, BUSY_BACKLOG, at(0))
            .unwrap_err();
        let cookie = take(&mut b);
        b.receive(&initiation.0, source, at(2 * SECOND)).unwrap();
        let response = take(&mut b);
        if kind != TRANSPORT {
            let mut genuine = vec![response, cookie];
            genuine.rotate_left(usize::from(kind == COOKIE_REPLY));
            let source = b.address;
            return Self {
                host: a,
                source,
                genuine,
            };
        }
        a.receive(&response.0, b.address, at(2 * SECOND)).unwrap();
        let mut genuine: Vec<_> = a.out.drain(..).map(|(_, bytes)| Datagram(bytes)).collect();
        genuine.sort_by_key(|packet| std::cmp::Reverse(packet.0.len()));
        Self {
            host: b,
            source,
            genuine,
        }
    }

    /// All that a message could change.
    fn state(&mut self) -> impl PartialEq + fmt::Debug + use<> {
        let peer = PeerId(0);
        let session = self.host.lookup.peer(peer).and_then(|peer| peer.session().cloned());
        let (tunnel, arrived) = (&self.host.tunnel, self.host.arrived.len());
        (
            session.map(|session| (session.local(), session.packets_sent())),
            tunnel.status(peer),
            tunnel.next_wake(),
            self.host.out.len(),
            arrived,
        )
    }

    /// Throws a datagram at the host, at both its doors. If it is not genuine, nothing may come of it, but a cookie
    /// where the host is busy: less than was sent.
    fn endure(&mut self, datagram: &Datagram, busy: bool) {
        if self.genuine.iter().any(|genuine| genuine.proven() == datagram.proven()) {
            return;
        }
        let (before, now) = (self.state(), at(2 * SECOND));
        let backlog = if busy { BUSY_BACKLOG } else { 0 };
        let (bytes, source) = (&datagram.0, self.source);
        let taken = self.host.receive_handshake(bytes, source, backlog, now);
        assert!(taken.is_err(), "accepted: {datagram:?}");
        let opened = self.host.receive_packet(bytes, source, now);
        assert!(opened.is_err(), "accepted: {datagram:?}");
        if let Some((to, reply)) = self.host.out.pop_front() {
            assert!(busy && to == source && reply.len() == 64, "answered: {datagram:?}");
            assert!(reply.len() < bytes.len(), "amplified: {datagram:?}");
        }
        assert_eq!(self.state(), before, "changed by {datagram:?}");
    }

    /// After all that, the genuine message does what it always does. A host from which each datagram had taken an index
    /// would have none left.
    fn go_on(mut self) {
        let now = at(4 * SECOND);
        self.host.receive(&self.genuine[0].0, self.source, now).unwrap();
    }
}

/// The first datagram to be sent.
fn take(host: &mut Host) -> Datagram {
    Datagram(host.out.pop_front().unwrap().1)
}

const KINDS: [u32; 4] = [INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT];

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Put(Index, u8),
    /// Over whatever field is there: types, indices, counters.
    Number(Index, u64),
    Cut(Index),
    Grow(usize),
    /// From one place of another message to the same of this one.
    Splice(Datagram, Index, usize),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        if let Self::Grow(more) = self {
            bytes.resize(bytes.len() + more, 0);
        }
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Self::Put(at, byte) => bytes[at.index(length)] = *byte,
            Self::Number(at, number) => {
                let place = &mut bytes[at.index(length)..];
                let number = number.to_le_bytes();
                let end = place.len().min(8);
                place[..end].copy_from_slice(&number[..end]);
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Grow(_) => {}
            Self::Splice(other, at, count) => {
                let start = at.index(length);
                let end = length.min(other.0.len()).min(start + count);
                if start < end {
                    bytes[start..end].copy_from_slice(&other.0[start..end]);
                }
            }
        }
    }
}

fn of_corpus() -> impl Strategy<Value = Datagram> {
    select(CORPUS.values().cloned().collect::<Vec<_>>())
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        1..6u64,
        Just(1 << 63),
        Just(8192),
        Just(257 << 37),
        any::<u64>()
    ];
    prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        2 => (any::<Index>(), number).prop_map(|(at, number)| Change::Number(at, number)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => prop_oneof![1..40usize, Just(16), Just(65_500)].prop_map(Change::Grow),
        2 => (of_corpus(), any::<Index>(), 1..150usize)
            .prop_map(|(other, at, count)| Change::Splice(other, at, count)),
    ]
}

/// Noise, noise in the right form, and recorded messages with some changes; some signed anew for either host.
fn datagram() -> impl Strategy<Value = Datagram> {
    let noise = prop::collection::vec(any::<u8>(), 0..300).prop_map(Datagram);
    let formed = (1..5u8, any::<[u8; 32]>()).prop_map(|(kind, bytes)| {
        let length = [148, 92, 64, 96][usize::from(kind) - 1];
        let mut formed = vec![kind, 0, 0, 0];
        formed.extend(bytes.iter().cycle().take(length - 4));
        Datagram(formed)
    });
    let changed = (of_corpus(), prop::collection::vec(change(), 0..5)).prop_map(|(mut datagram, changes)| {
        changes.iter().for_each(|change| change.make(&mut datagram.0));
        datagram
    });
    let any = prop_oneof![1 => noise, 2 => formed, 9 => changed];
    (any, prop::option::of(0..2usize)).prop_map(|(mut datagram, receiver)| {
        receiver.into_iter().for_each(|host| datagram.sign(&KEYS[host]));
        datagram
    })
}

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("CASES").map_or(usual, |cases| cases.parse().unwrap());
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn only_what_is_genuine_is_accepted(
        kind in select(&KINDS[..]), busy: bool, datagrams in prop::collection::vec(datagram(), 1..40)
    ) {
        let mut scene = Scene::before(kind);
        datagrams.iter().for_each(|datagram| scene.endure(datagram, busy));
        scene.go_on();
    }

    /// A peer that says what it likes, under its own key.
    #[test]
    fn of_a_peers_initiations_later_ones_are_answered(
        said in prop::collection::vec((any::<[u8; 12]>(), any::<u32>(), any::<[u8; 32]>()), 1..60)
    ) {
        let Scene { host: mut b, source, .. } = Scene::before(INITIATION);
        let a = Identity::new(&[1; 32]);
        let of_b = PeerKeys::new(&a, KEYS[1], &[7; 32]).unwrap();
        let mut latest = None;
        for (second, (timestamp, sender, random)) in (1..).zip(said) {
            let (message, _) = initiate(&a, &of_b, &random, sender, &timestamp);
            let mut message = Datagram(message.as_bytes().to_vec());
            message.sign(&KEYS[1]);
            let answered = b.receive(&message.0, source, at(second * SECOND)).is_ok();
            prop_assert_eq!(answered, Some(timestamp) > latest);
            prop_assert_eq!(b.out.drain(..).count(), usize::from(answered));
            latest = latest.max(Some(timestamp));
        }
    }
}

#[test]
fn the_corpus_is_harmless() {
    for kind in KINDS {
        for busy in [false, true] {
            let mut scene = Scene::before(kind);
            for datagram in CORPUS.values() {
                scene.endure(datagram, busy);
                for host in *KEYS {
                    let mut signed = datagram.clone();
                    signed.sign(&host);
                    scene.endure(&signed, busy);
                }
            }
            scene.go_on();
        }
    }
}

/// So that fuzzing changes messages that would have been accepted.
#[test]
fn the_corpus_has_the_genuine_messages() {
    for (kind, name) in KINDS
        .into_iter()
        .zip(["initiation", "response", "cookie_reply", "transport"])
    {
        let genuine = &Scene::before(kind).genuine[0];
        assert_eq!(CORPUS.get(name), Some(genuine), "tests/corpus/{name}.hex");
        assert!(parse(&genuine.0).is_ok());
    }
    assert!(CORPUS.len() > 10, "files are missing");
}

/// The instrument itself: what it would say of a datagram that is accepted.
#[test]
#[should_panic(expected = "accepted: 04000000")]
fn an_accepted_datagram_is_shown() {
    let mut scene = Scene::before(TRANSPORT);
    let packet = scene.genuine.remove(0);
    scene.endure(&packet, false);
}
