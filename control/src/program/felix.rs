//! Messages of Felix's data-plane protocol, as far as encryption, policy and outgoing NAT need them. Names of messages and fields are
//! those of `felix/proto/felixbackend.proto` (Calico); the frames around them are read elsewhere.

mod policy;

use std::collections::BTreeMap;

pub use policy::*;

/// A message to the data plane.
#[derive(Clone, Debug, PartialEq)]
pub enum ToDataplane {
    /// The whole snapshot has been sent; only now is anything programmed.
    InSync,
    /// The merged settings, as strings.
    ConfigUpdate(ConfigUpdate),
    /// See [`WireguardEndpointUpdate`].
    WireguardEndpointUpdate(WireguardEndpointUpdate),
    /// The node has no such key any more.
    WireguardEndpointRemove(WireguardEndpointRemove),
    /// See [`WireguardEndpointV6Update`].
    WireguardEndpointV6Update(WireguardEndpointV6Update),
    /// The node has no such key any more.
    WireguardEndpointV6Remove(WireguardEndpointRemove),
    /// A node's IPv4 address.
    HostMetadataUpdate(HostMetadataUpdate),
    /// It has none any more.
    HostMetadataRemove(HostMetadataRemove),
    /// A node's IPv6 address.
    HostMetadataV6Update(HostMetadataV6Update),
    /// It has none any more.
    HostMetadataV6Remove(HostMetadataRemove),
    /// Both addresses of a node.
    HostMetadataV4V6Update(HostMetadataV4V6Update),
    /// The node is gone.
    HostMetadataV4V6Remove(HostMetadataRemove),
    /// See [`RouteUpdate`].
    RouteUpdate(RouteUpdate),
    /// Nobody has the prefix any more.
    RouteRemove(RouteRemove),
    /// See [`IpSetUpdate`].
    IpSetUpdate(IpSetUpdate),
    /// See [`IpSetDeltaUpdate`].
    IpSetDeltaUpdate(IpSetDeltaUpdate),
    /// The set of this name is gone.
    IpSetRemove(String),
    /// See [`ActivePolicyUpdate`].
    ActivePolicyUpdate(ActivePolicyUpdate),
    /// The policy is gone.
    ActivePolicyRemove(PolicyId),
    /// See [`ActiveProfileUpdate`].
    ActiveProfileUpdate(ActiveProfileUpdate),
    /// The profile of this name is gone.
    ActiveProfileRemove(String),
    /// See [`WorkloadEndpointUpdate`].
    WorkloadEndpointUpdate(WorkloadEndpointUpdate),
    /// The endpoint is gone.
    WorkloadEndpointRemove(WorkloadEndpointId),
    /// See [`HostEndpointUpdate`].
    HostEndpointUpdate(HostEndpointUpdate),
    /// The endpoint of this name is gone.
    HostEndpointRemove(String),
    /// See [`IpamPoolUpdate`].
    IpamPoolUpdate(IpamPoolUpdate),
    /// The pool of this name is gone.
    IpamPoolRemove(String),
}

/// Settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigUpdate {
    /// By the names that Felix's documentation has.
    pub config: BTreeMap<String, String>,
}

/// Where addresses of workloads come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpamPoolUpdate {
    /// Its name.
    pub id: String,
    /// All of its addresses.
    pub cidr: String,
    /// What leaves it for an address in no pool gets the address of the host.
    pub masquerade: bool,
}

/// What a node is known by over IPv4.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireguardEndpointUpdate {
    /// The name of the node.
    pub hostname: String,
    /// Its key, as base64.
    pub public_key: String,
    /// The address of its tunnel.
    pub interface_ipv4_addr: String,
}

/// What a node is known by over IPv6.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireguardEndpointV6Update {
    /// The name of the node.
    pub hostname: String,
    /// Its key, as base64.
    pub public_key_v6: String,
    /// The address of its tunnel.
    pub interface_ipv6_addr: String,
}

/// A node without a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireguardEndpointRemove {
    /// The name of the node.
    pub hostname: String,
}

/// A node's IPv4 address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetadataUpdate {
    /// The name of the node.
    pub hostname: String,
    /// Its address.
    pub ipv4_addr: String,
}

/// A node's IPv6 address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetadataV6Update {
    /// The name of the node.
    pub hostname: String,
    /// Its address.
    pub ipv6_addr: String,
}

/// A node's addresses; empty where it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetadataV4V6Update {
    /// The name of the node.
    pub hostname: String,
    /// Its IPv4 address.
    pub ipv4_addr: String,
    /// Its IPv6 address.
    pub ipv6_addr: String,
}

/// A node without an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetadataRemove {
    /// The name of the node.
    pub hostname: String,
}

/// Which node has a prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteUpdate {
    /// What lives there.
    pub r#type: RouteType,
    /// The prefix.
    pub dst: String,
    /// The name of the node.
    pub dst_node_name: String,
}

/// Nobody has the prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteRemove {
    /// The prefix.
    pub dst: String,
}

/// What lives in a prefix, with the numbers of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteType {
    /// Nothing: a pool is described.
    #[default]
    CidrInfo = 0,
    /// Workloads of another node.
    RemoteWorkload = 1,
    /// Another node.
    RemoteHost = 2,
    /// Workloads of this node.
    LocalWorkload = 3,
    /// This node.
    LocalHost = 4,
    /// The tunnel of another node.
    RemoteTunnel = 5,
    /// The tunnel of this node.
    LocalTunnel = 6,
}

/// What the data plane says: the key that other nodes are to know it by. An empty key takes it back.
#[derive(Clone, Debug, PartialEq)]
pub struct WireguardStatusUpdate {
    /// As base64.
    pub public_key: String,
    /// Over which family.
    pub ip_version: IpVersion,
}

/// A family of addresses, with the numbers of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}
