//! Seeded synthetic route tables, with the prefix lengths and the clustering of those that BGP carries.

use fastpath::fib::Key;
use std::collections::HashSet;
use std::hash::Hash;

/// Prefix, length and id.
pub type Route<K> = (K, u32, u32);

/// Deterministic random numbers: splitmix64 (Steele, Lea and Flood, 2014).
pub struct Rng(pub u64);

impl Rng {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 128 random bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// A number from 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// The first of a pair, as often as the second of it says.
    fn pick(&mut self, weighted: &[(u32, u32)]) -> u32 {
        let mut at = self.below(weighted.iter().map(|w| u64::from(w.1)).sum()) as u32;
        for (value, weight) in weighted {
            if at < *weight {
                return *value;
            }
            at -= weight;
        }
        unreachable!("the weights sum to more than `at`")
    }
}

/// `count` different IPv4 prefixes anywhere in 1.0.0.0 to 223.255.255.255; a prefix of the list is a smaller table.
pub fn v4(count: usize, seed: u64) -> Vec<Route<u32>> {
    unique(count, &mut Rng(seed), |rng| {
        ((1 << 24) + rng.below(223 << 24) as u32, rng.pick(V4_LENGTHS))
    })
}

/// `count` different IPv6 prefixes in and above some /32 allocations of the registries.
pub fn v6(count: usize, seed: u64) -> Vec<Route<u128>> {
    let mut rng = Rng(seed);
    let blocks: Vec<u128> = [0x2001, 0x2c0f]
        .into_iter()
        .chain(0x2400..0x2408)
        .chain(0x2600..0x2610)
        .chain(0x2800..0x2808)
        .chain(0x2a00..0x2a15)
        .collect();
    let holders: Vec<u128> = (0..(count / 6).max(1))
        .map(|_| blocks[rng.below(blocks.len() as u64) as usize] << 112 | u128::from(rng.below(1 << 16)) << 96)
        .collect();
    unique(count, &mut rng, |rng| {
        // The lesser of two: some holders announce much more than others.
        let at = rng.below(holders.len() as u64).min(rng.below(holders.len() as u64));
        (holders[at as usize] | rng.wide() >> 32, rng.pick(V6_LENGTHS))
    })
}

/// Prefix lengths of the IPv4 default-free zone, in parts of about a million.
const V4_LENGTHS: &[(u32, u32)] = &[
    (8, 16),
    (9, 13),
    (10, 40),
    (11, 100),
    (12, 300),
    (13, 580),
    (14, 1200),
    (15, 2100),
    (16, 13500),
    (17, 8300),
    (18, 13800),
    (19, 25000),
    (20, 44000),
    (21, 52000),
    (22, 110000),
    (23, 98000),
    (24, 600000),
    (25, 1500),
    (26, 1500),
    (27, 1000),
    (28, 800),
    (29, 800),
    (30, 500),
    (32, 1500),
];

/// The same of IPv6, in parts of about a hundred thousand.
const V6_LENGTHS: &[(u32, u32)] = &[
    (20, 10),
    (22, 15),
    (24, 25),
    (26, 20),
    (28, 150),
    (29, 2500),
    (30, 400),
    (31, 200),
    (32, 12500),
    (33, 2500),
    (34, 2000),
    (35, 1000),
    (36, 4500),
    (37, 500),
    (38, 1000),
    (39, 500),
    (40, 9500),
    (41, 500),
    (42, 1500),
    (43, 500),
    (44, 9500),
    (45, 600),
    (46, 1800),
    (47, 1400),
    (48, 46500),
    (56, 150),
    (64, 300),
    (128, 100),
];

fn unique<K: Key + Hash>(count: usize, rng: &mut Rng, one: impl Fn(&mut Rng) -> (K, u32)) -> Vec<Route<K>> {
    let mut seen = HashSet::new();
    let mut routes = Vec::with_capacity(count);
    while routes.len() < count {
        let (key, length) = one(rng);
        let key = key.masked(length);
        if seen.insert((key, length)) {
            // As many ids as routes could have: the hard case for compression.
            routes.push((key, length, rng.below(1 << 20) as u32));
        }
    }
    routes
}
