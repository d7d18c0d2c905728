//! Free frames: a small stock for each thread, and what is left over for all.
#![allow(unsafe_code)]

use crate::arena::{Arena, FrameIndex};
use crate::packet::Packet;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Frames that move between a thread's stock and the shared rest at once.
const CHUNK: usize = 64;
/// Most frames a thread keeps for itself: two vectors.
const STOCK_MAX: usize = 512;

type Chunk = Vec<FrameIndex>;

/// The free frames of the process. Threads reach them through their [`Frames`].
pub struct Pool {
    arena: Arc<Arena>,
    full: ArrayQueue<Chunk>,
    empty: ArrayQueue<Chunk>,
}

impl Pool {
    /// Takes every frame of the arena.
    pub fn new(arena: Arc<Arena>, mut frames: Vec<FrameIndex>) -> Arc<Self> {
        let chunks = frames.len() / CHUNK + 1;
        // Chunks travel with their allocation, so that no worker allocates or frees one: as many empty ones as full.
        let pool = Self {
            arena,
            full: ArrayQueue::new(2 * chunks + 64),
            empty: ArrayQueue::new(2 * chunks + 64),
        };
        while !frames.is_empty() {
            let rest = frames.split_off(frames.len().saturating_sub(CHUNK));
            let mut chunk = Chunk::with_capacity(CHUNK);
            chunk.extend(rest);
            let _ = pool.full.push(chunk);
        }
        for _ in 0..chunks {
            let _ = pool.empty.push(Chunk::with_capacity(CHUNK));
        }
        Arc::new(pool)
    }

    /// The memory behind the frames.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Free frames outside the threads' stocks, about.
    pub fn free(&self) -> usize {
        self.full.len() * CHUNK
    }

    /// A thread's access.
    pub fn frames(self: &Arc<Self>) -> Frames {
        Frames {
            pool: self.clone(),
            stock: Vec::with_capacity(STOCK_MAX + CHUNK),
        }
    }
}

/// One thread's stock of free frames.
pub struct Frames {
    pool: Arc<Pool>,
    stock: Vec<FrameIndex>,
}

impl Frames {
    /// A free frame, or none: every frame is in use.
    #[inline]
    pub fn take(&mut self) -> Option<FrameIndex> {
        if self.stock.is_empty() {
            self.refill();
        }
        self.stock.pop()
    }

    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, frame: FrameIndex) {
        if self.stock.len() >= STOCK_MAX {
            self.spill();
        }
        self.stock.push(frame);
    }

    /// The packet in `frame`, which the caller holds.
    #[inline(always)]
    pub fn packet<'a>(&'a self, frame: &'a mut FrameIndex) -> Packet<'a> {
        // SAFETY: `&mut` shows that the caller holds the frame and lends it to this packet alone; a process has one
        // arena, and every pool, ring and vector of it carries that arena's frames.
        unsafe { self.pool.arena.packet(frame) }
    }

    /// The arena.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.pool.arena
    }

    #[cold]
    fn refill(&mut self) {
        if let Some(mut chunk) = self.pool.full.pop() {
            self.stock.append(&mut chunk);
            let _ = self.pool.empty.push(chunk);
        }
    }

    #[cold]
    fn spill(&mut self) {
        while self.stock.len() > STOCK_MAX / 2 {
            // There are more chunks than the frames can fill, so one is always empty.
            let mut chunk = self.pool.empty.pop().unwrap_or_default();
            chunk.extend(self.stock.drain(self.stock.len() - CHUNK..));
            if let Err(mut chunk) = self.pool.full.push(chunk) {
                self.stock.append(&mut chunk);
                return;
            }
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        while !self.stock.is_empty() {
            let at = self.stock.len().saturating_sub(CHUNK);
            let _ = self.pool.full.push(self.stock.split_off(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(frames: u32) -> Arc<Pool> {
        let (arena, frames) = Arena::new(frames).unwrap();
        Pool::new(arena, frames)
    }

    #[test]
    fn every_frame_can_be_taken_once_and_comes_back() {
        let pool = pool(3000);
        for _ in 0..3 {
            let mut frames = pool.frames();
            let mut taken: Vec<FrameIndex> = std::iter::from_fn(|| frames.take()).collect();
            let mut indices: Vec<u32> = taken.iter().map(|frame| frame.0).collect();
            indices.sort_unstable();
            assert_eq!(indices, (0..3000).collect::<Vec<_>>());
            taken.drain(..).for_each(|frame| frames.give(frame));
        }
    }

    #[test]
    fn frames_given_by_one_thread_serve_another() {
        let pool = pool(2048);
        let (mut giver, mut taker) = (pool.frames(), pool.frames());
        let mut rounds = 0;
        for _ in 0..20 {
            let taken: Vec<FrameIndex> = std::iter::from_fn(|| taker.take()).take(1000).collect();
            rounds += taken.len();
            taken.into_iter().for_each(|frame| giver.give(frame));
        }
        assert_eq!(rounds, 20 * 1000);
    }
}
