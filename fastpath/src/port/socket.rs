//! A queue of a network device, by AF_XDP: the driver's frame numbers are the arena's frame indices.

use crate::arena::FrameIndex;
use crate::pool::Frames;
use crate::port::xdp::{self, Link};
use crate::port::{Queue, QueueCounters};
use crate::vector::{BATCH_MAX, Vector};
use std::os::fd::BorrowedFd;

/// The socket of one queue.
pub struct SocketQueue {
    socket: xdp::Queue,
    /// Frames the kernel is given to receive into.
    fill_level: usize,
    link: Link,
}

impl SocketQueue {
    /// Takes over a socket, and lends it at most `fill_level` frames to receive into.
    pub fn new(socket: xdp::Queue, fill_level: usize) -> Self {
        Self {
            socket,
            fill_level,
            link: Link::Up,
        }
    }

    fn reclaim(&mut self, frames: &mut Frames) {
        if self.socket.outstanding() > 0 {
            self.socket
                .completed(usize::MAX, |frame| frames.give(FrameIndex(frame)));
        }
    }

    /// Keeps the fill ring at its level; a vector may be missing, so that it is not topped up packet by packet.
    fn fill(&mut self, frames: &mut Frames) {
        let lent = self.socket.held() - self.socket.outstanding();
        let missing = self.fill_level.saturating_sub(lent);
        if missing > BATCH_MAX.min(self.fill_level / 4) {
            let free = std::iter::from_fn(|| frames.take().map(|frame| frame.0));
            self.socket.fill(free.take(missing));
        }
    }
}

impl Queue for SocketQueue {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        self.socket.receive(room, |frame, offset, length| {
            let mut frame = FrameIndex(frame);
            let packet = frames.packet(&mut frame);
            packet.meta.data_offset = offset;
            packet.meta.data_length = length;
            into.push(frame);
        });
        self.fill(frames);
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        let mut sent = 0;
        for frame in from.iter_mut() {
            let (offset, length) = {
                let meta = frames.packet(frame).meta;
                (meta.data_offset, meta.data_length)
            };
            if self.socket.transmit_room() == 0 {
                // The kernel sends while we ask it to (copy mode): better to wait for it than to lose the packet.
                self.link = self.socket.flush();
                self.reclaim(frames);
            }
            if !self.socket.transmit(frame.0, offset, length) {
                break;
            }
            sent += 1;
        }
        // These frames are the kernel's now, until it names them again.
        from.drain(..sent);
    }

    fn flush(&mut self, frames: &mut Frames) {
        if self.socket.outstanding() == 0 {
            return;
        }
        self.link = self.socket.flush();
        self.reclaim(frames);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn busy(&self) -> bool {
        // What waits for a device that is down goes out when it is up; polling for that would burn a core.
        self.link == Link::Up && self.socket.outstanding() > 0
    }

    fn sample(&self, counters: &QueueCounters) {
        if let Ok(statistics) = self.socket.statistics() {
            counters.socket_dropped.set(statistics.receive_dropped);
            counters.socket_ring_full.set(statistics.receive_ring_full);
            counters.socket_fill_empty.set(statistics.fill_ring_empty);
            counters.socket_tx_invalid.set(statistics.transmit_invalid);
        }
    }

    fn close(self: Box<Self>, frames: &mut Frames) {
        self.socket
            .close()
            .into_iter()
            .for_each(|frame| frames.give(FrameIndex(frame)));
    }
}
