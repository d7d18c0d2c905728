//! `kind: NetworkPolicy`, `GlobalNetworkPolicy` and their staged twins: who may talk to the endpoints they select.

use serde::{Deserialize, Serialize};

use super::fields;
use super::rule::{Place, Rule, check_rules};
use crate::agent::selector::Selector;
use crate::resource::{Body, Invalid, Key, Kind, Reference};

/// The tier of a policy that names none.
pub const DEFAULT_TIER: &str = "default";

/// What a policy is. Which of the fields a kind has is said at each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySpec {
    /// Staged kinds only: whether it proposes to be there (`Set`, the default), to be gone, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// The tier it belongs to. Default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Among the policies of its tier the lowest comes first; without one it comes last.
    #[serde(deserialize_with = "fields::order", skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// The endpoints it is for, in its namespace if it has one. Default all of them.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Only endpoints in namespaces that this selects. Global kinds only.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Only endpoints of service accounts that this selects.
    #[serde(deserialize_with = "fields::selector", skip_serializing_if = "Option::is_none")]
    pub service_account_selector: Option<Selector>,
    /// The directions it decides. Default: those it has rules for, and ingress if it has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// For packets to the endpoints, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// For packets from the endpoints, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Before connection tracking. Global kinds only, with `applyOnForward`.
    #[serde(skip_serializing_if = "is_false")]
    pub do_not_track: bool,
    /// Before the translation of services. Global kinds only, with `applyOnForward`, and ingress only.
    #[serde(rename = "preDNAT", skip_serializing_if = "is_false")]
    pub pre_dnat: bool,
    /// On host endpoints, also for what the host forwards. Global kinds only.
    #[serde(skip_serializing_if = "is_false")]
    pub apply_on_forward: bool,
    /// Accepted as Calico has it; means nothing here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// A direction, as seen from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyType {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

/// What a staged policy proposes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StagedAction {
    /// The policy as written.
    #[default]
    Set,
    /// That the policy of its name goes.
    Delete,
    /// To be kept in mind, that something else was learned.
    Learn,
    /// Nothing.
    Ignore,
}

/// How Calico may speed a policy up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PerformanceHint {
    /// Whether or not it selects an endpoint.
    AssumeNeededOnEveryNode,
}

impl PolicySpec {
    /// The tier it belongs to.
    pub fn tier(&self) -> &str {
        self.tier.as_deref().unwrap_or(DEFAULT_TIER)
    }

    /// Whether it decides packets to, and packets from its endpoints.
    pub fn directions(&self) -> (bool, bool) {
        if self.types.is_empty() {
            let egress = !self.egress.is_empty();
            return (!self.ingress.is_empty() || !egress, egress);
        }
        let has = |of| self.types.contains(&of);
        (has(PolicyType::Ingress), has(PolicyType::Egress))
    }

    fn check(&self, kind: Kind) -> Result<(), Invalid> {
        self.check_kind(kind)?;
        fields::check_subdomain(self.tier()).map_err(|reason| Invalid::at("spec.tier", reason))?;
        fields::not_global(self.selector.as_ref(), "spec.selector")?;
        fields::not_global(self.namespace_selector.as_ref(), "spec.namespaceSelector")?;
        fields::not_global(self.service_account_selector.as_ref(), "spec.serviceAccountSelector")?;
        for (at, of) in self.types.iter().enumerate() {
            if self.types[..at].contains(of) {
                return Err(Invalid::at(format!("spec.types[{at}]"), format!("{of:?} stands twice")));
            }
        }
        self.check_stage()?;
        let at = |direction| Place {
            direction,
            namespaced: kind.namespaced(),
        };
        check_rules(&self.ingress, at(PolicyType::Ingress))?;
        check_rules(&self.egress, at(PolicyType::Egress))
    }

