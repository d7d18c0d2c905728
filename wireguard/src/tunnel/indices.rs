//! Which of our indices belong to whom. An index is a place in the table of sessions, and random bits above it.

use super::Random;
use crate::peer::PeerId;
use crate::session::{Session, Slots};
use crate::sync::Arc;
use std::collections::VecDeque;

/// At most three sessions of a peer, and a handshake.
pub(crate) const PER_PEER: usize = 4;

/// Owners of all indices in use.
pub(crate) struct Indices {
    owners: Vec<Option<(u32, PeerId)>>,
    /// Oldest first, so that an index is used again as late as possible.
    free: VecDeque<u32>,
    pub sessions: Arc<Slots<Session>>,
}

impl Indices {
    /// For `peers` peers, at most 2^24.
    pub fn new(peers: usize) -> Self {
        let places = (peers * PER_PEER).next_power_of_two();
        Self {
            owners: vec![None; places],
            free: (0..places as u32).collect(),
            sessions: Arc::new(Slots::new(places)),
        }
    }

    /// A new index for `peer`; `None` when all are in use.
    pub fn take(&mut self, peer: PeerId, random: &mut dyn Random) -> Option<u32> {
        let place = self.free.pop_front()?;
        let mut bits = [0; 4];
        random.fill(&mut bits);
        let above = u32::from_ne_bytes(bits) & !(self.owners.len() as u32 - 1);
        self.owners[place as usize] = Some((above | place, peer));
        Some(above | place)
    }

    /// Whose index it is.
    pub fn owner(&self, index: u32) -> Option<PeerId> {
        self.owners[self.place(index)]
            .filter(|(there, _)| *there == index)
            .map(|(_, peer)| peer)
    }

    /// Lets workers find a session under its index.
    pub fn install(&self, session: &Arc<Session>) {
        self.sessions.set(self.place(session.local()), Some(session.clone()));
    }

    /// Gives an index back.
    pub fn give_back(&mut self, index: u32) {
        let place = self.place(index);
        if self.owner(index).is_some() {
            self.owners[place] = None;
            self.sessions.set(place, None);
            self.free.push_back(place as u32);
        }
    }

    fn place(&self, index: u32) -> usize {
        index as usize % self.owners.len()
    }

    #[cfg(test)]
    pub fn in_use(&self) -> usize {
        self.owners.len() - self.free.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Ones;

    impl Random for Ones {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    #[test]
    fn indices_are_found_by_all_their_bits() {
        let mut indices = Indices::new(2);
        let first = indices.take(PeerId(9), &mut Ones).unwrap();
        assert_eq!(first, 0xffff_fff8);
        assert_eq!(indices.owner(first), Some(PeerId(9)));
        assert_eq!(indices.owner(0), None, "the same place");
        indices.give_back(0);
        assert_eq!(indices.in_use(), 1);
        assert_eq!((0..10).filter_map(|_| indices.take(PeerId(1), &mut Ones)).count(), 7);
        indices.give_back(first);
        assert_eq!(indices.owner(first), None);
        assert_eq!(indices.take(PeerId(1), &mut Ones), Some(first));
    }
}
