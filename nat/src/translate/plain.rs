//! TCP or UDP in IPv4 without options, which is nearly everything: all that a rewrite changes stands at places that never
//! change, so one pass without a branch does it.

use crate::leg::TranslationV4;
use fastpath::meta::{Flags, Meta};
use fastpath::wire::{ethernet, ipv4, protocol};

/// Where things stand, from the Ethernet header on.
const HOP_LIMIT: usize = ethernet::HEADER + 8;
const CHECKSUM: usize = ethernet::HEADER + 10;
const ADDRESSES: usize = ethernet::HEADER + 12;
const PORTS: usize = ethernet::HEADER + ipv4::HEADER;
/// Bytes before the checksum of UDP.
const HEAD: usize = PORTS + 6;
/// That of TCP, behind those.
const TCP_CHECKSUM: usize = 10;
/// What it adds to a sum that a hop limit is less by one: the complement of its word, and the word (RFC 1624 equation 3).
const ONE_HOP_LESS: u16 = u16::from_ne_bytes([0xfe, 0xff]);

/// Such a packet, from the Ethernet header on.
pub(crate) struct Plain<'a> {
    /// All before UDP's checksum.
    pub head: &'a mut [u8; HEAD],
    /// Of the transport protocol.
    checksum: &'a mut [u8; 2],
    is_udp: bool,
}

impl<'a> Plain<'a> {
    /// Nothing where the packet is another one, or has been cut short.
    #[inline(always)]
    pub fn of(meta: &Meta, data: &'a mut [u8]) -> Option<Self> {
        let is_udp = meta.protocol == protocol::UDP;
        let is_plain = (is_udp | (meta.protocol == protocol::TCP))
            & meta.flags.has(Flags::IPV4)
            & !meta.flags.has(Flags::LATER_FRAGMENT)
            & (usize::from(meta.transport_offset) == ipv4::HEADER);
        let (head, rest) = data.split_first_chunk_mut().filter(|_| is_plain)?;
        let at = if is_udp { 0 } else { TCP_CHECKSUM };
        let checksum = rest.get_mut(at..)?.first_chunk_mut()?;
        Some(Self { head, checksum, is_udp })
    }

    /// Links it may still pass.
    #[inline(always)]
    pub fn hop_limit(&self) -> u8 {
        self.head[HOP_LIMIT]
    }

    /// Gives it other ends, and takes one off its hop limit, which is not 0.
    #[inline(always)]
    pub fn rewrite(self, new: TranslationV4) {
        let source = exchange::<ADDRESSES>(self.head, new.source);
        let target = exchange::<{ ADDRESSES + 4 }>(self.head, new.target);
        let ports = exchange::<PORTS>(self.head, new.ports);
        let addresses = source + target;
        self.head[HOP_LIMIT] -= 1;
        let stored = u16::from_ne_bytes([self.head[CHECKSUM], self.head[CHECKSUM + 1]]);
        let sum = renewed(addresses + u64::from(ONE_HOP_LESS), stored);
        [self.head[CHECKSUM], self.head[CHECKSUM + 1]] = sum.to_ne_bytes();
        let stored = u16::from_ne_bytes(*self.checksum);
        let sum = renewed(addresses + ports, stored);
        // RFC 768: zero says that none was made. Where one is made, zero is written as its complement.
        let of_udp = match (stored, sum) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, sum) => sum,
        };
        *self.checksum = if self.is_udp { of_udp } else { sum }.to_ne_bytes();
    }
}

/// Writes four bytes at a place, and returns what that adds to the sum of a checksum over them.
#[inline(always)]
fn exchange<const AT: usize>(head: &mut [u8; HEAD], new: u32) -> u64 {
    let old = u32::from_ne_bytes([head[AT], head[AT + 1], head[AT + 2], head[AT + 3]]);
    head[AT..AT + 4].copy_from_slice(&new.to_ne_bytes());
    u64::from(!old) + u64::from(new)
}

/// A checksum after a change (RFC 1624 equation 3); pairs of words at once, folded in the end (RFC 1071 section 2 (B)).
#[inline(always)]
fn renewed(change: u64, stored: u16) -> u16 {
    let sum = change + u64::from(!stored);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::{self, Layout};
    use fastpath::meta::Endpoint;
    use fastpath::nodes::adjacency::lower_hop_limit;
    use proptest::prelude::*;

    fn meta(is_udp: bool) -> Meta {
        let mut meta = Meta::default();
        meta.protocol = if is_udp { protocol::UDP } else { protocol::TCP };
        meta.flags = Flags::IPV4;
        (meta.network_offset, meta.transport_offset) = (ethernet::HEADER as u8, ipv4::HEADER as u8);
        meta
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn it_is_what_takes_any_packet_step_by_step(
            mut bytes: [u8; 54], is_udp: bool, unsummed: bool, same: bool, source: [u8; 4], target: [u8; 4], ports: (u16, u16),
        ) {
            bytes[HOP_LIMIT] = bytes[HOP_LIMIT].max(2);
            if unsummed {
                bytes[HEAD..HEAD + 2].fill(0);
            }
            let mut new = TranslationV4 {
                source: u32::from_ne_bytes(source),
                target: u32::from_ne_bytes(target),
                ports: u32::from_ne_bytes([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat().try_into().unwrap()),
            };
            if same {
                let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
                new = TranslationV4 { source: word(ADDRESSES), target: word(ADDRESSES + 4), ports: word(PORTS) };
            }
            let (meta, mut naive) = (meta(is_udp), bytes);
            let end = |address: u32, port: u32| Endpoint::v4(address.to_ne_bytes(), u16::from_be(port as u16));
            let (source, target) = (end(new.source, new.ports), end(new.target, new.ports >> 16));
            prop_assert!(lower_hop_limit(naive.first_chunk_mut().unwrap(), true));
            translate::packet(&mut naive[ethernet::HEADER..], Layout::of(&meta), &source, &target).unwrap();
            Plain::of(&meta, &mut bytes).unwrap().rewrite(new);
            // Two numbers are zero in ones' complement, and both are right.
            for sum in [&mut bytes, &mut naive].map(|bytes| &mut bytes[CHECKSUM..CHECKSUM + 2]) {
                if *sum == [0xff; 2] {
                    sum.fill(0);
                }
            }
            prop_assert_eq!(bytes, naive);
        }
    }

    #[test]
    fn others_are_not_plain() {
        let mut bytes = [0; 54];
        let change: [fn(&mut Meta); 4] = [
            |meta| meta.protocol = protocol::ICMP,
            |meta| meta.flags = Flags::default(),
            |meta| meta.flags.set(Flags::LATER_FRAGMENT),
            |meta| meta.transport_offset = 24,
        ];
        for change in change {
            let mut meta = meta(true);
            assert!(Plain::of(&meta, &mut bytes).is_some());
            change(&mut meta);
            assert!(Plain::of(&meta, &mut bytes).is_none());
        }
        assert!(Plain::of(&meta(true), &mut bytes[..41]).is_none());
        assert!(Plain::of(&meta(false), &mut bytes[..51]).is_none());
    }
}
