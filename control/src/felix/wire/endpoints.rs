//! Endpoints of workloads and of hosts.

use prost::Message;

use super::PolicyId;

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadEndpointId {
    #[prost(string, tag = "2")]
    pub orchestrator_id: String,
    #[prost(string, tag = "3")]
    pub workload_id: String,
    #[prost(string, tag = "4")]
    pub endpoint_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadEndpointUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<WorkloadEndpointId>,
    #[prost(message, optional, tag = "5")]
    pub endpoint: Option<WorkloadEndpoint>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadEndpointRemove {
    #[prost(message, optional, tag = "1")]
    pub id: Option<WorkloadEndpointId>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadEndpoint {
    #[prost(string, tag = "1")]
    pub state: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub mac: String,
    #[prost(string, repeated, tag = "4")]
    pub profile_ids: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub ipv4_nets: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub ipv6_nets: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub tiers: Vec<TierInfo>,
    #[prost(message, repeated, tag = "8")]
    pub ipv4_nat: Vec<NatInfo>,
    #[prost(message, repeated, tag = "9")]
    pub ipv6_nat: Vec<NatInfo>,
    #[prost(string, repeated, tag = "10")]
    pub allow_spoofed_source_prefixes: Vec<String>,
    #[prost(message, optional, tag = "12")]
    pub qos_controls: Option<QosControls>,
    #[prost(message, repeated, tag = "15")]
    pub qos_policies: Vec<QosPolicy>,
}

#[derive(Clone, PartialEq, Message)]
pub struct QosPolicy {
    #[prost(int32, tag = "2")]
    pub dscp: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct QosControls {
    #[prost(int64, tag = "1")]
    pub ingress_bandwidth: i64,
    #[prost(int64, tag = "2")]
    pub egress_bandwidth: i64,
    #[prost(int64, tag = "3")]
    pub ingress_burst: i64,
    #[prost(int64, tag = "4")]
    pub egress_burst: i64,
    #[prost(int64, tag = "5")]
    pub ingress_packet_rate: i64,
    #[prost(int64, tag = "6")]
    pub egress_packet_rate: i64,
    #[prost(int64, tag = "7")]
    pub ingress_max_connections: i64,
    #[prost(int64, tag = "8")]
    pub egress_max_connections: i64,
    #[prost(int64, tag = "9")]
    pub ingress_peakrate: i64,
    #[prost(int64, tag = "10")]
    pub egress_peakrate: i64,
    #[prost(int64, tag = "11")]
    pub ingress_minburst: i64,
    #[prost(int64, tag = "12")]
    pub egress_minburst: i64,
    #[prost(int64, tag = "13")]
    pub ingress_packet_burst: i64,
    #[prost(int64, tag = "14")]
    pub egress_packet_burst: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostEndpointId {
    #[prost(string, tag = "2")]
    pub endpoint_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostEndpointUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<HostEndpointId>,
    #[prost(message, optional, tag = "3")]
    pub endpoint: Option<HostEndpoint>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostEndpointRemove {
    #[prost(message, optional, tag = "1")]
    pub id: Option<HostEndpointId>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostEndpoint {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "2")]
    pub profile_ids: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub tiers: Vec<TierInfo>,
    #[prost(string, repeated, tag = "4")]
    pub expected_ipv4_addrs: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub expected_ipv6_addrs: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub untracked_tiers: Vec<TierInfo>,
    #[prost(message, repeated, tag = "7")]
    pub pre_dnat_tiers: Vec<TierInfo>,
    #[prost(message, repeated, tag = "8")]
    pub forward_tiers: Vec<TierInfo>,
    #[prost(message, repeated, tag = "9")]
    pub qos_policies: Vec<QosPolicy>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TierInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub ingress_policies: Vec<PolicyId>,
    #[prost(message, repeated, tag = "3")]
    pub egress_policies: Vec<PolicyId>,
    #[prost(string, tag = "4")]
    pub default_action: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct NatInfo {
    #[prost(string, tag = "1")]
    pub ext_ip: String,
    #[prost(string, tag = "2")]
    pub int_ip: String,
}
