//! One route table (a VRF and a family): the control thread's side.

use super::NO_ROUTE;
use super::key::Key;
use super::lookup::{Root, View};
use super::node::{self, NONE, Slots, expand, is_child, leaf};
use super::pool::{Full, Pool, Purpose, ROOT_LINES};
use super::rib::Rib;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Routes above which the first 16 bits get an array of their own (256 KiB), and below which it is given up again.
const WIDEN: usize = 1024;
const NARROW: usize = 256;

/// A table of routes, changed by one thread while workers look up in its [`View`].
///
/// Every change is given the one [`Pool`] that the table was made from. To give a table's memory back, [`clear`] it;
/// dropping it alone leaves its nodes in the pool, since workers may still hold the view.
///
/// [`clear`]: Table::clear
pub struct Table<K: Key> {
    view: Arc<View<K>>,
    rib: Rib<K>,
    default: Option<u32>,
}

impl<K: Key> Table<K> {
    /// An empty table, which takes no memory of the pool.
    pub fn new(pool: &Pool) -> Self {
        let view = View {
            region: pool.region().clone(),
            root: AtomicU64::new(Root::Slot(NONE).to_word()),
            default: AtomicU32::new(NO_ROUTE),
            key: PhantomData,
        };
        Table {
            view: Arc::new(view),
            rib: Rib::default(),
            default: None,
        }
    }

    /// What workers look up in.
    pub fn view(&self) -> Arc<View<K>> {
        self.view.clone()
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.rib.len() + usize::from(self.default.is_some())
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the control thread keeps outside the pool.
    pub fn control_bytes(&self) -> usize {
        self.rib.bytes()
    }

    /// The id of exactly this prefix; bits of `key` behind `length` are ignored.
    pub fn get(&self, key: K, length: u32) -> Option<u32> {
        match length {
            0 => self.default,
            _ if length > K::BITS => None,
            _ => self.rib.get(key.masked(length), length),
        }
    }

    /// Prefix, length and id of every route, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32, u32)> + '_ {
        let default = self.default.map(|id| (K::default(), 0, id));
        default.into_iter().chain(self.rib.iter())
    }

    /// Adds or replaces a route; the id there was. Bits of `key` behind `length` are ignored.
    ///
    /// # Errors
    /// [`Full`]: the table is as it was.
    ///
    /// # Panics
    /// If `length` is more than an address has bits, `id` is not below [`NO_ROUTE`], or the pool is not the table's.
    pub fn insert(&mut self, pool: &mut Pool, key: K, length: u32, id: u32) -> Result<Option<u32>, Full> {
        assert!(
            length <= K::BITS && id < NO_ROUTE,
            "a prefix length and an id of 24 bits"
        );
        if length == 0 {
            self.view.default.store(id, Release);
            return Ok(self.default.replace(id));
        }
        let key = key.masked(length);
        let was = self.rib.insert(key, length, id);
        if was != Some(id) {
            let change = Change {
                key,
                length,
                leaf: leaf(length, id),
                purpose: Purpose::Add,
            };
            if let Err(full) = self.change(pool, &change) {
                match was {
                    Some(was) => self.rib.insert(key, length, was),
                    None => self.rib.remove(key, length),
                };
                return Err(full);
            }
        }
        if self.rib.len() > WIDEN {
            self.widen(pool);
        }
        Ok(was)
    }

    /// Removes a route; the id it had, or `None` if there was none. Bits of `key` behind `length` are ignored.
    ///
    /// # Errors
    /// [`Full`]: the table is as it was. A removal copies the nodes on its path (at most 16, of at most 1,088 bytes)
    /// before it frees them. A part of the pool that additions may not use is kept for that, so it takes a worker that
    /// does not finish its turn to see this; try again when it has.
    ///
    /// # Panics
    /// If the pool is not the table's.
    pub fn remove(&mut self, pool: &mut Pool, key: K, length: u32) -> Result<Option<u32>, Full> {
        if length == 0 {
            self.view.default.store(NO_ROUTE, Release);
            return Ok(self.default.take());
        }
        if length > K::BITS {
            return Ok(None);
        }
        let key = key.masked(length);
        let Some(was) = self.rib.remove(key, length) else {
            return Ok(None);
        };
        let cover = self
            .rib
            .cover(key, length)
            .map_or(NONE, |(length, id)| leaf(length, id));
        if let Err(full) = self.change(
            pool,
            &Change {
                key,
                length,
                leaf: cover,
                purpose: Purpose::Remove,
            },
        ) {
            self.rib.insert(key, length, was);
            return Err(full);
        }
        if self.rib.len() < NARROW {
            self.narrow(pool);
        }
        Ok(Some(was))
    }

