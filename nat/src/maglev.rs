//! Which backend of a service a new connection goes to: Maglev (Eisenbud et al., NSDI 2016), in rows.
//!
//! A hash names a slot, and a slot a backend. The slots of a Maglev table are shared out by turns, each backend taking
//! the next free slot of a permutation of its own; so one backend's change touches all of them, and moves slots of
//! others. A table of few backends is filled anew in microseconds. That of many is cut into rows of few slots: a backend
//! takes part in some rows, which its id alone decides, and each row is a small Maglev table of its members. A change
//! refills the rows of one backend and no others.
//!
//! What stands in the table follows from the ids and weights of the backends, and from nothing else: not from the order
//! in which they came, nor from what was before. So it survives a restart, and is equal on every node.

use crate::table::{prefetch, sip};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// Slots of a table of one row, by the backends it has at most: primes, so that any step walks through all of them, and
/// at least ten a backend.
const SINGLE: [(usize, usize); 5] = [(16, 251), (50, 521), (100, 1031), (200, 2053), (256, 4099)];
/// Up to so many backends are in one row. Of more, each row has 16 to 32 on average.
const MEMBERS: usize = 256;
/// Rows that a backend takes part in, where there are several.
const ROWS_EACH: usize = 32;
/// Slots of each of several rows.
const SLOTS_MANY: usize = 97;
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

/// The slots of a service, as workers read them: it never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Arc<[u32]>);

impl Table {
    /// Number of the backend for a connection with this hash, of which all 64 bits count; `None` if there is none.
    #[inline]
    pub fn choose(&self, hash: u64) -> Option<u32> {
        let number = *self.0.get(self.place(hash))?;
        (number != NOBODY).then_some(number)
    }

    /// Asks for the cache line of a slot.
    #[inline]
    pub(crate) fn warm(&self, hash: u64) {
        if let Some(slot) = self.0.get(self.place(hash)) {
            prefetch(slot);
        }
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    /// The number in each slot.
    pub fn slots(&self) -> &[u32] {
        &self.0
    }
}

/// The hash of an id, which is one already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ById(u64);

impl BuildHasher for ById {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 ^ u64::from(*byte));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The backends of one service, and the table that follows from them.
#[derive(Debug, Default)]
pub struct Maglev {
    backends: HashMap<u64, Backend, ById>,
    /// Each row's members, by their turn.
    rows: Vec<Vec<Member>>,
    /// Rows whose members have changed since the table was last asked for.
    stale: Vec<bool>,
    table: Table,
}

impl Maglev {
    /// That of these backends.
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Self {
        let taking_part = backends.into_iter().filter(|backend| backend.weight > 0);
        Self {
            backends: taking_part.map(|backend| (backend.id, backend)).collect(),
            ..Self::default()
        }
    }

    /// Backends that take part.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Adds a backend, or gives it another weight or number.
    pub fn set(&mut self, backend: Backend) {
        if backend.weight == 0 {
            return self.remove(backend.id);
        }
        self.leave(backend.id);
        self.backends.insert(backend.id, backend);
        if self.is_of_size() {
            self.join(&backend);
        }
    }

    /// Removes a backend.
    pub fn remove(&mut self, id: u64) {
        self.leave(id);
        self.backends.remove(&id);
    }

    /// The table of the backends as they are. Costs what has changed since it was last asked for, and a copy if somebody
    /// still reads the one before.
    pub fn table(&mut self) -> Table {
        let slots = slots_for(self.backends.len());
        if !self.is_of_size() || self.table.0.len() != slots * self.rows.len() {
            self.share_out(slots);
        }
        if self.stale.contains(&true) {
            let all = Arc::make_mut(&mut self.table.0);
            let mut turns = Vec::with_capacity(MEMBERS);
            let rows = self.rows.iter().zip(&mut self.stale).zip(all.chunks_exact_mut(slots));
            for ((members, _), owners) in rows.filter(|((_, stale), _)| **stale) {
                fill(members, owners, &mut turns);
            }
            self.stale.fill(false);
        }
        self.table.clone()
    }

    /// Whether there are as many rows as so many backends ask for. Where not, all is shared out anew before long.
    fn is_of_size(&self) -> bool {
        rows_for(self.backends.len()) == self.rows.len()
    }

