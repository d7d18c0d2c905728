//! From messages as they are written to what the plane is told.

use prost::Message;

use super::rules;
use super::wire::{self, To};
use crate::program::felix::{
    ActivePolicyUpdate, ActiveProfileUpdate, ConfigUpdate, HostEndpoint, HostEndpointUpdate, HostMetadataRemove,
    HostMetadataUpdate, HostMetadataV4V6Update, HostMetadataV6Update, IpSetDeltaUpdate, IpSetType, IpSetUpdate,
    IpamPoolUpdate, NatInfo, Policy, PolicyId, RouteRemove, RouteType, RouteUpdate, TierInfo, ToDataplane,
    WireguardEndpointRemove, WireguardEndpointUpdate, WireguardEndpointV6Update, WorkloadEndpoint, WorkloadEndpointId,
    WorkloadEndpointUpdate,
};
use crate::resource::{Dscp, QosControls};

/// What a message comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The plane is told this.
    Told(Box<ToDataplane>),
    /// The plane has no use for it, by name.
    Unused(&'static str),
}

/// Why a message says nothing that could be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// These are no Protocol Buffers, or others.
    #[error("a message is none of Felix's ({0}); Felix has to be one whose policies have name, namespace and kind")]
    Garbled(String),
    /// What it is about is not said.
    #[error("a message of kind {0} does not say what it is about")]
    Nameless(&'static str),
    /// A number that cannot be.
    #[error("{what} {number} of a rule is out of range")]
    OutOfRange {
        /// What it counts.
        what: &'static str,
        /// The number.
        number: i32,
    },
}

/// Reads a message.
///
/// # Errors
/// It is none, or cannot be carried out as it is written.
pub fn read(bytes: &[u8]) -> Result<Heard, MessageError> {
    let message = wire::ToDataplane::decode(bytes).map_err(|error| MessageError::Garbled(error.to_string()))?;
    match message.payload {
        None => Ok(Heard::Unused("unknown")),
        Some(payload) => heard(payload),
    }
}

fn heard(payload: To) -> Result<Heard, MessageError> {
    use ToDataplane as Told;
    let told = match payload {
        To::InSync(_) => Told::InSync,
        To::ConfigUpdate(update) => Told::ConfigUpdate(ConfigUpdate {
            config: update.config.into_iter().collect(),
        }),
        To::IpSetUpdate(update) => Told::IpSetUpdate(set(update)),
        To::IpSetDeltaUpdate(delta) => Told::IpSetDeltaUpdate(IpSetDeltaUpdate {
            id: delta.id,
            added_members: delta.added_members,
            removed_members: delta.removed_members,
        }),
        To::IpSetRemove(gone) => Told::IpSetRemove(gone.id),
        To::ActivePolicyUpdate(update) => Told::ActivePolicyUpdate(policy(update)?),
        To::ActivePolicyRemove(gone) => Told::ActivePolicyRemove(known(gone.id, "ActivePolicyRemove")?.into()),
        To::ActiveProfileUpdate(update) => Told::ActiveProfileUpdate(profile(update)?),
        To::ActiveProfileRemove(gone) => Told::ActiveProfileRemove(known(gone.id, "ActiveProfileRemove")?.id),
        To::WorkloadEndpointUpdate(update) => Told::WorkloadEndpointUpdate(WorkloadEndpointUpdate {
            id: known(update.id, "WorkloadEndpointUpdate")?.into(),
            endpoint: update.endpoint.unwrap_or_default().into(),
        }),
        To::WorkloadEndpointRemove(gone) => {
            Told::WorkloadEndpointRemove(known(gone.id, "WorkloadEndpointRemove")?.into())
        }
        To::HostEndpointUpdate(update) => Told::HostEndpointUpdate(HostEndpointUpdate {
            endpoint_id: known(update.id, "HostEndpointUpdate")?.endpoint_id,
            endpoint: update.endpoint.unwrap_or_default().into(),
        }),
        To::HostEndpointRemove(gone) => Told::HostEndpointRemove(known(gone.id, "HostEndpointRemove")?.endpoint_id),
        payload => return Ok(network(payload)),
    };
    Ok(Heard::Told(Box::new(told)))
}

