//! Cryptokey routing (2): which addresses belong to which peer, for packets to it and from it.

use crate::peer::PeerId;
use fastpath::fib::{Full, Key, NO_ROUTE, Pool, Table, View};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Control's side. An address belongs to the peer with the longest prefix that has it; a prefix belongs to one peer.
pub struct AllowedIps {
    v4: Table<u32>,
    v6: Table<u128>,
    owned: HashMap<PeerId, HashSet<IpNet>>,
}

/// A prefix that was taken from another peer, as wg(8) does: the last one who claims it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Which.
    pub prefix: IpNet,
    /// From whom.
    pub from: PeerId,
}

impl AllowedIps {
    /// Nobody has anything. All changes are to be given the same pool.
    pub fn new(pool: &Pool) -> Self {
        Self {
            v4: Table::new(pool),
            v6: Table::new(pool),
            owned: HashMap::new(),
        }
    }

    /// What workers look up in.
    pub fn view(&self) -> AllowedIpsView {
        AllowedIpsView {
            v4: self.v4.view(),
            v6: self.v6.view(),
        }
    }

    /// The prefixes of a peer, in no order.
    pub fn of(&self, peer: PeerId) -> impl Iterator<Item = IpNet> + '_ {
        self.owned.get(&peer).into_iter().flatten().copied()
    }

    /// The peer that has just this prefix.
    pub fn owner(&self, prefix: &IpNet) -> Option<PeerId> {
        let length = u32::from(prefix.prefix_len());
        let owner = match prefix {
            IpNet::V4(net) => self.v4.get(net.network().to_bits(), length),
            IpNet::V6(net) => self.v6.get(net.network().to_bits(), length),
        };
        owner.map(PeerId)
    }

    /// Gives a peer these prefixes and no others; tells which of them were another's. Prefixes that stay are not touched.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    pub fn set(&mut self, pool: &mut Pool, peer: PeerId, prefixes: &[IpNet]) -> Result<Vec<Taken>, Full> {
        let wanted: HashSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let had = self.owned.get(&peer).cloned().unwrap_or_default();
        let mut done = Vec::new();
        // First what is added: should there be no room, only that has to be undone.
        for &prefix in wanted.difference(&had) {
            match self.insert(pool, prefix, peer) {
                Ok(from) => done.push((prefix, from)),
                Err(full) => {
                    self.undo(pool, &done);
                    return Err(full);
                }
            }
        }
        for (at, &prefix) in had.difference(&wanted).enumerate() {
            if let Err(full) = self.remove(pool, prefix) {
                let removed = had.difference(&wanted).take(at);
                removed.for_each(|&prefix| self.put_back(pool, prefix, peer));
                self.undo(pool, &done);
                return Err(full);
            }
        }
        let taken = done
            .iter()
            .filter_map(|&(prefix, from)| Some(Taken { prefix, from: from? }));
        let taken: Vec<Taken> = taken.collect();
        for Taken { prefix, from } in &taken {
            self.owned.entry(*from).or_default().remove(prefix);
        }
        self.owned.insert(peer, wanted);
        Ok(taken)
    }

    /// Takes everything from a peer that is removed.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    pub fn forget(&mut self, pool: &mut Pool, peer: PeerId) -> Result<(), Full> {
        self.set(pool, peer, &[])?;
        self.owned.remove(&peer);
        Ok(())
    }

    fn insert(&mut self, pool: &mut Pool, prefix: IpNet, peer: PeerId) -> Result<Option<PeerId>, Full> {
        let length = u32::from(prefix.prefix_len());
        let was = match prefix {
            IpNet::V4(net) => self.v4.insert(pool, net.network().to_bits(), length, peer.0)?,
            IpNet::V6(net) => self.v6.insert(pool, net.network().to_bits(), length, peer.0)?,
        };
        Ok(was.map(PeerId))
    }

    fn remove(&mut self, pool: &mut Pool, prefix: IpNet) -> Result<(), Full> {
        let length = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(net) => self.v4.remove(pool, net.network().to_bits(), length)?,
            IpNet::V6(net) => self.v6.remove(pool, net.network().to_bits(), length)?,
        };
        Ok(())
    }

    fn undo(&mut self, pool: &mut Pool, done: &[(IpNet, Option<PeerId>)]) {
        for &(prefix, from) in done {
            match from {
                Some(peer) => self.put_back(pool, prefix, peer),
                // It stays when even that has no room; the next change of this peer takes it away or keeps it.
                None => _ = self.remove(pool, prefix),
            }
        }
    }

    fn put_back(&mut self, pool: &mut Pool, prefix: IpNet, peer: PeerId) {
        // There was room a moment ago. If it is gone, packets of this prefix are dropped: closed, not open.
        _ = self.insert(pool, prefix, peer);
    }
}

