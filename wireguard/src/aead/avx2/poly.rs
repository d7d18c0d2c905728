//! Poly1305 of four messages side by side, a 64-bit lane each, in radix 2^26.
//!
//! Messages are aligned to their *end*: a step takes two blocks of each, and a shorter message joins later, with blocks
//! that add nothing before it begins. Writing h for the sum so far, a step is h = (h + block) r^2 + (next block) r, with
//! one carry for both products.

use std::arch::x86_64::*;

use super::super::batch::Message;
use super::{load, multiply};

/// How many messages go abreast.
const WIDTH: usize = 4;
const MASK_26: u64 = (1 << 26) - 1;
/// The bit 2^128 of a block, in the fifth limb.
const TOP_BIT: i64 = 1 << 24;

/// Computes the tags of messages under their one-time keys.
#[target_feature(enable = "avx2")]
pub fn tags(messages: &[Message<'_>], keys: &[[u8; 32]], tags: &mut [[u8; 16]]) {
    debug_assert!(messages.len() == keys.len() && keys.len() == tags.len());
    for ((messages, keys), tags) in messages
        .chunks(WIDTH)
        .zip(keys.chunks(WIDTH))
        .zip(tags.chunks_mut(WIDTH))
    {
        // Lanes without a message sum up nothing; nobody reads theirs.
        let (mut four, mut four_keys) = ([Message::EMPTY; WIDTH], [&[0; 32]; WIDTH]);
        four.iter_mut().zip(messages).for_each(|(to, from)| *to = *from);
        four_keys.iter_mut().zip(keys).for_each(|(to, from)| *to = from);
        let shortest = messages.iter().map(Message::blocks).min().unwrap_or(0);
        let sums = sum(&four, &four_keys, shortest);
        for (i, (tag, key)) in tags.iter_mut().zip(keys).enumerate() {
            *tag = finish(sums.map(|limb| limb[i]), key);
        }
    }
}

/// Sums up four messages: the limbs, of all lanes each. None of those that count has less than `shortest` blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn sum(messages: &[Message<'_>; WIDTH], keys: &[&[u8; 32]; WIDTH], shortest: usize) -> [[u64; WIDTH]; 5] {
    let [low, high, ..] = transpose(keys.map(|key| load(key)));
    let r = Limbs::split(
        _mm256_and_si256(low, _mm256_set1_epi64x(0x0fff_fffc_0fff_ffff)),
        _mm256_and_si256(high, _mm256_set1_epi64x(0x0fff_fffc_0fff_fffc)),
        _mm256_setzero_si256(),
    );
    let near = Factor::new(r);
    let far = Factor::new(Limbs::carry(r.times(&near)));

    let steps = messages.iter().map(Message::blocks).max().unwrap_or(0).div_ceil(2);
    // Before step `whole` a message has not begun, or begins; in the last step all end.
    let whole = (steps - shortest / 2).min(steps - 1);
    let mut h = Limbs([_mm256_setzero_si256(); 5]);
    for left in (steps - whole + 1..=steps).rev() {
        h = h.edge(messages, left, &far, &near);
    }
    for left in (2..=steps - whole).rev() {
        let words = transpose(messages.each_ref().map(|message| match chunk(message, left) {
            Some(chunk) => load(chunk),
            None => _mm256_setzero_si256(), // of a lane without a message
        }));
        h = h.step(words, [_mm256_set1_epi64x(TOP_BIT); 2], &far, &near);
    }
    let Limbs(limbs) = h.edge(messages, 1, &far, &near);
    limbs.map(|limb| {
        [
            _mm256_extract_epi64::<0>(limb) as u64,
            _mm256_extract_epi64::<1>(limb) as u64,
            _mm256_extract_epi64::<2>(limb) as u64,
            _mm256_extract_epi64::<3>(limb) as u64,
        ]
    })
}

