//! Ports that share their device with the kernel (`punt: kernel`): the plane takes what it has business with, and leaves
//! everything else to the host, whose addresses and connections stay as they are.
//!
//! What it takes: packets to where its routes lead by other ports, to its own addresses that the kernel does not have, and of
//! those that both have the ports of tunnels, of services, and of source NAT. Everything is told as claims to the port's
//! XDP program; a change of a route or a service changes its own claims only. A port with `punt: tap` has its claims in the
//! graph, and only those of ports: what goes elsewhere than to the host's addresses is the plane's.

mod overhear;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;

use fastpath::interfaces::Listener;
use fastpath::meta::{PortId, VrfId};
use fastpath::overlay::Wrapping;
use fastpath::port::xdp::{Claim, Claims};
use fastpath::punt::{Crossing, Ports as Claimed};
use fastpath::rib::{Origin, Target};
use fastpath::wire::protocol;
use ipnet::IpNet;
use nat::snat::{SHARED_IDENTIFIERS, SHARED_PORTS};

use super::State;
use super::ports::{Backing, Port};
use super::routes::host;
use crate::program::services::Front;
pub(super) use overhear::Ear;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Claims, and whether the plane takes them or leaves them to the kernel.
type Wanted = HashMap<Claim, bool>;

/// Who has to know what is claimed.
enum Heard<'a> {
    ByProgram(&'a Claims),
    ByGraph,
}

/// What the programs of such ports have been told.
#[derive(Default)]
pub(super) struct Punting {
    ports: HashMap<PortId, Told>,
    /// Addresses of ports that the kernel has, too.
    shared: HashSet<IpAddr>,
}

#[derive(Default)]
struct Told {
    claims: Wanted,
    /// Those of them that follow from ports, tunnels and source NAT.
    own: Wanted,
    ear: Option<Ear>,
}

impl Told {
    /// Brings the program in line; what cannot be told is tried again with the next change.
    fn tell(&mut self, heard: &Heard<'_>, claim: Claim, take: Option<bool>) {
        if self.claims.get(&claim).copied() == take {
            return;
        }
        let done = match (heard, take) {
            (Heard::ByProgram(claims), Some(take)) => claims.set(&claim, take),
            (Heard::ByProgram(claims), None) => claims.clear(&claim),
            (Heard::ByGraph, _) => Ok(()),
        };
        match (done, take) {
            (Ok(()), Some(take)) => {
                self.claims.insert(claim, take);
            }
            (Ok(()), None) => {
                self.claims.remove(&claim);
            }
            (Err(error), _) => tracing::warn!("cannot leave to the kernel, or take from it, {claim:?}: {error}"),
        }
    }

    /// The ports that are the plane's.
    fn claimed(&self) -> Vec<Claimed> {
        let taken = self.claims.iter().filter(|(_, take)| **take);
        let claimed = taken.filter_map(|(claim, _)| match *claim {
            Claim::Prefix { .. } => None,
            Claim::Ports {
                address,
                protocol,
                first,
                bits,
            } => Some(Claimed {
                address,
                protocol,
                first,
                last: first | u16::MAX.checked_shr(bits.into()).unwrap_or(0),
            }),
        });
        claimed.collect()
    }
}

impl Punting {
    /// A device is let go: when it is opened again, its program knows nothing.
    pub fn forget(&mut self, port: PortId) {
        self.ports.remove(&port);
    }
}

impl State {
    /// Tells the programs of ports that punt to the kernel what has changed since the last time.
    pub(super) fn claim(&mut self) {
        let routes = self.rib.take_changed();
        let fronts = self.balancing.take_changed();
        let punting: Vec<PortId> = self.ports.iter().filter_map(punts).collect();
        self.punting.ports.retain(|id, _| punting.contains(id));
        self.rib.keep_changed(!punting.is_empty());
        if punting.is_empty() {
            return;
        }
        let shared = self.shared_addresses();
        let is_moved = shared != self.punting.shared;
        self.punting.shared = shared;
        for id in punting {
            let is_new = !self.punting.ports.contains_key(&id);
            self.punting.ports.entry(id).or_default();
            if is_new || is_moved {
                self.claim_all(id);
                continue;
            }
            self.claim_own(id);
            for (vrf, net) in &routes {
                self.claim_route(id, *vrf, *net);
            }
            for (front, stands) in &fronts {
                self.claim_front(id, front, *stands);
            }
        }
        self.tell_hosts(|state, id| state.punting.ports.get(&id).map_or(vec![], Told::claimed));
    }

