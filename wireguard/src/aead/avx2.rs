//! The lanes of AVX2. Every function here and below that has `target_feature` names it, and is reached only through an
//! [`Avx2`].
#![allow(unsafe_code)]

mod chacha;
mod poly;

use std::arch::asm;
use std::arch::x86_64::*;

use super::batch::{BLOCK, Lanes, Message, PASS, Segment};
use super::{KEY_LENGTH, TAG_LENGTH};

/// From so many packets on, of so many bytes at most on average, this way is faster than ring, which interleaves both
/// primitives in AVX2 and is as good where packets are long.
const FEWEST: usize = 3;
const LONGEST_MEAN: usize = 600;

/// Whether this way is faster than ring.
pub(super) fn pays(lengths: impl ExactSizeIterator<Item = usize>) -> bool {
    let count = lengths.len();
    count >= FEWEST && lengths.sum::<usize>() <= LONGEST_MEAN * count
}

/// The proof that the processor has AVX2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Lanes for Avx2 {
    #[inline]
    fn keystream(self, segments: &[Segment<'_>], stream: &mut [[u8; BLOCK]; PASS]) {
        // SAFETY: `self` is the proof that the processor has the feature.
        unsafe { chacha::keystream(segments, stream) }
    }

    #[inline]
    fn tags(self, messages: &[Message<'_>], keys: &[[u8; KEY_LENGTH]], tags: &mut [[u8; TAG_LENGTH]]) {
        // SAFETY: as above.
        unsafe { poly::tags(messages, keys, tags) }
    }

    #[inline]
    fn add(self, text: &[u8], stream: &[[u8; BLOCK]], target: &mut [u8]) {
        // SAFETY: as above.
        unsafe { add(text, stream, target) }
    }

    #[inline]
    fn add_in_place(self, stream: &[[u8; BLOCK]], text: &mut [u8]) {
        // SAFETY: as above.
        unsafe { add_in_place(stream, text) }
    }
}

#[target_feature(enable = "avx2")]
fn add(text: &[u8], stream: &[[u8; BLOCK]], target: &mut [u8]) {
    for ((target, text), key) in target.iter_mut().zip(text).zip(stream.as_flattened()) {
        *target = text ^ key;
    }
}

#[target_feature(enable = "avx2")]
fn add_in_place(stream: &[[u8; BLOCK]], text: &mut [u8]) {
    for (byte, key) in text.iter_mut().zip(stream.as_flattened()) {
        *byte ^= key;
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array is as long as the vector, which need not be aligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_words(words: &[u32; 8]) -> __m256i {
    // SAFETY: as above.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(bytes: &mut [u8; 32], vector: __m256i) {
    // SAFETY: as above.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

/// The products of the low halves of 64-bit words. LLVM takes `_mm256_mul_epu32` for a product of whole words and, where
/// it cannot see that their high halves are zero, as with factors made before a loop, adds two products that are.
#[target_feature(enable = "avx2")]
#[inline]
fn multiply(a: __m256i, b: __m256i) -> __m256i {
    let product;
    // SAFETY: the instruction is of AVX2, reads two registers and writes one.
    unsafe {
        asm!(
            "vpmuludq {}, {}, {}", out(ymm_reg) product, in(ymm_reg) a, in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    product
}
