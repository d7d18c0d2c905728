//! Address resolution for IPv4 (RFC 826): answers for our addresses, and tells control who is where.

use crate::batch::Batch;
use crate::events::{Event, Events};
use crate::interfaces::{Interface, Interfaces, shares_prefix};
use crate::labels;
use crate::node::{Node, Turn};
use crate::nodes::proxy::Ways;
use crate::packet::Packet;
use crate::publish::Reader;
use crate::wire::{arp, ethernet};
use std::net::{IpAddr, Ipv4Addr};
use zerocopy::{FromBytes, IntoBytes};

labels! {
    /// Where packets go.
    pub enum Next {
        Answer = "answer",
        Learnt = "learnt",
        Punt = "for-host",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Malformed = "arp-malformed": "Too short, or not about IPv4 over Ethernet.",
        NotForUs = "arp-not-for-us": "It asks for, or is told to, somebody else.",
        Conflict = "arp-conflict": "Its sender claims an address of ours.",
    }
}

/// The node.
pub struct Arp {
    interfaces: Reader<Interfaces>,
    events: Events,
    ways: Ways,
}

impl Arp {
    /// Answers for the addresses of `interfaces`, and for those that are by `ways` elsewhere; what it learns goes to
    /// `events`.
    pub fn new(interfaces: Reader<Interfaces>, events: Events, ways: Ways) -> Self {
        Self {
            interfaces,
            events,
            ways,
        }
    }
}

impl Node for Arp {
    const NAME: &'static str = "arp";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let (interfaces, events, ways) = (self.interfaces.refresh(), &self.events, &mut self.ways);
        batch.each(|mut packet| {
            let port = packet.meta.port;
            match handle(interfaces, events, ways, &mut packet) {
                // The host asks and listens as well.
                Ok(Next::Learnt) | Err(_) if interfaces.get(port).is_some_and(Interface::has_host) => Ok(Next::Punt),
                done => done,
            }
        });
    }
}

fn handle(interfaces: &Interfaces, events: &Events, ways: &mut Ways, packet: &mut Packet<'_>) -> Result<Next, Drop> {
    let port = packet.meta.port;
    let interface = interfaces.get(port).ok_or(Drop::NotForUs)?;
    let data = packet.data();
    let (_, rest) = data.split_at_mut_checked(ethernet::HEADER).ok_or(Drop::Malformed)?;
    let (message, _) = arp::Packet::read_from_prefix(rest).map_err(|_| Drop::Malformed)?;
    if !message.is_ipv4_over_ethernet() || message.sender_mac[0] & 1 != 0 {
        return Err(Drop::Malformed);
    }
    let (sender, target) = (Ipv4Addr::from(message.sender), Ipv4Addr::from(message.target));
    // Who moves, or takes over an address, announces it (RFC 5227 section 3).
    let announces = sender == target;
    // Who has no address yet checks whether one is free: that is for its owner alone to say (RFC 5227 section 2.1.1).
    let asks = message.operation.get() == arp::REQUEST && !sender.is_unspecified();
    // A port without addresses asks with one of another.
    let was_asked = || message.operation.get() == arp::REPLY && interfaces.own.has_v4(interface.vrf, target.to_bits());
    let is_ours = interface.v4().any(|own| own.0 == target) || was_asked();
    let is_heard = announces || is_ours || (asks && ways.answers_for((port, interface), target.into()));
    if !is_heard {
        return Err(Drop::NotForUs);
    }
    if interface.has(sender.into()) {
        return Err(Drop::Conflict);
    }
    let answer = message.operation.get() == arp::REPLY || announces;
    // An asker is believed if it could be our neighbour; an answer or an announcement counts if we asked, which control
    // knows. A sender without address only checks whether ours is free (RFC 5227 section 2.1.1).
    let near = interface
        .v4()
        .any(|own| shares_prefix(own.0.into(), sender.into(), own.1));
    if answer || (near && !sender.is_unspecified()) {
        events.tell(Event::Neighbour {
            port,
            address: IpAddr::V4(sender),
            mac: message.sender_mac,
            answer,
        });
    }
    if answer || message.operation.get() != arp::REQUEST {
        return Ok(Next::Learnt);
    }
    let reply = arp::Packet::new(
        arp::REPLY,
        (interface.mac, message.target),
        (message.sender_mac, message.sender),
    );
    let header = ethernet::Header {
        target: message.sender_mac,
        source: interface.mac,
        ether_type: ethernet::ARP.into(),
    };
    data[..ethernet::HEADER].copy_from_slice(header.as_bytes());
    data[ethernet::HEADER..][..size_of::<arp::Packet>()].copy_from_slice(reply.as_bytes());
    // What followed the question is not answered: whoever pads does it anew.
    packet.truncate((ethernet::HEADER + size_of::<arp::Packet>()) as u16);
    packet.meta.egress = port;
    Ok(Next::Answer)
}
