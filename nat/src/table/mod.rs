//! One table of connections for the whole process: read by every worker without locks, changed under the lock of one
//! bucket, its memory used again only after every worker has finished the turn it was in.
//!
//! An index of buckets over an array of legs, both of a size fixed when the table is made. A connection takes two legs of
//! 64 bytes, two of the ten slots of a 64-byte bucket (of which a full table leaves a quarter empty), eight bytes for
//! what the legs of IPv6 have no room for, and four for its place among the unconfirmed: 157 bytes.
//!
//! Whoever looks up, or inserts, has to be online in the [`Qsbr`] that the table was made with, as workers are. Others may
//! look through it, and remove what they saw ([`Table::remove_seen`]).

mod bucket;
mod embryos;
mod hash;
mod insert;
mod lanes;
mod lookup;
mod memory;
#[cfg(all(test, loom))]
mod model;
mod numbers;
mod remove;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use hash::sip;
pub use insert::{New, Refused};
pub use lookup::{Asker, Scratch};
pub(crate) use memory::prefetch;
pub use numbers::{End, Writer};

use crate::key::Key;
use crate::leg::{Leg, LegId, Mark};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::time::Tick;
use bucket::{Bucket, SLOTS};
use embryos::{Embryos, NUMBERS_MAX};
use fastpath::qsbr::Qsbr;
use hash::Seed;
use lanes::{Lanes, Way, with_lanes};
use memory::Lines;
use numbers::{HELD_MAX, Numbers};
use std::sync::Arc;

/// Buckets a key may be away from its home: far more than the average, as one chain that long refuses a connection while
/// the table has room. (Sixteen were too few: of a million connections at 75 % load some did not fit.) The index has as
/// many spare buckets at its end, so that a walk never wraps and locks are always taken in ascending order.
const REACH: usize = if cfg!(loom) { 2 } else { 64 };
/// Slots in use when the table is full, in percent.
const LOAD: usize = 75;

/// The most connections a table can have.
pub const CONNECTIONS_MAX: u32 = NUMBERS_MAX / 2;

/// How a table is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Connections it holds: 1 to [`CONNECTIONS_MAX`].
    pub connections: u32,
    /// Writers there will be: workers, and one for control.
    pub writers: usize,
    /// Random bits: whoever knows them can make keys collide.
    pub seed: u64,
}

/// The table.
pub struct Table {
    way: Way,
    seed: Seed,
    buckets: Lines<Bucket>,
    homes: u64,
    legs: Lines<Leg>,
    /// The tracker's number of each leg of IPv6.
    numbers_v6: Lines<AtomicU32>,
    numbers: Numbers,
    embryos: Embryos,
    qsbr: Arc<Qsbr>,
    connections: u32,
    live: AtomicU32,
    evicted: AtomicU64,
}

impl Table {
    /// An empty table. Takes address space; the kernel backs it as it is touched, with huge pages where it has them.
    ///
    /// # Errors
    /// The kernel's, when the address space cannot be had.
    pub fn new(shape: &Shape, qsbr: Arc<Qsbr>) -> std::io::Result<Self> {
        let best = Way::all()[0];
        Self::with_way(shape, qsbr, best)
    }

