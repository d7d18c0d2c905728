//! Joining consecutive packets of a flow into one that a host takes in one piece.
//!
//! What is joined can be cut into the same packets again: their headers differ in nothing but sequence number,
//! identification, length, checksum and a push flag at the end, and their checksums were right.

use super::segment::{Layout, word};
use super::vnet::{Bundle, VnetHeader};
use crate::wire::ipv4::DONT_FRAGMENT;

const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// Most bytes of an IP packet.
const IP_MAX: usize = 65_535;
/// Most packets joined: what the kernel takes from several places in one call is limited.
pub const JOINED_MAX: usize = 64;

/// A packet that more may be joined to.
#[derive(Clone, Copy, Debug)]
pub struct Joint {
    layout: Layout,
    /// Payload bytes of every packet but the last.
    size: usize,
    /// Bytes of the packet that all make together.
    length: usize,
    /// The sequence number the next one must have.
    sequence: u32,
    identification: u16,
    count: usize,
    pushed: bool,
    /// Nothing more may follow: the last was short, or pushed.
    closed: bool,
    sound: bool,
}

impl Joint {
    /// A first packet, if any can be joined to it: TCP with payload and no flags but ACK and PSH, or UDP.
    pub fn start(packet: &[u8], udp: bool) -> Option<Self> {
        let layout = Layout::plain(packet)?;
        let size = packet.len() - layout.payload;
        if size == 0 {
            return None;
        }
        let (mut sequence, mut pushed) = (0, false);
        if layout.is_tcp {
            let header = &packet[layout.transport..layout.payload];
            if header[12] & 0x0f != 0 || header[13] & !PUSH != ACK {
                return None;
            }
            sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]).wrapping_add(size as u32);
            pushed = header[13] & PUSH != 0;
        } else if !udp {
            return None;
        }
        Some(Self {
            layout,
            size,
            length: packet.len(),
            sequence,
            identification: layout.identification(packet),
            count: 1,
            pushed,
            closed: pushed,
            sound: false,
        })
    }

    /// Joins `packet` to what starts with `first`, if it comes next and fits; `other` is what [`start`](Self::start) said
    /// of it.
    pub fn join(&mut self, first: &[u8], packet: &[u8], other: &Self) -> bool {
        let size = other.size;
        let fits = !self.closed
            && self.count < JOINED_MAX
            && size <= self.size
            && self.length + size - self.layout.network <= IP_MAX
            && self.layout == other.layout
            && self.is_next(packet, other)
            && self.same_headers(first, packet);
        if !fits || !(self.sound || self.layout.is_sound(first)) {
            return false;
        }
        self.sound = true;
        if !self.layout.is_sound(packet) {
            return false;
        }
        self.length += size;
        self.count += 1;
        (self.sequence, self.identification) = (other.sequence, other.identification);
        self.pushed = other.pushed;
        self.closed = other.pushed || size < self.size;
        true
    }

    /// How many packets it is made of.
    pub fn count(&self) -> usize {
        self.count
    }

    /// End of the headers; the payloads of the others follow that of the first.
    pub fn payload(&self) -> usize {
        self.layout.payload
    }

    /// Has the headers of the first packet tell of all of them. What goes before it on the way to the device.
    pub fn finish(&self, first: &mut [u8]) -> VnetHeader {
        if self.count == 1 {
            return VnetHeader::default();
        }
        let Layout {
            is_v4,
            is_tcp,
            transport,
            payload,
            ..
        } = self.layout;
        if is_tcp && self.pushed {
            first[transport + 13] |= PUSH;
        }
        self.layout.write_length(first, self.length);
        self.layout.write_partial_checksum(first, self.length);
        VnetHeader {
            needs_checksum: true,
            bundle: match (is_tcp, is_v4) {
                (true, true) => Bundle::Tcp4,
                (true, false) => Bundle::Tcp6,
                (false, _) => Bundle::Udp,
            },
            headers: payload as u16,
            size: self.size as u16,
            checksum_start: transport as u16,
            checksum_offset: self.layout.checksum_offset() as u16,
        }
    }

    /// Whether its numbers follow on the last one's.
    fn is_next(&self, packet: &[u8], other: &Self) -> bool {
        let in_order = match self.layout.is_tcp {
            true => other.sequence == self.sequence.wrapping_add(other.size as u32),
            false => true,
        };
        // Numbered on, as cutting does it. A packet that must not be fragmented has no use for a number (RFC 6864).
        let numbered = other.identification == self.identification.wrapping_add(1);
        in_order && (numbered || !self.layout.is_v4 || self.may_not_be_fragmented(packet))
    }

    fn may_not_be_fragmented(&self, packet: &[u8]) -> bool {
        word(packet, self.layout.network + 6) == Some(DONT_FRAGMENT)
    }

    /// Whether the headers agree in all that is not the single packet's.
    fn same_headers(&self, first: &[u8], packet: &[u8]) -> bool {
        let Layout {
            is_v4,
            is_tcp,
            network,
            transport,
            payload,
        } = self.layout;
        let same = |from: usize, to: usize| first[from..to] == packet[from..to];
        let network_same = match is_v4 {
            // All but length, identification and checksum.
            true => same(0, network + 2) && same(network + 6, network + 10) && same(network + 12, network + 20),
            // All but the length.
            false => same(0, network + 4) && same(network + 6, network + 40),
        };
        let transport_same = match is_tcp {
            // All but sequence number, push flag and checksum: ports, acknowledgement, window, urgent, options.
            true => {
                same(transport, transport + 4)
                    && same(transport + 8, transport + 13)
                    && same(transport + 14, transport + 16)
                    && same(transport + 18, payload)
            }
            false => same(transport, transport + 4),
        };
        network_same && transport_same
    }
}
