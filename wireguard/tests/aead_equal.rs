//! Every way against ring, and against forgeries. `BATCHES=1000000` in the environment makes the random test that long.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wireguard::aead::{Aead, BATCH, Key, LengthError, MAX_TEXT, Open, Seal, TAG_LENGTH};

/// splitmix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A packet, with its sealed form according to ring.
#[derive(Clone)]
struct Packet {
    key: [u8; 32],
    counter: u64,
    text: Vec<u8>,
    sealed: Vec<u8>,
}

impl Packet {
    fn new(random: &mut Random, length: usize) -> Self {
        let (mut key, mut text) = ([0; 32], vec![0; length]);
        random.fill(&mut key);
        random.fill(&mut text);
        let (counter, mut sealed) = (random.bits(), text.clone());
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap())
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .unwrap();
        Self {
            key,
            counter,
            text,
            sealed,
        }
    }

    /// Flips a bit somewhere: of the key, the counter, the ciphertext or the tag.
    fn forge(&mut self, random: &mut Random) {
        let (length, bit) = (self.text.len(), 1 << random.below(8));
        match random.below(8) {
            0 => self.key[random.below(32)] ^= bit,
            1 => self.counter ^= 1 << random.below(64),
            2..5 if length > 0 => self.sealed[random.below(length)] ^= bit,
            _ => self.sealed[length + random.below(TAG_LENGTH)] ^= bit,
        }
    }
}

/// What every byte around and in a target is, before.
const UNTOUCHED: u8 = 0xa5;

/// Where results go: each to a target of its own, or all, or every other one, to where the source was.
const PLACES: [fn(usize) -> bool; 3] = [|_| false, |_| true, |i| i % 2 == 1];

/// Targets at odd offsets, with a guard byte on either side.
fn targets(lengths: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    lengths.map(|length| vec![UNTOUCHED; length + 2]).collect()
}

fn inner(target: &mut [u8]) -> &mut [u8] {
    let end = target.len() - 1;
    &mut target[1..end]
}

fn seal(aead: Aead, packets: &[Packet]) {
    PLACES.iter().for_each(|in_place| seal_to(aead, packets, in_place));
}

fn seal_to(aead: Aead, packets: &[Packet], in_place: &dyn Fn(usize) -> bool) {
    let mut out = targets(packets.iter().map(|packet| packet.sealed.len()));
    let keys: Vec<Key> = packets.iter().map(|packet| packet.key.into()).collect();
    let jobs = packets.iter().zip(&keys).zip(&mut out).enumerate();
    let mut jobs: Vec<_> = jobs
        .map(|(i, ((packet, key), out))| {
            let (out, text) = (inner(out), &packet.text);
            if in_place(i) {
                out[..text.len()].copy_from_slice(text);
                Seal::in_place(key, packet.counter, out).unwrap()
            } else {
                Seal::new(key, packet.counter, text, out).unwrap()
            }
        })
        .collect();
    aead.seal(&mut jobs);
    for (i, (packet, out)) in packets.iter().zip(&mut out).enumerate() {
        let what = format!(
            "{}: packet {i}, {} bytes, in place: {}",
            aead.name(),
            packet.text.len(),
            in_place(i)
        );
        assert_eq!(*inner(out), *packet.sealed, "{what}");
        assert_eq!([out[0], out[out.len() - 1]], [UNTOUCHED; 2], "{what}");
    }
}

/// Opens the packets, of which those in `forged` must not open.
fn open(aead: Aead, packets: &[Packet], forged: &[bool]) {
    PLACES
        .iter()
        .for_each(|in_place| open_to(aead, packets, forged, in_place));
}

fn open_to(aead: Aead, packets: &[Packet], forged: &[bool], in_place: &dyn Fn(usize) -> bool) {
    let lengths = packets.iter().enumerate();
    let mut out = targets(lengths.map(|(i, packet)| packet.text.len() + if in_place(i) { TAG_LENGTH } else { 0 }));
    let keys: Vec<Key> = packets.iter().map(|packet| packet.key.into()).collect();
    let jobs = packets.iter().zip(&keys).zip(&mut out).enumerate();
    let mut jobs: Vec<_> = jobs
        .map(|(i, ((packet, key), out))| {
            if in_place(i) {
                inner(out).copy_from_slice(&packet.sealed);
                Open::in_place(key, packet.counter, inner(out)).unwrap()
            } else {
                Open::new(key, packet.counter, &packet.sealed, inner(out)).unwrap()
            }
        })
        .collect();
    assert!(jobs.iter().all(|job| !job.opened()), "before it is opened");
    aead.open(&mut jobs);
    let opened: Vec<bool> = jobs.iter().map(Open::opened).collect();
    for (i, (packet, out)) in packets.iter().zip(&mut out).enumerate() {
        let length = packet.text.len();
        let what = format!(
            "{}: packet {i}, {length} bytes, forged: {}, in place: {}",
            aead.name(),
            forged[i],
            in_place(i)
        );
        assert_eq!(opened[i], !forged[i], "{what}");
        let (text, tag) = inner(out).split_at(length);
        match forged[i] {
            false => assert_eq!(*text, *packet.text, "{what}"),
            true => assert!(text.iter().all(|byte| *byte == 0), "{what}"),
        }
        assert!(tag.is_empty() || *tag == packet.sealed[length..], "{what}");
        assert_eq!([out[0], out[out.len() - 1]], [UNTOUCHED; 2], "{what}");
    }
}

