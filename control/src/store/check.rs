//! What must hold between resources, of the set a plan would result in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Plan, Planned, Store};
use crate::refusal::Refusal;
use crate::resource::{Key, Kind, Neighbor, Port, Resource, Route, Target};

/// Whether the set `plan` results in is sound. Costs what the plan changes; a change of ports, which others stand on,
/// looks at everything.
pub(super) fn check(store: &Store, plan: &Plan) -> Result<(), Refusal> {
    let result = Resulting::new(store, plan)?;
    result.check_claims()?;
    let affected = result.affected();
    for (key, resource) in &affected {
        result.check_references(key, resource)?;
    }
    let connected = result.connected()?;
    for (key, resource) in &affected {
        match &***resource {
            Resource::Route(route) => result.check_gateways(key, &route.body, &connected)?,
            Resource::Neighbor(neighbor) => result.check_neighbor(key, &neighbor.body, &connected)?,
            Resource::Port(_) => {}
        }
    }
    Ok(())
}

/// A store as it would be after a plan.
struct Resulting<'a> {
    store: &'a Store,
    plan: &'a Plan,
    planned: HashMap<&'a Key, &'a Planned>,
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
        Ok(Self { store, plan, planned })
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
        if self.plan.of_kind(Kind::Port).next().is_none() {
            return self.changed().collect();
        }
        let kept = self.store.all().filter(|(key, _)| !self.planned.contains_key(key));
        self.changed().chain(kept).collect()
    }

    fn check_claims(&self) -> Result<(), Refusal> {
        let mut claimed: HashMap<String, &Key> = HashMap::new();
        for (key, resource) in self.changed() {
            for claim in resource.claims() {
                let kept = self
                    .store
                    .claims
                    .get(&claim.what)
                    .filter(|key| !self.planned.contains_key(key));
                if let Some(holder) = kept.or(claimed.get(&claim.what).copied()) {
                    let reason = format!("{} already belongs to {holder}", claim.what);
                    return Err(self.refuse(key, &claim.field, &reason));
                }
                claimed.insert(claim.what, key);
            }
        }
        Ok(())
    }

    fn check_references(&self, key: &Key, resource: &Resource) -> Result<(), Refusal> {
        for reference in resource.references() {
            let named = &reference.key;
            if self.get(named).is_some() {
                continue;
            }
            // A deletion is refused where it was asked for.
            if let Some(deletion) = self.planned.get(named) {
                let field = &reference.field;
                let reason = format!("{key} still names it in {field}; delete {key} first or in the same request");
                return Err(Refusal::of_document(
                    &deletion.origin,
                    format_args!("{named} cannot be deleted: {reason}"),
                ));
            }
            let reason = format!("there is no {named}; apply it first or in the same request");
            return Err(self.refuse(key, &reference.field, &reason));
        }
        Ok(())
    }

    /// The prefixes of all ports. Two ports of a VRF with a prefix in common would leave it open which of them a
    /// packet goes to.
    fn connected(&self) -> Result<Vec<Connected<'a>>, Refusal> {
        let mut connected: Vec<Connected<'a>> = Vec::new();
        for (key, port) in self
            .of_kind(Kind::Port)
            .filter_map(|(key, resource)| Some((key, as_port(resource)?)))
        {
            let vrf = port.spec.vrf.as_str();
            for (at, address) in port.spec.addresses.iter().enumerate() {
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
                Target::OnLink(name) => {
                    let port_key = Key::cluster(Kind::Port, name);
                    let other = self.get(&port_key).and_then(as_port).map(|port| &port.spec.vrf);
                    if let Some(other) = other.filter(|other| *other != vrf) {
                        let reason = format!("{port_key} is in vrf {other}, the route in vrf {vrf}");
                        return Err(self.refuse(key, &format!("spec.via[{at}].port"), &reason));
                    }
                }
                Target::Drop => {}
            }
        }
        Ok(())
    }

    fn unreachable(&self, vrf: &str, gateway: IpAddr, connected: &[Connected<'_>]) -> Option<String> {
        let mut here = connected.iter().filter(|connected| connected.vrf == vrf);
        match here.clone().find(|connected| connected.address.addr() == gateway) {
            Some(own) => Some(format!(
                "{gateway} is the data plane's own address on {}; expected a neighbour's",
                own.port
            )),
            None if here.any(|connected| connected.address.contains(&gateway)) => None,
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

fn as_port(resource: &Arc<Resource>) -> Option<&Port> {
    match &**resource {
        Resource::Port(port) => Some(&port.body),
        Resource::Route(_) | Resource::Neighbor(_) => None,
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}
