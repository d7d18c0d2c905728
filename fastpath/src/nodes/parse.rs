//! Reads Ethernet, IP and transport headers once, checks them, and writes what it found into the meta.
//!
//! After it headers are valid: the packet is as long as IP says (padding is cut off), options and extension headers are
//! walked, addresses are of the right kind. IPv4: RFC 1812 sections 5.2.2 and 5.3.7; IPv6: RFC 8200, RFC 4291.

use crate::batch::Batch;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::meta::{Endpoint, Flags, Meta, PortId, VrfId};
use crate::node::{Node, Turn};
use crate::packet::Packet;
use crate::publish::Reader;
use crate::trace::Seen;
use crate::wire::ipv4::BadOptions;
use crate::wire::ipv6::BadChain;
use crate::wire::{ethernet, icmp, ipv4, ipv6, protocol};
use zerocopy::FromBytes;

labels! {
    /// Where packets go.
    pub enum Next {
        Route = "route",
        Arp = "arp",
        Ndp = "ndp",
    }
    /// Why packets are dropped.
    pub enum Drop {
        UnknownPort = "unknown-port": "The port it came in by is being removed.",
        Runt = "runt": "Shorter than an Ethernet header.",
        ForeignMac = "not-our-mac": "Sent to the link address of somebody else.",
        UnknownEtherType = "unknown-ether-type": "Neither IPv4, IPv6 nor ARP.",
        Truncated = "ip-truncated": "Shorter than its IP header says.",
        Version = "ip-version": "The IP version is not the one the Ethernet header says.",
        HeaderLength = "ipv4-header-length": "The IPv4 header length is less than 20, or more than the packet.",
        Checksum = "ipv4-checksum": "The IPv4 header checksum is wrong.",
        Options = "ipv4-options": "The IPv4 options are malformed.",
        SourceRoute = "source-route": "It wants to choose its own route (RFC 7126, RFC 5095).",
        Fragment = "bad-fragment": "A fragment of a length or offset that no packet is cut into.",
        MartianSource = "martian-source": "The source address is one that no packet on a wire has.",
        MartianTarget = "martian-destination": "The destination address is one that no packet on a wire has.",
        Multicast = "multicast": "Sent to a multicast or broadcast address that nobody here listens to.",
        ChainTruncated = "extension-truncated": "An IPv6 extension header runs past the packet.",
        ChainTooLong = "extension-chain": "Too many IPv6 extension headers, or in a wrong order.",
        TransportTruncated = "transport-truncated": "Too short for the header of its transport protocol.",
    }
}

/// The node.
pub struct Parse {
    interfaces: Reader<Interfaces>,
}

impl Parse {
    /// Checks link addresses against `interfaces`.
    pub fn new(interfaces: Reader<Interfaces>) -> Self {
        Self { interfaces }
    }
}

/// What it takes to know of the receiving port.
struct Receiver {
    port: PortId,
    mac: u64,
    vrf: VrfId,
}

impl Node for Parse {
    const NAME: &'static str = "parse";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        let mut receiver = None;
        batch.each_cold(|mut packet| {
            let port = packet.meta.port;
            if receiver.as_ref().is_none_or(|known: &Receiver| known.port != port) {
                receiver = interfaces.get(port).map(|interface| {
                    let mac = interface.mac.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
                    Receiver {
                        port,
                        mac,
                        vrf: interface.vrf,
                    }
                });
            }
            match &receiver {
                Some(receiver) => parse(receiver, &mut packet),
                None => Err(Drop::UnknownPort),
            }
        });
    }

    fn describe(seen: &Seen) -> String {
        let meta = &seen.meta;
        let ports = match (meta.source.port, meta.target.port) {
            (0, 0) => String::new(),
            (source, target) => format!(", ports {source} > {target}"),
        };
        format!(
            "{} > {}, protocol {}{ports}, {} bytes",
            meta.source.ip(),
            meta.target.ip(),
            meta.protocol,
            seen.length
        )
    }
}

#[inline(always)]
fn parse(receiver: &Receiver, packet: &mut Packet<'_>) -> Result<Next, Drop> {
    let (meta, data) = packet.split();
    let Some(head) = data.first_chunk::<{ ethernet::HEADER }>() else {
        return Err(Drop::Runt);
    };
    let target = u64::from_be_bytes([0, 0, head[0], head[1], head[2], head[3], head[4], head[5]]);
    meta.vrf = receiver.vrf;
    meta.network_offset = ethernet::HEADER as u8;
    if target != receiver.mac {
        if head[0] & 1 == 0 {
            return Err(Drop::ForeignMac);
        }
        meta.flags.set(Flags::TO_MANY);
    }
    match u16::from_be_bytes([head[12], head[13]]) {
        ethernet::IPV4 => {
            let length = parse_v4(meta, &data[ethernet::HEADER..])?;
            packet.truncate(ethernet::HEADER as u16 + length);
            Ok(Next::Route)
        }
        ethernet::IPV6 => {
            let (next, length) = parse_v6(meta, &data[ethernet::HEADER..])?;
            packet.truncate(ethernet::HEADER as u16 + length);
            Ok(next)
        }
        ethernet::ARP => Ok(Next::Arp),
        _ => Err(Drop::UnknownEtherType),
    }
}

