//! The paths that routes take, each there once, and the adjacencies and slots that they lead to.

use super::{Full, Hop, Rib, Target};
use crate::forwarding::{GROUP_SLOTS, Path};
use crate::meta::PortId;
use std::net::IpAddr;

/// Most slots of one ECMP group: weights are rounded beyond.
const SLOTS_MAX: u32 = 4096;

pub(super) struct PathEntry {
    id: u32,
    routes: usize,
    slots: Option<(u32, u32)>,
}

pub(super) struct AdjacencyEntry {
    pub(super) index: u32,
    paths: usize,
}

pub(super) enum Freed {
    Path(u32),
    Slots(u32, u32),
    Adjacency(u32),
}

/// Indices of one table: those never used, and those free again.
pub(super) struct Indices {
    next: u32,
    limit: u32,
    free: Vec<u32>,
}

impl Indices {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            next: 0,
            limit: limit as u32,
            free: vec![],
        }
    }

    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let index = (self.next < self.limit).then_some(self.next)?;
            self.next += 1;
            Some(index)
        })
    }
}

impl Rib {
    /// The id of the path to `target`, made if need be; counts one more route on it.
    pub(super) fn take_path(&mut self, target: &Target) -> Result<u32, Full> {
        if let Some(entry) = self.paths.get_mut(target) {
            entry.routes += 1;
            return Ok(entry.id);
        }
        let id = self.free_paths.take().ok_or(Full::Paths)?;
        let made = match target {
            Target::Hops(hops) => self.make_hops(hops),
            Target::Local => Ok((Path::Local, None)),
            Target::OnLink(port) => Ok((Path::Glean(*port), None)),
            Target::Tunnel(port) => Ok((Path::Tunnel(*port), None)),
            Target::Drop => Ok((Path::Drop, None)),
            Target::Broadcast => Ok((Path::Broadcast, None)),
            Target::Table(vrf) => Ok((Path::Table(*vrf), None)),
        };
        let (path, slots) = made.inspect_err(|_| self.free_paths.free.push(id))?;
        self.forwarding.set_path(id, path);
        self.keys.insert(id, target.clone());
        self.paths.insert(target.clone(), PathEntry { id, routes: 1, slots });
        Ok(id)
    }

    fn make_hops(&mut self, hops: &[Hop]) -> Result<(Path, Option<(u32, u32)>), Full> {
        let mut indices = Vec::with_capacity(hops.len());
        for hop in hops {
            match self.take_adjacency(hop.port, hop.address) {
                Ok(index) => indices.push(index),
                Err(full) => {
                    let taken = &hops[..indices.len()];
                    taken.iter().for_each(|hop| self.leave_adjacency(hop.port, hop.address));
                    return Err(full);
                }
            }
        }
        if let [single] = indices[..] {
            return Ok((Path::Adjacency(single), None));
        }
        let shares = shares(hops);
        let count: u32 = shares.iter().sum();
        let Some(first) = self.take_slots(count) else {
            hops.iter().for_each(|hop| self.leave_adjacency(hop.port, hop.address));
            return Err(Full::Slots);
        };
        let owners = indices
            .iter()
            .zip(shares)
            .flat_map(|(index, share)| (0..share).map(move |_| *index));
        (first..)
            .zip(owners)
            .for_each(|(slot, index)| self.forwarding.set_slot(slot, index));
        Ok((
            Path::Group {
                first,
                count: count as u16,
            },
            Some((first, count)),
        ))
    }

    fn take_slots(&mut self, count: u32) -> Option<u32> {
        if let Some(first) = self.free_slots.get_mut(&count).and_then(Vec::pop) {
            return Some(first);
        }
        let first = self.next_slot;
        let fits = (first + count) as usize <= GROUP_SLOTS;
        self.next_slot += if fits { count } else { 0 };
        fits.then_some(first)
    }

    pub(super) fn leave_path(&mut self, id: u32) {
        let Some(key) = self.keys.get(&id).cloned() else { return };
        let Some(entry) = self.paths.get_mut(&key) else { return };
        entry.routes -= 1;
        if entry.routes > 0 {
            return;
        }
        let stamp = self.qsbr.stamp();
        if let Some((first, count)) = entry.slots {
            self.freed.push_back((stamp, Freed::Slots(first, count)));
        }
        self.freed.push_back((stamp, Freed::Path(id)));
        self.paths.remove(&key);
        self.keys.remove(&id);
        if let Target::Hops(hops) = key {
            hops.iter().for_each(|hop| self.leave_adjacency(hop.port, hop.address));
        }
    }

    fn take_adjacency(&mut self, port: PortId, address: IpAddr) -> Result<u32, Full> {
        if let Some(entry) = self.adjacencies.get_mut(&(port, address)) {
            entry.paths += 1;
            return Ok(entry.index);
        }
        let index = self.free_adjacencies.take().ok_or(Full::Adjacencies)?;
        let (mac, mtu) = self.ports.get(&port).copied().unwrap_or(([0; 6], 0));
        let mtu = self.path_mtus.get(&(port, address)).map_or(mtu, |path| mtu.min(*path));
        self.forwarding.create(index, port, address, mac, mtu);
        let known = self.links.get(&(port, address)).copied();
        let (state, mac) = known.unwrap_or_else(|| (self.unasked(port), [0; 6]));
        self.forwarding.set_link(index, state, mac);
        self.adjacencies
            .insert((port, address), AdjacencyEntry { index, paths: 1 });
        Ok(index)
    }

    fn leave_adjacency(&mut self, port: PortId, address: IpAddr) {
        let Some(entry) = self.adjacencies.get_mut(&(port, address)) else {
            return;
        };
        entry.paths -= 1;
        if entry.paths == 0 {
            let index = entry.index;
            self.adjacencies.remove(&(port, address));
            self.freed.push_back((self.qsbr.stamp(), Freed::Adjacency(index)));
        }
    }

    /// Makes indices free that no worker can still see.
    pub(super) fn reclaim(&mut self) {
        let safe = self.qsbr.safe();
        while self.freed.front().is_some_and(|freed| freed.0 <= safe) {
            match self.freed.pop_front() {
                Some((_, Freed::Path(id))) => self.free_paths.free.push(id),
                Some((_, Freed::Adjacency(index))) => self.free_adjacencies.free.push(index),
                Some((_, Freed::Slots(first, count))) => self.free_slots.entry(count).or_default().push(first),
                None => return,
            }
        }
    }
}

/// How many slots each hop gets: its weight, divided by what all weights have in common.
fn shares(hops: &[Hop]) -> Vec<u32> {
    fn common(one: u32, other: u32) -> u32 {
        if other == 0 { one } else { common(other, one % other) }
    }
    let divisor = hops
        .iter()
        .fold(0, |divisor, hop| common(u32::from(hop.weight.max(1)), divisor));
    let plain: Vec<u32> = hops.iter().map(|hop| u32::from(hop.weight.max(1)) / divisor).collect();
    let total: u32 = plain.iter().sum();
    if total <= SLOTS_MAX {
        return plain;
    }
    plain.iter().map(|share| (share * SLOTS_MAX / total).max(1)).collect()
}
