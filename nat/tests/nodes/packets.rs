//! Packets made by hand, and checked by hand: nothing here is shared with what it tests.

use std::net::IpAddr;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
/// Of either family.
pub const ECHO: u8 = 1;

/// Our ports' link addresses end in 1 and 2; those of the neighbours behind them in 0x11 and 0x12.
pub fn port_mac(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, 1 + port as u8]
}

pub type End = (IpAddr, u16);

/// What matters of a packet: its protocol, its ends, and what it carries. An echo has its identifier as both ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    pub protocol: u8,
    pub source: End,
    pub target: End,
    /// TCP: its flags. Echo: 0 asks, 1 answers.
    pub flags: u8,
    pub hops: u8,
    pub data: Vec<u8>,
}

impl Plain {
    pub fn new(protocol: u8, source: End, target: End) -> Self {
        Self {
            protocol,
            source,
            target,
            flags: if protocol == TCP { 2 } else { 0 },
            hops: 64,
            data: if protocol == SCTP { vec![] } else { b"data".to_vec() },
        }
    }

    /// The frame, as it comes to one of our ports.
    pub fn frame(&self, port: usize) -> Vec<u8> {
        let packet = self.packet();
        let kind: [u8; 2] = if self.source.0.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let from = [2, 0, 0, 0, 0, 0x11 + port as u8];
        [&port_mac(port), from.as_slice(), &kind, &packet].concat()
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        ip(
            self.source.0,
            self.target.0,
            self.number(),
            self.hops,
            &self.transport(),
        )
    }

    fn number(&self) -> u8 {
        match (self.protocol, self.source.0) {
            (ECHO, IpAddr::V6(_)) => 58,
            _ => self.protocol,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let (from, to) = (self.source.1.to_be_bytes(), self.target.1.to_be_bytes());
        let length = (8 + self.data.len()) as u16;
        let (head, at) = match self.protocol {
            TCP => {
                let rest = [0, 0, 0, 9, 0, 0, 0, 0, 0x50, self.flags, 4, 0, 0, 0, 0, 0];
                ([&from, to.as_slice(), &rest].concat(), 16)
            }
            UDP => ([from, to, length.to_be_bytes(), [0; 2]].concat(), 6),
            ECHO => {
                let kind = match (self.source.0.is_ipv4(), self.flags) {
                    (true, 0) => 8,
                    (true, _) => 0,
                    (false, kind) => 128 + kind,
                };
                ([[kind, 0], [0; 2], from, [0, 1]].concat(), 2)
            }
            // Tag 0: an INIT chunk with the smallest body.
            SCTP => {
                let init = [1, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1];
                let mut bytes = [&from, to.as_slice(), &[0; 8], &init].concat();
                let sum = crc32c::crc32c(&bytes);
                bytes[8..12].copy_from_slice(&sum.to_le_bytes());
                return bytes;
            }
            _ => return self.data.clone(),
        };
        let mut bytes = [head, self.data.clone()].concat();
        let stored = match !sum(&[&self.pseudo(bytes.len()), &bytes]) {
            0 if self.protocol == UDP => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&stored.to_be_bytes());
        bytes
    }

    fn pseudo(&self, length: usize) -> Vec<u8> {
        match (self.protocol, self.source.0, self.target.0) {
            (ECHO, IpAddr::V4(_), _) => vec![],
            (_, from, to) => {
                let tail = [0, self.number(), (length >> 8) as u8, length as u8];
                [octets(from), octets(to), tail.to_vec()].concat()
            }
        }
    }

    /// Takes a frame apart, and finds every checksum right, by making the packet again from what was read.
    pub fn open(frame: &[u8]) -> Self {
        let packet = &frame[14..];
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (source, target, number, hops, at): (IpAddr, IpAddr, _, _, _) = if packet[0] >> 4 == 4 {
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            (address(12), address(16), packet[9], packet[8], 20)
        } else {
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
            (address(8), address(24), packet[6], packet[7], 40)
        };
        let (protocol, ports, flags, head) = match number {
            TCP => (TCP, (word(at), word(at + 2)), packet[at + 13], 20),
            UDP => (UDP, (word(at), word(at + 2)), 0, 8),
            SCTP => (SCTP, (word(at), word(at + 2)), 0, packet.len() - at),
            1 => (ECHO, (word(at + 4), word(at + 4)), u8::from(packet[at] == 0), 8),
            58 => (ECHO, (word(at + 4), word(at + 4)), packet[at] & 1, 8),
            number => (number, (0, 0), 0, 0),
        };
        let plain = Self {
            protocol,
            source: (source, ports.0),
            target: (target, ports.1),
            flags,
            hops,
            data: packet[at + head..].to_vec(),
        };
        assert_eq!(
            plain.packet(),
            packet,
            "a checksum is wrong, or something else was changed"
        );
        plain
    }
}

/// An IP packet, of IPv4 without options and fragmentable, or of IPv6 without extension headers.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    if from.is_ipv6() {
        let head = [0x60, 0, 0, 0, (length >> 8) as u8, length as u8, protocol, hops];
        return [&head, octets(from).as_slice(), &octets(to), payload].concat();
    }
    let whole = length + 20;
    let head = [
        0x45,
        0,
        (whole >> 8) as u8,
        whole as u8,
        0x12,
        0x34,
        0,
        0,
        hops,
        protocol,
        0,
        0,
    ];
    let mut packet = [&head, octets(from).as_slice(), &octets(to), payload].concat();
    let sum = !sum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An ICMP error from a host, about a packet as its reporter saw it: the frame as it comes to a port of ours.
