//! Kinds of Kubernetes that policy is about.

mod label_selector;
mod namespace;
mod network_policy;
mod service_account;

pub use label_selector::{LabelSelector, Operator, Requirement};
pub use namespace::Namespace;
pub use network_policy::{
    EgressRule, IngressRule, IpBlock, KubernetesNetworkPolicy, KubernetesNetworkPolicySpec, Peer, PolicyPort,
};
pub use service_account::ServiceAccount;
