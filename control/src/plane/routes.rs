//! Routes: those that follow from the ports' addresses, and those that are written down.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use fastpath::interfaces::shares_prefix;
use fastpath::meta::{PortId, VrfId};
use fastpath::rib::{Full, Hop, Origin, Target};
use ipnet::IpNet;

use super::State;
use super::ports::Port;
use crate::refusal::Refusal;
use crate::resource::{self, Driver, Kind, Object, Resource, Route, RouteSpec};
use crate::store::Plan;

/// The routes that follow from the ports' addresses, as last written.
pub(super) type Connected = HashMap<(VrfId, IpNet), Target>;

/// A prefix with one address.
pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn route(resource: Option<&Arc<Resource>>) -> Option<&Arc<Object<Route>>> {
    match resource.map(AsRef::as_ref) {
        Some(Resource::Route(object)) => Some(object),
        _ => None,
    }
}

fn route_spec(resource: Option<&Arc<Resource>>) -> Option<&RouteSpec> {
    route(resource).map(|route| &route.body.spec)
}

impl State {
    /// Writes addresses, neighbours and routes of a plan whose ports are open.
    pub(super) fn write_tables(&mut self, plan: &Plan) -> Result<(), Refusal> {
        let interfaces = || plan.of_kind(Kind::Port).chain(plan.of_kind(Kind::WireguardInterface));
        let removed: BTreeSet<&str> = interfaces()
            .filter(|planned| planned.after.is_none())
            .map(|planned| planned.key.name.as_str())
            .collect();
        let ports_changed = interfaces().next().is_some();
        for planned in plan.of_kind(Kind::Route) {
            let name = &planned.key.name;
            match route(planned.after.as_ref()) {
                Some(route) => self.routes.insert(name.clone(), route.clone()),
                None => self.routes.remove(name),
            };
        }
        self.publish_interfaces();
        // Routes that go are cleared before ports and addresses, those that come are written after them.
        let changed: Vec<&str> = plan
            .of_kind(Kind::Route)
            .map(|planned| planned.key.name.as_str())
            .collect();
        for planned in plan.of_kind(Kind::Route) {
            let (before, after) = (route_spec(planned.before.as_ref()), route_spec(planned.after.as_ref()));
            if let Some(old) = before
                && after.is_none_or(|new| (&new.vrf, new.destination) != (&old.vrf, old.destination))
            {
                let vrf = self.vrf(&old.vrf);
                self.rib.clear(vrf, old.destination, Origin::Static).map_err(refuse)?;
            }
        }
        self.connect_but(&removed).map_err(refuse)?;
        self.write_allowed(Some(plan)).map_err(refuse)?;
        self.write_routes((!ports_changed).then_some(&changed))
            .map_err(refuse)?;
        self.write_permanent(plan);
        let resources = plan
            .of_kind(Kind::Route)
            .flat_map(|planned| [&planned.before, &planned.after]);
        let nets: Vec<IpNet> = resources
            .filter_map(|resource| route_spec(resource.as_ref()))
            .map(|spec| spec.destination)
            .collect();
        self.write_own_routes((!ports_changed).then_some(&nets));
        Ok(())
    }

    /// Gives every VRF that is named a number.
    pub(super) fn learn_vrfs(&mut self, plan: &Plan) -> Result<(), Refusal> {
        let named = plan.changes.iter().flat_map(|planned| {
            let names = planned.after.as_deref().map_or_else(Vec::new, vrf_names);
            names.into_iter().map(move |name| (planned, name))
        });
        for (planned, (field, name)) in named {
            let next = VrfId(self.vrfs.len() as u16);
            if usize::from(next.0) >= VRFS_MAX && !self.vrfs.contains_key(name) {
                let reason = format!("there are {VRFS_MAX} tables of routes already");
                return Err(Refusal::of_field(&planned.origin, field, reason));
            }
            let id = *self.vrfs.entry(name.clone()).or_insert(next);
            self.rib.ensure_vrf(id);
        }
        Ok(())
    }

    pub(super) fn vrf(&self, name: &str) -> VrfId {
        self.vrfs.get(name).copied().unwrap_or_default()
    }

    /// Makes the connected routes what the ports' addresses say.
    pub(super) fn connect(&mut self) -> Result<(), Full> {
        self.connect_but(&BTreeSet::new())
    }

    fn connect_but(&mut self, removed: &BTreeSet<&str>) -> Result<(), Full> {
        let mut wanted = Connected::new();
        for port in self.ports.iter().filter(|port| !removed.contains(port.name.as_str())) {
            let behind = self.behind(port.id);
            wanted.extend(connected_by(port, self.vrf(&port.spec.vrf), &behind));
        }
        let gone: Vec<_> = self
            .connected
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        for (vrf, net) in gone {
            self.rib.clear(vrf, net, Origin::Connected)?;
            self.connected.remove(&(vrf, net));
        }
        for ((vrf, net), target) in wanted {
            if self.connected.get(&(vrf, net)) != Some(&target) {
                self.rib.set(vrf, net, Origin::Connected, &target)?;
                self.connected.insert((vrf, net), target);
            }
        }
        Ok(())
    }

    /// Writes static routes: those named, or all of them, for ports have changed.
    pub(super) fn write_routes(&mut self, only: Option<&[&str]>) -> Result<(), Full> {
        let routes: Vec<Arc<Object<Route>>> = match only {
            Some(names) => names
                .iter()
                .filter_map(|name| self.routes.get(*name))
                .cloned()
                .collect(),
            None => self.routes.values().cloned().collect(),
        };
        for route in routes {
            let spec = &route.body.spec;
            let (vrf, target) = (self.vrf(&spec.vrf), self.target_of(spec));
            if let Target::OnLink(port) = target
                && self.vrf_of(port) != Some(vrf)
            {
                self.on_links.insert((port, vrf));
            }
            self.rib.set(vrf, spec.destination, Origin::Static, &target)?;
        }
        Ok(())
    }

