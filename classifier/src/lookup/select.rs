//! Choosing tuples: greedily, the one that places the most patterns in short buckets.

use super::hash::Multipliers;
use super::tuple::{BySet, Masks, Tuple, slot_bits};
use crate::packet::Key;
use crate::pattern::Pattern;
use std::cmp::Reverse;
use std::collections::HashMap;

/// A tuple has to place at least so many patterns to be worth a probe.
pub(super) const WORTH: usize = 5;
/// Prefix lengths that are tried, in bits.
const V4: &[u8] = &[0, 4, 8, 12, 16, 20, 24, 28, 32];
const V6: &[u8] = &[0, 16, 28, 32, 40, 48, 56, 64, 128];

/// Which hash tables a lookup has. It stays good while rules change a little.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In order of preference, each with the number of patterns it was chosen for.
    pub(super) tuples: Vec<(Tuple, usize)>,
    /// The longest bucket, in patterns, that they were chosen for.
    pub(super) bucket: usize,
    /// How many patterns it was made for.
    pub(super) patterns: usize,
}

/// Patterns that the same tuples fit, with the keys they are hashed by.
struct Shape<const W: usize> {
    sample: Pattern<W>,
    patterns: Vec<(Key<W>, [u32; 2])>,
}

/// Tuples for buckets of at most `bucket` patterns.
pub(super) fn plan<const W: usize>(patterns: &[Pattern<W>], bucket: usize, multipliers: &Multipliers) -> Plan {
    let mut shapes = shapes(patterns);
    let mut tuples = vec![];
    let mut counts = vec![];
    while let Some((fitting, placed, tuple)) = best(&shapes, bucket, multipliers, &mut counts) {
        tuples.push((tuple, placed));
        count(&tuple, fitting, &shapes, bucket, multipliers, &mut counts);
        let (masks, shift) = (Masks::of(&tuple), 32 - slot_bits(fitting));
        for shape in shapes.iter_mut().filter(|shape| tuple.fits(&shape.sample)) {
            shape.patterns.retain(|(key, sets)| {
                let hash = multipliers.hash(&masks, key, set_of(&tuple, sets));
                usize::from(counts[(hash >> shift) as usize]) > bucket
            });
        }
        shapes.retain(|shape| !shape.patterns.is_empty());
    }
    Plan {
        tuples,
        bucket,
        patterns: patterns.len(),
    }
}

/// The tuple that places the most, with how many patterns fit and how many it places.
fn best<const W: usize>(
    shapes: &[Shape<W>],
    bucket: usize,
    multipliers: &Multipliers,
    counts: &mut Vec<u16>,
) -> Option<(usize, usize, Tuple)> {
    let score = |placed: usize, tuple: &Tuple| placed as f64 * (1.0 + 0.002 * f64::from(tuple.bits()));
    let mut best = None;
    let mut highest = 0.0;
    for (fitting, tuple) in candidates(shapes) {
        if fitting < WORTH || score(fitting, &tuple) <= highest {
            continue;
        }
        let placed = count(&tuple, fitting, shapes, bucket, multipliers, counts);
        if score(placed, &tuple) > highest {
            highest = score(placed, &tuple);
            best = Some((fitting, placed, tuple));
        }
    }
    best.filter(|(_, placed, _)| *placed >= WORTH)
}

fn lengths<const W: usize>() -> &'static [u8] {
    if W == 1 { V4 } else { V6 }
}

