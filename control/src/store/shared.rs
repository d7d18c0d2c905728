//! Host endpoints of ports that share their device with the kernel: what is for the host itself never comes to the data
//! plane there, so that no policy of theirs protects it, and that is said aloud.

use std::collections::BTreeMap;

use super::{Plan, Store};
use crate::resource::calico::HostEndpointSpec;
use crate::resource::{Key, Kind, PortSpec, Punt, Resource};

/// Host endpoints that stand for every port that nobody else names.
const ALL: &str = "*";

/// What the user should know of `plan`: each pair of which an end changes.
pub(super) fn warnings(store: &Store, plan: &Plan) -> Vec<String> {
    let changes = |kind| plan.of_kind(kind).any(|planned| planned.after.is_some());
    if !changes(Kind::HostEndpoint) && !changes(Kind::Port) {
        return vec![];
    }
    let (ports, endpoints) = (
        resulting(store, plan, Kind::Port),
        resulting(store, plan, Kind::HostEndpoint),
    );
    let mut warnings = vec![];
    for (port, (port_changes, resource)) in &ports {
        let Resource::Port(object) = resource else { continue };
        let spec = &object.body.spec;
        let punt = match spec.punt {
            Punt::None => continue,
            Punt::Kernel => "kernel",
            Punt::Tap => "tap",
        };
        for (endpoint, (changes, resource)) in &endpoints {
            let Resource::HostEndpoint(object) = resource else {
                continue;
            };
            let host = &object.body.spec;
            let here = host.node.is_none() || store.node.is_none() || host.node == store.node;
            if (*changes || *port_changes) && here && is_of(host, &port.name, spec) {
                warnings.push(format!(
                    "{endpoint} does not protect the host itself on {port}, which has `punt: {punt}`: what is for the host is \
                     judged by its own filter, as nft(8), alone; policy is asked of what the data plane forwards"
                ));
            }
        }
    }
    warnings
}

fn is_of(host: &HostEndpointSpec, name: &str, port: &PortSpec) -> bool {
    match host.interface_name.as_deref().filter(|interface| !interface.is_empty()) {
        Some(interface) => interface == ALL || interface == name || interface == port.device_name(),
        None => port.addresses.iter().any(|net| host.expected_ips.contains(&net.addr())),
    }
}

/// The resources of a kind as they would be after `plan`, each with whether it changes.
fn resulting<'a>(store: &'a Store, plan: &'a Plan, kind: Kind) -> BTreeMap<&'a Key, (bool, &'a Resource)> {
    let kept = store.of_kind(kind).map(|(key, resource)| (key, (false, &**resource)));
    let mut resulting: BTreeMap<_, _> = kept.collect();
    for planned in plan.of_kind(kind) {
        match &planned.after {
            Some(after) => resulting.insert(&planned.key, (true, &**after)),
            None => resulting.remove(&planned.key),
        };
    }
    resulting
}
