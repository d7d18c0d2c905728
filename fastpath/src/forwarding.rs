//! Where packets go, as workers read it while control changes it in place: paths and adjacencies.
//!
//! The route lookup gives a path. A path is one word; an adjacency's link address and state are one word too, so a
//! reader sees the old or the new, never a mixture. An index is used again only after every worker has finished the
//! turn it was in when the index was given up (see [`crate::rib`]).

use crate::events::Mac;
use crate::fib;
use crate::meta::{Endpoint, Meta, PortId, VrfId};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Different paths that routes can take.
pub const PATHS: usize = 1 << 16;
/// Neighbours.
pub const ADJACENCIES: usize = 1 << 16;
/// Slots of all ECMP groups together.
pub const GROUP_SLOTS: usize = 1 << 17;
/// Most tables that a packet's routes lead it through, beyond the first.
pub const TABLES_MAX: usize = 8;
/// In [`Meta::adjacency`]: the destination is on the link of [`Meta::egress`], and its adjacency is not yet known.
pub const NO_ADJACENCY: u32 = u32::MAX;
/// In [`Meta::adjacency`]: it is for us.
pub const LOCAL: u32 = u32::MAX - 1;
/// In [`Meta::adjacency`]: it goes into the tunnel of [`Meta::egress`].
pub const TUNNEL: u32 = u32::MAX - 2;

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Nothing: there is no route.
    None,
    /// A neighbour.
    Adjacency(u32),
    /// Several neighbours: the slots `first..first + count`.
    Group {
        /// First slot.
        first: u32,
        /// How many there are; at least one.
        count: u16,
    },
    /// Us.
    Local,
    /// Whoever has the destination address behind this port.
    Glean(PortId),
    /// The tunnel behind this port.
    Tunnel(PortId),
    /// Nowhere, by intent.
    Drop,
    /// All hosts of a subnet, which we do not forward to (RFC 2644), or the subnet itself.
    Broadcast,
    /// Wherever another table of routes says.
    Table(VrfId),
}

impl Path {
    fn encode(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Adjacency(index) => 1 << 56 | u64::from(index),
            Self::Group { first, count } => 2 << 56 | u64::from(count) << 32 | u64::from(first),
            Self::Local => 3 << 56,
            Self::Glean(port) => 4 << 56 | u64::from(port.0),
            Self::Drop => 5 << 56,
            Self::Broadcast => 6 << 56,
            Self::Tunnel(port) => 7 << 56 | u64::from(port.0),
            Self::Table(vrf) => 8 << 56 | u64::from(vrf.0),
        }
    }

    #[inline(always)]
    fn decode(word: u64) -> Self {
        match word >> 56 {
            1 => Self::Adjacency(word as u32),
            2 => Self::Group {
                first: word as u32,
                count: (word >> 32) as u16,
            },
            3 => Self::Local,
            4 => Self::Glean(PortId(word as u16)),
            5 => Self::Drop,
            6 => Self::Broadcast,
            7 => Self::Tunnel(PortId(word as u16)),
            8 => Self::Table(VrfId(word as u16)),
            _ => Self::None,
        }
    }
}

/// Routes lead from table to table without end, or through more than [`TABLES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLoop;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkState {
    /// Its link address is asked for.
    Incomplete = 0,
    /// It is known.
    Complete = 1,
    /// It did not answer.
    Failed = 2,
    /// It is known, and packets to it are wrapped for the way to the other end of its port's tunnel.
    Wrapped = 3,
}

/// Half a cache line: what it takes to send to a neighbour.
#[derive(Default)]
#[repr(align(64))]
struct Cell {
    /// State in bits 48..56, link address in bits 0..48.
    link: AtomicU64,
    /// Our link address in bits 0..48, MTU in bits 48..64.
    source: AtomicU64,
    /// The neighbour's address, mapped into IPv6; not changed while the index is in use.
    address: [AtomicU64; 2],
    /// The port; not changed while the index is in use.
    port: AtomicU32,
    /// Whether a packet went there since control last asked.
    used: AtomicBool,
}

/// An adjacency as a worker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// State and link address.
    link: u64,
    /// Our link address and MTU.
    source: u64,
    /// Where packets leave.
    pub port: PortId,
}

