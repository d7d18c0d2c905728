//! Connections that end.

use super::lanes::{Lanes, with_lanes};
use super::memory::prefetch;
use super::numbers::{End, Writer};
use super::{Connection, Table};
use crate::key::Key;
use crate::leg::LegId;
use crate::sync::atomic::Ordering::Relaxed;

impl Table {
    /// Removes the connection of a leg that the caller met in this turn. False if another worker was faster, or if so
    /// many wait for the other workers' turns that this one has to wait, too.
    pub fn remove(&self, writer: &mut Writer, leg: LegId) -> bool {
        self.remove_if(writer, leg, End::Removed, || true)
    }

    /// As [`Table::remove`], if `still` is true when nobody else can remove it any more.
    pub(crate) fn remove_if(&self, writer: &mut Writer, leg: LegId, end: End, still: impl Fn() -> bool) -> bool {
        let keys = self.connection(leg).keys();
        self.remove_keys(writer, leg, keys, end, still)
    }

    /// Removes the connection of a leg that the caller saw with these keys, as `control` does that looks beside the
    /// workers: it may have ended since, and its memory may be another's by now. False then, or where so many wait for
    /// the workers' turns that there is no [room](Writer::has_room).
    ///
    /// Needs no place in the [`Qsbr`](fastpath::qsbr::Qsbr): what was read before counts for nothing, and under the lock
    /// a leg that the index has is whole and nobody else's to remove.
    pub fn remove_seen(&self, writer: &mut Writer, leg: LegId, keys: [Key; 2]) -> bool {
        self.remove_keys(writer, leg, keys, End::Deleted, || true)
    }

    fn remove_keys(
        &self,
        writer: &mut Writer,
        leg: LegId,
        [there, back]: [Key; 2],
        end: End,
        still: impl Fn() -> bool,
    ) -> bool {
        if !writer.has_room() {
            return false;
        }
        let first = leg & !1;
        let removed = with_lanes!(self.way, lanes => {
            let hashes = [there, back].map(|key| lanes.hash(&self.seed, &key));
            // The first leg's bucket decides who removes it. Whoever looks through the array may have read a key that
            // another worker was just writing: what counts is what it is under the lock.
            let still = || self.leg(first).has_key(&there) && self.leg(first + 1).has_key(&back) && still();
            self.unlink(lanes, hashes[0], first, still) && {
                self.unlink(lanes, hashes[1], first + 1, || true);
                true
            }
        });
        if removed {
            self.live.fetch_sub(1, Relaxed);
            writer.retire(first / 2, Some(end));
        }
        removed
    }

    /// Once a turn: makes numbers free that every worker has left behind. `ended` is told of each connection before
    /// that, when nobody counts any more.
    pub fn reclaim(&self, writer: &mut Writer, mut ended: impl FnMut(Connection<'_>, End)) {
        writer.reclaim(&self.numbers, &self.legs, &self.qsbr, |number, end| {
            ended(self.connection(number * 2), end);
        });
    }

    /// Asks for the buckets of a connection that is going to be removed and whose legs are near already.
    pub(crate) fn expect_removal(&self, leg: LegId) {
        for key in self.connection(leg).keys() {
            let hash = with_lanes!(self.way, lanes => lanes.hash(&self.seed, &key));
            prefetch(&self.buckets[self.home(hash)]);
        }
    }

    #[inline(always)]
    pub(super) fn unlink(&self, lanes: impl Lanes, hash: u64, leg: LegId, still: impl Fn() -> bool) -> bool {
        let home = self.home(hash);
        let _home = self.buckets[home].control.lock();
        let Some((at, slot, _)) = self.walk(lanes, hash, |other| other == leg) else {
            return false;
        };
        if !still() {
            return false;
        }
        {
            let _lock = (at > home).then(|| self.buckets[at].control.lock());
            self.buckets[at].clear(slot);
        }
        self.buckets[home..at]
            .iter()
            .for_each(|bucket| bucket.control.passed_back());
        true
    }
}
