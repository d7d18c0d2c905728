//! Neighbours: what workers heard, what is asked, what adjacencies are told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fastpath::arena::HEADROOM;
use fastpath::events::Event;
use fastpath::forwarding::LinkState;
use fastpath::meta::{PortId, VrfId};
use fastpath::neighbours::{Action, Key, State as Known};
use fastpath::rib::{Hop, Origin, Target};
use fastpath::wire::{arp, ethernet, ndp};
use ipnet::IpNet;
use zerocopy::IntoBytes;

use super::State;
use super::ports::Port;
use super::routes::host;
use crate::resource::{self, NeighborSpec, Resource};
use crate::store::Plan;

/// Most events heeded at once, so that a flood of them does not keep the socket waiting.
const EVENTS_AT_ONCE: usize = 1024;

impl State {
    /// Takes in what workers saw.
    pub(super) fn heed_events(&mut self) {
        let now_ns = self.now_ns();
        let mut actions = vec![];
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = self.events.next() else { break };
            match event {
                Event::Resolve { port, address } => self.neighbours.resolve(now_ns, (port, address), &mut actions),
                Event::Neighbour {
                    port,
                    address,
                    mac,
                    answer,
                } => {
                    self.neighbours
                        .heard(now_ns, (port, address), mac, answer, &mut actions);
                }
                Event::PathMtu { port, remote, mtu } => self.hear_path_mtu(port, remote, mtu),
            }
        }
        self.act(actions);
    }

    /// Asks again, and gives up.
    pub(super) fn tend_neighbours(&mut self) {
        let mut actions = vec![];
        let (now_ns, rib) = (self.now_ns(), &self.rib);
        self.neighbours
            .tick(now_ns, |(port, address)| rib.was_used(port, address), &mut actions);
        self.act(actions);
    }

    /// Forgets everything about a port that goes.
    pub(super) fn forget_neighbours(&mut self, port: PortId) {
        let mut actions = vec![];
        self.neighbours.forget_port(port, true, &mut actions);
        self.act(actions);
        self.forget_ways(port);
    }

    /// Forgets who was heard on a port; who was written down stays.
    pub(super) fn forget_learnt(&mut self, port: PortId) {
        let mut actions = vec![];
        self.neighbours.forget_port(port, false, &mut actions);
        self.act(actions);
    }

    /// Writes down the neighbours of a plan.
    pub(super) fn write_permanent(&mut self, plan: &Plan) {
        let mut actions = vec![];
        let now_ns = self.now_ns();
        for planned in plan.of_kind(resource::Kind::Neighbor) {
            if let Some(old) = self.permanent.remove(&planned.key.name)
                && let Some(key) = self.key_of(&old)
            {
                self.neighbours.forget(key, &mut actions);
            }
            if let Some(Resource::Neighbor(object)) = planned.after.as_deref() {
                let spec = &object.body.spec;
                self.permanent.insert(planned.key.name.clone(), spec.clone());
                if let Some(key) = self.key_of(spec) {
                    self.neighbours.set_permanent(now_ns, key, spec.mac.0, &mut actions);
                }
            }
        }
        self.act(actions);
    }

    fn key_of(&self, spec: &NeighborSpec) -> Option<Key> {
        Some((self.ports.id(&spec.port)?, spec.address))
    }

    fn act(&mut self, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        for action in actions {
            match action {
                Action::Ask(key, known) => self.ask(key, known),
                Action::Known(key, mac) => self.set_link(key, LinkState::Complete, mac),
                Action::Failed(key) => self.set_link(key, LinkState::Failed, [0; 6]),
                Action::Incomplete((port, address)) => {
                    self.rib.set_link(port, address, LinkState::Incomplete, [0; 6]);
                }
                Action::Forgotten(key) => {
                    self.clear_own_routes(key);
                    self.rib.clear_link(key.0, key.1);
                }
            }
        }
        self.workers.wake();
    }

    pub(super) fn vrf_of(&self, port: PortId) -> Option<VrfId> {
        Some(self.vrf(&self.ports.get(port)?.spec.vrf))
    }

    /// Tells adjacencies, and has a route of its own lead to the neighbour.
    fn set_link(&mut self, key: Key, state: LinkState, mac: [u8; 6]) {
        let is_wrapped = state == LinkState::Complete && self.ports.get(key.0).is_some_and(Port::is_overlay);
        let state = if is_wrapped { LinkState::Wrapped } else { state };
        self.rib.set_link(key.0, key.1, state, mac);
        self.write_own_route(key);
    }

    /// Brings the own routes of neighbours in line with the prefixes that changed, or with all.
    pub(super) fn write_own_routes(&mut self, changed: Option<&[IpNet]>) {
        let own_routes = &self.own_routes;
        let known = self
            .neighbours
            .iter()
            .filter(|(key, state, _)| *state != Known::Incomplete || tables_of(own_routes, *key).next().is_some());
        let concerned = |(port, address): Key| {
            // So many changes are better not compared one by one.
            let changed = changed.filter(|nets| nets.len() < 128);
            changed
                .is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
                .then_some((port, address))
        };
        let keys: Vec<Key> = known.filter_map(|(key, ..)| concerned(key)).collect();
        keys.into_iter().for_each(|key| self.write_own_route(key));
    }

    /// A neighbour has a route of its own while packets to it would go to the link of its port anyway: a longer prefix
    /// than the subnet's counts for it, too. In other tables than the port's as well, where they have routes to the link.
    fn write_own_route(&mut self, key: Key) {
        let (port, address) = key;
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let others = self.on_links.range((port, VrfId(0))..=(port, VrfId(u16::MAX)));
        let tables = self.vrf_of(port).into_iter().chain(others.map(|(_, vrf)| *vrf));
        let on_link = |vrf: &VrfId| !link_local && self.rib.covering(*vrf, address) == Some(&Target::OnLink(port));
        let wanted: Vec<VrfId> = tables.filter(on_link).collect();
        let stray: Vec<VrfId> = tables_of(&self.own_routes, key)
            .filter(|vrf| !wanted.contains(vrf))
            .collect();
        stray.into_iter().for_each(|vrf| self.clear_own_route(key, vrf));
        for vrf in wanted {
            let target = Target::Hops(vec![Hop {
                port,
                address,
                weight: 1,
            }]);
            match self.rib.set(vrf, host(address), Origin::Neighbour, &target) {
                Ok(()) => drop(self.own_routes.insert((key, vrf))),
                Err(full) => tracing::warn!("cannot send to neighbour {address}: {full}"),
            }
        }
    }

    fn clear_own_routes(&mut self, key: Key) {
        let tables: Vec<VrfId> = tables_of(&self.own_routes, key).collect();
        tables.into_iter().for_each(|vrf| self.clear_own_route(key, vrf));
    }

    fn clear_own_route(&mut self, key: Key, vrf: VrfId) {
        if self.own_routes.remove(&(key, vrf)) {
            // Should the table have no room for it, the route leads to an adjacency that asks again.
            let _ = self.rib.clear(vrf, host(key.1), Origin::Neighbour);
        }
    }

    /// Sends a question: to everybody, or to where the neighbour was.
    fn ask(&mut self, (port, wanted): Key, known: Option<[u8; 6]>) {
        // Behind a tunnel nobody is asked: who is there is written down.
        if self.ports.get(port).is_some_and(Port::is_overlay) {
            return;
        }
        if let Some(packet) = self.question(port, wanted, known) {
            self.send_from(port, &packet);
        }
    }

    /// Sends a packet, complete from the Ethernet header on.
    pub(super) fn send_from(&mut self, port: PortId, packet: &[u8]) {
        let Some(mut frame) = self.frames.take() else { return };
        let mut content = self.frames.packet(&mut frame);
        *content.meta = fastpath::meta::Meta::default();
        (content.meta.port, content.meta.egress) = (port, port);
        // What control sends itself is shorter than a frame.
        let _ = content.fill(HEADROOM, packet);
        let mut frames = vec![frame];
        self.workers.inject(self.workers.owner(port, 0), &mut frames);
        frames.into_iter().for_each(|frame| self.frames.give(frame));
    }

    fn question(&self, port: PortId, wanted: IpAddr, known: Option<[u8; 6]>) -> Option<Vec<u8>> {
        let interfaces = self.interfaces.current();
        let interface = interfaces.get(port)?;
        let mut packet = vec![];
        match wanted {
            IpAddr::V4(wanted) => {
                let source = interfaces.source_for(port, interface.vrf, wanted.into());
                let source = match source {
                    Some(IpAddr::V4(source)) => source.octets(),
                    _ => [0; 4],
                };
                let target = known.unwrap_or(ethernet::BROADCAST);
                let link = ethernet::Header {
                    target,
                    source: interface.mac,
                    ether_type: ethernet::ARP.into(),
                };
                let ours = (interface.mac, source);
                let question = arp::Packet::new(arp::REQUEST, ours, (known.unwrap_or_default(), wanted.octets()));
                packet.extend_from_slice(link.as_bytes());
                packet.extend_from_slice(question.as_bytes());
            }
            IpAddr::V6(wanted) => {
                let wanted = wanted.octets();
                let group = ndp::solicited_node(wanted);
                let (to, target) = match known {
                    Some(mac) => (wanted, mac),
                    None => (group, ethernet::multicast(group)),
                };
                let source = interface.link_local().octets();
                let link = ethernet::Header {
                    target,
                    source: interface.mac,
                    ether_type: ethernet::IPV6.into(),
                };
                packet.extend_from_slice(link.as_bytes());
                packet.extend_from_slice(&ndp::solicitation(source, interface.mac, wanted, to));
            }
        }
        Some(packet)
    }
}

/// The tables in which a neighbour has a route of its own.
fn tables_of(own_routes: &BTreeSet<(Key, VrfId)>, key: Key) -> impl Iterator<Item = VrfId> + '_ {
    own_routes
        .range((key, VrfId(0))..=(key, VrfId(u16::MAX)))
        .map(|(_, vrf)| *vrf)
}