impl Adjacency {
    /// What is known.
    #[inline(always)]
    pub fn state(&self) -> LinkState {
        match self.link >> 48 {
            0 => LinkState::Incomplete,
            1 => LinkState::Complete,
            3 => LinkState::Wrapped,
            _ => LinkState::Failed,
        }
    }

    /// Most bytes from the network header on.
    #[inline(always)]
    pub fn mtu(&self) -> u16 {
        (self.source >> 48) as u16
    }

    /// The neighbour's link address; meaningful when complete.
    pub fn mac(&self) -> Mac {
        mac_of(self.link)
    }

    /// Writes both link addresses to the front of an Ethernet header.
    #[inline(always)]
    pub fn write(&self, header: &mut [u8; 14]) {
        // Network order, high byte first: both addresses in one word and a half.
        let first = self.link << 16 | self.source >> 32 & 0xffff;
        header[..8].copy_from_slice(&first.to_be_bytes());
        header[8..12].copy_from_slice(&(self.source as u32).to_be_bytes());
    }
}

fn mac_bits(mac: Mac) -> u64 {
    mac.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn mac_of(word: u64) -> Mac {
    let bytes = word.to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

/// Paths and adjacencies.
pub struct Forwarding {
    paths: Box<[AtomicU64]>,
    slots: Box<[AtomicU32]>,
    adjacencies: Box<[Cell]>,
    news: AtomicU64,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            paths: (0..PATHS).map(|_| AtomicU64::default()).collect(),
            slots: (0..GROUP_SLOTS).map(|_| AtomicU32::default()).collect(),
            adjacencies: (0..ADJACENCIES).map(|_| Cell::default()).collect(),
            news: AtomicU64::new(0),
        }
    }
}

