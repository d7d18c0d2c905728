//! `kind: EndpointSlice` of Kubernetes: backends of a Service (Kubernetes API reference, discovery.k8s.io v1).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::service::Protocol;
use super::{Body, Invalid, check_label};

/// The label that names the Service of a slice.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Most endpoints of a slice, and most ports, as the API server allows.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;
/// The longest name, a DNS subdomain (RFC 1123).
const NAME_BYTES: usize = 253;

/// The body of an EndpointSlice. The Service is named by the label [`SERVICE_LABEL`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSlice {
    /// Of which kind the addresses are.
    pub address_type: AddressType,
    /// The backends.
    #[serde(default, deserialize_with = "or_null")]
    pub endpoints: Vec<Endpoint>,
    /// Where each of them listens.
    #[serde(default, deserialize_with = "or_null")]
    pub ports: Vec<EndpointPort>,
}

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressType {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
    /// Names, for DNS: nothing is balanced over them.
    FQDN,
}

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Its addresses, of which the first counts.
    pub addresses: Vec<String>,
    /// What state it is in.
    #[serde(default)]
    pub conditions: Conditions,
    /// The node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The zone that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Who had better use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_ref: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deprecated_topology: Option<BTreeMap<String, String>>,
}

/// What state a backend is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    /// It takes new connections. Unknown is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// It answers, whether or not it is about to end. Unknown is as `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// It is about to end. Unknown is no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// Who had better use a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hints {
    /// Clients in these zones.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<Hint>,
    /// Clients on these nodes.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<Hint>,
}

/// A zone or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// Its name.
    pub name: String,
}

/// Where backends listen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// Which port of the Service it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Default TCP.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// The number; none for that of the Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What is spoken there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl Conditions {
    /// Whether it takes new connections.
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// Whether it is about to end, and still answers.
    pub fn is_draining(&self) -> bool {
        self.terminating.unwrap_or(false) && self.serving.unwrap_or(self.is_ready())
    }
}

impl Endpoint {
    /// Its address. Names have none.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }
}

impl EndpointSlice {
    fn check_endpoint(&self, at: usize, endpoint: &Endpoint) -> Result<(), Invalid> {
        let invalid = |field: &str, reason: String| Err(Invalid::at(format!("endpoints[{at}].{field}"), reason));
        if endpoint.addresses.is_empty() {
            return invalid("addresses", "expected an address".to_owned());
        }
        for (place, text) in endpoint.addresses.iter().enumerate() {
            let address = text.parse::<IpAddr>();
            let (is_right, expected) = match self.address_type {
                AddressType::IPv4 => (
                    address.as_ref().is_ok_and(IpAddr::is_ipv4),
                    "an IPv4 address, such as 10.1.0.5",
                ),
                AddressType::IPv6 => (
                    address.as_ref().is_ok_and(IpAddr::is_ipv6),
                    "an IPv6 address, such as fd00::5",
                ),
                AddressType::FQDN => (address.is_err(), "a name, such as db.example"),
            };
            let field = format!("addresses[{place}]");
            if !is_right {
                return invalid(&field, format!("`{}` is not {expected}", text.escape_debug()));
            }
            let is_odd = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
            if address.is_ok_and(is_odd) {
                return invalid(&field, format!("{text} is no address that a backend can have"));
            }
        }
        Ok(())
    }
}

impl Body for EndpointSlice {
    const API_VERSION: &'static str = "discovery.k8s.io/v1";
    const KIND: &'static str = "EndpointSlice";
    const PLURAL: &'static str = "endpointslices";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &["ADDRESSTYPE", "PORTS", "ENDPOINTS"];

    fn row(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let ports = self.ports.iter().map(|port| match port.port {
            Some(number) => number.to_string(),
            None => "*".to_owned(),
        });
        let first = self
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.addresses.first().cloned());
        let mut endpoints = first.take(SHOWN).collect::<Vec<_>>().join(",");
        if self.endpoints.len() > SHOWN {
            endpoints.push_str(&format!(" + {} more...", self.endpoints.len() - SHOWN));
        }
        let kind = match self.address_type {
            AddressType::IPv4 => "IPv4",
            AddressType::IPv6 => "IPv6",
            AddressType::FQDN => "FQDN",
        };
        vec![kind.to_owned(), ports.collect::<Vec<_>>().join(","), endpoints]
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.endpoints.len() > ENDPOINTS_MAX {
            let reason = format!("expected at most {ENDPOINTS_MAX} endpoints; make more slices");
            return Err(Invalid::at("endpoints", reason));
        }
        if self.ports.len() > PORTS_MAX {
            return Err(Invalid::at("ports", format!("expected at most {PORTS_MAX} ports")));
        }
        for (at, port) in self.ports.iter().enumerate() {
            let same = |other: &&EndpointPort| other.name.as_deref() == port.name.as_deref();
            if self.ports[..at].iter().find(same).is_some() {
                let reason = "another port has this name already; expected different ones";
                return Err(Invalid::at(format!("ports[{at}].name"), reason));
            }
            if port.port == Some(0) {
                return Err(Invalid::at(
                    format!("ports[{at}].port"),
                    "0 is no port; expected 1 to 65535",
                ));
            }
        }
        let mut endpoints = self.endpoints.iter().enumerate();
        endpoints.try_for_each(|(at, endpoint)| self.check_endpoint(at, endpoint))
    }

    fn check_name(name: &str) -> Result<(), String> {
        if name.len() > NAME_BYTES {
            return Err(format!("expected a name of at most {NAME_BYTES} bytes"));
        }
        name.split('.').try_for_each(check_label)
    }
}

/// A list; Kubernetes writes an empty one as `null`.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
