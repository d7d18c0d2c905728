//! Limits of rate: what exceeds them is dropped, nothing waits.
//!
//! A [`Limiter`] is shared by all workers and exact among them: a bucket is one atomic number, the time at which it will be
//! full again (the generic cell rate algorithm, ITU-T I.371 annex A). A worker's time is its turn's, which is behind the
//! others' by a turn at most; who is behind finds fewer tokens, never more. So in any stretch of time no more passes than
//! the burst and what the rate allows in it, with any number of workers.

use crate::wire::{ethernet, icmp, protocol};
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of a nanosecond in which buckets count: 2^64 of them are nine years.
const FRACTION_BITS: u32 = 6;
/// Further bits of the time that one token takes.
const TOKEN_BITS: u32 = 20;
/// Bytes of the largest frame: a bucket that holds less would pass none.
const FRAME_BYTES: u64 = 2048;

/// A rate, and how much may come at once after silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits or packets a second; at least 1.
    pub per_second: u64,
    /// Bits or packets.
    pub burst: u64,
}

/// What is limited. Bits are those of frames, from the Ethernet header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bits a second.
    pub bandwidth: Option<Rate>,
    /// Bits a second while the burst of `bandwidth` lasts.
    pub peak: Option<Rate>,
    /// Packets a second.
    pub packets: Option<Rate>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which limit a packet exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// That of bits.
    Bandwidth,
    /// That of packets.
    PacketRate,
}

/// Tokens that come at a rate and are kept up to a burst.
#[derive(Debug)]
struct Bucket {
    /// When it will be full, in parts of a nanosecond.
    full_at: AtomicU64,
    /// What a token takes to come, in smaller parts yet.
    per_token: u64,
    /// What the whole bucket takes.
    depth: u64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let second = 1_000_000_000u128 << (FRACTION_BITS + TOKEN_BITS);
        // Rounded up: at worst less passes than allowed.
        let per_token = second.div_ceil(u128::from(rate.per_second.max(1)));
        let depth = per_token
            .saturating_mul(u128::from(rate.burst))
            .div_ceil(1 << TOKEN_BITS);
        Self {
            full_at: AtomicU64::new(0),
            per_token: per_token as u64,
            // Deeper ones would overflow, and are never emptied.
            depth: depth.min(u128::from(u64::MAX >> 1)) as u64,
        }
    }

    /// Takes tokens, or leaves them all. What to give back to undo it.
    #[inline]
    fn take(&self, now: u64, tokens: u64) -> Option<u64> {
        let cost = (u128::from(self.per_token) * u128::from(tokens)).div_ceil(1 << TOKEN_BITS);
        let cost = u64::try_from(cost).ok().filter(|cost| *cost <= self.depth)?;
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let later = full_at.max(now) + cost;
                (later - now <= self.depth).then_some(later)
            });
        taken.ok().map(|_| cost)
    }

    fn give_back(&self, cost: u64) {
        self.full_at.fetch_sub(cost, Ordering::Relaxed);
    }
}

/// The limits of one direction of a port, and what they have done. Equal to itself alone.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    buckets: [Option<Bucket>; 3],
    dropped: [AtomicU64; 2],
}

impl PartialEq for Limiter {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for Limiter {}

impl Limiter {
    /// Begins with full buckets. A burst that would pass no frame at all is one of a frame.
    pub fn new(limits: Limits) -> Self {
        let least = |rate: Option<Rate>, burst: u64| {
            rate.map(|rate| {
                Bucket::new(Rate {
                    burst: rate.burst.max(burst),
                    ..rate
                })
            })
        };
        let buckets = [
            least(limits.packets, 1),
            least(limits.peak, FRAME_BYTES * 8),
            least(limits.bandwidth, FRAME_BYTES * 8),
        ];
        Self {
            limits,
            buckets,
            dropped: Default::default(),
        }
    }

