//! `kind: Neighbor`: the Ethernet address of an on-link host, given rather than resolved.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Body, Claim, Invalid, Key, Kind, MacAddress, Reference, check_label, fields};

/// The body of a Neighbor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbor {
    /// What the neighbour is.
    pub spec: NeighborSpec,
}

/// An on-link host and its Ethernet address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeighborSpec {
    /// The name of the Port whose link it is on.
    pub port: String,
    /// Its IP address.
    #[serde(deserialize_with = "fields::address")]
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// On a Port of driver `vxlan`: the other end of the tunnel that it is behind. Default: the Port's `remote`.
    #[serde(
        default,
        deserialize_with = "fields::some_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub remote: Option<IpAddr>,
}

impl Body for Neighbor {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "Neighbor";
    const PLURAL: &'static str = "neighbors";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["PORT", "ADDRESS", "MAC"];

    fn row(&self) -> Vec<String> {
        vec![
            self.spec.port.clone(),
            self.spec.address.to_string(),
            self.spec.mac.to_string(),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        let what = format!("neighbour {} on port {}", self.spec.address, self.spec.port);
        vec![Claim {
            what,
            field: "spec.address".to_owned(),
        }]
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::to(Key::cluster(Kind::Port, &self.spec.port), "spec.port")]
    }

    fn check(&self) -> Result<(), Invalid> {
        let NeighborSpec { port, address, mac, .. } = &self.spec;
        check_label(port).map_err(|reason| Invalid::at("spec.port", reason))?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(Invalid::at(
                "spec.address",
                format!("{address} is not the address of one host on a link"),
            ));
        }
        if !mac.is_unicast() {
            return Err(Invalid::at(
                "spec.mac",
                format!("{mac} is a group or all-zero address; expected a station's"),
            ));
        }
        Ok(())
    }
}
