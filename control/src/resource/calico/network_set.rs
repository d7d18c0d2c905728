//! `kind: NetworkSet` and `GlobalNetworkSet`: prefixes that selectors find by labels.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::fields;
use crate::resource::{Body, Invalid};

/// What a set is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSetSpec {
    /// Its prefixes, of either family.
    #[serde(deserialize_with = "fields::nets")]
    pub nets: Vec<IpNet>,
}

/// The body of a NetworkSet, found by what looks into its namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// What the set is.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

/// The body of a GlobalNetworkSet, which is in no namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkSet {
    /// What the set is.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

impl NetworkSetSpec {
    fn row(&self) -> Vec<String> {
        const SHOWN: usize = 4;
        let mut shown: Vec<_> = self.nets.iter().take(SHOWN).map(IpNet::to_string).collect();
        if self.nets.len() > SHOWN {
            shown.push("…".to_owned());
        }
        vec![self.nets.len().to_string(), shown.join(", ")]
    }
}

impl Body for NetworkSet {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "NetworkSet";
    const PLURAL: &'static str = "networksets";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &["SIZE", "NETS"];

    fn row(&self) -> Vec<String> {
        self.spec.row()
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}

impl Body for GlobalNetworkSet {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "GlobalNetworkSet";
    const PLURAL: &'static str = "globalnetworksets";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = NetworkSet::COLUMNS;

    fn row(&self) -> Vec<String> {
        self.spec.row()
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}
