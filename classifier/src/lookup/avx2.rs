//! The lookup with AVX2: 8 packets a probe, 8 patterns a comparison. As [`super::avx512`], which says more, but hits are
//! taken from masks one by one.
#![allow(unsafe_code)]

use super::block::{Block, LANES};
use super::tuple::{BySet, Named, Table, filter_bit};
use super::way::Avx2;
use super::{Hits, Lookup};
use crate::packet::{Columns, VECTOR};
use crate::pattern::Rank;
use crate::sets::{Class, Memory};
use std::arch::x86_64::*;

/// What all steps of one lookup share.
struct Job<'a, const W: usize, G> {
    lookup: &'a Lookup<W>,
    columns: &'a Columns<W>,
    memory: &'a Memory,
    guard: &'a G,
    best: &'a mut [Rank; VECTOR],
    hits: &'a mut Hits,
}

/// As [`Lookup::find`]; `best` has been filled with [`Rank::NONE`].
pub(super) fn find<const W: usize, G: Fn(Rank, usize) -> bool>(
    _proof: Avx2,
    lookup: &Lookup<W>,
    columns: &Columns<W>,
    memory: &Memory,
    guard: &G,
    best: &mut [Rank; VECTOR],
    hits: &mut Hits,
) {
    let mut job = Job {
        lookup,
        columns,
        memory,
        guard,
        best,
        hits,
    };
    // SAFETY: `_proof` is made only where the processor has the features.
    unsafe {
        match lookup.with_sets {
            false => job.run::<false>(),
            true => job.run::<true>(),
        }
    }
}