    /// Removes all routes and gives the memory back to the pool. Takes no memory, so it always can.
    ///
    /// # Panics
    /// If the pool is not the table's.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.check(pool);
        pool.begin(Purpose::Remove);
        match self.root() {
            Root::Slot(slot) => retire_all(pool, slot),
            Root::Wide(line) => {
                (0..=u16::MAX).for_each(|i| retire_all(pool, read_entry(pool, line, i)));
                pool.retire(line, ROOT_LINES);
            }
        }
        self.view.default.store(NO_ROUTE, Release);
        self.publish(pool, Root::Slot(NONE));
        (self.rib, self.default) = (Rib::default(), None);
    }

    fn root(&self) -> Root {
        Root::from_word(self.view.root.load(Relaxed))
    }

    fn check(&self, pool: &Pool) {
        assert!(
            Arc::ptr_eq(&self.view.region, pool.region()),
            "the pool that the table was made from"
        );
    }

    fn publish(&self, pool: &mut Pool, root: Root) {
        pool.publish();
        self.view.root.store(root.to_word(), Release);
        pool.settle();
    }

    fn change(&mut self, pool: &mut Pool, change: &Change<K>) -> Result<(), Full> {
        self.check(pool);
        pool.begin(change.purpose);
        match change.root(pool, self.root()) {
            Ok(root) => self.publish(pool, root),
            Err(full) => {
                pool.abandon();
                return Err(full);
            }
        }
        Ok(())
    }

    /// From two levels of nodes to an array for the first 16 bits. Without room for it lookups stay a little slower, and
    /// the next addition tries again.
    fn widen(&mut self, pool: &mut Pool) {
        let Root::Slot(top) = self.root() else { return };
        pool.begin(Purpose::Add);
        let Ok(line) = pool.allocate_root() else {
            return pool.abandon();
        };
        let mut index = 0..=u16::MAX;
        for slot in open(pool, top) {
            // A run of leaves is opened slot by slot; a child stands in one slot.
            for (slot, i) in open(pool, slot).into_iter().zip(index.by_ref()) {
                pool.memory().word(pool.memory().entry(line, i)).store(slot, Relaxed);
            }
        }
        self.publish(pool, Root::Wide(line));
    }

    /// And back, where there is room for that.
    fn narrow(&mut self, pool: &mut Pool) {
        let Root::Wide(line) = self.root() else { return };
        pool.begin(Purpose::Remove);
        match narrow_root(pool, line) {
            Ok(top) => {
                pool.retire(line, ROOT_LINES);
                self.publish(pool, Root::Slot(top));
            }
            Err(_) => pool.abandon(),
        }
    }
}

/// One change: every leaf under the prefix that it hits becomes `leaf`.
struct Change<K> {
    key: K,
    length: u32,
    leaf: u32,
    purpose: Purpose,
}

impl<K: Key> Change<K> {
    fn hits(&self, slot: u32) -> bool {
        let length = (slot >> 24) + 1;
        match self.purpose {
            Purpose::Add => length <= self.length,
            Purpose::Remove => length == self.length && slot != NONE,
        }
    }

    /// The slots that the prefix takes of the node at `depth`.
    fn range(&self, depth: u32) -> RangeInclusive<u8> {
        if self.length <= depth {
            return 0..=u8::MAX;
        }
        let first = self.key.byte(depth);
        first..=first | (u8::MAX.checked_shr(self.length - depth).unwrap_or(0))
    }

    /// What the root becomes.
    fn root(&self, pool: &mut Pool, root: Root) -> Result<Root, Full> {
        let line = match root {
            Root::Slot(slot) => return Ok(Root::Slot(self.apply(pool, slot, 0)?)),
            Root::Wide(line) => line,
        };
        let first = self.key.first_16();
        for i in first..=first | u16::MAX.checked_shr(self.length).unwrap_or(0) {
            let old = read_entry(pool, line, i);
            let new = self.apply(pool, old, 16)?;
            if new != old {
                pool.write(pool.memory().entry(line, i), new);
            }
        }
        Ok(root)
    }

    /// What `slot`, which stands for the first `depth` bits, becomes.
    fn apply(&self, pool: &mut Pool, slot: u32, depth: u32) -> Result<u32, Full> {
        if !is_child(slot) && self.length <= depth {
            return Ok(if self.hits(slot) { self.leaf } else { slot });
        }
        let range = self.range(depth);
        if is_child(slot) && self.length > depth + 8 {
            // Only one child changes: mostly its parent need not be rebuilt.
            let (place, old) = node::read(pool, slot, *range.start());
            if is_child(old) {
                let new = self.apply(pool, old, depth + 8)?;
                if new == old {
                    return Ok(slot);
                }
                if is_child(new) {
                    pool.write(place, new);
                    return Ok(slot);
                }
                let mut slots = expand(pool, slot);
                slots[usize::from(*range.start())] = new;
                return node::store(pool, slot, &slots);
            }
        }
        let mut slots = expand(pool, slot);
        for i in range {
            let old = &mut slots[usize::from(i)];
            *old = self.apply(pool, *old, depth + 8)?;
        }
        node::store(pool, slot, &slots)
    }
}

fn read_entry(pool: &Pool, root: u32, index: u16) -> u32 {
    let memory = pool.memory();
    memory.word(memory.entry(root, index)).load(Relaxed)
}

/// The slots of a node that is given up, or of a leaf.
fn open(pool: &mut Pool, slot: u32) -> Slots {
    let slots = expand(pool, slot);
    if is_child(slot) {
        node::retire(pool, slot);
    }
    slots
}

fn retire_all(pool: &mut Pool, slot: u32) {
    if is_child(slot) {
        open(pool, slot).into_iter().for_each(|slot| retire_all(pool, slot));
    }
}

/// Two levels of nodes that say what the array at `root` does.
fn narrow_root(pool: &mut Pool, root: u32) -> Result<u32, Full> {
    let mut top: Slots = [NONE; 256];
    for (high, slot) in top.iter_mut().enumerate() {
        let slots: Slots = std::array::from_fn(|low| read_entry(pool, root, (high << 8 | low) as u16));
        *slot = node::store(pool, NONE, &slots)?;
    }
    node::store(pool, NONE, &top)
}