/// The two blocks of a message that have `left` steps to go, this one counted, if it is neither the first nor the last.
#[inline(always)]
fn chunk<'a>(message: &Message<'a>, left: usize) -> Option<&'a [u8; 32]> {
    let at = (16 * message.blocks()).checked_sub(32 * left)?;
    message.data.get(at..)?.first_chunk()
}

/// The two blocks of a step in which a message has not begun, or begins or ends; and the top bits of those that are part
/// of the message.
fn edge(message: &Message<'_>, left: usize) -> ([u8; 32], [i64; 2]) {
    let (mut bytes, mut tops) = ([0; 32], [0; 2]);
    // The place of this step's first byte in the message, and of the message's first byte in this step.
    let end = 16 * message.blocks();
    let (at, begin) = (end.saturating_sub(32 * left), (32 * left).saturating_sub(end).min(32));
    let data = message.data.get(at..).unwrap_or_default();
    let data = &data[..data.len().min(32 - begin)];
    bytes[begin..begin + data.len()].copy_from_slice(data);
    if left == 1 {
        bytes[16..24].copy_from_slice(&message.last[0].to_le_bytes());
        bytes[24..].copy_from_slice(&message.last[1].to_le_bytes());
    }
    for (i, top) in tops.iter_mut().enumerate() {
        *top = if 16 * i >= begin { TOP_BIT } else { 0 };
    }
    (bytes, tops)
}

/// Four numbers modulo 2^130 - 5, in limbs of 26 bits. A limb may run over by a bit.
#[derive(Clone, Copy)]
struct Limbs([__m256i; 5]);

/// Four multipliers: the limbs, and five times those but the first.
#[derive(Clone, Copy)]
struct Factor {
    r: [__m256i; 5],
    s: [__m256i; 5],
}

impl Factor {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(Limbs(r): Limbs) -> Self {
        Self {
            r,
            s: r.map(|x| _mm256_add_epi64(x, _mm256_slli_epi64::<2>(x))),
        }
    }
}

