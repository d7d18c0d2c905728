//! Which backend of a service a new connection goes to: Maglev (Eisenbud et al., NSDI 2016), in rows.
//!
//! A hash names a slot, and a slot a backend. The slots of a Maglev table are shared out by turns, each backend taking
//! the next free slot of a permutation of its own; so one backend's change touches all of them, and moves slots of
//! others. Here the table is cut into rows of few slots. A backend takes part in some rows, which its id alone decides,
//! and each row is a small Maglev table of its members. A change rebuilds the rows of one backend and no others.
//!
//! What stands in the table follows from the ids and weights of the backends, and from nothing else: not from the order
//! in which they came, nor from what was before. So it survives a restart, and is equal on every node.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::table::sip;
use std::collections::HashMap;

/// Up to so many backends are in one row. Of more, each row has half of that to that on average.
const MEMBERS: usize = 64;
/// Rows that a backend takes part in, where there are several.
const ROWS_EACH: usize = 64;
/// Slots of a table of one row, and of each of several: primes, so that any step walks through all of them.
const SLOTS_ONE: usize = 2039;
const SLOTS_MANY: usize = 131;
/// The most a backend can weigh.
pub const WEIGHT_MAX: u32 = 1 << 16;

/// The same on all nodes, of necessity: whoever can choose addresses of backends is trusted.
const ROW_KEY: [u64; 2] = [0x6d61_7267_6179, 1];
const SLOT_KEY: [u64; 2] = [0x6d61_7267_6179, 2];

const NOBODY: u32 = u32::MAX;

/// A backend, as it takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it is known by everywhere: a hash of its address and port. Of two with the same one the later replaces the
    /// earlier.
    pub id: u64,
    /// What a lookup says, below `u32::MAX`: each node may number as it likes.
    pub number: u32,
    /// Its share against those of the others, at most [`WEIGHT_MAX`]; 0 takes part in nothing.
    pub weight: u32,
}

impl Backend {
    fn share(&self) -> u32 {
        self.weight.min(WEIGHT_MAX)
    }
}

/// The table of one service. Control changes it in place while workers look up.
#[derive(Debug, Default)]
pub struct Maglev {
    backends: HashMap<u64, Backend>,
    /// Ids of each row's members, in no order.
    rows: Vec<Vec<u64>>,
    slots: Vec<AtomicU32>,
}

impl Maglev {
    /// The table of these backends.
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Self {
        let taking_part = backends.into_iter().filter(|backend| backend.weight > 0);
        let mut maglev = Self {
            backends: taking_part.map(|backend| (backend.id, backend)).collect(),
            ..Self::default()
        };
        maglev.rebuild();
        maglev
    }

    /// Number of the backend for a connection with this hash, of which all 64 bits count; `None` if there is none.
    #[inline]
    pub fn choose(&self, hash: u64) -> Option<u32> {
        let place = (u128::from(hash) * self.slots.len() as u128) >> 64;
        let number = self.slots.get(place as usize)?.load(Relaxed);
        (number != NOBODY).then_some(number)
    }

    /// Backends that take part.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Adds a backend, or gives it another weight or number. True if the table has changed its size: workers then need
    /// the new one; a change of the same size is in the slots already.
    pub fn set(&mut self, backend: Backend) -> bool {
        if backend.weight == 0 {
            return self.remove(backend.id);
        }
        let was = self.backends.insert(backend.id, backend);
        if self.resize() {
            return true;
        }
        for row in rows_of(backend.id, self.rows.len()) {
            if was.is_none() {
                self.rows[row].push(backend.id);
            }
            self.fill(row);
        }
        false
    }

    /// Removes a backend. True if the table has changed its size.
    pub fn remove(&mut self, id: u64) -> bool {
        if self.backends.remove(&id).is_none() {
            return false;
        }
        if self.resize() {
            return true;
        }
        for row in rows_of(id, self.rows.len()) {
            self.rows[row].retain(|member| *member != id);
            self.fill(row);
        }
        false
    }

