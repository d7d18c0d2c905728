//! Tells senders why their packets did not arrive (RFC 792, RFC 1812 section 4.3, RFC 4443), within limits.
//!
//! The packet itself becomes the message: its front grows by the new headers, its tail is cut to what is quoted.

use crate::batch::Batch;
use crate::forwarding::Forwarding;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::{Endpoint, Flags};
use crate::node::{Node, Turn};
use crate::nodes::local::HOP_LIMIT;
use crate::packet::Packet;
use crate::publish::Reader;
use crate::trace::Seen;
use crate::wire::{checksum, ethernet, icmp, ipv4, ipv6, ndp, protocol};
use std::net::IpAddr;
use std::sync::Arc;
use zerocopy::IntoBytes;

labels! {
    /// Where packets go.
    pub enum Next { Send = "send" }
    /// Why no message is sent.
    pub enum Drop {
        Unasked = "icmp-not-allowed": "No message is sent about errors, later fragments and packets to many (RFC 1812 section 4.3.2.7).",
        RateLimited = "icmp-rate-limited": "More messages than the limit of its port allows (RFC 1812 section 4.3.2.8).",
        NoAddress = "icmp-no-address": "No port has an address of the family to send the message from.",
        NoRoom = "icmp-no-room": "The frame has no room for the message's headers.",
    }
}

/// What went wrong, in [`crate::meta::Meta::complaint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Complaint {
    /// The hop limit ran out.
    HopLimit,
    /// There is no route.
    NoRoute,
    /// The next hop does not answer.
    HostUnreachable,
    /// Larger than the MTU of the adjacency.
    TooBig,
    /// Nobody listens on the port.
    PortClosed,
    /// Nobody speaks the protocol.
    UnknownProtocol,
    /// It is not allowed.
    Prohibited,
}

impl Complaint {
    const ALL: [Self; 7] = [
        Self::HopLimit,
        Self::NoRoute,
        Self::HostUnreachable,
        Self::TooBig,
        Self::PortClosed,
        Self::UnknownProtocol,
        Self::Prohibited,
    ];

    fn from_meta(complaint: u8) -> Self {
        Self::ALL.get(usize::from(complaint)).copied().unwrap_or(Self::NoRoute)
    }

    /// Type and code (RFC 792, RFC 1191, RFC 1812 section 5.2.7.1).
    fn v4(self) -> (u8, u8) {
        match self {
            Self::HopLimit => (icmp::v4::TIME_EXCEEDED, 0),
            Self::NoRoute => (icmp::v4::UNREACHABLE, 0),
            Self::HostUnreachable => (icmp::v4::UNREACHABLE, 1),
            Self::UnknownProtocol => (icmp::v4::UNREACHABLE, 2),
            Self::PortClosed => (icmp::v4::UNREACHABLE, 3),
            Self::TooBig => (icmp::v4::UNREACHABLE, 4),
            Self::Prohibited => (icmp::v4::UNREACHABLE, 13),
        }
    }

    /// Type and code (RFC 4443 section 3).
    fn v6(self) -> (u8, u8) {
        match self {
            Self::HopLimit => (icmp::v6::TIME_EXCEEDED, 0),
            Self::NoRoute => (icmp::v6::UNREACHABLE, 0),
            Self::HostUnreachable => (icmp::v6::UNREACHABLE, 3),
            Self::UnknownProtocol => (icmp::v6::PARAMETER_PROBLEM, 1),
            Self::PortClosed => (icmp::v6::UNREACHABLE, 4),
            Self::TooBig => (icmp::v6::TOO_BIG, 0),
            Self::Prohibited => (icmp::v6::UNREACHABLE, 1),
        }
    }
}

/// Messages a second that one worker sends about packets of one port.
pub const MESSAGES_A_SECOND: u64 = 1000;
/// Messages it may send at once after a silence.
pub const MESSAGES_BURST: u64 = 50;
/// Ports with a limit of their own; those beyond share the last.
const BUCKETS: usize = 256;
/// Most bytes of an ICMP message's IP packet (RFC 1812 section 4.3.2.3; RFC 4443 section 2.4 (c)).
const V4_MAX: usize = 576;
const NS_PER_MESSAGE: u64 = 1_000_000_000 / MESSAGES_A_SECOND;