    fn check_kind(&self, kind: Kind) -> Result<(), Invalid> {
        let namespaced = kind.namespaced();
        let staged = kind.name().starts_with("Staged");
        let foreign = [
            ("namespaceSelector", namespaced && self.namespace_selector.is_some()),
            ("doNotTrack", namespaced && self.do_not_track),
            ("preDNAT", namespaced && self.pre_dnat),
            ("applyOnForward", namespaced && self.apply_on_forward),
            ("stagedAction", !staged && self.staged_action.is_some()),
        ];
        match foreign.into_iter().find(|(_, is_there)| *is_there) {
            Some((field, _)) => {
                let reason = format!("unknown field `{field}`; a {kind} has none");
                Err(Invalid::at(format!("spec.{field}"), reason))
            }
            None => Ok(()),
        }
    }

    fn check_stage(&self) -> Result<(), Invalid> {
        if self.do_not_track && self.pre_dnat {
            let reason = "cannot stand beside `doNotTrack`; write a policy for each";
            return Err(Invalid::at("spec.preDNAT", reason));
        }
        if (self.do_not_track || self.pre_dnat) && !self.apply_on_forward {
            let reason = "has to be true with `doNotTrack` and `preDNAT`, which are for forwarded packets, too";
            return Err(Invalid::at("spec.applyOnForward", reason));
        }
        if self.pre_dnat && !self.egress.is_empty() {
            return Err(Invalid::at(
                "spec.egress",
                "cannot stand in a policy with `preDNAT`, which is for ingress",
            ));
        }
        if self.pre_dnat && self.types.contains(&PolicyType::Egress) {
            return Err(Invalid::at(
                "spec.types",
                "cannot have Egress with `preDNAT`, which is for ingress",
            ));
        }
        Ok(())
    }

    fn row(&self) -> Vec<String> {
        let (ingress, egress) = self.directions();
        let types: Vec<_> = [(ingress, "Ingress"), (egress, "Egress")]
            .into_iter()
            .filter_map(|(is_there, name)| is_there.then_some(name))
            .collect();
        vec![
            self.tier().to_owned(),
            self.order.map_or_else(|| "last".to_owned(), |order| order.to_string()),
            self.selector.as_ref().map_or("all()", Selector::text).to_owned(),
            types.join(", "),
        ]
    }

    fn references(&self) -> Vec<Reference> {
        match self.tier() {
            DEFAULT_TIER => vec![],
            tier => vec![Reference::to(Key::cluster(Kind::Tier, tier), "spec.tier")],
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

macro_rules! policies {
    ($($(#[$doc:meta])* $kind:ident, $plural:literal, $namespaced:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $kind {
            /// What the policy is.
            #[serde(default)]
            pub spec: PolicySpec,
        }

        impl Body for $kind {
            const API_VERSION: &'static str = super::API_VERSION;
            const KIND: &'static str = stringify!($kind);
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;
            const COLUMNS: &'static [&'static str] = &["TIER", "ORDER", "SELECTOR", "TYPES"];

            fn row(&self) -> Vec<String> {
                self.spec.row()
            }

            fn check(&self) -> Result<(), Invalid> {
                self.spec.check(Kind::$kind)
            }

            fn references(&self) -> Vec<Reference> {
                self.spec.references()
            }

            fn check_name(name: &str) -> Result<(), String> {
                fields::check_subdomain(name)
            }
        }
    )*};
}

policies! {
    /// The body of a NetworkPolicy: for endpoints of workloads in its namespace.
    NetworkPolicy, "networkpolicies", true;
    /// The body of a GlobalNetworkPolicy: for endpoints of workloads and of hosts.
    GlobalNetworkPolicy, "globalnetworkpolicies", false;
    /// The body of a StagedNetworkPolicy: a NetworkPolicy that says what it would do.
    StagedNetworkPolicy, "stagednetworkpolicies", true;
    /// The body of a StagedGlobalNetworkPolicy: a GlobalNetworkPolicy that says what it would do.
    StagedGlobalNetworkPolicy, "stagedglobalnetworkpolicies", false;
}
