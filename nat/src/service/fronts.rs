//! Frontends and where they lead, as workers find them: open-addressed tables, each a part that is copied alone, and each
//! place a cache line.

use super::{Frontend, Lead, fold};
use crate::table::prefetch;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Parts.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;
/// Places of the smallest part that has any frontend; a power of two.
const PLACES: usize = 4;

/// At most three quarters of its places are taken; their number is a power of two.
type Shard = Arc<[Place]>;

#[derive(Clone, Default)]
#[repr(align(64))]
struct Place(Option<(Frontend, Lead)>);

/// All of them.
#[derive(Clone)]
pub(super) struct Fronts {
    shards: Vec<Shard>,
    /// Whoever may make services chooses their ports, and shall not make parts long.
    seed: [u64; 2],
    count: usize,
}

impl Default for Fronts {
    fn default() -> Self {
        let random = RandomState::new();
        let empty: Shard = Arc::new([Place::default()]);
        Self {
            shards: vec![empty; SHARDS],
            seed: [random.hash_one(0), random.hash_one(1)],
            count: 0,
        }
    }
}

impl Fronts {
    pub fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub fn get(&self, frontend: &Frontend) -> Option<&Lead> {
        let (shard, mut at) = self.home(frontend);
        // There is a place that is free.
        while let Some((other, lead)) = &shard[at].0 {
            if other == frontend {
                return Some(lead);
            }
            at = (at + 1) & (shard.len() - 1);
        }
        None
    }

    /// Asks for the cache line where a frontend most likely is.
    #[inline]
    pub fn warm(&self, frontend: &Frontend) {
        let (shard, at) = self.home(frontend);
        prefetch(&shard[at]);
    }

    /// Says where a frontend leads. Whether it is a new one.
    pub fn insert(&mut self, frontend: Frontend, lead: Lead) -> bool {
        let number = self.shard(self.hash(&frontend));
        if let Some(known) = Self::find(Arc::make_mut(&mut self.shards[number]), &frontend) {
            *known = lead;
            return false;
        }
        let mut all = self.take(number);
        all.push((frontend, lead));
        self.fill(number, all);
        self.count += 1;
        true
    }

    /// Whether there was such a frontend.
    pub fn remove(&mut self, frontend: &Frontend) -> bool {
        if self.get(frontend).is_none() {
            return false;
        }
        let number = self.shard(self.hash(frontend));
        let mut all = self.take(number);
        all.retain(|(other, _)| other != frontend);
        self.fill(number, all);
        self.count -= 1;
        true
    }

    /// The part where a frontend is, and the place where to begin.
    #[inline(always)]
    fn home(&self, frontend: &Frontend) -> (&[Place], usize) {
        let hash = self.hash(frontend);
        let shard = &self.shards[self.shard(hash)];
        (shard, hash as usize & (shard.len() - 1))
    }

    #[inline(always)]
    fn shard(&self, hash: u64) -> usize {
        (hash >> (64 - SHARD_BITS)) as usize
    }

    #[inline(always)]
    fn hash(&self, frontend: &Frontend) -> u64 {
        let bits = u128::from_ne_bytes(frontend.address);
        let rest = u64::from(frontend.port) << 32 | u64::from(frontend.vrf.0) << 16 | u64::from(frontend.protocol);
        let [one, other] = self.seed;
        let address = fold(bits as u64 ^ one, (bits >> 64) as u64 ^ other);
        fold(address ^ rest, one | 1)
    }

    fn find<'a>(shard: &'a mut [Place], frontend: &Frontend) -> Option<&'a mut Lead> {
        let mut taken = shard.iter_mut().filter_map(|place| place.0.as_mut());
        taken.find(|(other, _)| other == frontend).map(|(_, lead)| lead)
    }

    /// What is in a part.
    fn take(&self, number: usize) -> Vec<(Frontend, Lead)> {
        self.shards[number].iter().filter_map(|place| place.0.clone()).collect()
    }

    /// Makes a part anew.
    fn fill(&mut self, number: usize, all: Vec<(Frontend, Lead)>) {
        let places = (all.len() * 4 / 3 + 1).next_power_of_two().max(PLACES);
        let mut shard = vec![Place::default(); places];
        for (frontend, lead) in all {
            let mut at = self.hash(&frontend) as usize & (places - 1);
            while shard[at].0.is_some() {
                at = (at + 1) & (places - 1);
            }
            shard[at] = Place(Some((frontend, lead)));
        }
        self.shards[number] = shard.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_cache_line() {
        assert_eq!(size_of::<Place>(), 64);
    }
}
