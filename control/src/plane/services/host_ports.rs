//! Ports of the node that lead to workloads, beside the services.

use std::collections::BTreeMap;

use super::{Balancing, Name, Running, name_of};
use crate::program::host_ports::host_ports;
use crate::resource::{Kind, Resource};
use crate::show::services::ServiceView;
use crate::store::Plan;

/// The workloads that have such ports on this node.
pub(super) type HostPorts = BTreeMap<Name, Running>;

impl Balancing {
    /// Carries the host ports of a plan out; nothing is published.
    pub(super) fn run_host_ports(&mut self, plan: &Plan) {
        for planned in plan.of_kind(Kind::WorkloadEndpoint) {
            let endpoint = planned.after.as_deref().and_then(|resource| match resource {
                Resource::WorkloadEndpoint(object) => Some(&object.body),
                _ => None,
            });
            let wanted = endpoint.map(|endpoint| host_ports(endpoint, &self.place));
            let wanted = wanted.filter(|wanted| !wanted.frontends.is_empty());
            let name = name_of(&planned.key);
            let running = self.host_ports.remove(&name);
            // Most workloads have none.
            if (running.is_some() || wanted.is_some())
                && let Some(running) = self.replace(running, wanted)
            {
                self.host_ports.insert(name, running);
            }
        }
    }

    /// The workloads that have some, as if each were a service.
    pub(super) fn host_port_views(&self) -> impl Iterator<Item = ServiceView> + '_ {
        let all = self.host_ports.iter();
        all.map(|(name, running)| self.view(name, "HostPort", running))
    }
}