/// Pools, nodes and routes; what is left is not used.
fn network(payload: To) -> Heard {
    use ToDataplane as Told;
    let node = |named: wire::Named| HostMetadataRemove { hostname: named.id };
    let key = |named: wire::Named| WireguardEndpointRemove { hostname: named.id };
    let told = match payload {
        To::IpamPoolUpdate(update) => {
            let pool = update.pool.unwrap_or_default();
            Told::IpamPoolUpdate(IpamPoolUpdate {
                id: update.id,
                cidr: pool.cidr,
                masquerade: pool.masquerade,
            })
        }
        To::IpamPoolRemove(gone) => Told::IpamPoolRemove(gone.id),
        To::HostMetadataUpdate(node) if node.ipv6_addr.is_empty() => Told::HostMetadataUpdate(HostMetadataUpdate {
            hostname: node.hostname,
            ipv4_addr: node.ipv4_addr,
        }),
        To::HostMetadataUpdate(node) | To::HostMetadataV4V6Update(node) => {
            Told::HostMetadataV4V6Update(HostMetadataV4V6Update {
                hostname: node.hostname,
                ipv4_addr: node.ipv4_addr,
                ipv6_addr: node.ipv6_addr,
            })
        }
        To::HostMetadataRemove(gone) | To::HostMetadataV4V6Remove(gone) => Told::HostMetadataV4V6Remove(node(gone)),
        To::HostMetadataV6Update(node) => Told::HostMetadataV6Update(HostMetadataV6Update {
            hostname: node.hostname,
            ipv6_addr: node.ipv6_addr,
        }),
        To::HostMetadataV6Remove(gone) => Told::HostMetadataV6Remove(node(gone)),
        To::RouteUpdate(update) => Told::RouteUpdate(RouteUpdate {
            r#type: route_type(&update),
            dst: update.dst,
            dst_node_name: update.dst_node_name,
        }),
        To::RouteRemove(gone) => Told::RouteRemove(RouteRemove { dst: gone.dst }),
        To::WireguardEndpointUpdate(node) => Told::WireguardEndpointUpdate(WireguardEndpointUpdate {
            hostname: node.hostname,
            public_key: node.public_key,
            interface_ipv4_addr: node.interface_addr,
        }),
        To::WireguardEndpointRemove(gone) => Told::WireguardEndpointRemove(key(gone)),
        To::WireguardEndpointV6Update(node) => Told::WireguardEndpointV6Update(WireguardEndpointV6Update {
            hostname: node.hostname,
            public_key_v6: node.public_key,
            interface_ipv6_addr: node.interface_addr,
        }),
        To::WireguardEndpointV6Remove(gone) => Told::WireguardEndpointV6Remove(key(gone)),
        other => return Heard::Unused(unused(&other)),
    };
    Heard::Told(Box::new(told))
}

/// The names of messages that the plane has no use for; docs/felix.md says why.
fn unused(payload: &To) -> &'static str {
    match payload {
        To::ServiceAccountUpdate(_) => "ServiceAccountUpdate",
        To::ServiceAccountRemove(_) => "ServiceAccountRemove",
        To::NamespaceUpdate(_) => "NamespaceUpdate",
        To::NamespaceRemove(_) => "NamespaceRemove",
        To::VtepUpdate(_) => "VXLANTunnelEndpointUpdate",
        To::VtepRemove(_) => "VXLANTunnelEndpointRemove",
        To::GlobalBgpConfigUpdate(_) => "GlobalBGPConfigUpdate",
        To::Encapsulation(_) => "Encapsulation",
        To::ServiceUpdate(_) => "ServiceUpdate",
        To::ServiceRemove(_) => "ServiceRemove",
        _ => "other",
    }
}

fn known<T>(id: Option<T>, message: &'static str) -> Result<T, MessageError> {
    id.ok_or(MessageError::Nameless(message))
}

fn set(update: wire::IpSetUpdate) -> IpSetUpdate {
    IpSetUpdate {
        id: update.id,
        members: update.members,
        r#type: match update.kind {
            1 => IpSetType::IpAndPort,
            2 => IpSetType::Net,
            // Members of a type that is not known are no addresses, and such a set matches nothing.
            _ => IpSetType::Ip,
        },
    }
}

fn policy(update: wire::ActivePolicyUpdate) -> Result<ActivePolicyUpdate, MessageError> {
    let policy = update.policy.unwrap_or_default();
    Ok(ActivePolicyUpdate {
        id: known(update.id, "ActivePolicyUpdate")?.into(),
        policy: Policy {
            inbound_rules: rules::read(policy.inbound_rules)?,
            outbound_rules: rules::read(policy.outbound_rules)?,
            untracked: policy.untracked,
            pre_dnat: policy.pre_dnat,
            tier: policy.tier,
        },
    })
}

fn profile(update: wire::ActiveProfileUpdate) -> Result<ActiveProfileUpdate, MessageError> {
    let profile = update.profile.unwrap_or_default();
    Ok(ActiveProfileUpdate {
        id: known(update.id, "ActiveProfileUpdate")?.id,
        inbound_rules: rules::read(profile.inbound_rules)?,
        outbound_rules: rules::read(profile.outbound_rules)?,
    })
}

/// What lives behind a route. A prefix of this node may lie in another's block: whose it is says `local_workload`.
fn route_type(update: &wire::RouteUpdate) -> RouteType {
    const OLD: [RouteType; 7] = [
        RouteType::CidrInfo,
        RouteType::RemoteWorkload,
        RouteType::RemoteHost,
        RouteType::LocalWorkload,
        RouteType::LocalHost,
        RouteType::RemoteTunnel,
        RouteType::LocalTunnel,
    ];
    if update.kinds == 0 {
        let old = usize::try_from(update.kind).ok().and_then(|kind| OLD.get(kind));
        return old.copied().unwrap_or_default();
    }
    let is = |bit: i32| update.kinds & bit != 0;
    match () {
        () if is(4) && (update.local_workload || !is(1)) => RouteType::LocalWorkload,
        () if is(1) => RouteType::RemoteWorkload,
        () if is(16) => RouteType::RemoteTunnel,
        () if is(32) => RouteType::LocalTunnel,
        () if is(2) => RouteType::RemoteHost,
        () if is(8) => RouteType::LocalHost,
        () => RouteType::CidrInfo,
    }
}

