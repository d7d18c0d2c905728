//! Which packets of a session were seen, for several workers at once (5.4.6; RFC 6479 for the idea of blocks).
//!
//! A counter belongs to a block of 32; block `b` is kept in word `b mod 257`, together with the number of its lap,
//! `b / 257`. A word knows by itself whether a counter is new: a later lap replaces it, an earlier one is too old. So
//! there is no common edge of the window to move, and one compare-and-swap decides. The window of RFC 6479 has that
//! edge, and a worker that moves it clears the bits another one is just setting.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters behind the highest one that are surely still told apart.
pub const WINDOW: u64 = 8192;
/// Counters from here on are refused, as a word has 32 bits for the lap. A session lasts 180 s; the sender would have to
/// send 195 packets a nanosecond.
pub const LIMIT: u64 = WORDS << 37;

/// Bits of a word that stand for counters.
const BLOCK: u64 = 32;
/// One more than the window takes: the newest block may have but one counter.
const WORDS: u64 = WINDOW / BLOCK + 1;

/// Which counters of a session were accepted. 2,056 bytes.
pub struct Window {
    words: [AtomicU64; WORDS as usize],
}

/// Why a packet is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// Seen before.
    #[error("a packet with this counter was received before")]
    Seen,
    /// So old that it is not known any more whether it was seen.
    #[error("the packet's counter is too far behind")]
    Old,
    /// Too high; see [`LIMIT`].
    #[error("the packet's counter is higher than a session can reach")]
    High,
}

impl Window {
    /// Nothing was seen.
    pub fn new() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Marks `counter` as seen, once its packet is known to be authentic: `Ok` for one caller and one time only.
    ///
    /// # Errors
    /// [`Replay`], and nothing has changed.
    #[inline]
    pub fn accept(&self, counter: u64) -> Result<(), Replay> {
        let (word, mine) = self.place(counter)?;
        let mut found = word.load(Relaxed);
        loop {
            let marked = mark(found, mine)?;
            // Relaxed: nothing else is read on the strength of this word.
            match word.compare_exchange_weak(found, marked, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => found = other,
            }
        }
    }

    /// Whether [`accept`](Self::accept) would refuse `counter` now: saves the work of decrypting a replay.
    ///
    /// # Errors
    /// [`Replay`], as it would say.
    #[inline]
    pub fn check(&self, counter: u64) -> Result<(), Replay> {
        let (word, mine) = self.place(counter)?;
        mark(word.load(Relaxed), mine).map(drop)
    }

    /// The word for `counter`, and its lap with its bit.
    #[inline]
    fn place(&self, counter: u64) -> Result<(&AtomicU64, u64), Replay> {
        if counter >= LIMIT {
            return Err(Replay::High);
        }
        let block = counter / BLOCK;
        let lap = block / WORDS;
        Ok((
            &self.words[(block % WORDS) as usize],
            lap << BLOCK | 1 << (counter % BLOCK),
        ))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// The word `found` with the bit of `mine` set; both have their lap in the upper half.
#[inline]
fn mark(found: u64, mine: u64) -> Result<u64, Replay> {
    let (there, lap) = (found >> BLOCK, mine >> BLOCK);
    match lap.cmp(&there) {
        std::cmp::Ordering::Less => Err(Replay::Old),
        std::cmp::Ordering::Greater => Ok(mine),
        std::cmp::Ordering::Equal if found & mine & u64::from(u32::MAX) != 0 => Err(Replay::Seen),
        std::cmp::Ordering::Equal => Ok(found | mine),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn the_window_is_as_wide_as_said() {
        let window = Window::new();
        window.accept(20_000).unwrap();
        window.accept(20_000 - WINDOW).unwrap();
        assert_eq!(window.accept(20_000 - WINDOW), Err(Replay::Seen));
        assert_eq!(window.accept(20_000 - WORDS * BLOCK), Err(Replay::Old));
        assert_eq!(window.accept(20_000), Err(Replay::Seen));
    }

    #[test]
    fn ends_of_the_range() {
        let window = Window::new();
        window.accept(0).unwrap();
        assert_eq!(window.check(0), Err(Replay::Seen));
        window.accept(LIMIT - 1).unwrap();
        assert_eq!(window.accept(LIMIT - 1), Err(Replay::Seen));
        for counter in [LIMIT, u64::MAX] {
            assert_eq!(window.accept(counter), Err(Replay::High));
        }
    }

    proptest! {
        /// Steps forwards and backwards, some far, held against a set of everything that was accepted.
        #[test]
        fn never_twice_and_never_too_strict(steps in prop::collection::vec(
            prop_oneof![
                8 => -40i64..60,
                2 => -(WINDOW as i64) - 100..WINDOW as i64 + 100,
                1 => 0..1i64 << 36,
            ], 1..600)) {
            let (window, mut accepted, mut highest, mut at) = (Window::new(), HashSet::new(), 0u64, 0u64);
            for step in steps {
                at = at.saturating_add_signed(step).min(LIMIT - 1);
                let checked = window.check(at);
                let said = window.accept(at);
                prop_assert_eq!(checked, said);
                if accepted.contains(&at) {
                    prop_assert!(said.is_err());
                } else if at + WINDOW >= highest {
                    prop_assert_eq!(said, Ok(()));
                }
                if said.is_ok() {
                    accepted.insert(at);
                    highest = highest.max(at);
                }
            }
        }
    }
}
