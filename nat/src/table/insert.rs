//! New connections, one at a time or staged, and who makes room for them.

use super::embryos::Embryo;
use super::lanes::{Lanes, with_lanes};
use super::memory::prefetch;
use super::numbers::{End, Writer};
use super::{REACH, Table};
use crate::key::Key;
use crate::leg::{LegId, Start};
use crate::protocol::is_confirmed;
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::Tick;

use thiserror::Error;

/// Connections whose lines are asked for ahead of their insertion.
const GROUP: usize = 16;
/// Entries looked at to find room for one connection: more are useless only when nobody has swept for long.
const LOOKS: usize = 64;

/// A connection to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct New {
    /// Key of the packets that open it, and key of the answers, both as they arrive: if nothing is translated, one is
    /// the other turned round. Both are of one family.
    pub keys: [Key; 2],
    /// What each leg starts with.
    pub starts: [Start; 2],
}

/// Why a connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The key is in the table already, as this leg.
    #[error("the connection is known already, as leg {0}")]
    Exists(LegId),
    /// The key of the answers belongs to another connection, as this leg.
    #[error("its answers could not be told from those of another connection, leg {0}")]
    ReverseTaken(LegId),
    /// No room, and no connection that was never confirmed.
    #[error("the flow table is full of established connections; give it more with --flows")]
    Full,
    /// Too many keys have hashes near to that of this one.
    #[error("too many connections share this one's place in the flow table")]
    Crowded,
}

enum Link {
    Done,
    Exists(LegId),
    Crowded,
}

impl Table {
    /// Adds a connection; its first leg. When the table is full, the oldest connection that was never confirmed goes.
    ///
    /// # Errors
    /// [`Refused`]; the table is as it was, but for a connection that may have made room.
    pub fn insert(&self, writer: &mut Writer, new: &New, now: Tick) -> Result<LegId, Refused> {
        with_lanes!(self.way, lanes => {
            let hashes = new.keys.each_ref().map(|key| lanes.hash(&self.seed, key));
            self.insert_hashed(lanes, writer, new, hashes, now)
        })
    }

    /// Adds connections, and tells the fate of each by its place. Asks for the memory of the next ones ahead.
    pub fn insert_batch(
        &self,
        writer: &mut Writer,
        news: &[New],
        now: Tick,
        mut tell: impl FnMut(usize, Result<LegId, Refused>),
    ) {
        with_lanes!(self.way, lanes => {
            for (group, news) in news.chunks(GROUP).enumerate() {
                let mut hashes = [[0; 2]; GROUP];
                for (new, hashes) in news.iter().zip(&mut hashes) {
                    *hashes = new.keys.each_ref().map(|key| lanes.hash(&self.seed, key));
                    hashes.iter().for_each(|hash| prefetch(&self.buckets[self.home(*hash)]));
                }
                for number in writer.next(news.len()) {
                    prefetch(self.leg(number * 2));
                    prefetch(self.leg(number * 2 + 1));
                }
                for (i, (new, hashes)) in news.iter().zip(hashes).enumerate() {
                    tell(group * GROUP + i, self.insert_hashed(lanes, writer, new, hashes, now));
                }
            }
        });
    }

    // What follows is inlined into a function compiled for the lanes; called, it would not have their instructions.
    #[inline(always)]
    fn insert_hashed(
        &self,
        lanes: impl Lanes,
        writer: &mut Writer,
        new: &New,
        hashes: [u64; 2],
        now: Tick,
    ) -> Result<LegId, Refused> {
        self.claim(lanes, writer, &new.keys, hashes)?;
        let made = self.publish(lanes, writer, new, hashes, now);
        if made.is_err() {
            self.live.fetch_sub(1, Relaxed);
        }
        made
    }

    /// Counts one connection more, if need be in place of another.
    #[inline(always)]
    fn claim(&self, lanes: impl Lanes, writer: &mut Writer, keys: &[Key; 2], hashes: [u64; 2]) -> Result<(), Refused> {
        if self.live.fetch_add(1, Relaxed) < self.connections {
            return Ok(());
        }
        // Nobody has to go for what could not be made.
        let find = |i: usize| self.find_hashed(lanes, &keys[i], hashes[i]);
        let refused = match (find(0), find(1)) {
            (Some(leg), _) => Refused::Exists(leg),
            (None, Some(leg)) => Refused::ReverseTaken(leg),
            (None, None) if self.evict(writer) => return Ok(()),
            (None, None) => Refused::Full,
        };
        self.live.fetch_sub(1, Relaxed);
        Err(refused)
    }

