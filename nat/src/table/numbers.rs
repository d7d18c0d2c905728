//! Numbers of connections that nobody has, and the wait of those just removed for every worker's turn.

use crate::leg::Leg;
use crate::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use fastpath::qsbr::Qsbr;
use std::collections::VecDeque;

/// Numbers moved together between writers. So many fit the spare words of the first one's legs.
pub(super) const BATCH: usize = if cfg!(loom) { 3 } else { 23 };
/// What a writer keeps to itself at most: one that only removes must not starve the others.
const KEEP: usize = 4 * BATCH;
/// What may wait in one writer.
const LIMBO: usize = if cfg!(loom) { 4 } else { 2048 };
/// Numbers that one writer may hold at a time: a table has as many more than connections, so that it is full only when
/// the connections are.
pub(super) const HELD_MAX: usize = LIMBO + KEEP + BATCH;

/// Numbers never used, and batches that writers gave back: a stack, linked through the legs of free connections, so
/// that it needs no memory.
pub(super) struct Numbers {
    fresh: AtomicU32,
    count: u32,
    /// First number of the topmost batch, and one: 0 is an empty stack. Above it the number of changes so far, without
    /// which a batch that was taken and given back would look as if it had never moved.
    top: AtomicU64,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing came for as long as its state allows.
    Idle,
    /// Never confirmed, and the room was needed.
    Evicted,
    /// To be made anew: it was over and its ends began another, or its backend has gone.
    Removed,
    /// Somebody asked for it.
    Deleted,
}

/// An unlinked connection that workers may still hold.
struct Retired {
    stamp: u64,
    number: u32,
    /// `None`: it never was one.
    end: Option<End>,
}

/// A worker's end of the table, for changes: its free numbers, and what it removed. One for each worker, and one for
/// control, for the life of the table. Allocates nothing after [`Writer::new`].
pub struct Writer {
    free: Vec<u32>,
    limbo: VecDeque<Retired>,
    unstamped: usize,
}

impl Numbers {
    pub fn new(count: u32) -> Self {
        Self {
            fresh: AtomicU32::new(0),
            count,
            top: AtomicU64::new(0),
        }
    }

    /// A batch, or what is left of one.
    pub(super) fn fetch(&self, legs: &[Leg], free: &mut Vec<u32>) {
        if self.pop(legs, free) || self.fresh.load(Relaxed) >= self.count {
            return;
        }
        // Passes the count by a batch a writer at most.
        let from = self.fresh.fetch_add(BATCH as u32, Relaxed);
        let to = (from + BATCH as u32).min(self.count);
        free.extend((from..to).rev());
    }

    fn pop(&self, legs: &[Leg], free: &mut Vec<u32>) -> bool {
        let mut top = self.top.load(Acquire);
        let first = loop {
            let Some(first) = (top as u32).checked_sub(1) else {
                return false;
            };
            // May belong to somebody else by now; then the exchange fails.
            let next = words(legs, first)[0].load(Relaxed) as u32;
            match self.top.compare_exchange_weak(top, changed(top, next), AcqRel, Acquire) {
                Ok(_) => break first,
                Err(now) => top = now,
            }
        };
        free.push(first);
        for word in &words(legs, first)[1..] {
            let pair = word.load(Relaxed);
            free.extend([pair as u32, (pair >> 32) as u32]);
        }
        true
    }

