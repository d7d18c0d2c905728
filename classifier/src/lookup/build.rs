//! Building a lookup from patterns.

use super::Lookup;
use super::hash::Multipliers;
use super::select::{self, Plan, WORTH};
use super::sets::Membership;
use super::tuple::filter_bit;
use crate::packet::Key;
use crate::pattern::{Pattern, Prefix, mask};
use crate::rule::Ports;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Longest buckets tried, in patterns.
const BUCKETS: [usize; 3] = [16, 24, 32];
/// So few patterns need no tables.
const SHORT: usize = 16;
/// So few may do without.
const LIST: usize = 64;
/// Packets that a plan is judged by.
const SAMPLE: u64 = 512;

impl Plan {
    /// The one of the least estimated cost.
    pub fn best<const W: usize>(patterns: &[Pattern<W>], multipliers: Multipliers) -> Plan {
        let list = Plan {
            patterns: patterns.len(),
            ..Plan::default()
        };
        if patterns.len() <= SHORT {
            return list;
        }
        let lists = (patterns.len() <= LIST).then_some(list);
        let plans = BUCKETS
            .iter()
            .map(|bucket| select::plan(patterns, *bucket, &multipliers));
        let cost = |plan: &Plan| cost(&Lookup::build_with(patterns, plan, multipliers), patterns);
        lists.into_iter().chain(plans).min_by_key(cost).unwrap_or_default()
    }

    /// Whether so many patterns may still be placed by it.
    pub fn serves(&self, patterns: usize) -> bool {
        match self.patterns <= SHORT {
            true => patterns <= SHORT,
            false => (self.patterns / 2..=self.patterns * 2).contains(&patterns),
        }
    }
}

impl<const W: usize> Lookup<W> {
    /// Chooses a plan and places the patterns.
    pub fn build(patterns: &[Pattern<W>], multipliers: Multipliers) -> Lookup<W> {
        Lookup::build_with(patterns, &Plan::best(patterns, multipliers), multipliers)
    }

    /// Places patterns by a plan chosen before.
    pub fn build_with(patterns: &[Pattern<W>], plan: &Plan, multipliers: Multipliers) -> Lookup<W> {
        let mut lookup = Lookup::with_plan(plan, multipliers);
        lookup.with_sets = patterns.iter().any(Pattern::has_sets);
        lookup.with_guards = patterns.iter().any(|pattern| pattern.rank.is_guarded());
        let mut sorted = patterns.to_vec();
        sorted.sort_unstable_by_key(|pattern| Reverse(pattern.rank));
        lookup.place(&sorted);
        lookup.prune();
        lookup.tables.sort_by_key(|table| Reverse(table.best));
        lookup
    }

    /// Places patterns in descending rank where [`insert`](Lookup::insert) would, but writes each bucket once.
    fn place(&mut self, sorted: &[Pattern<W>]) {
        let mut buckets: Vec<BTreeMap<usize, Vec<Pattern<W>>>> = vec![BTreeMap::new(); self.tables.len()];
        let mut rest = vec![];
        for pattern in sorted {
            let mut fallback = None;
            let mut found = None;
            for (i, table) in self.tables.iter().enumerate() {
                if !table.tuple.fits(pattern) {
                    continue;
                }
                let slot = table.slot(table.hash(&self.multipliers, pattern));
                let length = buckets[i].get(&slot).map_or(0, Vec::len);
                if length < self.bucket {
                    found = Some((i, slot));
                    break;
                }
                if length < 4 * self.bucket && fallback.is_none() {
                    fallback = Some((i, slot));
                }
            }
            match found.or(fallback) {
                Some((i, slot)) => buckets[i].entry(slot).or_default().push(*pattern),
                None => rest.push(*pattern),
            }
        }
        for (i, buckets) in buckets.into_iter().enumerate() {
            for (slot, patterns) in buckets {
                self.fill(i, slot, &patterns);
            }
        }
        self.change_rest(|patterns| *patterns = rest);
    }

    /// Makes `patterns` a bucket of a table that has none there.
    fn fill(&mut self, i: usize, slot: usize, patterns: &[Pattern<W>]) {
        let table = &mut self.tables[i];
        table.patterns += patterns.len();
        for pattern in patterns {
            table.best = table.best.max(pattern.rank);
            table.name(table.tuple.set.of(pattern));
            table.slots[slot] |= filter_bit(table.hash(&self.multipliers, pattern));
        }
        table.slots[slot] |= self.runs.store(patterns) << 8;
        table.long |= patterns.len() > super::LANES;
    }

    /// Drops empty tables, and moves the patterns of nearly empty ones elsewhere.
    fn prune(&mut self) {
        while let Some(i) = (0..self.tables.len()).min_by_key(|i| self.tables[*i].patterns) {
            if self.tables[i].patterns >= WORTH {
                return;
            }
            let table = self.tables.remove(i);
            for slot in table.slots.into_iter().filter(|slot| *slot != 0) {
                let patterns = self.runs.load(slot >> 8);
                self.runs.release(slot >> 8);
                patterns.iter().for_each(|pattern| self.insert(pattern));
            }
        }
    }
}

/// Estimated cycles of packets drawn from the patterns.
fn cost<const W: usize>(lookup: &Lookup<W>, patterns: &[Pattern<W>]) -> usize {
    let mut numbers = Numbers(1);
    let one = |_| {
        let pattern = &patterns[numbers.below(patterns.len() as u64) as usize];
        let sets = [
            Membership::Only(pattern.source_set),
            Membership::Only(pattern.target_set),
        ];
        let work = lookup.work(&numbers.packet(pattern), &sets);
        2 * work.probes + 6 * work.buckets + 5 * work.blocks
    };
    if patterns.is_empty() {
        0
    } else {
        (0..SAMPLE).map(one).sum()
    }
}

/// Numbers that look random (xorshift64*), the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A packet that `pattern` matches.
    fn packet<const W: usize>(&mut self, pattern: &Pattern<W>) -> Key<W> {
        let mut address = |prefix: &Prefix<W>| {
            std::array::from_fn(|w| prefix.address[w] | self.next() as u32 & !mask(prefix.length, w))
        };
        let (source, target) = (address(&pattern.source), address(&pattern.target));
        let mut port = |ports: Ports| {
            let count = u64::from(ports.last.saturating_sub(ports.first)) + 1;
            u32::from(ports.first) + self.below(count) as u32
        };
        let ports = port(pattern.source_ports) | port(pattern.target_ports) << 16;
        let protocol = pattern.protocol.map_or_else(|| self.next() as u32 & 0xff, u32::from);
        Key {
            source,
            target,
            ports,
            protocol,
        }
    }
}
