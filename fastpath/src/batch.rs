//! A stage's view of the vector it was given.
#![allow(unsafe_code)]

use crate::arena::{Arena, FrameIndex};
use crate::counters::Counter;
use crate::node::{Label, Node, Sink};
use crate::packet::Packet;
use crate::vector::{BATCH_MAX, Vector};
use std::marker::PhantomData;

/// Marks a route as a drop reason.
pub(crate) const DROP: u8 = 0x80;
/// A packet nobody decided.
pub(crate) const UNDECIDED: u8 = 0xff;
/// How far ahead of the packet being decided the next ones are asked into the cache. Frames lie 2 KiB apart, so that the
/// starts of all packets share two sets of a first-level cache: sixteen lines where it has eight ways, and asking for
/// eight packets more threw out what was not yet read (7 cycles a packet in `parse`).
const AHEAD: usize = 4;

/// A node's view of its vector: it reads and edits packets, and names their fate.
pub struct Batch<'a, N: Node> {
    arena: &'a Arena,
    frames: &'a [FrameIndex],
    routes: &'a mut [u8],
    node: PhantomData<N>,
}

impl<'a, N: Node> Batch<'a, N> {
    /// # Safety
    /// `arena` minted `frames`, the caller holds them, and nobody else sees them while the batch lives.
    pub(crate) unsafe fn new(arena: &'a Arena, frames: &'a [FrameIndex], routes: &'a mut [u8]) -> Self {
        debug_assert_eq!(frames.len(), routes.len());
        Self {
            arena,
            frames,
            routes,
            node: PhantomData,
        }
    }

    /// Packets in the batch; at least one.
    #[allow(clippy::len_without_is_empty)]
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The packet at `index`.
    #[inline(always)]
    pub fn packet(&mut self, index: usize) -> Packet<'_> {
        // SAFETY: `new` was promised exclusive frames of this arena, and `&mut self` lends one at a time.
        unsafe { self.arena.packet(&self.frames[index]) }
    }

    /// Every packet at once, in order: for work that is done on many together.
    #[inline]
    pub fn packets(&mut self) -> impl ExactSizeIterator<Item = Packet<'_>> + '_ {
        let arena = self.arena;
        // SAFETY: `new` was promised exclusive frames of this arena. No two of them are the same, for an index lives in
        // one place only, so no two packets overlap; and `&mut self` lends none of them again while one is in use.
        self.frames.iter().map(move |frame| unsafe { arena.packet(frame) })
    }

    /// Names the fate of the packet at `index`: onwards by an edge, or dropped for a reason.
    #[inline(always)]
    pub fn decide(&mut self, index: usize, fate: Result<N::Next, N::Drop>) {
        self.routes[index] = route::<N>(fate);
    }

    /// Decides every packet in order.
    #[inline(always)]
    pub fn each(&mut self, mut decide: impl FnMut(Packet<'_>) -> Result<N::Next, N::Drop>) {
        for (frame, to) in self.frames.iter().zip(&mut *self.routes) {
            // SAFETY: as for `packet`; this one ends before the next begins.
            *to = route::<N>(decide(unsafe { self.arena.packet(frame) }));
        }
    }

    /// As [`Self::each`], for the first node that touches packets: asks for the ones to come meanwhile.
    #[inline(always)]
    pub fn each_cold(&mut self, mut decide: impl FnMut(Packet<'_>) -> Result<N::Next, N::Drop>) {
        let (arena, frames) = (self.arena, self.frames);
        let (first, rest) = frames.split_at(AHEAD.min(frames.len()));
        first.iter().for_each(|frame| arena.prefetch(frame));
        let mut ahead = rest.iter();
        self.each(|packet| {
            if let Some(frame) = ahead.next() {
                arena.prefetch(frame);
            }
            decide(packet)
        });
    }
}

/// A fate as one byte.
#[inline(always)]
fn route<N: Node>(fate: Result<N::Next, N::Drop>) -> u8 {
    match fate {
        Ok(next) => next.index(),
        Err(reason) => DROP | reason.index(),
    }
}

/// Frames that a sink refused, and why, marked as routes are.
pub(crate) struct Refused {
    pub frames: Vector,
    pub reasons: Vec<u8>,
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            frames: Vector::default(),
            reasons: Vec::with_capacity(BATCH_MAX),
        }
    }
}

impl Refused {
    fn push(&mut self, frame: FrameIndex, reason: u8) {
        self.frames.0.push(frame);
        self.reasons.push(DROP | reason);
    }

    pub(crate) fn append(&mut self, frames: &mut Vector, reason: u8) {
        self.reasons.resize(self.reasons.len() + frames.len(), DROP | reason);
        self.frames.0.append(&mut frames.0);
    }
}

/// A sink's view of its vector: it takes frames out, or refuses them.
pub struct Delivery<'a, S: Sink> {
    arena: &'a Arena,
    vector: &'a mut Vector,
    refused: &'a mut Refused,
    drops: &'a [Counter],
    sink: PhantomData<S>,
}

impl<'a, S: Sink> Delivery<'a, S> {
    /// # Safety
    /// As [`Batch::new`], for the frames of `vector`.
    pub(crate) unsafe fn new(
        arena: &'a Arena,
        vector: &'a mut Vector,
        refused: &'a mut Refused,
        drops: &'a [Counter],
    ) -> Self {
        Self {
            arena,
            vector,
            refused,
            drops,
            sink: PhantomData,
        }
    }

    /// Packets not yet taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.vector.len()
    }

    /// Whether all are taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty()
    }

    /// The packet at `index` among those not yet taken.
    #[inline(always)]
    pub fn packet(&mut self, index: usize) -> Packet<'_> {
        // SAFETY: `new` was promised exclusive frames of this arena, and `&mut self` lends one at a time.
        unsafe { self.arena.packet(&self.vector.0[index]) }
    }

    /// All packets not yet taken, to be taken as a whole or in part.
    #[inline]
    pub fn vector(&mut self) -> &mut Vector {
        self.vector
    }

    /// Looks at every packet in order, then moves its frame to where the look said; a frame that comes back with a
    /// reason is dropped.
    #[inline]
    pub fn each<T>(
        &mut self,
        mut look: impl FnMut(&mut Packet<'_>) -> T,
        mut take: impl FnMut(FrameIndex, T) -> Result<(), (FrameIndex, S::Drop)>,
    ) {
        for frame in self.vector.0.drain(..) {
            // SAFETY: `new` was promised exclusive frames of this arena; the packet ends before the frame moves.
            let found = look(&mut unsafe { self.arena.packet(&frame) });
            if let Err((frame, reason)) = take(frame, found) {
                self.drops[usize::from(reason.index())].add(1);
                self.refused.push(frame, reason.index());
            }
        }
    }

    /// Refuses a frame that was taken before.
    pub fn refuse(&mut self, frame: FrameIndex, reason: S::Drop) {
        self.drops[usize::from(reason.index())].add(1);
        self.refused.push(frame, reason.index());
    }

    /// Refuses every packet that is left.
    pub fn refuse_rest(&mut self, reason: S::Drop) {
        self.drops[usize::from(reason.index())].add(self.vector.len() as u64);
        self.refused.append(self.vector, reason.index());
    }
}