    pub(super) fn push(&self, legs: &[Leg], batch: &[u32; BATCH]) {
        let [first, others @ ..] = batch;
        let words = words(legs, *first);
        for (word, pair) in words[1..].iter().zip(others.chunks_exact(2)) {
            word.store(u64::from(pair[0]) | u64::from(pair[1]) << 32, Relaxed);
        }
        let mut top = self.top.load(Acquire);
        loop {
            words[0].store(top & u64::from(u32::MAX), Relaxed);
            match self
                .top
                .compare_exchange_weak(top, changed(top, first + 1), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }
}

/// What the top of the stack becomes.
fn changed(top: u64, to: u32) -> u64 {
    ((top >> 32) + 1) << 32 | u64::from(to)
}

/// The words that connection `number` lends: one for the link, and one for two numbers each.
fn words(legs: &[Leg], number: u32) -> [&AtomicU64; 1 + BATCH / 2] {
    let leg = number as usize * 2;
    let [there, back] = [legs[leg].spare(), legs[leg + 1].spare()];
    std::array::from_fn(|i| if i < 6 { there[i] } else { back[i - 6] })
}

impl Writer {
    /// One that has nothing yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            free: Vec::with_capacity(KEEP + BATCH),
            limbo: VecDeque::with_capacity(LIMBO),
            unstamped: 0,
        }
    }

    // Inlined, as it must be for who inlines this: a call that gives back a pair of values keeps LLVM from inlining its
    // caller into a function with wider registers.
    #[inline(always)]
    pub(super) fn take(&mut self, numbers: &Numbers, legs: &[Leg]) -> Option<u32> {
        if self.free.is_empty() {
            numbers.fetch(legs, &mut self.free);
        }
        self.free.pop()
    }

    /// The numbers that the next calls of `take` will probably give.
    pub(super) fn next(&self, count: usize) -> impl Iterator<Item = u32> {
        self.free.iter().rev().take(count).copied()
    }

    /// Takes back a number that nobody could find.
    pub(super) fn put_back(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Whether one more may be removed before [`Table::reclaim`](super::Table::reclaim) has freed some.
    pub fn has_room(&self) -> bool {
        self.limbo.len() < LIMBO
    }

    /// Takes an unlinked connection, to be used again once every worker has finished its turn. There has to be room.
    pub(super) fn retire(&mut self, number: u32, end: Option<End>) {
        self.limbo.push_back(Retired { stamp: 0, number, end });
        self.unstamped += 1;
    }

    /// Frees what every worker has left behind, and tells each connection's end before that.
    pub(super) fn reclaim(&mut self, numbers: &Numbers, legs: &[Leg], qsbr: &Qsbr, mut tell: impl FnMut(u32, End)) {
        if self.unstamped > 0 {
            let (stamp, stamped) = (qsbr.stamp(), self.limbo.len() - self.unstamped);
            self.limbo
                .range_mut(stamped..)
                .for_each(|retired| retired.stamp = stamp);
            self.unstamped = 0;
        }
        if self.limbo.is_empty() {
            return;
        }
        let safe = qsbr.safe();
        while let Some(retired) = self.limbo.pop_front_if(|retired| retired.stamp <= safe) {
            if let Some(end) = retired.end {
                tell(retired.number, end);
            }
            legs[retired.number as usize * 2].wipe();
            self.free.push(retired.number);
            // The oldest go: the newest are still in this core's caches.
            if self.free.len() > KEEP
                && let Some(batch) = self.free.first_chunk::<BATCH>()
            {
                numbers.push(legs, batch);
                self.free.drain(..BATCH);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_is_somebody_s_or_free_and_never_both() {
        let count = 500;
        let legs: Vec<Leg> = (0..2 * count).map(|_| Leg::default()).collect();
        let (numbers, qsbr) = (Numbers::new(count), Qsbr::new(0));
        let mut writers = [Writer::new(), Writer::new()];
        let mut held: Vec<u32> = vec![];
        for round in 0..40 {
            while let Some(number) = writers[round % 2].take(&numbers, &legs) {
                held.push(number);
            }
            let distinct: HashSet<_> = held.iter().copied().collect();
            assert_eq!(distinct.len(), held.len(), "given twice");
            let kept = writers.iter().map(|writer| writer.free.len()).sum::<usize>();
            assert_eq!(held.len() + kept, count as usize, "a number was lost");
            let other = &mut writers[round % 3 % 2];
            held.drain(..held.len() * 2 / 3)
                .for_each(|number| other.retire(number, None));
            other.reclaim(&numbers, &legs, &qsbr, |_, _| panic!("nothing ended"));
            assert!(other.free.len() <= KEEP);
        }
    }
}
