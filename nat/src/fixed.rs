//! Static NAT: addresses outside that stand for addresses inside, one for one, whatever the protocol and the port.
//!
//! What comes to the address outside goes to the one inside before policy is asked, which sees where it really goes. What
//! the one inside begins with the world comes from the one outside.

use crate::service::{Prefix, mapped};
use fastpath::meta::{Endpoint, VrfId};
use std::collections::HashMap;
use std::net::IpAddr;

/// Table of routes that all of them are in, as services are.
const VRF: VrfId = VrfId(0);

/// All of them. Part of a snapshot, replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    inward: HashMap<[u8; 16], [u8; 16]>,
    outward: HashMap<IpAddr, IpAddr>,
    near: Vec<Prefix>,
}

impl Fixed {
    /// Of pairs of an address outside and one inside, of one family. Where several stand for one, it comes from the
    /// first. What goes to an address in one of `near` keeps its source.
    pub fn new(pairs: impl Iterator<Item = (IpAddr, IpAddr)>, near: Vec<Prefix>) -> Self {
        let mut fixed = Self {
            near,
            ..Self::default()
        };
        for (outside, inside) in pairs {
            fixed.inward.insert(mapped(outside), mapped(inside));
            fixed.outward.entry(inside).or_insert(outside);
        }
        fixed
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inward.is_empty()
    }

    /// Where packets to `target` really go.
    #[inline]
    pub fn target(&self, vrf: VrfId, target: Endpoint) -> Endpoint {
        let inside = match self.is_empty() || vrf != VRF {
            true => None,
            false => self.inward.get(&target.address),
        };
        Endpoint {
            address: inside.copied().unwrap_or(target.address),
            ..target
        }
    }

    /// What a connection of `source` to `target` comes from. One that speaks to itself is told from nobody by its own
    /// address, wherever that lies.
    pub fn source(&self, vrf: VrfId, source: IpAddr, target: IpAddr) -> Option<IpAddr> {
        if self.is_empty() || vrf != VRF {
            return None;
        }
        let outside = self.outward.get(&source)?;
        let is_near = source != target && self.near.iter().any(|prefix| prefix.contains(&mapped(target)));
        (!is_near).then_some(*outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_stands_for_one_and_what_is_near_sees_the_one_inside() {
        let pairs = [
            ("192.0.2.10", "10.1.0.5"),
            ("192.0.2.11", "10.1.0.5"),
            ("2001:db8::5", "fd00::5"),
        ];
        let near = vec![Prefix::new(address("10.0.0.0"), 8)];
        let pairs = pairs.map(|(outside, inside)| (address(outside), address(inside)));
        let fixed = Fixed::new(pairs.into_iter(), near);
        let target = |vrf, text: &str| {
            let (address, port) = (mapped(address(text)), 80);
            fixed.target(VrfId(vrf), Endpoint { address, port }).ip()
        };
        assert_eq!(target(0, "192.0.2.10"), address("10.1.0.5"));
        assert_eq!(target(0, "192.0.2.11"), address("10.1.0.5"));
        assert_eq!(target(0, "2001:db8::5"), address("fd00::5"));
        assert_eq!(target(0, "192.0.2.12"), address("192.0.2.12"));
        assert_eq!(target(1, "192.0.2.10"), address("192.0.2.10"), "another table");
        let source = |from: &str, to: &str| fixed.source(VRF, address(from), address(to));
        assert_eq!(source("10.1.0.5", "198.51.100.7"), Some(address("192.0.2.10")));
        assert_eq!(source("10.1.0.5", "10.2.0.1"), None, "near");
        assert_eq!(source("10.1.0.5", "10.1.0.5"), Some(address("192.0.2.10")), "itself");
        assert_eq!(source("10.1.0.6", "198.51.100.7"), None);
    }
}
