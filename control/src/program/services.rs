//! Services as a plane is to serve them: what Kubernetes' Service and EndpointSlices say, seen from one node.
//!
//! Rules as kube-proxy has them: who is ready gets connections; while nobody is, who is about to end does. Policy `Local`
//! keeps to this node, hints keep to this zone where everybody has one and somebody is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::resource::{
    AddressType, EndpointPort, EndpointSlice, Hint, Protocol, Service, ServicePort, SliceEndpoint, TrafficPolicy,
};

/// Where the plane runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name, as endpoints name it.
    pub node: String,
    /// Whether somebody chose that name. Where nobody did, every endpoint of a resource is of this node, whatever node
    /// its resource names.
    pub named: bool,
    /// The zone that it is in, if that is known.
    pub zone: Option<String>,
}

/// One service, seen from one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balanced {
    /// Seconds that a client stays with its backend; 0 if it need not.
    pub affinity_s: u32,
    /// The sets of backends.
    pub pools: BTreeMap<PoolName, BTreeMap<(IpAddr, u16), Backend>>,
    /// What leads to them.
    pub frontends: BTreeMap<Front, Lead>,
}

/// Names a set of backends in its service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName {
    /// The port of the service: protocols have numbers of their own.
    pub port: (u16, Protocol),
    /// Which family its backends are of.
    pub is_v4: bool,
    /// Whether they are those of this node alone.
    pub local: bool,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it gets.
    pub state: BackendState,
    /// The node that it is on, if that is known.
    pub node: Option<String>,
    /// Whether that is known to be another than this.
    pub remote: bool,
}

/// What a backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// New connections.
    Ready,
    /// New connections, although it is about to end, for there is nobody else.
    LastResort,
    /// Nothing new: it is about to end.
    Draining,
    /// Nothing new: others are nearer.
    Elsewhere,
}

impl BackendState {
    /// Whether it gets new connections.
    pub fn takes_new(self) -> bool {
        matches!(self, Self::Ready | Self::LastResort)
    }
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    /// The address; unspecified for every one of the node's of that family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The backends.
    pub pool: PoolName,
    /// Whose connections are taken; everybody's where there are none.
    pub sources: Vec<IpNet>,
    /// Whether a client gets an address of ours where its backend is on another node.
    pub masquerade: bool,
    /// Whether connections are dropped in silence while there is no backend, for another node has one.
    pub silent: bool,
    /// Whether backends on other nodes answer clients directly.
    pub direct: bool,
}

/// How answers of backends on other nodes come to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// By the node that has chosen the backend.
    Back,
    /// Past it: the backend's node gets the packets as they came.
    Direct,
}

/// A service with its slices, seen from `here`.
pub fn balance<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    answers: Answers,
    here: &Place,
) -> Balanced {
    let mut balanced = Balanced {
        affinity_s: service.affinity_s(),
        ..Balanced::default()
    };
    if !service.is_balanced() {
        return balanced;
    }
    for port in &service.spec.ports {
        for is_v4 in [true, false] {
            let all = candidates(port, is_v4, slices.clone());
            balanced.add(service, port, is_v4, &all, (answers, here));
        }
    }
    balanced
}

type Candidates<'a> = Vec<((IpAddr, u16), &'a SliceEndpoint)>;

/// The endpoints of one port and family, in no order.
fn candidates<'a>(port: &ServicePort, is_v4: bool, slices: impl Iterator<Item = &'a EndpointSlice>) -> Candidates<'a> {
    let family = if is_v4 { AddressType::IPv4 } else { AddressType::IPv6 };
    let mut all = vec![];
    for slice in slices.filter(|slice| slice.address_type == family) {
        let is_it = |other: &&EndpointPort| {
            other.name.as_deref().unwrap_or_default() == port.name
                && other.protocol.unwrap_or_default() == port.protocol
        };
        let Some(found) = slice.ports.iter().find(is_it) else {
            continue;
        };
        let number = found.port.unwrap_or(port.port);
        let addresses = slice.endpoints.iter();
        all.extend(addresses.filter_map(|endpoint| Some(((endpoint.address()?, number), endpoint))));
    }
    all
}

