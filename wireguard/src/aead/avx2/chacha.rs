//! ChaCha20 keystream, eight blocks at a time, of any packets.
//!
//! Vector `w` of a state holds word `w` of eight blocks, so a round needs no shuffles; transpositions bring the keys in
//! and the blocks out. One state fills the 16 registers.

use std::arch::x86_64::*;

use super::super::batch::{BLOCK, PASS, Segment};
use super::{load, load_words, store};

/// How many blocks a state has.
const WIDTH: usize = 8;
/// "expand 32-byte k" (RFC 8439, 2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The words of eight blocks: row after row, column after column.
type State = [__m256i; 16];

/// Fills `out` with the blocks of `segments`, in order; what follows them is arbitrary.
#[target_feature(enable = "avx2")]
pub fn keystream(segments: &[Segment<'_>], out: &mut [[u8; BLOCK]; PASS]) {
    let mut blocks = segments
        .iter()
        .flat_map(|segment| (segment.first..segment.first + segment.count).map(move |number| (segment, number)))
        .peekable();
    for out in out.as_chunks_mut::<WIDTH>().0 {
        if blocks.peek().is_none() {
            break;
        }
        // Lanes without a block repeat the constant key's; nobody reads theirs.
        let mut keys = [Segment::NONE.key; WIDTH];
        let mut tails = [[0; WIDTH]; 4];
        for (lane, (segment, number)) in blocks.by_ref().take(WIDTH).enumerate() {
            keys[lane] = segment.key;
            tails[0][lane] = number;
            tails[2][lane] = segment.counter as u32;
            tails[3][lane] = (segment.counter >> 32) as u32;
        }
        pass(keys, &tails, out);
    }
}

/// Makes eight blocks: of each lane's key, block number and nonce.
#[target_feature(enable = "avx2")]
#[inline]
fn pass(keys: [&[u8; 32]; WIDTH], tails: &[[u32; WIDTH]; 4], out: &mut [[u8; BLOCK]; WIDTH]) {
    let [a, b, c, d] = CONSTANTS.map(|word| _mm256_set1_epi32(word as i32));
    let [k0, k1, k2, k3, k4, k5, k6, k7] = transpose(keys.map(|key| load(key)));
    let [n0, n1, n2, n3] = [0, 1, 2, 3].map(|i| load_words(&tails[i]));
    let start = [a, b, c, d, k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, n3];
    let mut x = start;
    for _ in 0..10 {
        round(&mut x, [0, 1, 2, 3]);
        round(&mut x, [1, 2, 3, 0]);
    }
    let words: State = std::array::from_fn(|w| _mm256_add_epi32(x[w], start[w]));
    let (halves, _) = words.as_chunks::<8>();
    let [front, back] = [0, 1].map(|i| transpose(halves[i]));
    for (block, (front, back)) in out.iter_mut().zip(front.into_iter().zip(back)) {
        let (halves, _) = block.as_chunks_mut::<32>();
        store(&mut halves[0], front);
        store(&mut halves[1], back);
    }
}

/// Four quarter rounds: of the columns when `turn` counts from 0, and when it counts from 1 of the diagonals, where row
/// r is turned by r columns.
#[target_feature(enable = "avx2")]
#[inline]
fn round(x: &mut State, turn: [usize; 4]) {
    let by = turn[0];
    let words = |row: usize| [0, 1, 2, 3].map(|column| 4 * row + (column + row * by) % 4);
    let [a, b, c, d] = [0, 1, 2, 3].map(words);
    step::<16>(x, a, b, d);
    step::<12>(x, c, d, b);
    step::<8>(x, a, b, d);
    step::<7>(x, c, d, b);
}

/// A quarter of a quarter round, of all columns: `a += b; d = (d ^ a) <<< N`.
#[target_feature(enable = "avx2")]
#[inline]
fn step<const N: i32>(x: &mut State, a: [usize; 4], b: [usize; 4], d: [usize; 4]) {
    for i in 0..4 {
        x[a[i]] = _mm256_add_epi32(x[a[i]], x[b[i]]);
    }
    for i in 0..4 {
        x[d[i]] = rotate::<N>(_mm256_xor_si256(x[d[i]], x[a[i]]));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn rotate<const N: i32>(x: __m256i) -> __m256i {
    // Whole bytes move in one instruction.
    let bytes = |low: i64, high: i64| _mm256_shuffle_epi8(x, _mm256_setr_epi64x(low, high, low, high));
    match N {
        16 => bytes(0x0504_0706_0100_0302, 0x0d0c_0f0e_0908_0b0a),
        8 => bytes(0x0605_0407_0201_0003, 0x0e0d_0c0f_0a09_080b),
        _ => {
            let (left, right) = (_mm_cvtsi32_si128(N), _mm_cvtsi32_si128(32 - N));
            _mm256_or_si256(_mm256_sll_epi32(x, left), _mm256_srl_epi32(x, right))
        }
    }
}

/// Transposes eight vectors of eight words each.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose(x: [__m256i; 8]) -> [__m256i; 8] {
    // Within each half: quarter i of vector j gets words 4i..4i+4 of the columns.
    let pairs = [0, 2, 4, 6].map(|i| {
        [
            _mm256_unpacklo_epi32(x[i], x[i + 1]),
            _mm256_unpackhi_epi32(x[i], x[i + 1]),
        ]
    });
    let quads = |a: [__m256i; 2], b: [__m256i; 2]| {
        [
            _mm256_unpacklo_epi64(a[0], b[0]),
            _mm256_unpackhi_epi64(a[0], b[0]),
            _mm256_unpacklo_epi64(a[1], b[1]),
            _mm256_unpackhi_epi64(a[1], b[1]),
        ]
    };
    let (front, back) = (quads(pairs[0], pairs[1]), quads(pairs[2], pairs[3]));
    // Then the halves.
    std::array::from_fn(|i| match i {
        0..4 => _mm256_permute2x128_si256::<0x20>(front[i], back[i]),
        _ => _mm256_permute2x128_si256::<0x31>(front[i - 4], back[i - 4]),
    })
}