impl From<wire::PolicyId> for PolicyId {
    fn from(id: wire::PolicyId) -> Self {
        Self {
            name: id.name,
            namespace: id.namespace,
            kind: id.kind,
        }
    }
}

impl From<wire::WorkloadEndpointId> for WorkloadEndpointId {
    fn from(id: wire::WorkloadEndpointId) -> Self {
        Self {
            orchestrator_id: id.orchestrator_id,
            workload_id: id.workload_id,
            endpoint_id: id.endpoint_id,
        }
    }
}

impl From<wire::WorkloadEndpoint> for WorkloadEndpoint {
    fn from(endpoint: wire::WorkloadEndpoint) -> Self {
        Self {
            state: endpoint.state,
            name: endpoint.name,
            mac: endpoint.mac,
            profile_ids: endpoint.profile_ids,
            ipv4_nets: endpoint.ipv4_nets,
            ipv6_nets: endpoint.ipv6_nets,
            tiers: tiers(endpoint.tiers),
            ipv4_nat: endpoint.ipv4_nat.into_iter().map(NatInfo::from).collect(),
            ipv6_nat: endpoint.ipv6_nat.into_iter().map(NatInfo::from).collect(),
            allow_spoofed_source_prefixes: endpoint.allow_spoofed_source_prefixes,
            qos_controls: qos(endpoint.qos_controls, &endpoint.qos_policies),
        }
    }
}

impl From<wire::HostEndpoint> for HostEndpoint {
    fn from(endpoint: wire::HostEndpoint) -> Self {
        Self {
            name: endpoint.name,
            profile_ids: endpoint.profile_ids,
            tiers: tiers(endpoint.tiers),
            untracked_tiers: tiers(endpoint.untracked_tiers),
            pre_dnat_tiers: tiers(endpoint.pre_dnat_tiers),
            forward_tiers: tiers(endpoint.forward_tiers),
            expected_ipv4_addrs: endpoint.expected_ipv4_addrs,
            expected_ipv6_addrs: endpoint.expected_ipv6_addrs,
            dscp: mark(&endpoint.qos_policies),
        }
    }
}

impl From<wire::NatInfo> for NatInfo {
    fn from(nat: wire::NatInfo) -> Self {
        Self {
            ext_ip: nat.ext_ip,
            int_ip: nat.int_ip,
        }
    }
}

/// Limits and the mark of a workload, which come apart.
fn qos(controls: Option<wire::QosControls>, policies: &[wire::QosPolicy]) -> Option<Box<QosControls>> {
    let dscp = mark(policies);
    (controls.is_some() || dscp.is_some()).then(|| {
        let controls = controls.map(QosControls::from).unwrap_or_default();
        Box::new(QosControls { dscp, ..controls })
    })
}

/// The first one is in force; what is no DSCP marks nothing.
fn mark(policies: &[wire::QosPolicy]) -> Option<Dscp> {
    let dscp = u8::try_from(policies.first()?.dscp).ok()?;
    (dscp < 64).then_some(Dscp(dscp))
}

impl From<wire::QosControls> for QosControls {
    fn from(controls: wire::QosControls) -> Self {
        // Nothing, and less, is no limit.
        let limit = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            ingress_bandwidth: limit(controls.ingress_bandwidth),
            egress_bandwidth: limit(controls.egress_bandwidth),
            ingress_burst: limit(controls.ingress_burst),
            egress_burst: limit(controls.egress_burst),
            ingress_peakrate: limit(controls.ingress_peakrate),
            egress_peakrate: limit(controls.egress_peakrate),
            ingress_minburst: limit(controls.ingress_minburst),
            egress_minburst: limit(controls.egress_minburst),
            ingress_packet_rate: limit(controls.ingress_packet_rate),
            egress_packet_rate: limit(controls.egress_packet_rate),
            ingress_packet_burst: limit(controls.ingress_packet_burst),
            egress_packet_burst: limit(controls.egress_packet_burst),
            // The plane counts no connections of endpoints.
            ingress_max_connections: 0,
            egress_max_connections: 0,
            dscp: None,
        }
    }
}

fn tiers(tiers: Vec<wire::TierInfo>) -> Vec<TierInfo> {
    let ids = |ids: Vec<wire::PolicyId>| ids.into_iter().map(PolicyId::from).collect();
    let tier = |tier: wire::TierInfo| TierInfo {
        name: tier.name,
        ingress_policies: ids(tier.ingress_policies),
        egress_policies: ids(tier.egress_policies),
        default_action: tier.default_action,
    };
    tiers.into_iter().map(tier).collect()
}
