//! The number of the configuration, by which a verdict that was made once is known to be stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What no verdict in force was made under.
pub const STALE: u32 = 0;

/// Counts changes. Control moves it on after workers can see a change; who decides reads it before, so that a verdict
/// never looks newer than what it was made from.
#[derive(Clone, Debug)]
pub struct Generation(Arc<AtomicU32>);

impl Default for Generation {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(STALE + 1)))
    }
}

impl Generation {
    /// The number now.
    #[inline]
    pub fn current(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Makes every verdict so far stale.
    pub fn advance(&self) {
        let next = |number: u32| Some(number.checked_add(1).unwrap_or(STALE + 1));
        // It never refuses.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_generation_is_the_stale_one() {
        let generation = Generation(Arc::new(AtomicU32::new(u32::MAX)));
        generation.advance();
        assert_ne!(generation.current(), STALE);
        let before = generation.current();
        generation.advance();
        assert_ne!(generation.current(), before);
    }
}
