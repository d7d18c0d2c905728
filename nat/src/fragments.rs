//! Ports for fragments that carry none: a later fragment has those of its datagram's first one, so that policy and
//! translation treat all of them alike. Nothing is put together here; fragments go on as they came.
//!
//! A fragment that comes before the first is held for a moment, within bounds. One that overlaps others is dropped with
//! all that follow of its datagram (RFC 5722 section 3, RFC 8200 section 4.5; for IPv4 likewise, RFC 1858, RFC 8900
//! section 3.7); one that repeats what passed already is dropped alone. No socket and no clock: packets come in as values
//! of any type and come out with their fate, at once or later.

use crate::table::sip;
use crate::time::{TICKS_PER_SECOND, Tick};
use fastpath::meta::{Endpoint, Flags, VrfId};

/// Datagrams that share a place: the oldest of them goes when another one comes.
const WAYS: usize = 8;
/// Packets of one datagram that may wait for its first.
const HELD_MAX: usize = 4;
/// Separate pieces of one datagram that are kept apart.
const SPANS_MAX: usize = 8;
/// How long the ports of a datagram are kept: fragments travel together, and a receiver gives up after 60 seconds
/// (RFC 8200 section 4.5).
const LIFE: u32 = 10 * TICKS_PER_SECOND;
/// How long a fragment waits for the first one.
const HOLD: u32 = TICKS_PER_SECOND / 2;

/// What tells the datagrams of a host apart (RFC 791 section 2.3, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Datagram([u64; 6]);

impl Datagram {
    /// Addresses as `parse` wrote them; `protocol` is that of an IPv4 header, and 0 for IPv6, whose fragments of one
    /// datagram may differ in it.
    pub fn new(
        source: &Endpoint,
        target: &Endpoint,
        identification: u32,
        protocol: u8,
        vrf: VrfId,
        flags: Flags,
    ) -> Self {
        let words = |end: &Endpoint| {
            let bits = end.v6_bits();
            [bits as u64, (bits >> 64) as u64]
        };
        let [[a, b], [c, d]] = [source, target].map(words);
        let family = u64::from(flags.has(Flags::IPV4));
        let numbers = u64::from(vrf.0) << 16 | u64::from(protocol) << 8 | family;
        Self([a, b, c, d, u64::from(identification), numbers])
    }
}

/// Where a fragment belongs in its datagram; `parse` has checked that it ends within 65,535 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes before it.
    pub offset: u16,
    /// Its bytes, at least one.
    pub length: u16,
    /// Whether others follow.
    pub more: bool,
    /// Of the first one, where its offset is 0: what its transport header says.
    pub ports: Ports,
}

/// Source and target port, or what stands for them, as in `Meta`.
pub type Ports = (u16, u16);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, with these ports.
    Pass(Ports),
    /// It is dropped.
    Drop(Why),
}

/// Why a fragment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It, or one before it, overlaps another fragment, or goes on behind the last one.
    Overlap,
    /// It repeats what passed already.
    Repeated,
    /// Its datagram came in too many separate pieces.
    Scattered,
    /// As many as may wait for the first fragment wait already.
    Crowded,
    /// The first fragment did not come in time.
    NoFirst,
    /// Others came in such numbers that its datagram was forgotten.
    Forgotten,
}

/// One worker's memory of datagrams under way. `P` is a packet, or what stands for it.
pub struct Fragments<P> {
    seed: [u64; 2],
    slots: Box<[Slot<P>]>,
    hand: usize,
    held: usize,
}

struct Slot<P> {
    datagram: Datagram,
    /// `None`: free.
    since: Option<Tick>,
    ports: Option<Ports>,
    is_spoilt: bool,
    spans: Spans,
    waiting: [Option<P>; HELD_MAX],
}

impl<P> Fragments<P> {
    /// For about `datagrams` at a time. `seed` is random: whoever knows it can make datagrams forget each other.
    pub fn new(datagrams: usize, seed: [u64; 2]) -> Self {
        let slots = datagrams.max(1).next_multiple_of(WAYS);
        Self {
            seed,
            slots: (0..slots).map(|_| Slot::new()).collect(),
            hand: 0,
            held: 0,
        }
    }

    /// Packets that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a fragment. It comes out of `out` at once, or waits; others may come out with it, those that waited first.
    pub fn take(
        &mut self,
        datagram: &Datagram,
        fragment: &Fragment,
        packet: P,
        now: Tick,
        mut out: impl FnMut(P, Fate),
    ) {
        // A datagram of one fragment needs no memory (RFC 6946).
        if fragment.offset == 0 && !fragment.more {
            return out(packet, Fate::Pass(fragment.ports));
        }
        let slot = self.slot(datagram, now, &mut out);
        let before = self.slots[slot].count_waiting();
        let slot = &mut self.slots[slot];
        slot.take(fragment, packet, &mut out);
        self.held = self.held + slot.count_waiting() - before;
    }

    /// Gives every packet up that waits.
    pub fn clear(&mut self, mut out: impl FnMut(P)) {
        for slot in &mut self.slots {
            slot.clear(Why::Forgotten, &mut |packet, _| out(packet));
        }
        self.held = 0;
    }

