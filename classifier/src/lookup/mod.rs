//! Finding the matching pattern of the highest rank, for vectors of packets.
//!
//! Patterns are spread over a few coarse hash tables ([`tuple`]), chosen for them ([`select`]); a bucket is a run of
//! [`block`]s of eight patterns, compared at once. Each pattern is stored once and compared in full, so a collision only
//! makes a bucket longer, and no packet costs more than [`Lookup::worst_case`]. There is no cache to thrash.
//!
//! The wide lookups do what the portable one does, which is the one to read.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod block;
mod build;
pub mod hash;
pub mod select;
pub mod sets;
pub mod tuple;
mod way;

pub use way::Way;

use crate::packet::{Columns, Key, VECTOR};
use crate::pattern::{Pattern, Rank};
use crate::sets::{LINE, Memory};
use block::{Block, LANES, Runs};
use hash::Multipliers;
use select::Plan;
use sets::{Membership, Memberships};
use tuple::{BySet, Table, filter_bit, slot_bits};

/// Plain probes that cost as much as looking for the sets of one packet.
const SET_PROBE: usize = 12;

/// Patterns of addresses of `W` words: 1 for IPv4, 4 for IPv6.
#[derive(Clone, Debug)]
pub struct Lookup<const W: usize> {
    multipliers: Multipliers,
    /// In descending order of their best ranks.
    tables: Vec<Table<W>>,
    runs: Runs<W>,
    /// The longest bucket, in patterns, that an insertion accepts before it tries another table.
    bucket: usize,
    /// Some pattern asks for sets.
    with_sets: bool,
    /// Some pattern has a guard.
    with_guards: bool,
    /// What is compared with every packet, in descending rank.
    rest: Vec<Block<W>>,
}

/// Which buckets of one table have to be compared with which rows, for the wide lookups.
#[repr(C, align(64))]
pub struct Hits {
    block: [u32; HITS],
    row: [u32; HITS],
}

/// One hit a row, and those of a line of sets, where all of it may hit at once.
const HITS: usize = VECTOR + 1 + 32 * LINE;

impl Hits {
    /// Room for a vector.
    pub fn new() -> Hits {
        Hits {
            block: [0; HITS],
            row: [0; HITS],
        }
    }
}

impl Default for Hits {
    fn default() -> Self {
        Hits::new()
    }
}

/// The work that one packet is, for estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tables probed; one that is keyed by a set counts as many.
    pub probes: usize,
    /// Buckets visited.
    pub buckets: usize,
    /// Blocks compared.
    pub blocks: usize,
}

impl<const W: usize> Lookup<W> {
    /// Finds the best match of each row: `best[row]` becomes its rank, or [`Rank::NONE`]. `guard` says whether that of a
    /// guarded pattern's rule holds for a row.
    pub fn find(
        &self,
        way: Way,
        columns: &Columns<W>,
        memory: &Memory,
        guard: &impl Fn(Rank, usize) -> bool,
        best: &mut [Rank; VECTOR],
        hits: &mut Hits,
    ) {
        best[..columns.len].fill(Rank::NONE);
        match way {
            #[cfg(target_arch = "x86_64")]
            Way::Avx512(proof) => avx512::find(proof, self, columns, memory, guard, best, hits),
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(proof) => avx2::find(proof, self, columns, memory, guard, best, hits),
            Way::Portable => {
                let _ = hits;
                for (row, best) in best[..columns.len].iter_mut().enumerate() {
                    let [source, target] = columns.classes(row);
                    let sets = [Membership::Of(memory, source), Membership::Of(memory, target)];
                    *best = self.find_one(&columns.key(row), &sets, |rank| guard(rank, row));
                }
            }
        }
    }

    /// Finds the best match of one packet.
    pub fn find_one(&self, key: &Key<W>, sets: &Memberships<'_>, guard: impl Fn(Rank) -> bool) -> Rank {
        let mut best = Rank::NONE;
        self.each(key, sets, |rank| {
            if rank > best && (!rank.is_guarded() || guard(rank)) {
                best = rank;
            }
        });
        best
    }

    /// Visits the rank of every pattern that matches one packet, guards apart, in no order.
    pub fn each(&self, key: &Key<W>, sets: &Memberships<'_>, mut visit: impl FnMut(Rank)) {
        for table in &self.tables {
            table.probe(&self.multipliers, key, sets, |first| {
                let matching = self.runs.run(first).iter().flat_map(|block| block.matching(key, sets));
                matching.for_each(&mut visit);
            });
        }
        let matching = self.rest.iter().flat_map(|block| block.matching(key, sets));
        matching.for_each(&mut visit);
    }

    /// How many patterns it has.
    pub fn len(&self) -> usize {
        let rest: usize = self.rest.iter().map(|block| block.patterns().count()).sum();
        rest + self.tables.iter().map(|table| table.patterns).sum::<usize>()
    }

