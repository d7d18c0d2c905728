//! `kind: Tier`: policies that are asked together, before those of later tiers.

use serde::{Deserialize, Serialize};

use super::{DEFAULT_TIER, fields};
use crate::resource::{Body, Invalid, Metadata};

/// The body of a Tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// What the tier is.
    #[serde(default)]
    pub spec: TierSpec,
}

/// What a Tier is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TierSpec {
    /// Among tiers the lowest comes first; without one it comes last.
    #[serde(deserialize_with = "fields::order", skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What becomes of a packet that no policy of the tier decides, where one applies. Default `Deny`.
    pub default_action: DefaultAction,
}

/// What becomes of a packet at the end of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DefaultAction {
    /// It is dropped.
    #[default]
    Deny,
    /// The next tier is asked.
    Pass,
}

impl DefaultAction {
    /// As documents and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}

impl TierSpec {
    /// The tier that is there without being written, last of those with an order.
    pub const DEFAULT: Self = Self {
        order: Some(1_000_000.0),
        default_action: DefaultAction::Deny,
    };
}

impl Body for Tier {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "Tier";
    const PLURAL: &'static str = "tiers";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["ORDER", "DEFAULT ACTION"];

    fn row(&self) -> Vec<String> {
        let TierSpec { order, default_action } = self.spec;
        vec![
            order.map_or_else(|| "last".to_owned(), |order| order.to_string()),
            default_action.name().to_owned(),
        ]
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    fn check_named(&self, metadata: &Metadata) -> Result<(), Invalid> {
        if metadata.name == DEFAULT_TIER && self.spec != TierSpec::DEFAULT {
            let reason = "tier `default` has order 1000000 and defaultAction Deny, which Kubernetes' policies count on; make a tier of your own";
            return Err(Invalid::at("spec", reason));
        }
        Ok(())
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}
