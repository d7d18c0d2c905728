//! `show policies`: policies and profiles, and how many endpoints have them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, number};
use crate::program::policy::PolicyInfo;

/// A policy or profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its kind, such as `NetworkPolicy`, or `Profile`.
    pub kind: String,
    /// Its name, behind its namespace where it has one.
    pub name: String,
    /// The tier of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Rules for packets to endpoints.
    pub ingress_rules: usize,
    /// Rules for packets from them.
    pub egress_rules: usize,
    /// Lists of policies of endpoints that it is in.
    pub mentions: usize,
    /// Why it denies all packets to its endpoints, or from them; nothing where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
}

/// One of them.
pub(crate) fn view(info: &PolicyInfo) -> PolicyView {
    PolicyView {
        kind: info.name.kind().to_owned(),
        name: info.name.name(),
        tier: info.tier.clone(),
        ingress_rules: info.ingress_rules,
        egress_rules: info.egress_rules,
        mentions: info.mentions,
        unfinished: info.unfinished.iter().flatten().next().cloned(),
    }
}

/// The view as text.
pub fn table(policies: &[PolicyView]) -> String {
    if policies.is_empty() {
        return "no policies; every packet passes\n".to_owned();
    }
    let mut table = Table::new(&["TIER", "KIND", "NAME", ">INGRESS", ">EGRESS", ">MENTIONS", "STATE"]);
    for policy in policies {
        table.row([
            policy.tier.as_deref().unwrap_or("-").into(),
            policy.kind.as_str().into(),
            policy.name.as_str().into(),
            number(policy.ingress_rules as u64).into(),
            number(policy.egress_rules as u64).into(),
            number(policy.mentions as u64).into(),
            policy
                .unfinished
                .as_deref()
                .map_or_else(|| "in force".to_owned(), |why| format!("denies: {why}"))
                .into(),
        ]);
    }
    table.to_string()
}
