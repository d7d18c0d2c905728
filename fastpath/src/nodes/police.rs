//! What comes in by a limited port passes as its limits allow, and is marked as it says. Packets of other ports never come
//! here.

use crate::batch::Batch;
use crate::interfaces::{Interface, Interfaces, ReversePath};
use crate::labels;
use crate::node::{Node, Turn};
use crate::publish::Reader;
use crate::qos::Exceeded;

labels! {
    /// Where packets go.
    pub enum Next {
        Route = "route",
        Flows = "flows",
        Check = "reverse-path",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Removed = "unknown-port": "The port it came in by is being removed.",
        Bandwidth = "bandwidth-limit": "Its port or endpoint sends more bits a second than it may.",
        PacketRate = "packet-rate-limit": "Its port or endpoint sends more packets a second than it may.",
    }
}

/// The node.
pub struct Police {
    interfaces: Reader<Interfaces>,
}

impl Police {
    /// Limits and marks what comes in as `interfaces` say.
    pub fn new(interfaces: Reader<Interfaces>) -> Self {
        Self { interfaces }
    }
}

impl Node for Police {
    const NAME: &'static str = "police";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        batch.each(|mut packet| {
            let interface = interfaces.get(packet.meta.port).ok_or(Drop::Removed)?;
            if let Some(limiter) = &interface.limiter {
                let passed = limiter.pass(turn.now_ns, packet.meta.length());
                passed.map_err(reason)?;
            }
            if let Some(marking) = &interface.marking {
                marking.apply(packet.network());
            }
            Ok(onwards(interface))
        });
    }
}

fn onwards(interface: &Interface) -> Next {
    match interface.reverse_path {
        ReversePath::Off if interface.tracked => Next::Flows,
        ReversePath::Off => Next::Route,
        ReversePath::Loose | ReversePath::Strict => Next::Check,
    }
}

fn reason(exceeded: Exceeded) -> Drop {
    match exceeded {
        Exceeded::Bandwidth => Drop::Bandwidth,
        Exceeded::PacketRate => Drop::PacketRate,
    }
}
