//! Who is where on the links: the states of neighbours, without sockets or clocks.
//!
//! Time and what was heard come in; questions to ask and news for the adjacencies come out. One machine serves ARP and
//! neighbour discovery (RFC 826, RFC 1122 section 2.3.2.1, RFC 4861 section 7.3; its times are of RFC 4861 section 10).

use crate::events::Mac;
use crate::forwarding::ADJACENCIES;
use crate::meta::PortId;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Between two questions.
pub const RETRY_NS: u64 = 1_000_000_000;
/// Questions before a neighbour counts as failed.
pub const TRIES: u8 = 3;
/// A known address is asked for again after this long.
pub const REACHABLE_NS: u64 = 30_000_000_000;
/// One that nothing was sent to since is looked at this often, and asked once something was.
pub const UNUSED_NS: u64 = 5_000_000_000;
/// After so many of these it is forgotten: five minutes.
pub const UNUSED_TIMES: u8 = 60;
/// A neighbour that failed is asked again for the first packet after this long.
pub const FAILED_NS: u64 = 1_000_000_000;
/// Most neighbours; beyond, new ones are not learnt.
pub const NEIGHBOURS_MAX: usize = ADJACENCIES / 2;
/// Most neighbours behind one port that are known only because they asked for us: packets are sent to few of them.
pub const OVERHEARD_MAX: usize = NEIGHBOURS_MAX / 8;
/// Most neighbours that are being asked for the first time.
pub const INCOMPLETE_MAX: usize = 4096;
/// Most of them behind one port, so that a scan of its addresses leaves the others room.
pub const INCOMPLETE_PER_PORT: usize = INCOMPLETE_MAX / 4;

/// A neighbour: the port it is behind, and its address.
pub type Key = (PortId, IpAddr);

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Written down by the operator.
    Permanent(Mac),
    /// It has answered, or spoken to us, lately.
    Reachable(Mac),
    /// It has answered once, and nothing was sent to it since.
    Unused(Mac),
    /// It is being asked again.
    Stale(Mac),
    /// It is being asked for the first time.
    Incomplete,
    /// It did not answer.
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the neighbour: everybody on the link, or itself where it was.
    Ask(Key, Option<Mac>),
    /// Its link address is this.
    Known(Key, Mac),
    /// It does not answer.
    Failed(Key),
    /// It is being asked for.
    Incomplete(Key),
    /// Nothing is known of it any more.
    Forgotten(Key),
}

#[derive(Clone, Copy)]
struct Entry {
    state: State,
    tries: u8,
    /// It asked for us, and was neither asked nor sent to yet.
    overheard: bool,
    since_ns: u64,
    deadline_ns: u64,
}

/// Neighbours behind one port.
#[derive(Clone, Copy, Default)]
struct Counts {
    incomplete: usize,
    overheard: usize,
}

/// The neighbours of all ports.
#[derive(Default)]
pub struct Neighbours {
    entries: HashMap<Key, Entry>,
    deadlines: BTreeSet<(u64, Key)>,
    incomplete: usize,
    counts: HashMap<PortId, Counts>,
}

impl Neighbours {
    /// All neighbours: key, state, and when the state began.
    pub fn iter(&self) -> impl Iterator<Item = (Key, State, u64)> + '_ {
        self.entries
            .iter()
            .map(|(key, entry)| (*key, entry.state, entry.since_ns))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of one.
    pub fn state(&self, key: Key) -> Option<State> {
        self.entries.get(&key).map(|entry| entry.state)
    }

