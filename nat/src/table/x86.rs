//! The lanes of x86-64 with AES: with AVX-512, and with AVX2.
#![allow(unsafe_code)]

use super::hash::Seed;
use super::lanes::Lanes;
use crate::key::Key;
use std::arch::x86_64::*;

/// The proof that the processor has AES and AVX-512 with byte and word operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

/// The proof that the processor has AES and AVX2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx512 {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self(()))
    }
}

impl Avx2 {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("aes") && is_x86_feature_detected!("avx2");
        has.then_some(Self(()))
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn hash(self, seed: &Seed, key: &Key) -> u64 {
        // SAFETY: `self` is the proof that the processor has the feature.
        unsafe { aes(seed, key) }
    }

    #[inline(always)]
    fn equal(self, tags: [u64; 4], tag: u16) -> u32 {
        // SAFETY: as above.
        unsafe { equal_mask(tags, tag) }
    }

    #[inline(always)]
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "aes,avx2,avx512f,avx512bw,avx512vl")]
        fn inside<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: as above.
        unsafe { inside(work) }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn hash(self, seed: &Seed, key: &Key) -> u64 {
        // SAFETY: `self` is the proof that the processor has the feature.
        unsafe { aes(seed, key) }
    }

    #[inline(always)]
    fn equal(self, tags: [u64; 4], tag: u16) -> u32 {
        // SAFETY: as above.
        unsafe { equal_bytes(tags, tag) }
    }

    #[inline(always)]
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "aes,avx2")]
        fn inside<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: as above.
        unsafe { inside(work) }
    }
}

/// Two AES rounds on each block under its own keys, their sum, two rounds more.
///
/// Two rounds leave at least five active S-boxes for any difference, so two keys made to collide without knowing the
/// seed do so with a chance of about 2^-30; one round a block would leave 2^-7.
#[target_feature(enable = "aes")]
#[inline]
fn aes(seed: &Seed, key: &Key) -> u64 {
    let block = |[low, high]: [u64; 2]| _mm_set_epi64x(high.cast_signed(), low.cast_signed());
    let k = seed.rounds.map(block);
    let [a, b, c, d, e] = key.0;
    let two = |words, whiten, first, second| {
        _mm_aesenc_si128(_mm_aesenc_si128(_mm_xor_si128(block(words), whiten), first), second)
    };
    let x = two([a, b], k[0], k[3], k[4]);
    let y = two([c, d], k[1], k[4], k[5]);
    let z = two([e, 0], k[2], k[5], k[3]);
    let sum = _mm_xor_si128(_mm_xor_si128(x, y), z);
    _mm_cvtsi128_si64(_mm_aesenc_si128(_mm_aesenc_si128(sum, k[0]), k[1])).cast_unsigned()
}

#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
fn equal_mask(tags: [u64; 4], tag: u16) -> u32 {
    let [a, b, c, d] = tags.map(u64::cast_signed);
    let line = _mm256_set_epi64x(d, c, b, a);
    u32::from(_mm256_cmpeq_epi16_mask(line, _mm256_set1_epi16(tag.cast_signed())))
}

#[target_feature(enable = "avx2")]
#[inline]
fn equal_bytes(tags: [u64; 4], tag: u16) -> u32 {
    let [a, b, c, d] = tags.map(u64::cast_signed);
    let equal = _mm256_cmpeq_epi16(_mm256_set_epi64x(d, c, b, a), _mm256_set1_epi16(tag.cast_signed()));
    // All ones or zero in a lane survive the packing to bytes, of which one instruction takes the upper bits.
    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(equal), _mm256_extracti128_si256::<1>(equal));
    _mm_movemask_epi8(bytes).cast_unsigned()
}
