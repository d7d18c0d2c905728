//! Ports of the node that lead to a workload, as the plane is to serve them: each a service of one backend.

use std::collections::BTreeMap;

use super::services::{Backend, BackendState, Balanced, Front, Lead, Place, PoolName};
use crate::resource::calico::WorkloadEndpoint;

/// Those of one workload, seen from `here`; none where it is on another node.
pub fn host_ports(endpoint: &WorkloadEndpoint, here: &Place) -> Balanced {
    let node = &endpoint.spec.node;
    let mut balanced = Balanced::default();
    if here.named && !node.is_empty() && *node != here.node {
        return balanced;
    }
    for port in endpoint.host_ports() {
        let pool = PoolName {
            port: (port.target.1, port.protocol),
            is_v4: port.address.is_ipv4(),
            local: true,
        };
        let backend = Backend {
            state: BackendState::Ready,
            node: (!node.is_empty()).then(|| node.clone()),
            remote: false,
        };
        let front = Front {
            address: port.address,
            port: port.port,
            protocol: port.protocol,
        };
        let lead = Lead {
            pool: pool.clone(),
            sources: vec![],
            masquerade: false,
            silent: false,
            direct: false,
        };
        balanced.frontends.insert(front, lead);
        balanced.pools.insert(pool, BTreeMap::from([(port.target, backend)]));
    }
    balanced
}