/// A bucket of tokens, kept as the time up to which they are spent.
#[derive(Clone, Copy, Default)]
struct Bucket(u64);

impl Bucket {
    fn take(&mut self, now_ns: u64) -> bool {
        // A burst's time ahead of the clock, so that there is a past to have been silent in when the plane starts.
        let now_ns = now_ns + NS_PER_MESSAGE * MESSAGES_BURST;
        let earliest = now_ns + NS_PER_MESSAGE - NS_PER_MESSAGE * MESSAGES_BURST;
        let spent = self.0.max(earliest);
        let allowed = spent <= now_ns;
        if allowed {
            self.0 = spent + NS_PER_MESSAGE;
        }
        allowed
    }
}

/// The node.
pub struct IcmpError {
    interfaces: Reader<Interfaces>,
    forwarding: Arc<Forwarding>,
    buckets: Box<[Bucket]>,
}

impl IcmpError {
    /// Speaks from the addresses of `interfaces`, of MTUs in `forwarding`.
    pub fn new(interfaces: Reader<Interfaces>, forwarding: Arc<Forwarding>) -> Self {
        Self {
            interfaces,
            forwarding,
            buckets: vec![Bucket::default(); BUCKETS].into(),
        }
    }
}

impl Node for IcmpError {
    const NAME: &'static str = "icmp-error";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        let (forwarding, buckets) = (&self.forwarding, &mut self.buckets);
        batch.each(|mut packet| {
            let complaint = Complaint::from_meta(packet.meta.complaint);
            if !may_complain(&packet, complaint) {
                return Err(Drop::Unasked);
            }
            let bucket = packet.meta.port.index().min(BUCKETS - 1);
            if !buckets[bucket].take(turn.now_ns) {
                return Err(Drop::RateLimited);
            }
            let (meta, peer) = (&packet.meta, packet.meta.source.ip());
            let source = interfaces
                .source_for(meta.port, meta.vrf, peer)
                .ok_or(Drop::NoAddress)?;
            let mtu = interfaces.mtu(forwarding, meta);
            // Who is told is where the packet came from, whichever table of routes it was on its way in.
            packet.meta.vrf = interfaces.get(meta.port).map_or(meta.vrf, |interface| interface.vrf);
            match (source, peer) {
                (IpAddr::V4(source), IpAddr::V4(peer)) => {
                    complain_v4(&mut packet, complaint, source.octets(), peer.octets(), mtu)
                }
                (IpAddr::V6(source), IpAddr::V6(peer)) => {
                    complain_v6(&mut packet, complaint, source.octets(), peer.octets(), mtu)
                }
                _ => Err(Drop::NoAddress),
            }
        });
    }

    fn describe(seen: &Seen) -> String {
        format!(
            "{:?} told to {}",
            Complaint::from_meta(seen.meta.complaint),
            seen.meta.target.ip()
        )
    }
}

/// RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e). Addresses that no answer can go to were dropped by `parse`.
fn may_complain(packet: &Packet<'_>, complaint: Complaint) -> bool {
    let meta = &packet.meta;
    let kind = (meta.target.port >> 8) as u8;
    let about_error = match meta.protocol {
        protocol::ICMP if meta.flags.has(Flags::IPV4) => icmp::v4::is_error(kind),
        protocol::ICMPV6 => icmp::v6::is_error(kind),
        _ => false,
    };
    let to_many = meta.flags.has(Flags::TO_MANY) && (meta.flags.has(Flags::IPV4) || complaint != Complaint::TooBig);
    !(about_error || to_many || meta.flags.has(Flags::OWN.and(Flags::LATER_FRAGMENT)))
}

