//! How often each rule matched: counters of one worker, which control reads beside it.
//!
//! A rule has a place of its own among the counters from when it comes to when it goes, whatever happens to its policy
//! or to others. A worker adds with plain loads and stores: nobody else writes there.

use crate::program::Direction;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Counters that come together.
const PAGE: usize = 1024;
/// Pages there can be: rules beyond that are not counted.
const PAGES: usize = 4096;

/// A rule's place among the counters.
pub(crate) type Place = u32;

/// Of a rule that is not counted.
const NOWHERE: Place = u32::MAX;

#[derive(Default)]
struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
    seen_ns: AtomicU64,
}

/// What one writer has counted.
pub struct Tally {
    pages: Box<[OnceLock<Box<[Counter]>>]>,
}

/// What is known of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that it matched.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// When the last of them came, by the workers' clock.
    pub seen_ns: Option<u64>,
    /// When the rule came, by control's.
    pub since_ns: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            pages: (0..PAGES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts packets for the rule at a place. For its one writer.
    #[inline]
    pub(crate) fn add(&self, place: Place, packets: u64, bytes: u64, now_ns: u64) {
        let Some(counter) = self.counter(place) else { return };
        let plus = |counter: &AtomicU64, more: u64| counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
        plus(&counter.packets, packets);
        plus(&counter.bytes, bytes);
        // Zero is never.
        counter.seen_ns.store(now_ns.max(1), Relaxed);
    }

    #[inline]
    fn counter(&self, place: Place) -> Option<&Counter> {
        let place = place as usize;
        self.pages.get(place / PAGE)?.get()?.get(place % PAGE)
    }

    fn grow(&self, page: usize) {
        if let Some(page) = self.pages.get(page) {
            page.get_or_init(|| (0..PAGE).map(|_| Counter::default()).collect());
        }
    }
}

/// The places of a policy's rules, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    ingress: Arc<[Place]>,
    egress: Arc<[Place]>,
}

impl Places {
    pub fn new(ingress: Arc<[Place]>, egress: Arc<[Place]>) -> Places {
        Places { ingress, egress }
    }

    pub fn of(&self, direction: Direction) -> &Arc<[Place]> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Where a rule is counted.
    #[inline]
    pub fn get(&self, direction: Direction, rule: u32) -> Place {
        self.of(direction).get(rule as usize).copied().unwrap_or(NOWHERE)
    }
}

/// All counters, for control.
#[derive(Default)]
pub(crate) struct Tallies {
    all: Mutex<Vec<Arc<Tally>>>,
    /// Control's own, which is one of them, once there is something to count.
    own: Option<Arc<Tally>>,
    /// When the rule at each place came.
    since_ns: Vec<u64>,
    /// Places that nobody counts at any more, the longest unused first.
    free: VecDeque<Place>,
    /// Places of rules that go with the next program.
    going: Vec<Place>,
    /// Places of rules that have gone, with the stamp after which no worker counts there.
    gone: VecDeque<(u64, Vec<Place>)>,
}

impl Tallies {
    /// Counters of one more writer.
    pub fn tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::new());
        (0..self.since_ns.len().div_ceil(PAGE)).for_each(|page| tally.grow(page));
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(tally.clone());
        tally
    }

    /// A place for a rule that comes, with nothing counted.
    pub fn give(&mut self, now_ns: u64) -> Place {
        let all = self.all.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = self.free.pop_front() {
            for counter in all.iter().filter_map(|tally| tally.counter(place)) {
                for number in [&counter.packets, &counter.bytes, &counter.seen_ns] {
                    number.store(0, Relaxed);
                }
            }
            self.since_ns[place as usize] = now_ns;
            return place;
        }
        let place = self.since_ns.len();
        if place >= PAGE * PAGES {
            return NOWHERE;
        }
        if place.is_multiple_of(PAGE) {
            all.iter().for_each(|tally| tally.grow(place / PAGE));
        }
        self.since_ns.push(now_ns);
        place as Place
    }

    /// Takes places back, of rules that go with the next program.
    pub fn take(&mut self, places: &[Place]) {
        self.going
            .extend(places.iter().filter(|place| **place != NOWHERE).copied());
    }

    /// The next program is published at this stamp.
    pub fn published(&mut self, stamp: u64) {
        if !self.going.is_empty() {
            self.gone.push_back((stamp, std::mem::take(&mut self.going)));
        }
    }

    /// Frees the places where no worker counts any more. Whether some wait.
    pub fn reclaim(&mut self, safe: u64) -> bool {
        while let Some((_, places)) = self.gone.pop_front_if(|(stamp, _)| *stamp <= safe) {
            self.free.extend(places);
        }
        !self.gone.is_empty()
    }

    /// Counts for the rule at a place as one more writer does.
    pub fn credit(&mut self, place: Place, packets: u64, bytes: u64, now_ns: u64) {
        if self.own.is_none() {
            self.own = Some(self.tally());
        }
        if let Some(own) = &self.own {
            own.add(place, packets, bytes, now_ns);
        }
    }

    /// What all have counted for the rule at a place.
    pub fn count(&self, place: Place) -> Count {
        let Some(since_ns) = self.since_ns.get(place as usize) else {
            return Count::default();
        };
        let mut count = Count {
            since_ns: *since_ns,
            ..Count::default()
        };
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for counter in all.iter().filter_map(|tally| tally.counter(place)) {
            count.packets += counter.packets.load(Relaxed);
            count.bytes += counter.bytes.load(Relaxed);
            let seen_ns = Some(counter.seen_ns.load(Relaxed)).filter(|seen_ns| *seen_ns > 0);
            count.seen_ns = count.seen_ns.max(seen_ns);
        }
        count
    }

    /// Bytes that the counters take.
    pub fn bytes(&self) -> usize {
        let tallies = self.all.lock().unwrap_or_else(PoisonError::into_inner).len();
        let pages = self.since_ns.len().div_ceil(PAGE);
        self.since_ns.len() * size_of::<u64>() + tallies * pages * PAGE * size_of::<Counter>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writers_count_is_added_up_and_a_place_given_again_begins_at_nothing() {
        let mut tallies = Tallies::default();
        let one = tallies.tally();
        let place = tallies.give(7);
        let two = tallies.tally();
        one.add(place, 1, 100, 20);
        two.add(place, 2, 50, 10);
        let all = Count {
            packets: 3,
            bytes: 150,
            seen_ns: Some(20),
            since_ns: 7,
        };
        assert_eq!(tallies.count(place), all);
        tallies.take(&[place]);
        assert_ne!(tallies.give(8), place, "workers may still count there");
        tallies.published(5);
        assert!(tallies.reclaim(4));
        assert!(!tallies.reclaim(5));
        assert_eq!(tallies.give(9), place);
        let nothing = Count {
            since_ns: 9,
            ..Count::default()
        };
        assert_eq!(tallies.count(place), nothing);
    }

    #[test]
    fn rules_beyond_all_places_are_not_counted() {
        let mut tallies = Tallies {
            since_ns: vec![0; PAGE * PAGES],
            ..Tallies::default()
        };
        assert_eq!(tallies.give(1), NOWHERE);
        Tally::new().add(NOWHERE, 1, 1, 1);
        tallies.take(&[NOWHERE]);
        assert_eq!((tallies.count(NOWHERE), tallies.going.len()), (Count::default(), 0));
    }
}
