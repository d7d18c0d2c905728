//! How many handshakes a source may ask for: a bucket of tokens each.

use std::collections::HashMap;
use std::net::IpAddr;

/// Handshakes a second from one source while we are under load.
pub const PER_SECOND: u64 = 20;
/// As many more at once.
pub const BURST: u64 = 5;

/// Nanoseconds a handshake costs, and what a full bucket holds.
const COST_NS: u64 = 1_000_000_000 / PER_SECOND;
const FULL_NS: u64 = COST_NS * BURST;
/// Sources that are told apart; 40 bytes each. More of them cannot pass: they have shown a cookie, so they are real.
const SOURCES: usize = 8192;

/// Tokens of every source that asked of late. A source is an IPv4 address, or the /64 of an IPv6 address.
#[derive(Default)]
pub(crate) struct Limiter {
    /// Tokens, in nanoseconds, and when they were counted.
    buckets: HashMap<u64, (u64, u64)>,
    swept_ns: u64,
}

impl Limiter {
    /// Whether `source` may ask at `now_ns`.
    pub fn allow(&mut self, source: IpAddr, now_ns: u64) -> bool {
        self.sweep(now_ns);
        let key = key(source);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= SOURCES {
            return false;
        }
        let (tokens, since) = self.buckets.entry(key).or_insert((FULL_NS, now_ns));
        *tokens = (*tokens + now_ns.saturating_sub(*since)).min(FULL_NS);
        *since = now_ns;
        let allowed = *tokens >= COST_NS;
        *tokens -= if allowed { COST_NS } else { 0 };
        allowed
    }

    /// Forgets sources whose bucket is full again, once in the time that takes.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.swept_ns) >= FULL_NS {
            self.swept_ns = now_ns;
            self.buckets
                .retain(|_, (tokens, since)| *tokens + now_ns.saturating_sub(*since) < FULL_NS);
        }
    }
}

/// IPv4 addresses stand where no IPv6 prefix in use does: `::/32` is not given out (RFC 4291, 2.5).
fn key(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(limiter: &mut Limiter, source: &str, times: std::ops::Range<u64>, step_ns: u64) -> usize {
        let source = source.parse().unwrap();
        times
            .filter(|time| limiter.allow(source, SECOND + time * step_ns))
            .count()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut limiter = Limiter::default();
        assert_eq!(allowed(&mut limiter, "192.0.2.1", 0..100, 0), 5);
        assert_eq!(allowed(&mut limiter, "192.0.2.2", 0..1, 0), 1, "another source");
        assert_eq!(allowed(&mut limiter, "192.0.2.1", 1..1001, SECOND / 1000), 20);
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_source() {
        let mut limiter = Limiter::default();
        assert_eq!(allowed(&mut limiter, "2001:db8::1", 0..100, 0), 5);
        assert_eq!(allowed(&mut limiter, "2001:db8::2", 0..100, 0), 0);
        assert_eq!(allowed(&mut limiter, "2001:db8:0:1::2", 0..100, 0), 5);
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut limiter = Limiter::default();
        let flood = |limiter: &mut Limiter, now| {
            let addresses = (0..20_000u32).map(|n| IpAddr::V4(n.into()));
            addresses.filter(|&address| limiter.allow(address, now)).count()
        };
        assert_eq!(flood(&mut limiter, SECOND), SOURCES);
        assert_eq!(
            flood(&mut limiter, SECOND * 2),
            SOURCES,
            "the first ones were forgotten"
        );
        assert_eq!(limiter.buckets.len(), SOURCES);
    }
}
