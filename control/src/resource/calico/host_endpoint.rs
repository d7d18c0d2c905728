//! `kind: HostEndpoint`: an interface of the host, with policy of its own.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::fields::{self, Protocol};
use crate::resource::{Body, Dscp, Invalid, Metadata};

/// The annotation that marks what comes from a host.
const MARK: &str = "qos.projectcalico.org/dscp";

/// The body of a HostEndpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEndpoint {
    /// What the endpoint is.
    pub spec: HostEndpointSpec,
}

/// What a HostEndpoint is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostEndpointSpec {
    /// The node it is on. Its policy is in force there alone, where nodes have names (`--node-name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A Port's name or device, or `*` for all that nobody else names. Without it the interface with one of
    /// `expectedIPs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    /// Addresses of the interface.
    #[serde(
        rename = "expectedIPs",
        deserialize_with = "fields::addresses",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub expected_ips: Vec<IpAddr>,
    /// The profiles that decide where no policy does, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Ports that rules can name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// A port of an endpoint, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointPort {
    /// What rules call it.
    pub name: String,
    /// Of which protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    #[serde(deserialize_with = "crate::resource::fields::within::<_, 1, 65535>")]
    pub port: u16,
}

impl Body for HostEndpoint {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "HostEndpoint";
    const PLURAL: &'static str = "hostendpoints";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["NODE", "INTERFACE", "EXPECTED IPS", "PROFILES"];

    fn row(&self) -> Vec<String> {
        let spec = &self.spec;
        let addresses: Vec<_> = spec.expected_ips.iter().map(IpAddr::to_string).collect();
        vec![
            spec.node.clone().unwrap_or_default(),
            spec.interface_name.clone().unwrap_or_default(),
            addresses.join(", "),
            spec.profiles.join(", "),
        ]
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        if spec.interface_name.as_deref().is_none_or(str::is_empty) && spec.expected_ips.is_empty() {
            let reason = "is missing, and so is `expectedIPs`; expected one of them, or `*` for all interfaces";
            return Err(Invalid::at("spec.interfaceName", reason));
        }
        check_profiles(&spec.profiles)?;
        spec.ports
            .iter()
            .enumerate()
            .try_for_each(|(at, port)| check_port(&port.name, port.protocol, &format!("spec.ports[{at}]")))
    }

    fn check_named(&self, metadata: &Metadata) -> Result<(), Invalid> {
        host_mark(metadata).map(|_| ())
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}

/// What packets from the host are marked with where they leave the cluster: Calico has it in an annotation.
///
/// # Errors
/// It is no DSCP.
pub fn host_mark(metadata: &Metadata) -> Result<Option<Dscp>, Invalid> {
    let Some(written) = metadata.annotations.get(MARK) else {
        return Ok(None);
    };
    match Dscp::from_text(written) {
        Some(dscp) => Ok(Some(dscp)),
        None => {
            let reason = format!("`{}` is none; expected {}", fields::excerpt(written), Dscp::EXPECTED);
            Err(Invalid::at(format!("metadata.annotations.{MARK}"), reason))
        }
    }
}

pub(super) fn check_profiles(profiles: &[String]) -> Result<(), Invalid> {
    for (at, profile) in profiles.iter().enumerate() {
        let field = || format!("spec.profiles[{at}]");
        fields::check_subdomain(profile).map_err(|reason| Invalid::at(field(), reason))?;
        if profiles[..at].contains(profile) {
            return Err(Invalid::at(field(), format!("{profile} stands twice; remove one")));
        }
    }
    Ok(())
}

pub(super) fn check_port(name: &str, protocol: Protocol, field: &str) -> Result<(), Invalid> {
    if !fields::is_port_name(name) {
        let reason = format!("`{}` cannot name a port", fields::excerpt(name));
        let expected = "expected 1 to 128 letters, digits, `-`, `_` and `.`";
        return Err(Invalid::at(format!("{field}.name"), format!("{reason}; {expected}")));
    }
    if !protocol.has_ports() {
        let reason = format!("{protocol} has no ports; expected TCP, UDP or SCTP");
        return Err(Invalid::at(format!("{field}.protocol"), reason));
    }
    Ok(())
}
