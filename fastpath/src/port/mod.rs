//! Where packets come from and go to: the ends of the graph that touch the world.

pub mod memory;
pub mod pcap;
pub mod socket;
pub mod tap;
pub mod xdp;

use crate::arena::FrameIndex;
use crate::counters::Counter;
use crate::pool::Frames;
use crate::vector::Vector;
use std::os::fd::BorrowedFd;

/// One queue of a port: it belongs to one worker, which polls it and sends through it.
pub trait Queue: Send {
    /// Moves at most `room` received packets into `into`, without waiting.
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector);

    /// Sends packets from the front of `from`; what does not fit stays.
    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>);

    /// Ends a turn: gets going what [`Self::transmit`] queued, and takes back what has been sent.
    fn flush(&mut self, frames: &mut Frames) {
        let _ = frames;
    }

    /// What to sleep on until packets come; none for a queue that must be polled.
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether something is still to be done, so that the worker must not sleep.
    fn busy(&self) -> bool {
        false
    }

    /// Brings the counters up to date that cost a system call; control asks for it now and then.
    fn sample(&self, counters: &QueueCounters) {
        let _ = counters;
    }

    /// Ends the queue and gives every frame back that it still has.
    fn close(self: Box<Self>, frames: &mut Frames);
}

/// What a queue counts; written by its worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received, from the Ethernet header on.
    pub rx_bytes: Counter,
    /// Packets sent.
    pub tx_packets: Counter,
    /// Bytes sent.
    pub tx_bytes: Counter,
    /// Packets that did not fit into the transmit ring.
    pub tx_full: Counter,
    /// Of the socket: received and dropped for other reasons than the next two.
    pub socket_dropped: Counter,
    /// Of the socket: received and dropped because the receive ring was full.
    pub socket_ring_full: Counter,
    /// Of the socket: received and dropped because it had no frame to receive into.
    pub socket_fill_empty: Counter,
    /// Of the socket: packets the kernel refused to send.
    pub socket_tx_invalid: Counter,
}
