//! Services: which addresses and ports stand for which backends.
//!
//! A [`Frontend`] is what clients speak to; it leads to a [`Pool`] of backends, of which each new connection gets one.
//! Workers read [`Services`], which never change: control has a [`Book`] of its own, changes that, and publishes it. The
//! two share whatever is the same, in shards, so a change costs what it touches and not what there is.

mod book;
mod fronts;
mod pool;

pub use book::Book;
pub use pool::{Backend, Member, Pool, PoolId};

use fastpath::meta::{Endpoint, Meta, VrfId};
use fronts::Fronts;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Pools that are copied together.
const CHUNK: usize = 64;
/// The protocols of services, by their place in [`Services::node_ports`].
const PROTOCOLS: [u8; 3] = [
    fastpath::wire::protocol::TCP,
    fastpath::wire::protocol::UDP,
    fastpath::wire::protocol::SCTP,
];

/// What clients speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// Table of routes that its packets come in by.
    pub vrf: VrfId,
    /// Its address, mapped into IPv6 and in network order. The unspecified address of a family stands for every address
    /// of the node's of that family, as node ports have them.
    pub address: [u8; 16],
    /// TCP, UDP or SCTP.
    pub protocol: u8,
    /// Its port, host order.
    pub port: u16,
}

impl Frontend {
    /// At an address; at every one of the node's where the address is unspecified.
    pub fn at(vrf: VrfId, address: IpAddr, protocol: u8, port: u16) -> Self {
        let address = mapped(address);
        Self {
            vrf,
            address,
            protocol,
            port,
        }
    }

    fn is_node_port(&self) -> bool {
        self.address == anywhere(&self.address)
    }
}

/// The unspecified address of the family of another.
fn anywhere(address: &[u8; 16]) -> [u8; 16] {
    let v4 = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets();
    if address[..12] == v4[..12] { v4 } else { [0; 16] }
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Its backends.
    pub pool: PoolId,
    /// Whose connections are taken: those of sources in one of these prefixes; everybody's where there are none.
    pub sources: Arc<[Prefix]>,
    /// Whether a client is given an address of ours where its backend is on another node, so that answers come back by
    /// us.
    pub masquerade: bool,
    /// Whether connections are dropped in silence while there is no backend: some other node has one.
    pub silent: bool,
    /// Where backends on other nodes answer clients directly: the pool of this node's own, which get what comes from
    /// another node.
    pub direct: Option<PoolId>,
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bits: u128,
    mask: u128,
}

impl Prefix {
    /// Those that agree with `address` in their first `length` bits.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = u32::from(length) + if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
        let bits = u128::from_be_bytes(mapped(address)) & mask;
        Self { bits, mask }
    }

    /// Whether the address, mapped into IPv6, is one of them.
    pub fn contains(&self, address: &[u8; 16]) -> bool {
        u128::from_be_bytes(*address) & self.mask == self.bits
    }
}

type Chunk = [Option<Arc<Pool>>; CHUNK];

/// All services, as workers read them.
#[derive(Clone)]
pub struct Services {
    fronts: Fronts,
    pools: Vec<Arc<Chunk>>,
    /// A bit for each port that is a node port, by protocol: most packets need no second lookup.
    node_ports: Arc<[Vec<u64>; PROTOCOLS.len()]>,
    /// The node's addresses.
    ours: Arc<HashSet<(VrfId, [u8; 16])>>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            fronts: Fronts::default(),
            pools: vec![],
            node_ports: Arc::new(std::array::from_fn(|_| vec![0; (1 << 16) / 64])),
            ours: Arc::default(),
        }
    }
}

impl Services {
    /// Frontends there are.
    pub fn len(&self) -> usize {
        self.fronts.len()
    }

    /// Whether there is nothing to balance.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where packets to `target` lead, if it is a frontend. `protocol` and `vrf` are theirs.
    #[inline]
    pub fn find(&self, vrf: VrfId, target: &Endpoint, protocol: u8) -> Option<(&Lead, &Pool)> {
        if self.is_empty() || !PROTOCOLS.contains(&protocol) {
            return None;
        }
        let at = Frontend {
            vrf,
            address: target.address,
            protocol,
            port: target.port,
        };
        let lead = self.fronts.get(&at).or_else(|| {
            let is_ours = self.is_node_port(protocol, at.port) && self.ours.contains(&(vrf, at.address));
            let address = anywhere(&at.address);
            is_ours.then(|| self.fronts.get(&Frontend { address, ..at }))?
        })?;
        Some((lead, self.pool(lead.pool)?))
    }

    /// Asks for the cache lines that [`Self::of`] will read first.
    #[inline]
    pub(crate) fn warm(&self, meta: &Meta) {
        let at = Frontend {
            vrf: meta.vrf,
            address: meta.target.address,
            protocol: meta.protocol,
            port: meta.target.port,
        };
        self.fronts.warm(&at);
        if self.is_node_port(at.protocol, at.port) {
            let address = anywhere(&at.address);
            self.fronts.warm(&Frontend { address, ..at });
        }
    }

    /// As [`Self::find`], for where a packet goes.
    #[inline]
    pub fn of(&self, meta: &Meta) -> Option<(&Lead, &Pool)> {
        self.find(meta.vrf, &meta.target, meta.protocol)
    }

    /// The pool of an id.
    #[inline]
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.shared_pool(id).map(|pool| &**pool)
    }

    fn shared_pool(&self, id: PoolId) -> Option<&Arc<Pool>> {
        let id = id.0 as usize;
        self.pools.get(id / CHUNK)?[id % CHUNK].as_ref()
    }

    #[inline]
    fn is_node_port(&self, protocol: u8, port: u16) -> bool {
        let place = PROTOCOLS.iter().position(|one| *one == protocol);
        place.is_some_and(|place| self.node_ports[place][usize::from(port / 64)] >> (port % 64) & 1 != 0)
    }
}

/// An address in network order, IPv4 mapped into IPv6.
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Both halves of the product: each bit of the result depends on all of both.
#[inline(always)]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
#[path = "service/tests.rs"]
mod tests;
