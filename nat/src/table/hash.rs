//! Seeds of the keyed hashes, and the hash of processors without AES instructions.

use crate::key::Key;

/// Where all secret numbers of a table come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    /// Round keys of AES: low and high half of each.
    pub rounds: [[u64; 2]; 6],
    /// Key of SipHash.
    pub sip: [u64; 2],
}

impl Seed {
    /// Spreads 64 random bits.
    pub fn new(mut random: u64) -> Self {
        let mut next = || split_mix(&mut random);
        Self {
            rounds: std::array::from_fn(|_| [next(), next()]),
            sip: [next(), next()],
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012): nobody who does not know the key can make keys collide.
pub(crate) fn sip(key: [u64; 2], words: &[u64]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let length = (words.len() as u64 * 8) << 56;
    for word in words.iter().chain([&length]) {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// The hash of a key without vector instructions.
pub(super) fn portable(seed: &Seed, key: &Key) -> u64 {
    sip(seed.sip, &key.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    #[test]
    fn it_is_the_standard_library_s_siphash() {
        for count in 0..7 {
            let words: Vec<u64> = (0..count).map(|n| n * 0x0123_4567_89ab_cdef).collect();
            let mut theirs = DefaultHasher::new();
            words.iter().for_each(|word| theirs.write(&word.to_le_bytes()));
            assert_eq!(sip([0, 0], &words), theirs.finish(), "{count} words");
        }
    }
}
