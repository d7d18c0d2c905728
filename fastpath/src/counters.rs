//! What every stage counts without its author's help.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written by one worker, read by anyone: a plain load and store, never a locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker calls this.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value; only the owning worker calls this.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value some time in the recent past.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One stage's counters on one worker. Two cache lines' worth of alignment: workers do not share lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// Times the stage was asked to run: for a source, each poll; else each vector that arrived.
    pub calls: Counter,
    /// Times it ran with at least one packet.
    pub vectors: Counter,
    /// Packets it handled.
    pub packets: Counter,
    /// Time-stamp counter cycles spent on them.
    pub cycles: Counter,
    /// Packets by edge, in the order of the edges' names.
    pub edges: Box<[Counter]>,
    /// Packets dropped, in the order of the reasons' names; the last is for packets left undecided.
    pub drops: Box<[Counter]>,
}

impl Counters {
    pub(crate) fn new(edges: usize, drops: usize) -> Self {
        Self {
            calls: Counter::default(),
            vectors: Counter::default(),
            packets: Counter::default(),
            cycles: Counter::default(),
            edges: (0..edges).map(|_| Counter::default()).collect(),
            drops: (0..=drops).map(|_| Counter::default()).collect(),
        }
    }
}