    /// Looks whether the kernel got or lost an address that the plane has, and hears on what the kernel gets told.
    pub(super) fn tend_punting(&mut self) {
        if self.punting.ports.is_empty() {
            return;
        }
        self.ask_hosts();
        self.claim();
        let events = self.events.clone();
        for (id, told) in &mut self.punting.ports {
            let Some(port) = self.ports.get(*id) else { continue };
            let is_shared = matches!(heard_by(port), Some(Heard::ByProgram(_)));
            if is_shared && port.running && !told.ear.as_ref().is_some_and(Ear::listens) {
                told.ear = Ear::open(*id, &port.spec.device, events.clone());
            }
            if let Some(ear) = &told.ear {
                ear.set_addresses(&port.spec.addresses);
            }
        }
    }

    /// The addresses of ports that the kernel has, too.
    fn shared_addresses(&self) -> HashSet<IpAddr> {
        let addresses = self.ports.iter().flat_map(|port| &port.spec.addresses).map(IpNet::addr);
        addresses.filter(|address| kernel_has(*address)).collect()
    }

    fn claim_all(&mut self, id: PortId) {
        let mut wanted = self.own_claims(id);
        self.with(id, |told, _| told.own.clone_from(&wanted));
        let nets: Vec<(VrfId, IpNet)> = self.rib.iter().map(|(vrf, net, ..)| (vrf, net)).collect();
        for (vrf, net) in nets {
            if let Some(take) = self.takes(id, vrf, net) {
                wanted.insert(prefix(net), take);
            }
        }
        let fronts: Vec<Front> = self.balancing.fronts().copied().collect();
        for front in &fronts {
            wanted.extend(self.front_claims(id, front).into_iter().map(|claim| (claim, true)));
        }
        self.with(id, |told, claims| {
            let stale: Vec<Claim> = told
                .claims
                .keys()
                .filter(|claim| !wanted.contains_key(claim))
                .copied()
                .collect();
            stale.into_iter().for_each(|claim| told.tell(claims, claim, None));
            wanted
                .into_iter()
                .for_each(|(claim, take)| told.tell(claims, claim, Some(take)));
        });
    }

    /// What follows from ports, tunnels and source NAT: little, and so made anew each time.
    fn claim_own(&mut self, id: PortId) {
        let own = self.own_claims(id);
        self.with(id, |told, claims| {
            let stale: Vec<Claim> = told
                .own
                .keys()
                .filter(|claim| !own.contains_key(claim))
                .copied()
                .collect();
            stale.into_iter().for_each(|claim| told.tell(claims, claim, None));
            own.iter()
                .for_each(|(claim, take)| told.tell(claims, *claim, Some(*take)));
            told.own = own;
        });
    }

    fn claim_route(&mut self, id: PortId, vrf: VrfId, net: IpNet) {
        if self.vrf_of_port(id) != Some(vrf) {
            return;
        }
        let (take, claim) = (self.takes(id, vrf, net), prefix(net));
        self.with(id, |told, claims| {
            if !told.own.contains_key(&claim) {
                told.tell(claims, claim, take);
            }
        });
    }

    fn claim_front(&mut self, id: PortId, front: &Front, stands: bool) {
        let fronts = self.front_claims(id, front);
        self.with(id, |told, claims| {
            for claim in fronts
                .into_iter()
                .filter(|claim| !told.own.contains_key(claim))
                .collect::<Vec<_>>()
            {
                told.tell(claims, claim, stands.then_some(true));
            }
        });
    }

