//! Packets leave: by an own queue, or by the worker that owns one. And the end of packets that were only read.

use crate::batch::Delivery;
use crate::labels;
use crate::local::{Local, Refused};
use crate::node::{Never, Sink, Turn};
use crate::qos::Exceeded;
use crate::trace::Seen;

labels! {
    /// Why packets are refused.
    pub enum Drop {
        Down = "port-down": "The port it would leave by is down or gone.",
        Full = "transmit-full": "The transmit ring of its port is full: the link is slower than what is sent to it.",
        NoRoom = "vlan-no-room": "The frame has no room for the VLAN tag.",
        Bandwidth = "bandwidth-limit": "Its port or the endpoint behind it is sent more bits a second than it may get.",
        PacketRate = "packet-rate-limit": "Its port or the endpoint behind it is sent more packets a second than it may get.",
        HandoffFull = "handoff-full": "The ring to the worker that owns its port is full.",
    }
}

/// The sink.
#[derive(Default)]
pub struct PortOut;

impl Sink for PortOut {
    const NAME: &'static str = "port-out";
    type Drop = Drop;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        let (queues, frames) = (&mut local.queues, &mut local.frames);
        delivery.each(
            |packet| packet.meta.egress,
            |frame, port| {
                let staged = queues.stage(frames, port, frame);
                staged.map_err(|(frame, refused)| (frame, reason(refused)))
            },
        );
        queues.send(frames, |frame, refused| delivery.refuse(frame, reason(refused)));
    }

    fn describe(seen: &Seen) -> String {
        let link = seen.bytes().iter().take(6).map(|byte| format!("{byte:02x}"));
        let mac = link.collect::<Vec<_>>().join(":");
        format!("port {}, to {mac}, {} bytes", seen.meta.egress.0, seen.length)
    }
}

fn reason(refused: Refused) -> Drop {
    match refused {
        Refused::Down => Drop::Down,
        Refused::NoRoom => Drop::NoRoom,
        Refused::TransmitFull => Drop::Full,
        Refused::Limited(Exceeded::Bandwidth) => Drop::Bandwidth,
        Refused::Limited(Exceeded::PacketRate) => Drop::PacketRate,
        Refused::HandoffFull => Drop::HandoffFull,
    }
}

/// Takes packets that have told what they had to tell.
#[derive(Default)]
pub struct Consumed;

impl Sink for Consumed {
    const NAME: &'static str = "consumed";
    type Drop = Never;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        delivery.vector().drain().for_each(|frame| local.frames.give(frame));
    }
}
