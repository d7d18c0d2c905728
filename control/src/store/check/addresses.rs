//! Addresses and ports that workloads have outside: nobody else may have them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{INTERFACES, Resulting, subnets};
use crate::refusal::Refusal;
use crate::resource::calico::HostPort;
use crate::resource::calico::outside;
use crate::resource::{Key, Kind, Protocol, Resource, Service, WorkloadEndpoint};

/// Who in a plan claims what.
pub(super) type Claimed<'a> = HashMap<String, &'a Key>;

/// A workload's addresses outside are no port's, service's or source NAT's. Costs a look at all of those for an endpoint
/// that has such an address, and nothing for others.
pub(super) fn check_endpoint(
    result: &Resulting<'_>,
    key: &Key,
    endpoint: &WorkloadEndpoint,
    claimed: &Claimed<'_>,
) -> Result<(), Refusal> {
    for (at, nat) in endpoint.spec.ip_nats.iter().enumerate() {
        let kinds = INTERFACES.into_iter().chain([Kind::Service, Kind::SourceNat]);
        let mut others = kinds.flat_map(|kind| result.of_kind(kind));
        let address = nat.external_ip;
        if let Some((other, _)) = others.find(|(_, resource)| has(resource, address)) {
            let reason = format!("{address} already belongs to {other}");
            return Err(result.refuse(key, &format!("spec.ipNATs[{at}].externalIP"), &reason));
        }
    }
    for port in endpoint.host_ports() {
        let claims = rivals(result, &port, &endpoint.spec.node);
        let mut held = claims
            .iter()
            .filter_map(|what| Some((what, result.holder(what, claimed)?)));
        if let Some((what, holder)) = held.find(|(_, holder)| holder != key) {
            return Err(result.refuse(key, &port.field, &format!("{what} already belongs to {holder}")));
        }
    }
    Ok(())
}

/// What nobody else may claim where a host port is.
fn rivals(result: &Resulting<'_>, port: &HostPort, node: &str) -> Vec<String> {
    let (number, protocol) = (port.port, port.protocol.name());
    let node_port = format!("node port {number}/{protocol}");
    if !port.address.is_unspecified() {
        let service = format!("address {} port {number}/{protocol}", port.address);
        return vec![node_port, service, port.claim_at(port.anywhere(), node)];
    }
    let interfaces = INTERFACES.into_iter().flat_map(|kind| result.of_kind(kind));
    let nets = interfaces.flat_map(|(_, resource)| subnets(resource).map(|(_, nets)| nets).unwrap_or_default());
    let own = nets.map(|net| net.addr());
    let own = own.filter(|own| own.is_ipv4() == port.address.is_ipv4());
    let others = own.map(|own| port.claim_at(own, node));
    std::iter::once(node_port).chain(others).collect()
}

/// A service's node ports, and its ports at addresses outside, are no host ports. Costs a look at all workloads for a
/// plan with such services, once.
fn check_ports(result: &Resulting<'_>, key: &Key, service: &Service) -> Result<(), Refusal> {
    let spec = &service.spec;
    if !service.has_node_ports() && spec.external_ips.is_empty() {
        return Ok(());
    }
    let host_ports = result.host_ports.get_or_init(|| all_host_ports(result));
    for (at, port) in spec.ports.iter().enumerate() {
        let refuse = |field: &str, what: String, holder: &Key| {
            Err(result.refuse(key, field, &format!("{what} already belongs to {holder}")))
        };
        let numbers = host_ports.get(&(port.node_port, port.protocol));
        if let Some((_, holder)) = numbers.and_then(|all| all.first()) {
            let what = format!("host port {}/{}", port.node_port, port.protocol.name());
            return refuse(&format!("spec.ports[{at}].nodePort"), what, holder);
        }
        let outside = spec
            .external_ips
            .iter()
            .copied()
            .chain(service.load_balancer_addresses());
        let outside: Vec<_> = outside.collect();
        let numbers = host_ports.get(&(port.port, port.protocol)).into_iter().flatten();
        if let Some((address, holder)) = { numbers }.find(|(address, _)| outside.contains(address)) {
            let what = format!("host port {}/{} at {address}", port.port, port.protocol.name());
            return refuse(&format!("spec.ports[{at}].port"), what, holder);
        }
    }
    Ok(())
}

/// Who has the host ports of a number and protocol, and at which addresses.
pub(super) type HostPorts = HashMap<(u16, Protocol), Vec<(IpAddr, Key)>>;

fn all_host_ports(result: &Resulting<'_>) -> HostPorts {
    let mut all = HostPorts::new();
    for (key, resource) in result.of_kind(Kind::WorkloadEndpoint) {
        let Resource::WorkloadEndpoint(object) = &**resource else {
            continue;
        };
        for port in object.body.host_ports() {
            let holders = all.entry((port.port, port.protocol)).or_default();
            holders.push((port.address, key.clone()));
        }
    }
    all
}

/// The same, seen from the others.
pub(super) fn check_other(
    result: &Resulting<'_>,
    key: &Key,
    resource: &Resource,
    claimed: &Claimed<'_>,
) -> Result<(), Refusal> {
    if let Resource::Service(service) = resource {
        check_ports(result, key, &service.body)?;
    }
    for (address, field) in addresses(resource) {
        if let Some(holder) = result.holder(&outside(address), claimed) {
            return Err(result.refuse(key, field, &format!("{address} already belongs to {holder}")));
        }
    }
    Ok(())
}

fn has(resource: &Resource, address: IpAddr) -> bool {
    addresses(resource).iter().any(|(own, _)| *own == address)
}

/// Addresses that packets to are for the resource, with their fields.
fn addresses(resource: &Resource) -> Vec<(IpAddr, &'static str)> {
    match resource {
        Resource::Service(object) if object.body.is_balanced() => {
            let service = &object.body;
            let external = service.spec.external_ips.iter().copied();
            let cluster = service.cluster_addresses().map(|address| (address, "spec.clusterIP"));
            let balancers = service.load_balancer_addresses();
            cluster
                .chain(external.map(|address| (address, "spec.externalIPs")))
                .chain(balancers.map(|address| (address, "status.loadBalancer.ingress")))
                .collect()
        }
        Resource::SourceNat(object) => {
            let field = |field: &str| match field {
                "spec.address" => "spec.address",
                _ => "spec.addresses",
            };
            let pool = object.body.spec.pool();
            pool.map(|(name, address)| (address, field(&name))).collect()
        }
        _ => {
            let own = subnets(resource).map(|(_, nets)| nets).unwrap_or_default();
            own.iter().map(|net| (net.addr(), "spec.addresses")).collect()
        }
    }
}
