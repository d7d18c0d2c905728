//! One direction of a connection: 64 bytes, one line. Legs `2n` and `2n + 1` are the two directions of connection `n`.

use crate::key::Key;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::time::Tick;

/// Index of a leg in its table. The leg of packets that open the connection is even; `id ^ 1` is the other one.
pub type LegId = u32;

/// No leg.
pub const NONE: LegId = u32::MAX;

/// Words: 0-4 the key; 5 bytes (48 bits), lives (3) and what the protocol's tracker marks (13); 6 packets (40) and adjacency (24);
/// 7 generation (32) and tick last seen (32). Counters are in the upper bits: one that wraps harms no neighbour.
///
/// Words 0 and 2 of an IPv4 key are zero, and the family says so. In the leg of one they hold what an IPv4 packet needs
/// besides: new addresses in word 0; new ports, and 32 bits of its protocol's tracker, in word 2. So an IPv4 packet
/// touches this line and no other, and two workers that serve the two directions share none. IPv6 has no such room: its
/// translation is the other leg's key, turned round, and the tracker's bits stand in an array beside the legs.
///
/// A leg that is in the table is written only by the worker that receives its packets, with plain loads and stores.
/// Should packets of one direction come to two workers at a time (a NIC that spreads them otherwise in mid-flow), one
/// may undo what the other just wrote in the same word: counts and marks are lost, nothing else is harmed.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Leg([AtomicU64; 8]);

/// What the nodes know of a direction when a connection is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Where its packets leave: 24 bits.
    pub adjacency: u32,
    /// Number of the configuration that its verdict was made under. A verdict is stale for policy (or routes, or
    /// services) if this is below the number of their last change.
    pub generation: u32,
    /// What the protocol's tracker starts with.
    pub mark: Mark,
}

/// What a protocol's tracker remembers of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Flags and small numbers: the lower 13 bits are kept.
    pub bits: u16,
    /// One number: a TCP sequence, an SCTP tag.
    pub number: u32,
}

/// What a packet of a known connection is to become; ports and addresses in memory order, as the packet has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationV4 {
    /// New source address.
    pub source: u32,
    /// New target address.
    pub target: u32,
    /// New source port in the low half, new target port in the high half.
    pub ports: u32,
}

/// What a leg says about the packet just counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where it leaves.
    pub adjacency: u32,
    /// What it was decided under.
    pub generation: u32,
}

const LOW_16: u64 = 0xffff;
/// The bits of a [`Mark`]; those above count the lives of the leg.
const MARK_BITS: u16 = (1 << LIFE_SHIFT) - 1;
const LIFE_SHIFT: u32 = 13;
const LOW_24: u64 = 0xff_ffff;
const LOW_32: u64 = 0xffff_ffff;

