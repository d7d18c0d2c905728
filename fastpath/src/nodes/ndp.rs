//! Neighbour discovery for IPv6 (RFC 4861): answers for our addresses, and tells control who is where.
//!
//! Router advertisements and redirects are ignored: a router does not take its routes from the link
//! (RFC 4861 section 6.2.7).

use crate::batch::Batch;
use crate::events::{Event, Events};
use crate::interfaces::{Interface, Interfaces, shares_prefix};
use crate::labels;
use crate::meta::PortId;
use crate::node::{Node, Turn};
use crate::nodes::proxy::Ways;
use crate::packet::Packet;
use crate::publish::Reader;
use crate::wire::{ethernet, icmp, ipv6, ndp, protocol};
use std::net::{IpAddr, Ipv6Addr};
use zerocopy::IntoBytes;

labels! {
    /// Where packets go.
    pub enum Next {
        Answer = "answer",
        Learnt = "learnt",
        Punt = "for-host",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Malformed = "ndp-malformed": "Too short, with a wrong checksum or code, or with bad options (RFC 4861 section 7.1).",
        NotForUs = "ndp-not-for-us": "It asks for somebody else.",
        Conflict = "ndp-conflict": "Its sender claims an address of ours, or a link address that nobody has.",
        Ignored = "ndp-ignored": "Router discovery and redirects mean nothing to a router.",
    }
}

/// All nodes of the link (RFC 4291 section 2.7.1).
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Bytes of our answer.
const ANSWER: usize = ethernet::HEADER + ipv6::HEADER + ndp::MESSAGE;

/// The node.
pub struct Ndp {
    interfaces: Reader<Interfaces>,
    events: Events,
    ways: Ways,
}

impl Ndp {
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

impl Node for Ndp {
    const NAME: &'static str = "ndp";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let (interfaces, events, ways) = (self.interfaces.refresh(), &self.events, &mut self.ways);
        batch.each(|mut packet| {
            let interface = interfaces.get(packet.meta.port).ok_or(Drop::NotForUs)?;
            match handle(interface, events, ways, &mut packet) {
                // The host asks and listens as well.
                Ok(Next::Learnt) | Err(_) if interface.has_host() => Ok(Next::Punt),
                done => done,
            }
        });
    }
}

fn handle(interface: &Interface, events: &Events, ways: &mut Ways, packet: &mut Packet<'_>) -> Result<Next, Drop> {
    let port = packet.meta.port;
    let (source, target) = (packet.meta.source.address, packet.meta.target.address);
    let offset = usize::from(packet.meta.transport_offset);
    let message = packet.network().get(offset..).ok_or(Drop::Malformed)?;
    // The kind comes first: messages of router discovery are shorter than those about neighbours.
    let asks = match *message.first().ok_or(Drop::Malformed)? {
        icmp::v6::NEIGHBOUR_SOLICITATION => true,
        icmp::v6::NEIGHBOUR_ADVERTISEMENT => false,
        _ => return Err(Drop::Ignored),
    };
    let fixed = message.first_chunk::<{ ndp::MESSAGE_FIXED }>().ok_or(Drop::Malformed)?;
    if fixed[1] != 0 || ndp::checksum(source, target, message) != [0, 0] {
        return Err(Drop::Malformed);
    }
    let Ok(about) = <[u8; 16]>::try_from(&fixed[8..24]) else {
        return Err(Drop::Malformed);
    };
    let options = &message[ndp::MESSAGE_FIXED..];
    let link = ndp::link_address(options, if asks { ndp::SOURCE_LINK } else { ndp::TARGET_LINK });
    if !asks {
        let mac = link.ok_or(Drop::Malformed)?;
        learn(interface, events, port, about.into(), mac, true)?;
        return Ok(Next::Learnt);
    }
    let unspecified = source == [0; 16];
    let is_ours = interface.has(IpAddr::V6(about.into()));
    // Who has no address yet checks whether one is free: that is for its owner alone to say (RFC 4862 section 5.4).
    if !is_ours && (unspecified || !ways.answers_for((port, interface), IpAddr::V6(about.into()))) {
        return Err(Drop::NotForUs);
    }
    if !unspecified && let Some(mac) = link {
        learn(interface, events, port, source.into(), mac, false)?;
    }
    let asker = link.unwrap_or(packet_source(packet));
    answer(
        interface,
        packet,
        (about, is_ours),
        (!unspecified).then_some((source, asker)),
    )
}

fn packet_source(packet: &mut Packet<'_>) -> [u8; 6] {
    packet
        .data()
        .get(6..12)
        .and_then(|mac| mac.try_into().ok())
        .unwrap_or_default()
}

