//! `kind: Profile`: what decides where no policy does, and labels that endpoints have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields;
use super::policy::PolicyType;
use super::rule::{Place, Rule, check_rules};
use crate::resource::{Body, Invalid};

/// The body of a Profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the profile is.
    #[serde(default)]
    pub spec: ProfileSpec,
}

/// What a Profile is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileSpec {
    /// For packets to the endpoints, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// For packets from the endpoints, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Labels of every endpoint with the profile that has none of the name itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels_to_apply: BTreeMap<String, String>,
}

impl Body for Profile {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "Profile";
    const PLURAL: &'static str = "profiles";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["INGRESS RULES", "EGRESS RULES", "LABELS"];

    fn row(&self) -> Vec<String> {
        let ProfileSpec {
            ingress,
            egress,
            labels_to_apply,
        } = &self.spec;
        let labels: Vec<_> = labels_to_apply
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        vec![ingress.len().to_string(), egress.len().to_string(), labels.join(",")]
    }

    fn check(&self) -> Result<(), Invalid> {
        let at = |direction| Place {
            direction,
            namespaced: false,
        };
        check_rules(&self.spec.ingress, at(PolicyType::Ingress))?;
        check_rules(&self.spec.egress, at(PolicyType::Egress))
    }

    fn check_name(name: &str) -> Result<(), String> {
        for (prefix, of) in [("kns.", "Namespace"), ("ksa.", "ServiceAccount")] {
            if name.starts_with(prefix) {
                return Err(format!(
                    "`{}` is the profile of a {of}; apply that",
                    fields::excerpt(name)
                ));
            }
        }
        fields::check_subdomain(name)
    }
}