impl Balanced {
    fn add(
        &mut self,
        service: &Service,
        port: &ServicePort,
        is_v4: bool,
        all: &Candidates<'_>,
        (answers, here): (Answers, &Place),
    ) {
        let pool = |local| PoolName {
            port: (port.port, port.protocol),
            is_v4,
            local,
        };
        let is_here = |endpoint: &SliceEndpoint| endpoint.node_name.as_deref() == Some(&here.node);
        let own: Candidates<'_> = all.iter().filter(|(_, endpoint)| is_here(endpoint)).copied().collect();
        let pools = [states(all, nearest(all, here), here), states(&own, None, here)];
        let takes_new = pools
            .each_ref()
            .map(|pool| pool.values().any(|backend| backend.state.takes_new()));
        let silent = takes_new[0] && !takes_new[1];
        let spec = &service.spec;
        let is_local = |policy: Option<TrafficPolicy>| policy == Some(TrafficPolicy::Local);
        let (inside, outside) = (
            is_local(spec.internal_traffic_policy),
            is_local(spec.external_traffic_policy),
        );
        let mut lead = |address: IpAddr, number: u16, local: bool, external: bool, sources: &[IpNet]| {
            let lead = Lead {
                pool: pool(local),
                sources: sources.to_vec(),
                masquerade: external && !local,
                silent: local && silent,
                // A node's own address leads to that node alone.
                direct: answers == Answers::Direct && !local && !address.is_unspecified(),
            };
            let front = Front {
                address,
                port: number,
                protocol: port.protocol,
            };
            if address.is_ipv4() == is_v4 {
                // An address that is both inside and outside is what it was first.
                self.frontends.entry(front).or_insert(lead);
            }
        };
        for address in service.cluster_addresses() {
            lead(address, port.port, inside, false, &[]);
        }
        for address in service.load_balancer_addresses() {
            lead(address, port.port, outside, true, &spec.load_balancer_source_ranges);
        }
        for address in &spec.external_ips {
            lead(*address, port.port, outside, true, &[]);
        }
        let mut families = service.cluster_addresses().map(|address| address.is_ipv4()).peekable();
        let is_of_family = families.peek().is_none() || families.any(|family| family == is_v4);
        if port.node_port != 0 && is_of_family {
            let v4: IpAddr = Ipv4Addr::UNSPECIFIED.into();
            let address = if is_v4 { v4 } else { Ipv6Addr::UNSPECIFIED.into() };
            lead(address, port.node_port, outside, true, &[]);
        }
        self.fill(pool, pools);
    }

    /// Takes those pools that are led to, of all backends and of this node's.
    fn fill(&mut self, pool: impl Fn(bool) -> PoolName, pools: [BTreeMap<(IpAddr, u16), Backend>; 2]) {
        let leads = self.frontends.values();
        let leads = leads.filter(|lead| lead.pool == pool(lead.pool.local));
        let led_to: BTreeSet<bool> = leads
            .flat_map(|lead| [lead.pool.local, lead.pool.local || lead.direct])
            .collect();
        for (local, backends) in [false, true].into_iter().zip(pools) {
            if led_to.contains(&local) {
                self.pools.insert(pool(local), backends);
            }
        }
    }
}

/// What each endpoint gets. `near` says which of them are; everybody where nobody says.
fn states(
    all: &Candidates<'_>,
    near: Option<BTreeSet<(IpAddr, u16)>>,
    here: &Place,
) -> BTreeMap<(IpAddr, u16), Backend> {
    let is_anybody_ready = all.iter().any(|(_, endpoint)| endpoint.conditions.is_ready());
    let mut backends = BTreeMap::new();
    for (address, endpoint) in all {
        let conditions = &endpoint.conditions;
        let is_near = near.as_ref().is_none_or(|near| near.contains(address));
        let state = match (conditions.is_ready(), conditions.is_draining()) {
            (true, _) if is_near => BackendState::Ready,
            (true, _) => BackendState::Elsewhere,
            (false, true) if !is_anybody_ready => BackendState::LastResort,
            (false, true) => BackendState::Draining,
            (false, false) => continue,
        };
        let node = endpoint.node_name.clone();
        let remote = node.as_ref().is_some_and(|node| *node != here.node);
        let backend = Backend { state, node, remote };
        // While a backend is copied from one slice to another it stands in both.
        let known = backends.entry(*address).or_insert_with(|| backend.clone());
        if state.takes_new() {
            *known = backend;
        }
    }
    backends
}

/// The endpoints that hints give to clients here: by node if all that are ready say so and somebody is here, else by
/// zone in the same way, else none in particular.
fn nearest(all: &Candidates<'_>, here: &Place) -> Option<BTreeSet<(IpAddr, u16)>> {
    let ready = || all.iter().filter(|(_, endpoint)| endpoint.conditions.is_ready());
    let by = |hints: &dyn Fn(&SliceEndpoint) -> Vec<String>, name: &str| {
        let all_say = ready().all(|(_, endpoint)| !hints(endpoint).is_empty());
        let near = ready().filter(|(_, endpoint)| hints(endpoint).iter().any(|hint| hint == name));
        let near: BTreeSet<_> = near.map(|(address, _)| *address).collect();
        (all_say && !near.is_empty()).then_some(near)
    };
    let names = |hints: &[Hint]| hints.iter().map(|hint| hint.name.clone()).collect();
    let nodes = |endpoint: &SliceEndpoint| endpoint.hints.as_ref().map_or(vec![], |hints| names(&hints.for_nodes));
    let zones = |endpoint: &SliceEndpoint| endpoint.hints.as_ref().map_or(vec![], |hints| names(&hints.for_zones));
    by(&nodes, &here.node).or_else(|| by(&zones, here.zone.as_deref()?))
}

#[cfg(test)]
#[path = "services/tests.rs"]
mod tests;
