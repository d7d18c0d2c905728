//! A port whose other end is in the same process: tests plug hosts into it. Packets are copied through channels, which
//! allocate; it is no port for speed.

use crate::arena::{FrameIndex, HEADROOM};
use crate::pool::Frames;
use crate::port::Queue;
use crate::vector::Vector;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

/// Most packets that wait in either direction.
const CAPACITY: usize = 4096;

/// The plane's end.
pub struct MemoryQueue {
    inbox: Receiver<Vec<u8>>,
    outbox: Sender<Vec<u8>>,
}

/// The other end: what is sent here is received by the plane, and the reverse.
#[derive(Clone)]
pub struct MemoryEnd {
    /// To the plane.
    pub send: Sender<Vec<u8>>,
    /// From the plane.
    pub receive: Receiver<Vec<u8>>,
}

/// A cable.
pub fn memory() -> (MemoryQueue, MemoryEnd) {
    let (send, inbox) = bounded(CAPACITY);
    let (outbox, receive) = bounded(CAPACITY);
    (MemoryQueue { inbox, outbox }, MemoryEnd { send, receive })
}

impl Queue for MemoryQueue {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room {
            // A frame first: a packet taken from the channel cannot be put back.
            let Some(mut frame) = frames.take() else { return };
            let packet = match self.inbox.try_recv() {
                Ok(packet) => packet,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return frames.give(frame),
            };
            // What does not fit into a frame is lost, as on a wire.
            match frames.packet(&mut frame).fill(HEADROOM, &packet) {
                Ok(()) => into.push(frame),
                Err(_) => frames.give(frame),
            }
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        let mut sent = 0;
        for frame in from.iter_mut() {
            let bytes = frames.packet(frame).data().to_vec();
            // With nobody at the other end packets vanish, as on an unplugged wire that still has a carrier.
            if let Err(crossbeam_channel::TrySendError::Full(_)) = self.outbox.try_send(bytes) {
                break;
            }
            sent += 1;
        }
        from.drain(..sent).for_each(|frame| frames.give(frame));
    }

    fn close(self: Box<Self>, _: &mut Frames) {}
}