/// Returns the packet's length from the IP header on.
#[inline(always)]
fn parse_v4(meta: &mut Meta, data: &[u8]) -> Result<u16, Drop> {
    let Some(bytes) = data.first_chunk::<{ ipv4::HEADER }>() else {
        return Err(Drop::Truncated);
    };
    let Ok(header) = ipv4::Header::ref_from_bytes(bytes) else {
        return Err(Drop::Truncated);
    };
    let total = header.total_length.get();
    if usize::from(total) > data.len() {
        return Err(Drop::Truncated);
    }
    if header.version_length != 0x45 || !sums_up(bytes) {
        check_long_header(header, &data[..usize::from(total)])?;
    }
    let offset = header.header_length();
    let Some(payload) = usize::from(total).checked_sub(offset) else {
        return Err(Drop::HeaderLength);
    };
    meta.protocol = header.protocol;
    meta.transport_offset = offset as u8;
    meta.flags.set(Flags::IPV4);
    let fragment = header.fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET);
    let ports = if fragment == 0 {
        ports(header.protocol, &data[offset..usize::from(total)])?
    } else {
        fragment_ports(meta, header, &data[offset..offset + payload])?
    };
    meta.source = Endpoint::v4(header.source, ports.0);
    meta.target = Endpoint::v4(header.target, ports.1);
    check_v4_addresses(meta.source.v4_bits(), meta.target.v4_bits())?;
    let addresses = u64::from(meta.source.v4_bits()) << 32 | u64::from(meta.target.v4_bits());
    meta.hash = hash(addresses, 0, meta);
    Ok(total)
}

