//! Packet capture: whole packets at one place of the graph, copied for control to write.
//!
//! A worker copies into a queue that was allocated when the capture was armed. What finds it full is counted and goes
//! its way; while nothing is armed, a stage pays one branch.

use crate::meta::{Meta, PortId};
use crate::node::{Sink, Source};
use crate::nodes::port_in::PortIn;
use crate::nodes::port_out::PortOut;
use crate::trace::Filter;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of a packet that are kept: all of any that fits a frame.
pub const CAPTURED_BYTES: usize = 2048;
/// Most packets that wait for control.
const CAPACITY: usize = 2048;

/// Where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As they come in by a port.
    Received,
    /// As they are handed to a port; those that its ring refuses are among them.
    Sent,
    /// Where they are dropped, as they are then: what was in front of a packet from a tunnel may be gone.
    Dropped,
}

/// Why a packet was dropped: stage and reason, as indices in [`crate::graph::Graph::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Index of the stage.
    pub stage: u16,
    /// Index among its reasons.
    pub drop: u8,
}

/// A packet as it was.
#[derive(Clone)]
pub struct Captured {
    /// Nanoseconds since the plane started.
    pub at_ns: u64,
    /// The port it came by, or leaves by.
    pub port: PortId,
    /// Of a dropped one.
    pub reason: Option<Reason>,
    /// Its length in bytes.
    pub length: u16,
    bytes: [u8; CAPTURED_BYTES],
}

impl Captured {
    /// Its bytes, at most [`CAPTURED_BYTES`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length).min(CAPTURED_BYTES)]
    }
}

/// What the workers have caught, and how much they still may.
pub struct Catch {
    packets: ArrayQueue<Captured>,
    remaining: AtomicU64,
    missed: AtomicU64,
}

impl Catch {
    /// Nothing yet; at most `count` packets over all workers. Allocates all the memory it will need.
    pub fn new(count: u64) -> Arc<Self> {
        Arc::new(Self {
            packets: ArrayQueue::new(CAPACITY),
            remaining: AtomicU64::new(count),
            missed: AtomicU64::new(0),
        })
    }

    /// The oldest packet not yet taken.
    pub fn next(&self) -> Option<Captured> {
        self.packets.pop()
    }

    /// Whether as many were caught as were wanted, and all of them taken.
    pub fn is_over(&self) -> bool {
        self.remaining.load(Relaxed) == 0 && self.packets.is_empty()
    }

    /// Packets that would have been caught, had control come in time.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    fn put(&self, packet: Captured) {
        if self.packets.is_full() {
            self.missed.fetch_add(1, Relaxed);
            return;
        }
        let counted = self
            .remaining
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok();
        // Another worker may have been faster.
        if counted && self.packets.push(packet).is_err() {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

/// One worker's part of an armed capture.
pub struct Capture {
    place: Place,
    filter: Option<Filter>,
    catch: Arc<Catch>,
}

impl Capture {
    /// Catches packets at `place` that pass `filter`.
    pub fn new(place: Place, filter: Option<Filter>, catch: Arc<Catch>) -> Self {
        Self { place, filter, catch }
    }

    /// Whether packets that a source brought are looked at.
    pub(crate) fn watches_source(&self, name: &str) -> bool {
        self.place == Place::Received && name == PortIn::NAME
    }

    /// Whether packets that a sink is given are looked at.
    pub(crate) fn watches_sink(&self, name: &str) -> bool {
        self.place == Place::Sent && name == PortOut::NAME
    }

    /// Whether packets that are dropped are looked at.
    pub(crate) fn watches_drops(&self) -> bool {
        self.place == Place::Dropped
    }

    /// Looks at a packet.
    pub(crate) fn see(&self, meta: &Meta, data: &[u8], at_ns: u64, reason: Option<Reason>) {
        if self.catch.remaining.load(Relaxed) == 0 || self.filter.as_ref().is_some_and(|filter| !filter(data)) {
            return;
        }
        let mut bytes = [0; CAPTURED_BYTES];
        let kept = data.len().min(CAPTURED_BYTES);
        bytes[..kept].copy_from_slice(&data[..kept]);
        let port = if self.place == Place::Sent {
            meta.egress
        } else {
            meta.port
        };
        let length = data.len() as u16;
        self.catch.put(Captured {
            at_ns,
            port,
            reason,
            length,
            bytes,
        });
    }
}
