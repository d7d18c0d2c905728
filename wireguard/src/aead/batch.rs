//! Packets' blocks are dealt to ChaCha20 lanes in order, regardless of where one packet ends, and their ciphertexts to
//! Poly1305 lanes, eight packets at a time, while they are in the first cache.
//!
//! Only lengths, counters and verdicts steer what is done here, and they are public.

use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{BATCH, Head, KEY_LENGTH, Open, Seal, TAG_LENGTH};

/// Bytes of a ChaCha20 block.
pub(super) const BLOCK: usize = 64;
/// The most blocks that [`Lanes::keystream`] makes.
pub(super) const PASS: usize = 32;
/// The most messages that [`Lanes::tags`] takes.
pub(super) const GROUP: usize = 8;
/// How many packets are opened together. Their keys leave half of the first pass to their texts.
const OPEN_GROUP: usize = PASS / 2;

/// The two primitives and the way to use keystream, in vector registers. A value is a proof that the processor has them.
pub(super) trait Lanes: Copy {
    /// Makes the blocks of `segments`, in order: at most [`PASS`] together. What follows them is arbitrary.
    fn keystream(self, segments: &[Segment<'_>], stream: &mut [[u8; BLOCK]; PASS]);
    /// Computes Poly1305 tags of up to [`GROUP`] messages under their one-time keys. All slices are equally long.
    fn tags(self, messages: &[Message<'_>], keys: &[[u8; KEY_LENGTH]], tags: &mut [[u8; TAG_LENGTH]]);
    /// Adds keystream to `text`. The slices are equally long, but for the keystream, which goes up to a whole block.
    fn add(self, text: &[u8], stream: &[[u8; BLOCK]], target: &mut [u8]);
    /// Adds keystream, as far as it goes, to the text that stands in its place.
    fn add_in_place(self, stream: &[[u8; BLOCK]], text: &mut [u8]);
}

/// Consecutive blocks of one packet.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    pub key: &'a [u8; KEY_LENGTH],
    /// The last two words of the nonce; the first is zero.
    pub counter: u64,
    /// The packet's place among its batch.
    pub packet: usize,
    /// The number of the first block.
    pub first: u32,
    /// How many blocks; not zero, but in [`Segment::NONE`].
    pub count: u32,
}

impl Segment<'_> {
    pub const NONE: Self = Self {
        key: &[0; KEY_LENGTH],
        counter: 0,
        packet: 0,
        first: 0,
        count: 0,
    };
}

/// What Poly1305 sums up: `data`, zeros up to a whole block of 16 bytes, and `last`.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub data: &'a [u8],
    /// The closing block, as two little-endian words: for an AEAD, the lengths.
    pub last: [u64; 2],
}

impl<'a> Message<'a> {
    pub const EMPTY: Self = Self {
        data: &[],
        last: [0; 2],
    };

    /// The message of an AEAD without additional data (RFC 8439, 2.8).
    fn of_ciphertext(data: &'a [u8]) -> Self {
        Self {
            data,
            last: [0, data.len() as u64],
        }
    }

