//! Numbers of the packets of a session: no two packets get the same, since it is their nonce.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::timers::REJECT_AFTER_MESSAGES;
use std::ops::Range;

/// The next packet's number.
pub struct Counter(AtomicU64);

impl Counter {
    /// Begins with `first`: 0, but in tests.
    pub fn new(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// Numbers for `count` packets, or `None` if the session has not so many left.
    #[inline]
    pub fn take(&self, count: u64) -> Option<Range<u64>> {
        let mut first = self.0.load(Relaxed);
        loop {
            let end = first.checked_add(count).filter(|&end| end <= REJECT_AFTER_MESSAGES)?;
            // Not `fetch_add`: workers that go on taking after the end would bring it round to the start.
            match self.0.compare_exchange_weak(first, end, Relaxed, Relaxed) {
                Ok(_) => return Some(first..end),
                Err(other) => first = other,
            }
        }
    }

    /// How many were taken.
    pub fn taken(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ends_where_the_whitepaper_says() {
        assert_eq!(REJECT_AFTER_MESSAGES, (u128::pow(2, 64) - u128::pow(2, 13) - 1) as u64);
        let counter = Counter::new(0);
        assert_eq!([counter.take(256), counter.take(1)], [Some(0..256), Some(256..257)]);
        let counter = Counter::new(REJECT_AFTER_MESSAGES - 2);
        assert_eq!(counter.take(3), None);
        assert!(counter.take(2).is_some());
        for _ in 0..100_000 {
            assert_eq!(counter.take(256), None);
        }
        assert_eq!(counter.taken(), REJECT_AFTER_MESSAGES);
    }
}
