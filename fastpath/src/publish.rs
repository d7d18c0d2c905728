//! Snapshots: control replaces a value that workers read, and frees the old one when no worker holds it.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

struct Slot<T> {
    version: AtomicU64,
    current: Mutex<Arc<T>>,
}

/// Control's end. Frees old values itself, never on a worker.
pub struct Publisher<T> {
    slot: Arc<Slot<T>>,
    retired: Vec<Arc<T>>,
}

/// A worker's end.
pub struct Reader<T> {
    slot: Arc<Slot<T>>,
    seen: u64,
    value: Arc<T>,
}

fn newest<T>(slot: &Slot<T>) -> Arc<T> {
    // A poisoned lock still holds a whole value: it is replaced by one assignment.
    slot.current
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clone()
}

impl<T> Publisher<T> {
    /// Publishes the first value.
    pub fn new(value: T) -> Self {
        let slot = Slot {
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(value)),
        };
        Self {
            slot: Arc::new(slot),
            retired: vec![],
        }
    }

    /// A reader for one worker.
    pub fn reader(&self) -> Reader<T> {
        // The version is read first: a stale one costs a second refresh, a late one would hide a value.
        let seen = self.slot.version.load(Ordering::Acquire);
        Reader {
            seen,
            value: newest(&self.slot),
            slot: self.slot.clone(),
        }
    }

    /// The value last published.
    pub fn current(&self) -> Arc<T> {
        newest(&self.slot)
    }

    /// Replaces the value. Workers see it on their next refresh.
    pub fn publish(&mut self, value: T) {
        let mut current = self
            .slot
            .current
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let old = std::mem::replace(&mut *current, Arc::new(value));
        drop(current);
        self.retired.push(old);
        self.slot.version.fetch_add(1, Ordering::Release);
        self.reclaim();
    }

    /// Frees the retired values that no worker holds any more.
    pub fn reclaim(&mut self) {
        self.retired.retain_mut(|value| Arc::get_mut(value).is_none());
    }
}

impl<T> Reader<T> {
    /// The newest value; one load when nothing changed. Call once per batch.
    #[inline(always)]
    pub fn refresh(&mut self) -> &T {
        let version = self.slot.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            self.value = newest(&self.slot);
        }
        &self.value
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_retired_value_is_freed_once_no_worker_reads_it() {
        let mut publisher = Publisher::new(1);
        let mut reader = publisher.reader();
        publisher.publish(2);
        assert_eq!(publisher.retired.len(), 1);
        assert_eq!(*reader.refresh(), 2);
        publisher.reclaim();
        assert!(publisher.retired.is_empty());
        assert_eq!(*publisher.current(), 2);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;

    #[test]
    fn a_reader_sees_values_in_order_and_the_last_one_in_the_end() {
        loom::model(|| {
            let mut publisher = Publisher::new(0);
            let mut reader = publisher.reader();
            let control = loom::thread::spawn(move || {
                publisher.publish(1);
                publisher.publish(2);
                publisher
            });
            let first = *reader.refresh();
            let second = *reader.refresh();
            assert!(first <= second && second <= 2);
            let mut publisher = control.join().unwrap();
            assert_eq!(*reader.refresh(), 2);
            publisher.reclaim();
            assert!(publisher.retired.is_empty());
        });
    }
}