    /// Gives every backend its rows, and every row its slots.
    fn share_out(&mut self, slots: usize) {
        let count = rows_for(self.backends.len());
        let mut rows = vec![vec![]; count];
        for backend in self.backends.values() {
            rows_of(backend.id, count).for_each(|row| rows[row].push(Member::new(backend, row)));
        }
        rows.iter_mut().for_each(|row| row.sort_unstable_by_key(Member::order));
        self.rows = rows;
        self.stale = vec![true; count];
        self.table = Table(vec![NOBODY; count * slots].into());
    }

    fn join(&mut self, backend: &Backend) {
        for row in rows_of(backend.id, self.rows.len()) {
            let member = Member::new(backend, row);
            let place = self.rows[row].partition_point(|other| other.order() < member.order());
            self.rows[row].insert(place, member);
            self.stale[row] = true;
        }
    }

    fn leave(&mut self, id: u64) {
        if !self.backends.contains_key(&id) {
            return;
        }
        for row in rows_of(id, self.rows.len()) {
            self.rows[row].retain(|member| member.id != id);
            self.stale[row] = true;
        }
    }
}

/// Rows of a table of so many backends.
fn rows_for(backends: usize) -> usize {
    match backends {
        0 => 0,
        1..=MEMBERS => 1,
        _ => backends.next_power_of_two(),
    }
}

/// Slots of each row of such a table.
fn slots_for(backends: usize) -> usize {
    let single = SINGLE.iter().find(|(most, _)| backends <= *most);
    single.map_or(SLOTS_MANY, |(_, slots)| *slots)
}

/// The rows that a backend takes part in; all different, as the step is odd and the number of rows a power of two.
fn rows_of(id: u64, rows: usize) -> impl Iterator<Item = usize> {
    let hash = if rows > 1 { sip(ROW_KEY, &[id]) } else { 0 };
    let (first, step) = (hash as u32 as usize, (hash >> 32) as usize | 1);
    (0..ROWS_EACH.min(rows)).map(move |n| first.wrapping_add(n.wrapping_mul(step)) & (rows - 1))
}

/// A member of a row.
#[derive(Clone, Debug)]
struct Member {
    id: u64,
    /// Another one in each row: so is who comes first.
    hash: u64,
    number: u32,
    weight: u32,
}

impl Member {
    fn new(backend: &Backend, row: usize) -> Self {
        Self {
            id: backend.id,
            hash: sip(SLOT_KEY, &[backend.id, row as u64]),
            number: backend.number,
            weight: backend.weight.min(WEIGHT_MAX),
        }
    }

    fn order(&self) -> (u64, u64) {
        (self.hash, self.id)
    }
}

/// Where a member stands while its row is shared out.
struct Turns {
    number: u32,
    weight: u32,
    /// What it has saved up for its next turn.
    credit: u32,
    next: u32,
    step: u32,
}

/// Shares the slots of a row out among its members. `turns` is for reuse.
fn fill(members: &[Member], owners: &mut [u32], turns: &mut Vec<Turns>) {
    owners.fill(NOBODY);
    let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(0);
    let below = |bits: u64, bound: u32| (((bits & 0xffff_ffff) * u64::from(bound)) >> 32) as u32;
    let count = owners.len() as u32;
    turns.clear();
    turns.extend(members.iter().map(|member| Turns {
        number: member.number,
        weight: member.weight,
        // Anything below a turn: on average over rows nobody is early or late.
        credit: below(member.hash >> 16, heaviest),
        next: below(member.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32, count),
        step: below(member.hash, count - 1) + 1,
    }));
    let mut left = if turns.is_empty() { 0 } else { count };
    while left > 0 {
        for turns in &mut *turns {
            if left > 0 && turns.is_due(heaviest) {
                turns.take(owners);
                left -= 1;
            }
        }
    }
}

impl Turns {
    /// The heaviest are due each time, others in proportion.
    #[inline(always)]
    fn is_due(&mut self, heaviest: u32) -> bool {
        self.credit += self.weight;
        let is_due = self.credit >= heaviest;
        if is_due {
            self.credit -= heaviest;
        }
        is_due
    }

    /// Takes its next free slot, of which there is one.
    #[inline(always)]
    fn take(&mut self, owners: &mut [u32]) {
        let (count, mut next) = (owners.len() as u32, self.next);
        while owners[next as usize] != NOBODY {
            next += self.step;
            // Cheaper than a division: both were below the number of slots.
            next = next.min(next.wrapping_sub(count));
        }
        owners[next as usize] = self.number;
        self.next = next;
    }
}

#[cfg(test)]
#[path = "maglev/tests.rs"]
mod tests;
