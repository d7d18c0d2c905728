//! `kind: IPPool`: addresses of workloads, and whether the world sees them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::fields;
use crate::agent::selector::Selector;
use crate::resource::{Body, Claim, Invalid};

/// The body of an IPPool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// What the pool is.
    pub spec: IpPoolSpec,
}

/// What an IPPool is. Addresses are not given out here: only `cidr`, `natOutgoing` and `disabled` mean something, the
/// other fields are accepted as Calico has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The addresses of the pool.
    #[serde(deserialize_with = "crate::resource::fields::destination")]
    pub cidr: IpNet,
    /// Packets from the pool to what is in no pool leave with an address of the host.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// The pool gives out no more addresses; those given stay in it.
    #[serde(default)]
    pub disabled: bool,
    /// Never, Always or CrossSubnet.
    #[serde(default, rename = "ipipMode", skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<Encapsulation>,
    /// Never, Always or CrossSubnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<Encapsulation>,
    /// Length of the prefixes that nodes are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// The nodes that are given such.
    #[serde(
        default,
        deserialize_with = "fields::selector",
        skip_serializing_if = "Option::is_none"
    )]
    pub node_selector: Option<Selector>,
    /// The namespaces whose pods are given addresses.
    #[serde(
        default,
        deserialize_with = "fields::selector",
        skip_serializing_if = "Option::is_none"
    )]
    pub namespace_selector: Option<Selector>,
    /// Workload, Tunnel, LoadBalancer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<String>,
    /// Automatic or Manual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<String>,
    /// Not told to peers.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
}

/// When packets between nodes are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encapsulation {
    /// Not at all.
    Never,
    /// Between any two.
    Always,
    /// Between subnets.
    CrossSubnet,
}

impl Body for IpPool {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "IPPool";
    const PLURAL: &'static str = "ippools";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["CIDR", "NAT OUTGOING", "DISABLED"];

    fn row(&self) -> Vec<String> {
        let spec = &self.spec;
        vec![
            spec.cidr.to_string(),
            spec.nat_outgoing.to_string(),
            spec.disabled.to_string(),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim {
            what: format!("pool {}", self.spec.cidr),
            field: "spec.cidr".to_owned(),
        }]
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        let wraps = |mode| !matches!(mode, None | Some(Encapsulation::Never));
        if wraps(spec.ipip_mode) && wraps(spec.vxlan_mode) {
            return Err(Invalid::at(
                "spec.vxlanMode",
                "stands beside `ipipMode`; one of them has to be Never",
            ));
        }
        // Calico's API: 20 to 32, and 116 to 128.
        let (low, high) = if spec.cidr.addr().is_ipv4() {
            (20, 32)
        } else {
            (116, 128)
        };
        match spec.block_size {
            Some(size) if !(low..=high).contains(&size) || size < spec.cidr.prefix_len() => {
                let reason = format!("is {size}; expected {low} to {high}, and no less than the pool's length");
                Err(Invalid::at("spec.blockSize", reason))
            }
            _ => Ok(()),
        }
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}