    fn with(&mut self, id: PortId, change: impl FnOnce(&mut Told, &Heard<'_>)) {
        let heard = self.ports.get(id).and_then(heard_by);
        if let (Some(heard), Some(told)) = (heard, self.punting.ports.get_mut(&id)) {
            change(told, &heard);
        }
    }

    fn vrf_of_port(&self, id: PortId) -> Option<VrfId> {
        self.ports.get(id).map(|port| self.vrf(&port.spec.vrf))
    }

    /// Whether the plane takes what goes to a prefix, by its route; nothing where there is no route, or another word on it.
    fn takes(&self, id: PortId, vrf: VrfId, net: IpNet) -> Option<bool> {
        if self.hosts.tap_index(id).is_some() || self.vrf_of_port(id) != Some(vrf) || is_link_local(net.addr()) {
            return None;
        }
        let (origin, target) = self.rib.best(vrf, net)?;
        // What the kernel taught is for the kernel to follow as well: a full table of the Internet is not told back to it.
        if matches!(origin, Origin::Neighbour | Origin::Kernel) || *target == Target::Local {
            return None;
        }
        Some(match target {
            Target::Hops(hops) => hops.iter().any(|hop| hop.port != id),
            Target::OnLink(port) => *port != id,
            Target::Broadcast => false,
            _ => true,
        })
    }

    /// Addresses of the plane's, and of those that the kernel has, too, the ports that are the plane's.
    fn own_claims(&self, id: PortId) -> Wanted {
        let Some(vrf) = self.vrf_of_port(id) else {
            return Wanted::new();
        };
        let ports = self.ports.iter().filter(|port| self.vrf(&port.spec.vrf) == vrf);
        let addresses = ports.flat_map(|port| {
            port.spec
                .addresses
                .iter()
                .map(IpNet::addr)
                .chain(port.aliases.iter().copied())
        });
        // One that is on no subnet is routed to here.
        let fixed = self.flows.static_nat.pairs().filter(|_| vrf == VrfId::default());
        let addresses = addresses.chain(fixed.map(|(outside, _)| outside));
        let listeners = self.listeners();
        let mut ranges: Vec<_> = self.flows.own_ports().map(|range| (range.clone(), range)).collect();
        if self.is_tracked() {
            ranges.push((SHARED_PORTS, SHARED_IDENTIFIERS));
        }
        let mut wanted = Wanted::new();
        for address in addresses {
            let is_shared = self.punting.shared.contains(&address);
            wanted.insert(prefix(host(address)), !is_shared);
            if is_shared {
                let tunnels = listeners.iter().filter(|listener| listener.vrf == vrf);
                let tunnels = tunnels.map(|Listener { udp_port, .. }| Claim::port(address, UDP, *udp_port));
                let translated = ranges.iter().flat_map(|(ports, echo)| translated(address, ports, echo));
                let wrapped = self.wrapped(address);
                wanted.extend(tunnels.chain(translated).chain(wrapped).map(|claim| (claim, true)));
            }
        }
        wanted
    }

    /// What comes to tunnels that are ports.
    fn wrapped(&self, address: IpAddr) -> Vec<Claim> {
        let here = self.ports.iter().filter(|port| port.spec.local == Some(address));
        let protocols = here.filter_map(|port| port.spec.wrapping());
        let claims = protocols.flat_map(|wrapping| match wrapping {
            Wrapping::Ip => vec![(protocol::IPV4, 0), (protocol::IPV6, 0)],
            Wrapping::Vxlan { udp_port, .. } => vec![(protocol::UDP, udp_port)],
        });
        claims
            .map(|(protocol, port)| Claim::port(address, protocol, port))
            .collect()
    }

    /// What clients of a service send to.
    fn front_claims(&self, id: PortId, front: &Front) -> Vec<Claim> {
        let Some(vrf) = self.vrf_of_port(id).filter(|vrf| *vrf == VrfId::default()) else {
            return vec![];
        };
        let protocol = front.protocol.number();
        if !front.address.is_unspecified() {
            return match self.punting.shared.contains(&front.address) {
                true => vec![Claim::port(front.address, protocol, front.port)],
                false => vec![prefix(host(front.address))],
            };
        }
        let nodes = self.ports.iter().filter(|port| self.vrf(&port.spec.vrf) == vrf);
        let addresses = nodes.flat_map(|port| &port.spec.addresses).map(IpNet::addr);
        let shared =
            addresses.filter(|own| own.is_ipv4() == front.address.is_ipv4() && self.punting.shared.contains(own));
        shared
            .map(|address| Claim::port(address, protocol, front.port))
            .collect()
    }
}

/// The port, if it punts and is open.
fn punts(port: &Port) -> Option<PortId> {
    heard_by(port).map(|_| port.id)
}

fn heard_by(port: &Port) -> Option<Heard<'_>> {
    match (&port.backing, &port.crossing) {
        (Some(Backing::Device(device)), Crossing::Nobody) => device.claims().map(Heard::ByProgram),
        (Some(Backing::Device(_)), Crossing::Host(_)) => Some(Heard::ByGraph),
        _ => None,
    }
}

fn prefix(net: IpNet) -> Claim {
    Claim::prefix(net.addr(), net.prefix_len())
}

/// The ports that source NAT gives on an address, and the identifiers of ICMP echo.
fn translated(address: IpAddr, ports: &RangeInclusive<u16>, echo: &RangeInclusive<u16>) -> Vec<Claim> {
    let icmp = if address.is_ipv4() { ICMP } else { ICMPV6 };
    let protocols = [(TCP, ports), (UDP, ports), (SCTP, ports), (icmp, echo)].into_iter();
    let claims = protocols.flat_map(|(protocol, range)| Claim::ports(address, protocol, *range.start(), *range.end()));
    claims.collect()
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Whether a program of this host could be spoken to at the address.
fn kernel_has(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
