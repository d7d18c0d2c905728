//! The lookup with AVX-512: 16 packets a probe, 8 patterns a comparison, without branches that depend on data, but for
//! guards. Every function with `target_feature` names the same set, and is reached only with the proof of it.
#![allow(unsafe_code)]

use super::block::{Block, LANES};
use super::tuple::{BySet, Named, Table};
use super::way::Avx512;
use super::{Hits, Lookup};
use crate::packet::{Columns, VECTOR};
use crate::pattern::Rank;
use crate::sets::{Class, LINE, Memory};
use std::arch::x86_64::*;

/// How many hits ahead blocks are prefetched.
const AHEAD: usize = 12;

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
    _proof: Avx512,
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
        match (lookup.with_sets, lookup.with_guards) {
            (false, false) => job.run::<false, false>(),
            (true, false) => job.run::<true, false>(),
            (false, true) => job.run::<false, true>(),
            (true, true) => job.run::<true, true>(),
        }
    }
}

impl<const W: usize, G: Fn(Rank, usize) -> bool> Job<'_, W, G> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn run<const SETS: bool, const GUARDS: bool>(&mut self) {
        let lookup = self.lookup;
        for table in &lookup.tables {
            if SETS && table.tuple.set != BySet::None {
                let mut from = (0, 0);
                while from.0 < self.columns.len {
                    let count = self.probe_sets(table, &mut from);
                    self.compare::<true, SETS, GUARDS>(count);
                }
                continue;
            }
            let count = self.probe(table);
            match table.long {
                true => self.compare::<true, SETS, GUARDS>(count),
                false => self.compare::<false, SETS, GUARDS>(count),
            }
        }
        for block in &lookup.rest {
            for row in 0..self.columns.len {
                self.compare_block::<SETS, GUARDS>(block, row);
            }
        }
        for best in &mut self.best[..self.columns.len] {
            best.0 &= !Rank::MORE;
        }
    }

    /// Hashes 16 rows at a time and collects those whose slot may have a match: how many.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn probe(&mut self, table: &Table<W>) -> usize {
        let last = splat(self.lookup.multipliers.last);
        let shift = _mm_cvtsi32_si128(table.shift as i32);
        let rank = splat(table.best.0);
        let slots = table.slots.as_ptr().cast::<i32>();
        let rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut count = 0;
        for at in (0..self.columns.len).step_by(16) {
            // SAFETY: `Rank` is a transparent u32, and 16 of the 256 are left from `at`, a multiple of 16 below 256.
            let best = unsafe { _mm512_loadu_si512(self.best.as_ptr().add(at).cast()) };
            let alive = _mm512_cmplt_epu32_mask(best, rank) & (0xffff >> (16 - (self.columns.len - at).min(16)));
            if alive == 0 {
                continue;
            }
            let sum = self.sum(table, at);
            let hash = _mm512_mullo_epi32(_mm512_xor_si512(sum, _mm512_srli_epi32::<15>(sum)), last);
            // SAFETY: `hash >> shift` has as many bits as the number of slots, so each index is inside.
            let slot = unsafe { _mm512_i32gather_epi32::<4>(_mm512_srl_epi32(hash, shift), slots) };
            let bit = _mm512_and_si512(_mm512_srli_epi32::<8>(hash), splat(7));
            let hit = _mm512_mask_test_epi32_mask(alive, slot, _mm512_sllv_epi32(splat(1), bit));
            let blocks = _mm512_maskz_compress_epi32(hit, _mm512_srli_epi32::<8>(slot));
            let rows = _mm512_maskz_compress_epi32(hit, _mm512_add_epi32(splat(at as u32), rows));
            // SAFETY: at most 16 a step are counted, so `count` is at most `at`, and both lists have 16 beyond 256.
            unsafe {
                _mm512_storeu_si512(self.hits.block.as_mut_ptr().add(count).cast(), blocks);
                _mm512_storeu_si512(self.hits.row.as_mut_ptr().add(count).cast(), rows);
            }
            count += hit.count_ones() as usize;
        }
        count
    }

    /// The sums that 16 rows from `at` are hashed from, sets apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn sum(&self, table: &Table<W>, at: usize) -> __m512i {
        let (masks, multipliers) = (&table.masks, &self.lookup.multipliers);
        let term = |column: &[u32; VECTOR], mask: u32, multiplier: u32| {
            // SAFETY: 16 of the 256 are left from `at`, a multiple of 16 below 256.
            let values = unsafe { _mm512_loadu_si512(column.as_ptr().add(at).cast()) };
            _mm512_mullo_epi32(_mm512_and_si512(values, splat(mask)), splat(multiplier))
        };
        let (mut source, mut target) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for w in 0..W {
            if masks.source[w] != 0 {
                source = _mm512_add_epi32(
                    source,
                    term(&self.columns.source[w], masks.source[w], multipliers.source[w]),
                );
            }
            if masks.target[w] != 0 {
                target = _mm512_add_epi32(
                    target,
                    term(&self.columns.target[w], masks.target[w], multipliers.target[w]),
                );
            }
        }
        let ports = _mm512_rol_epi32::<7>(term(&self.columns.ports, masks.ports, multipliers.ports));
        let protocol = term(&self.columns.protocol, masks.protocol, multipliers.protocol);
        let addresses = _mm512_add_epi32(source, _mm512_rol_epi32::<15>(target));
        _mm512_add_epi32(addresses, _mm512_add_epi32(ports, protocol))
    }

    /// The same for a table keyed by a set, from a row and a line of the sets it names. Stops when there are many; to be
    /// called until `from` is behind the last row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn probe_sets(&mut self, table: &Table<W>, from: &mut (usize, usize)) -> usize {
        let multipliers = &self.lookup.multipliers;
        let mut sums = [0u32; VECTOR];
        for at in (from.0 / 16 * 16..self.columns.len).step_by(16) {
            // SAFETY: 16 of the 256 are left from `at`, a multiple of 16 below 256.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().add(at).cast(), self.sum(table, at)) };
        }
        let mut count = 0;
        while from.0 < self.columns.len {
            let (row, line) = *from;
            if line == table.named.len() || self.best[row] >= table.best {
                *from = (row + 1, 0);
                continue;
            }
            if count > VECTOR {
                return count;
            }
            from.1 += 1;
            let class = match table.tuple.set {
                BySet::Source => self.columns.source_class[row],
                _ => self.columns.target_class[row],
            };
            let named = &table.named[line];
            let Some((mut words, both)) = self.named_sets(class, named) else {
                continue;
            };
            while words != 0 {
                let word = words.trailing_zeros();
                words &= words - 1;
                let mut sets = both[word as usize];
                while sets != 0 {
                    let set = (named.first + word) * 32 + sets.trailing_zeros();
                    sets &= sets - 1;
                    let hash = multipliers.finish(sums[row].wrapping_add(set.wrapping_mul(multipliers.set)));
                    let slot = table.slots[(hash >> table.shift) as usize];
                    self.hits.block[count] = slot >> 8;
                    self.hits.row[count] = row as u32;
                    count += (slot >> (hash >> 8 & 7) & 1) as usize;
                }
            }
        }
        count
    }

    /// The sets of a line that both `class` and `named` have, and which words they are in; nothing if there are none.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn named_sets(&self, class: Class, named: &Named) -> Option<(__mmask16, [u32; LINE])> {
        let there = class.words.saturating_sub(named.first).min(LINE as u32);
        let (words, last) = self.memory.words();
        let at = (class.base + named.first) & last;
        let some = (0xffff_u32 >> (LINE as u32 - there)) as __mmask16;
        // SAFETY: the number is masked to be a word's, and behind each one are 15 more. They are written only where no
        // reader looks: nothing that this turn can name.
        let sets = unsafe { _mm512_maskz_loadu_epi32(some, words.add(at as usize).cast()) };
        // SAFETY: the array is as long as the vector, which need not be aligned.
        let both = _mm512_and_si512(sets, unsafe { _mm512_loadu_si512(named.words.as_ptr().cast()) });
        let hit = _mm512_test_epi32_mask(both, both);
        if hit == 0 {
            return None;
        }
        let mut array = [0u32; LINE];
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(array.as_mut_ptr().cast(), both) };
        Some((hit, array))
    }

    /// Compares every hit with its bucket: the first block of each, then (`LONG`) the second of those that go on and may
    /// still have something better, and so on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn compare<const LONG: bool, const SETS: bool, const GUARDS: bool>(&mut self, mut count: usize) {
        let blocks = self.lookup.runs.blocks.as_slice();
        while count > 0 {
            for i in 0..count.min(AHEAD) {
                prefetch(blocks.as_ptr().wrapping_add(self.hits.block[i] as usize));
            }
            let mut left = 0;
            for i in 0..count {
                // SAFETY: `count` is at most what the lists hold, for probes stop before they are full; `left` is at most
                // `i`. Slots have only numbers of blocks of these runs, and a block that says so has another behind it.
                unsafe {
                    let ahead = *self.hits.block.get_unchecked((i + AHEAD).min(count - 1));
                    prefetch(blocks.as_ptr().wrapping_add(ahead as usize));
                    let (at, row) = (*self.hits.block.get_unchecked(i), *self.hits.row.get_unchecked(i));
                    let block = blocks.get_unchecked(at as usize);
                    let best = self.compare_block::<SETS, GUARDS>(block, row as usize % VECTOR);
                    if LONG {
                        // No branch: how long a bucket is cannot be predicted.
                        *self.hits.row.get_unchecked_mut(left) = row;
                        *self.hits.block.get_unchecked_mut(left) = at + 1;
                        left += usize::from(block.more()) & usize::from(best < block.rank[LANES - 1]);
                    }
                }
            }
            count = left;
        }
    }

    /// Raises the best rank of a row to that of the first lane of `block` that matches; returns it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn compare_block<const SETS: bool, const GUARDS: bool>(&mut self, block: &Block<W>, row: usize) -> u32 {
        let mut hit = self.headers(block, row);
        if SETS {
            let sets = [
                (&block.source_set, self.columns.source_class[row]),
                (&block.target_set, self.columns.target_class[row]),
            ];
            for (sets, class) in sets {
                hit = _mm256_mask_test_epi32_mask(hit, self.set_bits(sets, class), _mm256_set1_epi32(1));
            }
        }
        let ranks = lanes(&block.rank);
        if GUARDS && hit & _mm256_test_epi32_mask(ranks, _mm256_set1_epi32(Rank::GUARDED as i32)) != 0 {
            hit = self.guarded(block, row, hit);
        }
        let rank = _mm256_maskz_compress_epi32(hit, ranks);
        // The maximum is taken in a vector register, or it would become a branch.
        let best = &mut self.best[row];
        let new = _mm_max_epu32(_mm256_castsi256_si128(rank), _mm_cvtsi32_si128(best.0 as i32));
        *best = Rank(_mm_cvtsi128_si32(new) as u32);
        best.0
    }

    /// The lanes whose headers match.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn headers(&self, block: &Block<W>, row: usize) -> __mmask8 {
        const OR: i32 = 0xfe;
        let columns = self.columns;
        let value = |column: &[u32; VECTOR]| _mm256_set1_epi32(column[row] as i32);
        let meta = lanes(&block.meta);
        let source_free = _mm256_srli_epi32::<24>(meta);
        let target_free = _mm256_and_si256(_mm256_srli_epi32::<16>(meta), _mm256_set1_epi32(0xff));
        let mut differ = _mm256_setzero_si256();
        for w in 0..W {
            // A shift by 32 and more leaves nothing.
            let behind = _mm256_set1_epi32(32 * (W - 1 - w) as i32);
            let source = _mm256_xor_si256(lanes(&block.source[w]), value(&columns.source[w]));
            let source = _mm256_srlv_epi32(source, _mm256_subs_epu16(source_free, behind));
            let target = _mm256_xor_si256(lanes(&block.target[w]), value(&columns.target[w]));
            let target = _mm256_srlv_epi32(target, _mm256_subs_epu16(target_free, behind));
            differ = _mm256_ternarylogic_epi32::<OR>(differ, source, target);
        }
        let ports = value(&columns.ports);
        let below = _mm256_subs_epu16(lanes(&block.low), ports);
        let above = _mm256_subs_epu16(ports, lanes(&block.high));
        let mask = _mm256_and_si256(_mm256_srli_epi32::<8>(meta), _mm256_set1_epi32(0xff));
        let protocol = _mm256_and_si256(_mm256_xor_si256(meta, value(&columns.protocol)), mask);
        differ = _mm256_ternarylogic_epi32::<OR>(differ, below, above);
        differ = _mm256_or_si256(differ, protocol);
        _mm256_testn_epi32_mask(differ, differ)
    }

    /// Bit 0 of each lane: whether the address of `class` is in the lane's set.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
    fn set_bits(&self, sets: &[u32; LANES], class: Class) -> __m256i {
        let (words, last) = self.memory.words();
        let sets = lanes(sets);
        let word = _mm256_srli_epi32::<5>(sets);
        let there = _mm256_cmplt_epu32_mask(word, _mm256_set1_epi32(class.words as i32));
        let at = _mm256_add_epi32(word, _mm256_set1_epi32(class.base as i32));
        let at = _mm256_and_si256(at, _mm256_set1_epi32(last as i32));
        // SAFETY: there is a power of two of words, at most 2^28, and each index is masked to be one of theirs. They are
        // written only where no reader looks: nothing that this turn can name.
        let bits = unsafe { _mm256_mmask_i32gather_epi32::<4>(_mm256_setzero_si256(), there, at, words.cast()) };
        _mm256_srlv_epi32(bits, _mm256_and_si256(sets, _mm256_set1_epi32(31)))
    }

    /// Of the lanes that match, only the first whose guard holds, if it has one.
    #[cold]
    fn guarded(&self, block: &Block<W>, row: usize, mut hit: __mmask8) -> __mmask8 {
        while hit != 0 {
            let lane = hit.trailing_zeros() as usize;
            let rank = Rank(block.rank[lane] & !Rank::MORE);
            if rank <= self.best[row] {
                return 0;
            }
            if !rank.is_guarded() || (self.guard)(rank, row) {
                return 1 << lane;
            }
            hit &= hit - 1;
        }
        0
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
fn splat(value: u32) -> __m512i {
    _mm512_set1_epi32(value as i32)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,popcnt")]
fn lanes(lanes: &[u32; LANES]) -> __m256i {
    // SAFETY: the array is as long as the vector, which need not be aligned.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

/// Asks for the part of a block that headers are compared with.
#[inline(always)]
fn prefetch<const W: usize>(block: *const Block<W>) {
    let bytes = block.cast::<i8>();
    for line in 0..size_of::<Block<W>>() / 64 - 1 {
        // SAFETY: a prefetch changes nothing but caches and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(64 * line)) };
    }
}
