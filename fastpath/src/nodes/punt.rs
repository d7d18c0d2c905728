//! Where a host has a TAP in place of a port's device: packets for the host go to the TAP, and what the host sends leaves by
//! the device, both as they are but for a mark.

use crate::batch::Batch;
use crate::dscp::Marking;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::node::{Node, Turn};
use crate::publish::Reader;
use crate::punt::Crossing;
use crate::wire::ethernet;

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
        batch.each(|mut packet| {
            let interface = interfaces.get(packet.meta.port).ok_or(Drop::NoHost)?;
            packet.meta.egress = match &interface.crossing {
                Crossing::Host(punt) => punt.tap(),
                Crossing::Wire(port) => {
                    if let Some(marking) = &interface.marking {
                        mark(marking, packet.data());
                    }
                    *port
                }
                Crossing::Nobody => return Err(Drop::NoHost),
            };
            Ok(Next::Transmit)
        });
    }
}

/// Nobody has looked at what a host sends.
fn mark(marking: &Marking, frame: &mut [u8]) {
    if let Some((link, network)) = frame.split_at_mut_checked(ethernet::HEADER)
        && [ethernet::IPV4, ethernet::IPV6].contains(&u16::from_be_bytes([link[12], link[13]]))
    {
        marking.apply(network);
    }
}
