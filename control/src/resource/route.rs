//! `kind: Route`: where packets to a prefix go.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::port::default_vrf;
use super::{Body, Claim, Invalid, Key, Kind, Reference, check_label, fields};

/// The most next hops of one route.
const HOPS_MAX: usize = 64;

/// The body of a Route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What the route is.
    pub spec: RouteSpec,
}

/// Where packets to a prefix go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// The prefix; bits beyond its length are zero.
    #[serde(deserialize_with = "fields::destination")]
    pub destination: IpNet,
    /// The routing table. Default `default`.
    #[serde(default = "default_vrf")]
    pub vrf: String,
    /// Next hops, at least one; among several a flow keeps to one (ECMP by flow hash).
    pub via: Vec<Hop>,
}

/// One next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenHop", into = "WrittenHop")]
pub struct Hop {
    /// Where to.
    pub target: Target,
    /// Its share among the hops of the route, 1 to 256.
    pub weight: u16,
}

/// Where a next hop leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To a router on a connected prefix of the route's table.
    Gateway(IpAddr),
    /// To a router on a connected prefix of another table.
    GatewayIn {
        /// The router.
        gateway: IpAddr,
        /// The table.
        vrf: String,
    },
    /// To a router on the link of a port (by the Port's name), whatever that port's prefixes and table.
    GatewayBy {
        /// The router.
        gateway: IpAddr,
        /// The port.
        port: String,
    },
    /// Wherever another table leads.
    Table(String),
    /// To the destination itself, which is on the link of this port (by the Port's name), or behind this tunnel (by the
    /// WireguardInterface's).
    OnLink(String),
    /// Nowhere: the packet is dropped and counted.
    Drop,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Gateway(gateway) => gateway.fmt(out),
            Target::GatewayIn { gateway, vrf } => write!(out, "{gateway} in vrf {vrf}"),
            Target::GatewayBy { gateway, port } => write!(out, "{gateway} by port {port}"),
            Target::Table(vrf) => write!(out, "vrf {vrf}"),
            Target::OnLink(port) => write!(out, "port {port}"),
            Target::Drop => out.write_str("drop"),
        }
    }
}

impl Body for Route {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "Route";
    const PLURAL: &'static str = "routes";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["DESTINATION", "VRF", "VIA"];

