//! What workers tell control: a bounded queue, never waited for.

use crate::meta::PortId;
use crossbeam_queue::ArrayQueue;
use std::net::IpAddr;
use std::sync::Arc;

/// Most events that wait for control.
const CAPACITY: usize = 4096;

/// A link-layer address.
pub type Mac = [u8; 6];

/// Something a worker saw that control should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet waits for the link address of a neighbour.
    Resolve {
        /// Port behind which the neighbour is.
        port: PortId,
        /// Its address.
        address: IpAddr,
    },
    /// A neighbour told its link address.
    Neighbour {
        /// Port it was heard on.
        port: PortId,
        /// Its address.
        address: IpAddr,
        /// Its link address.
        mac: Mac,
        /// Whether it answered a question (ARP reply, solicited advertisement), rather than asked one.
        answer: bool,
    },
    /// A router outside of a tunnel cannot pass on what we wrapped (RFC 1191 section 3, RFC 8201 section 3).
    PathMtu {
        /// Port of the tunnel.
        port: PortId,
        /// The other end.
        remote: IpAddr,
        /// Bytes that its link takes, from the outer header on.
        mtu: u16,
    },
}

struct Shared {
    queue: ArrayQueue<Event>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A worker's end, and control's.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

impl Events {
    /// `wake` is called after events were put, from worker threads; it must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            queue: ArrayQueue::new(CAPACITY),
            wake: Box::new(wake),
        }))
    }

    /// Tells control, unless the queue is full: then the event is lost, and whoever waits for it asks again.
    pub fn tell(&self, event: Event) {
        if self.0.queue.push(event).is_ok() {
            (self.0.wake)();
        }
    }

    /// Wakes control, for something that it finds out by itself.
    pub fn nudge(&self) {
        (self.0.wake)();
    }

    /// The next event, for control.
    pub fn next(&self) -> Option<Event> {
        self.0.queue.pop()
    }
}
