//! ChaCha20-Poly1305 of vectors of packets, ours beside libraries: nanoseconds and cycles a packet.
//! `cargo bench -p bench --bench aead`; with `--features aws-lc` beside that one, too; those of the distribution are
//! there after `bench/install-peers.sh`.
//!
//! Every packet has a key of its own, made before the clock starts for those who prepare keys. Libraries work in place,
//! which is what they do best. All take turns, round by round, so that a busy neighbour is everybody's; only those in C
//! run on their own, right afterwards. Each round's last tag has to be everybody's.

#[path = "aead/native.rs"]
mod native;

use bench::machine::Machine;
use bench::report::record;
use bench::spread::Spread;
use fastpath::clock::cycles;
use std::hint::black_box;
use wireguard::aead::{Aead, Key, Open, Seal, TAG_LENGTH};

const LENGTHS: [usize; 3] = [64, 512, 1420];
const VECTORS: [usize; 2] = [16, 256];
/// How often each figure is taken.
const ROUNDS: usize = 41;
/// Packets of a round, each sealed and opened.
const PACKETS: usize = 4096;

/// How long the packets of a round took to seal and to open, in cycles, and the tag of the last one.
struct Round {
    seal: u64,
    open: u64,
    tag: [u8; TAG_LENGTH],
}

/// One of a round's times.
type Took = fn(&Round) -> u64;

/// Somebody who can do it: who, and a round by them.
struct Contender {
    name: String,
    round: Box<dyn FnMut() -> Round>,
}

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mhz = Machine::this().tsc_mhz;
    let natives = native::build();
    for (length, vector) in LENGTHS
        .into_iter()
        .flat_map(|length| VECTORS.map(|vector| (length, vector)))
    {
        let mut contenders = contenders(length, vector);
        let mut rounds: Vec<(String, Vec<Round>)> = contenders
            .iter()
            .map(|who| (who.name.clone(), Vec::with_capacity(ROUNDS)))
            .collect();
        for _ in 0..ROUNDS {
            for (who, (_, rounds)) in contenders.iter_mut().zip(&mut rounds) {
                rounds.push((who.round)());
            }
        }
        for native in &natives {
            let taken = native.run(length, vector);
            rounds.extend(taken.map(|taken| (native.name.to_owned(), taken)));
        }
        let tags = |rounds: &[Round]| rounds.iter().map(|round| round.tag).collect::<Vec<_>>();
        for (name, others) in &rounds[1..] {
            assert_eq!(tags(others), tags(&rounds[0].1), "{name} computes something else");
        }
        say(&rounds, &format!("{length} bytes, vectors of {vector}"), mhz);
    }
}

fn say(rounds: &[(String, Vec<Round>)], scenario: &str, mhz: f64) {
    let directions: [(&str, Took); 2] = [("seal", |round| round.seal), ("open", |round| round.open)];
    for (what, took) in directions {
        for (name, rounds) in rounds {
            let each = |scale: f64| Spread::of(rounds.iter().map(|round| took(round) as f64 / PACKETS as f64 * scale));
            let scenario = format!("{what} {scenario}");
            record("ChaCha20-Poly1305, ns a packet", &scenario, name, each(1e3 / mhz));
            record("ChaCha20-Poly1305, cycles a packet", &scenario, name, each(1.0));
        }
    }
}

fn contenders(length: usize, vector: usize) -> Vec<Contender> {
    let ours = Aead::all()
        .into_iter()
        .flat_map(|aead| [apart(aead, length, vector), in_place(aead, length, vector)]);
    let contenders = ours.chain([ring::contender(length, vector)]);
    #[cfg(feature = "aws-lc")]
    let contenders = contenders.chain([aws_lc::contender(length, vector)]);
    contenders.collect()
}

/// Texts, key and room: all of a packet are filled with the lower bits of its number.
fn packets(length: usize, vector: usize, room: usize) -> Vec<Vec<u8>> {
    let packet = |number| [vec![number as u8; length], vec![0; room]].concat();
    (0..vector).map(packet).collect()
}

fn keys<K: From<[u8; 32]>>(vector: usize) -> Vec<K> {
    (0..vector).map(|number| K::from([number as u8; 32])).collect()
}

fn tag(sealed: &[u8]) -> [u8; TAG_LENGTH] {
    *sealed.last_chunk().expect("sealed packets end in a tag")
}

