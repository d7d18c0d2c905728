//! Blocks of eight patterns, laid out to be compared at once, and the runs of blocks that buckets are.

use super::sets::Memberships;
use crate::packet::Key;
use crate::pattern::{Pattern, Prefix, Rank};
use crate::rule::Ports;

/// Patterns in a block.
pub const LANES: usize = 8;

/// Eight patterns in descending rank. For IPv4 three cache lines, and a fourth that is read only where some pattern of
/// the lookup asks for sets.
///
/// `meta` of a lane: bits of the source behind its prefix, of the target behind its, 0xff if there is a protocol, the
/// protocol; a byte each. Lanes without a pattern have empty ranges of ports.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Block<const W: usize> {
    pub(super) source: [[u32; LANES]; W],
    pub(super) target: [[u32; LANES]; W],
    /// Lowest ports: of the source in the low half, of the target in the high one.
    pub(super) low: [u32; LANES],
    pub(super) high: [u32; LANES],
    pub(super) meta: [u32; LANES],
    pub(super) rank: [u32; LANES],
    pub(super) source_set: [u32; LANES],
    pub(super) target_set: [u32; LANES],
}

const _: () = assert!(size_of::<Block<1>>() == 256 && size_of::<Block<4>>() == 448);

impl<const W: usize> Block<W> {
    /// No pattern.
    pub const EMPTY: Block<W> = Block {
        source: [[0; LANES]; W],
        target: [[0; LANES]; W],
        low: [u32::MAX; LANES],
        high: [0; LANES],
        meta: [0; LANES],
        rank: [0; LANES],
        source_set: [0; LANES],
        target_set: [0; LANES],
    };

    /// Of at most eight patterns in descending rank.
    pub fn of(patterns: &[Pattern<W>]) -> Block<W> {
        let mut block = Block::EMPTY;
        for (lane, pattern) in patterns.iter().enumerate() {
            block.set(lane, pattern);
        }
        block
    }

    fn set(&mut self, lane: usize, pattern: &Pattern<W>) {
        for w in 0..W {
            self.source[w][lane] = pattern.source.address[w];
            self.target[w][lane] = pattern.target.address[w];
        }
        self.low[lane] = u32::from(pattern.source_ports.first) | u32::from(pattern.target_ports.first) << 16;
        self.high[lane] = u32::from(pattern.source_ports.last) | u32::from(pattern.target_ports.last) << 16;
        let free = |prefix: &Prefix<W>| 32 * W as u32 - u32::from(prefix.length);
        let protocol = pattern.protocol.map_or(0, |protocol| 0xff00 | u32::from(protocol));
        self.meta[lane] = free(&pattern.source) << 24 | free(&pattern.target) << 16 | protocol;
        self.rank[lane] = pattern.rank.0;
        self.source_set[lane] = pattern.source_set;
        self.target_set[lane] = pattern.target_set;
    }

    /// The pattern in a lane, without the mark that the bucket goes on.
    pub fn get(&self, lane: usize) -> Option<Pattern<W>> {
        let rank = Rank(self.rank[lane] & !Rank::MORE);
        if rank.order() == 0 {
            return None;
        }
        let (low, high, meta) = (self.low[lane], self.high[lane], self.meta[lane]);
        let length = |free: u32| (32 * W as u32 - (free & 0xff)) as u8;
        let ports = |shift: u32| Ports {
            first: (low >> shift) as u16,
            last: (high >> shift) as u16,
        };
        Some(Pattern {
            source: Prefix {
                address: std::array::from_fn(|w| self.source[w][lane]),
                length: length(meta >> 24),
            },
            target: Prefix {
                address: std::array::from_fn(|w| self.target[w][lane]),
                length: length(meta >> 16),
            },
            source_ports: ports(0),
            target_ports: ports(16),
            protocol: (meta & 0xff00 != 0).then_some(meta as u8),
            source_set: self.source_set[lane],
            target_set: self.target_set[lane],
            rank,
        })
    }

    /// Its patterns, in descending rank.
    pub fn patterns(&self) -> impl Iterator<Item = Pattern<W>> + '_ {
        (0..LANES).map_while(|lane| self.get(lane))
    }

    /// Whether the bucket goes on in the next block.
    pub fn more(&self) -> bool {
        self.rank[0] & Rank::MORE != 0
    }

    /// The ranks of the patterns that match, in descending order.
    pub fn matching(&self, key: &Key<W>, sets: &Memberships<'_>) -> impl Iterator<Item = Rank> {
        let matches = |pattern: &Pattern<W>| {
            pattern.matches(key) && sets[0].has(pattern.source_set) && sets[1].has(pattern.target_set)
        };
        self.patterns().filter(matches).map(|pattern| pattern.rank)
    }
}

/// Blocks in runs; a bucket is a run. Freed runs are kept by their length.
#[derive(Clone, Debug)]
pub(super) struct Runs<const W: usize> {
    pub blocks: Vec<Block<W>>,
    free: Vec<Vec<u32>>,
}

impl<const W: usize> Runs<W> {
    pub fn new() -> Runs<W> {
        // Block 0 is in no bucket: its number means that there is none.
        Runs {
            blocks: vec![Block::EMPTY],
            free: vec![],
        }
    }

    /// Stores patterns, in descending rank, as a new run: its first block.
    pub fn store(&mut self, patterns: &[Pattern<W>]) -> u32 {
        let count = patterns.len().div_ceil(LANES);
        let first = match self.free.get_mut(count).and_then(Vec::pop) {
            Some(first) => first as usize,
            None => {
                self.blocks.resize(self.blocks.len() + count, Block::EMPTY);
                self.blocks.len() - count
            }
        };
        for (i, patterns) in patterns.chunks(LANES).enumerate() {
            let block = &mut self.blocks[first + i];
            *block = Block::of(patterns);
            if i + 1 < count {
                block.rank[0] |= Rank::MORE;
            }
        }
        first as u32
    }

    /// The blocks of the run at `first`; none for block 0.
    pub fn run(&self, first: u32) -> &[Block<W>] {
        if first == 0 {
            return &[];
        }
        let from = &self.blocks[first as usize..];
        let last = from.iter().position(|block| !block.more()).unwrap_or(0);
        &from[..=last]
    }

    /// The patterns of a run, in descending rank.
    pub fn load(&self, first: u32) -> Vec<Pattern<W>> {
        self.run(first).iter().flat_map(Block::patterns).collect()
    }

    /// Gives the run at `first` back.
    pub fn release(&mut self, first: u32) {
        let count = self.run(first).len();
        if count == 0 {
            return;
        }
        if self.free.len() <= count {
            self.free.resize(count + 1, vec![]);
        }
        self.free[count].push(first);
    }
}