fn both(aead: Aead, packets: &[Packet]) {
    seal(aead, packets);
    open(aead, packets, &vec![false; packets.len()]);
}

#[test]
fn the_fastest_way_is_taken() {
    let names: Vec<_> = Aead::all().into_iter().map(Aead::name).collect();
    assert_eq!(Aead::best().name(), names[0]);
    assert_eq!(names.last(), Some(&"ring"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx512"), is_x86_feature_detected!("avx512vbmi2"));
}

#[test]
fn every_length() {
    let mut random = Random(1);
    for length in 0..=2048 {
        let packets: Vec<_> = (0..9).map(|_| Packet::new(&mut random, length)).collect();
        for aead in Aead::all() {
            for count in [1, 2, 5, 9] {
                both(aead, &packets[..count]);
            }
        }
    }
}

/// A packet of each of these lengths takes each place of a batch, among others of any length.
#[test]
fn every_lane_position() {
    let mut random = Random(2);
    for length in [0, 1, 16, 64, 100, 127, 128, 512, 1420] {
        for others in [0, 40, 64, 300, 1420] {
            let others: Vec<_> = (0..BATCH).map(|_| Packet::new(&mut random, others)).collect();
            for place in 0..BATCH {
                let mut packets = others.clone();
                packets[place] = Packet::new(&mut random, length);
                // Places in a group of 16 have been seen with others behind them; those above, at the end.
                packets.truncate((place + 1).max(BATCH / 2));
                for aead in Aead::all() {
                    seal(aead, &packets);
                    let mut forged = vec![false; packets.len()];
                    open(aead, &packets, &forged);
                    packets[place].sealed[length] ^= 1;
                    forged[place] = true;
                    open(aead, &packets, &forged);
                    packets[place].sealed[length] ^= 1;
                }
            }
        }
    }
}

#[test]
fn random_batches() {
    let batches = std::env::var("BATCHES").map_or(1_000, |count| count.parse().unwrap());
    let mut random = Random(3);
    for batch in 0..batches {
        let longest = [16, 80, 300, 1500, 2048][random.below(5)];
        let most = [3, 9, 17, BATCH, 3 * BATCH][random.below(5)];
        let count = 1 + random.below(most);
        let mut packets: Vec<_> = (0..count)
            .map(|_| {
                let length = random.below(longest + 1);
                Packet::new(&mut random, length)
            })
            .collect();
        let way = Aead::all()[batch % Aead::all().len()];
        seal(way, &packets);
        let one_in = [1, 2, count, usize::MAX][random.below(4)];
        let forged: Vec<_> = packets
            .iter_mut()
            .map(|packet| {
                let forged = random.below(one_in) == 0;
                if forged {
                    packet.forge(&mut random);
                }
                forged
            })
            .collect();
        open(way, &packets, &forged);
    }
}

#[test]
fn every_flipped_bit() {
    let mut random = Random(4);
    for length in [0, 1, 15, 16, 17, 63, 64, 65, 130, 300] {
        let packet = Packet::new(&mut random, length);
        for bit in 0..8 * packet.sealed.len() {
            let mut twin = packet.clone();
            twin.sealed[bit / 8] ^= 1 << (bit % 8);
            let packets = [packet.clone(), twin.clone(), packet.clone()];
            for aead in Aead::all() {
                open(aead, &packets, &[false, true, false]);
                open(aead, std::slice::from_ref(&twin), &[true]);
            }
        }
    }
}

#[test]
fn nothing_cut_or_lengthened_opens() {
    let mut random = Random(5);
    for length in [1, 16, 64, 600, 1420] {
        let packet = Packet::new(&mut random, length);
        let mut others: Vec<_> = (0..=length).map(|_| packet.clone()).collect();
        for (cut, other) in others.iter_mut().enumerate() {
            // The tag of the whole stands behind a shorter text, or behind one with zeros more.
            let (tag, rest) = (packet.sealed[length..].to_vec(), length - cut);
            other.sealed.truncate(rest);
            other.sealed.resize(if cut == 0 { length + 1 } else { rest }, 0);
            other.text = vec![0; other.sealed.len()];
            other.sealed.extend(tag);
        }
        for aead in Aead::all() {
            open(aead, &others, &vec![true; others.len()]);
        }
    }
}

/// Back and forth between two buffers, each in turn the source and the target.
#[test]
fn into_each_others_place() {
    let mut random = Random(6);
    let mut texts: Vec<Vec<u8>> = [0, 1, 64, 500, 1420, 77].map(|length| vec![7; length]).into();
    let first = texts.clone();
    let mut sealed: Vec<Vec<u8>> = texts.iter().map(|text| vec![0; text.len() + TAG_LENGTH]).collect();
    for aead in Aead::all() {
        for _ in 0..100 {
            let mut key = [0; 32];
            random.fill(&mut key);
            let (key, counter) = (Key::from(key), random.bits());
            let pairs = texts.iter().zip(&mut sealed);
            let mut jobs: Vec<_> = pairs
                .map(|(text, sealed)| Seal::new(&key, counter, text, sealed).unwrap())
                .collect();
            aead.seal(&mut jobs);
            texts.iter_mut().for_each(|text| random.fill(text));
            let pairs = texts.iter_mut().zip(&sealed);
            let mut jobs: Vec<_> = pairs
                .map(|(text, sealed)| Open::new(&key, counter, sealed, text).unwrap())
                .collect();
            aead.open(&mut jobs);
            assert!(jobs.iter().all(Open::opened));
            assert_eq!(texts, first);
        }
    }
}

#[test]
fn the_longest_packet() {
    let mut random = Random(7);
    let packets: Vec<_> = [MAX_TEXT, 3, MAX_TEXT - 1]
        .map(|length| Packet::new(&mut random, length))
        .into();
    for aead in Aead::all() {
        both(aead, &packets);
        both(aead, &packets[..1]);
        both(aead, &[]);
    }
}

#[test]
fn buffers_that_do_not_fit_are_refused_with_a_sentence() {
    let key = Key::from([0; 32]);
    let seal = |text: usize, target: usize| Seal::new(&key, 0, &vec![0; text], &mut vec![0; target]).err();
    assert_eq!(
        seal(MAX_TEXT + 1, MAX_TEXT + 17),
        Some(LengthError::TooLong(MAX_TEXT + 1))
    );
    for (text, target) in [(0, 0), (0, 15), (0, 17), (20, 20), (20, 35), (20, 37)] {
        let expected = LengthError::Target {
            result: text + TAG_LENGTH,
            target,
        };
        assert_eq!(seal(text, target), Some(expected));
    }
    let open = |sealed: usize, target: usize| Open::new(&key, 0, &vec![0; sealed], &mut vec![0; target]).err();
    assert_eq!(
        open(MAX_TEXT + 17, MAX_TEXT + 1),
        Some(LengthError::TooLong(MAX_TEXT + 1))
    );
    assert_eq!(open(15, 0), Some(LengthError::NoTag(15)));
    assert_eq!(open(0, 0), Some(LengthError::NoTag(0)));
    for (sealed, target) in [(16, 1), (18, 1), (18, 18), (1436, 1421)] {
        let expected = LengthError::Target {
            result: sealed - TAG_LENGTH,
            target,
        };
        assert_eq!(open(sealed, target), Some(expected));
    }
    let in_place = |length: usize| {
        let (mut text, mut sealed) = (vec![0; length], vec![0; length]);
        let refused = Seal::in_place(&key, 0, &mut text).err();
        assert_eq!(refused, Open::in_place(&key, 0, &mut sealed).err());
        refused
    };
    assert_eq!(
        [0, 15].map(in_place),
        [0, 15].map(|length| Some(LengthError::NoTag(length)))
    );
    assert_eq!([16, MAX_TEXT + 16].map(in_place), [None; 2]);
    assert_eq!(in_place(MAX_TEXT + 17), Some(LengthError::TooLong(MAX_TEXT + 1)));
    assert_eq!(
        LengthError::Target { result: 2, target: 1 }.to_string(),
        "the result has 2 bytes and its target 1: give a target of just that length"
    );
    assert_eq!(format!("{key:?}"), "Key(secret)");
}