    /// Blocks of 16 bytes, the closing one counted.
    pub fn blocks(&self) -> usize {
        self.data.len().div_ceil(16) + 1
    }
}

/// Keystream and one-time keys, wiped when dropped: once for all packets of a call, as to clear them costs as much as a
/// tenth of a short packet.
#[repr(C, align(64))]
pub(super) struct Secrets {
    stream: [[u8; BLOCK]; PASS],
    keys: [[u8; KEY_LENGTH]; BATCH],
}

impl Secrets {
    pub fn new() -> Self {
        Self {
            stream: [[0; BLOCK]; PASS],
            keys: [[0; KEY_LENGTH]; BATCH],
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.stream.as_flattened_mut().zeroize();
        self.keys.as_flattened_mut().zeroize();
    }
}

impl ZeroizeOnDrop for Secrets {}

/// Encrypts and tags up to [`BATCH`] packets; they are tagged in groups, as soon as they are through.
pub(super) fn seal<L: Lanes>(lanes: L, secrets: &mut Secrets, packets: &mut [Seal<'_>]) {
    let mut segments = [Segment::NONE; PASS];
    let mut dealer = Dealer::new(0, !0);
    let mut tagged = 0;
    while tagged < packets.len() {
        let count = dealer.deal(packets.len(), |i| packets[i].head, &mut segments);
        lanes.keystream(&segments[..count], &mut secrets.stream);
        let mut lane = 0;
        for segment in &segments[..count] {
            let Seal { text, ciphertext, .. } = &mut packets[segment.packet];
            let mut blocks = &secrets.stream[lane..lane + segment.count as usize];
            lane += blocks.len();
            if segment.first == 0 {
                secrets.keys[segment.packet].copy_from_slice(&blocks[0][..KEY_LENGTH]);
                blocks = &blocks[1..];
            }
            add(lanes, segment, blocks, *text, ciphertext);
        }
        let end = dealer.packet;
        while end - tagged >= GROUP || (tagged < end && end == packets.len()) {
            let group = tagged..end.min(tagged + GROUP);
            tagged = group.end;
            let packets = &mut packets[group.clone()];
            let tags = tags(
                lanes,
                packets.iter().map(|packet| &*packet.ciphertext),
                &secrets.keys[group],
            );
            for (packet, tag) in packets.iter_mut().zip(tags) {
                *packet.tag = tag;
            }
        }
    }
}

/// Verifies and decrypts up to [`BATCH`] packets.
pub(super) fn open<L: Lanes>(lanes: L, secrets: &mut Secrets, packets: &mut [Open<'_>]) {
    for group in packets.chunks_mut(OPEN_GROUP) {
        open_group(lanes, secrets, group);
    }
}

/// Opens up to [`OPEN_GROUP`] packets. Of a packet that is not authentic no plaintext is ever made.
fn open_group<L: Lanes>(lanes: L, secrets: &mut Secrets, packets: &mut [Open<'_>]) {
    let mut segments = [Segment::NONE; PASS];
    // The first pass makes all keys, and keystream that is set aside.
    for (place, (segment, Open { head, .. })) in segments.iter_mut().zip(&*packets).enumerate() {
        *segment = Segment {
            key: head.key,
            counter: head.counter,
            packet: place,
            first: 0,
            count: 1,
        };
    }
    let texts = packets.len();
    let mut dealer = Dealer::new(1, !0);
    let mut count = texts + dealer.deal(texts, |i| packets[i].head, &mut segments[texts..]);
    lanes.keystream(&segments[..count], &mut secrets.stream);
    for (key, block) in secrets.keys.iter_mut().zip(&secrets.stream[..texts]) {
        key.copy_from_slice(&block[..KEY_LENGTH]);
    }

    let mut authentic = 0;
    for (i, group) in packets.chunks(GROUP).enumerate() {
        let (first, messages) = (i * GROUP, group.iter().map(Open::ciphertext));
        let tags = tags(lanes, messages, &secrets.keys[first..first + group.len()]);
        for (i, (packet, tag)) in group.iter().zip(&tags).enumerate() {
            authentic |= u64::from(equal(tag, packet.tag).unwrap_u8()) << (first + i);
        }
    }
    let authentic = publish(authentic);

    // The keystream set aside is used first; then the rest is made.
    dealer.wanted = authentic;
    let (mut used, mut lane) = (texts, texts);
    loop {
        for segment in &segments[used..count] {
            let blocks = &secrets.stream[lane..lane + segment.count as usize];
            lane += blocks.len();
            if authentic >> segment.packet & 1 == 1 {
                let Open { ciphertext, text, .. } = &mut packets[segment.packet];
                add(lanes, segment, blocks, *ciphertext, text);
            }
        }
        count = dealer.deal(texts, |i| packets[i].head, &mut segments);
        if count == 0 {
            break;
        }
        (used, lane) = (0, 0);
        lanes.keystream(&segments[..count], &mut secrets.stream);
    }
    for (i, packet) in packets.iter_mut().enumerate() {
        packet.opened = authentic >> i & 1 == 1;
        if !packet.opened {
            packet.text.fill(0);
        }
    }
}

/// Compares two tags in constant time, as one number: byte by byte it took a third of the time of a short packet.
#[inline(always)]
fn equal(a: &[u8; TAG_LENGTH], b: &[u8; TAG_LENGTH]) -> Choice {
    let difference = u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b);
    (difference as u64 | (difference >> 64) as u64).ct_eq(&0)
}

/// From here on the verdicts are public, and may be branched on. Under valgrind, the test of `constant_time.rs` marks
/// them so.
fn publish(authentic: u64) -> u64 {
    #[cfg(test)]
    let authentic = super::constant_time::public(authentic);
    authentic
}

/// Adds the keystream of a segment, without block 0, to its part of a packet: from `source`, or where it stands.
#[inline(always)]
fn add<L: Lanes>(lanes: L, segment: &Segment<'_>, blocks: &[[u8; BLOCK]], source: Option<&[u8]>, target: &mut [u8]) {
    let start = BLOCK * (segment.first.max(1) as usize - 1);
    let part = start..target.len().min(start + BLOCK * blocks.len());
    match source {
        Some(source) => lanes.add(&source[part.clone()], blocks, &mut target[part]),
        None => lanes.add_in_place(blocks, &mut target[part]),
    }
}

/// The tags of the ciphertexts of up to [`GROUP`] packets; those that follow are arbitrary.
#[inline(always)]
fn tags<'a, L: Lanes>(
    lanes: L,
    ciphertexts: impl ExactSizeIterator<Item = &'a [u8]>,
    keys: &[[u8; KEY_LENGTH]],
) -> [[u8; TAG_LENGTH]; GROUP] {
    let count = ciphertexts.len();
    let mut messages = [Message::EMPTY; GROUP];
    for (message, ciphertext) in messages.iter_mut().zip(ciphertexts) {
        *message = Message::of_ciphertext(ciphertext);
    }
    let mut tags = [[0; TAG_LENGTH]; GROUP];
    lanes.tags(&messages[..count], keys, &mut tags[..count]);
    tags
}

/// Deals the blocks of the packets to lanes, packet after packet.
struct Dealer {
    /// The packet that the next block is of.
    packet: usize,
    block: u32,
    /// The number of every packet's first block.
    first: u32,
    /// Which packets are still to be dealt.
    wanted: u64,
}

impl Dealer {
    fn new(first: u32, wanted: u64) -> Self {
        Self {
            packet: 0,
            block: first,
            first,
            wanted,
        }
    }

    /// Deals as many blocks as `segments` is long, if there are so many, and returns how many segments they make.
    #[inline]
    fn deal<'a>(&mut self, packets: usize, head: impl Fn(usize) -> Head<'a>, segments: &mut [Segment<'a>]) -> usize {
        let (mut count, mut free) = (0, segments.len() as u32);
        while free > 0 && self.packet < packets {
            let Head { key, counter, length } = head(self.packet);
            let end = 1 + length.div_ceil(BLOCK) as u32;
            let wanted = self.wanted >> self.packet & 1 == 1;
            let lanes = if wanted { free.min(end - self.block) } else { 0 };
            if lanes > 0 {
                let (packet, first) = (self.packet, self.block);
                segments[count] = Segment {
                    key,
                    counter,
                    packet,
                    first,
                    count: lanes,
                };
                count += 1;
                free -= lanes;
                self.block += lanes;
            }
            if lanes == 0 || self.block == end {
                self.packet += 1;
                self.block = self.first;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Aead, Key, Way, portable};
    use super::*;

    /// The lanes themselves, also where ring is faster and does their work.
    fn equals_ring<L: Lanes>(lanes: L, lengths: &[usize]) {
        let key = Key::from([0x6b; KEY_LENGTH]);
        let texts: Vec<Vec<u8>> = lengths
            .iter()
            .map(|length| (0..*length).map(|i| (i * 7) as u8).collect())
            .collect();
        let sealed = |seal: &dyn Fn(&mut [Seal<'_>])| {
            let mut sealed: Vec<_> = lengths.iter().map(|length| vec![0; length + TAG_LENGTH]).collect();
            let pairs = texts.iter().zip(&mut sealed).zip(1..);
            let jobs = pairs.map(|((text, sealed), counter)| Seal::new(&key, counter, text, sealed).unwrap());
            seal(&mut jobs.collect::<Vec<_>>());
            sealed
        };
        let mut sources = sealed(&|jobs| jobs.iter_mut().for_each(portable::seal));
        assert_eq!(
            sealed(&|jobs| super::seal(lanes, &mut Secrets::new(), jobs)),
            sources,
            "{lengths:?}"
        );
        let mut places: Vec<_> = texts
            .iter()
            .map(|text| [&text[..], &[0; TAG_LENGTH]].concat())
            .collect();
        let jobs = places.iter_mut().zip(1..);
        let jobs = jobs.map(|(place, counter)| Seal::in_place(&key, counter, place).unwrap());
        super::seal(lanes, &mut Secrets::new(), &mut jobs.collect::<Vec<_>>());
        assert_eq!(places, sources, "{lengths:?}");

        // The last is a forgery.
        *sources.last_mut().unwrap().last_mut().unwrap() ^= 0x80;
        let mut opened: Vec<_> = lengths.iter().map(|length| vec![1; *length]).collect();
        let pairs = sources.iter().zip(&mut opened).zip(1..);
        let jobs = pairs.map(|((sealed, text), counter)| Open::new(&key, counter, sealed, text).unwrap());
        let mut jobs: Vec<_> = jobs.collect();
        super::open(lanes, &mut Secrets::new(), &mut jobs);
        let (forgery, rest) = jobs.split_last().unwrap();
        assert!(!forgery.opened() && rest.iter().all(Open::opened), "{lengths:?}");
        let (forgery, rest) = opened.split_last().unwrap();
        assert!(
            forgery.iter().all(|byte| *byte == 0) && *rest == texts[..rest.len()],
            "{lengths:?}"
        );
        let mut places = sources.clone();
        let jobs = places.iter_mut().zip(1..);
        let jobs = jobs.map(|(place, counter)| Open::in_place(&key, counter, place).unwrap());
        super::open(lanes, &mut Secrets::new(), &mut jobs.collect::<Vec<_>>());
        for ((place, source), text) in places.iter().zip(&sources).zip(&opened) {
            assert_eq!(
                place.split_at(text.len()),
                (&text[..], &source[text.len()..]),
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn lanes_equal_ring_at_every_length() {
        for length in 0..=2048 {
            let others = [
                length / 2,
                2048 - length,
                length,
                1420,
                length + 1,
                64,
                0,
                length,
                300,
                length,
            ];
            for count in [1, 2, 4, others.len()] {
                for aead in Aead::all() {
                    match aead.0 {
                        Way::Avx512(lanes) => equals_ring(lanes, &others[others.len() - count..]),
                        Way::Avx2(lanes) => equals_ring(lanes, &others[others.len() - count..]),
                        Way::Ring => {}
                    }
                }
            }
        }
    }
}
