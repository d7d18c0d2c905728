//! ChaCha20 keystream, up to 32 blocks a pass, the blocks of any packets mixed.
//!
//! Vector `w` of a state holds word `w` of sixteen blocks, so a round needs no
//! shuffles; a transposition at the end turns sixteen words of sixteen blocks
//! into sixteen blocks of 64 bytes. A pass works on two states at once where
//! there are blocks enough: they fill the 32 registers exactly, and one state
//! alone cannot keep the ports busy, because a rotation takes two cycles.

use std::arch::x86_64::*;

use super::super::batch::{BLOCK, PASS, Segment};
use super::{store, transpose_quarters};

/// How many blocks a state has.
const WIDTH: usize = 16;

const CONSTANTS: [i32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Fills `out` with the blocks of `segments`, in order; what follows them is arbitrary.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
pub fn keystream(segments: &[Segment<'_>], out: &mut [[u8; BLOCK]; PASS]) {
    let blocks: u32 = segments.iter().map(|segment| segment.count).sum();
    if blocks as usize > WIDTH {
        pass::<2>(segments, out);
    } else {
        pass::<1>(segments, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn pass<const STATES: usize>(segments: &[Segment<'_>], out: &mut [[u8; BLOCK]; PASS]) {
    let start: [State; STATES] = initial_states(segments);
    let mut x = start;
    for _ in 0..10 {
        round(&mut x);
        x = x.map(turn::<1, 2, 3>);
        round(&mut x);
        x = x.map(turn::<3, 2, 1>);
    }
    for (i, out) in out.chunks_mut(WIDTH).enumerate().take(STATES) {
        let words = core::array::from_fn(|w| _mm512_add_epi32(x[i][w / 4][w % 4], start[i][w / 4][w % 4]));
        for (block, bytes) in transpose(words).into_iter().zip(out) {
            store(bytes, block);
        }
    }
}

/// The four rows of a state, of four words each.
type State = [[__m512i; 4]; 4];

/// Spreads every segment's key, counter and nonce over that segment's lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn initial_states<const STATES: usize>(segments: &[Segment<'_>]) -> [State; STATES] {
    let zero = _mm512_setzero_si512();
    // The words 4 to 15, but for the nonce's first, which stays zero.
    let mut words = [[zero; 12]; STATES];
    let mut lane = 0;
    for segment in segments {
        let lanes = ((1u64 << segment.count) - 1) << lane;
        for (i, words) in words.iter_mut().enumerate() {
            let mask = (lanes >> (WIDTH * i)) as __mmask16;
            if mask == 0 {
                continue;
            }
            let spread = |old: &mut __m512i, word: u32| *old = _mm512_mask_set1_epi32(*old, mask, word as i32);
            for (word, bytes) in words.iter_mut().zip(segment.key.as_chunks().0) {
                spread(word, u32::from_le_bytes(*bytes));
            }
            spread(&mut words[8], segment.first.wrapping_sub(lane));
            spread(&mut words[10], segment.counter as u32);
            spread(&mut words[11], (segment.counter >> 32) as u32);
        }
        lane += segment.count;
    }
    let number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    core::array::from_fn(|i| {
        let [k0, k1, k2, k3, k4, k5, k6, k7, counter, n0, n1, n2] = words[i];
        let number = _mm512_add_epi32(number, _mm512_set1_epi32((WIDTH * i) as i32));
        let counter = _mm512_add_epi32(counter, number);
        [
            CONSTANTS.map(|c| _mm512_set1_epi32(c)),
            [k0, k1, k2, k3],
            [k4, k5, k6, k7],
            [counter, n0, n1, n2],
        ]
    })
}

/// Four quarter rounds of every state, on the columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn round<const STATES: usize>(x: &mut [State; STATES]) {
    step::<STATES, 0, 1, 3, 16>(x);
    step::<STATES, 2, 3, 1, 12>(x);
    step::<STATES, 0, 1, 3, 8>(x);
    step::<STATES, 2, 3, 1, 7>(x);
}

/// A quarter of a quarter round, of all columns: `a += b; d = (d ^ a) <<< n`.
///
/// The columns go abreast, but in two halves: while the rotations of one half
/// keep their two ports busy, the other half's additions go to other ports.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn step<const STATES: usize, const A: usize, const B: usize, const D: usize, const N: i32>(x: &mut [State; STATES]) {
    for half in [[0, 1], [2, 3]] {
        for i in half {
            for x in &mut *x {
                x[A][i] = _mm512_add_epi32(x[A][i], x[B][i]);
            }
        }
        for i in half {
            for x in &mut *x {
                x[D][i] = _mm512_xor_si512(x[D][i], x[A][i]);
            }
        }
        for i in half {
            for x in &mut *x {
                x[D][i] = _mm512_rol_epi32::<N>(x[D][i]);
            }
        }
    }
}

/// Turns the lower rows by so many words, to bring diagonals into columns or
/// back. That only renames registers.
#[inline]
fn turn<const B: usize, const C: usize, const D: usize>([a, b, c, d]: State) -> State {
    let by = |x: [__m512i; 4], n: usize| [x[n % 4], x[(n + 1) % 4], x[(n + 2) % 4], x[(n + 3) % 4]];
    [a, by(b, B), by(c, C), by(d, D)]
}

/// Turns sixteen vectors of one word each into sixteen blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn transpose(x: [__m512i; 16]) -> [__m512i; WIDTH] {
    let mut y = x;
    // Within every 128-bit quarter: four words of one block side by side.
    // Afterwards quarter q of y[4g + j] has words 4g..4g+4 of block 4q + j.
    for g in [0, 4, 8, 12] {
        let (a, b, c, d) = (x[g], x[g + 1], x[g + 2], x[g + 3]);
        let ab = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
        let cd = [_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d)];
        for i in 0..2 {
            y[g + 2 * i] = _mm512_unpacklo_epi64(ab[i], cd[i]);
            y[g + 2 * i + 1] = _mm512_unpackhi_epi64(ab[i], cd[i]);
        }
    }
    // Then the quarters, for every j.
    let mut z = y;
    for j in 0..4 {
        [z[j], z[4 + j], z[8 + j], z[12 + j]] = transpose_quarters([y[j], y[4 + j], y[8 + j], y[12 + j]]);
    }
    z
}
