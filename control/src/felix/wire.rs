//! Messages as they are written: Protocol Buffers with the names and numbers of `felix/proto/felixbackend.proto` (Calico).
//!
//! Fields that the plane has no use for are left out here, and passed over where they come.

mod endpoints;

use std::collections::HashMap;

pub use endpoints::*;
use prost::{Message, Oneof};

/// A message of Felix.
#[derive(Clone, PartialEq, Message)]
pub struct ToDataplane {
    #[prost(uint64, tag = "15")]
    pub sequence_number: u64,
    #[prost(
        oneof = "To",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, \
                30, 31, 32, 33, 34, 35, 36, 37, 38"
    )]
    pub payload: Option<To>,
}

#[derive(Clone, PartialEq, Oneof)]
#[allow(clippy::large_enum_variant, reason = "it lives for the length of one call")]
pub enum To {
    #[prost(message, tag = "1")]
    InSync(Empty),
    #[prost(message, tag = "2")]
    IpSetUpdate(IpSetUpdate),
    #[prost(message, tag = "3")]
    IpSetDeltaUpdate(IpSetDeltaUpdate),
    #[prost(message, tag = "4")]
    IpSetRemove(Named),
    #[prost(message, tag = "5")]
    ActiveProfileUpdate(ActiveProfileUpdate),
    #[prost(message, tag = "6")]
    ActiveProfileRemove(ActiveProfileRemove),
    #[prost(message, tag = "7")]
    ActivePolicyUpdate(ActivePolicyUpdate),
    #[prost(message, tag = "8")]
    ActivePolicyRemove(ActivePolicyRemove),
    #[prost(message, tag = "9")]
    HostEndpointUpdate(HostEndpointUpdate),
    #[prost(message, tag = "10")]
    HostEndpointRemove(HostEndpointRemove),
    #[prost(message, tag = "11")]
    WorkloadEndpointUpdate(WorkloadEndpointUpdate),
    #[prost(message, tag = "12")]
    WorkloadEndpointRemove(WorkloadEndpointRemove),
    #[prost(message, tag = "13")]
    ConfigUpdate(ConfigUpdate),
    #[prost(message, tag = "14")]
    HostMetadataUpdate(HostMetadata),
    #[prost(message, tag = "16")]
    IpamPoolUpdate(IpamPoolUpdate),
    #[prost(message, tag = "17")]
    IpamPoolRemove(Named),
    #[prost(message, tag = "18")]
    HostMetadataRemove(Named),
    #[prost(message, tag = "19")]
    ServiceAccountUpdate(Empty),
    #[prost(message, tag = "20")]
    ServiceAccountRemove(Empty),
    #[prost(message, tag = "21")]
    NamespaceUpdate(Empty),
    #[prost(message, tag = "22")]
    NamespaceRemove(Empty),
    #[prost(message, tag = "23")]
    RouteUpdate(RouteUpdate),
    #[prost(message, tag = "24")]
    RouteRemove(RouteRemove),
    #[prost(message, tag = "25")]
    VtepUpdate(Empty),
    #[prost(message, tag = "26")]
    VtepRemove(Empty),
    #[prost(message, tag = "27")]
    WireguardEndpointUpdate(WireguardEndpoint),
    #[prost(message, tag = "28")]
    WireguardEndpointRemove(Named),
    #[prost(message, tag = "29")]
    GlobalBgpConfigUpdate(Empty),
    #[prost(message, tag = "30")]
    Encapsulation(Empty),
    #[prost(message, tag = "31")]
    ServiceUpdate(Empty),
    #[prost(message, tag = "32")]
    ServiceRemove(Empty),
    #[prost(message, tag = "33")]
    WireguardEndpointV6Update(WireguardEndpoint),
    #[prost(message, tag = "34")]
    WireguardEndpointV6Remove(Named),
    /// Until 2025, as the next three.
    #[prost(message, tag = "35")]
    HostMetadataV6Update(HostMetadataV6),
    #[prost(message, tag = "36")]
    HostMetadataV6Remove(Named),
    #[prost(message, tag = "37")]
    HostMetadataV4V6Update(HostMetadata),
    #[prost(message, tag = "38")]
    HostMetadataV4V6Remove(Named),
}

