//! A pool: backends of which each new connection gets one.

use super::fold;
use crate::key::Key;
use crate::maglev::{self, ById, Maglev, Table};
use crate::table::{prefetch, sip};
use fastpath::meta::Endpoint;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Names a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// A backend, as control puts it into a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its share against those of the others; 0 where it keeps what it has and gets nothing new.
    pub weight: u32,
    /// Whether it is known to be on another node.
    pub remote: bool,
}

/// A backend, as workers read it.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// What control says of it.
    pub member: Member,
    /// The lower half of its id.
    pub(crate) tag: u32,
    number: u32,
}

/// Connections that so many backends got, by number; workers count, whichever snapshot they read.
type Counted = Arc<[AtomicU64; COUNTED]>;
const COUNTED: usize = 64;

/// Those of the first backends are one step away.
#[derive(Clone, Debug, Default)]
struct Counts {
    first: Option<Counted>,
    more: Vec<Counted>,
}

impl Counts {
    #[inline]
    fn of(&self, number: u32) -> Option<&AtomicU64> {
        let number = number as usize;
        let counted = match number / COUNTED {
            0 => self.first.as_ref(),
            more => self.more.get(more - 1),
        };
        counted.map(|counted| &counted[number % COUNTED])
    }

    /// Makes room for the next backends.
    fn grow(&mut self) {
        let counted = Arc::new([const { AtomicU64::new(0) }; COUNTED]);
        match self.first {
            None => self.first = Some(counted),
            Some(_) => self.more.push(counted),
        }
    }
}

/// Backends of which each new connection gets one, as workers read them.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub struct Pool {
    /// Seconds that a client stays with its backend after its last new connection; 0 where it need not stay.
    pub affinity_s: u32,
    /// Tells apart the affinities of pools, over their lives.
    pub(crate) life: u64,
    backends: Vec<Option<Backend>>,
    counts: Counts,
    /// Backends by tag, sorted, and their numbers.
    tags: Vec<(u32, u32)>,
    table: Table,
}

/// Equal on all nodes, so that all choose the same backend for a connection: the first digits of pi behind its 3.
const CHOICE: [u64; 6] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
];
const BACKEND_KEY: [u64; 2] = [0x6d61_7267_6179, 4];

impl Pool {
    /// The backend of a new connection whose packets have this key: the same on every node that has the same backends.
    /// Where clients stay, all connections of one get the same.
    #[inline]
    pub fn choose(&self, key: &Key) -> Option<&Backend> {
        self.chosen(self.hash(key))
    }

