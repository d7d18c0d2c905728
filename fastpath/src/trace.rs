//! Packet trace: a copy of a packet's meta and first bytes at every stage it visits, told as a story by control.
//!
//! Nothing is formatted and nothing allocated on a worker; while no trace is armed, a turn pays one branch.

use crate::meta::Meta;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a packet that a trace keeps at each stage.
pub const SEEN_BYTES: usize = 128;
/// Most stage visits that wait for control.
const CAPACITY: usize = 16_384;
/// A trace ends this long after its last packet was marked, so that held packets are still followed.
const LINGER_NS: u64 = 10_000_000_000;

/// A packet as a stage left it.
#[derive(Clone)]
pub struct Seen {
    /// Its meta after the decision.
    pub meta: Meta,
    /// Its length in bytes.
    pub length: u16,
    bytes: [u8; SEEN_BYTES],
}

impl Seen {
    pub(crate) fn new(meta: &Meta, data: &[u8]) -> Self {
        let mut bytes = [0; SEEN_BYTES];
        let kept = data.len().min(SEEN_BYTES);
        bytes[..kept].copy_from_slice(&data[..kept]);
        Self {
            meta: *meta,
            length: data.len() as u16,
            bytes,
        }
    }

    /// Its first bytes, at most [`SEEN_BYTES`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length).min(SEEN_BYTES)]
    }
}

/// What a stage did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It entered the graph here.
    Entered,
    /// It left by the edge of this index.
    Edge(u8),
    /// It was dropped for the reason of this index.
    Dropped(u8),
    /// It left the graph here.
    Taken,
}

/// One visit of one packet.
#[derive(Clone)]
pub struct Visit {
    /// The frame: it names the packet from `Entered` until `Dropped` or `Taken`.
    pub frame: u32,
    /// Nanoseconds since the plane started.
    pub at_ns: u64,
    /// Time-stamp counter, to order the visits of one turn.
    pub cycles: u64,
    /// The worker.
    pub worker: u16,
    /// Index of the stage in [`crate::graph::Graph::stages`].
    pub stage: u16,
    /// What happened there.
    pub fate: Fate,
    /// The packet afterwards.
    pub seen: Seen,
}

/// Where visits are collected, for all workers; allocated once.
#[derive(Clone)]
pub struct Visits(Arc<ArrayQueue<Visit>>);

impl Default for Visits {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(CAPACITY)))
    }
}

impl Visits {
    /// The oldest visit not yet taken.
    pub fn next(&self) -> Option<Visit> {
        self.0.pop()
    }

    /// Keeps a visit; the packets' story has a hole where there is no room.
    pub(crate) fn push(&self, visit: Visit) {
        let _ = self.0.push(visit);
    }
}

/// Says whether a packet (from its Ethernet header on) shall be traced.
pub type Filter = Box<dyn Fn(&[u8]) -> bool + Send>;

/// One worker's part of an armed trace.
pub struct Tracer {
    /// Packets still to be marked, over all workers.
    remaining: Arc<AtomicU32>,
    filter: Option<Filter>,
    visits: Visits,
    idle_since_ns: u64,
}

impl Tracer {
    /// Marks packets that pass `filter`, until `remaining`, shared by all workers, is used up.
    pub fn new(remaining: Arc<AtomicU32>, filter: Option<Filter>, visits: Visits) -> Self {
        Self {
            remaining,
            filter,
            visits,
            idle_since_ns: 0,
        }
    }

    /// Whether this packet is to be traced; counts it if so.
    pub(crate) fn wants(&self, data: &[u8]) -> bool {
        if self.remaining.load(Ordering::Relaxed) == 0 || self.filter.as_ref().is_some_and(|filter| !filter(data)) {
            return false;
        }
        self.remaining
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    /// Whether there will be nothing more to record.
    pub(crate) fn is_over(&mut self, now_ns: u64) -> bool {
        if self.remaining.load(Ordering::Relaxed) > 0 || self.idle_since_ns == 0 {
            self.idle_since_ns = now_ns;
        }
        now_ns - self.idle_since_ns > LINGER_NS
    }

    pub(crate) fn record(&self, visit: Visit) {
        self.visits.push(visit);
    }
}
