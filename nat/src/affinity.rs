//! Which backend a client had: a bounded table that all workers share without locks, forgetting the oldest first.
//!
//! An entry is two words: what it is for, and what it says. Who replaces one takes the first word away, writes the second
//! and puts the new first word down; who reads looks at the first word before and after the second.

use crate::service::Pool;
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::table::sip;

/// Entries that a client may be in.
const WAYS: usize = 4;
/// First word of an entry that is being written. One of zeros is nobody's yet.
const TAKEN: u64 = 1;

#[derive(Default)]
struct Entry {
    /// Hash of client and pool.
    whose: AtomicU64,
    /// The backend's tag (upper half), and the second it is forgotten (lower half).
    what: AtomicU64,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket([Entry; WAYS]);

/// The table.
pub struct Affinity {
    buckets: Box<[Bucket]>,
    key: [u64; 2],
}

impl Affinity {
    /// For about so many clients, at least one. `random` keeps clients from choosing whom they push out.
    pub fn new(clients: usize, random: u64) -> Self {
        let buckets = clients.div_ceil(WAYS).next_power_of_two();
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            key: [random, random.rotate_left(32) ^ 0x6166_6669_6e69_7479],
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Entries whose time is not over.
    pub fn used(&self, now_s: u32) -> usize {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.0);
        entries.filter(|entry| entry.what.load(Relaxed) as u32 > now_s).count()
    }

    /// Tag of the backend that a client last had of a pool, if that is not forgotten.
    pub fn find(&self, client: &[u8; 16], pool: &Pool, now_s: u32) -> Option<u32> {
        let whose = self.whose(client, pool);
        let entry = self
            .bucket(whose)
            .0
            .iter()
            .find(|entry| entry.whose.load(Acquire) == whose)?;
        let what = entry.what.load(Acquire);
        (entry.whose.load(Relaxed) == whose && what as u32 > now_s).then_some((what >> 32) as u32)
    }

    /// Notes the backend that a client has now.
    pub fn note(&self, client: &[u8; 16], pool: &Pool, tag: u32, now_s: u32) {
        let whose = self.whose(client, pool);
        let what = u64::from(tag) << 32 | u64::from(now_s.saturating_add(pool.affinity_s));
        let entries = &self.bucket(whose).0;
        let own = entries.iter().find(|entry| entry.whose.load(Relaxed) == whose);
        let oldest = || entries.iter().min_by_key(|entry| entry.what.load(Relaxed) as u32);
        let Some(entry) = own.or_else(oldest) else { return };
        let was = entry.whose.load(Relaxed);
        // Of two workers that want the same entry one comes too late: its client is not remembered this time.
        if was != TAKEN && entry.whose.compare_exchange(was, TAKEN, Acquire, Relaxed).is_ok() {
            entry.what.store(what, Release);
            entry.whose.store(whose, Release);
        }
    }

    fn bucket(&self, whose: u64) -> &Bucket {
        &self.buckets[whose as usize & (self.buckets.len() - 1)]
    }

    fn whose(&self, client: &[u8; 16], pool: &Pool) -> u64 {
        let bits = u128::from_ne_bytes(*client);
        sip(self.key, &[(bits >> 64) as u64, bits as u64, pool.life]).max(TAKEN + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> [u8; 16] {
        u128::from(n).to_be_bytes()
    }

    fn pool(life: u64) -> Pool {
        let mut pool = Pool::default();
        (pool.affinity_s, pool.life) = (10, life);
        pool
    }

    #[test]
    fn a_client_is_remembered_for_its_time_and_by_its_pool() {
        let table = Affinity::new(1024, 5);
        let (one, other) = (pool(1), pool(2));
        assert_eq!(table.find(&client(7), &one, 0), None);
        table.note(&client(7), &one, 77, 100);
        assert_eq!(table.find(&client(7), &one, 109), Some(77));
        assert_eq!(table.find(&client(7), &one, 110), None, "its time is over");
        assert_eq!(table.find(&client(7), &other, 105), None);
        table.note(&client(7), &one, 78, 105);
        assert_eq!(table.find(&client(7), &one, 114), Some(78), "as of the last time");
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let (table, pool) = (Affinity::new(WAYS, 5), pool(1));
        for n in 0..=WAYS as u32 {
            table.note(&client(n), &pool, n, n);
        }
        let known = |n: u32| table.find(&client(n), &pool, 5);
        assert_eq!(known(0), None);
        assert!((1..=WAYS as u32).all(|n| known(n) == Some(n)));
        assert_eq!((table.bytes(), table.used(1)), (64, WAYS));
    }

    #[test]
    fn nobody_gets_what_was_noted_for_another() {
        let (table, pool) = (Affinity::new(8, 5), pool(1));
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (table, pool) = (&table, &pool);
                scope.spawn(move || {
                    for n in 0..20_000 {
                        let number = n * 7 % 64;
                        table.note(&client(number), pool, number, worker);
                        let other = (n * 13 + worker) % 64;
                        assert!(table.find(&client(other), pool, 1).is_none_or(|tag| tag == other));
                    }
                });
            }
        });
    }
}
