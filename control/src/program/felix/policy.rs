//! Messages of Felix's data-plane protocol about policy: sets of addresses, policies, profiles and endpoints. References
//! come before what refers to them, and go after it.

use super::IpVersion;
use crate::resource::{Dscp, QosControls};

/// What the members of a set are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpSetType {
    /// Addresses.
    #[default]
    Ip = 0,
    /// Addresses with protocol and port: `10.0.0.1,tcp:80`.
    IpAndPort = 1,
    /// Prefixes of both families.
    Net = 2,
}

/// A set and all of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSetUpdate {
    /// Its name.
    pub id: String,
    /// As text.
    pub members: Vec<String>,
    /// What they are.
    pub r#type: IpSetType,
}

/// Members that come and go; none does both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSetDeltaUpdate {
    /// The set's name.
    pub id: String,
    /// Not members before.
    pub added_members: Vec<String>,
    /// Members before.
    pub removed_members: Vec<String>,
}

/// Names a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// Its name.
    pub name: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its kind, such as `GlobalNetworkPolicy` or `StagedNetworkPolicy`.
    pub kind: String,
}

impl PolicyId {
    /// Whether it is one that never decides.
    pub fn is_staged(&self) -> bool {
        self.kind.starts_with("Staged")
    }
}

/// A policy and its rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActivePolicyUpdate {
    /// Which.
    pub id: PolicyId,
    /// What it says.
    pub policy: Policy,
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// For packets to an endpoint.
    pub inbound_rules: Vec<Rule>,
    /// For packets from it.
    pub outbound_rules: Vec<Rule>,
    /// It stands before connection tracking.
    pub untracked: bool,
    /// It stands before the translation of services.
    pub pre_dnat: bool,
    /// The name of its tier.
    pub tier: String,
}

/// A profile and its rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveProfileUpdate {
    /// Its name.
    pub id: String,
    /// For packets to an endpoint.
    pub inbound_rules: Vec<Rule>,
    /// For packets from it.
    pub outbound_rules: Vec<Rule>,
}

/// A protocol, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Its number.
    Number(u8),
    /// Its name, in any case.
    Name(String),
}

/// Ports from `first` to `last`, both among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A type of ICMP message, and a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    /// The type.
    pub r#type: u8,
    /// The code; any if there is none.
    pub code: Option<u8>,
}

/// What a rule says of one end of a packet. Empty lists say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleEnd {
    /// In one of these prefixes.
    pub net: Vec<String>,
    /// In none of these.
    pub not_net: Vec<String>,
    /// In every one of these sets.
    pub ip_set_ids: Vec<String>,
    /// In none of these.
    pub not_ip_set_ids: Vec<String>,
    /// One of these ports, or as `named_port_ip_set_ids` says.
    pub ports: Vec<PortRange>,
    /// None of these.
    pub not_ports: Vec<PortRange>,
    /// Address, protocol and port in one of these sets.
    pub named_port_ip_set_ids: Vec<String>,
    /// In none of these.
    pub not_named_port_ip_set_ids: Vec<String>,
}

/// A rule. The protocol has its fields with `src_` and `dst_` in front; here each end has its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// `allow`, which is also what nothing means, `deny`, `pass`, `next-tier` or `log`, in any case.
    pub action: String,
    /// Either where there is none.
    pub ip_version: Option<IpVersion>,
    /// The protocol it has to have.
    pub protocol: Option<Protocol>,
    /// The one it must not have.
    pub not_protocol: Option<Protocol>,
    /// Where it comes from.
    pub src: RuleEnd,
    /// Where it goes.
    pub dst: RuleEnd,
    /// Destination, protocol and port in one of these sets.
    pub dst_ip_port_set_ids: Vec<String>,
    /// What its ICMP message has to be.
    pub icmp: Option<Icmp>,
    /// What it must not be.
    pub not_icmp: Option<Icmp>,
    /// It looks at HTTP, which no packet tells: such a rule never allows.
    pub http_match: bool,
}

/// Names a workload's endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadEndpointId {
    /// Such as `k8s`.
    pub orchestrator_id: String,
    /// Such as `namespace/pod`.
    pub workload_id: String,
    /// Such as `eth0`.
    pub endpoint_id: String,
}

/// An endpoint of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadEndpointUpdate {
    /// Which.
    pub id: WorkloadEndpointId,
    /// What it is.
    pub endpoint: WorkloadEndpoint,
}

/// What an endpoint of a workload is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadEndpoint {
    /// `active`; otherwise it is administratively down.
    pub state: String,
    /// The interface: the name of a port, or of its device.
    pub name: String,
    /// Its link address.
    pub mac: String,
    /// In order.
    pub profile_ids: Vec<String>,
    /// Its addresses.
    pub ipv4_nets: Vec<String>,
    /// Its addresses.
    pub ipv6_nets: Vec<String>,
    /// In order.
    pub tiers: Vec<TierInfo>,
    /// Its addresses outside, one for one.
    pub ipv4_nat: Vec<NatInfo>,
    /// Its addresses outside, one for one.
    pub ipv6_nat: Vec<NatInfo>,
    /// It may send from these, too.
    pub allow_spoofed_source_prefixes: Vec<String>,
    /// How much may go to it, and come from it.
    pub qos_controls: Option<Box<QosControls>>,
}

/// An address outside that stands for one inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatInfo {
    /// Outside.
    pub ext_ip: String,
    /// Inside.
    pub int_ip: String,
}

/// An endpoint of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEndpointUpdate {
    /// Its name.
    pub endpoint_id: String,
    /// What it is.
    pub endpoint: HostEndpoint,
}

/// What an endpoint of a host is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEndpoint {
    /// The interface, `*` for all, or nothing where an address says which.
    pub name: String,
    /// In order.
    pub profile_ids: Vec<String>,
    /// For traffic from and to the host.
    pub tiers: Vec<TierInfo>,
    /// Before connection tracking.
    pub untracked_tiers: Vec<TierInfo>,
    /// Before the translation of services.
    pub pre_dnat_tiers: Vec<TierInfo>,
    /// For what the host forwards.
    pub forward_tiers: Vec<TierInfo>,
    /// The interface has one of these.
    pub expected_ipv4_addrs: Vec<String>,
    /// The interface has one of these.
    pub expected_ipv6_addrs: Vec<String>,
    /// What packets from the host are marked with where they leave the cluster.
    pub dscp: Option<Dscp>,
}

/// A tier as an endpoint has it: the policies that select it, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TierInfo {
    /// Its name.
    pub name: String,
    /// Those that apply to packets to the endpoint.
    pub ingress_policies: Vec<PolicyId>,
    /// Those that apply to packets from it.
    pub egress_policies: Vec<PolicyId>,
    /// `Deny`, which is also what nothing means, or `Pass`.
    pub default_action: String,
}
