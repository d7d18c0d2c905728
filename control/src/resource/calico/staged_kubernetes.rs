//! `kind: StagedKubernetesNetworkPolicy`: a NetworkPolicy of Kubernetes that says what it would do.

use serde::{Deserialize, Serialize};

use super::{PolicyType, StagedAction, fields};
use crate::resource::kubernetes::{EgressRule, IngressRule, KubernetesNetworkPolicySpec, LabelSelector};
use crate::resource::{Body, Invalid};

/// The body of a StagedKubernetesNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedKubernetesNetworkPolicy {
    /// What the policy is.
    #[serde(default)]
    pub spec: StagedKubernetesNetworkPolicySpec,
}

/// What a StagedKubernetesNetworkPolicy is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StagedKubernetesNetworkPolicySpec {
    /// Whether it proposes to be there (`Set`, the default), to be gone, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// The pods it is for, in its namespace.
    pub pod_selector: LabelSelector,
    /// Who may talk to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Whom they may talk to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// The directions it decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
}

impl StagedKubernetesNetworkPolicySpec {
    /// The policy it proposes.
    pub fn policy(&self) -> KubernetesNetworkPolicySpec {
        let Self {
            pod_selector,
            ingress,
            egress,
            policy_types,
            ..
        } = self.clone();
        KubernetesNetworkPolicySpec {
            pod_selector,
            ingress,
            egress,
            policy_types,
        }
    }
}

impl Body for StagedKubernetesNetworkPolicy {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "StagedKubernetesNetworkPolicy";
    const PLURAL: &'static str = "stagedkubernetesnetworkpolicies";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = crate::resource::KubernetesNetworkPolicy::COLUMNS;

    fn row(&self) -> Vec<String> {
        self.spec.policy().row()
    }

    fn check(&self) -> Result<(), Invalid> {
        self.spec.policy().check()
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}