/// Seals and opens a round's vectors, each under the next counter.
fn round(vector: usize, counter: &mut u64, mut seal_and_open: impl FnMut(u64) -> Round) -> Round {
    let (mut seal, mut open, mut last) = (0, 0, [0; TAG_LENGTH]);
    for _ in 0..PACKETS / vector {
        *counter += 1;
        let round = seal_and_open(*counter);
        (seal, open, last) = (seal + round.seal, open + round.open, round.tag);
    }
    Round { seal, open, tag: last }
}

/// Ours, from one buffer to another and back.
fn apart(aead: Aead, length: usize, vector: usize) -> Contender {
    let (keys, mut counter) = (keys::<Key>(vector), 0);
    let (mut texts, mut sealed) = (packets(length, vector, 0), packets(length, vector, TAG_LENGTH));
    let both = move |counter| {
        let start = cycles();
        let jobs = keys.iter().zip(&texts).zip(&mut sealed);
        let jobs = jobs.map(|((key, text), sealed)| Seal::new(key, counter, text, sealed).expect("they fit"));
        aead.seal(&mut jobs.collect::<Vec<_>>());
        let middle = cycles();
        let jobs = keys.iter().zip(&sealed).zip(&mut texts);
        let jobs = jobs.map(|((key, sealed), text)| Open::new(key, counter, sealed, text).expect("they fit"));
        let mut jobs: Vec<_> = jobs.collect();
        aead.open(&mut jobs);
        let end = cycles();
        assert!(jobs.iter().all(Open::opened));
        let tag = tag(&sealed[vector - 1]);
        let (seal, open) = (middle - start, end - middle);
        Round { seal, open, tag }
    };
    let mut both = Box::new(both);
    Contender {
        name: format!("Margay {}", aead.name()),
        round: Box::new(move || round(vector, &mut counter, &mut both)),
    }
}

/// Ours, where the packet stands.
fn in_place(aead: Aead, length: usize, vector: usize) -> Contender {
    let (keys, mut counter) = (keys::<Key>(vector), 0);
    let mut places = packets(length, vector, TAG_LENGTH);
    let mut both = move |counter| {
        let start = cycles();
        let jobs = keys.iter().zip(&mut places);
        let jobs = jobs.map(|(key, place)| Seal::in_place(key, counter, place).expect("there is room"));
        aead.seal(&mut jobs.collect::<Vec<_>>());
        let middle = cycles();
        let tag = tag(&places[vector - 1]);
        let jobs = keys.iter().zip(&mut places);
        let jobs = jobs.map(|(key, place)| Open::in_place(key, counter, place).expect("there is a tag"));
        let mut jobs: Vec<_> = jobs.collect();
        aead.open(&mut jobs);
        let end = cycles();
        assert!(jobs.iter().all(Open::opened));
        let (seal, open) = (middle - start, end - middle);
        Round { seal, open, tag }
    };
    Contender {
        name: format!("Margay {} in place", aead.name()),
        round: Box::new(move || round(vector, &mut counter, &mut both)),
    }
}

/// Two libraries with one interface.
macro_rules! library {
    ($module:ident, $library:ident, $name:literal) => {
        mod $module {
            use super::*;
            use ::$library::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

            pub fn contender(length: usize, vector: usize) -> Contender {
                let keys = keys::<[u8; 32]>(vector);
                let keys = keys.iter().map(|key| UnboundKey::new(&CHACHA20_POLY1305, key));
                let keys: Vec<_> = keys.map(|key| LessSafeKey::new(key.expect("a key"))).collect();
                let mut places = packets(length, vector, TAG_LENGTH);
                let mut counter = 0;
                let mut both = move |counter: u64| {
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&counter.to_le_bytes());
                    let start = cycles();
                    for (key, place) in keys.iter().zip(&mut places) {
                        let (text, end) = place.split_at_mut(length);
                        let nonce = Nonce::assume_unique_for_key(nonce);
                        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
                        end.copy_from_slice(tag.expect("it is short enough").as_ref());
                    }
                    let middle = cycles();
                    let tag = tag(&places[vector - 1]);
                    for (key, place) in keys.iter().zip(&mut places) {
                        let nonce = Nonce::assume_unique_for_key(nonce);
                        black_box(key.open_in_place(nonce, Aad::empty(), place).expect("authentic"));
                    }
                    let (seal, open) = (middle - start, cycles() - middle);
                    Round { seal, open, tag }
                };
                Contender {
                    name: $name.to_owned(),
                    round: Box::new(move || round(vector, &mut counter, &mut both)),
                }
            }
        }
    };
}

library!(ring, ring, "ring");
#[cfg(feature = "aws-lc")]
library!(aws_lc, aws_lc_rs, "aws-lc-rs");
