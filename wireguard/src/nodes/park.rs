//! The waiting room of the tunnels: packets whose peer has no session yet. They come back as they were when there is
//! one, or when there will be none.

use fastpath::batch::Delivery;
use fastpath::forwarding::Forwarding;
use fastpath::held::TooMany;
use fastpath::labels;
use fastpath::local::Local;
use fastpath::node::{Sink, Source, Turn};
use fastpath::trace::Seen;
use fastpath::vector::Vector;
use std::sync::Arc;

labels! {
    /// Why a packet may not wait.
    pub enum Drop {
        Full = "sessions-waiting-room-full": "Too many packets wait for sessions with peers of tunnels.",
        PeerFull = "peer-queue-full": "Too many packets wait for a session with this peer already.",
    }
}

/// Takes packets that have to wait.
#[derive(Default)]
pub struct Park;

impl Sink for Park {
    const NAME: &'static str = "wg-park";
    type Drop = Drop;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        let parked = &mut local.parked;
        delivery.each(
            |packet| (packet.meta.egress, packet.meta.adjacency),
            |frame, peer| match parked.put(peer, frame) {
                Ok(_) => Ok(()),
                Err((frame, TooMany::InAll)) => Err((frame, Drop::Full)),
                Err((frame, TooMany::ForOne)) => Err((frame, Drop::PeerFull)),
            },
        );
    }

    fn describe(seen: &Seen) -> String {
        format!("waits for a session with peer {}", seen.meta.adjacency)
    }
}

/// Brings packets that waited back into the graph when there is news of neighbours or sessions.
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
    const NAME: &'static str = "wg-released";

    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        local.parked.release(self.forwarding.news(), room, into);
    }
}
