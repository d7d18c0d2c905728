//! Kinds of `projectcalico.org/v3`, as Calico's API has them.

mod fields;
mod host_endpoint;
mod host_port;
mod ip_pool;
mod network_set;
mod policy;
mod profile;
mod rule;
mod staged_kubernetes;
mod tier;
mod workload_endpoint;

pub(in crate::resource) use fields::{NumberOrText, nets};
pub use fields::{Ports, Protocol};
pub(crate) use fields::{check_subdomain, excerpt};
pub use host_endpoint::{EndpointPort, HostEndpoint, HostEndpointSpec, host_mark};
pub use host_port::HostPort;
pub use ip_pool::{Encapsulation, IpPool, IpPoolSpec};
pub use network_set::{GlobalNetworkSet, NetworkSet, NetworkSetSpec};
pub use policy::{
    DEFAULT_TIER, GlobalNetworkPolicy, NetworkPolicy, PerformanceHint, PolicySpec, PolicyType, StagedAction,
    StagedGlobalNetworkPolicy, StagedNetworkPolicy,
};
pub use profile::{Profile, ProfileSpec};
pub use rule::{Action, EntityRule, IcmpFields, RULES_MAX, Rule, RuleMetadata, ServiceAccountMatch, ServiceMatch};
pub use staged_kubernetes::{StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec};
pub use tier::{DefaultAction, Tier, TierSpec};
pub use workload_endpoint::{IpNat, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec, outside};

/// The group and version of all of them.
const API_VERSION: &str = "projectcalico.org/v3";
