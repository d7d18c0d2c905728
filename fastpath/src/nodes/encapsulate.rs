//! Wraps packets for the way to the other end of a tunnel that is a port with neighbours: IP in IP (RFC 2003, RFC 4213) and
//! VXLAN (RFC 7348).
//!
//! DSCP and congestion mark are copied to the outside (RFC 2983 section 3, RFC 6040 section 4.1), and so is whether the
//! packet may be fragmented (RFC 2003 section 3.1): IPv6 may not.

use crate::batch::Batch;
use crate::forwarding::Forwarding;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::{Endpoint, Flags};
use crate::node::{Node, Turn};
use crate::nodes::local::HOP_LIMIT;
use crate::overlay::{Overlay, Wrapping};
use crate::packet::{NoRoom, Packet};
use crate::publish::Reader;
use crate::trace::Seen;
use crate::wire::checksum::{self, Sum};
use crate::wire::{ethernet, ipv4, ipv6, protocol};
use std::net::IpAddr;
use std::sync::Arc;
use zerocopy::IntoBytes;

labels! {
    /// Where packets go.
    pub enum Next { Send = "send" }
    /// Why packets are dropped.
    pub enum Drop {
        NoRemote = "no-remote": "It is not known where the tunnel's other end for its next hop is.",
        NoRoom = "wrap-no-room": "The frame has no room for the tunnel's headers.",
    }
}

/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER: usize = 8;
/// Bytes of a VXLAN header.
pub const VXLAN_HEADER: usize = 8;
/// In the first byte of a VXLAN header: it names a network (RFC 7348 section 5).
pub const VXLAN_VALID: u8 = 0x08;
/// The first of the dynamic ports, of which sources are taken: packets of one flow have one (RFC 7348 section 5).
const SOURCE_PORTS: u16 = 0xc000;

/// The node.
pub struct Encapsulate {
    interfaces: Reader<Interfaces>,
    forwarding: Arc<Forwarding>,
    identification: u16,
}

impl Encapsulate {
    /// For the tunnels of `interfaces`, whose neighbours are in `forwarding`.
    pub fn new(interfaces: Reader<Interfaces>, forwarding: Arc<Forwarding>) -> Self {
        Self {
            interfaces,
            forwarding,
            identification: 0,
        }
    }
}

impl Node for Encapsulate {
    const NAME: &'static str = "encapsulate";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        let mut last: Option<(u32, Way<'_>)> = None;
        batch.each(|mut packet| {
            let index = packet.meta.adjacency;
            if last.is_none_or(|last| last.0 != index) {
                let (port, neighbour) = self.forwarding.next_hop(packet.meta);
                let overlay = interfaces.overlays.of_port(port);
                last = overlay
                    .and_then(|overlay| Way::to(overlay, neighbour))
                    .map(|way| (index, way));
            }
            let Some((_, way)) = last else {
                return Err(Drop::NoRemote);
            };
            self.identification = self.identification.wrapping_add(1);
            way.overlay.traffic.sent(turn.worker, packet.meta.length());
            way.wrap(&mut packet, self.identification).map_err(|_| Drop::NoRoom)?;
            Ok(Next::Send)
        });
    }

    fn describe(seen: &Seen) -> String {
        let meta = &seen.meta;
        format!("from {} to {}", meta.source.ip(), meta.target.ip())
    }
}

/// From our end of a tunnel to another.
#[derive(Clone, Copy)]
struct Way<'a> {
    overlay: &'a Overlay,
    remote: IpAddr,
}

impl<'a> Way<'a> {
    fn to(overlay: &'a Overlay, neighbour: IpAddr) -> Option<Self> {
        let remote = overlay.remote_of(neighbour)?;
        Some(Self { overlay, remote })
    }

