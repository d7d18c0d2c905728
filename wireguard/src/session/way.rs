//! The way to a peer. Whichever worker hears from it elsewhere changes it, and all of them send by it from then on.

use super::Ends;
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use crate::sync::{Mutex, MutexGuard};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::PoisonError;

/// Both addresses, in two words each, and what else there is to say of them.
type Words = [u64; 5];

/// Both ends, of which one is written while the other is read. Lines of its own: it is read far more often than written.
#[derive(Debug)]
#[repr(align(64))]
pub struct Way {
    /// How often it was changed; the lowest bit says which of the slots counts.
    version: AtomicU64,
    /// Held by who changes it.
    changing: Mutex<()>,
    slots: [[AtomicU64; 5]; 2],
}

impl Way {
    /// The ends as they are; none while the peer is nowhere.
    #[inline]
    pub fn get(&self) -> Option<Ends> {
        // Read again only where somebody else has come further meanwhile.
        loop {
            let version = self.version.load(Acquire);
            let words = self.slots[version as usize & 1]
                .each_ref()
                .map(|word| word.load(Relaxed));
            // Whoever read a word of the change after the next sees that there was a next one.
            fence(Acquire);
            if self.version.load(Relaxed) == version {
                return decode(&words);
            }
        }
    }

    /// Worker: the peer was heard from here. While somebody else changes it, that is left to the next packet.
    #[cold]
    pub fn follow(&self, ends: Ends) {
        if let Ok(turn) = self.changing.try_lock() {
            self.write(encode(&ends), &turn);
        }
    }

    /// Control: makes it what `change` says of what it is. `change` is asked once.
    pub fn change(&self, change: impl FnOnce(Option<Ends>) -> Option<Ends>) {
        let turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(self.get());
        self.write(changed.as_ref().map_or_else(Words::default, encode), &turn);
    }

    /// Has the cache fetch it.
    #[inline(always)]
    pub fn warm(&self) {
        std::hint::black_box(self.version.load(Relaxed) ^ self.slots[1][4].load(Relaxed));
    }

    fn write(&self, words: Words, _: &MutexGuard<'_, ()>) {
        let next = self.version.load(Relaxed) + 1;
        fence(Release);
        for (slot, word) in self.slots[next as usize & 1].iter().zip(words) {
            slot.store(word, Relaxed);
        }
        self.version.store(next, Release);
    }
}

impl Default for Way {
    /// To nowhere.
    fn default() -> Self {
        let nothing = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            version: AtomicU64::new(0),
            changing: Mutex::new(()),
            slots: [nothing(), nothing()],
        }
    }
}

/// What the last word says: where there are ends at all, of which family, and the peer's port above.
const KNOWN: u64 = 1;
const REMOTE_V4: u64 = 2;
const LOCAL: u64 = 4;
const LOCAL_V4: u64 = 8;

fn encode(ends: &Ends) -> Words {
    let [a, b] = halves(ends.remote.ip());
    let [c, d] = ends.local.map_or([0; 2], halves);
    let bit = |condition: bool, bit| if condition { bit } else { 0 };
    let bits = KNOWN
        | bit(ends.remote.is_ipv4(), REMOTE_V4)
        | bit(ends.local.is_some(), LOCAL)
        | bit(ends.local.is_some_and(|local| local.is_ipv4()), LOCAL_V4);
    [a, b, c, d, bits | u64::from(ends.remote.port()) << 16]
}

fn decode(&[a, b, c, d, bits]: &Words) -> Option<Ends> {
    let has = |bit| bits & bit != 0;
    has(KNOWN).then(|| Ends {
        remote: SocketAddr::new(address([a, b], has(REMOTE_V4)), (bits >> 16) as u16),
        local: has(LOCAL).then(|| address([c, d], has(LOCAL_V4))),
    })
}

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn address([high, low]: [u64; 2], is_v4: bool) -> IpAddr {
    match is_v4 {
        true => Ipv4Addr::from_bits(low as u32).into(),
        false => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let way = Way::default();
        assert_eq!(way.get(), None);
        for remote in [
            "192.0.2.1:51820",
            "[2001:db8::1]:1",
            "[::ffff:192.0.2.1]:65535",
            "[::]:0",
        ] {
            for local in [None, Some("198.51.100.7"), Some("fe80::1"), Some("0.0.0.0"), Some("::")] {
                let ends = Ends {
                    remote: remote.parse().unwrap(),
                    local: local.map(|local| local.parse().unwrap()),
                };
                way.follow(ends);
                assert_eq!(way.get(), Some(ends));
            }
        }
        way.change(|ends| ends.map(|ends| Ends { local: None, ..ends }));
        assert_eq!(way.get(), Some(Ends::to("[::]:0".parse().unwrap())));
        way.change(|_| None);
        assert_eq!(way.get(), None);
    }
}
