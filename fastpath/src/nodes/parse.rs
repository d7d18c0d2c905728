//! Reads Ethernet, IP and transport headers once, checks them, and writes what it found into the meta.
//!
//! After it headers are valid: the packet is as long as IP says (padding is cut off), options and extension headers are
//! walked, addresses are of the right kind. IPv4: RFC 1812 sections 5.2.2 and 5.3.7; IPv6: RFC 8200, RFC 4291.

mod divide;

use crate::batch::Batch;
use crate::interfaces::{Interfaces, OwnAddresses, ReversePath};
use crate::labels;
use crate::meta::{Endpoint, Flags, Meta, PortId, VrfId};
use crate::node::{Node, Turn};
use crate::packet::Packet;
use crate::publish::Reader;
use crate::punt::Crossing;
use crate::trace::Seen;
use crate::vlan;
use crate::wire::ipv4::BadOptions;
use crate::wire::ipv6::BadChain;
use crate::wire::{ethernet, icmp, ipv4, ipv6, protocol};
use divide::divide;
use zerocopy::FromBytes;

labels! {
    /// Where packets go.
    pub enum Next {
        Route = "route",
        Flows = "flows",
        Arp = "arp",
        Ndp = "ndp",
        Check = "reverse-path",
        Police = "limited",
        Punt = "for-host",
    }
    /// Why packets are dropped.
    pub enum Drop {
        UnknownPort = "unknown-port": "The port it came in by is being removed.",
        Runt = "runt": "Shorter than an Ethernet header.",
        ForeignMac = "not-our-mac": "Sent to the link address of somebody else.",
        UnknownEtherType = "unknown-ether-type": "Neither IPv4, IPv6 nor ARP.",
        VlanUnknown = "vlan-unknown": "Its VLAN tag names a VLAN that no port is for.",
        VlanStack = "vlan-stack": "It has more than one VLAN tag.",
        Truncated = "ip-truncated": "Shorter than its IP header says.",
        Version = "ip-version": "The IP version is not the one the Ethernet header says.",
        HeaderLength = "ipv4-header-length": "The IPv4 header length is less than 20, or more than the packet.",
        Checksum = "ipv4-checksum": "The IPv4 header checksum is wrong.",
        Options = "ipv4-options": "The IPv4 options are malformed.",
        SourceRoute = "source-route": "It wants to choose its own route (RFC 7126, RFC 5095).",
        Fragment = "bad-fragment": "A fragment of a length or offset that no packet is cut into.",
        MartianSource = "martian-source": "The source address is one that no packet on a wire has.",
        MartianTarget = "martian-destination": "The destination address is one that no packet on a wire has.",
        OwnSource = "own-source": "It came from outside with an address of ours as its source (RFC 1812 section 5.3.7).",
        Multicast = "multicast": "Sent to a multicast or broadcast address that nobody here listens to.",
        LinkBroadcast = "link-broadcast": "Sent to many on the link, but to the IP address of one host (RFC 1812 section 5.3.4, RFC 1122 section 3.3.6).",
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
struct Receiver<'a> {
    port: PortId,
    own: &'a OwnAddresses,
    crossing: &'a Crossing,
    is_vlan: bool,
    /// See [`link_address`].
    mac: u64,
    vrf: VrfId,
    /// Where its packets go, and how they are marked.
    next: Next,
    mark: Flags,
}

impl Node for Parse {
    const NAME: &'static str = "parse";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let interfaces = self.interfaces.refresh();
        let mut receiver = None;
        batch.each_cold(|packet| {
            let port = packet.meta.port;
            if receiver.as_ref().is_none_or(|known: &Receiver<'_>| known.port != port) {
                receiver = interfaces.get(port).map(|interface| Receiver {
                    port,
                    mac: link_address(&interface.mac),
                    own: &interfaces.own,
                    crossing: &interface.crossing,
                    is_vlan: interface.is_vlan,
                    vrf: interface.vrf,
                    next: match interface.reverse_path {
                        _ if interface.is_policed() => Next::Police,
                        ReversePath::Off if interface.tracked => Next::Flows,
                        ReversePath::Off => Next::Route,
                        ReversePath::Loose | ReversePath::Strict => Next::Check,
                    },
                    mark: Flags::TRACKED.when(interface.tracked),
                });
            }
            match &receiver {
                Some(receiver) if matches!(receiver.crossing, Crossing::Nobody) => parse(receiver, packet),
                Some(receiver) => divide(receiver, packet),
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

/// Six bytes as a number, to be compared at once.
#[inline(always)]
fn link_address(bytes: &[u8; 6]) -> u64 {
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], 0, 0])
}

/// The packet is taken by value and handed on in parts, so that the compiler keeps it in registers.
#[inline(always)]
fn parse(receiver: &Receiver<'_>, mut packet: Packet<'_>) -> Result<Next, Drop> {
    let (meta, data) = packet.split();
    let Some(head) = data.first_chunk::<{ ethernet::HEADER }>() else {
        return Err(Drop::Runt);
    };
    let target = u64::from_le_bytes([head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]]);
    meta.vrf = receiver.vrf;
    meta.network_offset = ethernet::HEADER as u8;
    let ether_type = u16::from_be_bytes([head[12], head[13]]);
    let mut mark = receiver.mark.and(Flags::IPV4.when(ether_type == ethernet::IPV4));
    if target << 16 != receiver.mac << 16 {
        if head[0] & 1 == 0 {
            return Err(Drop::ForeignMac);
        }
        mark.set(Flags::TO_MANY);
    }
    meta.flags.set(mark);
    match ether_type {
        ethernet::IPV4 => {
            let length = parse_v4(meta, receiver.own, &data[ethernet::HEADER..])?;
            if mark.has(Flags::TO_MANY) {
                return Err(Drop::LinkBroadcast);
            }
            packet.meta.data_length = ethernet::HEADER as u16 + length;
            Ok(receiver.next)
        }
        ethernet::IPV6 => {
            let (next, length) = parse_v6(meta, receiver.own, &data[ethernet::HEADER..])?;
            if next == Next::Route && mark.has(Flags::TO_MANY) {
                return Err(Drop::LinkBroadcast);
            }
            packet.meta.data_length = ethernet::HEADER as u16 + length;
            Ok(if next == Next::Route { receiver.next } else { next })
        }
        ethernet::ARP => Ok(Next::Arp),
        vlan::TAG | vlan::SERVICE_TAG => tagged(receiver, packet.meta, packet.frame),
        _ => Err(Drop::UnknownEtherType),
    }
}

/// A tag that no port took: with number 0 it says a priority and nothing else (IEEE 802.1Q section 6.9).
#[cold]
#[inline(never)]
fn tagged(receiver: &Receiver<'_>, meta: &mut Meta, frame: &mut [u8]) -> Result<Next, Drop> {
    let mut packet = Packet { meta, frame };
    let data = packet.data();
    match vlan::id_of(data) {
        _ if receiver.is_vlan || vlan::is_stacked(data) => Err(Drop::VlanStack),
        Some(0) => {
            vlan::untag(&mut packet);
            parse(receiver, packet)
        }
        Some(_) => Err(Drop::VlanUnknown),
        None => Err(Drop::VlanStack),
    }
}

/// Returns the packet's length from the IP header on, which `data` has.
#[inline(always)]
fn parse_v4(meta: &mut Meta, own: &OwnAddresses, data: &[u8]) -> Result<u16, Drop> {
    let Some((bytes, rest)) = data.split_first_chunk::<{ ipv4::HEADER }>() else {
        return Err(Drop::Truncated);
    };
    let Ok(header) = ipv4::Header::ref_from_bytes(bytes) else {
        return Err(Drop::Truncated);
    };
    let total = header.total_length.get();
    meta.protocol = header.protocol;
    let is_fragment = header.fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) != 0;
    let length = usize::from(total).wrapping_sub(ipv4::HEADER);
    let (ports, hashed) = match rest.first_chunk::<8>() {
        Some(head)
            if (8..=rest.len()).contains(&length)
                && header.version_length == 0x45
                && !is_fragment
                && sums_up(bytes) =>
        {
            meta.transport_offset = ipv4::HEADER as u8;
            let ports = ports(header.protocol, head, length)?;
            (ports, (header.protocol, ports))
        }
        _ => {
            let ports = unusual_ports(meta, header, data)?;
            let whole = (header.protocol, ports);
            (ports, if is_fragment { (0, (0, 0)) } else { whole })
        }
    };
    meta.source = Endpoint::v4(header.source, ports.0);
    meta.target = Endpoint::v4(header.target, ports.1);
    let (source, target) = (u32::from_be_bytes(header.source), u32::from_be_bytes(header.target));
    if !(is_unicast(source) & is_unicast(target)) {
        return Err(not_unicast(source, target));
    }
    if own.has_v4(meta.vrf, source) {
        return Err(Drop::OwnSource);
    }
    meta.hash = hash(u64::from(source) << 32 | u64::from(target), 0, hashed.0, hashed.1);
    Ok(total)
}

