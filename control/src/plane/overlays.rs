//! Tunnels that are ports with neighbours, IP in IP and VXLAN: where their other ends are, as ports, routes and neighbours
//! say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use fastpath::meta::PortId;
use fastpath::overlay::{Overlay, Overlays, Traffic};
use fastpath::rib::Target;

use super::State;
use super::ports::Port;
use crate::resource::{self, Driver};

impl State {
    /// As workers see them.
    pub(super) fn overlays(&self) -> Overlays {
        let overlay = |port: &Port| {
            let (wrapping, local) = (port.spec.wrapping()?, port.spec.local?);
            let remotes = self.remotes(port);
            let others = match port.spec.driver {
                Driver::Ipip => self.gateways(&port.name),
                _ => remotes.values().copied().collect(),
            };
            let known = match (port.spec.remote, port.spec.driver) {
                (Some(remote), Driver::Ipip) => HashSet::from([remote]),
                (remote, _) => others.into_iter().chain(remote).collect(),
            };
            let counters = port.counters.get(port.closed..).unwrap_or_default();
            Some(Overlay {
                port: port.id,
                vrf: self.vrf(&port.spec.outside()),
                wrapping,
                local,
                remote: port.spec.remote,
                remotes,
                known,
                traffic: Traffic(counters.iter().map(|(_, counters)| counters.clone()).collect()),
            })
        };
        Overlays(self.ports.iter().filter_map(overlay).collect())
    }

    /// The other ends that a port's neighbours are behind.
    fn remotes(&self, port: &Port) -> HashMap<IpAddr, IpAddr> {
        let here = self.permanent.values().filter(|spec| spec.port == port.name);
        here.filter_map(|spec| Some((spec.address, spec.remote?))).collect()
    }

    /// Where routes by a port lead to.
    fn gateways(&self, name: &str) -> HashSet<IpAddr> {
        let hops = self.routes.values().flat_map(|route| &route.body.spec.via);
        let gateway = |hop: &resource::Hop| match &hop.target {
            resource::Target::GatewayBy { gateway, port } if port == name => Some(*gateway),
            _ => None,
        };
        hops.filter_map(gateway).collect()
    }

    /// With IP in IP a next hop is the other end itself, and nobody has to be asked for it.
    pub(super) fn know_ends(&mut self) {
        let ports = self.ports.iter().map(|port| (port.id, port.spec.driver));
        for (port, driver) in ports {
            self.rib.set_wrapped(port, driver == Driver::Ipip);
        }
    }

    /// The one other end of a port, if it is a tunnel that has only one and no neighbours.
    pub(super) fn end_of(&self, port: PortId) -> Option<IpAddr> {
        let spec = &self.ports.get(port)?.spec;
        spec.remote.filter(|_| spec.driver == Driver::Ipip)
    }

    /// Where packets go that are just for whoever is behind a port.
    pub(super) fn behind(&self, port: PortId) -> Target {
        let driver = self.ports.get(port).map(|port| port.spec.driver);
        match (driver, self.end_of(port)) {
            (Some(Driver::Wireguard), _) => Target::Tunnel(port),
            (Some(Driver::Ipip), Some(address)) => Target::Hops(vec![fastpath::rib::Hop {
                port,
                address,
                weight: 1,
            }]),
            (Some(Driver::Ipip), None) => Target::Drop,
            _ => Target::OnLink(port),
        }
    }
}
