//! Control's side of forwarding: which routes there are, by whom, and over which paths and adjacencies.
//!
//! A change costs what it changes: a route is one insertion into the lookup table, a neighbour one word. What is
//! referred to is published before what refers to it; what is given up is used again only when every worker has
//! finished the turn it was in.

mod around;
mod changes;
mod paths;

use crate::events::Mac;
use crate::fib::{Pool, Table};
use crate::forwarding::{ADJACENCIES, Forwarding, GROUP_SLOTS, LinkState, PATHS, TABLES_MAX, Vrf, Vrfs};
use crate::generation::Generation;
use crate::meta::{PortId, VrfId};
use crate::publish::{Publisher, Reader};
use crate::qsbr::Qsbr;
use ipnet::IpNet;
use paths::{AdjacencyEntry, Freed, Indices, PathEntry};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Who says so. Where several know a way to one prefix, the first of this list counts; but where that leads
/// onto the link of a neighbour, the neighbour's own, and of default routes a tunnel's before those that are written
/// down or the kernel's: these are the way of what comes out of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A port's address or subnet.
    Connected = 0,
    /// A resource.
    Static = 1,
    /// A tunnel's peer, whose addresses these are.
    Allowed = 2,
    /// A route of the kernel's, which a routing daemon may have put there.
    Kernel = 3,
    /// A neighbour on a connected subnet.
    Neighbour = 4,
}

const ORIGINS: [Origin; 5] = [
    Origin::Connected,
    Origin::Static,
    Origin::Allowed,
    Origin::Kernel,
    Origin::Neighbour,
];

/// As they count for default routes.
const DEFAULT_ORIGINS: [Origin; 5] = [
    Origin::Connected,
    Origin::Allowed,
    Origin::Static,
    Origin::Kernel,
    Origin::Neighbour,
];

/// In which order origins count for a prefix.
fn origins(net: &IpNet) -> [Origin; 5] {
    if net.prefix_len() == 0 {
        DEFAULT_ORIGINS
    } else {
        ORIGINS
    }
}

/// The paths that the origins know, by [`Origin`].
type Candidates = [Option<u32>; ORIGINS.len()];

/// One way among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Port it leaves by.
    pub port: PortId,
    /// Neighbour it goes to.
    pub address: IpAddr,
    /// Its share of the flows, beside the others'.
    pub weight: u16,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To neighbours; at least one.
    Hops(Vec<Hop>),
    /// To us.
    Local,
    /// To whoever has the address behind the port.
    OnLink(PortId),
    /// Into the tunnel behind the port.
    Tunnel(PortId),
    /// Nowhere.
    Drop,
    /// To all hosts of a subnet, or to the subnet itself: not forwarded.
    Broadcast,
    /// Wherever another table leads.
    Table(VrfId),
}

/// A table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The lookup table.
    #[error("the route table is full")]
    Routes,
    /// The paths.
    #[error("there are {PATHS} different next hops already")]
    Paths,
    /// The slots of ECMP groups.
    #[error("the ECMP groups use all of their {GROUP_SLOTS} slots already")]
    Slots,
    /// The adjacencies.
    #[error("there are {ADJACENCIES} neighbours already")]
    Adjacencies,
}

struct Tables {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl Tables {
    fn new(pool: &Pool) -> Self {
        Self {
            v4: Table::new(pool),
            v6: Table::new(pool),
        }
    }