    /// What a choice follows from. Its constants are known to all, so it has only to spread well, and multiplication does
    /// that in a sixth of the time of a hash that keeps a secret.
    #[inline]
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        let [a, b, c, d, tail] = key.0;
        let client = fold(a ^ CHOICE[0], b ^ CHOICE[1]);
        if self.affinity_s != 0 {
            return fold(client, CHOICE[5]);
        }
        let service = fold(c ^ CHOICE[2], d ^ CHOICE[3]);
        // The table of routes is numbered by each node for itself.
        let tail = tail & !(0xffff << 32);
        fold(client ^ service.rotate_left(32), tail ^ CHOICE[4])
    }

    /// The backend of a new connection with this [hash](Self::hash).
    #[inline]
    pub(crate) fn chosen(&self, hash: u64) -> Option<&Backend> {
        self.numbered(self.table.choose(hash)?)
    }

    /// Asks for the cache lines of the pool itself.
    #[inline]
    pub(crate) fn warm(&self) {
        prefetch(&self.backends);
        prefetch(&self.counts);
        prefetch(&self.table);
    }

    /// Asks for the slot of a connection.
    #[inline]
    pub(crate) fn warm_slot(&self, hash: u64) {
        self.table.warm(hash);
    }

    /// Asks for the backend of a connection, and for where its connections are counted.
    #[inline]
    pub(crate) fn warm_backend(&self, hash: u64) {
        let Some(number) = self.table.choose(hash) else { return };
        if let Some(backend) = self.backends.get(number as usize) {
            prefetch(backend);
        }
        if let Some(counter) = self.counts.of(number) {
            prefetch(counter);
        }
    }

    /// The backend at an endpoint, also one that gets nothing new.
    pub fn at(&self, endpoint: &Endpoint) -> Option<&Backend> {
        self.tagged(id(endpoint) as u32)
            .filter(|backend| backend.member.endpoint == *endpoint)
    }

    /// The backend with a tag. Of two with the same one, always the same.
    pub(crate) fn tagged(&self, tag: u32) -> Option<&Backend> {
        let place = self.tags.partition_point(|(other, _)| *other < tag);
        let (_, number) = self.tags.get(place).filter(|(other, _)| *other == tag)?;
        self.numbered(*number)
    }

    /// Counts a connection that a backend of the pool gets.
    #[inline]
    pub(crate) fn count(&self, backend: &Backend) {
        if let Some(counter) = self.counts.of(backend.number) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Connections that a backend of the pool got since it came.
    pub fn connections(&self, backend: &Backend) -> u64 {
        self.counts
            .of(backend.number)
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// Its backends, and the slots of the table that each has.
    pub fn shares(&self) -> impl Iterator<Item = (&Backend, usize)> {
        let mut slots = vec![0; self.backends.len()];
        for number in self.table.slots() {
            if let Some(count) = slots.get_mut(*number as usize) {
                *count += 1;
            }
        }
        let backends = self.backends.iter().zip(slots);
        backends.filter_map(|(backend, slots)| Some((backend.as_ref()?, slots)))
    }

    /// Slots of its table.
    pub fn slots(&self) -> usize {
        self.table.slots().len()
    }

    fn numbered(&self, number: u32) -> Option<&Backend> {
        self.backends.get(number as usize)?.as_ref()
    }
}

/// What a backend is known by everywhere.
fn id(endpoint: &Endpoint) -> u64 {
    let bits = endpoint.v6_bits();
    sip(
        BACKEND_KEY,
        &[(bits >> 64) as u64, bits as u64, u64::from(endpoint.port)],
    )
}

/// A pool, as control keeps it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    maglev: Maglev,
    numbers: HashMap<u64, u32, ById>,
    free: Vec<u32>,
    pool: Pool,
}

impl Kept {
    pub fn new(life: u64) -> Self {
        let pool = Pool {
            life,
            ..Pool::default()
        };
        Self {
            pool,
            ..Self::default()
        }
    }

    /// Makes the pool have these members and no others. True if that changed it.
    pub fn set(&mut self, members: &[Member], affinity_s: u32) -> bool {
        let mut changed = self.pool.affinity_s != affinity_s;
        self.pool.affinity_s = affinity_s;
        let mut stays = vec![false; self.pool.backends.len() + members.len()];
        for member in members {
            let (number, is_other) = self.set_member(member);
            stays[number as usize] = true;
            changed |= is_other;
        }
        if self.numbers.len() > stays.iter().filter(|stays| **stays).count() {
            let (maglev, pool, free) = (&mut self.maglev, &mut self.pool, &mut self.free);
            self.numbers.retain(|id, number| {
                let stays = stays[*number as usize];
                if !stays {
                    maglev.remove(*id);
                    pool.backends[*number as usize] = None;
                    free.push(*number);
                }
                stays
            });
            changed = true;
        }
        changed
    }

    /// The pool as workers are to read it.
    pub fn freeze(&mut self) -> Pool {
        let pool = &mut self.pool;
        pool.table = self.maglev.table();
        pool.tags.clear();
        let numbered = (0..).zip(&pool.backends);
        pool.tags
            .extend(numbered.filter_map(|(number, backend)| Some((backend.as_ref()?.tag, number))));
        pool.tags.sort_unstable();
        pool.clone()
    }

    /// The number of a member, and whether it is another than before.
    fn set_member(&mut self, member: &Member) -> (u32, bool) {
        let (pool, id) = (&mut self.pool, id(&member.endpoint));
        let number = *self.numbers.entry(id).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                pool.backends.push(None);
                pool.backends.len() as u32 - 1
            })
        });
        if pool.counts.of(number).is_none() {
            pool.counts.grow();
        }
        let known = pool.backends[number as usize].as_ref();
        if known.is_some_and(|known| known.member == *member) {
            return (number, false);
        }
        if let (None, Some(counter)) = (known, pool.counts.of(number)) {
            // The one that had the number before has gone.
            counter.store(0, Relaxed);
        }
        let (member, tag) = (*member, id as u32);
        pool.backends[number as usize] = Some(Backend { member, tag, number });
        let weight = member.weight;
        self.maglev.set(maglev::Backend { id, number, weight });
        (number, true)
    }
}
