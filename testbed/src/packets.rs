//! Packets made by hand, and checked by hand: nothing here is shared with what it tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A link-layer address.
pub type Mac = [u8; 6];

/// The link address of the plane's port with this number, counted from 1 in the order the ports were made.
pub fn port_mac(number: u8) -> Mac {
    [0x02, 0x4d, 0x47, 0, 0, number]
}

/// The link-local address that follows from a link address (RFC 4291 appendix A).
pub fn link_local(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]).into()
}

/// The multicast group and link address at which an IPv6 address is asked for (RFC 4291 section 2.7.1, RFC 2464).
pub fn solicited_node(address: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = address.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    (group.into(), [0x33, 0x33, 0xff, a, b, c])
}

/// A frame around an IP packet.
pub fn frame(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    ethernet(to, from, kind, packet)
}

/// A frame of any type.
pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to, from.as_slice(), &kind.to_be_bytes(), payload].concat()
}

/// An IP packet, of IPv4 without options and fragmentable, or of IPv6 without extension headers.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (20 + payload.len()) as u16;
            let head = [
                0x45,
                0,
                (length >> 8) as u8,
                length as u8,
                0x12,
                0x34,
                0,
                0,
                hop_limit,
                protocol,
                0,
                0,
            ];
            let mut packet = [&head, from.octets().as_slice(), &to.octets(), payload].concat();
            fix_v4(&mut packet);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = payload.len() as u16;
            let head = [0x60, 0, 0, 0, (length >> 8) as u8, length as u8, protocol, hop_limit];
            [&head, from.octets().as_slice(), &to.octets(), payload].concat()
        }
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// Sets the header checksum of an IPv4 packet.
pub fn fix_v4(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !sum(&[&packet[..length]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv4 packet with options, which are filled up with ends of list.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut packet = [&packet[..20], &options, &packet[20..]].concat();
    packet[0] = 0x40 | (5 + options.len() / 4) as u8;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    fix_v4(&mut packet);
    packet
}

/// An IPv4 packet with these flags (`0x4000`: do not fragment, `0x2000`: more follow) and this offset in bytes.
pub fn with_fragment(mut packet: Vec<u8>, flags: u16, offset: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&(flags | (offset / 8)).to_be_bytes());
    fix_v4(&mut packet);
    packet
}

/// A UDP datagram in an IP packet.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let datagram = udp_datagram(from, to, payload);
    ip(from.0, to.0, 17, hop_limit, &datagram)
}

/// A UDP datagram alone.
pub fn udp_datagram(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let head = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    let mut datagram = [&head, payload].concat();
    let sum = match !sum(&[&pseudo(from.0, to.0, 17, datagram.len()), &datagram]) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A TCP segment without payload in an IP packet.
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), hop_limit: u8) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let mut segment = [&ports, [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0].as_slice()].concat();
    let sum = !sum(&[&pseudo(from.0, to.0, 6, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from.0, to.0, 6, hop_limit, &segment)
}

/// An ICMP message, of the family of the addresses, in an IP packet: type, code, the four bytes after the checksum, and
/// the rest.
pub fn icmp(from: IpAddr, to: IpAddr, hop_limit: u8, kind: (u8, u8), word: u32, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind.0, kind.1, 0, 0], word.to_be_bytes().as_slice(), rest].concat();
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    let sum = match from {
        IpAddr::V4(_) => !sum(&[&message]),
        IpAddr::V6(_) => !sum(&[&pseudo(from, to, protocol, message.len()), &message]),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, hop_limit, &message)
}

/// An echo request.
pub fn echo(from: IpAddr, to: IpAddr, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if from.is_ipv4() { 8 } else { 128 };
    icmp(from, to, 64, (kind, 0), 0x4d47_0000 | u32::from(sequence), payload)
}

/// A whole ARP frame: operation (1 asks, 2 answers), sender, and who is asked for or told.
pub fn arp(to: Mac, operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let (sender_ip, target_ip) = (sender.1.octets(), target.1.octets());
    let body = [&head, sender.0.as_slice(), &sender_ip, &target.0, &target_ip].concat();
    ethernet(to, sender.0, 0x0806, &body)
}

/// A neighbour solicitation with the sender's link address, in a whole frame to the group of the address asked for; a
/// sender without address only checks whether it is free, and gives no link address.
pub fn solicitation(sender: (Mac, Ipv6Addr), about: Ipv6Addr) -> Vec<u8> {
    let (group, mac) = solicited_node(about);
    let mut rest = about.octets().to_vec();
    if !sender.1.is_unspecified() {
        rest.extend([1, 1]);
        rest.extend(sender.0);
    }
    frame(
        mac,
        sender.0,
        &icmp(sender.1.into(), group.into(), 255, (135, 0), 0, &rest),
    )
}

