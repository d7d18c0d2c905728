//! What a lookup does in vector registers, and which processor does it how.

use super::hash::{self, Seed};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::key::Key;

/// The two inner steps of a lookup. A value of a type with this trait is the proof that the processor can.
pub(super) trait Lanes: Copy {
    /// The keyed hash. Ways with AES agree with each other.
    fn hash(self, seed: &Seed, key: &Key) -> u64;

    /// Which of sixteen 16-bit lanes equal `tag`, one bit each.
    fn equal(self, tags: [u64; 4], tag: u16) -> u32;

    /// Calls `work` from a function compiled for the processor that this value proves.
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// The way of one table, chosen when it is made: entries are found only by the hash they were entered with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(test)]
    Constant(Constant),
}

impl Way {
    /// All that this processor can, the best one first.
    pub fn all() -> Vec<Self> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let wide = [Avx512::detect().map(Way::Avx512), Avx2::detect().map(Way::Avx2)];
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let wide = [];
        wide.into_iter().flatten().chain([Way::Portable(Portable)]).collect()
    }
}

/// Evaluates an expression with `$lanes` bound to the way's own type, in a function compiled for it: always inlined there,
/// or a large one would be compiled for any processor, and call its vector instructions one by one.
macro_rules! with_lanes {
    ($way:expr, $lanes:ident => $work:expr) => {
        match $way {
            #[cfg(target_arch = "x86_64")]
            $crate::table::lanes::Way::Avx512($lanes) => $crate::table::lanes::Lanes::run(
                $lanes,
                #[inline(always)]
                || $work,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::table::lanes::Way::Avx2($lanes) => $crate::table::lanes::Lanes::run(
                $lanes,
                #[inline(always)]
                || $work,
            ),
            $crate::table::lanes::Way::Portable($lanes) => $work,
            #[cfg(test)]
            $crate::table::lanes::Way::Constant($lanes) => $work,
        }
    };
}
pub(super) use with_lanes;

/// Words, on any processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

const LOW_BITS: u64 = 0x7fff_7fff_7fff_7fff;

impl Lanes for Portable {
    #[inline(always)]
    fn hash(self, seed: &Seed, key: &Key) -> u64 {
        hash::portable(seed, key)
    }

    #[inline(always)]
    fn equal(self, tags: [u64; 4], tag: u16) -> u32 {
        let wanted = u64::from(tag) * 0x0001_0001_0001_0001;
        let in_word = |word: u64| {
            let differs = word ^ wanted;
            // The upper bit of each lane that is zero, exactly: no carry leaves a lane.
            let zero = !(((differs & LOW_BITS) + LOW_BITS) | differs | LOW_BITS);
            // The four bits side by side, each moved to its place by one term of the product.
            ((zero >> 15).wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48) as u32 & 0xf
        };
        in_word(tags[0]) | in_word(tags[1]) << 4 | in_word(tags[2]) << 8 | in_word(tags[3]) << 12
    }
}

/// All keys in one bucket with one tag: the worst an attacker could do.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Constant;

#[cfg(test)]
impl Lanes for Constant {
    fn hash(self, _: &Seed, _: &Key) -> u64 {
        0
    }

    fn equal(self, tags: [u64; 4], tag: u16) -> u32 {
        Portable.equal(tags, tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(tags: [u64; 4], tag: u16) -> u32 {
        let lane = |i: u32| (tags[i as usize / 4] >> (i % 4 * 16)) as u16;
        (0..16).filter(|i| lane(*i) == tag).map(|i| 1 << i).sum()
    }

    proptest! {
        #[test]
        fn all_ways_compare_alike(mut tags: [u64; 4], tag: u16, put: u16, bits: [u64; 4]) {
            for i in (0..16).filter(|i| put >> i & 1 == 1) {
                let shift = i % 4 * 16;
                tags[i / 4] = tags[i / 4] & !(0xffff << shift) | u64::from(tag) << shift;
            }
            // Close misses, too: one bit away.
            for (word, bits) in tags.iter_mut().zip(bits) {
                *word ^= 1u64 << (bits & 63);
            }
            for way in Way::all() {
                prop_assert_eq!(with_lanes!(way, lanes => lanes.equal(tags, tag)), naive(tags, tag));
            }
        }

        #[test]
        fn ways_with_aes_hash_alike(words: [u64; 5], seed: u64) {
            let (seed, key) = (Seed::new(seed), Key(words));
            let hashes: Vec<u64> = Way::all().into_iter().map(|way| with_lanes!(way, lanes => lanes.hash(&seed, &key))).collect();
            let aes = &hashes[..hashes.len() - 1];
            prop_assert!(aes.iter().all(|hash| *hash == aes[0]));
        }
    }

    #[test]
    fn hashes_spread_and_depend_on_the_seed() {
        for way in Way::all() {
            let hash = |seed: &Seed, key: &Key| with_lanes!(way, lanes => lanes.hash(seed, key));
            let (seed, other) = (Seed::new(1), Seed::new(2));
            let mut tops = [0u32; 64];
            for n in 0..64_000u64 {
                let key = Key([0, n << 32, 0, 7, 9]);
                tops[(hash(&seed, &key) >> 58) as usize] += 1;
                assert_ne!(hash(&seed, &key), hash(&other, &key));
            }
            // A thousand each; the deviation of a fair hash is 31.
            assert!(
                tops.iter().all(|count| (800..1200).contains(count)),
                "{way:?}: {tops:?}"
            );
        }
    }
}