    /// Rebuilds if the number of backends asks for another number of rows.
    fn resize(&mut self) -> bool {
        let is_due = rows_for(self.backends.len()) != self.rows.len();
        if is_due {
            self.rebuild();
        }
        is_due
    }

    fn rebuild(&mut self) {
        let count = rows_for(self.backends.len());
        self.rows = vec![vec![]; count];
        for id in self.backends.keys() {
            rows_of(*id, count).for_each(|row| self.rows[row].push(*id));
        }
        let slots = count * if count == 1 { SLOTS_ONE } else { SLOTS_MANY };
        self.slots = (0..slots).map(|_| AtomicU32::new(NOBODY)).collect();
        (0..count).for_each(|row| self.fill(row));
    }

    /// Shares the slots of a row out among its members.
    fn fill(&self, row: usize) {
        let count = self.slots.len() / self.rows.len();
        let slots = &self.slots[row * count..][..count];
        let members = self.rows[row].iter().map(|id| &self.backends[id]);
        let heaviest = members.clone().map(Backend::share).max().unwrap_or(0);
        let mut turns: Vec<Turns> = members
            .map(|backend| Turns::new(backend, row, count, heaviest))
            .collect();
        // Who comes first in a row is another one in the next row.
        turns.sort_unstable_by_key(|turns| turns.order);
        let mut owners = vec![NOBODY; count];
        let mut left = if turns.is_empty() { 0 } else { count };
        while left > 0 {
            for turns in &mut turns {
                if left > 0 && turns.is_due(heaviest) {
                    let slot = turns.take(&owners);
                    owners[slot] = turns.number;
                    left -= 1;
                }
            }
        }
        for (slot, owner) in slots.iter().zip(owners) {
            slot.store(owner, Relaxed);
        }
    }
}

/// Rows of a table of so many backends.
fn rows_for(backends: usize) -> usize {
    if backends <= MEMBERS {
        1
    } else {
        backends.next_power_of_two()
    }
}

/// The rows that a backend takes part in; all different, as the step is odd and the number of rows a power of two.
fn rows_of(id: u64, rows: usize) -> impl Iterator<Item = usize> {
    let hash = sip(ROW_KEY, &[id]);
    let (first, step) = (hash as u32 as usize, (hash >> 32) as usize | 1);
    (0..ROWS_EACH.min(rows)).map(move |n| first.wrapping_add(n.wrapping_mul(step)) & (rows - 1))
}

/// A member of a row while its slots are shared out.
struct Turns {
    order: (u64, u64),
    number: u32,
    weight: u32,
    /// What it has saved up for its next turn.
    credit: u32,
    next: usize,
    step: usize,
}

impl Turns {
    fn new(backend: &Backend, row: usize, slots: usize, heaviest: u32) -> Self {
        let hash = sip(SLOT_KEY, &[backend.id, row as u64]);
        Self {
            order: (hash, backend.id),
            number: backend.number,
            weight: backend.share(),
            // Anything below a turn: on average over rows nobody is early or late.
            credit: ((u64::from((hash >> 16) as u32) * u64::from(heaviest)) >> 32) as u32,
            next: (hash as u32) as usize % slots,
            step: (hash >> 32) as usize % (slots - 1) + 1,
        }
    }

    /// The heaviest are due each time, others in proportion.
    fn is_due(&mut self, heaviest: u32) -> bool {
        self.credit += self.weight;
        let is_due = self.credit >= heaviest;
        if is_due {
            self.credit -= heaviest;
        }
        is_due
    }

    /// Its next free slot, of which there is one.
    fn take(&mut self, owners: &[u32]) -> usize {
        while owners[self.next] != NOBODY {
            self.next += self.step;
            // Cheaper than a division: both were below the number of slots.
            if self.next >= owners.len() {
                self.next -= owners.len();
            }
        }
        self.next
    }
}

#[cfg(test)]
#[path = "maglev/tests.rs"]
mod tests;
