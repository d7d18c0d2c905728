//! The time of flows: ticks of a tenth of a second, so that one of them fits 32 bits for 13 years.

/// Ticks in a second.
pub const TICKS_PER_SECOND: u32 = 10;

const TICK_NS: u64 = 1_000_000_000 / TICKS_PER_SECOND as u64;

/// A moment, counted from an arbitrary one; wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick of a reading of the engine's clock, in nanoseconds.
    #[inline]
    pub fn from_ns(now_ns: u64) -> Self {
        Self((now_ns / TICK_NS) as u32)
    }

    /// Ticks since `earlier`; 0 if that is later. Two workers' readings may differ by a tick, and a connection seen "in
    /// the future" must not look as if it had been silent for years.
    #[inline(always)]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0).cast_signed().max(0).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_counts_and_the_future_does_not() {
        assert_eq!(Tick::from_ns(2_550_000_000), Tick(25));
        assert_eq!(Tick(25).since(Tick(20)), 5);
        assert_eq!(Tick(20).since(Tick(25)), 0);
        assert_eq!(Tick(3).since(Tick(u32::MAX - 1)), 5, "over the wrap");
    }
}
