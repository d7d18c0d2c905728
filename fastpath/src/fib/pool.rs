//! Where nodes come from: runs of lines out of one region shared by all tables, the change that is being prepared, and
//! the queue of what waits for a quiescent state.
//!
//! A change is all or nothing. [`Pool::begin`] opens it; while it is prepared, new nodes are built where no reader
//! looks, and the words of linked nodes that have to change are only noted. Then [`Pool::publish`] writes those words,
//! or [`Pool::abandon`] gives the new nodes back and forgets the notes: the table is as it was.

use super::arena::{LINE, Memory, Pages, Place, REGION_MAX, Region};
use super::pages::{NODE_LINES_MAX, PAGE_LINES, PageList};
use crate::qsbr::Qsbr;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Lines in a wide root: a word for each value of the first 16 bits.
pub(super) const ROOT_LINES: usize = (4 << 16) / LINE;
/// The least a pool is made of: some tables with a few hundred routes.
const POOL_MIN: usize = 1 << 20;
/// Removals may use what additions may not: one part in so many of the region.
const RESERVE_PART: usize = 32;

/// The memory of the route tables has no room for a change; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route memory of {reserved_bytes} bytes is full: remove routes, or start with more route memory")]
pub struct Full {
    /// Bytes that all tables of the pool may use together.
    pub reserved_bytes: usize,
}

/// What a change does, which says whether it may use the reserve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Add,
    Remove,
}

/// Lines in a row: a node or a wide root.
#[derive(Clone, Copy)]
struct Extent {
    line: u32,
    lines: u16,
}

/// The memory of all route tables: the control thread's allocator of nodes.
///
/// One pool serves every table (every VRF and both families), so one figure bounds them all.
pub struct Pool {
    region: Arc<Region>,
    qsbr: Arc<Qsbr>,
    lines: usize,
    used: usize,
    /// What `used` may reach in the change under way.
    limit: usize,
    pages: PageList,
    free_roots: Vec<u32>,
    /// The change under way: what it allocated, what it will unlink, and the words it will write.
    fresh: Vec<Extent>,
    unlinked: Vec<Extent>,
    writes: Vec<(Place, u32)>,
    waiting: VecDeque<(u64, Extent)>,
}

impl Pool {
    /// Reserves address space for `bytes` of nodes (1 MiB to 8 GiB; other values become the nearest); memory is used as
    /// tables need it. Readers announce their turns to `qsbr`.
    ///
    /// # Errors
    /// The kernel's, if it has no such address space.
    pub fn new(bytes: usize, pages: Pages, qsbr: Arc<Qsbr>) -> io::Result<Pool> {
        let bytes = bytes.clamp(POOL_MIN, REGION_MAX);
        let mut pool = Pool {
            region: Arc::new(Region::reserve(bytes, pages)?),
            qsbr,
            lines: bytes / LINE,
            used: 0,
            limit: bytes / LINE,
            pages: PageList::new(bytes / LINE / PAGE_LINES),
            free_roots: vec![],
            fresh: vec![],
            unlinked: vec![],
            writes: vec![],
            waiting: VecDeque::new(),
        };
        // Line 0 is never a node: lookups prefetch it where there is nothing to prefetch.
        pool.pages.take(1);
        pool.used = 1;
        Ok(pool)
    }

    /// Bytes that all tables together may use for readers.
    pub fn reserved_bytes(&self) -> usize {
        self.lines * LINE
    }

    /// Bytes ever touched: what the kernel may have backed with memory, rounded up by it to its pages.
    pub fn touched_bytes(&self) -> usize {
        self.pages.len() * PAGE_LINES * LINE
    }

    /// Bytes in nodes and roots that are linked or wait for workers to let go of them.
    pub fn used_bytes(&self) -> usize {
        self.used * LINE
    }

    /// Nodes and roots that wait for workers to let go of them.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Frees what no worker can still see. Changes do it now and then; call it when there will be none for a while.
    pub fn reclaim(&mut self) {
        let safe = self.qsbr.safe();
        while let Some((_, extent)) = self.waiting.pop_front_if(|(stamp, _)| *stamp <= safe) {
            self.free(extent);
        }
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    #[inline(always)]
    pub(super) fn memory(&self) -> Memory<'_> {
        self.region.memory()
    }

    /// Opens a change. It ends with `publish` and `settle`, or with `abandon`.
    pub(super) fn begin(&mut self, purpose: Purpose) {
        debug_assert!(self.fresh.is_empty() && self.unlinked.is_empty() && self.writes.is_empty());
        self.limit = match purpose {
            Purpose::Add => self.lines - self.lines / RESERVE_PART,
            Purpose::Remove => self.lines,
        };
    }

