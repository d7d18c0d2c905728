//! Tuples: which bits of the key a hash table is keyed by, and the table.

use super::hash::Multipliers;
use super::sets::Memberships;
use crate::packet::Key;
use crate::pattern::{Pattern, Rank, mask};
use crate::sets::LINE;

/// Whether a table is keyed by a set: it is probed once for each set that holds the packet's source (target) and that
/// some pattern of the table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum BySet {
    /// By none.
    #[default]
    None,
    /// By one of the source.
    Source,
    /// By one of the target.
    Target,
}

impl BySet {
    /// The set of `pattern` that the table is keyed by; 0 where it is by none.
    pub fn of<const W: usize>(self, pattern: &Pattern<W>) -> u32 {
        match self {
            BySet::None => 0,
            BySet::Source => pattern.source_set,
            BySet::Target => pattern.target_set,
        }
    }
}

/// Bits of the key. A pattern fits if it fixes all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Tuple {
    /// First bits of the source address.
    pub source: u8,
    /// First bits of the target address.
    pub target: u8,
    /// The source port.
    pub source_port: bool,
    /// The target port.
    pub target_port: bool,
    /// The protocol.
    pub protocol: bool,
    /// A set.
    pub set: BySet,
}

impl Tuple {
    /// Whether `pattern` fixes these bits.
    pub fn fits<const W: usize>(&self, pattern: &Pattern<W>) -> bool {
        pattern.source.length >= self.source
            && pattern.target.length >= self.target
            && (!self.source_port || pattern.source_ports.first == pattern.source_ports.last)
            && (!self.target_port || pattern.target_ports.first == pattern.target_ports.last)
            && (!self.protocol || pattern.protocol.is_some())
            && (self.set == BySet::None || self.set.of(pattern) != 0)
    }

    /// How much it tells patterns apart, roughly in bits.
    pub fn bits(&self) -> u32 {
        let exact = u32::from(self.source_port) * 10 + u32::from(self.target_port) * 10 + u32::from(self.protocol) * 2;
        u32::from(self.source) + u32::from(self.target) + exact + u32::from(self.set != BySet::None) * 7
    }
}

/// A tuple as what each field is masked with.
#[derive(Clone, Copy, Debug)]
pub struct Masks<const W: usize> {
    pub(super) source: [u32; W],
    pub(super) target: [u32; W],
    pub(super) ports: u32,
    pub(super) protocol: u32,
}

impl<const W: usize> Masks<W> {
    /// Of a tuple.
    pub fn of(tuple: &Tuple) -> Masks<W> {
        Masks {
            source: std::array::from_fn(|w| mask(tuple.source, w)),
            target: std::array::from_fn(|w| mask(tuple.target, w)),
            ports: (u32::from(tuple.source_port) * 0xffff) | (u32::from(tuple.target_port) * 0xffff_0000),
            protocol: u32::from(tuple.protocol) * 0xff,
        }
    }
}

/// One hash table. A slot is the first block of a bucket, and 8 bits that say which hashes are in it: bit `hash >> 8 & 7`
/// of each. 0 is an empty slot.
#[derive(Clone, Debug)]
pub(super) struct Table<const W: usize> {
    pub tuple: Tuple,
    pub masks: Masks<W>,
    /// `hash >> shift` is the slot.
    pub shift: u32,
    pub slots: Vec<u32>,
    pub patterns: usize,
    /// The highest rank ever stored: packets with a better match pass the table by.
    pub best: Rank,
    /// The sets that patterns of the table name, if it is keyed by one: what is not zero of a bitmap.
    pub named: Vec<Named>,
    /// Some bucket has had more than one block.
    pub long: bool,
}

/// A line of a bitmap of sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// The number of its first word.
    pub first: u32,
    pub words: [u32; LINE],
}

impl Named {
    /// Words that are not zero, with their numbers.
    pub fn words(&self) -> impl Iterator<Item = (u32, u32)> {
        let words = self.words.into_iter().zip(self.first..);
        words.filter(|(bits, _)| *bits != 0).map(|(bits, word)| (word, bits))
    }
}

/// Slots for a number of patterns, as a power of two.
pub fn slot_bits(patterns: usize) -> u32 {
    (patterns * 2).next_power_of_two().trailing_zeros().clamp(4, 22)
}

impl<const W: usize> Table<W> {
    pub fn new(tuple: Tuple, bits: u32) -> Table<W> {
        Table {
            tuple,
            masks: Masks::of(&tuple),
            shift: 32 - bits,
            slots: vec![0; 1 << bits],
            patterns: 0,
            best: Rank::NONE,
            named: vec![],
            long: false,
        }
    }

    /// The hash of a pattern that fits.
    pub fn hash(&self, multipliers: &Multipliers, pattern: &Pattern<W>) -> u32 {
        multipliers.hash(&self.masks, &pattern.corner(), self.tuple.set.of(pattern))
    }

    pub fn slot(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    /// The first blocks of the buckets that may have a match.
    pub fn probe(&self, multipliers: &Multipliers, key: &Key<W>, sets: &Memberships<'_>, mut found: impl FnMut(u32)) {
        let mut one = |set: u32| {
            let hash = multipliers.hash(&self.masks, key, set);
            let slot = self.slots[self.slot(hash)];
            if slot & filter_bit(hash) != 0 {
                found(slot >> 8);
            }
        };
        let side = match self.tuple.set {
            BySet::None => return one(0),
            BySet::Source => &sets[0],
            BySet::Target => &sets[1],
        };
        for (word, bits) in self.named.iter().flat_map(Named::words) {
            let sets = (0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| word * 32 + bit);
            sets.filter(|set| side.has(*set)).for_each(&mut one);
        }
    }

    /// Notes that a pattern of the table names `set`.
    pub fn name(&mut self, set: u32) {
        if set == 0 {
            return;
        }
        let (word, bit) = (set / 32, 1 << (set % 32));
        let first = word - word % LINE as u32;
        let at = self.named.binary_search_by_key(&first, |named| named.first);
        let at = at.unwrap_or_else(|at| {
            let words = [0; LINE];
            self.named.insert(at, Named { first, words });
            at
        });
        self.named[at].words[(word - first) as usize] |= bit;
    }
}

/// The bit of a slot that says there may be a pattern of this hash.
#[inline(always)]
pub fn filter_bit(hash: u32) -> u32 {
    1 << (hash >> 8 & 7)
}