fn shapes<const W: usize>(patterns: &[Pattern<W>]) -> Vec<Shape<W>> {
    let tried = |length: u8| {
        lengths::<W>()
            .iter()
            .rev()
            .find(|tried| **tried <= length)
            .map_or(0, |tried| *tried)
    };
    let mut by_shape: HashMap<(Tuple, bool, bool), Shape<W>> = HashMap::new();
    let mut order = vec![];
    for pattern in patterns {
        let tuple = Tuple {
            source: tried(pattern.source.length),
            target: tried(pattern.target.length),
            source_port: pattern.source_ports.first == pattern.source_ports.last,
            target_port: pattern.target_ports.first == pattern.target_ports.last,
            protocol: pattern.protocol.is_some(),
            set: BySet::None,
        };
        let shape = (tuple, pattern.source_set != 0, pattern.target_set != 0);
        let of_shape = by_shape.entry(shape).or_insert_with(|| {
            order.push(shape);
            Shape {
                sample: *pattern,
                patterns: vec![],
            }
        });
        let sets = [pattern.source_set, pattern.target_set];
        of_shape.patterns.push((pattern.corner(), sets));
    }
    // In order of appearance: the same plan for the same patterns.
    order.iter().filter_map(|shape| by_shape.remove(shape)).collect()
}

/// Tuples worth trying, those that most patterns fit first. Of those that fit the same shapes the one that tells most
/// apart is enough: it has the shortest buckets.
fn candidates<const W: usize>(shapes: &[Shape<W>]) -> Vec<(usize, Tuple)> {
    let with_sets = shapes.iter().any(|shape| shape.sample.has_sets());
    let by_sets: &[BySet] = match with_sets {
        true => &[BySet::None, BySet::Source, BySet::Target],
        false => &[BySet::None],
    };
    let mut by_fit: HashMap<(u64, usize), Tuple> = HashMap::new();
    for source in lengths::<W>() {
        for target in lengths::<W>() {
            for (exact, set) in (0..8).flat_map(|exact| by_sets.iter().map(move |set| (exact, *set))) {
                let tuple = Tuple {
                    source: *source,
                    target: *target,
                    source_port: exact & 1 != 0,
                    target_port: exact & 2 != 0,
                    protocol: exact & 4 != 0,
                    set,
                };
                let kept = by_fit.entry(fit(&tuple, shapes)).or_insert(tuple);
                if tuple.bits() > kept.bits() {
                    *kept = tuple;
                }
            }
        }
    }
    let mut all: Vec<(usize, Tuple)> = by_fit
        .into_iter()
        .map(|((_, fitting), tuple)| (fitting, tuple))
        .collect();
    all.sort_by_key(|(fitting, tuple)| {
        let ports = (tuple.source_port, tuple.target_port);
        (Reverse(*fitting), tuple.bits(), tuple.source, ports, tuple.set as u8)
    });
    all
}

/// Names the shapes that fit, and counts their patterns.
fn fit<const W: usize>(tuple: &Tuple, shapes: &[Shape<W>]) -> (u64, usize) {
    shapes.iter().fold((0u64, 0), |(name, count), shape| {
        let fits = tuple.fits(&shape.sample);
        let name = (name << 1 ^ u64::from(fits)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name >> 31;
        (name, count + usize::from(fits) * shape.patterns.len())
    })
}

fn set_of(tuple: &Tuple, sets: &[u32; 2]) -> u32 {
    match tuple.set {
        BySet::None => 0,
        BySet::Source => sets[0],
        BySet::Target => sets[1],
    }
}

/// Counts the patterns in each bucket of a table for `fitting`; how many are in short ones.
fn count<const W: usize>(
    tuple: &Tuple,
    fitting: usize,
    shapes: &[Shape<W>],
    bucket: usize,
    multipliers: &Multipliers,
    counts: &mut Vec<u16>,
) -> usize {
    counts.clear();
    counts.resize(1 << slot_bits(fitting), 0);
    let (masks, shift) = (Masks::of(tuple), 32 - slot_bits(fitting));
    for shape in shapes.iter().filter(|shape| tuple.fits(&shape.sample)) {
        for (key, sets) in &shape.patterns {
            let hash = multipliers.hash(&masks, key, set_of(tuple, sets));
            let count = &mut counts[(hash >> shift) as usize];
            *count = count.saturating_add(1);
        }
    }
    let short = counts
        .iter()
        .map(|count| usize::from(*count))
        .filter(|count| *count <= bucket);
    short.sum()
}