fn complain_v4(
    packet: &mut Packet<'_>,
    complaint: Complaint,
    source: [u8; 4],
    peer: [u8; 4],
    mtu: u16,
) -> Result<Next, Drop> {
    const GROWTH: usize = ipv4::HEADER + icmp::HEADER;
    let link = usize::from(packet.meta.network_offset);
    packet.truncate((link + V4_MAX - GROWTH) as u16);
    packet.push(GROWTH as u16).map_err(|_| Drop::NoRoom)?;
    let data = packet.data();
    let (kind, code) = complaint.v4();
    let second = if complaint == Complaint::TooBig { mtu } else { 0 };
    let header = icmp::Header {
        kind,
        code,
        checksum: [0; 2],
        first: 0.into(),
        second: second.into(),
    };
    let message = &mut data[link + ipv4::HEADER..];
    message[..icmp::HEADER].copy_from_slice(header.as_bytes());
    let sum = checksum::checksum(message);
    message[2..4].copy_from_slice(&sum);
    let ip = ipv4::Header::new(source, peer, protocol::ICMP, HOP_LIMIT, message.len() as u16);
    data[link..][..ipv4::HEADER].copy_from_slice(ip.as_bytes());
    data[link - 2..link].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    packet.meta.source = Endpoint::v4(source, 0);
    packet.meta.target = Endpoint::v4(peer, u16::from_be_bytes([kind, code]));
    become_own(packet, protocol::ICMP, ipv4::HEADER);
    Ok(Next::Send)
}

fn complain_v6(
    packet: &mut Packet<'_>,
    complaint: Complaint,
    source: [u8; 16],
    peer: [u8; 16],
    mtu: u16,
) -> Result<Next, Drop> {
    const GROWTH: usize = ipv6::HEADER + icmp::HEADER;
    let link = usize::from(packet.meta.network_offset);
    let word = match complaint {
        Complaint::TooBig => u32::from(mtu),
        Complaint::UnknownProtocol => named_at(packet),
        _ => 0,
    };
    packet.truncate((link + usize::from(ipv6::MINIMUM_MTU) - GROWTH) as u16);
    packet.push(GROWTH as u16).map_err(|_| Drop::NoRoom)?;
    let data = packet.data();
    let (kind, code) = complaint.v6();
    let (first, second) = ((word >> 16) as u16, word as u16);
    let header = icmp::Header {
        kind,
        code,
        checksum: [0; 2],
        first: first.into(),
        second: second.into(),
    };
    let message = &mut data[link + ipv6::HEADER..];
    message[..icmp::HEADER].copy_from_slice(header.as_bytes());
    let sum = ndp::checksum(source, peer, message);
    message[2..4].copy_from_slice(&sum);
    let ip = ipv6::Header::new(source, peer, protocol::ICMPV6, HOP_LIMIT, message.len() as u16);
    data[link..][..ipv6::HEADER].copy_from_slice(ip.as_bytes());
    data[link - 2..link].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    packet.meta.source = Endpoint {
        address: source,
        port: 0,
    };
    packet.meta.target = Endpoint {
        address: peer,
        port: u16::from_be_bytes([kind, code]),
    };
    become_own(packet, protocol::ICMPV6, ipv6::HEADER);
    Ok(Next::Send)
}

/// Where in an IPv6 packet its transport protocol is named.
fn named_at(packet: &mut Packet<'_>) -> u32 {
    const NEXT_HEADER: u8 = 6;
    let network = packet.network();
    let first = network.get(usize::from(NEXT_HEADER)).copied().unwrap_or_default();
    ipv6::walk(network, first)
        .map_or(NEXT_HEADER, |found| found.named_at)
        .into()
}

fn become_own(packet: &mut Packet<'_>, protocol: u8, offset: usize) {
    packet.meta.protocol = protocol;
    packet.meta.transport_offset = offset as u8;
    packet.meta.flags.clear(Flags::TO_MANY);
    packet.meta.flags.set(Flags::OWN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let start = 0;
        let burst = (0..1000).filter(|_| bucket.take(start)).count() as u64;
        assert_eq!(burst, MESSAGES_BURST);
        let second = (0..1_000_000u64)
            .filter(|step| bucket.take(start + (step + 1) * 1000))
            .count() as u64;
        assert!(
            (MESSAGES_A_SECOND - 1..=MESSAGES_A_SECOND + 1).contains(&second),
            "{second}"
        );
    }
}
