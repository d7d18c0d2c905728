//! Poly1305 of several messages side by side, in radix 2^44 with IFMA.
//!
//! A message is cut into chunks of four blocks (64 bytes), aligned to its
//! *end*: the first chunk is padded with zero blocks in front, which add
//! nothing to the polynomial, and the last chunk always closes with the block
//! of lengths. So all messages of a group end in the same step, whatever their
//! lengths, and a shorter one merely joins later.
//!
//! Short messages take a lane each. Of others, two chunks fill the eight 64-bit lanes of a row: lane 2i has block i of the
//! one, lane 2i + 1 block i of the other. A step takes two rows, so four chunks
//! of four *streams*: two messages with two chunks each (128 bytes of either),
//! or one message with all four. Writing h for the sum so far and R for the
//! power of r that a row is worth, a step is h = (h + row 0) R^2 + (row 1) R,
//! with one carry for both products. The last step has other factors: in every
//! lane the power of r that its block is worth.

use std::arch::x86_64::*;

use super::super::batch::{GROUP, Message};
use super::limbs::{Factor, Limbs, TOP_BIT, clamp, columns, finish, padded};
use super::{load, load_at, transpose_quarters};

/// Up to so many blocks, a message takes just a lane.
const SHORT: usize = 8;
/// A lone message from this length on goes over all four streams.
const WIDE_FROM: usize = 192;

/// Computes the tags of up to [`GROUP`] messages under their one-time keys.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
pub fn tags(messages: &[Message<'_>], keys: &[[u8; 32]], tags: &mut [[u8; 16]]) {
    debug_assert!(messages.len() <= GROUP && messages.len() == keys.len() && keys.len() == tags.len());
    if messages.iter().all(|message| message.blocks() <= SHORT) {
        short(messages, keys, tags);
    } else if let [message] = messages
        && message.data.len() >= WIDE_FROM
    {
        tags[0] = wide(message, &keys[0]);
    } else {
        abreast(messages, keys, tags);
    }
}

/// Up to eight messages of at most eight blocks each, with a lane for each
/// message: that takes no powers but r^2, and no sums over lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
fn short(messages: &[Message<'_>], keys: &[[u8; 32]], tags: &mut [[u8; 16]]) {
    let [low, high, s_low, s_high] = columns(&padded(keys));
    let r1 = clamp(low, high);
    let f1 = Factor::new(r1);
    let factors = [Factor::new(r1.times(&f1)), f1];

    let mut blocks = [0; GROUP];
    messages
        .iter()
        .zip(&mut blocks)
        .for_each(|(message, blocks)| *blocks = message.blocks() as i64);
    let longest = blocks.into_iter().max().unwrap_or(0);
    let [a, b, c, d, e, f, g, h] = blocks;
    let blocks = _mm512_setr_epi64(a, b, c, d, e, f, g, h);

    let zero = _mm512_setzero_si512();
    let mut h = Limbs([zero; 3]);
    // Messages end in block 7, so a message of n blocks begins in block 8 - n.
    for number in usize::from(longest <= 4)..2 {
        let mut chunks = [zero; GROUP];
        for (chunk, message) in chunks.iter_mut().zip(messages) {
            *chunk = Stream::new(message, 1, 2, number).edge(0).0;
        }
        let words = transpose(chunks);
        for i in [0, 2] {
            let left = 8 - (4 * number + i) as i64;
            if longest < left - 1 {
                continue;
            }
            let block = |i: usize, left: i64| {
                let begun = _mm512_cmpge_epi64_mask(blocks, _mm512_set1_epi64(left));
                Limbs::split(words[2 * i], words[2 * i + 1], _mm512_maskz_set1_epi64(begun, TOP_BIT))
            };
            h = Limbs::step(h.plus(block(i, left)), block(i + 1, left - 1), &factors);
        }
    }
    tags.copy_from_slice(&finish(h, s_low, s_high)[..tags.len()]);
}

/// Turns eight vectors with eight words each into one vector for every word.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn transpose(x: [__m512i; 8]) -> [__m512i; 8] {
    let low = [0, 2, 4, 6].map(|i| _mm512_unpacklo_epi64(x[i], x[i + 1]));
    let high = [0, 2, 4, 6].map(|i| _mm512_unpackhi_epi64(x[i], x[i + 1]));
    let ([a, c, e, g], [b, d, f, h]) = (transpose_quarters(low), transpose_quarters(high));
    [a, b, c, d, e, f, g, h]
}

/// One long message over all four streams.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
fn wide(message: &Message<'_>, key: &[u8; 32]) -> [u8; 16] {
    // Powers of r: first r^2 and r by lanes 2 2 1 1 2 2 1 1, then 4 4 3 3 2 2 1 1.
    let [low, high, s_low, s_high] = columns(&[*key; GROUP]);
    let r1 = clamp(low, high);
    let r2 = r1.times(&Factor::new(r1));
    let r4 = r1.blend(0x33, r2);
    let r4 = r4.blend(0x0f, r4.times(&Factor::new(r2)));
    let near = r4.blend(0x55, r4.times(&Factor::new(r4.pick([0; 8])))); // 8 4 7 3 6 2 5 1
    let r8 = Factor::new(near.pick([0; 8]));
    let far = near.times(&r8); // 16 12 15 11 14 10 13 9
    let r16 = Factor::new(far.pick([0; 8]));

    let sum = run::<4>([message; 2], &[r16, r8], &[Factor::new(far), Factor::new(near)]);
    finish(sum.total(), s_low, s_high)[0]
}

/// Up to eight messages, two at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
fn abreast(messages: &[Message<'_>], keys: &[[u8; 32]], tags: &mut [[u8; 16]]) {
    // Powers of r, with a lane for every message.
    let [low, high, s_low, s_high] = columns(&padded(keys));
    let r1 = clamp(low, high);
    let f1 = Factor::new(r1);
    let r2 = r1.times(&f1);
    let f2 = Factor::new(r2);
    let r3 = r2.times(&f1);
    let r4 = r2.times(&f2);
    let f4 = Factor::new(r4);
    let [r5, r6, r7, r8] = [r1, r2, r3, r4].map(|r| r.times(&f4));

    let mut sums = [Limbs([_mm512_setzero_si512(); 3]); GROUP / 2];
    for (i, pair) in messages.chunks(2).enumerate() {
        let (a, b) = (2 * i as i64, 2 * i as i64 + 1);
        let both = [a, b, a, b, a, b, a, b];
        let step = [Factor::new(r8.pick(both)), Factor::new(r4.pick(both))];
        let two = [a, b, a + 8, b + 8, a, b, a + 8, b + 8];
        let close = [
            Factor::new(r8.pick2(r7, two).blend(0xf0, r6.pick2(r5, two))),
            Factor::new(r4.pick2(r3, two).blend(0xf0, r2.pick2(r1, two))),
        ];
        // Without a second message the first is repeated; nobody reads its sum.
        sums[i] = run::<2>([&pair[0], &pair[pair.len() - 1]], &step, &close);
    }
    let all = finish(Limbs::gather(sums), s_low, s_high);
    tags.copy_from_slice(&all[..tags.len()]);
}

/// Chunks of a message at a constant distance.
#[derive(Clone, Copy)]
struct Stream<'a> {
    data: &'a [u8],
    last: [u64; 2],
    /// Where in the message the chunk of step 0 begins: maybe before it.
    origin: isize,
    /// From one step to the next.
    stride: isize,
    /// Where the message ends, counting `last`.
    end: isize,
}

impl<'a> Stream<'a> {
    /// Stream `number` of the `streams` that `message` is dealt to.
    #[inline]
    fn new(message: &Message<'a>, steps: usize, streams: usize, number: usize) -> Self {
        let end = 16 * message.blocks() as isize;
        let stride = 64 * streams as isize;
        let origin = end - stride * steps as isize + 64 * number as isize;
        Self {
            data: message.data,
            last: message.last,
            origin,
            stride,
            end,
        }
    }

    /// The chunk of a step in which the message begins or ends, with the mask
    /// of those of its blocks that are part of the message.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn edge(&self, step: usize) -> (__m512i, u32) {
        let at = self.origin + step as isize * self.stride;
        let front = (-at).clamp(0, 64);
        let chunk = load_at(self.data, at);
        let chunk = if at + 64 == self.end {
            let last = _mm_set_epi64x(self.last[1] as i64, self.last[0] as i64);
            _mm512_inserti32x4::<3>(chunk, last)
        } else {
            chunk
        };
        (chunk, 0xf << (front / 16) & 0xf)
    }

    /// The chunk of a step between those in which the message begins and ends.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn whole(&self, step: usize) -> __m512i {
        let at = (self.origin + step as isize * self.stride) as usize;
        load(
            self.data[at..]
                .first_chunk()
                .expect("the chunk lies within the message"),
        )
    }
}

