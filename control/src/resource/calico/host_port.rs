//! Ports of the node that lead to a workload (`hostPort`, as Kubernetes' portmap has them).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{WorkloadEndpoint, WorkloadEndpointPort};
use crate::resource::{Claim, Invalid, Protocol};

/// One, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The path of its field.
    pub field: String,
    /// The address; unspecified for every one of the node's of that family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it leads: an address of the workload, and a port.
    pub target: (IpAddr, u16),
}

impl HostPort {
    /// What is claimed by who has it, at an address and on a node.
    pub fn claim_at(&self, address: IpAddr, node: &str) -> String {
        let Self { port, protocol, .. } = self;
        let address = match address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => "every IPv4 address".to_owned(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => "every IPv6 address".to_owned(),
            address => format!("address {address}"),
        };
        format!("host port {port}/{} at {address} on node `{node}`", protocol.name())
    }

    /// The unspecified address of its family.
    pub fn anywhere(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl WorkloadEndpoint {
    /// The ports of its node that lead to it: in each family to its first address.
    pub fn host_ports(&self) -> Vec<HostPort> {
        let ports = self.spec.ports.iter().enumerate();
        let families = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let all = ports.flat_map(|(at, port)| families.map(|anywhere: IpAddr| self.host_port(at, port, anywhere)));
        all.flatten().collect()
    }

    fn host_port(&self, at: usize, port: &WorkloadEndpointPort, anywhere: IpAddr) -> Option<HostPort> {
        let number = port.host_port.filter(|number| *number > 0)?;
        let is_of_family = |address: &IpAddr| address.is_ipv4() == anywhere.is_ipv4();
        let address = port.host_ip.unwrap_or(anywhere);
        let target = self.spec.ip_networks.iter().copied().find(is_of_family)?;
        is_of_family(&address).then_some(HostPort {
            field: format!("spec.ports[{at}].hostPort"),
            address,
            port: number,
            protocol: Protocol::of_number(port.protocol.number())?,
            target: (target, port.port),
        })
    }

    pub(super) fn host_port_claims(&self) -> impl Iterator<Item = Claim> {
        let ports = self.host_ports().into_iter();
        ports.map(|port| Claim {
            what: port.claim_at(port.address, &self.spec.node),
            field: port.field,
        })
    }

    /// What can be wrong with them alone.
    pub(super) fn check_host_ports(&self) -> Result<(), Invalid> {
        for (at, port) in self.spec.ports.iter().enumerate() {
            let field = format!("spec.ports[{at}]");
            if port.host_port.unwrap_or_default() == 0 {
                if port.host_ip.is_some() {
                    return Err(Invalid::at(format!("{field}.hostIP"), "needs a hostPort beside it"));
                }
                continue;
            }
            let protocol = port.protocol;
            if !protocol.has_ports() {
                let reason = format!("{protocol} has no ports; expected TCP, UDP or SCTP");
                return Err(Invalid::at(format!("{field}.protocol"), reason));
            }
            let families = self.spec.ip_networks.iter().map(IpAddr::is_ipv4);
            let leads = |address: IpAddr| families.clone().any(|is_v4| is_v4 == address.is_ipv4());
            if let Some(address) = port.host_ip.filter(|address| !leads(*address)) {
                let reason = format!("the endpoint has no address in ipNetworks of the family of {address}");
                return Err(Invalid::at(format!("{field}.hostIP"), reason));
            }
        }
        let mut seen = std::collections::HashSet::new();
        for claim in self.host_port_claims() {
            if !seen.insert(claim.what.clone()) {
                return Err(Invalid::at(claim.field, format!("{} is given twice", claim.what)));
            }
        }
        Ok(())
    }
}