    fn row(&self) -> Vec<String> {
        let via = self.spec.via.iter().map(|hop| match hop.weight {
            1 => hop.target.to_string(),
            weight => format!("{} (weight {weight})", hop.target),
        });
        vec![
            self.spec.destination.to_string(),
            self.spec.vrf.clone(),
            via.collect::<Vec<_>>().join(", "),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        let RouteSpec { destination, vrf, .. } = &self.spec;
        let what = format!("destination {destination} in vrf {vrf}");
        vec![Claim {
            what,
            field: "spec.destination".to_owned(),
        }]
    }

    fn references(&self) -> Vec<Reference> {
        let hops = self.spec.via.iter().enumerate();
        let ports = hops.filter_map(|(at, hop)| match &hop.target {
            Target::OnLink(port) => Some((at, port, Some(Kind::WireguardInterface))),
            Target::GatewayBy { port, .. } => Some((at, port, None)),
            Target::Gateway(_) | Target::GatewayIn { .. } | Target::Table(_) | Target::Drop => None,
        });
        ports
            .map(|(at, port, or)| Reference {
                key: Key::cluster(Kind::Port, port),
                or,
                field: format!("spec.via[{at}].port"),
            })
            .collect()
    }

    fn check(&self) -> Result<(), Invalid> {
        let RouteSpec { destination, vrf, via } = &self.spec;
        check_label(vrf).map_err(|reason| Invalid::at("spec.vrf", reason))?;
        if destination.addr().is_multicast() {
            return Err(Invalid::at(
                "spec.destination",
                format!("{destination} is multicast; expected a unicast prefix"),
            ));
        }
        if via.is_empty() || via.len() > HOPS_MAX {
            let expected = "expected 1 to 64 next hops, such as [{ gateway: 10.2.0.2 }], or [{ drop: true }]";
            return Err(Invalid::at(
                "spec.via",
                format!("has {} next hops; {expected}", via.len()),
            ));
        }
        for (at, hop) in via.iter().enumerate() {
            let field = format!("spec.via[{at}]");
            check_hop(destination, hop).map_err(|(name, reason)| Invalid::at(format!("{field}{name}"), reason))?;
            check_table(vrf, hop, via.len()).map_err(|reason| Invalid::at(format!("{field}.vrf"), reason))?;
            if hop.target == Target::Drop && via.len() > 1 {
                return Err(Invalid::at(
                    field,
                    "drops beside other next hops; a route drops or forwards",
                ));
            }
            if via[..at].iter().any(|earlier| earlier.target == hop.target) {
                return Err(Invalid::at(
                    field,
                    format!("{} stands twice; give it a weight instead", hop.target),
                ));
            }
        }
        Ok(())
    }
}

fn check_hop(destination: &IpNet, hop: &Hop) -> Result<(), (&'static str, String)> {
    match &hop.target {
        Target::Gateway(gateway) | Target::GatewayIn { gateway, .. } | Target::GatewayBy { gateway, .. } => {
            if gateway.is_ipv4() != destination.addr().is_ipv4() {
                let reason = format!("{gateway} is of another family than the destination {destination}");
                return Err((
                    ".gateway",
                    format!("{reason}; expected an {} address", family(destination)),
                ));
            }
            if gateway.is_unspecified() || gateway.is_multicast() || gateway.is_loopback() {
                return Err((".gateway", format!("{gateway} is not the address of a router")));
            }
            Ok(())
        }
        Target::OnLink(port) => check_label(port).map_err(|reason| (".port", reason)),
        Target::Table(_) | Target::Drop => Ok(()),
    }
}

/// Whether a hop names a table of routes as it may; `hops` is how many there are in all.
fn check_table(own: &str, hop: &Hop, hops: usize) -> Result<(), String> {
    match &hop.target {
        Target::GatewayIn { vrf, .. } | Target::Table(vrf) => check_label(vrf)?,
        _ => return Ok(()),
    }
    match &hop.target {
        Target::Table(vrf) if vrf == own => Err(format!(
            "is the table of the route itself, {own}; expected another one, or a gateway"
        )),
        Target::Table(vrf) if hops > 1 => Err(format!(
            "hands packets to table {vrf} beside other next hops; a route does one or the other"
        )),
        _ => Ok(()),
    }
}

fn family(destination: &IpNet) -> &'static str {
    match destination {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

/// A next hop as written: a gateway, which may have a port or a table beside it, or exactly one of the others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHop {
    #[serde(default, deserialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vrf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<bool>,
    #[serde(
        default = "one",
        deserialize_with = "fields::within::<_, 1, 256>",
        skip_serializing_if = "is_one"
    )]
    weight: u16,
}

fn some_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    fields::address(deserializer).map(Some)
}

fn one() -> u16 {
    1
}

fn is_one(weight: &u16) -> bool {
    *weight == 1
}

impl TryFrom<WrittenHop> for Hop {
    type Error = &'static str;

    fn try_from(written: WrittenHop) -> Result<Self, &'static str> {
        let target = match (written.gateway, written.port, written.vrf, written.drop) {
            (Some(gateway), None, None, None) => Target::Gateway(gateway),
            (Some(gateway), Some(port), None, None) => Target::GatewayBy { gateway, port },
            (Some(gateway), None, Some(vrf), None) => Target::GatewayIn { gateway, vrf },
            (None, Some(port), None, None) => Target::OnLink(port),
            (None, None, Some(vrf), None) => Target::Table(vrf),
            (None, None, None, Some(true)) => Target::Drop,
            (None, None, None, Some(false)) => {
                return Err("has `drop: false`; expected `gateway`, `port`, `vrf` or `drop: true`");
            }
            _ => {
                return Err(
                    "expected exactly one of `gateway`, `port`, `vrf` and `drop`, or a `gateway` with a `port` or a `vrf`",
                );
            }
        };
        Ok(Hop {
            target,
            weight: written.weight,
        })
    }
}

impl From<Hop> for WrittenHop {
    fn from(Hop { target, weight }: Hop) -> Self {
        let none = Self {
            gateway: None,
            port: None,
            vrf: None,
            drop: None,
            weight,
        };
        match target {
            Target::Gateway(gateway) => Self {
                gateway: Some(gateway),
                ..none
            },
            Target::GatewayIn { gateway, vrf } => Self {
                gateway: Some(gateway),
                vrf: Some(vrf),
                ..none
            },
            Target::GatewayBy { gateway, port } => Self {
                gateway: Some(gateway),
                port: Some(port),
                ..none
            },
            Target::Table(vrf) => Self { vrf: Some(vrf), ..none },
            Target::OnLink(port) => Self {
                port: Some(port),
                ..none
            },
            Target::Drop => Self {
                drop: Some(true),
                ..none
            },
        }
    }
}
