//! Patterns: what lookups compare packets with, a prefix, a range or a set in each field.

use crate::packet::Key;
use crate::rule::Ports;

/// How important the rule of a pattern is, and two bits for whoever stores it. The pattern of the highest rank wins.
///
/// The rank of a rule is [`of`](Rank::of) its place counted from the last; 0 is no rule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Rank(pub u32);

impl Rank {
    /// No rule.
    pub const NONE: Rank = Rank(0);
    /// Beside the pattern, the rule's guard has to hold.
    pub const GUARDED: u32 = 1;
    /// In the first lane of a block: the bucket goes on in the next one.
    pub const MORE: u32 = 2;
    /// The highest [`order`](Rank::order).
    pub const MAX_ORDER: u32 = (1 << 30) - 1;

    /// Of the rule with `order - 1` rules behind it.
    pub fn of(order: u32) -> Rank {
        Rank(order << 2)
    }

    /// With a guard.
    pub fn guarded(self, guarded: bool) -> Rank {
        Rank(self.0 | (u32::from(guarded) * Rank::GUARDED))
    }

    /// The rule's place counted from the last, which has 1; 0 if there is no rule.
    #[inline(always)]
    pub fn order(self) -> u32 {
        self.0 >> 2
    }

    /// Whether the rule's guard has to hold.
    #[inline(always)]
    pub fn is_guarded(self) -> bool {
        self.0 & Rank::GUARDED != 0
    }
}

/// A prefix; `W` words an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix<const W: usize> {
    /// The address; bits behind the prefix are zero.
    pub address: [u32; W],
    /// Bits that count.
    pub length: u8,
}

impl<const W: usize> Prefix<W> {
    /// Every address.
    pub const ALL: Prefix<W> = Prefix {
        address: [0; W],
        length: 0,
    };

    /// Whether it holds `address`.
    pub fn contains(&self, address: &[u32; W]) -> bool {
        (0..W).all(|w| (address[w] ^ self.address[w]) & mask(self.length, w) == 0)
    }
}

/// What word `w` of an address's first `length` bits is masked with.
#[inline]
pub fn mask(length: u8, w: usize) -> u32 {
    match u32::from(length).saturating_sub(32 * w as u32) {
        0 => 0,
        bits => u32::MAX << 32u32.saturating_sub(bits),
    }
}

/// One pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pattern<const W: usize> {
    /// Source addresses.
    pub source: Prefix<W>,
    /// Target addresses.
    pub target: Prefix<W>,
    /// Source ports.
    pub source_ports: Ports,
    /// Target ports, or ICMP types and codes.
    pub target_ports: Ports,
    /// Protocol; any if there is none.
    pub protocol: Option<u8>,
    /// The source is in this set; 0 is every address.
    pub source_set: u32,
    /// The target is in this set; 0 is every address.
    pub target_set: u32,
    /// Its rule.
    pub rank: Rank,
}

impl<const W: usize> Pattern<W> {
    /// One that matches every packet.
    pub fn all(rank: Rank) -> Pattern<W> {
        Pattern {
            source: Prefix::ALL,
            target: Prefix::ALL,
            source_ports: Ports::ALL,
            target_ports: Ports::ALL,
            protocol: None,
            source_set: 0,
            target_set: 0,
            rank,
        }
    }

    /// Whether the header matches; sets and guards are apart.
    pub fn matches(&self, key: &Key<W>) -> bool {
        self.source.contains(&key.source)
            && self.target.contains(&key.target)
            && self.source_ports.contains(key.ports as u16)
            && self.target_ports.contains((key.ports >> 16) as u16)
            && self.protocol.is_none_or(|protocol| u32::from(protocol) == key.protocol)
    }

    /// Whether it asks for sets.
    pub fn has_sets(&self) -> bool {
        self.source_set != 0 || self.target_set != 0
    }

    /// A key that it matches, for hashing.
    pub fn corner(&self) -> Key<W> {
        Key {
            source: self.source.address,
            target: self.target.address,
            ports: u32::from(self.source_ports.first) | u32::from(self.target_ports.first) << 16,
            protocol: u32::from(self.protocol.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_prefix() {
        assert_eq!([0, 1, 2, 3].map(|w| mask(0, w)), [0; 4]);
        assert_eq!([0, 1, 2, 3].map(|w| mask(33, w)), [u32::MAX, 1 << 31, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(|w| mask(64, w)), [u32::MAX, u32::MAX, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(|w| mask(128, w)), [u32::MAX; 4]);
        assert_eq!(mask(8, 0), 0xff00_0000);
    }
}