    fn with_way(shape: &Shape, qsbr: Arc<Qsbr>, way: Way) -> std::io::Result<Self> {
        let connections = shape.connections.clamp(1, CONNECTIONS_MAX);
        let reserve = shape.writers.saturating_mul(HELD_MAX).min(CONNECTIONS_MAX as usize);
        let numbers = connections as usize + reserve;
        let homes = (connections as usize * 2 * 100).div_ceil(SLOTS as usize * LOAD);
        Ok(Self {
            way,
            seed: Seed::new(shape.seed),
            buckets: Lines::new(homes + REACH)?,
            homes: homes as u64,
            legs: Lines::new(numbers * 2)?,
            numbers_v6: Lines::new(numbers * 2)?,
            numbers: Numbers::new(numbers as u32),
            embryos: Embryos::new(connections)?,
            qsbr,
            connections,
            live: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// Has the kernel back the whole table now (a second for some gigabytes), so that no worker waits for a page.
    pub fn populate(&self) {
        self.buckets.populate();
        self.legs.populate();
        self.numbers_v6.populate();
        self.embryos.populate();
    }

    /// Connections it can hold.
    pub fn capacity(&self) -> u32 {
        self.connections
    }

    /// Connections there are.
    pub fn len(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Connections that never got an answer and made room for others, since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of address space: what the table takes once it has been full.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.legs) + size_of_val(&*self.numbers_v6) + self.embryos.bytes()
    }

    /// A leg. Those of ids that a lookup of this turn gave stay what they are until the turn ends.
    ///
    /// # Panics
    /// If the table never gave that id.
    #[inline(always)]
    pub fn leg(&self, id: LegId) -> &Leg {
        &self.legs[id as usize]
    }

    /// What the protocol's tracker remembers of a direction.
    #[inline(always)]
    pub fn mark(&self, id: LegId) -> Mark {
        let leg = self.leg(id);
        let number = if leg.is_v4() {
            leg.number_v4()
        } else {
            self.numbers_v6[id as usize].load(Relaxed)
        };
        Mark {
            bits: leg.bits(),
            number,
        }
    }

    /// Changes that. For the worker that receives the packets of this direction.
    #[inline(always)]
    pub fn set_mark(&self, id: LegId, mark: Mark) {
        let leg = self.leg(id);
        leg.set_bits(mark.bits);
        if leg.is_v4() {
            leg.set_number_v4(mark.number);
        } else {
            self.numbers_v6[id as usize].store(mark.number, Relaxed);
        }
    }

    /// The connection that a leg belongs to.
    pub fn connection(&self, id: LegId) -> Connection<'_> {
        Connection {
            table: self,
            first: id & !1,
        }
    }

    /// The connections from number `from` on, in memory order: for whoever looks through all of them. Some may be on
    /// their way out; [`Table::remove`] fails for those.
    pub fn connections_from(&self, from: u32) -> impl Iterator<Item = Connection<'_>> {
        (from..self.numbers_end()).filter_map(|number| {
            let connection = self.connection(number * 2);
            connection.is_in_use().then_some(connection)
        })
    }

    /// One more than the highest number of a connection.
    pub fn numbers_end(&self) -> u32 {
        (self.legs.len() / 2) as u32
    }

    /// Multiply and shift: any number of buckets, no division.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.homes) >> 32) as usize
    }

    /// The first slot with the hash's tag whose leg is wanted.
    #[inline(always)]
    fn walk(&self, lanes: impl Lanes, hash: u64, wanted: impl Fn(LegId) -> bool) -> Option<(usize, u32, LegId)> {
        let home = self.home(hash);
        for (at, bucket) in self.buckets[home..home + REACH].iter().enumerate() {
            let mut slots = bucket.find(lanes, hash);
            while slots != 0 {
                let slot = slots.trailing_zeros();
                let leg = bucket.leg(slot);
                if wanted(leg) {
                    return Some((home + at, slot, leg));
                }
                slots &= slots - 1;
            }
            if !bucket.control.overflows() {
                return None;
            }
        }
        None
    }

    /// Keys in the index, counted slot by slot.
    pub fn occupied(&self) -> usize {
        with_lanes!(self.way, lanes => {
            self.buckets.iter().map(|bucket| bucket.used(lanes).count_ones() as usize).sum()
        })
    }
}

/// Both directions of a connection.
#[derive(Clone, Copy)]
pub struct Connection<'a> {
    table: &'a Table,
    first: LegId,
}

impl<'a> Connection<'a> {
    /// The leg of the packets that opened it.
    pub fn there(&self) -> &'a Leg {
        self.table.leg(self.first)
    }

    /// The leg of the answers.
    pub fn back(&self) -> &'a Leg {
        self.table.leg(self.first + 1)
    }

    /// Id of the first leg.
    pub fn id(&self) -> LegId {
        self.first
    }

    /// Keys of both directions, as packets arrive.
    pub fn keys(&self) -> [Key; 2] {
        [self.there().key(), self.back().key()]
    }

    /// What the protocol's tracker remembers of both directions.
    pub fn marks(&self) -> [Mark; 2] {
        [self.table.mark(self.first), self.table.mark(self.first + 1)]
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.there().is_in_use()
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        self.there().protocol()
    }

    /// Whether an answer ever came.
    pub fn is_answered(&self) -> bool {
        self.back().packets() > 0
    }

    /// Ticks since a packet came in either direction.
    pub fn idle(&self, now: Tick) -> u32 {
        now.since(self.there().seen()).min(now.since(self.back().seen()))
    }
}
