//! Where a host has a TAP in place of a port's device: packets for the host go to the TAP, and what the host sends leaves by
//! the device, both as they are.

use crate::batch::Batch;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::node::{Node, Turn};
use crate::publish::Reader;
use crate::punt::Crossing;

labels! {
    /// Where packets go.
    pub enum Next {
        Transmit = "transmit",
    }
    /// Why packets are dropped.
    pub enum Drop {
        NoHost = "no-host": "For a host that is being parted from its port.",
    }
}

/// The node.
pub struct Punt {
    interfaces: Reader<Interfaces>,
}

impl Punt {
    /// Who has a TAP is said by `interfaces`.
    pub fn new(interfaces: Reader<Interfaces>) -> Self {
        Self { interfaces }
    }
}

impl Node for Punt {
    const NAME: &'static str = "punt";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        batch.each(|packet| {
            packet.meta.egress = match interfaces.get(packet.meta.port).map(|port| &port.crossing) {
                Some(Crossing::Host(punt)) => punt.tap(),
                Some(Crossing::Wire(port)) => *port,
                _ => return Err(Drop::NoHost),
            };
            Ok(Next::Transmit)
        });
    }
}