    /// What it was made of.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Lets a frame of `bytes` pass at this time, or counts it as dropped. One that is dropped uses up nothing.
    ///
    /// # Errors
    /// The limit it exceeds.
    #[inline]
    pub fn pass(&self, now_ns: u64, bytes: u16) -> Result<(), Exceeded> {
        let now = now_ns << FRACTION_BITS;
        let tokens = [1, u64::from(bytes) * 8, u64::from(bytes) * 8];
        let mut taken = [0; 3];
        for at in 0..self.buckets.len() {
            let Some(bucket) = &self.buckets[at] else { continue };
            match bucket.take(now, tokens[at]) {
                Some(cost) => taken[at] = cost,
                None => {
                    let before = self.buckets[..at].iter().flatten().zip(&taken);
                    before.for_each(|(bucket, cost)| bucket.give_back(*cost));
                    return Err(self.count(at));
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn count(&self, bucket: usize) -> Exceeded {
        let (place, exceeded) = match bucket {
            0 => (1, Exceeded::PacketRate),
            _ => (0, Exceeded::Bandwidth),
        };
        self.dropped[place].fetch_add(1, Ordering::Relaxed);
        exceeded
    }

    /// Packets dropped for their bits, and for their number.
    pub fn dropped(&self) -> [u64; 2] {
        [0, 1].map(|at| self.dropped[at].load(Ordering::Relaxed))
    }
}

/// Whether a frame is one of the link's own, without which nothing gets there at all: ARP and neighbour discovery are not
/// limited, or a flood would have a neighbour forgotten.
pub fn is_of_link(frame: &[u8]) -> bool {
    let Some(head) = frame.first_chunk::<55>() else {
        return frame.get(12..14) == Some(&ethernet::ARP.to_be_bytes());
    };
    match u16::from_be_bytes([head[12], head[13]]) {
        ethernet::ARP => true,
        ethernet::IPV6 => {
            let discovery = icmp::v6::ROUTER_SOLICITATION..=icmp::v6::REDIRECT;
            head[20] == protocol::ICMPV6 && head[21] == 255 && discovery.contains(&head[54])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(per_second: u64, burst: u64) -> Limits {
        let bandwidth = Some(Rate { per_second, burst });
        Limits {
            bandwidth,
            ..Limits::default()
        }
    }

    /// Frames of 1,000 bytes that pass at this time, of `offered`.
    fn passed(limiter: &Limiter, now_ns: u64, offered: usize) -> usize {
        (0..offered).filter(|_| limiter.pass(now_ns, 1000).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        // 8 Mbit/s are a frame of 1,000 bytes each millisecond.
        let limiter = Limiter::new(bits(8_000_000, 80_000));
        assert_eq!(passed(&limiter, 5, 100), 10);
        assert_eq!(passed(&limiter, 5 + 999_000, 1), 0);
        assert_eq!(passed(&limiter, 5 + 1_000_001, 2), 1);
        assert_eq!(passed(&limiter, 3_600_000_000_000, 100), 10);
        assert_eq!(limiter.dropped(), [90 + 1 + 1 + 90, 0]);
    }

    #[test]
    fn what_one_limit_drops_uses_up_nothing_of_another() {
        let packets = Some(Rate {
            per_second: 1000,
            burst: 50,
        });
        let limits = Limits {
            packets,
            ..bits(8_000_000, 80_000)
        };
        let limiter = Limiter::new(limits);
        assert_eq!(passed(&limiter, 1, 100), 10);
        // 40 packets are left, though not the bits for large ones.
        assert_eq!((0..100).filter(|_| limiter.pass(1, 0).is_ok()).count(), 40);
        assert_eq!(limiter.dropped(), [90, 60]);
    }

    #[test]
    fn a_peak_rate_spreads_the_burst() {
        let peak = Some(Rate {
            per_second: 16_000_000,
            burst: 0,
        });
        let limiter = Limiter::new(Limits {
            peak,
            ..bits(8_000_000, 800_000)
        });
        // 2,048 bytes at once, and then two frames a millisecond while the burst of 100 frames lasts.
        assert_eq!(passed(&limiter, 1, 100), 2);
        let counts: Vec<usize> = (1..400).map(|ms| passed(&limiter, ms * 1_000_000, 10)).collect();
        assert!(counts[..95].iter().all(|count| (1..=2).contains(count)), "{counts:?}");
        let (early, late): (usize, usize) = (counts[..50].iter().sum(), counts[300..350].iter().sum());
        assert!((99..=101).contains(&early), "{early}");
        assert!((49..=51).contains(&late), "{late}");
    }

    #[test]
    fn workers_share_the_burst() {
        let limiter = Limiter::new(bits(8, 8_000_000));
        let passed: usize = std::thread::scope(|scope| {
            let worker = |_| scope.spawn(|| passed(&limiter, 7, 900));
            let workers: Vec<_> = (0..4).map(worker).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn extremes_neither_overflow_nor_stop_all() {
        for (per_second, burst) in [(1, 0), (1, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (0, 0)] {
            let limiter = Limiter::new(bits(per_second, burst));
            assert!(limiter.pass(0, 2048).is_ok(), "{per_second} {burst}");
            assert!(
                limiter.pass(1 << 57, u16::MAX).is_ok() || burst == 0,
                "{per_second} {burst}"
            );
        }
    }

    #[test]
    fn arp_and_neighbour_discovery_are_of_the_link() {
        let mut frame = [0; 86];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        (frame[20], frame[21]) = (58, 255);
        for (kind, expected) in [(128, false), (133, true), (135, true), (137, true), (138, false)] {
            frame[54] = kind;
            assert_eq!(is_of_link(&frame), expected, "{kind}");
        }
        // From elsewhere it is a packet as any other.
        (frame[21], frame[54]) = (64, 135);
        assert!(!is_of_link(&frame));
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(is_of_link(&frame) && is_of_link(&frame[..42]));
        assert!(!is_of_link(&frame[..13]) && !is_of_link(&[]));
    }

    proptest! {
        /// Tokens drip into a bucket one by one.
        #[test]
        fn it_agrees_with_a_naive_bucket(
            per_second in 1_000u64..1_000_000_000,
            burst in 16_384u64..1_000_000,
            steps in prop::collection::vec((0u64..3_000_000, 60u16..1500), 1..300),
        ) {
            let limiter = Limiter::new(bits(per_second, burst));
            let (mut now_ns, mut tokens) = (0, burst as f64);
            for (wait_ns, bytes) in steps {
                now_ns += wait_ns;
                tokens = (tokens + wait_ns as f64 * per_second as f64 / 1e9).min(burst as f64);
                let wanted = f64::from(bytes) * 8.0;
                let passed = limiter.pass(now_ns, bytes).is_ok();
                // Where it is a matter of less than a bit, rounding decides.
                prop_assert!(passed == (tokens >= wanted) || (tokens - wanted).abs() < 1.0, "{tokens} of {wanted}: {passed}");
                tokens -= if passed { wanted } else { 0.0 };
            }
        }

        /// Workers whose time is behind never pass more than the rate and the burst allow.
        #[test]
        fn late_workers_pass_no_more(
            per_second in 1_000_000u64..1_000_000_000,
            steps in prop::collection::vec((0u64..100_000, 0u64..200_000, 60u16..1500), 1..300),
        ) {
            const BURST: u64 = 100_000;
            let limiter = Limiter::new(bits(per_second, BURST));
            let (mut now_ns, mut bits) = (1_000_000, 0);
            let start = now_ns;
            for (wait_ns, behind_ns, bytes) in steps {
                now_ns += wait_ns;
                bits += if limiter.pass(now_ns - behind_ns, bytes).is_ok() { u64::from(bytes) * 8 } else { 0 };
            }
            let allowed = BURST + (now_ns - start).saturating_mul(per_second) / 1_000_000_000 + 1;
            prop_assert!(bits <= allowed + 200_000 * per_second / 1_000_000_000, "{bits} of {allowed}");
        }
    }
}