fn learn(
    interface: &Interface,
    events: &Events,
    port: PortId,
    address: Ipv6Addr,
    mac: [u8; 6],
    answer: bool,
) -> Result<(), Drop> {
    if interface.has(address.into()) || mac[0] & 1 != 0 {
        return Err(Drop::Conflict);
    }
    // An asker is believed if it could be our neighbour; an answer counts if we asked, which control knows.
    let near = interface
        .v6()
        .any(|own| shares_prefix(own.0.into(), address.into(), own.1));
    if !(answer || near || address.is_unicast_link_local()) {
        return Ok(());
    }
    events.tell(Event::Neighbour {
        port,
        address: address.into(),
        mac,
        answer,
    });
    Ok(())
}

/// Turns the question into an answer: to who asked, or to all if the asker has no address yet (RFC 4861 section 7.2.4).
fn answer(
    interface: &Interface,
    packet: &mut Packet<'_>,
    (about, is_ours): ([u8; 16], bool),
    asker: Option<([u8; 16], [u8; 6])>,
) -> Result<Next, Drop> {
    let (to, to_mac) = asker.unwrap_or((ALL_NODES, ethernet::multicast(ALL_NODES)));
    let flags = ndp::ROUTER_SOLICITED_OVERRIDE & if asker.is_some() { u32::MAX } else { !ndp::SOLICITED };
    // Who answers for others does not outdo them, and speaks from an address of its own (RFC 4861 section 7.2.8).
    let (flags, from) = match is_ours {
        true => (flags, about),
        false => (flags & !ndp::OVERRIDE, interface.link_local().octets()),
    };
    let kind = icmp::v6::NEIGHBOUR_ADVERTISEMENT;
    let message = ndp::Message::new(kind, flags, about, interface.mac, (from, to));
    let ip = ipv6::Header::new(from, to, protocol::ICMPV6, ndp::HOP_LIMIT, ndp::MESSAGE as u16);
    let link = ethernet::Header {
        target: to_mac,
        source: interface.mac,
        ether_type: ethernet::IPV6.into(),
    };
    let mut bytes = [0; ANSWER];
    bytes[..ethernet::HEADER].copy_from_slice(link.as_bytes());
    bytes[ethernet::HEADER..][..ipv6::HEADER].copy_from_slice(ip.as_bytes());
    bytes[ethernet::HEADER + ipv6::HEADER..].copy_from_slice(message.as_bytes());
    packet
        .fill(packet.meta.data_offset, &bytes)
        .map_err(|_| Drop::Malformed)?;
    packet.meta.egress = packet.meta.port;
    Ok(Next::Answer)
}

/// Keeps the size of what is read above and of [`ndp::Message`] together.
const _: () = assert!(ndp::MESSAGE == ndp::MESSAGE_FIXED + 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;
    use crate::publish::Publisher;
    use zerocopy::FromBytes;

    /// What hosts send when they come up has 8 bytes, less than a neighbour message (RFC 4861 section 4.1).
    #[test]
    fn a_router_solicitation_is_ignored_and_not_malformed() {
        let interface = Interface {
            name: "left".to_owned(),
            mac: [2; 6],
            mtu: 1500,
            tracked: false,
            shared: false,
            vrf: Default::default(),
            addresses: vec![],
            ..Interface::default()
        };
        let decide = |message: &[u8]| {
            let mut meta = Meta {
                data_length: message.len() as u16,
                ..Meta::default()
            };
            let mut frame = message.to_vec();
            let mut packet = Packet {
                meta: &mut meta,
                frame: &mut frame,
            };
            let mut ways = Ways::new(Default::default(), Publisher::new(vec![]).reader());
            handle(&interface, &Events::new(|| {}), &mut ways, &mut packet)
        };
        assert_eq!(decide(&[133, 0, 0x7b, 0xb8, 0, 0, 0, 0]), Err(Drop::Ignored));
        assert_eq!(decide(&[icmp::v6::NEIGHBOUR_SOLICITATION; 8]), Err(Drop::Malformed));
        assert_eq!(decide(&[]), Err(Drop::Malformed));
    }

    #[test]
    fn our_own_messages_are_valid() {
        let solicited = ndp::solicited_node([0xfd; 16]);
        let packet = ndp::solicitation([0xfe; 16], [2; 6], [0xfd; 16], solicited);
        let (header, message) = ipv6::Header::read_from_prefix(&packet).unwrap();
        assert_eq!(ndp::checksum(header.source, header.target, message), [0, 0]);
        assert_eq!(
            ndp::link_address(&message[ndp::MESSAGE_FIXED..], ndp::SOURCE_LINK),
            Some([2; 6])
        );
        assert_eq!(ndp::link_address(&[1, 0, 0, 0, 0, 0, 0, 0], ndp::SOURCE_LINK), None);
        assert_eq!(ndp::link_address(&[1, 2, 0, 0, 0, 0, 0, 0], ndp::SOURCE_LINK), None);
    }
}
