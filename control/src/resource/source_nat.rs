//! `kind: SourceNat`: connections that get another source address.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::port::default_vrf;
use super::{Body, Invalid, Key, Kind, Reference, check_label, fields};

/// The most addresses of one pool, and prefixes that one excludes.
const LIST_MAX: usize = 256;

/// The body of a SourceNat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceNat {
    /// What is translated, and how.
    pub spec: SourceNatSpec,
}

/// Connections that get another source address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceNatSpec {
    /// Where they come from; bits beyond its length are zero.
    #[serde(deserialize_with = "fields::destination")]
    pub source: IpNet,
    /// Where they may go and keep their source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<IpNet>,
    /// The address they get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Several addresses instead; a client keeps to one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The ports they may have there. Default `1024-65535`.
    #[serde(default)]
    pub ports: PortRange,
    /// Only those that leave by this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_port: Option<String>,
    /// The routing table they come in by. Default `default`.
    #[serde(default = "default_vrf")]
    pub vrf: String,
}

impl SourceNatSpec {
    /// The addresses of the pool, with the fields that name them.
    pub fn pool(&self) -> impl Iterator<Item = (String, IpAddr)> + '_ {
        let one = self.address.map(|address| ("spec.address".to_owned(), address));
        let several = self.addresses.iter().enumerate();
        one.into_iter()
            .chain(several.map(|(at, address)| (format!("spec.addresses[{at}]"), *address)))
    }
}

/// A range of ports, written as `1024-65535`, or as a single one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenRange", into = "String")]
pub struct PortRange(pub RangeInclusive<u16>);

impl Default for PortRange {
    fn default() -> Self {
        Self(1024..=u16::MAX)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.0.start(), self.0.end())
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenRange {
    One(u64),
    Range(String),
}

impl TryFrom<WrittenRange> for PortRange {
    type Error = String;

    fn try_from(written: WrittenRange) -> Result<Self, String> {
        match written {
            WrittenRange::One(port) => port.to_string().parse(),
            WrittenRange::Range(text) => text.parse(),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
            port.ok_or_else(|| {
                let text = text.escape_debug();
                format!("`{text}` is not a port; expected a range such as 1024-65535, of ports 1 to 65535")
            })
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("{first}-{last} is upside down; expected {last}-{first}"));
        }
        Ok(Self(first..=last))
    }
}

impl Body for SourceNat {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "SourceNat";
    const PLURAL: &'static str = "sourcenats";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["SOURCE", "ADDRESS", "PORTS", "OUT PORT", "VRF"];

    fn row(&self) -> Vec<String> {
        let addresses: Vec<_> = self.spec.pool().map(|(_, address)| address.to_string()).collect();
        vec![
            self.spec.source.to_string(),
            addresses.join(", "),
            self.spec.ports.to_string(),
            self.spec.out_port.clone().unwrap_or_else(|| "any".to_owned()),
            self.spec.vrf.clone(),
        ]
    }

    fn references(&self) -> Vec<Reference> {
        let named = self.spec.out_port.iter().map(|port| Reference {
            key: Key::cluster(Kind::Port, port),
            or: Some(Kind::WireguardInterface),
            field: "spec.outPort".to_owned(),
        });
        named.collect()
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        check_label(&spec.vrf).map_err(|reason| Invalid::at("spec.vrf", reason))?;
        if spec.address.is_some() && !spec.addresses.is_empty() {
            let reason = "stands beside spec.address; write all of them in spec.addresses";
            return Err(Invalid::at("spec.addresses", reason));
        }
        if spec.pool().next().is_none() {
            let reason = "is missing; expected the address that connections get, such as 192.0.2.1";
            return Err(Invalid::at("spec.address", reason));
        }
        for (field, length) in [
            ("spec.addresses", spec.addresses.len()),
            ("spec.exclude", spec.exclude.len()),
        ] {
            if length > LIST_MAX {
                return Err(Invalid::at(
                    field,
                    format!("has {length} entries; expected at most {LIST_MAX}"),
                ));
            }
        }
        let family = |is_v4: bool| if is_v4 { "IPv4" } else { "IPv6" };
        let is_v4 = spec.source.addr().is_ipv4();
        for (field, address) in spec.pool() {
            if address.is_ipv4() != is_v4 {
                let reason = format!(
                    "{address} is {}, but the source {} is {}; expected one of its family",
                    family(!is_v4),
                    spec.source,
                    family(is_v4)
                );
                return Err(Invalid::at(field, reason));
            }
            if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
                let reason = format!("{address} is no address to come from; expected a unicast address");
                return Err(Invalid::at(field, reason));
            }
        }
        for (at, prefix) in spec.exclude.iter().enumerate() {
            if prefix.addr().is_ipv4() != is_v4 {
                let reason = format!("{prefix} is {}, but the source is {}", family(!is_v4), family(is_v4));
                return Err(Invalid::at(format!("spec.exclude[{at}]"), reason));
            }
        }
        Ok(())
    }
}