    /// Has a prefix lead to a path, or nowhere.
    fn write(&mut self, pool: &mut Pool, net: IpNet, path: Option<u32>) -> Result<(), Full> {
        let length = u32::from(net.prefix_len());
        match (net.network(), path) {
            (IpAddr::V4(key), Some(id)) => self.v4.insert(pool, key.to_bits(), length, id).map(|_| ()),
            (IpAddr::V6(key), Some(id)) => self.v6.insert(pool, key.to_bits(), length, id).map(|_| ()),
            (IpAddr::V4(key), None) => self.v4.remove(pool, key.to_bits(), length).map(|_| ()),
            (IpAddr::V6(key), None) => self.v6.remove(pool, key.to_bits(), length).map(|_| ()),
        }
        .map_err(|_| Full::Routes)
    }
}

/// All routes.
pub struct Rib {
    forwarding: Arc<Forwarding>,
    qsbr: Arc<Qsbr>,
    pool: Pool,
    tables: Vec<Tables>,
    /// See `around`.
    around: Vec<Tables>,
    /// Prefixes that lead into tunnels.
    tunnels: BTreeSet<(VrfId, IpNet)>,
    vrfs: Publisher<Vrfs>,
    routes: HashMap<(VrfId, IpNet), Candidates>,
    paths: HashMap<Target, PathEntry>,
    keys: HashMap<u32, Target>,
    adjacencies: HashMap<(PortId, IpAddr), AdjacencyEntry>,
    links: HashMap<(PortId, IpAddr), (LinkState, Mac)>,
    ports: HashMap<PortId, (Mac, u16)>,
    /// Neighbours that get less at once than their port takes.
    path_mtus: HashMap<(PortId, IpAddr), u16>,
    /// Ports whose neighbours are known without being asked: they are other ends of tunnels.
    wrapped: HashSet<PortId>,
    free_paths: Indices,
    free_adjacencies: Indices,
    next_slot: u32,
    free_slots: HashMap<u32, Vec<u32>>,
    freed: VecDeque<(u64, Freed)>,
    generation: Generation,
    /// Prefixes whose routes changed, while somebody wants to know.
    changed: Option<Vec<(VrfId, IpNet)>>,
}

impl Rib {
    /// Without routes; `pool` holds the lookup tables of all VRFs.
    pub fn new(forwarding: Arc<Forwarding>, qsbr: Arc<Qsbr>, pool: Pool) -> Self {
        let mut rib = Self {
            forwarding,
            qsbr,
            pool,
            tables: vec![],
            around: vec![],
            tunnels: BTreeSet::new(),
            vrfs: Publisher::new(vec![]),
            routes: HashMap::new(),
            paths: HashMap::new(),
            keys: HashMap::new(),
            adjacencies: HashMap::new(),
            links: HashMap::new(),
            ports: HashMap::new(),
            path_mtus: HashMap::new(),
            wrapped: HashSet::new(),
            free_paths: Indices::new(PATHS),
            free_adjacencies: Indices::new(ADJACENCIES),
            next_slot: 0,
            free_slots: HashMap::new(),
            freed: VecDeque::new(),
            generation: Generation::default(),
            changed: None,
        };
        rib.ensure_vrf(VrfId(0));
        rib
    }

    /// Advanced by each change of a route, before anything that it led to is used again.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// A worker's view of the tables.
    pub fn reader(&self) -> Reader<Vrfs> {
        self.vrfs.reader()
    }

    /// Bytes of the lookup tables, used and reserved.
    pub fn bytes(&self) -> (usize, usize) {
        (self.pool.used_bytes(), self.pool.reserved_bytes())
    }

    /// Paths and adjacencies in use.
    pub fn indices(&self) -> usize {
        self.paths.len() + self.adjacencies.len()
    }

    /// Routes there are, in all tables.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Makes sure that a table exists.
    pub fn ensure_vrf(&mut self, vrf: VrfId) {
        if self.tables.len() > usize::from(vrf.0) {
            return;
        }
        while self.tables.len() <= usize::from(vrf.0) {
            self.tables.push(Tables::new(&self.pool));
            self.around.push(Tables::new(&self.pool));
        }
        let views = self.tables.iter().zip(&self.around).map(|(table, around)| Vrf {
            v4: table.v4.view(),
            v6: table.v6.view(),
            around: (around.v4.view(), around.v6.view()),
        });
        self.vrfs.publish(views.collect());
    }

    /// Says what a port's link address and MTU are, now and for what leads there already.
    pub fn set_port(&mut self, port: PortId, mac: Mac, mtu: u16) {
        self.ports.insert(port, (mac, mtu));
        for (key, entry) in self.adjacencies.iter().filter(|(key, _)| key.0 == port) {
            let mtu = self.path_mtus.get(key).map_or(mtu, |path| mtu.min(*path));
            self.forwarding.set_source(entry.index, mac, mtu);
        }
    }

    /// Says how much at once the way to a neighbour takes, or that no more is known than its port's MTU.
    pub fn set_path_mtu(&mut self, port: PortId, address: IpAddr, path: Option<u16>) {
        let key = (port, address);
        match path {
            Some(mtu) => self.path_mtus.insert(key, mtu),
            None => self.path_mtus.remove(&key),
        };
        if let (Some(entry), Some((mac, mtu))) = (self.adjacencies.get(&key), self.ports.get(&port)) {
            let mtu = path.map_or(*mtu, |path| path.min(*mtu));
            self.forwarding.set_source(entry.index, *mac, mtu);
        }
    }

    /// The neighbours behind a port that routes lead to.
    pub fn neighbours_by(&self, port: PortId) -> impl Iterator<Item = IpAddr> {
        let here = self.adjacencies.keys().filter(move |key| key.0 == port);
        here.map(|key| key.1)
    }

    /// Says whether whoever is behind a port is another end of its tunnel, and known without being asked.
    pub fn set_wrapped(&mut self, port: PortId, wrapped: bool) {
        let changed = match wrapped {
            true => self.wrapped.insert(port),
            false => self.wrapped.remove(&port),
        };
        if changed {
            let entries = self.adjacencies.iter().filter(|(key, _)| key.0 == port);
            let indices: Vec<u32> = entries.map(|(_, entry)| entry.index).collect();
            let state = self.unasked(port);
            indices
                .into_iter()
                .for_each(|index| self.forwarding.set_link(index, state, [0; 6]));
        }
    }

