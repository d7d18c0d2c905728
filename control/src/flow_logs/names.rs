//! Whose address it is: workloads and host endpoints by their addresses, sets by their prefixes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{EndKind, LogEnd};
use crate::resource::{Key, Kind, Resource};
use crate::store::{Change, Plan};

/// What resources say of addresses.
#[derive(Default)]
pub(super) struct Names {
    endpoints: HashMap<IpAddr, Arc<LogEnd>>,
    /// Prefixes of sets by length, so that the longest is found first, from the end.
    sets: BTreeMap<(bool, u8), HashMap<IpAddr, Arc<LogEnd>>>,
}

impl Names {
    pub fn learn(&mut self, plan: &Plan) {
        let changed = |planned: &&crate::store::Planned| planned.change != Change::Unchanged;
        for planned in plan.changes.iter().filter(changed) {
            let Some(kind) = kind_of(planned.key.kind) else {
                continue;
            };
            let name = workload_name(&planned.key, planned.after.as_deref().or(planned.before.as_deref()));
            for net in planned.before.iter().flat_map(|before| nets(before)) {
                self.forget(net, &name, kind);
            }
            for net in planned.after.iter().flat_map(|after| nets(after)) {
                self.remember(net, &name, kind);
            }
        }
    }

    /// Who has an address.
    pub fn of(&self, address: IpAddr) -> Arc<LogEnd> {
        if let Some(end) = self.endpoints.get(&address) {
            return end.clone();
        }
        let longest = self.sets.range((address.is_ipv4(), 0)..=(address.is_ipv4(), 128)).rev();
        let set = longest.filter_map(|((_, length), sets)| {
            let net = IpNet::new(address, *length).ok()?;
            sets.get(&net.network()).cloned()
        });
        set.into_iter().next().unwrap_or_else(|| {
            Arc::new(LogEnd {
                kind: EndKind::Address,
                name: None,
                address: Some(address.to_string()),
            })
        })
    }

    fn remember(&mut self, net: IpNet, name: &str, kind: EndKind) {
        let is_set = matches!(kind, EndKind::Set | EndKind::GlobalSet);
        let end = Arc::new(LogEnd {
            kind,
            name: Some(name.to_owned()),
            address: (!is_set).then(|| net.addr().to_string()),
        });
        match is_set {
            false => self.endpoints.insert(net.addr(), end),
            true => {
                let place = (net.addr().is_ipv4(), net.prefix_len());
                self.sets.entry(place).or_default().insert(net.network(), end)
            }
        };
    }

    /// Unless somebody else has it by now.
    fn forget(&mut self, net: IpNet, name: &str, kind: EndKind) {
        let is_theirs = |end: &Arc<LogEnd>| end.kind == kind && end.name.as_deref() == Some(name);
        if !matches!(kind, EndKind::Set | EndKind::GlobalSet) {
            if self.endpoints.get(&net.addr()).is_some_and(is_theirs) {
                self.endpoints.remove(&net.addr());
            }
            return;
        }
        let place = (net.addr().is_ipv4(), net.prefix_len());
        if let Some(sets) = self.sets.get_mut(&place) {
            if sets.get(&net.network()).is_some_and(is_theirs) {
                sets.remove(&net.network());
            }
            if sets.is_empty() {
                self.sets.remove(&place);
            }
        }
    }
}

fn kind_of(kind: Kind) -> Option<EndKind> {
    Some(match kind {
        Kind::WorkloadEndpoint => EndKind::Workload,
        Kind::HostEndpoint => EndKind::Host,
        Kind::NetworkSet => EndKind::Set,
        Kind::GlobalNetworkSet => EndKind::GlobalSet,
        _ => return None,
    })
}

/// The name of a resource in flow logs: pods by the pod's name, as `explain` has them.
pub(crate) fn workload_name(key: &Key, resource: Option<&Resource>) -> String {
    let name = match resource {
        Some(Resource::WorkloadEndpoint(object)) if !object.body.spec.pod.is_empty() => &object.body.spec.pod,
        _ => &key.name,
    };
    match &key.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.clone(),
    }
}

fn nets(resource: &Resource) -> Vec<IpNet> {
    match resource {
        Resource::WorkloadEndpoint(object) => {
            let addresses = object.body.spec.ip_networks.iter();
            addresses.map(|address| IpNet::from(*address)).collect()
        }
        Resource::HostEndpoint(object) => {
            let addresses = object.body.spec.expected_ips.iter();
            addresses.map(|address| IpNet::from(*address)).collect()
        }
        Resource::NetworkSet(object) => object.body.spec.nets.clone(),
        Resource::GlobalNetworkSet(object) => object.body.spec.nets.clone(),
        _ => vec![],
    }
}
