//! Packets of a batch that are judged together.

use crate::classify::{Judgement, Vector};
use crate::packet::{Packet, VECTOR};
use crate::program::ChainId;
use crate::rule::IpVersion;
use fastpath::meta::{Flags, Meta};

/// Packets to be judged, and their places in the batch. Room for a whole vector, used again for every one.
pub(super) struct Questions {
    packets: Vec<Packet>,
    places: Vec<u16>,
    lengths: Vec<u16>,
    judgements: Box<[Judgement; VECTOR]>,
}

impl Questions {
    pub(super) fn new() -> Questions {
        Questions {
            packets: Vec::with_capacity(VECTOR),
            places: Vec::with_capacity(VECTOR),
            lengths: Vec::with_capacity(VECTOR),
            judgements: Box::new([Judgement::NO_CHAIN; VECTOR]),
        }
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.places.clear();
        self.lengths.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Asks what a chain says of the packet at a place, of so many bytes.
    pub(super) fn ask(&mut self, place: usize, packet: &Packet, length: u16, chain: ChainId) {
        self.packets.push(Packet { chain, ..*packet });
        self.places.push(place as u16);
        self.lengths.push(length);
    }

    /// The answers, with the places of the packets and the chains asked, which the rules that they meet count.
    pub(super) fn answers(
        &mut self,
        vector: &mut Vector<'_>,
        now_ns: u64,
    ) -> impl Iterator<Item = (usize, ChainId, &Judgement)> {
        let judgements = &mut self.judgements[..self.packets.len()];
        vector.count(&self.packets, &self.lengths, now_ns, judgements);
        let asked = self.places.iter().zip(&self.packets);
        asked
            .zip(&*judgements)
            .map(|((place, packet), judgement)| (usize::from(*place), packet.chain, judgement))
    }
}

/// Bytes of a packet from the IP header on.
#[inline(always)]
pub(crate) fn length(meta: &Meta) -> u16 {
    meta.length().saturating_sub(meta.network_offset.into())
}

/// The family of a packet.
#[inline(always)]
pub(crate) fn version(meta: &Meta) -> IpVersion {
    match meta.flags.has(Flags::IPV4) {
        true => IpVersion::V4,
        false => IpVersion::V6,
    }
}

/// The packet of a meta, before a chain is known.
#[inline(always)]
pub(crate) fn packet(meta: &Meta) -> Packet {
    Packet {
        source: meta.source,
        target: meta.target,
        protocol: meta.protocol,
        version: version(meta),
        chain: ChainId::default(),
    }
}
