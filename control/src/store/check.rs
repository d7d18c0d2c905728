//! What must hold between resources, of the set a plan would result in.

mod addresses;
mod overlay;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Plan, Planned, Store};
use crate::refusal::Refusal;
use crate::resource::{Key, Kind, Neighbor, PortSpec, Punt, Resource, Route, SourceNatSpec, Target, WireguardPeer};

/// Whether the set `plan` results in is sound. Costs what the plan changes; a change of ports, tunnels and tiers, which
/// others stand on, looks at everything.
pub(super) fn check(store: &Store, plan: &Plan) -> Result<(), Refusal> {
    let result = Resulting::new(store, plan)?;
    let claimed = result.check_claims()?;
    let affected = result.affected();
    for (key, resource) in &affected {
        result.check_references(key, resource)?;
        addresses::check_other(&result, key, resource, &claimed)?;
    }
    let needs_links = |(key, _): &(&Key, _)| LINKED.contains(&key.kind);
    let connected = match affected.iter().any(needs_links) {
        true => result.connected()?,
        false => vec![],
    };
    for (key, resource) in &affected {
        match &***resource {
            Resource::Route(route) => result.check_gateways(key, &route.body, &connected)?,
            Resource::Neighbor(neighbor) => result.check_neighbor(key, &neighbor.body, &connected)?,
            Resource::Port(port) => {
                result.check_name(key, Kind::WireguardInterface)?;
                result.check_vlan(key, &port.body.spec)?;
                overlay::check_port(&result, key, &port.body.spec, &connected)?;
            }
            Resource::WireguardInterface(_) => result.check_name(key, Kind::Port)?,
            Resource::SourceNat(nat) => result.check_source_nat(key, &nat.body.spec, &connected)?,
            Resource::WorkloadEndpoint(endpoint) => addresses::check_endpoint(&result, key, &endpoint.body, &claimed)?,
            Resource::WireguardPeer(peer) => result.check_peer(key, &peer.body)?,
            _ => {}
        }
    }
    Ok(())
}

/// A store as it would be after a plan.
struct Resulting<'a> {
    store: &'a Store,
    plan: &'a Plan,
    planned: HashMap<&'a Key, &'a Planned>,
    /// Found when they are first asked for.
    host_ports: OnceCell<addresses::HostPorts>,
}

/// A prefix that is on the link of a port.
struct Connected<'a> {
    port: &'a Key,
    vrf: &'a str,
    address: IpNet,
}

impl<'a> Resulting<'a> {
    fn new(store: &'a Store, plan: &'a Plan) -> Result<Self, Refusal> {
        let mut planned = HashMap::with_capacity(plan.changes.len());
        for change in &plan.changes {
            if let Some(earlier) = planned.insert(&change.key, change) {
                let earlier = &earlier.origin;
                let reason = format!("{} was already given in {earlier}; leave one of them out", change.key);
                return Err(Refusal::of_document(&change.origin, reason));
            }
        }
        Ok(Self {
            store,
            plan,
            planned,
            host_ports: OnceCell::new(),
        })
    }

