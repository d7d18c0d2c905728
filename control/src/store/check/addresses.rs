//! Addresses that workloads have outside: nobody else may have them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{INTERFACES, Resulting, subnets};
use crate::refusal::Refusal;
use crate::resource::calico::outside;
use crate::resource::{Key, Kind, Resource, WorkloadEndpoint};

/// Who in a plan claims what.
pub(super) type Claimed<'a> = HashMap<String, &'a Key>;

/// A workload's addresses outside are no port's, service's or source NAT's. Costs a look at all of those for an endpoint
/// that has such an address, and nothing for others.
pub(super) fn check_endpoint(result: &Resulting<'_>, key: &Key, endpoint: &WorkloadEndpoint) -> Result<(), Refusal> {
    for (at, nat) in endpoint.spec.ip_nats.iter().enumerate() {
        let kinds = INTERFACES.into_iter().chain([Kind::Service, Kind::SourceNat]);
        let mut others = kinds.flat_map(|kind| result.of_kind(kind));
        let address = nat.external_ip;
        if let Some((other, _)) = others.find(|(_, resource)| has(resource, address)) {
            let reason = format!("{address} already belongs to {other}");
            return Err(result.refuse(key, &format!("spec.ipNATs[{at}].externalIP"), &reason));
        }
    }
    Ok(())
}

/// The same, seen from the others.
pub(super) fn check_other(
    result: &Resulting<'_>,
    key: &Key,
    resource: &Resource,
    claimed: &Claimed<'_>,
) -> Result<(), Refusal> {
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