    /// Fills both legs and links them.
    #[inline(always)]
    fn publish(
        &self,
        lanes: impl Lanes,
        writer: &mut Writer,
        new: &New,
        hashes: [u64; 2],
        now: Tick,
    ) -> Result<LegId, Refused> {
        if !writer.has_room() {
            return Err(Refused::Full);
        }
        let number = writer.take(&self.numbers, &self.legs).ok_or(Refused::Full)?;
        let [there, back] = &new.keys;
        let leg = number * 2;
        self.fill(leg, there, back, &new.starts[0], now);
        self.fill(leg + 1, back, there, &new.starts[1], now);
        // The first direction is published last and removed first: until it is there, nobody but us can remove the
        // half-made connection. (A connection to itself has one key, and one leg in the index.)
        if there != back {
            let refused = match self.link(lanes, hashes[1], back, leg + 1) {
                Link::Done => None,
                Link::Exists(old) if self.leg(old ^ 1).has_key(there) => Some(Refused::Exists(old ^ 1)),
                Link::Exists(old) => Some(Refused::ReverseTaken(old)),
                Link::Crowded => Some(Refused::Crowded),
            };
            if let Some(refused) = refused {
                self.leg(leg).wipe();
                writer.put_back(number);
                return Err(refused);
            }
        }
        let refused = match self.link(lanes, hashes[0], there, leg) {
            Link::Done => {
                let life = self.leg(leg).life();
                self.embryos.push(Embryo { number, life });
                return Ok(leg);
            }
            Link::Exists(old) => Refused::Exists(old),
            Link::Crowded => Refused::Crowded,
        };
        // Readers may have met the other leg: it waits for their turns.
        self.unlink(lanes, hashes[1], leg + 1, || true);
        writer.retire(number, None);
        Err(refused)
    }

    fn fill(&self, leg: LegId, key: &Key, other: &Key, start: &Start, now: Tick) {
        self.leg(leg).fill(key, other, start, now);
        self.set_mark(leg, start.mark);
    }

    #[inline(always)]
    fn link(&self, lanes: impl Lanes, hash: u64, key: &Key, leg: LegId) -> Link {
        let home = self.home(hash);
        let reach = &self.buckets[home..home + REACH];
        // All changes to keys of this home are made under its lock, so that a key cannot be added twice; other buckets'
        // locks are taken inside, in ascending order.
        let _home = reach[0].control.lock();
        if let Some(old) = self.find_hashed(lanes, key, hash) {
            return Link::Exists(old);
        }
        for (at, bucket) in reach.iter().enumerate() {
            let _lock = (at > 0).then(|| bucket.control.lock());
            if let Some(slot) = bucket.vacancy(lanes) {
                // First the counts, then the key: a reader that finds the key missing here must already be told to go on.
                reach[..at].iter().for_each(|bucket| bucket.control.passed_by());
                bucket.set(slot, hash, leg);
                return Link::Done;
            }
        }
        Link::Crowded
    }

    /// Removes the oldest connection that was never confirmed; false if there is none.
    fn evict(&self, writer: &mut Writer) -> bool {
        for _ in 0..LOOKS {
            let Some(embryo) = self.embryos.pop() else {
                return false;
            };
            if self.remove_if(writer, embryo.number * 2, End::Evicted, || self.awaits(embryo)) {
                self.evicted.fetch_add(1, Relaxed);
                return true;
            }
        }
        false
    }

    /// Whether an entry is still of a connection that may have to go.
    pub(super) fn awaits(&self, embryo: Embryo) -> bool {
        let connection = self.connection(embryo.number * 2);
        let there = connection.there();
        there.is_in_use() && there.life() == embryo.life && !is_confirmed(&connection)
    }

    /// Forgets up to `count` of the oldest connections that ended or were confirmed, so that room is found at once when
    /// it is needed. Called by the sweep.
    pub(crate) fn forget_confirmed(&self, count: usize) {
        let is_useless = |embryo| !self.awaits(embryo);
        let _ = (0..count).all(|_| self.embryos.trim(is_useless));
    }
}