impl<const W: usize, G: Fn(Rank, usize) -> bool> Job<'_, W, G> {
    #[target_feature(enable = "avx2,bmi1")]
    fn run<const SETS: bool>(&mut self) {
        let lookup = self.lookup;
        for table in &lookup.tables {
            if SETS && table.tuple.set != BySet::None {
                for row in 0..self.columns.len {
                    self.probe_sets::<SETS>(table, row);
                }
                continue;
            }
            for at in (0..self.columns.len).step_by(8) {
                let count = self.probe(table, at);
                for i in 0..count {
                    self.compare::<SETS>(self.hits.block[i], self.hits.row[i] as usize);
                }
            }
        }
        for block in &lookup.rest {
            for row in 0..self.columns.len {
                self.compare_block::<SETS>(block, row);
            }
        }
    }

    /// Hashes 8 rows and lists those whose slot may have a match: how many.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn probe(&mut self, table: &Table<W>, at: usize) -> usize {
        let sum = self.sum(table, at);
        let hash = _mm256_mullo_epi32(
            _mm256_xor_si256(sum, _mm256_srli_epi32::<15>(sum)),
            splat(self.lookup.multipliers.last),
        );
        let index = _mm256_srl_epi32(hash, _mm_cvtsi32_si128(table.shift as i32));
        // SAFETY: `hash >> shift` has as many bits as the number of slots, so each index is inside.
        let slots = unsafe { _mm256_i32gather_epi32::<4>(table.slots.as_ptr().cast(), index) };
        let bit = _mm256_and_si256(_mm256_srli_epi32::<8>(hash), splat(7));
        let filtered = _mm256_and_si256(slots, _mm256_sllv_epi32(splat(1), bit));
        // SAFETY: `Rank` is a transparent u32, and 8 of the 256 are left from `at`, a multiple of 8 below 256.
        let best = unsafe { _mm256_loadu_si256(self.best.as_ptr().add(at).cast()) };
        let done = _mm256_cmpeq_epi32(_mm256_max_epu32(best, splat(table.best.0)), best);
        let none = _mm256_or_si256(_mm256_cmpeq_epi32(filtered, _mm256_setzero_si256()), done);
        let mut hit = !mask(none) & (0xff >> (8 - (self.columns.len - at).min(8)));
        let mut first = [0u32; LANES];
        // SAFETY: the array is as long as the vector, which need not be aligned.
        unsafe { _mm256_storeu_si256(first.as_mut_ptr().cast(), _mm256_srli_epi32::<8>(slots)) };
        let mut count = 0;
        while hit != 0 {
            let lane = hit.trailing_zeros() as usize;
            hit &= hit - 1;
            self.hits.block[count] = first[lane];
            self.hits.row[count] = (at + lane) as u32;
            count += 1;
        }
        count
    }

    /// The sums that 8 rows from `at` are hashed from, sets apart.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn sum(&self, table: &Table<W>, at: usize) -> __m256i {
        let (masks, multipliers) = (&table.masks, &self.lookup.multipliers);
        let term = |column: &[u32; VECTOR], mask: u32, multiplier: u32| {
            // SAFETY: 8 of the 256 are left from `at`, a multiple of 8 below 256.
            let values = unsafe { _mm256_loadu_si256(column.as_ptr().add(at).cast()) };
            _mm256_mullo_epi32(_mm256_and_si256(values, splat(mask)), splat(multiplier))
        };
        let (mut source, mut target) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for w in 0..W {
            if masks.source[w] != 0 {
                source = _mm256_add_epi32(
                    source,
                    term(&self.columns.source[w], masks.source[w], multipliers.source[w]),
                );
            }
            if masks.target[w] != 0 {
                target = _mm256_add_epi32(
                    target,
                    term(&self.columns.target[w], masks.target[w], multipliers.target[w]),
                );
            }
        }
        let ports = rotate::<7, 25>(term(&self.columns.ports, masks.ports, multipliers.ports));
        let protocol = term(&self.columns.protocol, masks.protocol, multipliers.protocol);
        let addresses = _mm256_add_epi32(source, rotate::<15, 17>(target));
        _mm256_add_epi32(addresses, _mm256_add_epi32(ports, protocol))
    }

    /// Looks one row up in a table keyed by a set.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn probe_sets<const SETS: bool>(&mut self, table: &Table<W>, row: usize) {
        if self.best[row] >= table.best {
            return;
        }
        let multipliers = &self.lookup.multipliers;
        let class = match table.tuple.set {
            BySet::Source => self.columns.source_class[row],
            _ => self.columns.target_class[row],
        };
        let sum = multipliers.sum(&table.masks, &self.columns.key(row));
        for (index, named) in table.named.iter().flat_map(Named::words) {
            let mut sets = self.memory.bitmap(class, index) & named;
            while sets != 0 {
                let set = index * 32 + sets.trailing_zeros();
                sets &= sets - 1;
                let hash = multipliers.finish(sum.wrapping_add(set.wrapping_mul(multipliers.set)));
                let slot = table.slots[table.slot(hash)];
                if slot & filter_bit(hash) != 0 {
                    self.compare::<SETS>(slot >> 8, row);
                }
            }
        }
    }

    /// Compares a row with the blocks of a bucket, while they may have something better.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn compare<const SETS: bool>(&mut self, first: u32, row: usize) {
        for block in &self.lookup.runs.blocks[first as usize..] {
            let best = self.compare_block::<SETS>(block, row);
            if !block.more() || best.0 >= block.rank[LANES - 1] {
                return;
            }
        }
    }

    /// Raises the best rank of a row to that of the first lane of `block` that matches; returns it.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn compare_block<const SETS: bool>(&mut self, block: &Block<W>, row: usize) -> Rank {
        let mut hit = self.headers(block, row);
        if SETS {
            let source = self.set_bits(&block.source_set, self.columns.source_class[row]);
            let target = self.set_bits(&block.target_set, self.columns.target_class[row]);
            let both = _mm256_slli_epi32::<31>(_mm256_and_si256(source, target));
            hit &= _mm256_movemask_ps(_mm256_castsi256_ps(both)) as u32;
        }
        while hit != 0 {
            let rank = Rank(block.rank[hit.trailing_zeros() as usize] & !Rank::MORE);
            if rank <= self.best[row] {
                break;
            }
            if !rank.is_guarded() || (self.guard)(rank, row) {
                self.best[row] = rank;
                break;
            }
            hit &= hit - 1;
        }
        self.best[row]
    }

    /// The lanes whose headers match.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn headers(&self, block: &Block<W>, row: usize) -> u32 {
        let columns = self.columns;
        let value = |column: &[u32; VECTOR]| splat(column[row]);
        let meta = lanes(&block.meta);
        let source_free = _mm256_srli_epi32::<24>(meta);
        let target_free = _mm256_and_si256(_mm256_srli_epi32::<16>(meta), splat(0xff));
        let mut differ = _mm256_setzero_si256();
        for w in 0..W {
            // A shift by 32 and more leaves nothing.
            let behind = splat(32 * (W - 1 - w) as u32);
            let source = _mm256_xor_si256(lanes(&block.source[w]), value(&columns.source[w]));
            let source = _mm256_srlv_epi32(source, _mm256_subs_epu16(source_free, behind));
            let target = _mm256_xor_si256(lanes(&block.target[w]), value(&columns.target[w]));
            let target = _mm256_srlv_epi32(target, _mm256_subs_epu16(target_free, behind));
            differ = _mm256_or_si256(differ, _mm256_or_si256(source, target));
        }
        let ports = value(&columns.ports);
        let below = _mm256_subs_epu16(lanes(&block.low), ports);
        let above = _mm256_subs_epu16(ports, lanes(&block.high));
        let with_protocol = _mm256_and_si256(_mm256_srli_epi32::<8>(meta), splat(0xff));
        let protocol = _mm256_and_si256(_mm256_xor_si256(meta, value(&columns.protocol)), with_protocol);
        differ = _mm256_or_si256(differ, _mm256_or_si256(_mm256_or_si256(below, above), protocol));
        mask(_mm256_cmpeq_epi32(differ, _mm256_setzero_si256()))
    }

    /// Bit 0 of each lane: whether the address of `class` is in the lane's set.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn set_bits(&self, sets: &[u32; LANES], class: Class) -> __m256i {
        let (words, last) = self.memory.words();
        let sets = lanes(sets);
        let word = _mm256_srli_epi32::<5>(sets);
        let there = _mm256_cmpgt_epi32(splat(class.words), word);
        let at = _mm256_and_si256(_mm256_add_epi32(word, splat(class.base)), splat(last));
        // SAFETY: there is a power of two of words, at most 2^28, and each index is masked to be one of theirs. They are
        // written only where no reader looks: nothing that this turn can name.
        let bits = unsafe { _mm256_mask_i32gather_epi32::<4>(_mm256_setzero_si256(), words.cast(), at, there) };
        _mm256_srlv_epi32(bits, _mm256_and_si256(sets, splat(31)))
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1")]
fn splat(value: u32) -> __m256i {
    _mm256_set1_epi32(value as i32)
}

#[inline]
#[target_feature(enable = "avx2,bmi1")]
fn rotate<const LEFT: i32, const RIGHT: i32>(values: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(values), _mm256_srli_epi32::<RIGHT>(values))
}

/// A bit for each lane whose highest bit is set.
#[inline]
#[target_feature(enable = "avx2,bmi1")]
fn mask(lanes: __m256i) -> u32 {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)) as u32
}

#[inline]
#[target_feature(enable = "avx2,bmi1")]
fn lanes(lanes: &[u32; LANES]) -> __m256i {
    // SAFETY: the array is as long as the vector, which need not be aligned.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}
