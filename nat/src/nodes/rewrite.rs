//! Replays the verdict of a packet's connection in one pass: addresses, ports, checksums, hop limit, link addresses.

use crate::leg::{LegId, TranslationV4};
use crate::table::Table;
use crate::tracking::{Tracking, is_icmp_error, is_unchanged};
use crate::translate::plain::Plain;
use crate::translate::{self, Layout, Short};
use fastpath::batch::Batch;
use fastpath::forwarding::{Adjacency as Neighbour, Forwarding, LOCAL, LinkState, TUNNEL};
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::nodes::adjacency::lower_hop_limit;
use fastpath::nodes::icmp_error::Complaint;
use fastpath::packet::Packet;
use fastpath::trace::Seen;
use fastpath::wire::{ethernet, ipv4, protocol};
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Transmit = "transmit",
        Forward = "forward",
        Local = "local",
        Tunnel = "tunnel",
        Expired = "hop-limit-expired": "The hop limit ran out; the sender is told.",
        TooBig = "too-big": "Larger than the MTU of the way and not to be fragmented; the sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Withdrawn = "way-withdrawn": "The way of its connection was withdrawn while it was on it.",
        Short = "too-short": "Shorter than its headers say.",
        BadError = "icmp-checksum": "An ICMP error whose checksum is wrong.",
    }
}

impl From<Short> for Drop {
    fn from(_: Short) -> Self {
        Drop::Short
    }
}

/// The node.
pub struct Rewrite {
    tracking: Tracking,
    forwarding: Arc<Forwarding>,
}

impl Rewrite {
    /// Finds neighbours in `forwarding`.
    pub fn new(tracking: Tracking, forwarding: Arc<Forwarding>) -> Self {
        Self { tracking, forwarding }
    }
}

impl Node for Rewrite {
    const NAME: &'static str = "rewrite";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let (table, forwarding) = (&*self.tracking.table, &*self.forwarding);
        batch.each(|packet| rewrite(table, forwarding, packet));
    }

    fn describe(seen: &Seen) -> String {
        let meta = &seen.meta;
        format!(
            "{} > {}, ports {} > {}",
            meta.source.ip(),
            meta.target.ip(),
            meta.source.port,
            meta.target.port
        )
    }
}

/// The packet is taken by value, and handed on so, that the compiler keeps it in registers.
#[inline(always)]
fn rewrite(table: &Table, forwarding: &Forwarding, mut packet: Packet<'_>) -> Result<Next, Drop> {
    let Some(neighbour) = forwarding.towards(packet.meta.adjacency) else {
        return elsewhere(table, packet);
    };
    if neighbour.state() != LinkState::Complete {
        return wait(table, packet, neighbour);
    }
    let (meta, data) = packet.split();
    let fits = meta.length() <= neighbour.mtu() + ethernet::HEADER as u16;
    match Plain::of(meta, data) {
        Some(plain) if fits && plain.hop_limit() > 1 => {
            if let Some(link) = plain.head.first_chunk_mut() {
                neighbour.write(link);
            }
            let new = table.leg(meta.flow).translation_v4();
            plain.rewrite(new);
            meta.egress = neighbour.port;
            meta.flags.clear(Flags::TRACKED.and(Flags::REPLY));
            if meta.flags.has(Flags::TRACED) {
                tell_ends(meta, ends_v4(new));
            }
            Ok(Next::Transmit)
        }
        _ => transmit(table, packet, neighbour),
    }
}

/// Towards a neighbour that is not yet known, or the other end of a tunnel.
#[inline(never)]
fn wait(table: &Table, mut packet: Packet<'_>, neighbour: Neighbour) -> Result<Next, Drop> {
    if neighbour.state() == LinkState::Wrapped {
        return forward(table, &mut packet, &neighbour);
    }
    translate(table, &mut packet)?;
    Ok(Next::Forward)
}

/// Packets of any shape, and what is the matter with the others.
#[inline(never)]
fn transmit(table: &Table, mut packet: Packet<'_>, neighbour: Neighbour) -> Result<Next, Drop> {
    let (meta, data) = packet.split();
    let is_v4 = meta.flags.has(Flags::IPV4);
    let head = data.first_chunk_mut::<34>().ok_or(Drop::Short)?;
    if meta.length() > neighbour.mtu() + ethernet::HEADER as u16 {
        let may_cut = is_v4 && head[20] & (ipv4::DONT_FRAGMENT >> 8) as u8 == 0;
        return too_big(table, &mut packet, may_cut);
    }
    if !lower_hop_limit(head, is_v4) {
        return expired(meta);
    }
    if let Some(link) = head.first_chunk_mut() {
        neighbour.write(link);
    }
    meta.egress = neighbour.port;
    translate(table, &mut packet)?;
    Ok(Next::Transmit)
}

/// Into a tunnel with neighbours, if the packet fits: its sender is told otherwise, and knows it as it is.
fn forward(table: &Table, packet: &mut Packet<'_>, neighbour: &Neighbour) -> Result<Next, Drop> {
    let (meta, data) = packet.split();
    let is_v4 = meta.flags.has(Flags::IPV4);
    let head = data.first_chunk::<34>().ok_or(Drop::Short)?;
    let may_cut = is_v4 && head[20] & (ipv4::DONT_FRAGMENT >> 8) as u8 == 0;
    if meta.length() > neighbour.mtu() + ethernet::HEADER as u16 && !may_cut {
        return too_big(table, packet, false);
    }
    if head[if is_v4 { 22 } else { 21 }] <= 1 {
        return expired(meta);
    }
    if is_unchanged(table.leg(meta.flow).verdict().adjacency) {
        // The node of its backend translates it.
        meta.flags.clear(Flags::TRACKED.and(Flags::REPLY));
        return Ok(Next::Forward);
    }
    translate(table, packet)?;
    Ok(Next::Forward)
}