/// A message to Felix.
#[derive(Clone, PartialEq, Message)]
pub struct FromDataplane {
    #[prost(uint64, tag = "8")]
    pub sequence_number: u64,
    #[prost(oneof = "From", tags = "3, 4, 5, 6, 7, 9, 10")]
    pub payload: Option<From>,
}

#[derive(Clone, PartialEq, Oneof)]
#[allow(clippy::large_enum_variant, reason = "it lives for the length of one call")]
pub enum From {
    #[prost(message, tag = "3")]
    ProcessStatusUpdate(ProcessStatusUpdate),
    #[prost(message, tag = "4")]
    HostEndpointStatusUpdate(HostEndpointStatusUpdate),
    #[prost(message, tag = "5")]
    HostEndpointStatusRemove(HostEndpointRemove),
    #[prost(message, tag = "6")]
    WorkloadEndpointStatusUpdate(WorkloadEndpointStatusUpdate),
    #[prost(message, tag = "7")]
    WorkloadEndpointStatusRemove(WorkloadEndpointRemove),
    #[prost(message, tag = "9")]
    WireguardStatusUpdate(WireguardStatusUpdate),
    #[prost(message, tag = "10")]
    DataplaneInSync(Empty),
}

/// A message without fields, or one whose fields are not looked at.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Empty {}

/// A message whose first field names what is meant.
#[derive(Clone, PartialEq, Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigUpdate {
    #[prost(map = "string, string", tag = "1")]
    pub config: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct IpSetUpdate {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, repeated, tag = "2")]
    pub members: Vec<String>,
    #[prost(int32, tag = "3")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct IpSetDeltaUpdate {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, repeated, tag = "2")]
    pub added_members: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub removed_members: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ActiveProfileUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<Named>,
    #[prost(message, optional, tag = "2")]
    pub profile: Option<Policy>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ActiveProfileRemove {
    #[prost(message, optional, tag = "1")]
    pub id: Option<Named>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ActivePolicyUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<PolicyId>,
    #[prost(message, optional, tag = "2")]
    pub policy: Option<Policy>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ActivePolicyRemove {
    #[prost(message, optional, tag = "1")]
    pub id: Option<PolicyId>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PolicyId {
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, tag = "4")]
    pub kind: String,
}

