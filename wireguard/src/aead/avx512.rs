//! The lanes of AVX-512 with IFMA and VBMI2. Every function here and below that has `target_feature` names the same set,
//! and is reached only through an [`Avx512`].
#![allow(unsafe_code)]

mod chacha;
mod limbs;
mod poly;

use std::arch::x86_64::*;

use super::batch::{BLOCK, Lanes, Message, PASS, Segment};
use super::{KEY_LENGTH, TAG_LENGTH};

/// From this length on a lone packet fills lanes enough; a shorter one is ring's.
const LONE_FROM: usize = 512;

/// Whether this way is faster than ring.
pub(super) fn pays(mut lengths: impl ExactSizeIterator<Item = usize>) -> bool {
    lengths.len() > 1 || lengths.next().is_some_and(|length| length >= LONE_FROM)
}

/// The proof that the processor has all that this way needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}

impl Lanes for Avx512 {
    #[inline]
    fn keystream(self, segments: &[Segment<'_>], stream: &mut [[u8; BLOCK]; PASS]) {
        // SAFETY: `self` is the proof that the processor has the features.
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
fn add(text: &[u8], stream: &[[u8; BLOCK]], target: &mut [u8]) {
    let (texts, text_rest) = text.as_chunks::<BLOCK>();
    let (targets, target_rest) = target.as_chunks_mut::<BLOCK>();
    for ((text, key), target) in texts.iter().zip(stream).zip(targets) {
        store(target, _mm512_xor_si512(load(text), load(key)));
    }
    if let Some(key) = stream.get(texts.len())
        && !text_rest.is_empty()
    {
        store_front(target_rest, _mm512_xor_si512(load_front(text_rest), load(key)));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
fn add_in_place(stream: &[[u8; BLOCK]], text: &mut [u8]) {
    let (texts, rest) = text.as_chunks_mut::<BLOCK>();
    for (text, key) in texts.iter_mut().zip(stream) {
        store(text, _mm512_xor_si512(load(text), load(key)));
    }
    if let Some(key) = stream.get(texts.len())
        && !rest.is_empty()
    {
        store_front(rest, _mm512_xor_si512(load_front(rest), load(key)));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is as long as the vector, which need not be aligned.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn store(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the array is as long as the vector, which need not be aligned.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// The first 64 of the bytes; zeros where there are fewer.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn load_front(bytes: &[u8]) -> __m512i {
    let mask = _bzhi_u64(!0, bytes.len().min(64) as u32);
    // SAFETY: the mask has as many bits as there are bytes, 64 at most, and what it leaves out is not accessed.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// Stores as much of the vector as there are bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn store_front(bytes: &mut [u8], vector: __m512i) {
    let mask = _bzhi_u64(!0, bytes.len().min(64) as u32);
    // SAFETY: the mask has as many bits as there are bytes, 64 at most, and what it leaves out is not accessed.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// The 64 bytes from `at` on, which may lie before the first or beyond the last: zeros where there are none.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn load_at(bytes: &[u8], at: isize) -> __m512i {
    let front = (-at).clamp(0, 64);
    let end = (bytes.len() as isize - at).clamp(0, 64);
    let mask = _bzhi_u64(!0, end as u32) & !_bzhi_u64(!0, front as u32);
    // SAFETY: the mask has bit i only where byte `at + i` is one of `bytes`; what it leaves out is not accessed, and the
    // pointer, which may lie outside, is made without a promise that it does not.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().wrapping_offset(at).cast()) }
}

/// Transposes four vectors of four 128-bit quarters each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0x44>(c, d));
    let (ef, gh) = (_mm512_shuffle_i64x2::<0xee>(a, b), _mm512_shuffle_i64x2::<0xee>(c, d));
    [
        _mm512_shuffle_i64x2::<0x88>(ab, cd),
        _mm512_shuffle_i64x2::<0xdd>(ab, cd),
        _mm512_shuffle_i64x2::<0x88>(ef, gh),
        _mm512_shuffle_i64x2::<0xdd>(ef, gh),
    ]
}