    /// Makes the packet one of ours that is to be routed to the other end.
    fn wrap(&self, packet: &mut Packet<'_>, identification: u16) -> Result<(), NoRoom> {
        let (vrf, is_v4) = (self.overlay.vrf, packet.meta.flags.has(Flags::IPV4));
        let (class, whole) = inside(packet.network(), is_v4);
        let (transport, ports) = match self.overlay.wrapping {
            Wrapping::Ip => {
                packet.pull(packet.meta.network_offset.into());
                (if is_v4 { protocol::IPV4 } else { protocol::IPV6 }, (0, 0))
            }
            Wrapping::Vxlan { vni, udp_port } => {
                let source = SOURCE_PORTS | (packet.meta.hash ^ packet.meta.hash >> 16) as u16;
                push_vxlan(packet, vni, (source, udp_port))?;
                (protocol::UDP, (source, udp_port))
            }
        };
        match (self.overlay.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let ends = (local.octets(), remote.octets());
                push_v4(packet, ends, (transport, class), (identification, whole))?;
                let (source, target) = (Endpoint::v4(ends.0, ports.0), Endpoint::v4(ends.1, ports.1));
                packet.originate(vrf, transport, source, target, true);
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let ends = (local.octets(), remote.octets());
                push_v6(packet, ends, (transport, class))?;
                let end = |address, port| Endpoint { address, port };
                packet.originate(vrf, transport, end(ends.0, ports.0), end(ends.1, ports.1), false);
            }
            // Both ends of a tunnel are of one family: control sees to it.
            _ => return Err(NoRoom),
        }
        Ok(())
    }
}

/// The traffic class of an IP packet, and whether it has to stay whole.
fn inside(network: &[u8], is_v4: bool) -> (u8, bool) {
    match network {
        [first, second, ..] if !is_v4 => (first << 4 | second >> 4, true),
        [_, class, _, _, _, _, flags, ..] => (*class, flags & (ipv4::DONT_FRAGMENT >> 8) as u8 != 0),
        _ => (0, true),
    }
}

fn push_vxlan(packet: &mut Packet<'_>, vni: u32, ports: (u16, u16)) -> Result<(), NoRoom> {
    let headers = packet.push((UDP_HEADER + VXLAN_HEADER) as u16)?;
    headers[..2].copy_from_slice(&ports.0.to_be_bytes());
    headers[2..4].copy_from_slice(&ports.1.to_be_bytes());
    headers[8..12].copy_from_slice(&[VXLAN_VALID, 0, 0, 0]);
    headers[12..].copy_from_slice(&(vni << 8).to_be_bytes());
    let length = packet.meta.length();
    // Over IPv4 there need be no checksum (RFC 7348 section 5).
    let rest = [length.to_be_bytes(), [0, 0]];
    packet.data()[4..8].copy_from_slice(rest.as_flattened());
    Ok(())
}

type Ends<const N: usize> = ([u8; N], [u8; N]);

fn push_v4(
    packet: &mut Packet<'_>,
    (source, target): Ends<4>,
    (protocol, traffic_class): (u8, u8),
    (identification, whole): (u16, bool),
) -> Result<(), NoRoom> {
    let total = packet.meta.length() + ipv4::HEADER as u16;
    let front = packet.push((ethernet::HEADER + ipv4::HEADER) as u16)?;
    let mut header = ipv4::Header {
        version_length: 0x45,
        traffic_class,
        total_length: total.into(),
        identification: identification.into(),
        fragment: if whole { ipv4::DONT_FRAGMENT } else { 0 }.into(),
        hop_limit: HOP_LIMIT,
        protocol,
        checksum: [0; 2],
        source,
        target,
    };
    header.checksum = checksum::checksum(header.as_bytes());
    let (link, network) = front.split_at_mut(ethernet::HEADER);
    link[12..].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    network.copy_from_slice(header.as_bytes());
    Ok(())
}

fn push_v6(packet: &mut Packet<'_>, (source, target): Ends<16>, (protocol, class): (u8, u8)) -> Result<(), NoRoom> {
    let length = packet.meta.length();
    if protocol == protocol::UDP {
        // Here it must not be left out (RFC 8200 section 8.1).
        let [high, low] = length.to_be_bytes();
        let sum = Sum::default()
            .with(&source)
            .with(&target)
            .with(&[high, low, 0, protocol]);
        let sum = match sum.with(packet.data()).finish() {
            [0, 0] => [0xff; 2],
            sum => sum,
        };
        packet.data()[6..8].copy_from_slice(&sum);
    }
    let front = packet.push((ethernet::HEADER + ipv6::HEADER) as u16)?;
    let mut header = ipv6::Header::new(source, target, protocol, HOP_LIMIT, length);
    header.version_class_label = (6 << 28 | u32::from(class) << 20).into();
    let (link, network) = front.split_at_mut(ethernet::HEADER);
    link[12..].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    network.copy_from_slice(header.as_bytes());
    Ok(())
}
