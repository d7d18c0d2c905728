//! What routers say of a tunnel's way outside: "fragmentation needed" (RFC 1191 section 3) and "packet too big" (RFC 8201
//! section 3) about packets that we wrapped.
//!
//! Nobody can prove such a message. It is heard if it quotes our end and another one that we know, and what control makes of
//! it is bounded: see there.

use crate::batch::Batch;
use crate::events::{Event, Events};
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::{Flags, VrfId};
use crate::node::{Node, Turn};
use crate::nodes::encapsulate::UDP_HEADER;
use crate::overlay::{Overlay, Overlays, Wrapping};
use crate::packet::Packet;
use crate::publish::Reader;
use crate::wire::{checksum, icmp, ipv4, ipv6, ndp, protocol};
use std::net::IpAddr;
use zerocopy::FromBytes;

labels! {
    /// Where packets go.
    pub enum Next {
        Learnt = "learnt",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Unrelated = "unrelated-error": "An ICMP error about a packet that belongs to no connection, and to no tunnel with neighbours.",
    }
}

/// The node.
pub struct PathMtu {
    interfaces: Reader<Interfaces>,
    events: Events,
}

impl PathMtu {
    /// For the tunnels of `interfaces`; what is said of their ways goes to `events`.
    pub fn new(interfaces: Reader<Interfaces>, events: Events) -> Self {
        Self { interfaces, events }
    }
}

impl Node for PathMtu {
    const NAME: &'static str = "path-mtu";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let overlays = &self.interfaces.refresh().overlays;
        batch.each(|mut packet| {
            let event = hear(overlays, &mut packet).ok_or(Drop::Unrelated)?;
            self.events.tell(event);
            Ok(Next::Learnt)
        });
    }
}

/// The message has to be whole, and to come to the end that it is about.
fn hear(overlays: &Overlays, packet: &mut Packet<'_>) -> Option<Event> {
    let meta = *packet.meta;
    let message = packet.network().get(usize::from(meta.transport_offset)..)?;
    let is_whole = match meta.flags.has(Flags::IPV4) {
        true => checksum::is_valid(message),
        false => ndp::checksum(meta.source.address, meta.target.address, message) == [0, 0],
    };
    read(overlays, meta.vrf, message).filter(|_| is_whole)
}

/// The outer header that is quoted, as far as it tells whose it is.
struct Outer {
    local: IpAddr,
    remote: IpAddr,
    transport: u8,
    /// The UDP port that it went to.
    udp_port: Option<u16>,
}

/// What an ICMP message of a table of routes says, from its header on. Nothing where it is another one, or is not about a
/// tunnel of ours.
fn read(overlays: &Overlays, vrf: VrfId, message: &[u8]) -> Option<Event> {
    let (head, quoted) = message.split_first_chunk::<{ icmp::HEADER }>()?;
    let (is_v4, mtu) = match (quoted.first()? >> 4, head) {
        (4, [icmp::v4::UNREACHABLE, 4, _, _, _, _, high, low]) => (true, u32::from(u16::from_be_bytes([*high, *low]))),
        (6, [icmp::v6::TOO_BIG, 0, _, _, mtu @ ..]) => (false, u32::from_be_bytes(*mtu)),
        _ => return None,
    };
    let outer = if is_v4 { outer_v4(quoted)? } else { outer_v6(quoted)? };
    let here = overlays
        .0
        .iter()
        .find(|overlay| overlay.vrf == vrf && has_sent(overlay, &outer))?;
    Some(Event::PathMtu {
        port: here.port,
        remote: outer.remote,
        mtu: mtu.try_into().unwrap_or(u16::MAX),
    })
}

fn has_sent(overlay: &Overlay, outer: &Outer) -> bool {
    let is_wrapped = match overlay.wrapping {
        Wrapping::Ip => matches!(outer.transport, protocol::IPV4 | protocol::IPV6),
        Wrapping::Vxlan { udp_port, .. } => outer.transport == protocol::UDP && outer.udp_port == Some(udp_port),
    };
    let is_known = overlay.remote == Some(outer.remote) || overlay.known.contains(&outer.remote);
    is_wrapped && is_known && overlay.local == outer.local
}

fn outer_v4(quoted: &[u8]) -> Option<Outer> {
    let (header, _) = ipv4::Header::ref_from_prefix(quoted).ok()?;
    Some(Outer {
        local: header.source.into(),
        remote: header.target.into(),
        transport: header.protocol,
        udp_port: udp_port(quoted.get(header.header_length()..)?),
    })
}

fn outer_v6(quoted: &[u8]) -> Option<Outer> {
    let (header, rest) = ipv6::Header::ref_from_prefix(quoted).ok()?;
    Some(Outer {
        local: header.source.into(),
        remote: header.target.into(),
        transport: header.next_header,
        udp_port: udp_port(rest),
    })
}

/// At least this much of a packet is quoted (RFC 792).
fn udp_port(transport: &[u8]) -> Option<u16> {
    let head = transport.first_chunk::<UDP_HEADER>()?;
    Some(u16::from_be_bytes([head[2], head[3]]))
}