pub fn error(port: usize, from: IpAddr, about: &Plain) -> Vec<u8> {
    let quoted = about.packet();
    let is_v4 = from.is_ipv4();
    let (number, kind) = if is_v4 { (1, 3) } else { (58, 1) };
    let mut message = [&[kind, 1, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat();
    let to = about.source.0;
    let tail = [0, number, (message.len() >> 8) as u8, message.len() as u8];
    let pseudo = if is_v4 {
        vec![]
    } else {
        [octets(from), octets(to), tail.to_vec()].concat()
    };
    let sum = !sum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = ip(from, to, number, 60, &message);
    let kind: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
    let mac = [2, 0, 0, 0, 0, 0x11 + port as u8];
    [&port_mac(port), mac.as_slice(), &kind, &packet].concat()
}

/// What an error says: who sent it, to whom, and about what. Its checksum has to be right.
pub fn open_error(frame: &[u8]) -> (IpAddr, IpAddr, Plain) {
    let outer = &frame[14..];
    let is_v4 = outer[0] >> 4 == 4;
    let (at, number) = if is_v4 { (20, 1) } else { (40, 58) };
    let quoted = &outer[at + 8..];
    let inner = Plain::open(&[&[0; 14], quoted].concat());
    let address = |at: usize, length: usize| -> IpAddr {
        match length {
            4 => IpAddr::from(<[u8; 4]>::try_from(&outer[at..at + 4]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&outer[at..at + 16]).unwrap()),
        }
    };
    let (from, to) = if is_v4 {
        (address(12, 4), address(16, 4))
    } else {
        (address(8, 16), address(24, 16))
    };
    let message = &outer[at..];
    let tail = [0, number, (message.len() >> 8) as u8, message.len() as u8];
    let pseudo = if is_v4 {
        vec![]
    } else {
        [octets(from), octets(to), tail.to_vec()].concat()
    };
    assert_eq!(sum(&[&pseudo, message]), 0xffff, "the error's checksum is wrong");
    (from, to, inner)
}

/// The sum of RFC 1071, not complemented: `0xffff` over what carries a right checksum.
pub fn sum(parts: &[&[u8]]) -> u16 {
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
