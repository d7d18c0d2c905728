//! The four rings a socket shares with the kernel (Documentation/networking/af_xdp.rst, "Rings").
//!
//! Positions count up for ever and wrap at 2^32; a position's entry is the position modulo the ring's size. Each ring
//! has one writer and one reader, this process and the kernel, so each side stores only its own position.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The flag the kernel sets on a ring it will not look at before a system call (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// Where a ring lies in memory: what libxdp hands out once it has mapped it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<T> {
    pub producer: NonNull<AtomicU32>,
    pub consumer: NonNull<AtomicU32>,
    pub flags: NonNull<AtomicU32>,
    pub entries: NonNull<T>,
    /// Entries of the ring, a power of two.
    pub size: u32,
}

/// A ring written here and read by the kernel: fill and transmit.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Layout<T>,
    written: u32,
    /// The kernel's position when last looked at; it only ever trails.
    taken: u32,
}

/// A ring written by the kernel and read here: receive and completion.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Layout<T>,
    read: u32,
    /// The kernel's position when last looked at; it only ever trails.
    seen: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// The ring's pointers must be valid for `size` entries and for the producer's life, and nobody else in this
    /// process may write to the ring.
    pub unsafe fn new(ring: Layout<T>) -> Self {
        assert!(ring.size.is_power_of_two());
        // SAFETY: the caller vouches for the pointers.
        let (written, taken) = unsafe {
            (
                ring.producer.as_ref().load(Ordering::Relaxed),
                ring.consumer.as_ref().load(Ordering::Acquire),
            )
        };
        Producer { ring, written, taken }
    }

    /// Free entries, of which at most `wanted` are looked for.
    pub fn room(&mut self, wanted: u32) -> u32 {
        if self.ring.size - self.written.wrapping_sub(self.taken) < wanted {
            self.taken = self.kernel_position();
        }
        (self.ring.size - self.written.wrapping_sub(self.taken)).min(wanted)
    }

    /// Writes one entry, which the kernel sees after [`publish`](Self::publish). False when the ring is full.
    pub fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        let slot = (self.written & (self.ring.size - 1)) as usize;
        // SAFETY: the slot is within the ring by the mask and free by `room`, so the kernel does not read it.
        unsafe { self.ring.entries.add(slot).write(entry) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Hands all entries written so far to the kernel.
    pub fn publish(&mut self) {
        // SAFETY: valid for the producer's life (`new`). Release: the entries are in memory before the position.
        unsafe { self.ring.producer.as_ref() }.store(self.written, Ordering::Release);
    }

    /// Entries the kernel has not taken yet.
    pub fn pending(&mut self) -> u32 {
        self.taken = self.kernel_position();
        self.written.wrapping_sub(self.taken)
    }

    /// Whether the kernel waits for a system call before it looks at the ring.
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: valid for the producer's life (`new`).
        unsafe { self.ring.flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    fn kernel_position(&self) -> u32 {
        // SAFETY: valid for the producer's life (`new`). Acquire: the kernel is done reading before a slot is reused.
        unsafe { self.ring.consumer.as_ref() }.load(Ordering::Acquire)
    }
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// As [`Producer::new`], with nobody else in this process reading from the ring.
    pub unsafe fn new(ring: Layout<T>) -> Self {
        assert!(ring.size.is_power_of_two());
        // SAFETY: the caller vouches for the pointers.
        let read = unsafe { ring.consumer.as_ref() }.load(Ordering::Relaxed);
        Consumer { ring, read, seen: read }
    }

    /// Gives at most `room` entries to `each` and their slots back to the kernel; the number of them.
    pub fn drain(&mut self, room: usize, mut each: impl FnMut(T)) -> usize {
        if self.seen.wrapping_sub(self.read) < u32::try_from(room).unwrap_or(u32::MAX) {
            // SAFETY: valid for the consumer's life (`new`). Acquire: entries are read after the position that
            // covers them.
            self.seen = unsafe { self.ring.producer.as_ref() }.load(Ordering::Acquire);
        }
        let count = (self.seen.wrapping_sub(self.read) as usize).min(room);
        for _ in 0..count {
            let slot = (self.read & (self.ring.size - 1)) as usize;
            // SAFETY: the slot is within the ring by the mask and written by the kernel before `seen`.
            each(unsafe { self.ring.entries.add(slot).read() });
            self.read = self.read.wrapping_add(1);
        }
        if count > 0 {
            // SAFETY: valid for the consumer's life (`new`). Release: the entries are read before they are given up.
            unsafe { self.ring.consumer.as_ref() }.store(self.read, Ordering::Release);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring in this process's memory, so that both ends can be held at once.
    struct Memory {
        positions: Box<[AtomicU32; 3]>,
        entries: Box<[u64]>,
    }

    impl Memory {
        fn starting_at(position: u32) -> Memory {
            let positions = Box::new([AtomicU32::new(position), AtomicU32::new(position), AtomicU32::new(0)]);
            Memory {
                positions,
                entries: vec![0; 4].into(),
            }
        }

        fn layout(&mut self) -> Layout<u64> {
            Layout {
                producer: NonNull::from(&self.positions[0]),
                consumer: NonNull::from(&self.positions[1]),
                flags: NonNull::from(&self.positions[2]),
                entries: NonNull::new(self.entries.as_mut_ptr()).unwrap(),
                size: 4,
            }
        }
    }

    #[test]
    fn entries_arrive_in_order_across_the_wrap() {
        let mut memory = Memory::starting_at(u32::MAX - 5);
        let layout = memory.layout();
        // SAFETY: the memory outlives both ends, and each end is the only one of its kind.
        let (mut producer, mut consumer) = unsafe { (Producer::new(layout), Consumer::new(layout)) };
        let mut next = 0;
        for round in 0..20_u64 {
            assert_eq!(producer.room(10), 4);
            for entry in 0..3 {
                assert!(producer.push(round * 3 + entry));
            }
            assert_eq!(consumer.drain(10, |_| panic!("not published yet")), 0);
            producer.publish();
            assert_eq!(producer.pending(), 3);
            let mut check = |entry| {
                assert_eq!(entry, next);
                next += 1;
            };
            assert_eq!(consumer.drain(2, &mut check), 2);
            assert_eq!(consumer.drain(2, &mut check), 1);
            assert_eq!(producer.pending(), 0);
        }
        assert_eq!(next, 60);
    }

    #[test]
    fn a_full_ring_takes_nothing_until_the_reader_makes_room() {
        let mut memory = Memory::starting_at(0);
        let layout = memory.layout();
        // SAFETY: the memory outlives both ends, and each end is the only one of its kind.
        let (mut producer, mut consumer) = unsafe { (Producer::new(layout), Consumer::new(layout)) };
        for entry in 0..4 {
            assert!(producer.push(entry));
        }
        assert!(!producer.push(4));
        assert_eq!(producer.room(1), 0);
        producer.publish();
        assert_eq!(consumer.drain(1, |entry| assert_eq!(entry, 0)), 1);
        assert!(producer.push(4));
        assert!(!producer.push(5));
    }

    #[test]
    fn the_wakeup_flag_is_the_kernels() {
        let mut memory = Memory::starting_at(0);
        let layout = memory.layout();
        // SAFETY: the memory outlives the producer, which is the only one.
        let producer = unsafe { Producer::new(layout) };
        assert!(!producer.needs_wakeup());
        memory.positions[2].store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}
