//! The control thread's copy of the routes: one open-addressed hash table of (prefix, length) to id, with the number of
//! routes of each length.

use super::arena::prefetch;
use super::key::Key;

#[derive(Clone, Copy, Default)]
struct Entry<K> {
    key: K,
    /// Length in the top 8 bits, id below; 0 is empty (length 0 is not kept here).
    meta: u32,
}

impl<K> Entry<K> {
    fn length(&self) -> u32 {
        self.meta >> 24
    }
    fn id(&self) -> u32 {
        self.meta & 0xff_ffff
    }
    fn is_empty(&self) -> bool {
        self.meta == 0
    }
}

/// The routes of one table but the default route. Keys are masked by the caller.
pub(super) struct Rib<K> {
    slots: Vec<Entry<K>>,
    of_length: [u32; 129],
    len: usize,
}

impl<K: Key> Default for Rib<K> {
    fn default() -> Self {
        Rib {
            slots: vec![],
            of_length: [0; 129],
            len: 0,
        }
    }
}

impl<K: Key> Rib<K> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Entry<K>>()
    }

    pub fn get(&self, key: K, length: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let entry = self.slots[self.find(key, length)];
        (!entry.is_empty()).then_some(entry.id())
    }

    /// Adds or replaces; the id there was.
    pub fn insert(&mut self, key: K, length: u32, id: u32) -> Option<u32> {
        if self.len * 8 >= self.slots.len() * 5 {
            self.grow();
        }
        let i = self.find(key, length);
        let was = self.slots[i];
        self.slots[i] = Entry {
            key,
            meta: length << 24 | id,
        };
        if !was.is_empty() {
            return Some(was.id());
        }
        self.len += 1;
        self.of_length[length as usize] += 1;
        None
    }

    /// The id there was.
    pub fn remove(&mut self, key: K, length: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut hole = self.find(key, length);
        let was = self.slots[hole];
        if was.is_empty() {
            return None;
        }
        self.len -= 1;
        self.of_length[length as usize] -= 1;
        // Pull back what would no longer be found past the hole.
        let mask = self.slots.len() - 1;
        let mut i = hole;
        loop {
            i = (i + 1) & mask;
            let entry = self.slots[i];
            if entry.is_empty() {
                break;
            }
            let home = self.home(entry.key, entry.length());
            if (i.wrapping_sub(home) & mask) >= (i.wrapping_sub(hole) & mask) {
                self.slots[hole] = entry;
                hole = i;
            }
        }
        self.slots[hole] = Entry::default();
        Some(was.id())
    }

    /// Length and id of the longest route over `key` that is shorter than `length`.
    pub fn cover(&self, key: K, length: u32) -> Option<(u32, u32)> {
        if self.slots.is_empty() {
            return None;
        }
        let lengths = || (1..length).rev().filter(|l| self.of_length[*l as usize] != 0);
        for l in lengths() {
            prefetch(&raw const self.slots[self.home(key.masked(l), l)]);
        }
        lengths().find_map(|l| Some((l, self.get(key.masked(l), l)?)))
    }

    /// Prefix, length and id of every route, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32, u32)> + '_ {
        self.slots
            .iter()
            .filter(|e| !e.is_empty())
            .map(|e| (e.key, e.length(), e.id()))
    }

    fn home(&self, key: K, length: u32) -> usize {
        (key.hash(length) >> 32) as usize & (self.slots.len() - 1)
    }

    /// The slot that holds the prefix, or else the empty one it would go to.
    fn find(&self, key: K, length: u32) -> usize {
        let mut i = self.home(key, length);
        loop {
            let entry = &self.slots[i];
            if entry.is_empty() || (entry.key == key && entry.length() == length) {
                return i;
            }
            i = (i + 1) & (self.slots.len() - 1);
        }
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(16);
        let old = std::mem::replace(&mut self.slots, vec![Entry::default(); slots]);
        for entry in old.into_iter().filter(|e| !e.is_empty()) {
            let i = self.find(entry.key, entry.length());
            self.slots[i] = entry;
        }
    }
}
