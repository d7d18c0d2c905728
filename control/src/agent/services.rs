//! Services that rules name: their endpoints, as slices say them.
//!
//! As in Felix, all endpoints of a slice count, ready or not: who still answers a connection, or is about to take one, is
//! part of the service. A port without a number is none, and an address that is a name neither.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Agent;
use super::sets::{Definition, Member, ServiceName, ServicePart};
use crate::resource::{EndpointSlice, Key, Resource, SERVICE_LABEL};

/// Endpoints of services by slice, so that a slice that changes costs itself.
pub(super) type Services = HashMap<ServiceName, HashMap<String, Backends>>;

/// What one slice says.
#[derive(Debug)]
pub(super) struct Backends {
    addresses: Vec<IpAddr>,
    /// Protocol numbers and ports, of every address.
    ports: Vec<(u8, u16)>,
}

impl Agent {
    /// A slice was `before` and is `after`; it may have gone from one service to another.
    pub(super) fn set_slice(&mut self, key: &Key, before: Option<&Resource>, after: Option<&Resource>) {
        if let Some((service, _)) = before.and_then(slice_of)
            && let Some(slices) = self.services.get_mut(&service)
        {
            let old = slices.remove(&key.name);
            if slices.is_empty() {
                self.services.remove(&service);
            }
            old.iter().for_each(|old| self.move_backends(&service, old, false));
        }
        if let Some((service, slice)) = after.and_then(slice_of) {
            let new = Backends::of(slice);
            self.move_backends(&service, &new, true);
            self.services.entry(service).or_default().insert(key.name.clone(), new);
        }
    }

    /// Rules name a service that they did not before.
    pub(super) fn fill_service(&mut self, id: &str, service: &ServiceName, part: ServicePart) {
        for backends in self.services.get(service).into_iter().flat_map(HashMap::values) {
            self.sets.change(id, backends.members(part), true);
        }
    }

    fn move_backends(&mut self, service: &ServiceName, backends: &Backends, come: bool) {
        for part in [ServicePart::Addresses, ServicePart::Ports] {
            let id = Definition::Service(service.clone(), part).id();
            self.sets.change(&id, backends.members(part), come);
        }
    }
}

impl Backends {
    fn of(slice: &EndpointSlice) -> Self {
        let texts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let ports = slice.ports.iter();
        Self {
            addresses: texts.filter_map(|text| text.parse().ok()).collect(),
            ports: ports
                .filter_map(|port| Some((port.protocol.unwrap_or_default().number(), port.port?)))
                .collect(),
        }
    }

    /// What they are in a set.
    fn members(&self, part: ServicePart) -> Vec<Member> {
        let addresses = self.addresses.iter().copied();
        match part {
            ServicePart::Addresses => addresses.map(|address| Member::Net(address.into())).collect(),
            ServicePart::Ports => addresses
                .flat_map(|address| {
                    let ports = self.ports.iter();
                    ports.map(move |(protocol, port)| Member::Port(address, *protocol, *port))
                })
                .collect(),
        }
    }
}

/// A slice and the service that it belongs to. Some belong to none.
fn slice_of(resource: &Resource) -> Option<(ServiceName, &EndpointSlice)> {
    let Resource::EndpointSlice(object) = resource else {
        return None;
    };
    let service = object.metadata.labels.get(SERVICE_LABEL)?;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    Some(((namespace, service.clone()), &object.body))
}