    /// Whether it has no patterns.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.tables.iter().all(|table| table.patterns == 0)
    }

    /// The most that any packet can cost, sets apart.
    pub fn worst_case(&self) -> Work {
        let longest = |table: &Table<W>| {
            let runs = table.slots.iter().map(|slot| self.runs.run(slot >> 8).len());
            runs.max().unwrap_or(0)
        };
        Work {
            probes: self.tables.len(),
            buckets: self.tables.len(),
            blocks: self.rest.len() + self.tables.iter().map(longest).sum::<usize>(),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let tables = self
            .tables
            .iter()
            .map(|table| 4 * table.slots.len() + size_of::<Table<W>>());
        tables.sum::<usize>() + (self.runs.blocks.len() + self.rest.len()) * size_of::<Block<W>>()
    }

    /// Adds a pattern: one bucket is written anew.
    pub fn insert(&mut self, pattern: &Pattern<W>) {
        self.with_sets |= pattern.has_sets();
        self.with_guards |= pattern.rank.is_guarded();
        let mut fallback = None;
        for (i, table) in self.tables.iter().enumerate() {
            if !table.tuple.fits(pattern) {
                continue;
            }
            let slot = table.slot(table.hash(&self.multipliers, pattern));
            let length = self.run_patterns(table.slots[slot] >> 8);
            if length < self.bucket {
                return self.put(i, pattern);
            }
            if length < 4 * self.bucket && fallback.is_none() {
                fallback = Some(i);
            }
        }
        match fallback {
            Some(i) => self.put(i, pattern),
            None => self.change_rest(|patterns| add(patterns, pattern)),
        }
    }

    /// Removes a pattern; false if it is not there.
    pub fn remove(&mut self, pattern: &Pattern<W>) -> bool {
        for i in 0..self.tables.len() {
            let table = &self.tables[i];
            if !table.tuple.fits(pattern) {
                continue;
            }
            let slot = table.slot(table.hash(&self.multipliers, pattern));
            let mut patterns = self.runs.load(table.slots[slot] >> 8);
            if take(&mut patterns, pattern) {
                self.swap(i, slot, &patterns);
                self.tables[i].patterns -= 1;
                return true;
            }
        }
        let mut removed = false;
        self.change_rest(|patterns| removed = take(patterns, pattern));
        removed
    }

    /// Moves the ranks of all rules before that of rank `from`, for rules that come between or go.
    pub fn shift(&mut self, from: Rank, by: i64) {
        let moved = |rank: u32| match Rank(rank).order() > from.order() {
            true => (i64::from(rank) + by * 4) as u32,
            false => rank,
        };
        for block in self.runs.blocks.iter_mut().chain(&mut self.rest) {
            block.rank.iter_mut().for_each(|rank| *rank = moved(*rank));
        }
        for table in &mut self.tables {
            table.best = Rank(moved(table.best.0));
        }
    }

    /// Without patterns, with the tables of a plan.
    fn with_plan(plan: &Plan, multipliers: Multipliers) -> Lookup<W> {
        let tables = plan
            .tuples
            .iter()
            .map(|(tuple, count)| Table::new(*tuple, slot_bits(*count)));
        Lookup {
            multipliers,
            tables: tables.collect(),
            runs: Runs::new(),
            bucket: plan.bucket,
            with_sets: false,
            with_guards: false,
            rest: vec![],
        }
    }

    fn put(&mut self, i: usize, pattern: &Pattern<W>) {
        let table = &mut self.tables[i];
        table.patterns += 1;
        table.best = table.best.max(pattern.rank);
        table.name(table.tuple.set.of(pattern));
        let slot = table.slot(table.hash(&self.multipliers, pattern));
        let mut patterns = self.runs.load(table.slots[slot] >> 8);
        add(&mut patterns, pattern);
        self.swap(i, slot, &patterns);
    }

    /// Gives a slot another bucket.
    fn swap(&mut self, i: usize, slot: usize, patterns: &[Pattern<W>]) {
        let table = &mut self.tables[i];
        let old = table.slots[slot] >> 8;
        let filter = patterns.iter().fold(0, |filter, pattern| {
            filter | filter_bit(table.hash(&self.multipliers, pattern))
        });
        self.runs.release(old);
        table.slots[slot] = match patterns.is_empty() {
            true => 0,
            false => self.runs.store(patterns) << 8 | filter,
        };
        table.long |= patterns.len() > LANES;
    }

    fn change_rest(&mut self, change: impl FnOnce(&mut Vec<Pattern<W>>)) {
        let mut patterns: Vec<Pattern<W>> = self.rest.iter().flat_map(Block::patterns).collect();
        change(&mut patterns);
        self.rest = patterns.chunks(LANES).map(Block::of).collect();
    }

    fn run_patterns(&self, first: u32) -> usize {
        self.runs.run(first).iter().map(|block| block.patterns().count()).sum()
    }

    /// What finding one packet's match costs.
    fn work(&self, key: &Key<W>, sets: &Memberships<'_>) -> Work {
        let mut work = Work {
            blocks: self.rest.len(),
            ..Work::default()
        };
        for table in &self.tables {
            work.probes += if table.tuple.set == BySet::None { 1 } else { SET_PROBE };
            table.probe(&self.multipliers, key, sets, |first| {
                work.buckets += 1;
                work.blocks += self.runs.run(first).len();
            });
        }
        work
    }
}

/// Puts a pattern to its place in descending rank.
fn add<const W: usize>(patterns: &mut Vec<Pattern<W>>, pattern: &Pattern<W>) {
    let at = patterns.partition_point(|other| other.rank > pattern.rank);
    patterns.insert(at, *pattern);
}

/// Takes a pattern out; false if it is not there.
fn take<const W: usize>(patterns: &mut Vec<Pattern<W>>, pattern: &Pattern<W>) -> bool {
    let found = patterns.iter().position(|other| other == pattern);
    if let Some(at) = found {
        patterns.remove(at);
    }
    found.is_some()
}
