//! Hashes of keys, with multipliers drawn at random when the process starts: whoever writes rules cannot know which of
//! them meet in one bucket.

use super::tuple::Masks;
use crate::packet::Key;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The key of all hashes.
#[derive(Clone, Copy, Debug)]
pub struct Multipliers {
    pub(super) source: [u32; 4],
    pub(super) target: [u32; 4],
    pub(super) ports: u32,
    pub(super) protocol: u32,
    pub(super) set: u32,
    pub(super) last: u32,
}

impl Multipliers {
    /// Drawn from the operating system's random numbers.
    pub fn random() -> Multipliers {
        let state = RandomState::new();
        Multipliers::draw(|i| {
            let mut hasher = state.build_hasher();
            hasher.write_u32(i);
            hasher.finish() as u32
        })
    }

    /// The same for the same seed, for tests and measurements.
    pub fn fixed(seed: u64) -> Multipliers {
        let mut state = seed;
        Multipliers::draw(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed >> 32) as u32
        })
    }

    fn draw(mut number: impl FnMut(u32) -> u32) -> Multipliers {
        // Odd, so that no bit of a word is lost.
        let mut odd = |i| number(i) | 1;
        Multipliers {
            source: [0, 1, 2, 3].map(&mut odd),
            target: [4, 5, 6, 7].map(&mut odd),
            ports: odd(8),
            protocol: odd(9),
            set: odd(10),
            last: odd(11),
        }
    }

    /// The hash of the key's masked fields and a set; the wide lookups compute the same for many packets at once.
    #[inline]
    pub fn hash<const W: usize>(&self, masks: &Masks<W>, key: &Key<W>, set: u32) -> u32 {
        self.finish(self.sum(masks, key).wrapping_add(set.wrapping_mul(self.set)))
    }

    /// Before a set is added and the last step.
    #[inline]
    pub(super) fn sum<const W: usize>(&self, masks: &Masks<W>, key: &Key<W>) -> u32 {
        let mut source = 0u32;
        let mut target = 0u32;
        for w in 0..W {
            source = source.wrapping_add((key.source[w] & masks.source[w]).wrapping_mul(self.source[w]));
            target = target.wrapping_add((key.target[w] & masks.target[w]).wrapping_mul(self.target[w]));
        }
        source
            .wrapping_add(target.rotate_left(15))
            .wrapping_add((key.ports & masks.ports).wrapping_mul(self.ports).rotate_left(7))
            .wrapping_add((key.protocol & masks.protocol).wrapping_mul(self.protocol))
    }

    /// The last step.
    #[inline(always)]
    pub(super) fn finish(&self, sum: u32) -> u32 {
        (sum ^ sum >> 15).wrapping_mul(self.last)
    }
}
