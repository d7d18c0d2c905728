//! A queue of frames between two threads: one sends, one receives.

use crate::arena::FrameIndex;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::vector::Vector;

#[repr(align(128))] // two lines: the adjacent-line prefetcher pairs them
struct Alone<T>(T);

struct Ring {
    slots: Box<[AtomicU32]>,
    head: Alone<AtomicU32>,
    tail: Alone<AtomicU32>,
}

/// Sends frames.
pub struct Producer {
    ring: Arc<Ring>,
    tail: u32,
}

/// Receives frames.
pub struct Consumer {
    ring: Arc<Ring>,
    head: u32,
}

/// A queue for `capacity` frames, a power of two. A frame is its index, so the slots are plain atomics.
pub fn ring(capacity: u32) -> (Producer, Consumer) {
    assert!(capacity.is_power_of_two());
    let ring = Arc::new(Ring {
        slots: (0..capacity).map(|_| AtomicU32::new(0)).collect(),
        head: Alone(AtomicU32::new(0)),
        tail: Alone(AtomicU32::new(0)),
    });
    (
        Producer {
            ring: ring.clone(),
            tail: 0,
        },
        Consumer { ring, head: 0 },
    )
}

impl Ring {
    fn slot(&self, position: u32) -> &AtomicU32 {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }
}

impl Producer {
    /// Moves frames out of `from`, first come first, while there is room; what remains did not fit. How many went.
    pub fn send(&mut self, from: &mut Vec<FrameIndex>) -> usize {
        let used = self.tail.wrapping_sub(self.ring.head.0.load(Ordering::Acquire));
        let count = from.len().min(self.ring.slots.len() - used as usize);
        if count == 0 {
            return 0;
        }
        for frame in from.drain(..count) {
            self.ring.slot(self.tail).store(frame.0, Ordering::Relaxed);
            self.tail = self.tail.wrapping_add(1);
        }
        // Release: whoever sees the new tail also sees the frames' bytes and metas.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        count
    }
}

impl Consumer {
    /// Moves at most `room` waiting frames into `into`.
    pub fn receive(&mut self, room: usize, into: &mut Vector) {
        let waiting = self.ring.tail.0.load(Ordering::Acquire).wrapping_sub(self.head);
        let count = room.min(waiting as usize).min(into.room());
        if count == 0 {
            return;
        }
        for _ in 0..count {
            into.push(FrameIndex(self.ring.slot(self.head).load(Ordering::Relaxed)));
            self.head = self.head.wrapping_add(1);
        }
        self.ring.head.0.store(self.head, Ordering::Release);
    }

    /// Whether frames wait.
    pub fn is_empty(&self) -> bool {
        self.ring.tail.0.load(Ordering::Acquire) == self.head
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::vector::BATCH_MAX;

    #[test]
    fn a_ring_keeps_every_frame_in_order_and_refuses_the_rest() {
        let (_arena, mut frames) = Arena::new(12).unwrap();
        let (mut producer, mut consumer) = ring(8);
        frames.reverse();
        assert_eq!(producer.send(&mut frames), 8);
        assert_eq!(frames.len(), 4);
        let mut received = Vector::default();
        consumer.receive(BATCH_MAX, &mut received);
        assert!(consumer.is_empty());
        producer.send(&mut frames);
        consumer.receive(BATCH_MAX, &mut received);
        let order: Vec<u32> = received.drain().map(|frame| frame.0).collect();
        assert_eq!(order, (0..12).collect::<Vec<_>>());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;

    #[test]
    fn what_is_received_was_sent_in_order_and_its_bytes_are_seen() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2);
            let bytes = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
            let written = bytes.clone();
            let sender = loom::thread::spawn(move || {
                let mut from: Vec<FrameIndex> = (0..3).map(FrameIndex).collect();
                for _ in 0..3 {
                    for (index, byte) in written.iter().enumerate() {
                        byte.store(index as u32 + 1, Ordering::Relaxed);
                    }
                    producer.send(&mut from);
                    loom::thread::yield_now();
                }
                3 - from.len()
            });
            let mut into = Vector::default();
            for _ in 0..3 {
                consumer.receive(2, &mut into);
                loom::thread::yield_now();
            }
            let sent = sender.join().unwrap();
            let received: Vec<u32> = into.drain().map(|frame| frame.0).collect();
            assert!(received.len() <= sent);
            for (expected, frame) in received.iter().enumerate() {
                assert_eq!(*frame, expected as u32);
                assert_eq!(bytes[*frame as usize].load(Ordering::Relaxed), frame + 1);
            }
        });
    }
}
