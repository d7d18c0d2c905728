//! The routes that follow from allowed IPs: into the tunnel whose peer has them. Of several interfaces of a table, the first
//! by name has a prefix.

use std::collections::{BTreeSet, HashMap, HashSet};

use fastpath::meta::{PortId, VrfId};
use fastpath::rib::{Full, Origin, Target};
use ipnet::IpNet;

use super::super::State;
use super::{going, peer};
use crate::resource::Kind;
use crate::store::Plan;

/// The routes, as last written.
pub(in crate::plane) type AllowedRoutes = HashMap<(VrfId, IpNet), PortId>;

/// What a plan removes, by kind and name.
type Gone<'a> = HashSet<(Kind, &'a str)>;

impl State {
    /// Makes the routes what allowed IPs say. A plan of peers costs what these had and have; one of interfaces, and none, what
    /// there is.
    pub(in crate::plane) fn write_allowed(&mut self, plan: Option<&Plan>) -> Result<(), Full> {
        let is_of_peers = |plan: &&Plan| plan.of_kind(Kind::WireguardInterface).next().is_none();
        let touched = match plan.filter(is_of_peers) {
            Some(plan) => self.touched(plan),
            None => self.all_allowed(),
        };
        let gone: Gone<'_> = plan
            .into_iter()
            .flat_map(going)
            .map(|planned| (planned.key.kind, planned.key.name.as_str()))
            .collect();
        for (vrf, net) in touched {
            let (wanted, there) = (self.tunnel_of(vrf, &net, &gone), self.allowed.get(&(vrf, net)));
            match wanted {
                Some(port) if there != Some(&port) => {
                    self.rib.set(vrf, net, Origin::Allowed, &Target::Tunnel(port))?;
                    self.allowed.insert((vrf, net), port);
                }
                None if there.is_some() => {
                    self.rib.clear(vrf, net, Origin::Allowed)?;
                    self.allowed.remove(&(vrf, net));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the peers of a plan had, and what they are to have.
    fn touched(&self, plan: &Plan) -> BTreeSet<(VrfId, IpNet)> {
        let tunnels = self.tunnels.lock();
        let bodies = plan
            .of_kind(Kind::WireguardPeer)
            .flat_map(|planned| [&planned.before, &planned.after])
            .filter_map(|resource| peer(resource.as_deref()));
        bodies
            .filter_map(|body| Some((tunnels.list.get(&body.spec.interface)?, body)))
            .flat_map(|(running, body)| {
                let vrf = self.vrf(&running.body.spec.vrf);
                body.spec.allowed_ips.iter().map(move |net| (vrf, net.trunc()))
            })
            .collect()
    }

    /// What has a route, and what any peer has.
    fn all_allowed(&self) -> BTreeSet<(VrfId, IpNet)> {
        let mut all: BTreeSet<_> = self.allowed.keys().copied().collect();
        for running in self.tunnels.lock().list.values() {
            let vrf = self.vrf(&running.body.spec.vrf);
            let nets = running.peers.keys().flat_map(|peer| running.allowed_of(peer));
            all.extend(nets.map(|net| (vrf, net)));
        }
        all
    }

    /// The tunnel that a prefix leads into, if any does that stays.
    fn tunnel_of(&self, vrf: VrfId, net: &IpNet, gone: &Gone<'_>) -> Option<PortId> {
        let tunnels = self.tunnels.lock();
        let stays = |kind: Kind, name: &str| !gone.contains(&(kind, name));
        let mut having = tunnels.list.iter().filter(|(name, running)| {
            let owner = running.owner_of(net);
            self.vrf(&running.body.spec.vrf) == vrf
                && stays(Kind::WireguardInterface, name)
                && owner.is_some_and(|peer| stays(Kind::WireguardPeer, peer))
        });
        having.next().map(|(_, running)| running.port)
    }
}