impl Leg {
    /// Fills a leg that nobody can find yet. `other` is the key of the other direction.
    pub(crate) fn fill(&self, key: &Key, other: &Key, start: &Start, now: Tick) {
        let mut words = key.0;
        if key.is_v4() {
            let new = other.reversed();
            words[0] = new.0[1] >> 32 | new.0[3] & !LOW_32;
            words[2] = u64::from(new.ports());
        }
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, Relaxed);
        }
        let life = self.life().wrapping_add(1);
        self.0[5].store(u64::from(life) << LIFE_SHIFT & LOW_16, Relaxed);
        self.0[6].store(u64::from(start.adjacency) & LOW_24, Relaxed);
        self.0[7].store(u64::from(start.generation) << 32 | u64::from(now.0), Relaxed);
    }

    /// Tells apart the last eight connections that had this leg.
    pub(crate) fn life(&self) -> u8 {
        (self.0[5].load(Relaxed) as u16 >> LIFE_SHIFT) as u8
    }

    /// The key of its packets, as they arrive.
    #[inline(always)]
    pub fn key(&self) -> Key {
        let mut key = Key(std::array::from_fn(|i| self.0[i].load(Relaxed)));
        if key.is_v4() {
            (key.0[0], key.0[2]) = (0, 0);
        }
        key
    }

    #[inline(always)]
    pub(crate) fn has_key(&self, key: &Key) -> bool {
        let differs = |i: usize| self.0[i].load(Relaxed) ^ key.0[i];
        let upper = if key.is_v4() { 0 } else { differs(0) | differs(2) };
        upper | differs(1) | differs(3) | differs(4) == 0
    }

    /// How an IPv4 packet leaves. Of no meaning for IPv6.
    #[inline(always)]
    pub fn translation_v4(&self) -> TranslationV4 {
        let addresses = self.0[0].load(Relaxed);
        TranslationV4 {
            source: addresses as u32,
            target: (addresses >> 32) as u32,
            ports: self.0[2].load(Relaxed) as u32,
        }
    }

    /// Counts a packet of `bytes` at `now`.
    #[inline(always)]
    pub fn count(&self, bytes: u32, now: Tick) -> Verdict {
        let [bytes_bits, packets_adjacency, generation_seen] = [5, 6, 7].map(|i| self.0[i].load(Relaxed));
        self.0[5].store(bytes_bits.wrapping_add(u64::from(bytes) << 16), Relaxed);
        self.0[6].store(packets_adjacency.wrapping_add(1 << 24), Relaxed);
        // Once a tick, not once a packet.
        if generation_seen as u32 != now.0 {
            self.0[7].store(generation_seen & !LOW_32 | u64::from(now.0), Relaxed);
        }
        Verdict {
            adjacency: (packets_adjacency & LOW_24) as u32,
            generation: (generation_seen >> 32) as u32,
        }
    }

    /// A new verdict, made by the worker that receives these packets.
    pub fn renew(&self, verdict: Verdict) {
        let packets = self.0[6].load(Relaxed) & !LOW_24;
        self.0[6].store(packets | u64::from(verdict.adjacency) & LOW_24, Relaxed);
        let seen = self.0[7].load(Relaxed) & LOW_32;
        self.0[7].store(u64::from(verdict.generation) << 32 | seen, Relaxed);
    }

    /// Packets counted.
    pub fn packets(&self) -> u64 {
        self.0[6].load(Relaxed) >> 24
    }

    /// Bytes counted.
    pub fn bytes(&self) -> u64 {
        self.0[5].load(Relaxed) >> 16
    }

    /// The verdict there is.
    pub fn verdict(&self) -> Verdict {
        Verdict {
            adjacency: (self.0[6].load(Relaxed) & LOW_24) as u32,
            generation: (self.0[7].load(Relaxed) >> 32) as u32,
        }
    }

    /// When the last packet came, or else the connection was made.
    pub fn seen(&self) -> Tick {
        Tick(self.0[7].load(Relaxed) as u32)
    }

    /// The tracker's bits.
    #[inline(always)]
    pub(crate) fn bits(&self) -> u16 {
        self.0[5].load(Relaxed) as u16 & MARK_BITS
    }

    #[inline(always)]
    pub(crate) fn set_bits(&self, bits: u16) {
        let others = self.0[5].load(Relaxed) & !u64::from(MARK_BITS);
        self.0[5].store(others | u64::from(bits & MARK_BITS), Relaxed);
    }

    /// The tracker's number of an IPv4 leg.
    #[inline(always)]
    pub(crate) fn number_v4(&self) -> u32 {
        (self.0[2].load(Relaxed) >> 32) as u32
    }

    #[inline(always)]
    pub(crate) fn set_number_v4(&self, number: u32) {
        let ports = self.0[2].load(Relaxed) & LOW_32;
        self.0[2].store(u64::from(number) << 32 | ports, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn is_v4(&self) -> bool {
        Key([0, 0, 0, 0, self.0[4].load(Relaxed)]).is_v4()
    }

    /// IP protocol number of its packets.
    pub(crate) fn protocol(&self) -> u8 {
        Key([0, 0, 0, 0, self.0[4].load(Relaxed)]).protocol()
    }

    /// Marks a leg as nobody's, once no reader can hold it any more.
    pub(crate) fn wipe(&self) {
        self.0[4].store(0, Relaxed);
    }

    /// False only for a leg never used or wiped.
    pub(crate) fn is_in_use(&self) -> bool {
        self.0[4].load(Relaxed) != 0
    }

    /// The words that a free leg lends to the list of free numbers: not the one that says it is free, nor the one that
    /// counts its lives.
    pub(crate) fn spare(&self) -> [&AtomicU64; 6] {
        let [a, b, c, d, _, _, e, f] = &self.0;
        [a, b, c, d, e, f]
    }
}
