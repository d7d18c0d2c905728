//! Arithmetic modulo 2^130 - 5, eight numbers at a time, in limbs of 44, 44 and 42 bits.

use std::arch::x86_64::*;

use super::super::batch::GROUP;
use super::{load, store};

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;
/// The bit 2^128 of a block, in the third limb.
pub const TOP_BIT: i64 = 1 << 40;

/// Eight numbers modulo 2^130 - 5, in limbs of 44, 44 and 42 bits. A limb may
/// run over by a bit or two.
#[derive(Clone, Copy)]
pub struct Limbs(pub [__m512i; 3]);

/// Eight multipliers: the limbs, and 20 times the second and the third.
#[derive(Clone, Copy)]
pub struct Factor {
    r: [__m512i; 3],
    s: [__m512i; 2],
}

impl Factor {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn new(r: Limbs) -> Self {
        let times_20 = |x| _mm512_add_epi64(_mm512_slli_epi64::<4>(x), _mm512_slli_epi64::<2>(x));
        Self {
            r: r.0,
            s: [times_20(r.0[1]), times_20(r.0[2])],
        }
    }
}

impl Limbs {
    /// Splits 128-bit numbers into limbs.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn split(low: __m512i, high: __m512i, top: __m512i) -> Self {
        let mask = _mm512_set1_epi64(MASK_44 as i64);
        Self([
            _mm512_and_si512(low, mask),
            _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), top),
        ])
    }

    /// The blocks of two chunks, alternating.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn of_chunks(a: __m512i, b: __m512i, top: __m512i) -> Self {
        Self::split(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b), top)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn plus(self, other: Self) -> Self {
        Self([0, 1, 2].map(|i| _mm512_add_epi64(self.0[i], other.0[i])))
    }

    /// The product.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn times(self, factor: &Factor) -> Self {
        let zero = _mm512_setzero_si512();
        self.multiply(factor, ([zero; 3], [zero; 3])).carry()
    }

    /// `a` times the first factor, plus `b` times the second.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn step(a: Self, b: Self, factors: &[Factor; 2]) -> Self {
        let zero = _mm512_setzero_si512();
        // `a` hangs on the step before, so it comes last.
        let Product(low, high) = b.multiply(&factors[1], ([zero; 3], [zero; 3]));
        a.multiply(&factors[0], (low, high)).carry()
    }

    /// Adds the product to `low` and `high`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn multiply(self, factor: &Factor, (mut low, mut high): ([__m512i; 3], [__m512i; 3])) -> Product {
        let ([h0, h1, h2], [r0, r1, r2], [s1, s2]) = (self.0, factor.r, factor.s);
        for (h, r) in [(h2, [s1, s2, r0]), (h0, [r0, r1, r2]), (h1, [s2, r0, r1])] {
            for i in 0..3 {
                low[i] = _mm512_madd52lo_epu64(low[i], h, r[i]);
                high[i] = _mm512_madd52hi_epu64(high[i], h, r[i]);
            }
        }
        Product(low, high)
    }

    /// The lanes of `other` where `mask` has a bit, one's own elsewhere.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn blend(self, mask: __mmask8, other: Self) -> Self {
        Self([0, 1, 2].map(|i| _mm512_mask_blend_epi64(mask, self.0[i], other.0[i])))
    }

    /// The lanes at `index`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn pick(self, [a, b, c, d, e, f, g, h]: [i64; 8]) -> Self {
        let index = _mm512_setr_epi64(a, b, c, d, e, f, g, h);
        Self(self.0.map(|x| _mm512_permutexvar_epi64(index, x)))
    }

    /// The lanes at `index`, where those of `other` are 8 to 15.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn pick2(self, other: Self, [a, b, c, d, e, f, g, h]: [i64; 8]) -> Self {
        let index = _mm512_setr_epi64(a, b, c, d, e, f, g, h);
        Self([0, 1, 2].map(|i| _mm512_permutex2var_epi64(self.0[i], index, other.0[i])))
    }

    /// The sum of all lanes, in every lane.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn total(self) -> Self {
        Self(self.0.map(|x| {
            let x = _mm512_add_epi64(x, _mm512_shuffle_i64x2::<0x4e>(x, x));
            let x = _mm512_add_epi64(x, _mm512_shuffle_i64x2::<0xb1>(x, x));
            _mm512_add_epi64(x, _mm512_permutex_epi64::<0xb1>(x))
        }))
    }

    /// The sums of the even and of the odd lanes of the first, of the second,
    /// and so on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub fn gather(from: [Self; GROUP / 2]) -> Self {
        Self([0, 1, 2].map(|i| {
            let [a, b, c, d] = from.map(|limbs| limbs.0[i]);
            // Halves, then quarters of 128 bits.
            let halves =
                |a, b| _mm512_add_epi64(_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
            let (ab, cd) = (halves(a, b), halves(c, d));
            _mm512_add_epi64(
                _mm512_shuffle_i64x2::<0x88>(ab, cd),
                _mm512_shuffle_i64x2::<0xdd>(ab, cd),
            )
        }))
    }
}

/// Three sums of low halves of products, and three of high halves, which count
/// 2^52 times as much.
#[derive(Clone, Copy)]
struct Product([__m512i; 3], [__m512i; 3]);

