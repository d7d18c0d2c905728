//! Connections in the order they were made, until they are confirmed: when the table is full, the oldest that are not
//! make room.

use super::memory::Lines;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

const LIFE_SHIFT: u32 = 29;
/// Connections that an entry can name.
pub(super) const NUMBERS_MAX: u32 = 1 << LIFE_SHIFT;

/// A ring of as many entries as there are connections. Entries of connections that ended or were confirmed stay until
/// their turn comes; an entry overwritten is one of a connection older than all others, which idleness will end.
///
/// Two workers at the same moment may see an entry late, and then pass over it: idleness ends that one, too.
pub(super) struct Embryos {
    ring: Lines<AtomicU32>,
    /// Entries ever taken, and ever made.
    head: AtomicU64,
    tail: AtomicU64,
}

/// A connection that waits for confirmation: its number, and which of its lives it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Embryo {
    pub number: u32,
    pub life: u8,
}

impl Embryos {
    pub fn new(capacity: u32) -> std::io::Result<Self> {
        Ok(Self {
            ring: Lines::new(capacity as usize)?,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
        })
    }

    pub fn bytes(&self) -> usize {
        self.ring.len() * size_of::<u32>()
    }

    pub fn populate(&self) {
        self.ring.populate();
    }

    pub fn push(&self, embryo: Embryo) {
        let at = self.tail.fetch_add(1, Relaxed);
        self.entry(at)
            .store(embryo.number | u32::from(embryo.life) << LIFE_SHIFT, Relaxed);
    }

    /// The oldest entry.
    pub fn pop(&self) -> Option<Embryo> {
        let mut head = self.head.load(Relaxed);
        loop {
            let (at, entry) = self.oldest(head)?;
            match self.head.compare_exchange_weak(head, at + 1, Relaxed, Relaxed) {
                Ok(_) => return Some(entry),
                Err(now) => head = now,
            }
        }
    }

    /// Drops the oldest entry if it is of no use any more; whether that may be so of the next one, too.
    pub fn trim(&self, is_useless: impl Fn(Embryo) -> bool) -> bool {
        let head = self.head.load(Relaxed);
        let Some((at, entry)) = self.oldest(head) else {
            return false;
        };
        is_useless(entry) && self.head.compare_exchange(head, at + 1, Relaxed, Relaxed).is_ok()
    }

    fn oldest(&self, head: u64) -> Option<(u64, Embryo)> {
        let tail = self.tail.load(Relaxed);
        let at = head.max(tail.saturating_sub(self.ring.len() as u64));
        let entry = (at < tail).then(|| self.entry(at).load(Relaxed))?;
        let embryo = Embryo {
            number: entry & (NUMBERS_MAX - 1),
            life: (entry >> LIFE_SHIFT) as u8,
        };
        Some((at, embryo))
    }

    fn entry(&self, at: u64) -> &AtomicU32 {
        &self.ring[(at % self.ring.len() as u64) as usize]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_the_overwritten_never() {
        let embryos = Embryos::new(4).unwrap();
        let of = |number| Embryo {
            number,
            life: number as u8 % 8,
        };
        assert_eq!(embryos.pop(), None);
        (0..3).for_each(|number| embryos.push(of(number)));
        assert_eq!(embryos.pop(), Some(of(0)));
        (3..9).for_each(|number| embryos.push(of(number)));
        assert!(!embryos.trim(|embryo| embryo.number != 5));
        assert!(embryos.trim(|embryo| embryo.number == 5));
        assert_eq!(
            [(); 4].map(|()| embryos.pop()),
            [Some(of(6)), Some(of(7)), Some(of(8)), None]
        );
    }
}
