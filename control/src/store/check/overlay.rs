//! What tunnels with neighbours stand on, and what stands on them.

use std::net::IpAddr;

use fastpath::overlay::Wrapping;

use super::{Connected, Resulting};
use crate::refusal::Refusal;
use crate::resource::{Driver, Kind, NeighborSpec, PortSpec, Resource};
use crate::store::Key;

/// A tunnel begins at an address of ours outside.
pub(super) fn check_port(
    result: &Resulting<'_>,
    key: &Key,
    spec: &PortSpec,
    connected: &[Connected<'_>],
) -> Result<(), Refusal> {
    let Some(local) = spec.local.filter(|_| spec.driver.is_overlay()) else {
        return Ok(());
    };
    let outside = spec.outside();
    check_udp_port(result, key, spec)?;
    let mut here = connected
        .iter()
        .filter(|other| other.vrf == outside && other.port != key);
    if here.any(|other| other.address.addr() == local) {
        return Ok(());
    }
    let reason =
        format!("no Port has the address {local} in vrf {outside}; give one to the Port that the tunnel goes by");
    Err(result.refuse(key, "spec.local", &reason))
}

/// A datagram is for one of those who listen: VXLAN ports tell theirs apart by the network, and WireGuard by nothing.
fn check_udp_port(result: &Resulting<'_>, key: &Key, spec: &PortSpec) -> Result<(), Refusal> {
    let (Some(Wrapping::Vxlan { udp_port, .. }), outside) = (spec.wrapping(), spec.outside()) else {
        return Ok(());
    };
    let mut listening = result
        .of_kind(Kind::WireguardInterface)
        .filter(|(_, resource)| match &***resource {
            Resource::WireguardInterface(object) => {
                object.body.spec.listen_port == udp_port && object.body.spec.transport_vrf == outside
            }
            _ => false,
        });
    let Some((other, _)) = listening.next() else {
        return Ok(());
    };
    let reason =
        format!("UDP port {udp_port} in vrf {outside} already belongs to {other}; choose another for one of them");
    Err(result.refuse(key, "spec.udpPort", &reason))
}

/// Where a neighbour behind a tunnel is has to be known, and elsewhere it has no other end.
pub(super) fn check_neighbor(result: &Resulting<'_>, key: &Key, neighbor: &NeighborSpec) -> Result<(), Refusal> {
    let Some(port) = port(result, &neighbor.port) else {
        return Ok(());
    };
    let name = &neighbor.port;
    match (port.driver, neighbor.remote) {
        (Driver::Ipip, _) => {
            let reason = format!("Port/{name} is of driver ipip, where the gateway of a route is the other end itself");
            Err(result.refuse(key, "spec.port", &reason))
        }
        (Driver::Vxlan, None) if port.remote.is_none() => {
            let reason = format!(
                "is missing, and Port/{name} has none either; expected the other end of the tunnel that the neighbour is behind"
            );
            Err(result.refuse(key, "spec.remote", &reason))
        }
        (Driver::Vxlan, remote) => match (remote, port.local) {
            (Some(remote), Some(local)) if remote.is_ipv4() != local.is_ipv4() || remote == local => {
                let reason = format!("{remote} cannot be the other end of a tunnel that begins at {local}");
                Err(result.refuse(key, "spec.remote", &reason))
            }
            _ => Ok(()),
        },
        (_, Some(_)) => Err(result.refuse(key, "spec.remote", "is for Ports of driver vxlan only; leave it out")),
        (_, None) => Ok(()),
    }
}

/// A route that names only the port needs a tunnel with one other end.
pub(super) fn check_way(result: &Resulting<'_>, key: &Key, name: &str, field: &str) -> Result<(), Refusal> {
    match port(result, name) {
        Some(spec) if spec.driver == Driver::Ipip && spec.remote.is_none() => {
            let reason =
                format!("Port/{name} has no `remote`; write `gateway`, the other end of the tunnel, beside it");
            Err(result.refuse(key, field, &reason))
        }
        _ => Ok(()),
    }
}

/// The gateway by an IP in IP port is the other end.
pub(super) fn check_gateway(
    result: &Resulting<'_>,
    key: &Key,
    name: &str,
    gateway: IpAddr,
    at: usize,
) -> Result<(), Refusal> {
    match port(result, name) {
        Some(spec) if spec.driver == Driver::Ipip && spec.remote.is_none() && gateway.is_ipv6() => {
            let reason = format!("{gateway} is not IPv4, but the other end of Port/{name}, over IPv4, has to be");
            Err(result.refuse(key, &format!("spec.via[{at}].gateway"), &reason))
        }
        _ => Ok(()),
    }
}

fn port<'a>(result: &Resulting<'a>, name: &str) -> Option<&'a PortSpec> {
    match result.get(&Key::cluster(Kind::Port, name))?.as_ref() {
        Resource::Port(object) => Some(&object.body.spec),
        _ => None,
    }
}