    fn get(&self, key: &Key) -> Option<&'a Arc<Resource>> {
        match self.planned.get(key) {
            Some(planned) => planned.after.as_ref(),
            None => self.store.get(key),
        }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&'a Key, &'a Arc<Resource>)> {
        let kept = self
            .store
            .of_kind(kind)
            .filter(|(key, _)| !self.planned.contains_key(key));
        kept.chain(self.changed().filter(move |(key, _)| key.kind == kind))
    }

    fn changed(&self) -> impl Iterator<Item = (&'a Key, &'a Arc<Resource>)> {
        self.plan
            .changes
            .iter()
            .filter_map(|planned| Some((&planned.key, planned.after.as_ref()?)))
    }

    /// The resources whose soundness the plan can have touched.
    fn affected(&self) -> Vec<(&'a Key, &'a Arc<Resource>)> {
        let others_stand_on = |kind| self.plan.of_kind(kind).next().is_some();
        if !INTERFACES.into_iter().chain([Kind::Tier]).any(others_stand_on) {
            return self.changed().collect();
        }
        let kept = self.store.all().filter(|(key, _)| !self.planned.contains_key(key));
        self.changed().chain(kept).collect()
    }

    /// What the plan claims, which nobody else has.
    fn check_claims(&self) -> Result<addresses::Claimed<'a>, Refusal> {
        let mut claimed = addresses::Claimed::new();
        for (key, resource) in self.changed() {
            for claim in resource.claims() {
                if let Some(holder) = self.holder(&claim.what, &claimed) {
                    let reason = format!("{} already belongs to {holder}", claim.what);
                    return Err(self.refuse(key, &claim.field, &reason));
                }
                claimed.insert(claim.what, key);
            }
        }
        Ok(claimed)
    }

    /// Who has what only one can have.
    fn holder(&self, what: &str, claimed: &addresses::Claimed<'a>) -> Option<Key> {
        let kept = self.store.claims.get(what).map(|holder| holder.key());
        kept.filter(|key| !self.planned.contains_key(key))
            .or_else(|| claimed.get(what).copied().cloned())
    }

    fn check_references(&self, key: &Key, resource: &Resource) -> Result<(), Refusal> {
        for reference in resource.references() {
            let named = &reference.key;
            let other = reference.or.map(|kind| Key::cluster(kind, &named.name));
            let mut candidates = std::iter::once(named).chain(&other);
            if candidates.clone().any(|named| self.get(named).is_some()) {
                continue;
            }
            // A deletion is refused where it was asked for.
            if let Some(deletion) = candidates.find_map(|named| self.planned.get(named)) {
                let (gone, field) = (&deletion.key, &reference.field);
                let reason = format!("{key} still names it in {field}; delete {key} first or in the same request");
                return Err(Refusal::of_document(
                    &deletion.origin,
                    format_args!("{gone} cannot be deleted: {reason}"),
                ));
            }
            let reason = format!("there is no {named}; apply it first or in the same request");
            return Err(self.refuse(key, &reference.field, &reason));
        }
        Ok(())
    }

    /// The prefixes of all ports and tunnels. Two of a VRF with a prefix in common would leave it open which of them a
    /// packet goes to.
    fn connected(&self) -> Result<Vec<Connected<'a>>, Refusal> {
        let mut connected: Vec<Connected<'a>> = Vec::new();
        let interfaces = INTERFACES.into_iter().flat_map(|kind| self.of_kind(kind));
        for (key, vrf, addresses) in interfaces.filter_map(|(key, resource)| {
            let (vrf, addresses) = subnets(resource)?;
            Some((key, vrf, addresses))
        }) {
            for (at, address) in addresses.iter().enumerate() {
                let clash = connected.iter().find(|other| {
                    other.vrf == vrf && other.port != key && overlap(&other.address, address) //
                });
                if let Some(Connected {
                    port, address: theirs, ..
                }) = clash
                {
                    let reason = format!(
                        "{} overlaps {} of {port} in vrf {vrf}; give the ports prefixes of their own",
                        address.trunc(),
                        theirs.trunc()
                    );
                    return Err(self.refuse(key, &format!("spec.addresses[{at}]"), &reason));
                }
                connected.push(Connected {
                    port: key,
                    vrf,
                    address: *address,
                });
            }
        }
        Ok(connected)
    }

    fn check_gateways(&self, key: &Key, route: &Route, connected: &[Connected<'_>]) -> Result<(), Refusal> {
        let vrf = route.spec.vrf.as_str();
        for (at, hop) in route.spec.via.iter().enumerate() {
            match &hop.target {
                Target::Gateway(gateway) => {
                    let reason = self.unreachable(vrf, *gateway, connected);
                    if let Some(reason) = reason {
                        return Err(self.refuse(key, &format!("spec.via[{at}].gateway"), &reason));
                    }
                }
                Target::GatewayIn { gateway, vrf } => {
                    if let Some(reason) = self.unreachable(vrf, *gateway, connected) {
                        return Err(self.refuse(key, &format!("spec.via[{at}].gateway"), &reason));
                    }
                }
                Target::Table(vrf) => {
                    let mut interfaces = INTERFACES.into_iter().flat_map(|kind| self.of_kind(kind));
                    if !interfaces.any(|(_, resource)| subnets(resource).is_some_and(|(used, _)| used == vrf)) {
                        let reason = format!("no Port is in vrf {vrf}; apply one first or in the same request");
                        return Err(self.refuse(key, &format!("spec.via[{at}].vrf"), &reason));
                    }
                }
                Target::OnLink(port) => overlay::check_way(self, key, port, &format!("spec.via[{at}].port"))?,
                Target::GatewayBy { gateway, port } => overlay::check_gateway(self, key, port, *gateway, at)?,
                Target::Drop => {}
            }
        }
        Ok(())
    }

    fn unreachable(&self, vrf: &str, gateway: IpAddr, connected: &[Connected<'_>]) -> Option<String> {
        let here = connected.iter().filter(|connected| connected.vrf == vrf);
        match here.clone().find(|connected| connected.address.addr() == gateway) {
            Some(own) => Some(format!(
                "{gateway} is the data plane's own address on {}; expected a neighbour's",
                own.port
            )),
            None => self.no_neighbour(vrf, gateway, here),
        }
    }

    fn no_neighbour<'b>(
        &self,
        vrf: &str,
        gateway: IpAddr,
        mut here: impl Iterator<Item = &'b Connected<'a>>,
    ) -> Option<String>
    where
        'a: 'b,
    {
        match here.find(|connected| connected.address.contains(&gateway)) {
            Some(tunnel) if tunnel.port.kind == Kind::WireguardInterface => Some(format!(
                "{gateway} is behind {}, where allowed IPs decide who gets a packet; write `port: {}`",
                tunnel.port, tunnel.port.name
            )),
            Some(_) => None,
            None => Some(format!(
                "{gateway} is on no connected prefix of vrf {vrf}; expected a neighbour of a Port, so give one an address beside it"
            )),
        }
    }

    fn check_neighbor(&self, key: &Key, neighbor: &Neighbor, connected: &[Connected<'_>]) -> Result<(), Refusal> {
        let port = Key::cluster(Kind::Port, &neighbor.spec.port);
        let own = connected
            .iter()
            .find(|own| *own.port == port && own.address.addr() == neighbor.spec.address);
        overlay::check_neighbor(self, key, &neighbor.spec)?;
        match own {
            Some(own) => {
                let reason = format!(
                    "{} is the data plane's own address on {}",
                    neighbor.spec.address, own.port
                );
                Err(self.refuse(key, "spec.address", &reason))
            }
            None => Ok(()),
        }
    }

    /// A VLAN stands on the port of its link.
    fn check_vlan(&self, key: &Key, vlan: &PortSpec) -> Result<(), Refusal> {
        let Some(id) = vlan.vlan else { return Ok(()) };
        let ports = self
            .of_kind(Kind::Port)
            .filter_map(|(key, resource)| match &**resource {
                Resource::Port(port) => Some((key, &port.body.spec)),
                _ => None,
            });
        let ports: Vec<_> = ports.collect();
        let is_vlan = |spec: &PortSpec| spec.vlan.is_some() && spec.device_name() == vlan.device;
        match ports.iter().find(|(_, spec)| spec.is_trunk_of(vlan)) {
            None if let Some((other, _)) = ports.iter().find(|(_, spec)| is_vlan(spec)) => {
                let reason = format!("is {other}, a VLAN itself; VLANs are not stacked: a frame has one tag here");
                Err(self.refuse(key, "spec.device", &reason))
            }
            None => {
                let device = &vlan.device;
                let reason = format!(
                    "vlan {id} needs a Port of driver {} for device {device} itself; apply one without `vlan` first or in \
                     the same request",
                    vlan.driver.name()
                );
                Err(self.refuse(key, "spec.device", &reason))
            }
            Some((trunk, spec)) if spec.punt == Punt::Kernel => {
                let reason = format!(
                    "vlan {id} is on the link of {trunk}, which leaves what is tagged to the kernel; \
                     expected `punt: none` there"
                );
                Err(self.refuse(key, "spec.device", &reason))
            }
            Some((trunk, spec)) if spec.mtu < vlan.mtu => {
                let reason = format!(
                    "{} is more than the {} of {trunk}, whose link it is on",
                    vlan.mtu, spec.mtu
                );
                Err(self.refuse(key, "spec.mtu", &reason))
            }
            Some(_) => Ok(()),
        }
    }

    /// Ports and tunnels are named by one another's words: in routes, views and traces.
    fn check_name(&self, key: &Key, other: Kind) -> Result<(), Refusal> {
        let namesake = Key::cluster(other, &key.name);
        if self.get(&namesake).is_none() {
            return Ok(());
        }
        let reason = format!("{namesake} has this name already; choose another");
        Err(self.refuse(key, "metadata.name", &reason))
    }

    /// The table that answers to translated connections come in by: where they leave, if a rule says so.
    fn answers_vrf<'b>(&'b self, nat: &'b SourceNatSpec) -> &'b str {
        let named = nat
            .out_port
            .iter()
            .flat_map(|name| INTERFACES.map(|kind| Key::cluster(kind, name)));
        let mut found = named.filter_map(|key| Some(subnets(self.get(&key)?)?.0));
        found.next().unwrap_or(&nat.vrf)
    }

    /// Answers have to come to us, and to be for one rule only.
    fn check_source_nat(&self, key: &Key, nat: &SourceNatSpec, connected: &[Connected<'_>]) -> Result<(), Refusal> {
        let vrf = self.answers_vrf(nat);
        for (field, address) in nat.pool() {
            let mut here = connected.iter().filter(|connected| connected.vrf == vrf);
            if !here.any(|connected| connected.address.contains(&address)) {
                let reason = format!(
                    "{address} is on no connected prefix of vrf {vrf}, so answers would not come here; give a Port an address \
                     beside it"
                );
                return Err(self.refuse(key, &field, &reason));
            }
        }
        let others = self.of_kind(Kind::SourceNat).filter(|(other, _)| *other != key);
        for (other, resource) in others {
            let Resource::SourceNat(object) = &**resource else {
                continue;
            };
            let theirs = &object.body.spec;
            let shared = theirs.ports.0.start() <= nat.ports.0.end() && nat.ports.0.start() <= theirs.ports.0.end();
            let mut pool = nat.pool().filter(|_| shared && self.answers_vrf(theirs) == vrf);
            if let Some((field, address)) = pool.find(|(_, address)| theirs.pool().any(|(_, other)| other == *address))
            {
                let reason = format!(
                    "ports {} of {address} are taken by {other}, which has {}; give them ranges of their own",
                    nat.ports, theirs.ports
                );
                return Err(self.refuse(key, &field, &reason));
            }
        }
        Ok(())
    }

    fn check_peer(&self, key: &Key, peer: &WireguardPeer) -> Result<(), Refusal> {
        let interface = Key::cluster(Kind::WireguardInterface, &peer.spec.interface);
        match self.get(&interface).map(|resource| &**resource) {
            Some(Resource::WireguardInterface(object)) if object.body.public_key() == Some(peer.spec.public_key) => {
                let reason = format!("is the public key of {interface} itself; expected the peer's");
                Err(self.refuse(key, "spec.publicKey", &reason))
            }
            _ => Ok(()),
        }
    }

    /// Names the document at fault, or the resource where the fault is in one that the request does not hold.
    fn refuse(&self, key: &Key, field: &str, reason: &str) -> Refusal {
        match self.planned.get(key) {
            Some(planned) => Refusal::of_field(&planned.origin, field, reason),
            None => Refusal::of_field(
                &key.to_string(),
                field,
                format_args!("{reason} (after what was asked for)"),
            ),
        }
    }
}

/// Interfaces, and what stands on their prefixes.
const LINKED: [Kind; 5] = [
    Kind::Port,
    Kind::WireguardInterface,
    Kind::Route,
    Kind::Neighbor,
    Kind::SourceNat,
];

/// The kinds that packets come and go by.
const INTERFACES: [Kind; 2] = [Kind::Port, Kind::WireguardInterface];

/// The routing table of such a resource, and its addresses.
fn subnets(resource: &Resource) -> Option<(&str, &[IpNet])> {
    match resource {
        Resource::Port(port) => Some((&port.body.spec.vrf, &port.body.spec.addresses)),
        Resource::WireguardInterface(interface) => {
            let spec = &interface.body.spec;
            Some((&spec.vrf, &spec.addresses))
        }
        _ => None,
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}