    /// Makes the static routes just those that are written down, after a plan was refused half-way.
    pub(super) fn rewrite_routes(&mut self) -> Result<(), Full> {
        let written: BTreeSet<_> = self
            .routes
            .values()
            .map(|route| &route.body.spec)
            .map(|spec| (self.vrf(&spec.vrf), spec.destination))
            .collect();
        let stray: Vec<_> = self
            .rib
            .iter()
            .filter(|(vrf, net, origin, _)| *origin == Origin::Static && !written.contains(&(*vrf, *net)))
            .map(|(vrf, net, ..)| (vrf, net))
            .collect();
        for (vrf, net) in stray {
            self.rib.clear(vrf, net, Origin::Static)?;
        }
        self.write_routes(None)
    }

    fn target_of(&self, spec: &RouteSpec) -> Target {
        let mut hops = vec![];
        for hop in &spec.via {
            match &hop.target {
                resource::Target::Drop => return Target::Drop,
                resource::Target::OnLink(name) => match self.ports.id(name) {
                    Some(port) => return self.behind(port),
                    None => return Target::Drop,
                },
                resource::Target::Table(name) => return Target::Table(self.vrf(name)),
                resource::Target::Gateway(address) => {
                    let port = self.port_towards(self.vrf(&spec.vrf), *address);
                    hops.extend(port.map(|port| (port, *address, hop.weight)));
                }
                resource::Target::GatewayIn { gateway, vrf } => {
                    let port = self.port_towards(self.vrf(vrf), *gateway);
                    hops.extend(port.map(|port| (port, *gateway, hop.weight)));
                }
                resource::Target::GatewayBy { gateway, port } => {
                    hops.extend(self.ports.id(port).map(|port| (port, *gateway, hop.weight)));
                }
            }
        }
        if hops.is_empty() {
            return Target::Drop;
        }
        let hop = |(port, address, weight)| Hop {
            port,
            address: self.end_of(port).unwrap_or(address),
            weight,
        };
        Target::Hops(hops.into_iter().map(hop).collect())
    }

    /// The port whose subnet an address is in.
    fn port_towards(&self, vrf: VrfId, address: IpAddr) -> Option<PortId> {
        let near = |port: &&Port| {
            let mut subnets = port.spec.addresses.iter();
            self.vrf(&port.spec.vrf) == vrf && subnets.any(|net| shares_prefix(net.addr(), address, net.prefix_len()))
        };
        self.ports.iter().find(near).map(|port| port.id)
    }
}

/// The tables of routes that a resource names, and where.
fn vrf_names(resource: &Resource) -> Vec<(&'static str, &String)> {
    match resource {
        Resource::Port(object) => {
            let spec = &object.body.spec;
            let outside = spec.transport_vrf.iter().map(|vrf| ("spec.transportVRF", vrf));
            std::iter::once(("spec.vrf", &spec.vrf)).chain(outside).collect()
        }
        Resource::Route(object) => {
            let others = object.body.spec.via.iter().filter_map(|hop| match &hop.target {
                resource::Target::GatewayIn { vrf, .. } | resource::Target::Table(vrf) => Some(("spec.via", vrf)),
                _ => None,
            });
            std::iter::once(("spec.vrf", &object.body.spec.vrf))
                .chain(others)
                .collect()
        }
        Resource::SourceNat(object) => vec![("spec.vrf", &object.body.spec.vrf)],
        Resource::WireguardInterface(object) => {
            let spec = &object.body.spec;
            vec![("spec.vrf", &spec.vrf), ("spec.transportVRF", &spec.transport_vrf)]
        }
        _ => vec![],
    }
}

/// Most tables of routes.
const VRFS_MAX: usize = 4096;

fn refuse(full: Full) -> Refusal {
    Refusal::new(format!("{full}; nothing was changed"))
}

/// The routes of one port: its addresses are ours, its subnets are on its link or behind it.
fn connected_by(port: &Port, vrf: VrfId, behind: &Target) -> Vec<((VrfId, IpNet), Target)> {
    let mut routes = vec![];
    if port.is_tunnel() || port.spec.driver == Driver::Ipip {
        // Neither broadcasts nor who has the address.
        for net in &port.spec.addresses {
            if *behind != Target::Drop && net.prefix_len() < net.max_prefix_len() {
                routes.push(((vrf, net.trunc()), behind.clone()));
            }
            routes.push(((vrf, host(net.addr())), Target::Local));
        }
        return routes;
    }
    for net in &port.spec.addresses {
        if net.prefix_len() < net.max_prefix_len() {
            routes.push(((vrf, net.trunc()), Target::OnLink(port.id)));
        }
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            routes.push(((vrf, host(v4.network().into())), Target::Broadcast));
            routes.push(((vrf, host(v4.broadcast().into())), Target::Broadcast));
        }
        routes.push(((vrf, host(net.addr())), Target::Local));
    }
    let aliases = port
        .aliases
        .iter()
        .map(|address| ((vrf, host(*address)), Target::Local));
    routes.extend(aliases);
    let link_local = port.interface(vrf, false).link_local();
    routes.push(((vrf, host(link_local.into())), Target::Local));
    routes
}
