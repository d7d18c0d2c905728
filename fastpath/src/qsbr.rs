//! Quiescent states: when may memory that was unlinked be used again?
//!
//! Reclamation by quiescent states (McKenney and Slingwine, 1998). Readers take no locks and write one word of their
//! own a turn. Whoever changes a structure first unlinks a part of it, then takes a [`stamp`](Qsbr::stamp), and reuses
//! the part once [`safe`](Qsbr::safe) has reached the stamp: every worker has then finished the turn it was in.
//! One `Qsbr` serves the whole process, however many structures change under its readers.

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release, SeqCst},
    fence,
};

/// Worker that reads nothing; later than any stamp.
const IDLE: u64 = u64::MAX;

/// Two cache lines: the adjacent-line prefetcher moves them in pairs.
#[repr(align(128))]
struct Slot(AtomicU64);

/// One counter that writers advance, and one a worker that follows it.
pub struct Qsbr {
    now: Slot,
    seen: Vec<Slot>,
}

impl Qsbr {
    /// For workers 0 to `workers` - 1, all offline.
    pub fn new(workers: usize) -> Qsbr {
        let seen = (0..workers).map(|_| Slot(AtomicU64::new(IDLE))).collect();
        Qsbr {
            now: Slot(AtomicU64::new(1)),
            seen,
        }
    }

    /// Worker: begins to read shared structures. Nothing may be read before this returns.
    ///
    /// # Panics
    /// If there is no such worker, as do the two below.
    pub fn online(&self, worker: usize) {
        // Release, although it only announces: a writer that meets this value instead of `offline`'s must still see
        // that the reads before `offline` are over.
        self.seen[worker].0.store(self.now.0.load(Acquire), Release);
        // Either a writer's `safe` sees the store above, or this worker's loads see what that writer unlinked.
        fence(SeqCst);
    }

    /// Worker: holds nothing any more, until `online`. To be called before it sleeps, or reclamation waits for it.
    pub fn offline(&self, worker: usize) {
        self.seen[worker].0.store(IDLE, Release);
    }

    /// Worker: once a turn, while online and between vectors; whatever was read before is let go.
    #[inline(always)]
    pub fn turn(&self, worker: usize) {
        self.seen[worker].0.store(self.now.0.load(Acquire), Release);
    }

    /// Writer: the stamp of everything that was unlinked before this call. From any thread.
    pub fn stamp(&self) -> u64 {
        self.now.0.fetch_add(1, SeqCst) + 1
    }

    /// Writer: what has a stamp up to this one is seen by no worker and may be used again.
    pub fn safe(&self) -> u64 {
        fence(SeqCst);
        self.seen.iter().map(|slot| slot.0.load(Acquire)).min().unwrap_or(IDLE)
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn waits_for_online_workers_only() {
        let qsbr = Qsbr::new(2);
        assert!(qsbr.stamp() <= qsbr.safe(), "nobody reads");
        qsbr.online(0);
        let stamp = qsbr.stamp();
        assert!(stamp > qsbr.safe(), "worker 0 may hold what was unlinked");
        qsbr.online(1);
        assert!(
            stamp > qsbr.safe(),
            "worker 1 came later, worker 0 is still in its turn"
        );
        qsbr.turn(0);
        assert!(stamp <= qsbr.safe());
        assert!(qsbr.stamp() > qsbr.safe());
        qsbr.offline(0);
        qsbr.offline(1);
        assert!(qsbr.stamp() <= qsbr.safe());
    }

    #[test]
    fn without_workers_everything_is_safe() {
        let qsbr = Qsbr::new(0);
        assert_eq!(qsbr.workers(), 0);
        assert!(qsbr.stamp() <= qsbr.safe());
    }
}
