//! Packets to addresses of ours: answers echo requests, leads to tunnels; for the rest nobody is at home.

use crate::batch::Batch;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::{Flags, Meta};
use crate::node::{Node, Turn};
use crate::nodes::icmp_error::Complaint;
use crate::packet::Packet;
use crate::publish::Reader;
use crate::wire::checksum::{self, replace_word};
use crate::wire::{ethernet, icmp, ipv4, ipv6, ndp, protocol};
use zerocopy::FromBytes;

labels! {
    /// Where packets go.
    pub enum Next {
        Answer = "answer",
        AnswerOnLink = "answer-on-link",
        Tunnel = "tunnel",
        Wrapped = "wrapped",
        PathMtu = "path-mtu",
        Closed = "closed": "Sent to a port or protocol of ours that nobody listens on; the sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Fragment = "fragment-for-us": "A fragment addressed to us: we do not put packets together.",
        IcmpChecksum = "icmp-checksum": "The ICMP checksum is wrong.",
        IcmpIgnored = "icmp-ignored": "An ICMP message to us that needs no answer.",
        OwnToUs = "own-to-us": "An answer of ours to an address of ours.",
    }
}

/// Hop limit of what we send (RFC 1122 section 3.2.1.7).
pub const HOP_LIMIT: u8 = 64;

/// The node.
pub struct Local {
    interfaces: Reader<Interfaces>,
}

impl Local {
    /// Tunnels listen as `interfaces` say.
    pub fn new(interfaces: Reader<Interfaces>) -> Self {
        Self { interfaces }
    }
}

impl Node for Local {
    const NAME: &'static str = "local";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        batch.each(|mut packet| receive(interfaces, &mut packet));
    }
}

fn receive(interfaces: &Interfaces, packet: &mut Packet<'_>) -> Result<Next, Drop> {
    if packet.meta.flags.has(Flags::OWN) {
        return Err(Drop::OwnToUs);
    }
    if packet.meta.flags.has(Flags::LATER_FRAGMENT) || is_first_fragment(packet) {
        return Err(Drop::Fragment);
    }
    let is_v4 = packet.meta.flags.has(Flags::IPV4);
    match packet.meta.protocol {
        protocol::ICMP if is_v4 => receive_icmp(packet, icmp::v4::ECHO_REQUEST, icmp::v4::ECHO_REPLY),
        protocol::ICMPV6 if !is_v4 => receive_icmp(packet, icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY),
        protocol::UDP if let Some(tunnel) = interfaces.listener(packet.meta.vrf, packet.meta.target.port) => {
            packet.meta.egress = tunnel;
            Ok(Next::Tunnel)
        }
        transport
            if interfaces
                .overlays
                .hear(packet.meta.vrf, transport, packet.meta.target.port) =>
        {
            Ok(Next::Wrapped)
        }
        protocol::TCP | protocol::UDP => {
            packet.meta.complaint = Complaint::PortClosed as u8;
            Ok(Next::Closed)
        }
        _ => {
            packet.meta.complaint = Complaint::UnknownProtocol as u8;
            Ok(Next::Closed)
        }
    }
}

fn is_first_fragment(packet: &mut Packet<'_>) -> bool {
    let is_v4 = packet.meta.flags.has(Flags::IPV4);
    let network = packet.network();
    if is_v4 {
        return ipv4::Header::ref_from_prefix(network)
            .is_ok_and(|(header, _)| header.fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) != 0);
    }
    ipv6::Header::ref_from_prefix(network)
        .is_ok_and(|(header, _)| ipv6::walk(network, header.next_header).is_ok_and(|found| found.fragment))
}

fn receive_icmp(packet: &mut Packet<'_>, request: u8, reply: u8) -> Result<Next, Drop> {
    let meta = *packet.meta;
    let offset = usize::from(meta.transport_offset);
    let network = packet.network();
    let message = network.get_mut(offset..).ok_or(Drop::IcmpIgnored)?;
    let valid = match meta.protocol {
        protocol::ICMPV6 => ndp::checksum(meta.source.address, meta.target.address, message) == [0, 0],
        _ => checksum::is_valid(message),
    };
    if !valid {
        return Err(Drop::IcmpChecksum);
    }
    let Ok((header, _)) = icmp::Header::mut_from_prefix(message) else {
        return Err(Drop::IcmpIgnored);
    };
    if icmp::is_path_mtu(header.kind, header.code, meta.flags.has(Flags::IPV4)) {
        return Ok(Next::PathMtu);
    }
    if header.kind != request {
        return Err(Drop::IcmpIgnored);
    }
    let words = [request, reply].map(|kind| u16::from_be_bytes([kind, header.code]));
    // Swapping the addresses of the pseudo-header does not change its sum.
    header.checksum = replace_word(header.checksum, words[0], words[1]);
    header.kind = reply;
    turn_round(network, &meta);
    packet.meta.flags.set(Flags::OWN);
    std::mem::swap(&mut packet.meta.source.address, &mut packet.meta.target.address);
    if meta.flags.has(Flags::IPV4) || meta.source.address[..2] != [0xfe, 0x80] {
        return Ok(Next::Answer);
    }
    // A link-local address is reached where it was heard.
    let Some(link) = packet.data().first_chunk_mut::<{ ethernet::HEADER }>() else {
        return Err(Drop::IcmpIgnored);
    };
    let (target, source) = link.split_at_mut(6);
    target.swap_with_slice(&mut source[..6]);
    packet.meta.egress = meta.port;
    Ok(Next::AnswerOnLink)
}

/// Swaps the addresses of an IP header and sets a fresh hop limit.
fn turn_round(network: &mut [u8], meta: &Meta) {
    if meta.flags.has(Flags::IPV4) {
        let length = usize::from(meta.transport_offset);
        if let Ok((header, _)) = ipv4::Header::mut_from_prefix(network) {
            (header.source, header.target) = (header.target, header.source);
            header.hop_limit = HOP_LIMIT;
            header.checksum = [0; 2];
        }
        let sum = checksum::checksum(&network[..length]);
        network[10..12].copy_from_slice(&sum);
    } else if let Ok((header, _)) = ipv6::Header::mut_from_prefix(network) {
        std::mem::swap(&mut header.target, &mut header.source);
        header.hop_limit = HOP_LIMIT;
    }
}
