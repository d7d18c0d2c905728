//! A table that control changes place by place and workers read without locks.
//!
//! Each place has a version. A worker keeps what it found there and looks again only when the version has changed: a
//! change costs one place, and a worker that meets it one lock and one count, once.

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use crate::sync::{Arc, Mutex};

/// The table.
pub struct Slots<T> {
    slots: Box<[Slot<T>]>,
}

struct Slot<T> {
    version: AtomicU64,
    held: Mutex<Option<Arc<T>>>,
}

impl<T> Slots<T> {
    /// `capacity` places with nothing in them.
    pub fn new(capacity: usize) -> Self {
        let empty = |_| Slot {
            version: AtomicU64::new(0),
            held: Mutex::new(None),
        };
        Self {
            slots: (0..capacity).map(empty).collect(),
        }
    }

    /// Number of places.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Puts something in a place, or nothing. A place that there is not is passed over.
    pub fn set(&self, place: usize, value: Option<Arc<T>>) {
        if let Some(slot) = self.slots.get(place)
            && let Ok(mut held) = slot.held.lock()
        {
            *held = value;
            slot.version.store(slot.version.load(Acquire) + 1, Release);
        }
    }
}

/// One worker's way into a table.
pub struct View<T> {
    shared: Arc<Slots<T>>,
    kept: Box<[(u64, Option<Arc<T>>)]>,
}

impl<T> View<T> {
    /// Has seen nothing yet.
    pub fn new(shared: Arc<Slots<T>>) -> Self {
        Self {
            kept: (0..shared.capacity()).map(|_| (0, None)).collect(),
            shared,
        }
    }

    /// Number of places.
    pub fn capacity(&self) -> usize {
        self.kept.len()
    }

    /// What is in a place. While control is just changing it, that may be what was there before: no worker waits.
    #[inline]
    pub fn get(&mut self, place: usize) -> Option<&Arc<T>> {
        let (slot, kept) = (self.shared.slots.get(place)?, self.kept.get_mut(place)?);
        if slot.version.load(Acquire) != kept.0 {
            renew(slot, kept);
        }
        kept.1.as_ref()
    }

    /// What was in a place when it was last [got](Self::get).
    #[inline]
    pub fn kept(&self, place: usize) -> Option<&Arc<T>> {
        self.kept.get(place)?.1.as_ref()
    }
}

#[cold]
fn renew<T>(slot: &Slot<T>, kept: &mut (u64, Option<Arc<T>>)) {
    if let Ok(held) = slot.held.try_lock() {
        *kept = (slot.version.load(Acquire), held.clone());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_view_follows_and_lets_go() {
        let slots = Arc::new(Slots::new(2));
        let (mut view, one) = (View::new(slots.clone()), Arc::new(1));
        assert!(view.get(0).is_none() && view.get(2).is_none());
        slots.set(0, Some(one.clone()));
        slots.set(2, Some(one.clone()));
        assert_eq!(view.get(0), Some(&one));
        assert_eq!(Arc::strong_count(&one), 3);
        slots.set(0, None);
        assert!(view.get(0).is_none());
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
