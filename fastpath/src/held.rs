//! The waiting room: packets whose neighbour is not yet known.
//!
//! A packet that meets an unfinished adjacency comes here untouched, and enters the graph again at `route` as soon as
//! control has news of any neighbour: it is then sent, answered with an error, or held once more.

use crate::arena::FrameIndex;
use crate::batch::Delivery;
use crate::events::{Event, Events};
use crate::forwarding::Forwarding;
use crate::labels;
use crate::local::Local;
use crate::meta::PortId;
use crate::node::{Sink, Source, Turn};
use crate::vector::Vector;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Most packets that wait on one worker.
pub const HELD_MAX: usize = 1024;
/// Most packets that wait for one neighbour.
pub const HELD_PER_NEIGHBOUR: u16 = 16;

type NextHop = (PortId, IpAddr);

/// A worker's waiting packets, oldest first.
pub struct Held {
    packets: VecDeque<(NextHop, FrameIndex)>,
    count: HashMap<NextHop, u16>,
    /// Packets that still have to enter the graph since the last news.
    released: usize,
    seen: u64,
}

impl Default for Held {
    fn default() -> Self {
        let (packets, count) = (VecDeque::with_capacity(HELD_MAX), HashMap::with_capacity(2 * HELD_MAX));
        Self {
            packets,
            count,
            released: 0,
            seen: 0,
        }
    }
}

impl Held {
    /// Packets waiting.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn put(&mut self, hop: NextHop, frame: FrameIndex) -> Result<bool, (FrameIndex, Drop)> {
        if self.packets.len() == HELD_MAX {
            return Err((frame, Drop::Full));
        }
        let count = self.count.entry(hop).or_default();
        if *count == HELD_PER_NEIGHBOUR {
            return Err((frame, Drop::NeighbourFull));
        }
        *count += 1;
        let first = *count == 1;
        self.packets.push_back((hop, frame));
        Ok(first)
    }

    fn take(&mut self) -> Option<FrameIndex> {
        let (hop, frame) = self.packets.pop_front()?;
        if let Some(count) = self.count.get_mut(&hop) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&hop);
            }
        }
        Some(frame)
    }

    /// Gives every frame up, when the worker ends.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = FrameIndex> + '_ {
        std::iter::from_fn(|| self.take())
    }
}

labels! {
    /// Why a packet may not wait.
    pub enum Drop {
        Full = "waiting-room-full": "Too many packets wait for the link addresses of neighbours.",
        NeighbourFull = "neighbour-queue-full": "Too many packets wait for the link address of this neighbour already.",
    }
}

/// Takes packets that have to wait, and has their neighbour asked.
pub struct Hold {
    forwarding: Arc<Forwarding>,
    events: Events,
}

impl Hold {
    /// Asks by `events`.
    pub fn new(forwarding: Arc<Forwarding>, events: Events) -> Self {
        Self { forwarding, events }
    }
}

impl Sink for Hold {
    const NAME: &'static str = "hold";
    type Drop = Drop;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        let (forwarding, events) = (&self.forwarding, &self.events);
        delivery.each(
            |packet| forwarding.next_hop(packet.meta),
            |frame, hop| {
                if local.held.put(hop, frame)? {
                    events.tell(Event::Resolve {
                        port: hop.0,
                        address: hop.1,
                    });
                }
                Ok(())
            },
        );
    }
}

/// Brings packets that waited back into the graph when there is news of neighbours.
pub struct Released {
    forwarding: Arc<Forwarding>,
}

impl Released {
    /// Watches `forwarding` for news.
    pub fn new(forwarding: Arc<Forwarding>) -> Self {
        Self { forwarding }
    }
}

impl Source for Released {
    const NAME: &'static str = "released";

    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        let held = &mut local.held;
        let news = self.forwarding.news();
        if news != held.seen {
            held.seen = news;
            held.released = held.packets.len();
        }
        for _ in 0..held.released.min(room) {
            if let Some(frame) = held.take() {
                into.push(frame);
            }
            held.released -= 1;
        }
    }
}
