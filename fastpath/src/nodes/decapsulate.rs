//! Unwraps packets that came to our end of a tunnel that is a port with neighbours: IP in IP and VXLAN.
//!
//! What is inside comes in by the tunnel's port, to `parse` as anything else.

use crate::batch::Batch;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::Flags;
use crate::node::{Node, Turn};
use crate::nodes::encapsulate::{UDP_HEADER, VXLAN_HEADER, VXLAN_VALID};
use crate::overlay::{Overlay, Overlays, Wrapping};
use crate::packet::Packet;
use crate::publish::Reader;
use crate::trace::Seen;
use crate::wire::{ecn, ethernet, ipv4, ipv6, protocol};

labels! {
    /// Where packets go.
    pub enum Next { Inner = "unwrapped" }
    /// Why packets are dropped.
    pub enum Drop {
        Malformed = "not-a-tunnel-packet": "Too short for the headers of its tunnel, or these are not as they have to be.",
        UnknownTunnel = "unknown-tunnel": "No tunnel of ours ends at the address it was sent to, or has its VXLAN network (VNI).",
        UnknownRemote = "unknown-remote": "It is from none of the tunnel's other ends.",
        NotIp = "inner-not-ip": "What was inside is not the IP packet that the header outside says.",
        Congestion = "ecn-not-capable": "Marked for congestion outside, but those inside would not understand (RFC 6040 section 4.2).",
        NoRoom = "unwrap-no-room": "The frame has no room for an Ethernet header.",
    }
}

/// The node.
pub struct Decapsulate {
    interfaces: Reader<Interfaces>,
}

impl Decapsulate {
    /// For the tunnels of `interfaces`.
    pub fn new(interfaces: Reader<Interfaces>) -> Self {
        Self { interfaces }
    }
}

impl Node for Decapsulate {
    const NAME: &'static str = "decapsulate";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let overlays = &self.interfaces.refresh().overlays;
        batch.each(|mut packet| {
            let overlay = unwrap(overlays, &mut packet)?;
            overlay.traffic.received(turn.worker, packet.meta.length());
            Ok(Next::Inner)
        });
    }

    fn describe(seen: &Seen) -> String {
        format!("port {}, {} bytes", seen.meta.port.0, seen.length)
    }
}

/// The tunnel that the packet, now unwrapped, came by.
fn unwrap<'a>(overlays: &'a Overlays, packet: &mut Packet<'_>) -> Result<&'a Overlay, Drop> {
    let front = u16::from(packet.meta.network_offset) + u16::from(packet.meta.transport_offset);
    let is_v4 = packet.meta.flags.has(Flags::IPV4);
    let mark = ecn::of(packet.network(), is_v4);
    let transport = packet.meta.protocol;
    let (overlay, headers) = match transport {
        protocol::UDP => {
            let (wrapping, length) = vxlan(packet, front).ok_or(Drop::Malformed)?;
            packet.truncate(front + length);
            (find(overlays, packet, wrapping)?, (UDP_HEADER + VXLAN_HEADER) as u16)
        }
        _ => (find(overlays, packet, Wrapping::Ip)?, 0),
    };
    packet.pull(front + headers);
    match overlay.wrapping {
        Wrapping::Ip => unwrap_ip(packet, transport == protocol::IPV4, mark)?,
        Wrapping::Vxlan { .. } => unwrap_frame(packet, mark)?,
    }
    let meta = &mut *packet.meta;
    meta.port = overlay.port;
    meta.flags = Flags::TRACED.when(meta.flags.has(Flags::TRACED));
    Ok(overlay)
}

/// What a VXLAN header says, and the length of the UDP datagram around it.
fn vxlan(packet: &mut Packet<'_>, front: u16) -> Option<(Wrapping, u16)> {
    let udp_port = packet.meta.target.port;
    let datagram = packet.data().get(usize::from(front)..)?;
    let headers = datagram.first_chunk::<{ UDP_HEADER + VXLAN_HEADER }>()?;
    let length = u16::from_be_bytes([headers[4], headers[5]]);
    let whole = headers.len() + ethernet::HEADER..=datagram.len();
    let vni = u32::from_be_bytes([0, headers[12], headers[13], headers[14]]);
    let is_valid = whole.contains(&length.into()) && headers[8] & VXLAN_VALID != 0;
    is_valid.then_some((Wrapping::Vxlan { vni, udp_port }, length))
}

fn find<'a>(overlays: &'a Overlays, packet: &Packet<'_>, wrapping: Wrapping) -> Result<&'a Overlay, Drop> {
    let meta = &packet.meta;
    let (remote, local) = (meta.source.ip(), meta.target.ip());
    let overlay = overlays.between(meta.vrf, wrapping, remote, local);
    let overlay = overlay.ok_or(Drop::UnknownTunnel)?;
    if overlay.knows(remote) {
        Ok(overlay)
    } else {
        Err(Drop::UnknownRemote)
    }
}

fn unwrap_ip(packet: &mut Packet<'_>, is_v4: bool, mark: u8) -> Result<(), Drop> {
    let version = if is_v4 { 4 } else { 6 };
    if packet.data().first().is_none_or(|first| first >> 4 != version) {
        return Err(Drop::NotIp);
    }
    take_mark(packet.data(), is_v4, mark)?;
    let link = packet.push(ethernet::HEADER as u16).map_err(|_| Drop::NoRoom)?;
    link.fill(0);
    let ether_type = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    link[12..].copy_from_slice(&ether_type.to_be_bytes());
    Ok(())
}

fn unwrap_frame(packet: &mut Packet<'_>, mark: u8) -> Result<(), Drop> {
    // `vxlan` has seen an Ethernet header.
    let (link, network) = packet.data().split_at_mut(ethernet::HEADER);
    match u16::from_be_bytes([link[12], link[13]]) {
        ethernet::IPV4 => take_mark(network, true, mark),
        ethernet::IPV6 => take_mark(network, false, mark),
        _ => Ok(()),
    }
}

/// Has the congestion outside known inside.
fn take_mark(network: &mut [u8], is_v4: bool, outer: u8) -> Result<(), Drop> {
    if network.len() < if is_v4 { ipv4::HEADER } else { ipv6::HEADER } {
        return Err(Drop::NotIp);
    }
    let inner = ecn::of(network, is_v4);
    let mark = ecn::decapsulated(inner, outer).ok_or(Drop::Congestion)?;
    if mark != inner {
        ecn::set(network, is_v4, mark);
    }
    Ok(())
}