/// To us, or into a tunnel.
#[cold]
fn elsewhere(table: &Table, mut packet: Packet<'_>) -> Result<Next, Drop> {
    let next = match packet.meta.adjacency {
        LOCAL => Next::Local,
        TUNNEL => {
            let is_v4 = packet.meta.flags.has(Flags::IPV4);
            let hop_limit = packet.network().get(if is_v4 { 8 } else { 7 }).copied();
            if hop_limit.is_none_or(|hops| hops <= 1) {
                return expired(packet.meta);
            }
            Next::Tunnel
        }
        _ => return Err(Drop::Withdrawn),
    };
    translate(table, &mut packet)?;
    Ok(next)
}

/// Told about the packet as its sender knows it.
#[cold]
fn expired(meta: &mut Meta) -> Result<Next, Drop> {
    meta.complaint = Complaint::HopLimit as u8;
    Ok(Next::Expired)
}

#[cold]
fn too_big(table: &Table, packet: &mut Packet<'_>, may_cut: bool) -> Result<Next, Drop> {
    if may_cut {
        translate(table, packet)?;
        return Ok(Next::Forward);
    }
    packet.meta.complaint = Complaint::TooBig as u8;
    Ok(Next::TooBig)
}

/// Gives a packet the ends that its connection has on the other side, and is done with it.
#[inline(always)]
fn translate(table: &Table, packet: &mut Packet<'_>) -> Result<(), Drop> {
    let (flow, layout) = (packet.meta.flow, Layout::of(packet.meta));
    packet.meta.flags.clear(Flags::TRACKED.and(Flags::REPLY));
    if is_icmp_error(packet.meta) {
        return translate_error(table, packet, flow);
    }
    let (source, target) = if layout.is_v4 {
        ends_v4(table.leg(flow).translation_v4())
    } else {
        ends_v6(table, flow)
    };
    tell_ends(packet.meta, (source, target));
    let network = packet.network();
    if layout.protocol == protocol::SCTP {
        return translate_sctp(network, layout, &source, &target);
    }
    Ok(translate::packet(network, layout, &source, &target)?)
}

/// In its meta, the ends that a packet has got.
#[inline(always)]
fn tell_ends(meta: &mut Meta, (source, target): (Endpoint, Endpoint)) {
    meta.source = source;
    meta.target.address = target.address;
    if !matches!(meta.protocol, protocol::ICMP | protocol::ICMPV6) {
        meta.target.port = target.port;
    }
}

#[inline(always)]
fn ends_v4(new: TranslationV4) -> (Endpoint, Endpoint) {
    let end = |address: u32, port: u32| Endpoint::v4(address.to_ne_bytes(), u16::from_be(port as u16));
    (end(new.source, new.ports), end(new.target, new.ports >> 16))
}

#[inline(always)]
fn ends_v6(table: &Table, flow: LegId) -> (Endpoint, Endpoint) {
    let other = table.leg(flow ^ 1).key();
    (other.target(), other.source())
}

#[cold]
fn translate_sctp(network: &mut [u8], layout: Layout, source: &Endpoint, target: &Endpoint) -> Result<(), Drop> {
    let offset = layout.transport;
    let both = (u32::from(source.port) << 16 | u32::from(target.port)).to_be_bytes();
    if layout.is_later || network.get(offset..offset + 4) == Some(&both) {
        return Ok(translate::packet(network, layout, source, target)?);
    }
    let mut result = Ok(());
    translate::packet(network, layout.plain(), source, target)?;
    let transport = network.get_mut(offset..).ok_or(Drop::Short)?;
    translate::renew_sctp(transport, |transport| match transport.first_chunk_mut() {
        Some(field) => *field = both,
        None => result = Err(Drop::Short),
    });
    result
}

/// An error about a packet of the connection goes to who sent that, and quotes it as it was sent. It speaks for whom it
/// came from, unless that is the other end itself, which its sender knows by another address.
#[cold]
fn translate_error(table: &Table, packet: &mut Packet<'_>, flow: LegId) -> Result<(), Drop> {
    let (leg, other) = (table.leg(flow).key(), table.leg(flow ^ 1).key());
    let meta = *packet.meta;
    let written = source_of(packet.network(), &meta);
    let mut source = Endpoint {
        address: written,
        port: 0,
    };
    if source.address == leg.source().address {
        source.address = other.target().address;
    }
    let target = other.source();
    // As it came: what the meta says of its target may be translated already.
    let mut came = meta;
    (came.source.address, came.target.address) = (written, leg.target().address);
    let quoted = (&other.source(), &other.target());
    let is_right = translate::error(packet.network(), &came, (&source, &target), quoted)?;
    if !is_right {
        return Err(Drop::BadError);
    }
    packet.meta.source.address = source.address;
    packet.meta.target.address = target.address;
    Ok(())
}

fn source_of(network: &[u8], meta: &Meta) -> [u8; 16] {
    let v4 = || Some(Endpoint::v4(*network.get(12..)?.first_chunk()?, 0).address);
    let v6 = || Some(*network.get(8..)?.first_chunk()?);
    if meta.flags.has(Flags::IPV4) { v4() } else { v6() }.unwrap_or(meta.source.address)
}
