//! Time, read once a turn.
#![allow(unsafe_code)]

use std::time::Instant;

/// Monotonic time since the process started its plane. Protocols and nodes take its readings; they never read it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.0.elapsed().as_nanos() as u64
    }
}

/// Both clocks at one moment, to tell what a cycle is worth.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    clock: Clock,
    cycles: u64,
}

impl Calibration {
    /// Reads both.
    pub fn begin() -> Self {
        Self {
            clock: Clock::new(),
            cycles: cycles(),
        }
    }

    /// Nanoseconds a cycle of the time-stamp counter takes, measured since the beginning; 0 where there is none.
    pub fn ns_per_cycle(&self) -> f64 {
        let passed = cycles().wrapping_sub(self.cycles);
        if passed == 0 {
            0.0
        } else {
            self.clock.now_ns() as f64 / passed as f64
        }
    }
}

/// The processor's time-stamp counter, in cycles; 0 where there is none. Read at the border of stages, for statistics.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction; it reads a counter and touches no memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}