/// Adds up two messages with two streams each, or one message (given twice)
/// with four; `STREAMS` says which. Row 0 of a step is the first two streams,
/// row 1 the others. The lanes are still to be added up.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn run<const STREAMS: usize>(messages: [&Message<'_>; 2], step: &[Factor; 2], close: &[Factor; 2]) -> Limbs {
    let blocks = messages.map(Message::blocks);
    let steps = blocks[0].max(blocks[1]).div_ceil(4 * STREAMS);
    let streams =
        [0, 1, 2, 3].map(|i| Stream::new(messages[i % 2], steps, STREAMS, if STREAMS == 2 { i / 2 } else { i }));
    // Before step `whole` a message has not begun, or begins; in the last step
    // both end.
    let whole = (steps - blocks[0].min(blocks[1]) / (4 * STREAMS)).min(steps - 1);

    let edge = |number: usize, i: usize| {
        let ((a, ma), (b, mb)) = (streams[i].edge(number), streams[i + 1].edge(number));
        let mask = _pdep_u32(ma, 0x55) | _pdep_u32(mb, 0xaa);
        Limbs::of_chunks(a, b, _mm512_maskz_set1_epi64(mask as __mmask8, TOP_BIT))
    };
    let mut h = Limbs([_mm512_setzero_si512(); 3]);
    for number in 0..whole {
        h = Limbs::step(h.plus(edge(number, 0)), edge(number, 2), step);
    }
    let top = _mm512_set1_epi64(TOP_BIT);
    for number in whole..steps - 1 {
        let chunk = streams.map(|stream| stream.whole(number));
        let rows = [0, 2].map(|i| Limbs::of_chunks(chunk[i], chunk[i + 1], top));
        h = Limbs::step(h.plus(rows[0]), rows[1], step);
    }
    Limbs::step(h.plus(edge(steps - 1, 0)), edge(steps - 1, 2), close)
}