/// A solicited neighbour advertisement: `sender` tells `to` where `about` is.
pub fn advertisement(to: (Mac, IpAddr), sender: (Mac, IpAddr), about: Ipv6Addr) -> Vec<u8> {
    let rest = [about.octets().as_slice(), &[2, 1], &sender.0].concat();
    frame(to.0, sender.0, &icmp(sender.1, to.1, 255, (136, 0), 0x6000_0000, &rest))
}

/// The pseudo-header of a transport checksum; the same sum for both families (RFC 768, RFC 8200 section 8.1).
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("{from} and {to} are of different families"),
    };
    [
        &addresses,
        (length as u32).to_be_bytes().as_slice(),
        &[0, 0, 0, protocol],
    ]
    .concat()
}

/// The sum of RFC 1071, not complemented: `0xffff` over what carries a right checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A received frame, taken apart, with its checksums found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who it is sent to on the link.
    pub to: Mac,
    /// Who sent it on the link.
    pub from: Mac,
    /// IP source.
    pub source: IpAddr,
    /// IP destination.
    pub target: IpAddr,
    /// Transport protocol; the next header of IPv6.
    pub protocol: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// The IP packet.
    pub packet: Vec<u8>,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

/// Takes an IP frame apart and checks that its lengths and its header, ICMP and UDP checksums (of what is no fragment)
/// are right.
pub fn open(bytes: &[u8]) -> Received {
    let (link, packet) = bytes.split_at(14);
    let (source, target, protocol, hop_limit, header): (IpAddr, IpAddr, _, _, _) = match link[12..] {
        [0x08, 0x00] => {
            let header = usize::from(packet[0] & 15) * 4;
            assert_eq!(sum(&[&packet[..header]]), 0xffff, "the header checksum is wrong");
            let length = u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!(usize::from(length), packet.len(), "the total length is wrong");
            let (from, to) = (v4(&packet[12..16]), v4(&packet[16..20]));
            (from.into(), to.into(), packet[9], packet[8], header)
        }
        [0x86, 0xdd] => {
            let length = u16::from_be_bytes([packet[4], packet[5]]);
            assert_eq!(usize::from(length) + 40, packet.len(), "the payload length is wrong");
            (
                v6(&packet[8..24]).into(),
                v6(&packet[24..40]).into(),
                packet[6],
                packet[7],
                40,
            )
        }
        _ => panic!("no IP packet: {bytes:02x?}"),
    };
    let payload = &packet[header..];
    let is_fragment = source.is_ipv4() && (packet[6] & 0x3f, packet[7]) != (0, 0);
    let sums = match protocol {
        1 if !is_fragment && source.is_ipv4() => sum(&[payload]),
        17 | 58 if !is_fragment => sum(&[&pseudo(source, target, protocol, payload.len()), payload]),
        _ => 0xffff,
    };
    assert_eq!(
        sums, 0xffff,
        "the checksum of protocol {protocol} is wrong: {bytes:02x?}"
    );
    Received {
        to: mac(&link[..6]),
        from: mac(&link[6..12]),
        source,
        target,
        protocol,
        hop_limit,
        packet: packet.to_vec(),
        payload: payload.to_vec(),
    }
}

/// Takes several frames apart.
pub fn open_all(frames: &[Vec<u8>]) -> Vec<Received> {
    frames.iter().map(|frame| open(frame)).collect()
}

impl Received {
    /// Type and code of an ICMP message, of either family.
    pub fn icmp(&self) -> (u8, u8) {
        assert!(self.protocol == 1 || self.protocol == 58, "no ICMP: {self:?}");
        (self.payload[0], self.payload[1])
    }

    /// The four bytes after an ICMP checksum: an MTU, a pointer, identifier and sequence number.
    pub fn word(&self) -> u32 {
        u32::from_be_bytes([self.payload[4], self.payload[5], self.payload[6], self.payload[7]])
    }

    /// What an ICMP error quotes.
    pub fn quote(&self) -> &[u8] {
        &self.payload[8..]
    }
}

fn mac(bytes: &[u8]) -> Mac {
    std::array::from_fn(|at| bytes[at])
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|at| bytes[at]))
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|at| bytes[at]))
}
