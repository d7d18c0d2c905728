//! The kernel's table, as it was told.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelHop {
    /// The device that it leaves by.
    pub ifindex: u32,
    /// The router; none where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its share among the hops of the route.
    pub weight: u16,
}

impl KernelHop {
    /// Where packets end that the kernel is told to drop: `blackhole`, `unreachable`, `prohibit`.
    pub const NOWHERE: Self = Self {
        ifindex: 0,
        gateway: None,
        weight: 1,
    };
}

/// A route of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Who gave it to the kernel (`RTPROT_*`).
    pub protocol: u8,
    /// Its ways, in order; at least one. Routes with the same ways share them.
    pub hops: Arc<[KernelHop]>,
}

/// The routes, by prefix and metric, and which prefixes changed.
#[derive(Default)]
pub struct Mirror {
    routes: BTreeMap<(IpNet, u32), (KernelRoute, bool)>,
    ways: HashSet<Arc<[KernelHop]>>,
    changed: HashSet<IpNet>,
    /// Which of two readings of the whole table is the last one.
    reading: bool,
}

impl Mirror {
    /// A route that the kernel has. It takes the place of one with its prefix and metric if it `replaces` it, or if that
    /// was not seen in this reading; else they are one with the ways of both, as the kernel tells of IPv6.
    pub fn add(&mut self, net: IpNet, metric: u32, mut route: KernelRoute, replaces: bool) {
        let known = self.routes.get(&(net, metric));
        if let Some((before, reading)) = known
            && *reading == self.reading
            && !replaces
        {
            route.hops = union(&before.hops, &route.hops);
        }
        let is_new = known.is_none_or(|(before, _)| *before != route);
        route.hops = self.share(route.hops);
        self.routes.insert((net, metric), (route, self.reading));
        if is_new {
            self.changed.insert(net);
        }
    }

    /// Ways that the kernel no longer has: the route goes with the last one.
    pub fn remove(&mut self, net: IpNet, metric: u32, hops: &[KernelHop]) {
        let Some((before, _)) = self.routes.get(&(net, metric)) else {
            return;
        };
        let left = without(&before.hops, hops);
        self.changed.insert(net);
        if left.is_empty() {
            self.routes.remove(&(net, metric));
            return;
        }
        let left = self.share(left.into());
        if let Some((route, _)) = self.routes.get_mut(&(net, metric)) {
            route.hops = left;
        }
    }

    /// The whole table is read anew.
    pub fn begin(&mut self) {
        self.reading = !self.reading;
    }

    /// It was read: what was not seen has gone.
    pub fn finish(&mut self) {
        let (reading, changed) = (self.reading, &mut self.changed);
        self.routes.retain(|(net, _), (_, seen)| {
            if *seen != reading {
                changed.insert(*net);
            }
            *seen == reading
        });
        self.ways.retain(|ways| Arc::strong_count(ways) > 1);
    }

    /// The route of a prefix with the lowest metric among those with a way that counts, and these ways;
    /// what leads nowhere counts always.
    pub fn best(&self, net: IpNet, counts: impl Fn(&KernelHop) -> bool) -> Option<(u8, Vec<KernelHop>)> {
        let of_net = self.routes.range((net, 0)..=(net, u32::MAX));
        let ways = of_net.map(|(_, (route, _))| {
            let is_way = |hop: &&KernelHop| **hop == KernelHop::NOWHERE || counts(hop);
            let hops: Vec<_> = route.hops.iter().filter(is_way).copied().collect();
            (route.protocol, hops)
        });
        ways.into_iter().find(|(_, hops)| !hops.is_empty())
    }

    /// Some of the prefixes that changed since they were last taken.
    pub fn take_changed(&mut self, limit: usize) -> Vec<IpNet> {
        let some: Vec<IpNet> = self.changed.iter().take(limit).copied().collect();
        for net in &some {
            self.changed.remove(net);
        }
        if self.changed.is_empty() {
            // A flap leaves no memory behind.
            self.changed = HashSet::new();
        }
        some
    }

    /// Whether there are prefixes that changed.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Every prefix counts as changed.
    pub fn change_all(&mut self) {
        self.changed.extend(self.routes.keys().map(|(net, _)| net));
    }

    fn share(&mut self, hops: Arc<[KernelHop]>) -> Arc<[KernelHop]> {
        if let Some(known) = self.ways.get(&hops) {
            return known.clone();
        }
        if self.ways.len() > WAYS_SHARED {
            self.ways.retain(|ways| Arc::strong_count(ways) > 1);
        }
        if self.ways.len() <= WAYS_SHARED {
            self.ways.insert(hops.clone());
        }
        hops
    }
}

/// Sets of ways that routes share; beyond, a route has its own.
const WAYS_SHARED: usize = 4096;

fn union(some: &[KernelHop], more: &[KernelHop]) -> Arc<[KernelHop]> {
    let mut all = without(some, more);
    all.extend(more);
    all.sort_unstable();
    all.into()
}

