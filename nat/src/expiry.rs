//! Removes connections that have been silent for too long: a hand that goes round the array of legs.
//!
//! Memory in order costs less than a wheel of timers: 14 cycles a live connection against 53 to 71, and no memory of its
//! own. Each worker sweeps a share of the array, whoever made the connections there.

use crate::table::{Connection, End, Table, Writer};
use crate::time::Tick;
use crate::timeouts::Timeouts;

/// Connections whose buckets are asked for ahead of their removal.
const AHEAD: u32 = 16;

/// One worker's hand.
#[derive(Debug)]
pub struct Sweep {
    share: std::ops::Range<u32>,
    hand: u32,
}

impl Sweep {
    /// The hand of one of `workers`, for its part of the table.
    pub fn new(table: &Table, worker: usize, workers: usize) -> Self {
        let end = u64::from(table.numbers_end());
        let part = |worker: usize| (end * worker as u64 / workers.max(1) as u64) as u32;
        let share = part(worker)..part(worker + 1);
        Self {
            hand: share.start,
            share,
        }
    }

    /// Places in this worker's part of the table: so many visits are one round.
    pub fn round(&self) -> u32 {
        self.share.end - self.share.start
    }

    /// Visits the next `visits` places and removes the connections there that have been silent for too long; returns how
    /// many. The cost is bounded by `visits`, each of two lines in memory order.
    pub fn visit(&mut self, table: &Table, writer: &mut Writer, timeouts: &Timeouts, now: Tick, visits: u32) -> u32 {
        let mut removed = 0;
        let mut left = visits.min(self.round());
        // Entries of the unconfirmed grow old at the pace of new connections; four a visit keep up with any.
        table.forget_confirmed(left as usize * 4);
        while left > 0 {
            let to = (self.hand + left).min(self.share.end);
            left -= to - self.hand;
            removed += visit_range(table, writer, self.hand..to, |connection| {
                connection.idle(now) >= timeouts.ticks(&connection)
            });
            self.hand = if to == self.share.end { self.share.start } else { to };
        }
        removed
    }
}

fn visit_range(
    table: &Table,
    writer: &mut Writer,
    range: std::ops::Range<u32>,
    is_silent: impl Fn(Connection<'_>) -> bool,
) -> u32 {
    let is_stale = |number: u32| {
        let connection = table.connection(number * 2);
        connection.is_in_use() && is_silent(connection)
    };
    let mut removed = 0;
    for number in range.clone() {
        let ahead = number + AHEAD;
        if ahead < range.end && is_stale(ahead) {
            table.expect_removal(ahead * 2);
        }
        let still = || is_stale(number);
        if still() && table.remove_if(writer, number * 2, End::Idle, still) {
            removed += 1;
        }
    }
    removed
}
