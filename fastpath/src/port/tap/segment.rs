//! Where the headers of a TCP segment or UDP datagram are, and what they have to say of its length.

use crate::wire::checksum::{Sum, checksum};
use crate::wire::protocol::{TCP, UDP};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of a VLAN tag (IEEE 802.1Q).
const TAG: usize = 4;
/// Tags one packet may have here.
const TAGS_MAX: usize = 2;

/// Offsets of the headers, from the start of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub is_v4: bool,
    pub is_tcp: bool,
    pub network: usize,
    pub transport: usize,
    /// End of all headers.
    pub payload: usize,
}

/// The IP version and offset of the network header, behind VLAN tags.
pub(super) fn network(packet: &[u8]) -> Option<(bool, usize)> {
    let mut at = ETHERNET;
    for _ in 0..=TAGS_MAX {
        match word(packet, at - 2)? {
            0x0800 => return Some((true, at)),
            0x86dd => return Some((false, at)),
            0x8100 | 0x88a8 => at += TAG,
            _ => return None,
        }
    }
    None
}

impl Layout {
    /// With the transport header at `transport`, wherever it was found.
    pub fn with_transport(packet: &[u8], is_tcp: bool, transport: usize) -> Option<Self> {
        let (is_v4, network) = network(packet)?;
        let least = if is_v4 { 20 } else { 40 };
        if transport < network + least {
            return None;
        }
        let header = match is_tcp {
            true => usize::from(packet.get(transport + 12)? >> 4) * 4,
            false => 8,
        };
        let payload = transport + header;
        if header < if is_tcp { 20 } else { 8 } || payload > packet.len() {
            return None;
        }
        Some(Self {
            is_v4,
            is_tcp,
            network,
            transport,
            payload,
        })
    }

    /// Of a packet as plain as most are: no IP options, no fragment, its length that of the IP packet.
    pub fn plain(packet: &[u8]) -> Option<Self> {
        let (is_v4, network) = network(packet)?;
        let (transport, end, protocol) = match is_v4 {
            true => {
                let header = packet.get(network..network + 20)?;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                if header[0] != 0x45 || fragment != 0 || checksum(header) != [0, 0] {
                    return None;
                }
                (
                    network + 20,
                    network + usize::from(word(packet, network + 2)?),
                    header[9],
                )
            }
            false => {
                let header = packet.get(network..network + 40)?;
                let end = network + 40 + usize::from(word(packet, network + 4)?);
                (network + 40, end, header[6])
            }
        };
        if end != packet.len() || !matches!(protocol, TCP | UDP) {
            return None;
        }
        Self::with_transport(packet, protocol == TCP, transport)
    }

    /// Where the transport checksum is.
    pub fn checksum(&self) -> usize {
        self.transport + self.checksum_offset()
    }

    /// The same from the transport header on.
    pub fn checksum_offset(&self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    /// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) for a packet of `length` bytes.
    fn pseudo_header(&self, headers: &[u8], length: usize) -> Sum {
        let addresses = match self.is_v4 {
            true => &headers[self.network + 12..self.network + 20],
            false => &headers[self.network + 8..self.network + 40],
        };
        let protocol = if self.is_tcp { TCP } else { UDP };
        let length = (length - self.transport) as u32;
        let [a, b, c, d] = length.to_be_bytes();
        Sum::default().with(addresses).with(&[a, b, c, d, 0, 0, 0, protocol])
    }

    /// Whether the transport checksum of a whole packet is right. UDP's may be missing, which is not.
    pub fn is_sound(&self, packet: &[u8]) -> bool {
        let stored = &packet[self.checksum()..][..2];
        let sum = self.pseudo_header(packet, packet.len()).with(&packet[self.transport..]);
        sum.finish() == [0, 0] && (self.is_tcp || stored != [0, 0])
    }

    /// Writes the transport checksum of a whole packet.
    pub fn write_checksum(&self, packet: &mut [u8]) {
        let at = self.checksum();
        packet[at..at + 2].fill(0);
        let sum = self.pseudo_header(packet, packet.len()).with(&packet[self.transport..]);
        packet[at..at + 2].copy_from_slice(&stored(sum.finish(), self.is_tcp));
    }

    /// Leaves the checksum to whoever reads the bundle: writes the sum of its pseudo header.
    pub fn write_partial_checksum(&self, headers: &mut [u8], length: usize) {
        let [a, b] = self.pseudo_header(headers, length).finish();
        headers[self.checksum()..][..2].copy_from_slice(&[!a, !b]);
    }

    /// Has the headers tell of a packet of `length` bytes.
    pub fn write_length(&self, headers: &mut [u8], length: usize) {
        let ip = (length - self.network) as u16;
        if self.is_v4 {
            headers[self.network + 2..][..2].copy_from_slice(&ip.to_be_bytes());
            self.write_header_checksum(headers);
        } else {
            headers[self.network + 4..][..2].copy_from_slice(&(ip - 40).to_be_bytes());
        }
        if !self.is_tcp {
            let udp = (length - self.transport) as u16;
            headers[self.transport + 4..][..2].copy_from_slice(&udp.to_be_bytes());
        }
    }

    /// IPv4: the identification (RFC 791). IPv6 has none.
    pub fn identification(&self, headers: &[u8]) -> u16 {
        match self.is_v4 {
            true => word(headers, self.network + 4).unwrap_or_default(),
            false => 0,
        }
    }

    /// Writes it, where there is one; the header's checksum is to be written after.
    pub fn write_identification(&self, headers: &mut [u8], identification: u16) {
        if self.is_v4 {
            headers[self.network + 4..][..2].copy_from_slice(&identification.to_be_bytes());
        }
    }

    fn write_header_checksum(&self, headers: &mut [u8]) {
        let header = &mut headers[self.network..self.transport];
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum);
    }
}

/// A UDP checksum of zero would say that there is none (RFC 768).
pub(super) fn stored(checksum: [u8; 2], is_tcp: bool) -> [u8; 2] {
    match (checksum, is_tcp) {
        ([0, 0], false) => [0xff, 0xff],
        (sum, _) => sum,
    }
}

/// The 16-bit word at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