    /// The first of `lines` lines in a row, for a new node.
    pub(super) fn allocate(&mut self, lines: usize) -> Result<u32, Full> {
        debug_assert!((1..=NODE_LINES_MAX).contains(&lines));
        self.claim(lines, |pool| pool.pages.take(lines))
    }

    /// The first line of a new wide root.
    pub(super) fn allocate_root(&mut self) -> Result<u32, Full> {
        self.claim(ROOT_LINES, |pool| {
            pool.free_roots
                .pop()
                .or_else(|| pool.pages.take_whole(ROOT_LINES / PAGE_LINES))
        })
    }

    /// Notes that the word at `place` becomes `value`.
    pub(super) fn write(&mut self, place: Place, value: u32) {
        self.writes.push((place, value));
    }

    /// Notes that the change unlinks the `lines` lines from `line`.
    pub(super) fn retire(&mut self, line: u32, lines: usize) {
        self.unlinked.push(Extent {
            line,
            lines: lines as u16,
        });
    }

    /// Makes the change visible to readers, but for a root word that is not in the region.
    pub(super) fn publish(&mut self) {
        self.fresh.clear();
        let memory = self.region.memory();
        for (place, value) in self.writes.drain(..) {
            memory.word(place).store(value, Release);
        }
    }

    /// The change is visible, its root word included: what it unlinked starts to wait.
    pub(super) fn settle(&mut self) {
        if !self.unlinked.is_empty() {
            let stamp = self.qsbr.stamp();
            self.waiting
                .extend(self.unlinked.drain(..).map(|extent| (stamp, extent)));
        }
        // Asking every worker costs a cache miss each, so not for every node.
        if self.waiting.len() >= 32 {
            self.reclaim();
        }
    }

    /// Takes the change back: nothing of it was visible.
    pub(super) fn abandon(&mut self) {
        self.unlinked.clear();
        self.writes.clear();
        while let Some(extent) = self.fresh.pop() {
            self.free(extent);
        }
    }

    fn claim(&mut self, lines: usize, mut take: impl FnMut(&mut Pool) -> Option<u32>) -> Result<u32, Full> {
        if self.used + lines > self.limit {
            self.reclaim();
        }
        let full = Full {
            reserved_bytes: self.reserved_bytes(),
        };
        if self.used + lines > self.limit {
            return Err(full);
        }
        let line = match take(self) {
            Some(line) => line,
            None => {
                self.reclaim();
                take(self).ok_or(full)?
            }
        };
        self.used += lines;
        self.fresh.push(Extent {
            line,
            lines: lines as u16,
        });
        Ok(line)
    }

    fn free(&mut self, extent: Extent) {
        if cfg!(debug_assertions) {
            self.poison(extent);
        }
        let lines = usize::from(extent.lines);
        match lines {
            ROOT_LINES => self.free_roots.push(extent.line),
            _ => self.pages.give(extent.line, lines),
        }
        self.used -= lines;
    }

    /// A reader that still looks here sees an id that nobody stored.
    fn poison(&self, extent: Extent) {
        let memory = self.region.memory();
        for line in extent.line..extent.line + u32::from(extent.lines) {
            (0..16).for_each(|i| memory.word(memory.entry(line, i)).store(0x6d6d_6d6d, Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(1 << 20, Pages::Small, Arc::new(Qsbr::new(1))).unwrap()
    }

    #[test]
    fn what_is_abandoned_can_be_had_again() {
        let mut pool = pool();
        pool.begin(Purpose::Remove);
        let mut lines = 0;
        while pool.allocate(17).is_ok() {
            lines += 17;
        }
        // Pages have 64 lines: three nodes of 17 each, and line 0 is taken.
        assert_eq!(lines, 16_384 / 64 * 51);
        pool.abandon();
        assert_eq!(pool.used_bytes(), LINE);
    }

    #[test]
    fn a_root_waits_before_it_is_used_again() {
        let mut pool = pool();
        pool.begin(Purpose::Remove);
        let root = pool.allocate_root().unwrap();
        assert!(pool.allocate_root().is_ok());
        pool.publish();
        pool.settle();
        pool.begin(Purpose::Remove);
        pool.retire(root, ROOT_LINES);
        pool.publish();
        pool.settle();
        assert_eq!(pool.waiting(), 1);
        pool.begin(Purpose::Remove);
        assert_eq!(
            pool.allocate_root(),
            Ok(root + ROOT_LINES as u32 * 2),
            "fresh, as the first still waits"
        );
    }

    #[test]
    fn additions_leave_the_reserve_to_removals() {
        let mut pool = pool();
        pool.begin(Purpose::Add);
        while pool.allocate(1).is_ok() {}
        assert_eq!(pool.used_bytes(), (1 << 20) - (1 << 20) / RESERVE_PART);
        pool.publish();
        pool.begin(Purpose::Remove);
        assert!(pool.allocate(NODE_LINES_MAX).is_ok());
    }
}