impl Product {
    /// Brings the limbs back to their sizes.
    ///
    /// With limbs below 2^45, even two products have low halves that add up to
    /// less than 2^55 and high halves to less than 2^42 (the last, which is
    /// not multiplied by 20, to less than 2^39), so nothing here overflows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn carry(self) -> Limbs {
        let Self([low0, low1, low2], [high0, high1, high2]) = self;
        let mask_44 = _mm512_set1_epi64(MASK_44 as i64);
        let mask_42 = _mm512_set1_epi64(MASK_42 as i64);
        // 2^52 is 2^8 or 2^10 of the next limb.
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low0), _mm512_slli_epi64::<8>(high0));
        let low1 = _mm512_add_epi64(low1, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low1), _mm512_slli_epi64::<8>(high1));
        let low2 = _mm512_add_epi64(low2, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(low2), _mm512_slli_epi64::<10>(high2));
        // 2^130 is 5.
        let low0 = _mm512_madd52lo_epu64(_mm512_and_si512(low0, mask_44), carry, _mm512_set1_epi64(5));
        let low1 = _mm512_add_epi64(_mm512_and_si512(low1, mask_44), _mm512_srli_epi64::<44>(low0));
        Limbs([_mm512_and_si512(low0, mask_44), low1, _mm512_and_si512(low2, mask_42)])
    }
}

pub fn padded(keys: &[[u8; 32]]) -> [[u8; 32]; GROUP] {
    let mut all = [[0; 32]; GROUP];
    all[..keys.len()].copy_from_slice(keys);
    all
}

/// The 64-bit words of eight one-time keys: a vector for the first words of
/// all, and so on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
pub fn columns(keys: &[[u8; 32]; GROUP]) -> [__m512i; 4] {
    let (pairs, _) = keys.as_flattened().as_chunks::<64>();
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| load(&pairs[i]));
    let (front, back) = (
        _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13),
        _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15),
    );
    let [ab, cd] = [(a, b), (c, d)].map(|(x, y)| [front, back].map(|index| _mm512_permutex2var_epi64(x, index, y)));
    [
        _mm512_shuffle_i64x2::<0x44>(ab[0], cd[0]),
        _mm512_shuffle_i64x2::<0xee>(ab[0], cd[0]),
        _mm512_shuffle_i64x2::<0x44>(ab[1], cd[1]),
        _mm512_shuffle_i64x2::<0xee>(ab[1], cd[1]),
    ]
}

/// The multipliers that the first halves of the keys stand for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
pub fn clamp(low: __m512i, high: __m512i) -> Limbs {
    Limbs::split(
        _mm512_and_si512(low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff)),
        _mm512_and_si512(high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc)),
        _mm512_setzero_si512(),
    )
}

/// Reduces the sums completely and adds the second halves of the keys.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
pub fn finish(sums: Limbs, s_low: __m512i, s_high: __m512i) -> [[u8; 16]; GROUP] {
    let (add, and, mask_44) = (_mm512_add_epi64, _mm512_and_si512, _mm512_set1_epi64(MASK_44 as i64));
    let [h0, h1, h2] = sums.0;
    let h1 = add(h1, _mm512_srli_epi64::<44>(h0));
    let h2 = add(h2, _mm512_srli_epi64::<44>(h1));
    let over = _mm512_srli_epi64::<42>(h2);
    let h0 = add(and(h0, mask_44), add(over, _mm512_slli_epi64::<2>(over)));
    let h1 = add(and(h1, mask_44), _mm512_srli_epi64::<44>(h0));
    let h2 = add(and(h2, _mm512_set1_epi64(MASK_42 as i64)), _mm512_srli_epi64::<44>(h1));
    let (h0, h1) = (and(h0, mask_44), and(h1, mask_44));
    // h + 5 has the bit 2^130 if and only if h is not below the modulus.
    let g0 = add(h0, _mm512_set1_epi64(5));
    let g1 = add(h1, _mm512_srli_epi64::<44>(g0));
    let g2 = add(h2, _mm512_srli_epi64::<44>(g1));
    let above = _mm512_test_epi64_mask(g2, _mm512_set1_epi64(1 << 42));
    let h0 = _mm512_mask_and_epi64(h0, above, g0, mask_44);
    let h1 = _mm512_mask_and_epi64(h1, above, g1, mask_44);
    let h2 = _mm512_mask_mov_epi64(h2, above, g2);

    let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
    let low = add(low, s_low);
    let carry = _mm512_cmplt_epu64_mask(low, s_low);
    let high = add(high, s_high);
    let high = _mm512_mask_add_epi64(high, carry, high, _mm512_set1_epi64(1));
    let mut tags = [[0; 16]; GROUP];
    let (halves, _) = tags.as_flattened_mut().as_chunks_mut::<64>();
    for (half, index) in halves
        .iter_mut()
        .zip([[0, 8, 1, 9, 2, 10, 3, 11], [4, 12, 5, 13, 6, 14, 7, 15]])
    {
        let [a, b, c, d, e, f, g, h] = index;
        let index = _mm512_setr_epi64(a, b, c, d, e, f, g, h);
        store(half, _mm512_permutex2var_epi64(low, index, high));
    }
    tags
}
