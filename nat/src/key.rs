//! The key of one direction of a connection: 40 bytes.

use fastpath::meta::{Endpoint, Flags, Meta, VrfId};
use fastpath::wire::{icmp, protocol};

/// Source (2 words), target (2 words), then ports (32 bits), VRF (16), protocol (8) and family (8).
///
/// Addresses and ports keep the packet's byte order, so that a rewrite stores them as they are. IPv4 is mapped into IPv6
/// and marked as what it is. The key says nothing of the direction: turned round, it is the key of the answers, so an
/// echo request and its reply differ in their addresses only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Key(pub(crate) [u64; 5]);

const FAMILY_SHIFT: u32 = 56;
// Never zero, so that no key has a last word of zero: that marks a leg which is nobody's.
const IPV4: u64 = 1 << FAMILY_SHIFT;
const IPV6: u64 = 2 << FAMILY_SHIFT;

impl Key {
    /// The key of packets from `source` to `target`. `flags` say the family; ports are 0 where a protocol has none, and
    /// the identifier in both places for an echo.
    #[inline(always)]
    pub fn new(source: &Endpoint, target: &Endpoint, protocol: u8, vrf: VrfId, flags: Flags) -> Self {
        let ports = u64::from(source.port.to_be()) | u64::from(target.port.to_be()) << 16;
        let family = if flags.has(Flags::IPV4) { IPV4 } else { IPV6 };
        let tail = ports | u64::from(vrf.0) << 32 | u64::from(protocol) << 48 | family;
        let [[a, b], [c, d]] = [source, target].map(|end| words(&end.address));
        Self([a, b, c, d, tail])
    }

    /// The key of a packet that `parse` has seen, or `None` where it has no flow of its own: messages of ICMP other than
    /// echoes. (Errors belong to the flow they speak of; queries other than echo are not tracked.) Ports of later
    /// fragments have to be written into `meta` before.
    pub fn of(meta: &Meta) -> Option<Self> {
        if Self::is_plain(meta) {
            return Some(Self::of_plain(meta));
        }
        let kind = (meta.target.port >> 8) as u8;
        let is_echo = match meta.protocol {
            protocol::ICMP => matches!(kind, icmp::v4::ECHO_REQUEST | icmp::v4::ECHO_REPLY),
            _ => matches!(kind, icmp::v6::ECHO_REQUEST | icmp::v6::ECHO_REPLY),
        };
        let port = meta.source.port;
        let target = Endpoint { port, ..meta.target };
        is_echo.then(|| Self::new(&meta.source, &target, meta.protocol, meta.vrf, meta.flags))
    }

    /// Whether the ends in a packet's meta are those of its key: all but ICMP.
    #[inline(always)]
    pub(crate) fn is_plain(meta: &Meta) -> bool {
        !matches!(meta.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// [`Self::of`] for those, which has only to be moved from the meta to where it is kept: a key that is put together
    /// on the way waits for its parts to be stored.
    #[inline(always)]
    pub(crate) fn of_plain(meta: &Meta) -> Self {
        Self::new(&meta.source, &meta.target, meta.protocol, meta.vrf, meta.flags)
    }

    /// The key of packets that go the other way.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        let [a, b, c, d, tail] = self.0;
        let ports = (tail as u32).rotate_left(16);
        Self([c, d, a, b, tail & !0xffff_ffff | u64::from(ports)])
    }

    /// Whether it is a key of IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.0[4] & IPV4 != 0
    }

    /// Where packets come from.
    pub fn source(&self) -> Endpoint {
        Endpoint {
            address: bytes([self.0[0], self.0[1]]),
            port: u16::from_be(self.0[4] as u16),
        }
    }

    /// Where packets go.
    pub fn target(&self) -> Endpoint {
        Endpoint {
            address: bytes([self.0[2], self.0[3]]),
            port: u16::from_be((self.0[4] >> 16) as u16),
        }
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.0[4] >> 48) as u8
    }

    /// Table of routes of the packets.
    pub fn vrf(&self) -> VrfId {
        VrfId((self.0[4] >> 32) as u16)
    }

    /// Source port in the low half, target port in the high half, in memory order.
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        self.0[4] as u32
    }
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let bits = u128::from_ne_bytes(*address).to_le();
    [bits as u64, (bits >> 64) as u64].map(u64::to_le)
}

fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(protocol: u8, source: Endpoint, target: Endpoint, flags: Flags) -> Meta {
        let mut meta = Meta::default();
        (meta.protocol, meta.source, meta.target, meta.flags) = (protocol, source, target, flags);
        meta
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            from: [u8; 16], to: [u8; 16], ports: (u16, u16), protocol in 0..=255u8, vrf: u16, v4: bool,
        ) {
            let end = |address: [u8; 16], port| match v4 {
                true => Endpoint::v4([address[0], address[1], address[2], address[3]], port),
                false => Endpoint { address, port },
            };
            let (source, target) = (end(from, ports.0), end(to, ports.1));
            let key = Key::new(&source, &target, protocol, VrfId(vrf), Flags::IPV4.when(v4));
            prop_assert_eq!((key.source(), key.target()), (source, target));
            prop_assert_eq!((key.protocol(), key.vrf(), key.is_v4()), (protocol, VrfId(vrf), v4));
            let back = key.reversed();
            prop_assert_eq!((back.source(), back.target()), (target, source));
            prop_assert_eq!(back.reversed(), key);
            prop_assert!(key.0[4] != 0, "zero marks a free leg");
        }
    }

    #[test]
    fn a_mapped_address_is_not_the_ipv4_one() {
        let (a, b) = (Endpoint::v4([10, 0, 0, 1], 1), Endpoint::v4([10, 0, 0, 2], 2));
        let key = |flags| Key::new(&a, &b, 17, VrfId(0), flags);
        assert_ne!(key(Flags::IPV4), key(Flags::default()));
        assert_eq!(key(Flags::IPV4).0[0], 0);
        assert_eq!(key(Flags::IPV4).0[1] as u32, 0xffff_0000u32.to_le(), "mapped");
    }

    #[test]
    fn an_echo_and_its_reply_are_one_flow() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let kind = |kind: u8| u16::from(kind) << 8;
        for (request, reply, protocol) in [(8, 0, protocol::ICMP), (128, 129, protocol::ICMPV6)] {
            let there = meta(
                protocol,
                Endpoint::v4(a, 77),
                Endpoint::v4(b, kind(request)),
                Flags::IPV4,
            );
            let back = meta(protocol, Endpoint::v4(b, 77), Endpoint::v4(a, kind(reply)), Flags::IPV4);
            assert_eq!(Key::of(&there).unwrap().reversed(), Key::of(&back).unwrap());
        }
        let error = meta(
            protocol::ICMP,
            Endpoint::v4(a, 0),
            Endpoint::v4(b, kind(3)),
            Flags::IPV4,
        );
        assert_eq!(Key::of(&error), None);
    }
}
