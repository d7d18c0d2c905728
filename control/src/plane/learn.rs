//! Routes that the kernel teaches: those of its main table that leave by the device of a port that shares it with the
//! kernel (`punt: kernel`), or by the TAP in its place (`punt: tap`), are the plane's as well, in the port's table.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastpath::events::Events;
use fastpath::meta::{PortId, VrfId};
use fastpath::rib::{Full, Hop, Origin, Target};
use ipnet::IpNet;

use super::State;
use super::ports::Backing;
use crate::kernel_routes::{KernelHop, KernelRoutes, protocol_name};

/// Most prefixes that are brought in line at once: whoever else wants the tables waits for a millisecond or so.
const BATCH: usize = 1024;
/// Until the next batch.
const BREATH: Duration = Duration::from_millis(1);

/// What is known of the kernel's routes, and for whom.
pub(super) struct Learning {
    pub kernel: Arc<KernelRoutes>,
    /// Ports that learn: the kernel's number of the device, the port, its table.
    ports: Vec<(u32, PortId, VrfId)>,
    /// The tables that ports have learnt into.
    vrfs: BTreeSet<VrfId>,
}

impl Learning {
    /// Nothing yet; `events` are nudged when there is something.
    pub fn new(events: Events) -> Self {
        Self {
            kernel: Arc::new(KernelRoutes::new(move || events.nudge())),
            ports: vec![],
            vrfs: BTreeSet::new(),
        }
    }

    fn port(&self, hop: &KernelHop, vrf: VrfId) -> Option<PortId> {
        let mut ports = self.ports.iter();
        let found = ports.find(|(ifindex, _, table)| (*ifindex, *table) == (hop.ifindex, vrf));
        found.map(|(_, port, _)| *port)
    }

    /// Where the kernel would send what goes to a prefix, by the ports of a table; and who told it to.
    fn route(&self, vrf: VrfId, net: IpNet) -> Option<(u8, Target)> {
        let (protocol, hops) = self.kernel.lock().best(net, |hop| self.port(hop, vrf).is_some())?;
        if hops.contains(&KernelHop::NOWHERE) {
            return Some((protocol, Target::Drop));
        }
        let gateways = hops
            .iter()
            .filter_map(|hop| Some((self.port(hop, vrf)?, hop.gateway?, hop.weight)));
        let gateways: Vec<Hop> = gateways
            .map(|(port, address, weight)| Hop { port, address, weight })
            .collect();
        match gateways.is_empty() {
            false => Some((protocol, Target::Hops(gateways))),
            true => Some((protocol, Target::OnLink(self.port(hops.first()?, vrf)?))),
        }
    }
}

impl State {
    /// Brings some of the routes in line with the kernel's. When to go on, if there are more.
    pub(super) fn learn(&mut self) -> Option<Duration> {
        self.find_learners();
        if self.learning.vrfs.is_empty() {
            return None;
        }
        let nets = self.learning.kernel.lock().take_changed(BATCH);
        if nets.is_empty() {
            return None;
        }
        let refused = nets
            .iter()
            .filter_map(|net| self.learn_net(*net).err().map(|full| (net, full)));
        if let Some((net, full)) = refused.last() {
            tracing::warn!("cannot learn the kernel's route to {net}, and perhaps others: {full}");
        }
        self.write_own_routes(Some(&nets));
        let has_more = self.learning.kernel.lock().has_changed();
        if !has_more {
            self.ports.leaving.clear();
        }
        has_more.then_some(BREATH)
    }

    /// Who gave the kernel the route that was learnt from it.
    pub(super) fn learnt_from(&self, vrf: VrfId, net: IpNet) -> Option<String> {
        self.learning
            .route(vrf, net)
            .map(|(protocol, _)| protocol_name(protocol))
    }

    /// Everything is looked at again when other ports learn; of ports that have gone the numbers are not given anew before.
    pub(super) fn find_learners(&mut self) {
        let learners = self.ports.iter().filter_map(|port| match &port.backing {
            Some(Backing::Device(device)) if device.claims().is_some() => {
                Some((device.ifindex(), port.id, self.vrf(&port.spec.vrf)))
            }
            _ => Some((self.hosts.tap_index(port.id)?, port.id, self.vrf(&port.spec.vrf))),
        });
        let learners: Vec<_> = learners.collect();
        if learners != self.learning.ports {
            let is_gone = |(_, port, _): &(u32, PortId, VrfId)| self.ports.get(*port).is_none();
            let gone = self.learning.ports.iter().filter(|learner| is_gone(learner));
            let gone: Vec<_> = gone.map(|(_, port, _)| *port).collect();
            self.ports.leaving.extend(gone);
            self.learning.vrfs.extend(learners.iter().map(|(.., vrf)| *vrf));
            self.learning.ports = learners;
            self.learning.kernel.want();
            self.learning.kernel.lock().change_all();
        }
    }

    fn learn_net(&mut self, net: IpNet) -> Result<(), Full> {
        if is_never_forwarded(net) {
            return Ok(());
        }
        for vrf in self.learning.vrfs.clone() {
            let written = match self.learning.route(vrf, net) {
                Some((_, target)) => self.rib.set(vrf, net, Origin::Kernel, &target),
                None => self.rib.clear(vrf, net, Origin::Kernel).map(drop),
            };
            if let Err(full) = written {
                // What was learnt before is no longer true.
                self.rib.clear(vrf, net, Origin::Kernel)?;
                return Err(full);
            }
        }
        Ok(())
    }
}

/// Prefixes that mean something on one link or one host only.
fn is_never_forwarded(net: IpNet) -> bool {
    let address = net.addr();
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    address.is_multicast() || address.is_loopback() || is_link_local
}
