//! The staged lookup of a vector of keys.
//!
//! Each stage touches only lines that an earlier one asked for: hash, and ask for the bucket; compare tags, and ask for
//! the leg; compare the key. The stages run over groups of packets, each one group behind the stage before it, so that
//! what was asked for is still in the first-level cache.

use super::bucket::SLOTS;
use super::lanes::{Lanes, with_lanes};
use super::memory::prefetch;
use super::{REACH, Table};
use crate::key::Key;
use crate::leg::{LegId, NONE};
use std::ops::Range;

/// The most keys looked up together.
const VECTOR: usize = 256;
/// Of 16, 32, 64, 128 and 256 this is the best.
const GROUP: usize = 32;

/// Who looks up the keys of a vector.
pub trait Asker {
    /// Makes the key at a place, once.
    fn ask(&mut self, place: usize);

    /// The key at a place, once it is made.
    fn key(&self, place: usize) -> &Key;

    /// The leg of the key at a place, or [`NONE`]. Places come in order.
    fn answer(&mut self, place: usize, leg: LegId);
}

/// What is known between the stages; a worker keeps one.
pub struct Scratch {
    hashes: [u64; VECTOR],
    homes: [u32; VECTOR],
    legs: [LegId; VECTOR],
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            hashes: [0; VECTOR],
            homes: [0; VECTOR],
            legs: [NONE; VECTOR],
        }
    }
}

/// Keys that are there already.
struct Listed<'a> {
    keys: &'a [Key],
    found: &'a mut [LegId],
}

impl Asker for Listed<'_> {
    #[inline(always)]
    fn ask(&mut self, _: usize) {}

    #[inline(always)]
    fn key(&self, place: usize) -> &Key {
        &self.keys[place]
    }

    #[inline(always)]
    fn answer(&mut self, place: usize, leg: LegId) {
        self.found[place] = leg;
    }
}

impl Table {
    /// The leg of one key: for slow paths.
    pub fn find(&self, key: &Key) -> Option<LegId> {
        with_lanes!(self.way, lanes => self.find_hashed(lanes, key, lanes.hash(&self.seed, key)))
    }

    /// Looks up each key; `found[i]` becomes the leg of `keys[i]`, or [`NONE`]. Fastest in vectors of 256.
    ///
    /// # Panics
    /// If the two are not equally long.
    #[inline]
    pub fn lookup(&self, scratch: &mut Scratch, keys: &[Key], found: &mut [LegId]) {
        assert_eq!(keys.len(), found.len(), "a leg for each key");
        for (keys, found) in keys.chunks(VECTOR).zip(found.chunks_mut(VECTOR)) {
            self.answer(scratch, keys.len(), Listed { keys, found });
        }
    }

    /// Answers somebody with so many keys, at most 256. Keys are made, and answers used, while what belongs to them is in
    /// the first-level cache.
    ///
    /// # Panics
    /// If there are more.
    #[inline]
    pub fn answer(&self, scratch: &mut Scratch, count: usize, mut asker: impl Asker) {
        assert!(count <= VECTOR, "a vector");
        with_lanes!(self.way, lanes => self.vector(lanes, scratch, count, &mut asker));
    }

    #[inline(always)]
    fn vector(&self, lanes: impl Lanes, scratch: &mut Scratch, count: usize, asker: &mut impl Asker) {
        // Three stages deep: two more rounds than there are groups.
        for lead in (0..count + 2 * GROUP).step_by(GROUP) {
            let group = |behind: usize| {
                let from = lead.wrapping_sub(behind * GROUP);
                if from < count {
                    from..(from + GROUP).min(count)
                } else {
                    0..0
                }
            };
            self.ask_buckets(lanes, scratch, asker, group(0));
            self.ask_legs(lanes, scratch, asker, group(1));
            self.confirm(lanes, scratch, asker, group(2));
        }
    }

    #[inline(always)]
    fn ask_buckets(&self, lanes: impl Lanes, scratch: &mut Scratch, asker: &mut impl Asker, group: Range<usize>) {
        let (hashes, homes) = (&mut scratch.hashes[group.clone()], &mut scratch.homes[group.clone()]);
        // A key that is read while it is still being stored waits for its parts.
        group.clone().for_each(|place| asker.ask(place));
        for ((place, hash), home) in group.zip(hashes).zip(homes) {
            *hash = lanes.hash(&self.seed, asker.key(place));
            *home = self.home(*hash) as u32;
            prefetch(&self.buckets[*home as usize]);
        }
    }

    #[inline(always)]
    fn ask_legs(&self, lanes: impl Lanes, scratch: &mut Scratch, asker: &impl Asker, group: Range<usize>) {
        let (hashes, homes) = (&scratch.hashes[group.clone()], &scratch.homes[group.clone()]);
        let known = hashes.iter().zip(homes).zip(group.clone());
        for (((hash, home), place), found) in known.zip(&mut scratch.legs[group]) {
            let bucket = &self.buckets[*home as usize];
            let slots = bucket.find(lanes, *hash);
            // With no match any slot's leg may be asked for, which needs no branch; but it must not be compared: it may
            // name a removed connection, whose key is intact until the end of every worker's turn.
            let id = bucket.leg(slots.trailing_zeros().min(SLOTS - 1));
            *found = if slots == 0 { NONE } else { id };
            prefetch(self.leg(id));
            // IPv6 finds its translation in the other leg; IPv4 asks for the same line twice, which is cheaper than to
            // guess the family wrong.
            prefetch(self.leg(id ^ LegId::from(!asker.key(place).is_v4())));
        }
    }

    #[inline(always)]
    fn confirm(&self, lanes: impl Lanes, scratch: &Scratch, asker: &mut impl Asker, group: Range<usize>) {
        let (hashes, homes) = (&scratch.hashes[group.clone()], &scratch.homes[group.clone()]);
        let legs = &scratch.legs[group.clone()];
        for (((place, hash), home), candidate) in group.zip(hashes).zip(homes).zip(legs) {
            let (key, mut found) = (asker.key(place), *candidate);
            // NONE is beyond the last leg.
            if !self.legs.get(found as usize).is_some_and(|leg| leg.has_key(key)) {
                let is_new = found == NONE && !self.buckets[*home as usize].control.overflows();
                found = if is_new { NONE } else { self.search(lanes, key, *hash) };
            }
            asker.answer(place, found);
        }
    }

    /// Second tag match, or key away from home.
    #[cold]
    #[inline(never)]
    fn search(&self, lanes: impl Lanes, key: &Key, hash: u64) -> LegId {
        lanes
            .run(
                #[inline(always)]
                || self.find_hashed(lanes, key, hash),
            )
            .unwrap_or(NONE)
    }

    #[inline(always)]
    pub(super) fn find_hashed(&self, lanes: impl Lanes, key: &Key, hash: u64) -> Option<LegId> {
        self.walk(lanes, hash, |leg| self.leg(leg).has_key(key))
            .map(|(_, _, leg)| leg)
    }

    /// Keys that are not in their home bucket, for statistics.
    pub fn strays(&self) -> usize {
        let is_stray = |key: &Key| {
            let hash = with_lanes!(self.way, lanes => lanes.hash(&self.seed, key));
            let home = self.home(hash);
            with_lanes!(self.way, lanes => self.walk(lanes, hash, |leg| self.leg(leg).has_key(key)))
                .is_some_and(|(at, _, _)| at != home && at < home + REACH)
        };
        let keys = self.connections_from(0).flat_map(|connection| connection.keys());
        keys.filter(|key| is_stray(key)).count()
    }
}