/// Weights do not count: the kernel leaves them out where it tells of a single way of several.
fn without(hops: &[KernelHop], others: &[KernelHop]) -> Vec<KernelHop> {
    let is_other = |hop: &KernelHop| {
        let mut others = others.iter();
        others.any(|other| (other.ifindex, other.gateway) == (hop.ifindex, hop.gateway))
    };
    hops.iter().filter(|hop| !is_other(hop)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(gateways: &[&str]) -> KernelRoute {
        let hop = |gateway: &&str| KernelHop {
            ifindex: if gateway.starts_with("10.1.") { 1 } else { 2 },
            gateway: gateway.parse().ok(),
            weight: 1,
        };
        KernelRoute {
            protocol: 12,
            hops: gateways.iter().map(hop).collect(),
        }
    }

    fn net() -> IpNet {
        "10.7.0.0/16".parse().unwrap()
    }

    fn gateways(mirror: &Mirror, counts: impl Fn(&KernelHop) -> bool) -> Vec<String> {
        let hops = mirror.best(net(), counts).map_or_else(Vec::new, |(_, hops)| hops);
        hops.iter().map(|hop| hop.gateway.unwrap().to_string()).collect()
    }

    #[test]
    fn the_lowest_metric_with_a_way_that_counts_is_the_route() {
        let mut mirror = Mirror::default();
        mirror.add(net(), 20, route(&["10.1.0.1", "10.2.0.1"]), false);
        mirror.add(net(), 10, route(&["10.2.0.2"]), false);
        assert_eq!(gateways(&mirror, |_| true), ["10.2.0.2"]);
        assert_eq!(gateways(&mirror, |hop| hop.ifindex == 1), ["10.1.0.1"]);
        mirror.remove(net(), 10, &route(&["10.2.0.2"]).hops);
        assert_eq!(gateways(&mirror, |_| true), ["10.1.0.1", "10.2.0.1"]);
    }

    #[test]
    fn what_leads_nowhere_counts_unless_a_better_route_does() {
        let mut mirror = Mirror::default();
        let nowhere: Arc<[_]> = [KernelHop::NOWHERE].into();
        let blackhole = KernelRoute {
            protocol: 12,
            hops: nowhere.clone(),
        };
        mirror.add(net(), 20, blackhole, false);
        mirror.add(net(), 10, route(&["10.2.0.1"]), false);
        assert_eq!(gateways(&mirror, |_| true), ["10.2.0.1"]);
        assert_eq!(mirror.best(net(), |hop| hop.ifindex == 1), Some((12, nowhere.to_vec())));
        mirror.remove(net(), 20, &nowhere);
        assert_eq!(mirror.best(net(), |hop| hop.ifindex == 1), None);
    }

    #[test]
    fn ways_are_appended_replaced_and_taken_away() {
        let mut mirror = Mirror::default();
        mirror.add(net(), 0, route(&["10.1.0.1"]), false);
        mirror.add(net(), 0, route(&["10.1.0.2"]), false);
        assert_eq!(gateways(&mirror, |_| true), ["10.1.0.1", "10.1.0.2"]);
        let mut first = route(&["10.1.0.1"]).hops.to_vec();
        first[0].weight = 9;
        mirror.remove(net(), 0, &first);
        assert_eq!(gateways(&mirror, |_| true), ["10.1.0.2"]);
        mirror.add(net(), 0, route(&["10.1.0.3"]), true);
        assert_eq!(gateways(&mirror, |_| true), ["10.1.0.3"]);
        mirror.remove(net(), 0, &route(&["10.1.0.3"]).hops);
        assert_eq!(mirror.best(net(), |_| true), None);
    }

    #[test]
    fn a_flap_is_one_change_and_a_reading_finds_what_was_missed() {
        let mut mirror = Mirror::default();
        for _ in 0..100 {
            mirror.add(net(), 0, route(&["10.1.0.1"]), false);
            mirror.remove(net(), 0, &route(&["10.1.0.1"]).hops);
        }
        mirror.add(net(), 0, route(&["10.1.0.1"]), false);
        assert_eq!(mirror.take_changed(10), [net()]);
        // Read again, the same: nothing changed. Another way: it takes the place of the one before.
        for (gateways, changed) in [(["10.1.0.1"], 0), (["10.1.0.2"], 1)] {
            mirror.begin();
            mirror.add(net(), 0, route(&gateways), false);
            mirror.finish();
            assert_eq!(mirror.take_changed(10).len(), changed);
        }
        assert_eq!(gateways(&mirror, |_| true), ["10.1.0.2"]);
        mirror.begin();
        mirror.finish();
        assert_eq!((mirror.take_changed(10), mirror.has_changed()), (vec![net()], false));
        assert_eq!(mirror.best(net(), |_| true), None);
    }
}