    /// Looks at the next `visits` places, and drops what has waited too long or is of no use any more.
    pub fn expire(&mut self, now: Tick, visits: usize, mut out: impl FnMut(P, Fate)) {
        for _ in 0..visits.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.is_over(now) {
                self.held -= slot.clear(Why::NoFirst, &mut out);
            }
        }
    }

    /// The place of a datagram, known or new.
    fn slot(&mut self, datagram: &Datagram, now: Tick, out: &mut impl FnMut(P, Fate)) -> usize {
        let sets = (self.slots.len() / WAYS) as u128;
        let set = ((u128::from(sip(self.seed, &datagram.0)) * sets) >> 64) as usize * WAYS;
        let ways = &self.slots[set..set + WAYS];
        let is_known = |slot: &Slot<P>| slot.since.is_some() && slot.datagram == *datagram;
        let known = ways.iter().position(is_known);
        if let Some(way) = known
            && !self.slots[set + way].is_over(now)
        {
            return set + way;
        }
        // Its own old place, or a free one, or the oldest.
        let age = |slot: &Slot<P>| slot.since.map_or(u32::MAX, |since| now.since(since));
        let oldest = || (0..WAYS).max_by_key(|way| (age(&ways[*way]), WAYS - way));
        let way = known.or_else(oldest).unwrap_or(0);
        let slot = &mut self.slots[set + way];
        let why = if slot.is_over(now) {
            Why::NoFirst
        } else {
            Why::Forgotten
        };
        self.held -= slot.clear(why, out);
        slot.datagram = *datagram;
        slot.since = Some(now);
        set + way
    }
}

impl<P> Slot<P> {
    fn new() -> Self {
        Self {
            datagram: Datagram::default(),
            since: None,
            ports: None,
            is_spoilt: false,
            spans: Spans::default(),
            waiting: [const { None }; HELD_MAX],
        }
    }

    fn count_waiting(&self) -> usize {
        self.waiting.iter().flatten().count()
    }

    fn is_over(&self, now: Tick) -> bool {
        let life = if self.ports.is_some() || self.is_spoilt {
            LIFE
        } else {
            HOLD
        };
        self.since.is_some_and(|since| now.since(since) >= life)
    }

    /// Frees the place; how many waited there.
    fn clear(&mut self, why: Why, out: &mut impl FnMut(P, Fate)) -> usize {
        let mut slot = std::mem::replace(self, Self::new());
        slot.release(Fate::Drop(why), out)
    }

    /// Lets out all that wait.
    fn release(&mut self, fate: Fate, out: &mut impl FnMut(P, Fate)) -> usize {
        let waiting = self.waiting.iter_mut().filter_map(Option::take);
        waiting.map(|packet| out(packet, fate)).count()
    }

    fn take(&mut self, fragment: &Fragment, packet: P, out: &mut impl FnMut(P, Fate)) {
        let added = if self.is_spoilt {
            Err(Why::Overlap)
        } else {
            self.spans.add(fragment)
        };
        if let Err(why) = added {
            self.is_spoilt |= why == Why::Overlap;
            if self.is_spoilt {
                self.release(Fate::Drop(Why::Overlap), out);
            }
            return out(packet, Fate::Drop(why));
        }
        if fragment.offset == 0 {
            self.ports = Some(fragment.ports);
            self.release(Fate::Pass(fragment.ports), out);
        }
        match (self.ports, self.waiting.iter_mut().find(|place| place.is_none())) {
            (Some(ports), _) => out(packet, Fate::Pass(ports)),
            (None, Some(place)) => *place = Some(packet),
            (None, None) => out(packet, Fate::Drop(Why::Crowded)),
        }
        if self.spans.is_whole() {
            *self = Self::new();
        }
    }
}

/// Which bytes of a datagram have come: pieces in order, none touching the next.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    pieces: [(u16, u16); SPANS_MAX],
    count: usize,
    /// Its length, once the last fragment has come.
    total: Option<u16>,
}

impl Spans {
    fn add(&mut self, fragment: &Fragment) -> Result<(), Why> {
        let (from, to) = (fragment.offset, fragment.offset.saturating_add(fragment.length));
        let pieces = &self.pieces[..self.count];
        if pieces.iter().any(|(start, end)| *start <= from && to <= *end) {
            return Err(Why::Repeated);
        }
        let overlaps = pieces.iter().any(|(start, end)| from < *end && *start < to);
        let beyond = self.total.is_some_and(|total| to > total || !fragment.more);
        let cut = !fragment.more && pieces.last().is_some_and(|(_, end)| *end > to);
        if overlaps || beyond || cut {
            return Err(Why::Overlap);
        }
        let at = pieces.iter().filter(|(start, _)| *start < from).count();
        let touches_before = at > 0 && pieces[at - 1].1 == from;
        let touches_after = pieces.get(at).is_some_and(|(start, _)| *start == to);
        match (touches_before, touches_after) {
            (true, true) => {
                self.pieces[at - 1].1 = self.pieces[at].1;
                self.pieces.copy_within(at + 1..self.count, at);
                self.count -= 1;
            }
            (true, false) => self.pieces[at - 1].1 = to,
            (false, true) => self.pieces[at].0 = from,
            (false, false) if self.count == SPANS_MAX => return Err(Why::Scattered),
            (false, false) => {
                self.pieces.copy_within(at..self.count, at + 1);
                self.pieces[at] = (from, to);
                self.count += 1;
            }
        }
        if !fragment.more {
            self.total = Some(to);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.count == 1 && self.total.is_some_and(|total| self.pieces[0] == (0, total))
    }
}

#[cfg(test)]
#[path = "fragments/tests.rs"]
mod tests;
