//! Refuses a connection at once: TCP is reset (RFC 9293 section 3.5.2), other senders are told by ICMP.
//!
//! The reset speaks for whom the packet was sent to, as its bytes say: what the meta says may be translated already.

use crate::batch::Batch;
use crate::labels;
use crate::meta::{Endpoint, Flags};
use crate::node::{Node, Turn};
use crate::nodes::local::HOP_LIMIT;
use crate::packet::Packet;
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, ipv6, protocol};
use zerocopy::{FromBytes, IntoBytes};

labels! {
    /// Where packets go.
    pub enum Next {
        Reset = "reset",
        Tell = "tell",
    }
    /// Why packets are not answered.
    pub enum Drop {
        Unasked = "reset-not-allowed": "A reset, or a fragment, or sent to many: no reset is sent about it.",
        NoRoom = "reset-no-room": "The frame has no room for the reset.",
    }
}

/// Bytes of a TCP header without options.
const HEADER: usize = 20;
const RST: u8 = 4;
const ACK: u8 = 16;
const SYN: u8 = 2;
const FIN: u8 = 1;

/// The node.
#[derive(Default)]
pub struct Reject;

impl Node for Reject {
    const NAME: &'static str = "reject";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|mut packet| match packet.meta.protocol {
            protocol::TCP => reset(&mut packet),
            _ => Ok(Next::Tell),
        });
    }
}

/// What a reset says of the segment that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reset {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

impl Reset {
    /// About a segment with this header and so many bytes of content; `None` about a reset.
    fn about(header: &[u8; HEADER], content: u32) -> Option<Self> {
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let flags = header[13];
        if flags & RST != 0 {
            return None;
        }
        // RFC 9293 section 3.10.7.1.
        if flags & ACK != 0 {
            return Some(Self {
                sequence: word(8),
                acknowledgment: 0,
                flags: RST,
            });
        }
        let length = content + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Some(Self {
            sequence: 0,
            acknowledgment: word(4).wrapping_add(length),
            flags: RST | ACK,
        })
    }

    /// Its TCP header; `ports` are source and target.
    fn header(&self, ports: [u16; 2], source: &[u8], target: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&ports[0].to_be_bytes());
        header[2..4].copy_from_slice(&ports[1].to_be_bytes());
        header[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        (header[12], header[13]) = ((HEADER as u8 / 4) << 4, self.flags);
        // The pseudo-header's length and protocol are one word each, whatever the family.
        let rest = [0, protocol::TCP, 0, HEADER as u8];
        let sum = Sum::default().with(source).with(target).with(&rest).with(&header);
        header[16..18].copy_from_slice(&sum.finish());
        header
    }
}

fn reset(packet: &mut Packet<'_>) -> Result<Next, Drop> {
    let unanswered = Flags::TO_MANY.and(Flags::OWN).and(Flags::LATER_FRAGMENT);
    if packet.meta.flags.has(unanswered) {
        return Err(Drop::Unasked);
    }
    let (is_v4, link) = (packet.meta.flags.has(Flags::IPV4), packet.meta.network_offset);
    let transport = usize::from(packet.meta.transport_offset);
    let segment = packet.network().get(transport..).unwrap_or_default();
    let header = *segment.first_chunk::<HEADER>().ok_or(Drop::Unasked)?;
    let offset = usize::from(header[12] >> 4) * 4;
    let content = segment.len().saturating_sub(offset.max(HEADER)) as u32;
    let reset = Reset::about(&header, content).ok_or(Drop::Unasked)?;
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let ports = [port(2), port(0)];
    let length = if is_v4 { ipv4::HEADER } else { ipv6::HEADER } + HEADER;
    packet.truncate(u16::from(link) + length as u16);
    let network = packet.network();
    if network.len() < length {
        return Err(Drop::NoRoom);
    }
    let (source, target) = if is_v4 {
        write_v4(network, &reset, ports)
    } else {
        write_v6(network, &reset, ports)
    }
    .ok_or(Drop::NoRoom)?;
    packet.originate(packet.meta.vrf, protocol::TCP, source, target, is_v4);
    Ok(Next::Reset)
}

/// Turns the packet round; who speaks to whom then.
fn write_v4(network: &mut [u8], reset: &Reset, ports: [u16; 2]) -> Option<(Endpoint, Endpoint)> {
    let (old, rest) = ipv4::Header::mut_from_prefix(network).ok()?;
    let (source, target) = (old.target, old.source);
    *old = ipv4::Header::new(source, target, protocol::TCP, HOP_LIMIT, HEADER as u16);
    let segment = reset.header(ports, &source, &target);
    rest.get_mut(..HEADER)?.copy_from_slice(segment.as_bytes());
    Some((Endpoint::v4(source, ports[0]), Endpoint::v4(target, ports[1])))
}

/// The same for IPv6.
fn write_v6(network: &mut [u8], reset: &Reset, ports: [u16; 2]) -> Option<(Endpoint, Endpoint)> {
    let (old, rest) = ipv6::Header::mut_from_prefix(network).ok()?;
    let (source, target) = (old.target, old.source);
    *old = ipv6::Header::new(source, target, protocol::TCP, HOP_LIMIT, HEADER as u16);
    let segment = reset.header(ports, &source, &target);
    rest.get_mut(..HEADER)?.copy_from_slice(segment.as_bytes());
    let end = |address, port| Endpoint { address, port };
    Some((end(source, ports[0]), end(target, ports[1])))
}
