//! Waiting rooms: for packets whose neighbour is not yet known, and for those whose tunnel has no session yet.
//!
//! A packet that meets an unfinished adjacency comes here untouched, and enters the graph again at `route` as soon as
//! control has news of any neighbour or session: it is then sent, answered with an error, or held once more.

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
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// Most packets in one waiting room of a worker.
pub const HELD_MAX: usize = 1024;
/// Most packets that wait for one neighbour.
pub const HELD_PER_NEIGHBOUR: u16 = 16;
/// Most packets that wait for one peer of a tunnel: as many as Linux keeps (drivers/net/wireguard/messages.h,
/// MAX_STAGED_PACKETS), for a handshake takes longer than a neighbour's answer.
pub const PARKED_PER_PEER: u16 = 128;

/// What a packet waits for: a neighbour behind a port.
pub type NextHop = (PortId, IpAddr);
/// What a packet waits for: a peer of a tunnel, by its number.
pub type TunnelPeer = (PortId, u32);

/// A worker's waiting packets, oldest first, and what each waits for.
pub struct Held<K> {
    packets: VecDeque<(K, FrameIndex)>,
    count: HashMap<K, u16>,
    most_for_one: u16,
    /// Packets that still have to enter the graph since the last news.
    released: usize,
    seen: u64,
}

/// Why a packet may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The room is full.
    InAll,
    /// As many wait for the same.
    ForOne,
}

impl<K: Copy + Eq + Hash> Held<K> {
    /// Empty; at most `most_for_one` packets may wait for the same. All memory is allocated now.
    pub fn new(most_for_one: u16) -> Self {
        let (packets, count) = (VecDeque::with_capacity(HELD_MAX), HashMap::with_capacity(2 * HELD_MAX));
        Self {
            packets,
            count,
            most_for_one,
            released: 0,
            seen: 0,
        }
    }

    /// Packets waiting.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Keeps a packet; whether it is the first that waits for `key`.
    ///
    /// # Errors
    /// Why not, and the frame.
    pub fn put(&mut self, key: K, frame: FrameIndex) -> Result<bool, (FrameIndex, TooMany)> {
        if self.packets.len() == HELD_MAX {
            return Err((frame, TooMany::InAll));
        }
        let count = self.count.entry(key).or_default();
        if *count == self.most_for_one {
            return Err((frame, TooMany::ForOne));
        }
        *count += 1;
        let first = *count == 1;
        self.packets.push_back((key, frame));
        Ok(first)
    }

    /// Moves at most `room` packets into `into`, of those that waited when there last was [news](Forwarding::news).
    pub fn release(&mut self, news: u64, room: usize, into: &mut Vector) {
        if news != self.seen {
            self.seen = news;
            self.released = self.packets.len();
        }
        for _ in 0..self.released.min(room) {
            if let Some(frame) = self.take() {
                into.push(frame);
            }
            self.released -= 1;
        }
    }

    fn take(&mut self) -> Option<FrameIndex> {
        let (key, frame) = self.packets.pop_front()?;
        if let Some(count) = self.count.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&key);
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
                let first = local.held.put(hop, frame).map_err(|(frame, why)| match why {
                    TooMany::InAll => (frame, Drop::Full),
                    TooMany::ForOne => (frame, Drop::NeighbourFull),
                })?;
                if first {
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
        local.held.release(self.forwarding.news(), room, into);
    }
}