/// A policy, or a profile, which has its first two fields.
#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    #[prost(message, repeated, tag = "1")]
    pub inbound_rules: Vec<Rule>,
    #[prost(message, repeated, tag = "2")]
    pub outbound_rules: Vec<Rule>,
    #[prost(bool, tag = "3")]
    pub untracked: bool,
    #[prost(bool, tag = "4")]
    pub pre_dnat: bool,
    #[prost(string, tag = "8")]
    pub tier: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rule {
    #[prost(string, tag = "1")]
    pub action: String,
    #[prost(int32, tag = "2")]
    pub ip_version: i32,
    #[prost(message, optional, tag = "3")]
    pub protocol: Option<Protocol>,
    #[prost(string, repeated, tag = "4")]
    pub src_net: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub src_ports: Vec<PortRange>,
    #[prost(string, repeated, tag = "6")]
    pub dst_net: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub dst_ports: Vec<PortRange>,
    #[prost(oneof = "Icmp", tags = "8, 9")]
    pub icmp: Option<Icmp>,
    #[prost(string, repeated, tag = "10")]
    pub src_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    pub dst_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    pub src_named_port_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    pub dst_named_port_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "15")]
    pub dst_ip_port_set_ids: Vec<String>,
    #[prost(message, optional, tag = "102")]
    pub not_protocol: Option<Protocol>,
    #[prost(string, repeated, tag = "103")]
    pub not_src_net: Vec<String>,
    #[prost(message, repeated, tag = "104")]
    pub not_src_ports: Vec<PortRange>,
    #[prost(string, repeated, tag = "105")]
    pub not_dst_net: Vec<String>,
    #[prost(message, repeated, tag = "106")]
    pub not_dst_ports: Vec<PortRange>,
    #[prost(oneof = "NotIcmp", tags = "107, 108")]
    pub not_icmp: Option<NotIcmp>,
    #[prost(string, repeated, tag = "109")]
    pub not_src_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "110")]
    pub not_dst_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "112")]
    pub not_src_named_port_ip_set_ids: Vec<String>,
    #[prost(string, repeated, tag = "113")]
    pub not_dst_named_port_ip_set_ids: Vec<String>,
    #[prost(message, optional, tag = "122")]
    pub http_match: Option<Empty>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum NumberOrName {
    #[prost(int32, tag = "1")]
    Number(i32),
    #[prost(string, tag = "2")]
    Name(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct Protocol {
    #[prost(oneof = "NumberOrName", tags = "1, 2")]
    pub number_or_name: Option<NumberOrName>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct PortRange {
    #[prost(int32, tag = "1")]
    pub first: i32,
    #[prost(int32, tag = "2")]
    pub last: i32,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Icmp {
    #[prost(int32, tag = "8")]
    Type(i32),
    #[prost(message, tag = "9")]
    TypeCode(IcmpTypeAndCode),
}

#[derive(Clone, PartialEq, Oneof)]
pub enum NotIcmp {
    #[prost(int32, tag = "107")]
    Type(i32),
    #[prost(message, tag = "108")]
    TypeCode(IcmpTypeAndCode),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct IcmpTypeAndCode {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(int32, tag = "2")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostMetadata {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(string, tag = "2")]
    pub ipv4_addr: String,
    #[prost(string, tag = "3")]
    pub ipv6_addr: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostMetadataV6 {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(string, tag = "2")]
    pub ipv6_addr: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct IpamPoolUpdate {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub pool: Option<IpamPool>,
}

#[derive(Clone, PartialEq, Message)]
pub struct IpamPool {
    #[prost(string, tag = "1")]
    pub cidr: String,
    #[prost(bool, tag = "2")]
    pub masquerade: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RouteUpdate {
    /// Counted up, until 2024.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "3")]
    pub dst: String,
    #[prost(string, tag = "4")]
    pub dst_node_name: String,
    #[prost(bool, tag = "9")]
    pub local_workload: bool,
    /// A bit for each.
    #[prost(int32, tag = "12")]
    pub kinds: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct RouteRemove {
    #[prost(string, tag = "2")]
    pub dst: String,
}

/// Of either family.
#[derive(Clone, PartialEq, Message)]
pub struct WireguardEndpoint {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(string, tag = "2")]
    pub public_key: String,
    #[prost(string, tag = "3")]
    pub interface_addr: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ProcessStatusUpdate {
    #[prost(string, tag = "1")]
    pub iso_timestamp: String,
    #[prost(double, tag = "2")]
    pub uptime: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct EndpointStatus {
    #[prost(string, tag = "1")]
    pub status: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostEndpointStatusUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<HostEndpointId>,
    #[prost(message, optional, tag = "2")]
    pub status: Option<EndpointStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadEndpointStatusUpdate {
    #[prost(message, optional, tag = "1")]
    pub id: Option<WorkloadEndpointId>,
    #[prost(message, optional, tag = "2")]
    pub status: Option<EndpointStatus>,
    #[prost(message, optional, tag = "3")]
    pub endpoint: Option<WorkloadEndpoint>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WireguardStatusUpdate {
    #[prost(string, tag = "1")]
    pub public_key: String,
    #[prost(int32, tag = "2")]
    pub ip_version: i32,
}