/// Whether the checksum of a header without options is right.
#[inline(always)]
fn sums_up(header: &[u8; ipv4::HEADER]) -> bool {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    let sum = word(0) + word(4) + word(8) + word(12) + word(16);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

/// Tells what is wrong with an unusual header, or that it is merely long.
#[cold]
fn check_long_header(header: &ipv4::Header, packet: &[u8]) -> Result<(), Drop> {
    if header.version_length >> 4 != 4 {
        return Err(Drop::Version);
    }
    let length = header.header_length();
    if length < ipv4::HEADER || length > packet.len() {
        return Err(Drop::HeaderLength);
    }
    if !crate::wire::checksum::is_valid(&packet[..length]) {
        return Err(Drop::Checksum);
    }
    ipv4::check_options(&packet[ipv4::HEADER..length]).map_err(|bad| match bad {
        BadOptions::Malformed => Drop::Options,
        BadOptions::SourceRoute => Drop::SourceRoute,
    })
}

/// RFC 1812 section 5.3.7, RFC 6890.
#[inline(always)]
fn check_v4_addresses(source: u32, target: u32) -> Result<(), Drop> {
    const NOT_UNICAST: u32 = 0xe000_0000;
    let special = |address: u32| matches!(address >> 24, 0 | 127);
    if source >= NOT_UNICAST || special(source) {
        return Err(Drop::MartianSource);
    }
    if target >= NOT_UNICAST {
        // Class E but for the broadcast address is reserved.
        let is_group = target >> 28 == 0xe || target == u32::MAX;
        return Err(if is_group { Drop::Multicast } else { Drop::MartianTarget });
    }
    if special(target) {
        Err(Drop::MartianTarget)
    } else {
        Ok(())
    }
}

/// The ports of an IPv4 fragment; only the first one has them.
#[cold]
fn fragment_ports(meta: &mut Meta, header: &ipv4::Header, payload: &[u8]) -> Result<(u16, u16), Drop> {
    let fragment = header.fragment.get();
    let offset = usize::from(fragment & ipv4::OFFSET) * 8;
    let odd = fragment & ipv4::MORE_FRAGMENTS != 0 && !payload.len().is_multiple_of(8);
    if payload.is_empty() || odd || offset + payload.len() + header.header_length() > usize::from(u16::MAX) {
        return Err(Drop::Fragment);
    }
    if offset == 0 {
        return ports(header.protocol, payload);
    }
    // A second fragment at eight bytes would rewrite the TCP header (RFC 1858 section 3.2.1).
    if offset < least_header(header.protocol) {
        return Err(Drop::Fragment);
    }
    meta.flags.set(Flags::LATER_FRAGMENT);
    Ok((0, 0))
}

/// Bytes of the shortest header of a transport protocol.
#[inline(always)]
fn least_header(transport: u8) -> usize {
    match transport {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        protocol::UDP | protocol::UDP_LITE | protocol::ICMP | protocol::ICMPV6 => 8,
        _ => 0,
    }
}

/// Ports, or what stands for them: for ICMP the identifier of an echo, and type and code.
#[inline(always)]
fn ports(transport: u8, payload: &[u8]) -> Result<(u16, u16), Drop> {
    if payload.len() < least_header(transport) {
        return Err(Drop::TransportTruncated);
    }
    let Some(head) = payload.first_chunk::<8>() else {
        return Ok((0, 0));
    };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    Ok(match transport {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => (word(0), word(2)),
        protocol::ICMP if matches!(head[0], icmp::v4::ECHO_REQUEST | icmp::v4::ECHO_REPLY) => (word(4), word(0)),
        protocol::ICMPV6 if matches!(head[0], icmp::v6::ECHO_REQUEST | icmp::v6::ECHO_REPLY) => (word(4), word(0)),
        protocol::ICMP | protocol::ICMPV6 => (0, word(0)),
        _ => (0, 0),
    })
}

/// Returns where to go and the packet's length from the IP header on.
#[inline]
fn parse_v6(meta: &mut Meta, data: &[u8]) -> Result<(Next, u16), Drop> {
    let Ok((header, _)) = ipv6::Header::ref_from_prefix(data) else {
        return Err(Drop::Truncated);
    };
    let total = ipv6::HEADER + usize::from(header.payload_length.get());
    if header.version_class_label.get() >> 28 != 6 {
        return Err(Drop::Version);
    }
    let Some(data) = data.get(..total) else {
        return Err(Drop::Truncated);
    };
    let plain = least_header(header.next_header) > 0;
    let (transport, offset) = if plain {
        (header.next_header, ipv6::HEADER)
    } else {
        let found = ipv6::walk(data, header.next_header).map_err(bad_chain)?;
        if found.later_fragment {
            meta.flags.set(Flags::LATER_FRAGMENT);
        }
        (found.protocol, usize::from(found.offset))
    };
    meta.protocol = transport;
    meta.transport_offset = offset as u8;
    let later = meta.flags.has(Flags::LATER_FRAGMENT);
    let ports = if later {
        (0, 0)
    } else {
        ports(transport, &data[offset..])?
    };
    meta.source = Endpoint {
        address: header.source,
        port: ports.0,
    };
    meta.target = Endpoint {
        address: header.target,
        port: ports.1,
    };
    let next = if is_neighbour_discovery(meta, header.hop_limit) {
        Next::Ndp
    } else {
        Next::Route
    };
    check_v6_addresses(&header.source, &header.target, next)?;
    let fold = |address: u128| (address >> 64) as u64 ^ (address as u64).rotate_left(29);
    meta.hash = hash(fold(meta.source.v6_bits()), fold(meta.target.v6_bits()), meta);
    // The payload length is 16 bits and the frame shorter than that.
    Ok((next, total as u16))
}

fn bad_chain(bad: BadChain) -> Drop {
    match bad {
        BadChain::Truncated => Drop::ChainTruncated,
        BadChain::TooLong | BadChain::Misplaced => Drop::ChainTooLong,
        BadChain::SourceRoute => Drop::SourceRoute,
        BadChain::Fragment => Drop::Fragment,
    }
}

/// Router and neighbour solicitations, advertisements and redirects that can only come from the link
/// (RFC 4861 section 7.1).
#[inline(always)]
fn is_neighbour_discovery(meta: &Meta, hop_limit: u8) -> bool {
    let kinds = u16::from(icmp::v6::ROUTER_SOLICITATION)..=u16::from(icmp::v6::REDIRECT);
    meta.protocol == protocol::ICMPV6 && kinds.contains(&(meta.target.port >> 8)) && hop_limit == 255
}

/// RFC 4291 sections 2.5.2, 2.5.3 and 2.7; mapped addresses never stand in a packet (RFC 4291 section 2.5.5.2), and
/// here they would be taken for IPv4.
#[inline(always)]
fn check_v6_addresses(source: &[u8; 16], target: &[u8; 16], next: Next) -> Result<(), Drop> {
    let (source, target) = (u128::from_be_bytes(*source), u128::from_be_bytes(*target));
    let mapped = |address: u128| address >> 32 == 0xffff;
    if source >> 120 == 0xff || source == 1 || mapped(source) {
        return Err(Drop::MartianSource);
    }
    if target <= 1 || mapped(target) {
        return Err(Drop::MartianTarget);
    }
    match next {
        Next::Ndp => Ok(()),
        _ if target >> 120 == 0xff => Err(Drop::Multicast),
        _ if source == 0 => Err(Drop::MartianSource),
        _ => Ok(()),
    }
}

/// A hash of the flow: two folded multiplications. Equal for all packets of one direction, and not a secret.
#[inline(always)]
fn hash(source: u64, target: u64, meta: &Meta) -> u32 {
    let fold = |one: u64, other: u64| {
        let product = u128::from(one) * u128::from(other);
        (product as u64) ^ (product >> 64) as u64
    };
    let ports = u64::from(meta.source.port) << 32 | u64::from(meta.target.port) << 16 | u64::from(meta.protocol);
    let mixed = fold(source ^ 0x9e37_79b9_7f4a_7c15, ports ^ 0xa076_1d64_78bd_642f);
    (fold(mixed ^ target, 0xe703_7ed1_a0b4_28db) >> 32) as u32
}