/// The ports of a packet that has options, is a fragment, or is very short, or what is wrong with it.
#[cold]
fn unusual_ports(meta: &mut Meta, header: &ipv4::Header, data: &[u8]) -> Result<(u16, u16), Drop> {
    let Some(packet) = data.get(..usize::from(header.total_length.get())) else {
        return Err(Drop::Truncated);
    };
    if header.version_length >> 4 != 4 {
        return Err(Drop::Version);
    }
    let offset = header.header_length();
    if offset < ipv4::HEADER || offset > packet.len() {
        return Err(Drop::HeaderLength);
    }
    let (header_bytes, payload) = packet.split_at(offset);
    if !crate::wire::checksum::is_valid(header_bytes) {
        return Err(Drop::Checksum);
    }
    ipv4::check_options(&header_bytes[ipv4::HEADER..]).map_err(|bad| match bad {
        BadOptions::Malformed => Drop::Options,
        BadOptions::SourceRoute => Drop::SourceRoute,
    })?;
    meta.transport_offset = offset as u8;
    if header.fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0 {
        short_ports(header.protocol, payload)
    } else {
        fragment_ports(meta, header, payload)
    }
}

/// Whether the checksum of a header without options is right: the sum of its words with end-around carry is a multiple
/// of 0xffff, in whatever width and byte order it is made, and not 0, for a header has a version (RFC 1071 section 2).
#[inline(always)]
fn sums_up(header: &[u8; ipv4::HEADER]) -> bool {
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let double = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let (sum, carry) = double(0).overflowing_add(double(8));
    let (sum, end_carry) = sum.overflowing_add(u64::from(word(16)) + u64::from(carry));
    (sum + u64::from(end_carry)).is_multiple_of(0xffff)
}