    /// When [`Self::tick`] should be called next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|first| first.0)
    }

    fn put(&mut self, now_ns: u64, key: Key, state: State, tries: u8, deadline_ns: u64) {
        let overheard = self.entries.get(&key).is_some_and(|old| old.overheard);
        self.put_heard(now_ns, key, state, tries, deadline_ns, overheard);
    }

    fn put_heard(&mut self, now_ns: u64, key: Key, state: State, tries: u8, deadline_ns: u64, overheard: bool) {
        let old = self.remove(key);
        let since_ns = old.filter(|old| old.state == state).map_or(now_ns, |old| old.since_ns);
        let counts = self.counts.entry(key.0).or_default();
        counts.overheard += usize::from(overheard);
        counts.incomplete += usize::from(state == State::Incomplete);
        self.incomplete += usize::from(state == State::Incomplete);
        self.entries.insert(
            key,
            Entry {
                state,
                tries,
                overheard,
                since_ns,
                deadline_ns,
            },
        );
        if deadline_ns != u64::MAX {
            self.deadlines.insert((deadline_ns, key));
        }
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.incomplete -= usize::from(entry.state == State::Incomplete);
        if let Some(counts) = self.counts.get_mut(&key.0) {
            counts.overheard -= usize::from(entry.overheard);
            counts.incomplete -= usize::from(entry.state == State::Incomplete);
        }
        self.deadlines.remove(&(entry.deadline_ns, key));
        Some(entry)
    }

    fn counts(&self, port: PortId) -> Counts {
        self.counts.get(&port).copied().unwrap_or_default()
    }

    /// A packet waits for this neighbour.
    pub fn resolve(&mut self, now_ns: u64, key: Key, actions: &mut Vec<Action>) {
        match self.entries.get(&key) {
            Some(entry) if entry.state != State::Failed => return,
            None if self.entries.len() >= NEIGHBOURS_MAX || self.incomplete >= INCOMPLETE_MAX => return,
            None if self.counts(key.0).incomplete >= INCOMPLETE_PER_PORT => return,
            _ => {}
        }
        self.put(now_ns, key, State::Incomplete, 1, now_ns + RETRY_NS);
        actions.extend([Action::Incomplete(key), Action::Ask(key, None)]);
    }

    /// A neighbour told its link address; `answer` says that it was (as far as one can see) asked.
    pub fn heard(&mut self, now_ns: u64, key: Key, mac: Mac, answer: bool, actions: &mut Vec<Action>) {
        let known = match self.entries.get(&key).map(|entry| entry.state) {
            Some(State::Permanent(_)) => return,
            // An answer that nobody asked for is not believed.
            None if answer || self.entries.len() >= NEIGHBOURS_MAX => return,
            // Who asks for us need not be remembered: when a packet is for him, he is asked.
            None if self.counts(key.0).overheard >= OVERHEARD_MAX => return,
            Some(State::Reachable(known) | State::Stale(known) | State::Unused(known)) => Some(known),
            _ => None,
        };
        let overheard = self.entries.get(&key).is_none_or(|old| old.overheard && !answer);
        let deadline_ns = now_ns + REACHABLE_NS;
        self.put_heard(now_ns, key, State::Reachable(mac), 0, deadline_ns, overheard);
        if known != Some(mac) {
            actions.push(Action::Known(key, mac));
        }
    }

    /// The operator writes a neighbour down.
    pub fn set_permanent(&mut self, now_ns: u64, key: Key, mac: Mac, actions: &mut Vec<Action>) {
        self.put(now_ns, key, State::Permanent(mac), 0, u64::MAX);
        actions.push(Action::Known(key, mac));
    }

    /// Forgets a neighbour, written down or not.
    pub fn forget(&mut self, key: Key, actions: &mut Vec<Action>) {
        if self.remove(key).is_some() {
            actions.push(Action::Forgotten(key));
        }
    }

    /// Forgets what was learnt on a port; what was written down stays unless `all`.
    pub fn forget_port(&mut self, port: PortId, all: bool, actions: &mut Vec<Action>) {
        let keys: Vec<Key> = self.entries.keys().filter(|key| key.0 == port).copied().collect();
        for key in keys {
            if all || !matches!(self.state(key), Some(State::Permanent(_))) {
                self.forget(key, actions);
            }
        }
    }

    /// Does what time demands; `used` says whether a packet went to a neighbour since that was last asked.
    pub fn tick(&mut self, now_ns: u64, mut used: impl FnMut(Key) -> bool, actions: &mut Vec<Action>) {
        while let Some(&(deadline_ns, key)) = self.deadlines.first() {
            if deadline_ns > now_ns {
                return;
            }
            let Some(entry) = self.entries.get(&key).copied() else {
                self.deadlines.pop_first();
                continue;
            };
            match entry.state {
                State::Reachable(mac) | State::Unused(mac) if used(key) => {
                    self.put_heard(now_ns, key, State::Stale(mac), 1, now_ns + RETRY_NS, false);
                    actions.push(Action::Ask(key, Some(mac)));
                }
                State::Unused(_) if entry.tries == UNUSED_TIMES => self.forget(key, actions),
                State::Reachable(mac) | State::Unused(mac) => {
                    self.put(now_ns, key, State::Unused(mac), entry.tries + 1, now_ns + UNUSED_NS);
                }
                State::Stale(mac) if entry.tries < TRIES => {
                    self.put(now_ns, key, State::Stale(mac), entry.tries + 1, now_ns + RETRY_NS);
                    actions.push(Action::Ask(key, Some(mac)));
                }
                State::Incomplete if entry.tries < TRIES => {
                    self.put(now_ns, key, State::Incomplete, entry.tries + 1, now_ns + RETRY_NS);
                    actions.push(Action::Ask(key, None));
                }
                State::Incomplete => {
                    self.put(now_ns, key, State::Failed, 0, now_ns + FAILED_NS);
                    actions.push(Action::Failed(key));
                }
                // What was known and is gone, and what failed, starts afresh with the next packet.
                State::Stale(_) | State::Failed => self.forget(key, actions),
                State::Permanent(_) => {
                    self.deadlines.remove(&(deadline_ns, key));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn key(last: u8) -> Key {
        (PortId(1), IpAddr::from([10, 0, 0, last]))
    }

    fn actions(run: impl FnOnce(&mut Vec<Action>)) -> Vec<Action> {
        let mut actions = vec![];
        run(&mut actions);
        actions
    }

    #[test]
    fn an_unknown_neighbour_is_asked_three_times_and_then_fails() {
        let mut neighbours = Neighbours::default();
        let first = actions(|to| neighbours.resolve(0, key(1), to));
        assert_eq!(first, [Action::Incomplete(key(1)), Action::Ask(key(1), None)]);
        assert!(
            actions(|to| neighbours.resolve(1, key(1), to)).is_empty(),
            "it is being asked already"
        );
        for second in 1..u64::from(TRIES) {
            assert!(actions(|to| neighbours.tick(second * SECOND - 1, |_| true, to)).is_empty());
            assert_eq!(
                actions(|to| neighbours.tick(second * SECOND, |_| true, to)),
                [Action::Ask(key(1), None)]
            );
        }
        assert_eq!(
            actions(|to| neighbours.tick(3 * SECOND, |_| true, to)),
            [Action::Failed(key(1))]
        );
        assert_eq!(neighbours.state(key(1)), Some(State::Failed));
        assert_eq!(
            actions(|to| neighbours.tick(4 * SECOND, |_| true, to)),
            [Action::Forgotten(key(1))]
        );
        assert!(neighbours.is_empty() && neighbours.next_deadline().is_none());
    }

    #[test]
    fn an_answer_makes_it_known_and_it_is_asked_again_in_time() {
        let mut neighbours = Neighbours::default();
        actions(|to| neighbours.resolve(0, key(1), to));
        assert_eq!(
            actions(|to| neighbours.heard(5, key(1), MAC, true, to)),
            [Action::Known(key(1), MAC)]
        );
        assert!(
            actions(|to| neighbours.heard(6, key(1), MAC, true, to)).is_empty(),
            "no news"
        );
        let asked = actions(|to| neighbours.tick(6 + REACHABLE_NS, |_| true, to));
        assert_eq!(asked, [Action::Ask(key(1), Some(MAC))]);
        assert!(actions(|to| neighbours.heard(7 + REACHABLE_NS, key(1), MAC, true, to)).is_empty());
        assert_eq!(neighbours.state(key(1)), Some(State::Reachable(MAC)));
        let moved = actions(|to| neighbours.heard(8 + REACHABLE_NS, key(1), [4; 6], false, to));
        assert_eq!(moved, [Action::Known(key(1), [4; 6])]);
    }

    #[test]
    fn a_silent_neighbour_is_forgotten() {
        let mut neighbours = Neighbours::default();
        actions(|to| neighbours.heard(0, key(1), MAC, false, to));
        let mut seen = vec![];
        for second in 0..40 {
            neighbours.tick(second * SECOND, |_| true, &mut seen);
        }
        assert_eq!(
            seen.iter().filter(|action| matches!(action, Action::Ask(..))).count(),
            usize::from(TRIES)
        );
        assert_eq!(seen.last(), Some(&Action::Forgotten(key(1))));
    }

    #[test]
    fn what_is_written_down_is_not_overheard_and_unasked_answers_are_not_believed() {
        let mut neighbours = Neighbours::default();
        assert!(actions(|to| neighbours.heard(0, key(1), MAC, true, to)).is_empty());
        assert!(neighbours.is_empty());
        actions(|to| neighbours.set_permanent(0, key(1), MAC, to));
        assert!(actions(|to| neighbours.heard(0, key(1), [4; 6], false, to)).is_empty());
        assert!(actions(|to| neighbours.tick(u64::MAX - 1, |_| true, to)).is_empty());
        actions(|to| neighbours.forget_port(PortId(1), false, to));
        assert_eq!(neighbours.state(key(1)), Some(State::Permanent(MAC)));
        assert_eq!(
            actions(|to| neighbours.forget_port(PortId(1), true, to)),
            [Action::Forgotten(key(1))]
        );
    }

    #[test]
    fn a_scan_of_addresses_is_bounded() {
        let mut neighbours = Neighbours::default();
        let mut seen = vec![];
        for n in 0..100_000u32 {
            neighbours.resolve(0, (PortId(0), IpAddr::from(n.to_be_bytes())), &mut seen);
        }
        assert_eq!(neighbours.len(), INCOMPLETE_PER_PORT);
        // Behind another port there is room, but not without end.
        (1..100u16).for_each(|port| {
            for n in 0..1000u32 {
                neighbours.resolve(0, (PortId(port), IpAddr::from(n.to_be_bytes())), &mut seen);
            }
        });
        assert_eq!(neighbours.len(), INCOMPLETE_MAX);
        neighbours.tick(60 * SECOND, |_| true, &mut seen);
        (0..10).for_each(|second| neighbours.tick((60 + second) * SECOND, |_| true, &mut seen));
        assert!(neighbours.is_empty());
        assert_eq!(neighbours.incomplete, 0);
    }

    #[test]
    fn a_neighbour_that_nothing_is_sent_to_is_not_asked_and_forgotten_in_the_end() {
        let mut neighbours = Neighbours::default();
        actions(|to| neighbours.heard(0, key(1), MAC, false, to));
        let end = REACHABLE_NS + u64::from(UNUSED_TIMES) * UNUSED_NS;
        let quiet = actions(|to| (0..end / SECOND).for_each(|second| neighbours.tick(second * SECOND, |_| false, to)));
        assert_eq!(quiet, []);
        assert_eq!(neighbours.state(key(1)), Some(State::Unused(MAC)));
        assert_eq!(
            actions(|to| neighbours.tick(end, |_| false, to)),
            [Action::Forgotten(key(1))]
        );
    }

    #[test]
    fn a_neighbour_that_is_used_again_is_asked_within_seconds() {
        let mut neighbours = Neighbours::default();
        actions(|to| neighbours.heard(0, key(1), MAC, false, to));
        actions(|to| neighbours.tick(REACHABLE_NS, |_| false, to));
        let asked = actions(|to| neighbours.tick(REACHABLE_NS + UNUSED_NS, |_| true, to));
        assert_eq!(asked, [Action::Ask(key(1), Some(MAC))]);
        actions(|to| neighbours.heard(REACHABLE_NS + UNUSED_NS, key(1), MAC, true, to));
        assert_eq!(neighbours.state(key(1)), Some(State::Reachable(MAC)));
    }

    #[test]
    fn a_flood_of_askers_is_bounded_and_leaves_room_for_who_is_asked() {
        let mut neighbours = Neighbours::default();
        let mut seen = vec![];
        for n in 0..100_000u32 {
            neighbours.heard(0, (PortId(0), IpAddr::from(n.to_be_bytes())), MAC, false, &mut seen);
        }
        assert_eq!(neighbours.len(), OVERHEARD_MAX);
        let late = (PortId(0), IpAddr::from([9; 4]));
        neighbours.resolve(0, late, &mut seen);
        neighbours.heard(0, late, MAC, true, &mut seen);
        assert_eq!(neighbours.state(late), Some(State::Reachable(MAC)));
        // All who were sent nothing go again.
        (0..400).for_each(|second| neighbours.tick(second * SECOND, |_| false, &mut seen));
        assert!(neighbours.is_empty());
        assert!(
            neighbours
                .counts
                .values()
                .all(|counts| counts.overheard + counts.incomplete == 0)
        );
    }
}
