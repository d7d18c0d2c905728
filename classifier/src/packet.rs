//! Packets as the classifier sees them, one at a time and in columns.

use crate::program::ChainId;
use crate::rule::{IpVersion, WITH_PORTS};
use crate::sets::Class;
use fastpath::meta::Endpoint;

/// Packets judged together.
pub const VECTOR: usize = 256;

/// What rules look at. A fragment other than the first is not classified: it goes the way of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: Endpoint,
    /// Where it goes to. The port of ICMP is its type and code.
    pub target: Endpoint,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// Its IP version.
    pub version: IpVersion,
    /// The policies it has to pass: those of one endpoint in one direction.
    pub chain: ChainId,
}

impl Packet {
    /// Whether its protocol has ports.
    pub fn has_ports(&self) -> bool {
        WITH_PORTS.contains(&self.protocol)
    }

    /// Whether it is ICMP of its IP version.
    pub fn is_icmp(&self) -> bool {
        self.protocol == self.version.icmp()
    }
}

/// What patterns look at; `W` words an address: 1 for IPv4, 4 for IPv6. Host order, the most significant word first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<const W: usize> {
    /// Source address.
    pub source: [u32; W],
    /// Target address.
    pub target: [u32; W],
    /// Source port in the low half, target port in the high one.
    pub ports: u32,
    /// Protocol number.
    pub protocol: u32,
}

impl<const W: usize> Key<W> {
    /// Of a packet whose addresses have `W` words.
    #[inline(always)]
    pub fn new(packet: &Packet) -> Key<W> {
        Key {
            source: words(&packet.source.address),
            target: words(&packet.target.address),
            ports: u32::from(packet.source.port) | u32::from(packet.target.port) << 16,
            protocol: u32::from(packet.protocol),
        }
    }
}

/// The last `W` words of an address: an IPv4 one is the last of its mapped form.
#[inline(always)]
fn words<const W: usize>(address: &[u8; 16]) -> [u32; W] {
    std::array::from_fn(|i| {
        let at = 16 - 4 * W + 4 * i;
        u32::from_be_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
    })
}

/// Up to [`VECTOR`] packets in columns, with the classes of their addresses.
#[repr(C, align(64))]
pub struct Columns<const W: usize> {
    pub(crate) source: [[u32; VECTOR]; W],
    pub(crate) target: [[u32; VECTOR]; W],
    pub(crate) ports: [u32; VECTOR],
    pub(crate) protocol: [u32; VECTOR],
    pub(crate) source_class: [Class; VECTOR],
    pub(crate) target_class: [Class; VECTOR],
    /// Which packet of the vector this is.
    pub(crate) packet: [u8; VECTOR],
    pub(crate) len: usize,
}

const _: () = assert!(VECTOR == 1 << u8::BITS, "packet numbers are bytes");

impl<const W: usize> Columns<W> {
    /// None.
    pub fn new() -> Columns<W> {
        Columns {
            source: [[0; VECTOR]; W],
            target: [[0; VECTOR]; W],
            ports: [0; VECTOR],
            protocol: [0; VECTOR],
            source_class: [Class::default(); VECTOR],
            target_class: [Class::default(); VECTOR],
            packet: [0; VECTOR],
            len: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds packet `number` of the vector, with the classes of its addresses.
    ///
    /// # Panics
    /// If there are [`VECTOR`] already.
    #[inline(always)]
    pub fn push(&mut self, number: u8, key: &Key<W>, classes: [Class; 2]) {
        let at = self.len;
        for w in 0..W {
            self.source[w][at] = key.source[w];
            self.target[w][at] = key.target[w];
        }
        self.ports[at] = key.ports;
        self.protocol[at] = key.protocol;
        [self.source_class[at], self.target_class[at]] = classes;
        self.packet[at] = number;
        self.len += 1;
    }

    /// Row `at` again.
    #[inline(always)]
    pub fn key(&self, at: usize) -> Key<W> {
        Key {
            source: std::array::from_fn(|w| self.source[w][at]),
            target: std::array::from_fn(|w| self.target[w][at]),
            ports: self.ports[at],
            protocol: self.protocol[at],
        }
    }

    /// The classes of source and target of row `at`.
    #[inline(always)]
    pub fn classes(&self, at: usize) -> [Class; 2] {
        [self.source_class[at], self.target_class[at]]
    }

    /// Keeps the first `len` rows.
    pub fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
    }

    /// Moves row `from` to row `to`.
    #[inline(always)]
    pub fn shift(&mut self, from: usize, to: usize) {
        for w in 0..W {
            self.source[w][to] = self.source[w][from];
            self.target[w][to] = self.target[w][from];
        }
        self.ports[to] = self.ports[from];
        self.protocol[to] = self.protocol[from];
        self.source_class[to] = self.source_class[from];
        self.target_class[to] = self.target_class[from];
        self.packet[to] = self.packet[from];
    }
}

impl<const W: usize> Default for Columns<W> {
    fn default() -> Self {
        Columns::new()
    }
}
