//! What a Port of driver `ipip` or `vxlan` says of its tunnel.

use std::net::IpAddr;

use fastpath::overlay::Wrapping;

use super::port::default_vrf;
use super::{Claim, Driver, Invalid, PortSpec, ProxyArp, Punt, check_label};

/// Calico's network.
const USUAL_VNI: u32 = 4096;
/// VXLAN's port (RFC 7348 section 5).
const USUAL_UDP_PORT: u16 = 4789;
/// The largest VNI has 24 bits.
const VNI_MAX: u32 = 0xff_ffff;

impl PortSpec {
    /// Bytes that a tunnel puts around an IP packet.
    pub fn overhead(&self) -> u16 {
        let outer = if self.local.is_some_and(|local| local.is_ipv6()) {
            40
        } else {
            20
        };
        match self.driver {
            Driver::Ipip => outer,
            // UDP, VXLAN and Ethernet headers.
            Driver::Vxlan => outer + 8 + 8 + 14,
            _ => 0,
        }
    }

    /// How the tunnel wraps packets, if the port is one.
    pub fn wrapping(&self) -> Option<Wrapping> {
        match self.driver {
            Driver::Ipip => Some(Wrapping::Ip),
            Driver::Vxlan => Some(Wrapping::Vxlan {
                vni: self.vni.unwrap_or(USUAL_VNI),
                udp_port: self.udp_port.unwrap_or(USUAL_UDP_PORT),
            }),
            _ => None,
        }
    }

    /// The routing table outside.
    pub fn outside(&self) -> String {
        self.transport_vrf.clone().unwrap_or_else(default_vrf)
    }

    /// The tunnel's own Ethernet address: the same after every start, for others have it written down.
    pub fn overlay_mac(&self) -> Option<[u8; 6]> {
        let [.., a, b, c, d] = match self.local? {
            IpAddr::V4(local) => local.to_ipv6_mapped().octets(),
            IpAddr::V6(local) => local.octets(),
        };
        let usual = [0x02, 0x4d, a, b, c, d];
        match self.driver {
            Driver::Vxlan => Some(self.mac.map_or(usual, |mac| mac.0)),
            Driver::Ipip => Some([0; 6]),
            _ => None,
        }
    }
}

/// What one tunnel only may take from the outside.
pub(super) fn claim(spec: &PortSpec) -> Option<Claim> {
    let (local, vrf) = (spec.local?, spec.outside());
    let (what, field) = match spec.wrapping()? {
        Wrapping::Ip => {
            let remote = spec
                .remote
                .map_or_else(|| "anywhere".to_owned(), |remote| remote.to_string());
            (format!("IP in IP between {local} and {remote}"), "spec.remote")
        }
        Wrapping::Vxlan { vni, udp_port } => (
            format!("VXLAN network {vni} on UDP port {udp_port} of {local}"),
            "spec.vni",
        ),
    };
    Some(Claim {
        what: format!("{what} in vrf {vrf}"),
        field: field.to_owned(),
    })
}

/// What goes together.
pub(super) fn check(spec: &PortSpec) -> Result<(), Invalid> {
    let said = [
        ("spec.local", spec.local.is_some()),
        ("spec.remote", spec.remote.is_some()),
        ("spec.transportVRF", spec.transport_vrf.is_some()),
        ("spec.vni", spec.vni.is_some()),
        ("spec.udpPort", spec.udp_port.is_some()),
        ("spec.mac", spec.mac.is_some()),
    ];
    let (allowed, drivers) = match spec.driver {
        Driver::Vxlan => (6, ""),
        Driver::Ipip => (3, "driver vxlan"),
        _ => (0, "drivers ipip and vxlan"),
    };
    if let Some((field, _)) = said[allowed..].iter().find(|said| said.1) {
        let driver = spec.driver.name();
        let reason = format!("is for {drivers} only; leave it out for driver {driver}");
        return Err(Invalid::at(*field, reason));
    }
    if spec.driver.is_overlay() {
        check_ends(spec)?;
        check_rest(spec)?;
    }
    Ok(())
}

fn check_ends(spec: &PortSpec) -> Result<(), Invalid> {
    let Some(local) = spec.local else {
        let reason = "is missing; expected the address of ours that the tunnel begins at, such as 192.0.2.1";
        return Err(Invalid::at("spec.local", reason));
    };
    let bad = |address: IpAddr| address.is_unspecified() || address.is_multicast() || address.is_loopback();
    for (field, address) in [("spec.local", Some(local)), ("spec.remote", spec.remote)] {
        if let Some(address) = address.filter(|address| bad(*address)) {
            let reason = format!("{address} is not the address of one host; expected an end of the tunnel");
            return Err(Invalid::at(field, reason));
        }
    }
    if spec.driver == Driver::Ipip && local.is_ipv6() {
        return Err(Invalid::at(
            "spec.local",
            format!("{local} is not IPv4; IP in IP runs over IPv4 only"),
        ));
    }
    match spec.remote {
        Some(remote) if remote == local => Err(Invalid::at("spec.remote", format!("{remote} is the local end, too"))),
        Some(remote) if remote.is_ipv4() != local.is_ipv4() => Err(Invalid::at(
            "spec.remote",
            format!("{remote} is of another family than {local}; expected two addresses of one"),
        )),
        _ => Ok(()),
    }
}

fn check_rest(spec: &PortSpec) -> Result<(), Invalid> {
    check_label(&spec.outside()).map_err(|reason| Invalid::at("spec.transportVRF", reason))?;
    if !(1..=VNI_MAX).contains(&spec.vni.unwrap_or(USUAL_VNI)) {
        return Err(Invalid::at(
            "spec.vni",
            format!("expected a number from 1 to {VNI_MAX}"),
        ));
    }
    if spec.udp_port == Some(0) {
        return Err(Invalid::at("spec.udpPort", "expected a number from 1 to 65535"));
    }
    if spec.mac.is_some_and(|mac| !mac.is_unicast()) {
        return Err(Invalid::at(
            "spec.mac",
            "is a group or all-zero address; expected a station's",
        ));
    }
    let said = [
        ("spec.queues", spec.queues != 1),
        ("spec.vlan", spec.vlan.is_some()),
        ("spec.punt", spec.punt != Punt::None),
        ("spec.proxyArp", spec.proxy_arp != ProxyArp::Nobody),
    ];
    match said.into_iter().find(|said| said.1) {
        Some((field, _)) => {
            let driver = spec.driver.name();
            Err(Invalid::at(
                field,
                format!("is for links; leave it out for driver {driver}"),
            ))
        }
        None => Ok(()),
    }
}