/// By the first byte, whether an IPv4 address is one that a host may have (RFC 1812 section 5.3.7, RFC 6890).
const IS_UNICAST: [bool; 256] = {
    let mut is_unicast = [false; 256];
    let mut first = 1;
    while first < 224 {
        is_unicast[first] = first != 127;
        first += 1;
    }
    is_unicast
};

#[inline(always)]
fn is_unicast(address: u32) -> bool {
    IS_UNICAST[(address >> 24) as usize]
}

/// Which of the two addresses is not one of a host.
#[cold]
fn not_unicast(source: u32, target: u32) -> Drop {
    if !is_unicast(source) {
        return Drop::MartianSource;
    }
    // Class E but for the broadcast address is reserved.
    if target >> 28 == 0xe || target == u32::MAX {
        Drop::Multicast
    } else {
        Drop::MartianTarget
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
    meta.flags.set(Flags::FRAGMENT);
    if offset == 0 {
        return short_ports(header.protocol, payload);
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

/// As [`ports`], of a payload of any length.
#[inline(always)]
fn short_ports(transport: u8, payload: &[u8]) -> Result<(u16, u16), Drop> {
    match payload.first_chunk() {
        Some(head) => ports(transport, head, payload.len()),
        None if least_header(transport) > 0 => Err(Drop::TransportTruncated),
        None => Ok((0, 0)),
    }
}

/// Ports, or what stands for them: for ICMP the identifier of an echo, and type and code. `head` starts a payload of
/// `length` bytes.
#[inline(always)]
fn ports(transport: u8, head: &[u8; 8], length: usize) -> Result<(u16, u16), Drop> {
    if transport == protocol::UDP || transport == protocol::TCP && length >= 20 {
        return Ok((word(head, 0), word(head, 2)));
    }
    other_ports(transport, head, length)
}

#[inline(never)]
fn other_ports(transport: u8, head: &[u8; 8], length: usize) -> Result<(u16, u16), Drop> {
    if length < least_header(transport) {
        return Err(Drop::TransportTruncated);
    }
    Ok(match transport {
        protocol::SCTP | protocol::UDP_LITE => (word(head, 0), word(head, 2)),
        protocol::ICMP if matches!(head[0], icmp::v4::ECHO_REQUEST | icmp::v4::ECHO_REPLY) => {
            (word(head, 4), word(head, 0))
        }
        protocol::ICMPV6 if matches!(head[0], icmp::v6::ECHO_REQUEST | icmp::v6::ECHO_REPLY) => {
            (word(head, 4), word(head, 0))
        }
        protocol::ICMP | protocol::ICMPV6 => (0, word(head, 0)),
        _ => (0, 0),
    })
}

#[inline(always)]
fn word(head: &[u8; 8], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// Returns where to go and the packet's length from the IP header on, which `data` has. Not inlined, so that IPv4 has the
/// registers.
#[inline(never)]
fn parse_v6(meta: &mut Meta, own: &OwnAddresses, data: &[u8]) -> Result<(Next, u16), Drop> {
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
    let (transport, offset, is_fragment) = if plain {
        (header.next_header, ipv6::HEADER, false)
    } else {
        let found = ipv6::walk(data, header.next_header).map_err(bad_chain)?;
        meta.flags.set(Flags::FRAGMENT.when(found.fragment));
        meta.flags.set(Flags::LATER_FRAGMENT.when(found.later_fragment));
        (found.protocol, usize::from(found.offset), found.fragment)
    };
    meta.protocol = transport;
    meta.transport_offset = offset as u8;
    let later = meta.flags.has(Flags::LATER_FRAGMENT);
    let ports = if later {
        (0, 0)
    } else {
        short_ports(transport, &data[offset..])?
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
    let (source, target) = (u128::from_be_bytes(header.source), u128::from_be_bytes(header.target));
    // Neighbour discovery judges by itself who claims an address of ours.
    if next != Next::Ndp && own.has_v6(meta.vrf, source) {
        return Err(Drop::OwnSource);
    }
    meta.hash = if is_fragment {
        hash(fold(source), fold(target), 0, (0, 0))
    } else {
        hash(fold(source), fold(target), transport, ports)
    };
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

/// A hash of the flow, of the half of its addresses that `source` is and of the rest: two multiplications. Equal for all
/// packets of one direction, and not a secret. Fragments are hashed by their addresses alone, for only the first one has
/// ports: all of a packet's take one way.
#[inline(always)]
fn hash(source: u64, target: u64, protocol: u8, ports: (u16, u16)) -> u32 {
    let ports = u64::from(ports.0) << 32 | u64::from(ports.1) << 16 | u64::from(protocol);
    let product = u128::from(source ^ 0x9e37_79b9_7f4a_7c15) * u128::from(ports ^ 0xa076_1d64_78bd_642f);
    let mixed = (product as u64) ^ (product >> 64) as u64 ^ target;
    (mixed.wrapping_mul(0xe703_7ed1_a0b4_28db) >> 32) as u32
}