    /// What is known of a neighbour behind a port before anything is known of itself.
    fn unasked(&self, port: PortId) -> LinkState {
        match self.wrapped.contains(&port) {
            true => LinkState::Wrapped,
            false => LinkState::Incomplete,
        }
    }

    /// Says what is known of a neighbour's link, now and for adjacencies to come.
    pub fn set_link(&mut self, port: PortId, address: IpAddr, state: LinkState, mac: Mac) {
        self.links.insert((port, address), (state, mac));
        if let Some(entry) = self.adjacencies.get(&(port, address)) {
            self.forwarding.set_link(entry.index, state, mac);
        }
        self.forwarding.announce();
    }

    /// Whether a packet went to a neighbour since this was last asked.
    pub fn was_used(&self, port: PortId, address: IpAddr) -> bool {
        let entry = self.adjacencies.get(&(port, address));
        entry.is_some_and(|entry| self.forwarding.take_used(entry.index))
    }

    /// Nothing is known of a neighbour any more.
    pub fn clear_link(&mut self, port: PortId, address: IpAddr) {
        self.links.remove(&(port, address));
        if let Some(entry) = self.adjacencies.get(&(port, address)) {
            self.forwarding.set_link(entry.index, LinkState::Incomplete, [0; 6]);
        }
        self.forwarding.announce();
    }

    /// Adds a route, or replaces the one of the same origin.
    ///
    /// # Errors
    /// A table is full; all is as it was.
    pub fn set(&mut self, vrf: VrfId, net: IpNet, origin: Origin, target: &Target) -> Result<(), Full> {
        self.reclaim();
        self.ensure_vrf(vrf);
        let path = self.take_path(target)?;
        let before = self.routes.get(&(vrf, net)).copied().unwrap_or_default();
        let mut after = before;
        after[origin as usize] = Some(path);
        if let Err(full) = self.change(vrf, net, (before, after)) {
            self.leave_path(path);
            return Err(full);
        }
        self.note(vrf, net, origin);
        if let Some(old) = before[origin as usize] {
            self.leave_path(old);
        }
        self.generation.advance();
        self.forwarding.announce();
        Ok(())
    }

    /// Removes a route. Whether there was one.
    ///
    /// # Errors
    /// The lookup table has no room for the change; all is as it was.
    pub fn clear(&mut self, vrf: VrfId, net: IpNet, origin: Origin) -> Result<bool, Full> {
        self.reclaim();
        let Some(before) = self.routes.get(&(vrf, net)).copied() else {
            return Ok(false);
        };
        let mut after = before;
        let Some(old) = after[origin as usize].take() else {
            return Ok(false);
        };
        self.change(vrf, net, (before, after))?;
        self.note(vrf, net, origin);
        self.leave_path(old);
        self.generation.advance();
        self.forwarding.announce();
        Ok(true)
    }

    /// Where packets to an address go if it is not a neighbour's own: the target of the longest prefix around it.
    pub fn covering(&self, vrf: VrfId, address: IpAddr) -> Option<&Target> {
        self.longest(vrf, address, |origin, _| origin != Origin::Neighbour)
    }

    /// The port by which packets to an address leave, or the first of several; none if there is no way.
    pub fn egress(&self, vrf: VrfId, address: IpAddr) -> Option<PortId> {
        self.leaves_by(vrf, address, |_| true)
    }

    /// The same of what tunnels sealed: the routes into tunnels are not for it.
    pub fn egress_around_tunnels(&self, vrf: VrfId, address: IpAddr) -> Option<PortId> {
        self.leaves_by(vrf, address, |target| !matches!(target, Target::Tunnel(_)))
    }

    fn leaves_by(&self, vrf: VrfId, address: IpAddr, counts: impl Fn(&Target) -> bool) -> Option<PortId> {
        let mut vrf = vrf;
        for _ in 0..=TABLES_MAX {
            match self.longest(vrf, address, |_, target| counts(target))? {
                Target::Hops(hops) => return hops.first().map(|hop| hop.port),
                Target::OnLink(port) | Target::Tunnel(port) => return Some(*port),
                Target::Local | Target::Drop | Target::Broadcast => return None,
                Target::Table(next) => vrf = *next,
            }
        }
        None
    }

    /// The target of the longest prefix around an address that has one that counts.
    fn longest(&self, vrf: VrfId, address: IpAddr, counts: impl Fn(Origin, &Target) -> bool) -> Option<&Target> {
        let host = IpNet::from(address);
        (0..=host.prefix_len()).rev().find_map(|length| {
            let net = IpNet::new(address, length).ok()?.trunc();
            let candidates = self.routes.get(&(vrf, net))?;
            let known = origins(&net).into_iter().filter_map(|origin| {
                let target = self.keys.get(&candidates[origin as usize]?)?;
                Some((origin, target))
            });
            known
                .filter(|(origin, target)| counts(*origin, target))
                .map(|(_, target)| target)
                .next()
        })
    }
}
