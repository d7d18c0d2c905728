//! What workers hold: lookups, one address at a time or in vectors.

use super::NO_ROUTE;
use super::arena::{Place, Region};
use super::key::Key;
use super::node::{NONE, is_child};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The most addresses looked up together.
const VECTOR: usize = 256;

/// One table as readers see it. Never blocks, never waits for the thread that changes the table.
///
/// A worker that looks up has to be online in the [`Qsbr`](crate::qsbr::Qsbr) of the table's pool and to announce its
/// turns, else it may get the answer of a table that no longer is.
pub struct View<K> {
    pub(super) region: Arc<Region>,
    pub(super) root: AtomicU64,
    /// The default route's id; it is not in the trie.
    pub(super) default: AtomicU32,
    pub(super) key: PhantomData<K>,
}

/// How the first bits are looked up, in one word, so that readers see one form or the other.
#[derive(Clone, Copy)]
pub(super) enum Root {
    /// The slot of the whole address space.
    Slot(u32),
    /// The line of an array with a slot for each value of the first 16 bits.
    Wide(u32),
}

impl Root {
    pub fn to_word(self) -> u64 {
        match self {
            Root::Slot(slot) => u64::from(slot) << 1 | 1,
            Root::Wide(line) => u64::from(line) << 1,
        }
    }

    #[inline(always)]
    pub fn from_word(word: u64) -> Root {
        match word & 1 {
            1 => Root::Slot((word >> 1) as u32),
            _ => Root::Wide((word >> 1) as u32),
        }
    }
}

impl<K: Key> View<K> {
    /// The id of the longest prefix that holds `address`, or [`NO_ROUTE`].
    #[inline]
    pub fn lookup(&self, address: K) -> u32 {
        let memory = self.region.memory();
        let (mut slot, mut depth) = match Root::from_word(self.root.load(Acquire)) {
            Root::Slot(slot) => (slot, 0),
            Root::Wide(line) => (memory.word(memory.entry(line, address.first_16())).load(Acquire), 16),
        };
        while is_child(slot) && depth < K::BITS {
            slot = memory.word(memory.slot(slot, address.byte(depth))).load(Acquire);
            depth += 8;
        }
        if slot == NONE {
            self.default.load(Relaxed)
        } else {
            slot & NO_ROUTE
        }
    }

    /// Looks up each address; `ids[i]` becomes the answer for `addresses[i]`. Fastest in vectors of 256.
    ///
    /// # Panics
    /// If the two are not equally long.
    #[inline]
    pub fn lookup_batch(&self, addresses: &[K], ids: &mut [u32]) {
        assert_eq!(addresses.len(), ids.len(), "an id for each address");
        for (addresses, ids) in addresses.chunks(VECTOR).zip(ids.chunks_mut(VECTOR)) {
            self.vector(addresses, ids);
        }
    }

    /// All addresses go down one level together: first each asks for its word, then each reads it and asks for the
    /// next node, so that the cache misses of a level overlap.
    fn vector(&self, addresses: &[K], ids: &mut [u32]) {
        let memory = self.region.memory();
        let default = self.default.load(Relaxed);
        // Who is still on the way down, and where each one's next word is.
        let mut live = [0u8; VECTOR];
        let mut places = [Place::default(); VECTOR];
        let mut count = 0;
        let mut depth = 0;
        match Root::from_word(self.root.load(Acquire)) {
            Root::Slot(slot) => {
                ids.fill(slot);
                if is_child(slot) {
                    count = ids.len();
                    live.iter_mut().enumerate().for_each(|(i, at)| *at = i as u8);
                }
            }
            Root::Wide(line) => {
                depth = 16;
                for (i, (address, id)) in addresses.iter().zip(ids.iter_mut()).enumerate() {
                    let slot = memory.word(memory.entry(line, address.first_16())).load(Acquire);
                    *id = slot;
                    memory.prefetch_line(child_or_0(slot));
                    live[count & (VECTOR - 1)] = i as u8;
                    count += usize::from(is_child(slot));
                }
            }
        }
        while count != 0 && depth < K::BITS {
            for (i, place) in live[..count].iter().zip(&mut places) {
                let i = usize::from(*i);
                *place = memory.slot(ids[i], addresses[i].byte(depth));
                memory.prefetch(*place);
            }
            let mut left = 0;
            for j in 0..count {
                let i = live[j & (VECTOR - 1)];
                let slot = memory.word(places[j & (VECTOR - 1)]).load(Acquire);
                ids[usize::from(i)] = slot;
                memory.prefetch_line(child_or_0(slot));
                live[left & (VECTOR - 1)] = i;
                left += usize::from(is_child(slot));
            }
            count = left;
            depth += 8;
        }
        for id in ids {
            *id = if *id == NONE { default } else { *id & NO_ROUTE };
        }
    }
}

/// The line of a child, or line 0, which is always there, for a leaf; without a branch.
#[inline(always)]
fn child_or_0(slot: u32) -> u32 {
    slot & ((slot as i32) >> 31) as u32
}
