//! A bucket of the index: one line with tags of ten keys' hashes, and the legs they stand for.
//!
//! Whoever changes a bucket holds its lock. To publish: the leg's words, then the slot's leg (release), then its tag
//! (release). To remove: the tag becomes 0. A key never moves while it lives, so readers need no lock and no sequence
//! number: they read tags, then the leg under an equal tag, then compare the whole key. What is stale leads to a key that
//! differs, or to a connection removed in this very turn, whose memory is still intact.

use super::lanes::Lanes;
use crate::leg::LegId;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::spin_loop;

/// Keys in a bucket.
pub(super) const SLOTS: u32 = 10;

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Bucket {
    tags: [AtomicU64; 2],
    /// Tags of the last two slots.
    tail: AtomicU32,
    pub control: Control,
    legs: [AtomicU32; SLOTS as usize],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// Slots whose tag is that of `hash`, one bit each.
    #[inline(always)]
    pub fn find(&self, lanes: impl Lanes, hash: u64) -> u32 {
        // Lanes behind the tenth are 0, and a tag never is.
        lanes.equal(self.tags(), tag(hash))
    }

    /// The leg in a slot.
    #[inline(always)]
    pub fn leg(&self, slot: u32) -> LegId {
        self.legs[slot as usize].load(Ordering::Acquire)
    }

    /// A free slot, if any. The caller holds the lock.
    #[inline(always)]
    pub fn vacancy(&self, lanes: impl Lanes) -> Option<u32> {
        let slot = self.used(lanes).trailing_ones();
        (slot < SLOTS).then_some(slot)
    }

    /// Slots in use, one bit each.
    #[inline(always)]
    pub fn used(&self, lanes: impl Lanes) -> u32 {
        !lanes.equal(self.tags(), 0) & ((1 << SLOTS) - 1)
    }

    /// Publishes. The caller holds the lock, and the slot is free.
    #[inline(always)]
    pub fn set(&self, slot: u32, hash: u64, leg: LegId) {
        self.legs[slot as usize].store(leg, Ordering::Release);
        self.write_tag(slot, tag(hash));
    }

    /// Removes. The caller holds the lock.
    pub fn clear(&self, slot: u32) {
        self.write_tag(slot, 0);
    }

    #[inline(always)]
    fn tags(&self) -> [u64; 4] {
        // Acquire: the leg read after a tag must be at least as new as the tag.
        let tail = u64::from(self.tail.load(Ordering::Acquire));
        let [low, high] = &self.tags;
        [low.load(Ordering::Acquire), high.load(Ordering::Acquire), tail, 0]
    }

    #[inline(always)]
    fn write_tag(&self, slot: u32, tag: u16) {
        let (word, shift) = (slot as usize / 4, slot % 4 * 16);
        // Release: the leg stored before must be seen with this tag.
        match self.tags.get(word) {
            Some(word) => {
                let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
                word.store(others | u64::from(tag) << shift, Ordering::Release);
            }
            None => {
                let others = self.tail.load(Ordering::Relaxed) & !(0xffff << shift);
                self.tail.store(others | u32::from(tag) << shift, Ordering::Release);
            }
        }
    }
}

/// The tag of a hash; 0 is that of empty slots. Which bucket a key is in comes from the upper half of its hash.
#[inline(always)]
fn tag(hash: u64) -> u16 {
    (hash as u16).max(1)
}

const LOCK: u32 = 1 << 31;

/// A bucket's lock, and how many keys went past it to a later bucket.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(super) struct Control(AtomicU32);

/// Unlocks when dropped.
pub(super) struct Locked<'a>(&'a Control);

impl Control {
    /// Waits for the lock. It is held for some tens of instructions.
    pub fn lock(&self) -> Locked<'_> {
        while self.0.fetch_or(LOCK, Ordering::Acquire) & LOCK != 0 {
            while self.0.load(Ordering::Relaxed) & LOCK != 0 {
                spin_loop();
            }
        }
        Locked(self)
    }

    /// Whether a key of this bucket may be in a later one.
    #[inline(always)]
    pub fn overflows(&self) -> bool {
        self.0.load(Ordering::Acquire) & !LOCK != 0
    }

    /// Before a key is published beyond this bucket; needs no lock.
    pub fn passed_by(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// After a key that went past was removed.
    pub fn passed_back(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_and(!LOCK, Ordering::Release);
    }
}