/// What workers look up in.
#[derive(Clone)]
pub struct AllowedIpsView {
    v4: Arc<View<u32>>,
    v6: Arc<View<u128>>,
}

impl AllowedIpsView {
    /// Whose address it is.
    #[inline]
    pub fn peer(&self, address: IpAddr) -> Option<PeerId> {
        match address {
            IpAddr::V4(address) => peer(&self.v4, address.to_bits()),
            IpAddr::V6(address) => peer(&self.v6, address.to_bits()),
        }
    }

    /// As [`peer`](Self::peer), of an IPv4 address in host order.
    #[inline(always)]
    pub fn peer_v4(&self, address: u32) -> Option<PeerId> {
        peer(&self.v4, address)
    }

    /// As [`peer`](Self::peer), of an IPv6 address in host order.
    #[inline(always)]
    pub fn peer_v6(&self, address: u128) -> Option<PeerId> {
        peer(&self.v6, address)
    }

    /// Many at once; a peer's number or [`NO_ROUTE`] each.
    ///
    /// # Panics
    /// If there are fewer places than addresses.
    #[inline]
    pub fn peers_v4(&self, addresses: &[u32], peers: &mut [u32]) {
        self.v4.lookup_batch(addresses, peers);
    }

    /// As [`peers_v4`](Self::peers_v4).
    #[inline]
    pub fn peers_v6(&self, addresses: &[u128], peers: &mut [u32]) {
        self.v6.lookup_batch(addresses, peers);
    }
}

#[inline(always)]
fn peer<K: Key>(view: &View<K>, address: K) -> Option<PeerId> {
    Some(view.lookup(address)).filter(|&id| id != NO_ROUTE).map(PeerId)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use fastpath::fib::Pages;
    use fastpath::qsbr::Qsbr;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn table(bytes: usize) -> (Pool, AllowedIps) {
        let pool = Pool::new(bytes, Pages::Small, Arc::new(Qsbr::new(0))).unwrap();
        let allowed = AllowedIps::new(&pool);
        (pool, allowed)
    }

    #[test]
    fn the_longest_prefix_has_it_and_the_last_claim_wins() {
        let (mut pool, mut allowed) = table(4 << 20);
        let view = allowed.view();
        let who = |text: &str| view.peer(text.parse().unwrap()).map(|peer| peer.0);
        let set = |allowed: &mut AllowedIps, pool: &mut Pool, peer, texts: &[&str]| {
            allowed.set(pool, PeerId(peer), &nets(texts)).unwrap()
        };
        assert_eq!(
            set(&mut allowed, &mut pool, 0, &["10.0.0.0/8", "fd00::/8", "0.0.0.0/0"]),
            []
        );
        assert_eq!(set(&mut allowed, &mut pool, 1, &["10.9.0.77/16"]), []);
        assert_eq!(
            ["10.9.1.1", "10.8.1.1", "8.8.8.8", "fd00::1", "2001::1"].map(who),
            [Some(1), Some(0), Some(0), Some(0), None]
        );
        let taken = set(&mut allowed, &mut pool, 2, &["10.9.0.0/16", "fd00::/8"]);
        let from: HashSet<(String, u32)> = taken.iter().map(|t| (t.prefix.to_string(), t.from.0)).collect();
        assert_eq!(from, HashSet::from([("10.9.0.0/16".into(), 1), ("fd00::/8".into(), 0)]));
        assert_eq!(allowed.of(PeerId(1)).count(), 0);

        allowed.forget(&mut pool, PeerId(1)).unwrap();
        assert_eq!(who("10.9.1.1"), Some(2), "what was lost is not taken back");
        set(&mut allowed, &mut pool, 2, &["fd00::/8"]);
        assert_eq!(["10.9.1.1", "fd00::1"].map(who), [Some(0), Some(2)]);
    }

    #[test]
    fn a_full_table_changes_nothing() {
        let (mut pool, mut allowed) = table(64 << 10);
        allowed
            .set(&mut pool, PeerId(1), &nets(&["10.0.0.1/32", "10.0.0.2/32"]))
            .unwrap();
        let many: Vec<IpNet> = (0..40_000u32)
            .map(|n| IpNet::new(IpAddr::V4((n << 16 | 0x0001_0001).into()), 32).unwrap())
            .chain(nets(&["10.0.0.2/32"]))
            .collect();
        allowed.set(&mut pool, PeerId(2), &many).unwrap_err();
        let view = allowed.view();
        assert_eq!(many[..40_000].iter().filter_map(|net| view.peer(net.addr())).count(), 0);
        assert_eq!(view.peer("10.0.0.2".parse().unwrap()), Some(PeerId(1)));
        assert_eq!((allowed.of(PeerId(1)).count(), allowed.of(PeerId(2)).count()), (2, 0));
    }
}