impl Forwarding {
    /// Bytes of all tables.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.paths) + size_of_val(&*self.slots) + size_of_val(&*self.adjacencies)
    }

    /// What the path that a route lookup found leads to.
    #[inline(always)]
    pub fn path(&self, id: u32) -> Path {
        // `fib::NO_ROUTE` lies beyond the table.
        self.paths
            .get(id as usize)
            .map_or(Path::None, |word| Path::decode(word.load(Ordering::Acquire)))
    }

    /// What the path leads to that a lookup of `address` found, through the tables that it leads through.
    ///
    /// # Errors
    /// It leads from table to table more than [`TABLES_MAX`] times.
    #[inline(never)]
    pub fn resolve(&self, vrfs: &Vrfs, path: Path, address: &Endpoint, is_v4: bool) -> Result<Path, TableLoop> {
        let mut path = path;
        for _ in 0..=TABLES_MAX {
            let Path::Table(vrf) = path else { return Ok(path) };
            path = self.path(lookup(vrfs, vrf, address, is_v4));
        }
        Err(TableLoop)
    }

    /// The adjacency for a flow in an ECMP group.
    #[inline(always)]
    pub fn choose(&self, first: u32, count: u16, hash: u32) -> u32 {
        let slot = first as usize + ((u64::from(hash) * u64::from(count)) >> 32) as usize;
        self.slots
            .get(slot)
            .map_or(NO_ADJACENCY, |slot| slot.load(Ordering::Acquire))
    }

    /// The adjacencies of an ECMP group, those of more weight more than once.
    pub fn slots(&self, first: u32, count: u16) -> impl Iterator<Item = u32> + '_ {
        let slots = self.slots.iter().skip(first as usize).take(usize::from(count));
        slots.map(|slot| slot.load(Ordering::Acquire))
    }

    /// The adjacency at an index, for a packet that goes there: it counts as used.
    #[inline(always)]
    pub fn towards(&self, index: u32) -> Option<Adjacency> {
        let cell = self.adjacencies.get(index as usize)?;
        // Written once in a while, so that the line stays shared among workers.
        if !cell.used.load(Ordering::Relaxed) {
            cell.used.store(true, Ordering::Relaxed);
        }
        self.adjacency(index)
    }

    /// Whether a packet went to an adjacency since this was last asked.
    pub(crate) fn take_used(&self, index: u32) -> bool {
        self.adjacencies[index as usize].used.swap(false, Ordering::Relaxed)
    }

    /// The adjacency at an index.
    #[inline(always)]
    pub fn adjacency(&self, index: u32) -> Option<Adjacency> {
        let cell = self.adjacencies.get(index as usize)?;
        Some(Adjacency {
            link: cell.link.load(Ordering::Acquire),
            source: cell.source.load(Ordering::Relaxed),
            port: PortId(cell.port.load(Ordering::Relaxed) as u16),
        })
    }

    /// The port and address that a packet at its adjacency goes to.
    pub fn next_hop(&self, meta: &Meta) -> (PortId, IpAddr) {
        match self.adjacencies.get(meta.adjacency as usize) {
            Some(cell) => {
                let half = |at: usize| u128::from(cell.address[at].load(Ordering::Relaxed));
                let address = Ipv6Addr::from(half(0) << 64 | half(1));
                (PortId(cell.port.load(Ordering::Relaxed) as u16), address.to_canonical())
            }
            None => (meta.egress, meta.target.ip()),
        }
    }

    /// A number that grows whenever packets that wait, for a neighbour or a tunnel's peer, should try again.
    #[inline(always)]
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Has packets that wait try again. Workers that sleep are to be woken.
    pub fn announce(&self) {
        self.news.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn set_path(&self, id: u32, path: Path) {
        self.paths[id as usize].store(path.encode(), Ordering::Release);
    }

    pub(crate) fn set_slot(&self, slot: u32, adjacency: u32) {
        self.slots[slot as usize].store(adjacency, Ordering::Release);
    }

    /// Sets up an index that nobody uses.
    pub(crate) fn create(&self, index: u32, port: PortId, address: IpAddr, mac: Mac, mtu: u16) {
        let cell = &self.adjacencies[index as usize];
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        cell.address[0].store((bits >> 64) as u64, Ordering::Relaxed);
        cell.address[1].store(bits as u64, Ordering::Relaxed);
        cell.port.store(u32::from(port.0), Ordering::Relaxed);
        cell.used.store(false, Ordering::Relaxed);
        self.set_source(index, mac, mtu);
        self.set_link(index, LinkState::Incomplete, [0; 6]);
    }

    pub(crate) fn set_source(&self, index: u32, mac: Mac, mtu: u16) {
        let word = u64::from(mtu) << 48 | mac_bits(mac);
        self.adjacencies[index as usize].source.store(word, Ordering::Release);
    }

    pub(crate) fn set_link(&self, index: u32, state: LinkState, mac: Mac) {
        let word = (state as u64) << 48 | mac_bits(mac);
        self.adjacencies[index as usize].link.store(word, Ordering::Release);
    }
}

/// One table of routes as workers read it.
#[derive(Clone)]
pub struct Vrf {
    /// IPv4.
    pub v4: Arc<fib::View<u32>>,
    /// IPv6.
    pub v6: Arc<fib::View<u128>>,
    /// The routes of either family that lead into no tunnel, as far as there are routes into tunnels below them.
    pub around: (Arc<fib::View<u32>>, Arc<fib::View<u128>>),
}

/// All tables of routes, by [`crate::meta::VrfId`].
pub type Vrfs = Vec<Vrf>;

/// As [`lookup`] where that leads into a tunnel: the id of the path of the best route that does not.
pub fn lookup_around(vrfs: &Vrfs, vrf: VrfId, address: &Endpoint, is_v4: bool) -> u32 {
    match vrfs.get(usize::from(vrf.0)) {
        Some(table) if is_v4 => table.around.0.lookup(address.v4_bits()),
        Some(table) => table.around.1.lookup(address.v6_bits()),
        None => fib::NO_ROUTE,
    }
}

/// The id of the path of one address in one table, [`fib::NO_ROUTE`] where there is none.
pub fn lookup(vrfs: &Vrfs, vrf: VrfId, address: &Endpoint, is_v4: bool) -> u32 {
    match vrfs.get(usize::from(vrf.0)) {
        Some(table) if is_v4 => table.v4.lookup(address.v4_bits()),
        Some(table) => table.v6.lookup(address.v6_bits()),
        None => fib::NO_ROUTE,
    }
}
