//! Marks on packets that leave the cluster: the DSCP in their IP header (RFC 2474 section 3).

use crate::meta::Endpoint;
use crate::wire::checksum;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses of both families, as ranges that are sorted and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges(Vec<(u128, u128)>);

impl AddressRanges {
    /// The addresses of these prefixes.
    pub fn new(prefixes: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let mut each: Vec<_> = prefixes.into_iter().map(range).collect();
        each.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(each.len());
        for (first, last) in each {
            match ranges.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        Self(ranges)
    }

    /// Whether it is one of them.
    pub fn contain(&self, address: &[u8; 16]) -> bool {
        let address = u128::from_be_bytes(*address);
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind > 0 && address <= self.0[behind - 1].1
    }
}

/// The first and the last address of a prefix; IPv4 as mapped (RFC 4291 section 2.5.5.2), which is how packets' ends are kept.
fn range((address, length): (IpAddr, u8)) -> (u128, u128) {
    let (address, host_bits) = match address {
        IpAddr::V4(address) => (Endpoint::v4(address.octets(), 0).v6_bits(), 32u8.saturating_sub(length)),
        IpAddr::V6(address) => (address.to_bits(), 128u8.saturating_sub(length)),
    };
    let host = u128::MAX.checked_shr(128 - u32::from(host_bits)).unwrap_or(0);
    (address & !host, address | host)
}

/// What packets from a port are marked with, and which are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marking {
    /// 0 to 63.
    pub dscp: u8,
    /// What goes there keeps its mark.
    pub cluster: Arc<AddressRanges>,
}

impl Marking {
    /// Marks an IP packet, if it leaves the cluster. Its congestion mark stays (RFC 3168 section 5). What is too short for
    /// a header stays as it is.
    pub fn apply(&self, network: &mut [u8]) {
        let is_v4 = network.first().is_some_and(|first| first >> 4 == 4);
        let target = match is_v4 {
            true => network
                .get(16..20)
                .and_then(<[u8]>::first_chunk)
                .map(|target| Endpoint::v4(*target, 0).address),
            false => network.get(24..40).and_then(<[u8]>::first_chunk).copied(),
        };
        let Some(header) = network.first_chunk_mut::<12>() else {
            return;
        };
        if target.is_none_or(|target| self.cluster.contain(&target)) {
            return;
        }
        let old = u16::from_be_bytes([header[0], header[1]]);
        let at = if is_v4 { 2 } else { 6 };
        let new = old & !(0x3f << at) | u16::from(self.dscp & 0x3f) << at;
        [header[0], header[1]] = new.to_be_bytes();
        if is_v4 {
            [header[10], header[11]] = checksum::replace_word([header[10], header[11]], old, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapped(address: IpAddr) -> [u8; 16] {
        match address {
            IpAddr::V4(address) => Endpoint::v4(address.octets(), 0).address,
            IpAddr::V6(address) => address.octets(),
        }
    }

    fn contains((net, length): (IpAddr, u8), address: IpAddr) -> bool {
        crate::interfaces::shares_prefix(net, address, length)
    }

    /// Few bits differ, so that prefixes touch, and contain each other.
    fn any_address() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0..64u8, 0..4u8).prop_map(|(is_v4, low, high)| match is_v4 {
            true => IpAddr::from([10 + high, 0, 0, low]),
            false => {
                let mut octets = [0; 16];
                (octets[0], octets[15]) = (0xfc + high, low);
                octets.into()
            }
        })
    }

    fn any_prefix() -> impl Strategy<Value = (IpAddr, u8)> {
        let v4_length = prop_oneof![Just(0u8), 6..=8u8, 26..=32u8];
        (any_address(), v4_length, any::<bool>()).prop_map(|(address, length, deep)| match address {
            IpAddr::V4(_) => (address, length),
            IpAddr::V6(_) if deep => (address, length + 96),
            IpAddr::V6(_) => (address, length.min(8)),
        })
    }

    proptest! {
        #[test]
        fn ranges_are_what_one_prefix_after_the_other_says(
            prefixes in prop::collection::vec(any_prefix(), 0..12), addresses in prop::collection::vec(any_address(), 64),
        ) {
            let ranges = AddressRanges::new(prefixes.iter().copied());
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            for address in addresses {
                let naive = prefixes.iter().any(|prefix| {
                    // `::/0` has the mapped addresses in it.
                    contains(*prefix, address) || (address.is_ipv4() && contains(*prefix, IpAddr::from(mapped(address))))
                });
                prop_assert_eq!(ranges.contain(&mapped(address)), naive, "{}", address);
            }
        }
    }
}