impl Limbs {
    /// Splits 128-bit numbers into limbs.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn split(low: __m256i, high: __m256i, top: __m256i) -> Self {
        let mask = _mm256_set1_epi64x(MASK_26 as i64);
        let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
        Self([
            _mm256_and_si256(low, mask),
            _mm256_and_si256(_mm256_srli_epi64::<26>(low), mask),
            _mm256_and_si256(middle, mask),
            _mm256_and_si256(_mm256_srli_epi64::<14>(high), mask),
            _mm256_or_si256(_mm256_srli_epi64::<40>(high), top),
        ])
    }

    /// Two blocks more: `(self + first) far + second near`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn step(self, words: [__m256i; 4], tops: [__m256i; 2], far: &Factor, near: &Factor) -> Self {
        let first = Self::split(words[0], words[1], tops[0]);
        let second = Self::split(words[2], words[3], tops[1]).times(near);
        let sum = Self([0, 1, 2, 3, 4].map(|i| _mm256_add_epi64(self.0[i], first.0[i])));
        let product = sum.times(far);
        Self::carry([0, 1, 2, 3, 4].map(|i| _mm256_add_epi64(product[i], second[i])))
    }

    /// A step in which messages begin or end.
    #[target_feature(enable = "avx2")]
    fn edge(self, messages: &[Message<'_>; WIDTH], left: usize, far: &Factor, near: &Factor) -> Self {
        let [a, b, c, d] = messages.each_ref().map(|message| edge(message, left));
        let words = transpose([&a, &b, &c, &d].map(|(bytes, _)| load(bytes)));
        let tops = [0, 1].map(|i| _mm256_setr_epi64x(a.1[i], b.1[i], c.1[i], d.1[i]));
        self.step(words, tops, far, near)
    }

    /// The limbs of the product, before carrying. Limb i has h[j] r[i - j], and five times what wraps round. It is
    /// written out, since LLVM leaves a loop over it a loop, twice as slow.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn times(self, factor: &Factor) -> [__m256i; 5] {
        let Self([h0, h1, h2, h3, h4]) = self;
        let ([r0, r1, r2, r3, r4], [_, s1, s2, s3, s4]) = (factor.r, factor.s);
        let row = |r: [__m256i; 5]| {
            let (a, b) = (multiply(h0, r[0]), multiply(h1, r[1]));
            let (c, d) = (multiply(h2, r[2]), multiply(h3, r[3]));
            let sum = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
            _mm256_add_epi64(sum, multiply(h4, r[4]))
        };
        [
            row([r0, s4, s3, s2, s1]),
            row([r1, r0, s4, s3, s2]),
            row([r2, r1, r0, s4, s3]),
            row([r3, r2, r1, r0, s4]),
            row([r4, r3, r2, r1, r0]),
        ]
    }

    /// Brings the limbs back to their sizes.
    ///
    /// With limbs below 2^27 + 2^11 (a sum and a block) times limbs below 2^26 + 2^11, five times those, ten products
    /// stay below 2^59; what is carried from the top, five times over, is below 2^36; and what is left over above 26
    /// bits, in the second limb and the fifth, is below 2^11.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn carry([d0, d1, d2, d3, d4]: [__m256i; 5]) -> Self {
        let mask = _mm256_set1_epi64x(MASK_26 as i64);
        let carry = |from, to| {
            (
                _mm256_and_si256(from, mask),
                _mm256_add_epi64(to, _mm256_srli_epi64::<26>(from)),
            )
        };
        let ((d0, d1), (d3, d4)) = (carry(d0, d1), carry(d3, d4));
        let (d1, d2) = carry(d1, d2);
        // 2^130 is 5.
        let over = _mm256_srli_epi64::<26>(d4);
        let d0 = _mm256_add_epi64(d0, _mm256_add_epi64(over, _mm256_slli_epi64::<2>(over)));
        let d4 = _mm256_and_si256(d4, mask);
        let ((d2, d3), (d0, d1)) = (carry(d2, d3), carry(d0, d1));
        let (d3, d4) = carry(d3, d4);
        Self([d0, d1, d2, d3, d4])
    }
}

/// Transposes four vectors of four 64-bit words each.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) = (_mm256_unpacklo_epi64(a, b), _mm256_unpacklo_epi64(c, d));
    let (ef, gh) = (_mm256_unpackhi_epi64(a, b), _mm256_unpackhi_epi64(c, d));
    [
        _mm256_permute2x128_si256::<0x20>(ab, cd),
        _mm256_permute2x128_si256::<0x20>(ef, gh),
        _mm256_permute2x128_si256::<0x31>(ab, cd),
        _mm256_permute2x128_si256::<0x31>(ef, gh),
    ]
}

/// Reduces a sum completely and adds the second half of the key.
///
/// Nothing here overflows, and `wrapping_` says so to builds that check: their branches would depend on secrets.
#[inline]
fn finish(mut h: [u64; 5], key: &[u8; 32]) -> [u8; 16] {
    let carry = |h: &mut [u64; 5]| {
        for i in 0..4 {
            h[i + 1] = h[i + 1].wrapping_add(h[i] >> 26);
            h[i] &= MASK_26;
        }
    };
    for _ in 0..2 {
        carry(&mut h);
        h[0] = h[0].wrapping_add((h[4] >> 26).wrapping_mul(5)); // 2^130 is 5
        h[4] &= MASK_26;
    }
    carry(&mut h);
    // h + 5 has the bit 2^130 if and only if h is not below the modulus.
    let mut g = h;
    g[0] = g[0].wrapping_add(5);
    carry(&mut g);
    let above = 0u64.wrapping_sub(g[4] >> 26);
    let sum = (0..5).fold(0u128, |sum, i| {
        let limb = (g[i] & above) | (h[i] & !above);
        sum | u128::from(limb & MASK_26) << (26 * i)
    });
    let (_, half) = key.split_at(16);
    let pad = half.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
    sum.wrapping_add(pad).to_le_bytes()
}
