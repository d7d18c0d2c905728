//! The prefixes of one IP version: what each is in, and the route table that finds the longest one.

use super::classes::Classes;
use super::memory::NONE;
use super::{Entry, Full};
use fastpath::fib::{Key, Pool, Table, View};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An address and a length.
type At<K> = (K, u32);

/// A prefix that some set has.
struct Prefix {
    /// The sets that have exactly this prefix, in order.
    own: Box<[Entry]>,
    /// With the sets of the prefixes that cover it: the class of its addresses.
    class: u32,
}

/// All prefixes of one IP version.
pub(super) struct Family<K: Key> {
    table: Table<K>,
    /// By address, then by length: a prefix comes before all that it covers, and these in a row.
    prefixes: BTreeMap<At<K>, Prefix>,
    of_length: [u32; 129],
}

impl<K: Key> Family<K> {
    pub fn new(pool: &Pool) -> Family<K> {
        Family {
            table: Table::new(pool),
            prefixes: BTreeMap::new(),
            of_length: [0; 129],
        }
    }

    pub fn view(&self) -> Arc<View<K>> {
        self.table.view()
    }

    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Makes `entries` with `true` members of the prefix, and those with `false` not. One word changes for readers of an
    /// address that no longer prefix holds.
    pub fn change(
        &mut self,
        pool: &mut Pool,
        classes: &mut Classes,
        (address, length): At<K>,
        changes: &[(Entry, bool)],
    ) -> Result<(), Full> {
        let at = (address.masked(length), length);
        let old = self.prefixes.get(&at);
        let mut own = old.map_or(vec![], |prefix| prefix.own.to_vec());
        for (entry, member) in changes {
            match (own.binary_search(entry), member) {
                (Err(place), true) => own.insert(place, *entry),
                (Ok(place), false) => drop(own.remove(place)),
                _ => {}
            }
        }
        if own.as_slice() == old.map_or(&[][..], |prefix| &prefix.own) {
            return Ok(());
        }
        let cover = classes.entries(self.cover(at)).clone();
        let class = classes.acquire(&union(&own, &cover))?;
        // Those below change first or last, one after the other: each address sees the old sets or the new ones.
        let below = match self.below(classes, at, class) {
            Ok(below) => below,
            Err(full) => {
                classes.release(class);
                return Err(full);
            }
        };
        if let Err(full) = self.link(pool, at, class, own.is_empty()) {
            classes.release(class);
            below.into_iter().for_each(|(_, class)| classes.release(class));
            return Err(full);
        }
        self.note(classes, at, own, class);
        self.relink(pool, classes, below)
    }

    /// The class of the longest prefix that covers `at` and is not `at`.
    fn cover(&self, (address, length): At<K>) -> u32 {
        (0..length)
            .rev()
            .filter(|length| self.of_length[*length as usize] > 0)
            .find_map(|length| self.prefixes.get(&(address.masked(length), length)))
            .map_or(NONE, |prefix| prefix.class)
    }

    /// The classes that the prefixes below `at` get when it gets `class`.
    fn below(&self, classes: &mut Classes, at: At<K>, class: u32) -> Result<Vec<(At<K>, u32)>, Full> {
        let mut changed = vec![];
        if at.1 == K::BITS {
            return Ok(changed);
        }
        // The prefixes that cover the one looked at, with their new classes.
        let mut above = vec![(at, class)];
        let after = self.prefixes.range((at.0, at.1 + 1)..);
        for (below, prefix) in after.take_while(|((address, _), _)| address.masked(at.1) == at.0) {
            while let Some(((address, length), _)) = above.last()
                && (below.0.masked(*length) != *address || *length >= below.1)
            {
                above.pop();
            }
            let cover = above.last().map_or(class, |(_, class)| *class);
            let entries = union(&prefix.own, classes.entries(cover));
            match classes.acquire(&entries) {
                Ok(new) => {
                    above.push((*below, new));
                    changed.push((*below, new));
                }
                Err(full) => {
                    changed.into_iter().for_each(|(_, class)| classes.release(class));
                    return Err(full);
                }
            }
        }
        Ok(changed)
    }

    /// Shows readers the class of one prefix.
    fn link(&mut self, pool: &mut Pool, (address, length): At<K>, class: u32, gone: bool) -> Result<(), Full> {
        let full = |full: fastpath::fib::Full| Full {
            bytes: full.reserved_bytes,
        };
        match gone {
            true => self.table.remove(pool, address, length).map_err(full)?,
            false => self.table.insert(pool, address, length, class).map_err(full)?,
        };
        Ok(())
    }

    /// Writes down what readers see.
    fn note(&mut self, classes: &mut Classes, at: At<K>, own: Vec<Entry>, class: u32) {
        if own.is_empty() {
            // Only what it was covered with remains, and that is the cover's.
            classes.release(class);
            if let Some(old) = self.prefixes.remove(&at) {
                self.of_length[at.1 as usize] -= 1;
                classes.release(old.class);
            }
            return;
        }
        let own = own.into();
        match self.prefixes.insert(at, Prefix { own, class }) {
            Some(old) => classes.release(old.class),
            None => self.of_length[at.1 as usize] += 1,
        }
    }

    /// Gives prefixes other classes. When the memory is full, the rest keep the old ones, and that is said.
    fn relink(&mut self, pool: &mut Pool, classes: &mut Classes, changed: Vec<(At<K>, u32)>) -> Result<(), Full> {
        let mut result = Ok(());
        for (at, class) in changed {
            let linked = match result {
                Ok(()) => self.link(pool, at, class, false),
                Err(full) => Err(full),
            };
            match (linked, self.prefixes.get_mut(&at)) {
                (Ok(()), Some(prefix)) => classes.release(std::mem::replace(&mut prefix.class, class)),
                (linked, _) => {
                    classes.release(class);
                    result = linked;
                }
            }
        }
        result
    }
}

/// Both, in order.
fn union(a: &[Entry], b: &[Entry]) -> Vec<Entry> {
    let mut both = [a, b].concat();
    if !a.is_empty() && !b.is_empty() {
        both.sort_unstable();
        both.dedup();
    }
    both
}
