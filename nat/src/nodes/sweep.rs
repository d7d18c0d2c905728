//! Forgets connections that have been silent for too long: a little of a worker's share of the table each turn.

use crate::expiry::Sweep;
use crate::journal::Pen;
use crate::table::Writer;
use crate::time::Tick;
use crate::timeouts::Timeouts;
use crate::tracking::Tracking;
use fastpath::local::Local;
use fastpath::node::{Source, Turn};
use fastpath::vector::Vector;

/// Time in which a worker looks at its whole share once.
const ROUND_NS: u64 = 4_000_000_000;
/// Places looked at in one turn at most: some microseconds, so that no packet waits for long.
const VISITS_MAX: u32 = 1024;

/// The source, which brings nothing.
pub struct Expiry {
    tracking: Tracking,
    timeouts: Timeouts,
    sweep: Sweep,
    writer: Writer,
    pen: Pen,
    /// Until when places have been looked at.
    done_ns: u64,
}

impl Expiry {
    /// For one of `workers`.
    pub fn new(tracking: Tracking, timeouts: Timeouts, worker: usize, workers: usize) -> Self {
        let sweep = Sweep::new(&tracking.table, worker, workers);
        let pen = tracking.journal.pen();
        Self {
            tracking,
            timeouts,
            sweep,
            writer: Writer::new(),
            pen,
            done_ns: 0,
        }
    }
}

impl Source for Expiry {
    const NAME: &'static str = "expiry";

    fn poll(&mut self, turn: &Turn, _: &mut Local, _: usize, _: &mut Vector) {
        let table = &*self.tracking.table;
        let now = Tick::from_ns(turn.now_ns);
        // What ended in the turn before, also where that was the last there was.
        self.pen.reclaim(table, &mut self.writer, now);
        let round = u64::from(self.sweep.round()).max(1);
        let elapsed_ns = turn.now_ns.saturating_sub(self.done_ns).min(ROUND_NS);
        let due = elapsed_ns * round / ROUND_NS;
        if due == 0 || table.is_empty() {
            return;
        }
        let visits = (due as u32).min(VISITS_MAX);
        // What was not done now is not made up for later than a round.
        self.done_ns = turn.now_ns - (elapsed_ns - u64::from(visits) * ROUND_NS / round);
        self.sweep.visit(table, &mut self.writer, &self.timeouts, now, visits);
    }
}
