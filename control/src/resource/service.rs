//! `kind: Service` of Kubernetes: names for a set of backends (Kubernetes API reference, core v1 ServiceSpec).

mod check;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Body, Claim, Invalid, Metadata, check_label};

/// How long it does where nothing is said: three hours.
const AFFINITY_USUAL_S: u32 = 10_800;

/// The annotation of a Service whose backends on other nodes answer clients directly, and its value: packets go to them as
/// they came, by the tunnels that lead there.
const DIRECT: (&str, &str) = ("margay/direct-server-return", "tunnel");

/// Whether a Service is to have its backends on other nodes answer clients directly.
pub fn is_direct(metadata: &Metadata) -> bool {
    metadata.annotations.contains_key(DIRECT.0)
}

/// The body of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What the service is.
    pub spec: ServiceSpec,
    /// What load balancers have given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ServiceStatus>,
}

/// What a Service is. What means nothing to a data plane is kept for who asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Who can reach it. Default `ClusterIP`.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Its ports; none for `ExternalName`.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// Its first address in the cluster, or `None` for a service that has none. The API server gives one.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<ClusterIp>,
    /// All of them, at most one a family.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<ClusterIp>,
    /// Addresses that somebody routes to this node.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<IpAddr>,
    /// Whose connections by a load balancer's address are taken. Default everybody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// Whether a client stays with its backend. Default `None`.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// For how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Whether clients outside the cluster may be led to other nodes. Default `Cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Whether clients inside may. Default `Cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficPolicy>,
    /// The name that `ExternalName` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    // What follows is for controllers, the API server and DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selector: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allocate_load_balancer_node_ports: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check_node_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_families: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_family_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load_balancer_class: Option<String>,
    #[serde(default, rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    load_balancer_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publish_not_ready_addresses: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic_distribution: Option<String>,
}

/// Who can reach a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Who is in the cluster.
    #[default]
    ClusterIP,
    /// By a port of every node, too.
    NodePort,
    /// By a load balancer's address, too.
    LoadBalancer,
    /// It is a name, for DNS.
    ExternalName,
}

impl ServiceType {
    /// The name as written in a document.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

/// An address, or the word that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClusterIp {
    /// The service has backends, which DNS tells, and no address.
    Headless,
    /// The address is still to be given.
    Unassigned,
    /// The address.
    Address(IpAddr),
}

impl TryFrom<String> for ClusterIp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "None" => Ok(Self::Headless),
            "" => Ok(Self::Unassigned),
            text => text.parse().map(Self::Address).map_err(|_| {
                format!(
                    "`{}` is no address; expected one, such as 10.96.0.10, or `None`",
                    text.escape_debug()
                )
            }),
        }
    }
}

impl From<ClusterIp> for String {
    fn from(ip: ClusterIp) -> Self {
        match ip {
            ClusterIp::Headless => "None".to_owned(),
            ClusterIp::Unassigned => String::new(),
            ClusterIp::Address(address) => address.to_string(),
        }
    }
}

/// Whether a client stays with its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAffinity {
    /// Each connection is chosen for alone.
    #[default]
    None,
    /// All of one address go to one backend.
    ClientIP,
}

/// How long a client stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionAffinityConfig {
    /// By its address.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIpConfig>,
}

/// How long a client stays that is known by its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIpConfig {
    /// Seconds after its last new connection, 1 to 86,400. Default 10,800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// Where clients may be led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// To every backend.
    Cluster,
    /// To those on the node that they have come to.
    Local,
}

/// A protocol of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    TCP,
    /// RFC 768.
    UDP,
    /// RFC 9260.
    SCTP,
}

impl Protocol {
    /// Its IP protocol number.
    pub fn number(self) -> u8 {
        use fastpath::wire::protocol;
        match self {
            Self::TCP => protocol::TCP,
            Self::UDP => protocol::UDP,
            Self::SCTP => protocol::SCTP,
        }
    }

    /// The one of an IP protocol number.
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::TCP, Self::UDP, Self::SCTP]
            .into_iter()
            .find(|one| one.number() == number)
    }

    /// The name as written in a document.
    pub fn name(self) -> &'static str {
        match self {
            Self::TCP => "TCP",
            Self::UDP => "UDP",
            Self::SCTP => "SCTP",
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// What slices call it. Needed where there are several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Default TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Where clients connect to, 1 to 65,535.
    pub port: u16,
    /// Where backends listen, by number or by name. Slices say the number; without one it is that of `port`.
    #[serde(default, deserialize_with = "target_port", skip_serializing_if = "Option::is_none")]
    pub target_port: Option<Value>,
    /// The port of every node that leads here, 1 to 65,535; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub node_port: u16,
    /// What is spoken there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// What load balancers have given a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceStatus {
    /// The addresses of load balancers.
    #[serde(default)]
    pub load_balancer: LoadBalancerStatus,
    /// What controllers say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Value>,
}

/// The addresses of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerStatus {
    /// One each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// The address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerIngress {
    /// The address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Whether packets to the address come here as they are (`VIP`, the default), or by a proxy of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<IpMode>,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What became of each port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Value>,
}

/// What becomes of packets to a load balancer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpMode {
    /// They come to nodes as they are.
    #[serde(rename = "VIP")]
    Vip,
    /// The load balancer makes connections of its own.
    Proxy,
}

impl Service {
    /// Its addresses in the cluster.
    pub fn cluster_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let first = self.spec.cluster_ip.iter().filter(|_| self.spec.cluster_ips.is_empty());
        first.chain(&self.spec.cluster_ips).filter_map(|ip| match ip {
            ClusterIp::Address(address) => Some(*address),
            ClusterIp::Headless | ClusterIp::Unassigned => None,
        })
    }

    /// Addresses of load balancers that lead here.
    pub fn load_balancer_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let ingress = self.status.iter().flat_map(|status| &status.load_balancer.ingress);
        let ours = ingress.filter(|ingress| ingress.ip_mode != Some(IpMode::Proxy));
        let kind = self.spec.kind;
        ours.filter_map(move |ingress| ingress.ip.filter(|_| kind == ServiceType::LoadBalancer))
    }

    /// Whether it leads anywhere: names and services without addresses do not.
    pub fn is_balanced(&self) -> bool {
        self.spec.kind != ServiceType::ExternalName && self.spec.cluster_ip != Some(ClusterIp::Headless)
    }

    /// Seconds that a client stays with its backend; 0 if it does not.
    pub fn affinity_s(&self) -> u32 {
        let config = self.spec.session_affinity_config.as_ref();
        let said = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        match self.spec.session_affinity {
            SessionAffinity::None => 0,
            SessionAffinity::ClientIP => said.unwrap_or(AFFINITY_USUAL_S),
        }
    }

    /// Whether its ports are open on nodes.
    pub fn has_node_ports(&self) -> bool {
        matches!(self.spec.kind, ServiceType::NodePort | ServiceType::LoadBalancer)
    }
}

impl Body for Service {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "Service";
    const PLURAL: &'static str = "services";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORTS"];

    fn row(&self) -> Vec<String> {
        let list = |addresses: Vec<IpAddr>| {
            let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            if texts.is_empty() {
                "<none>".to_owned()
            } else {
                texts.join(",")
            }
        };
        let cluster = match self.spec.cluster_ip {
            Some(ClusterIp::Headless) => "None".to_owned(),
            _ => list(self.cluster_addresses().collect()),
        };
        let external = self.spec.external_ips.iter().copied();
        let ports = self.spec.ports.iter().map(|port| match port.node_port {
            0 => format!("{}/{}", port.port, port.protocol.name()),
            node_port => format!("{}:{node_port}/{}", port.port, port.protocol.name()),
        });
        vec![
            self.spec.kind.name().to_owned(),
            cluster,
            list(external.chain(self.load_balancer_addresses()).collect()),
            ports.collect::<Vec<_>>().join(","),
        ]
    }

    fn check(&self) -> Result<(), Invalid> {
        check::check(self)
    }

    fn check_named(&self, metadata: &Metadata) -> Result<(), Invalid> {
        let (annotation, expected) = DIRECT;
        match metadata.annotations.get(annotation) {
            Some(value) if value != expected => {
                let reason = format!("`{}` is no way there; expected `{expected}`", value.escape_debug());
                Err(Invalid::at(format!("metadata.annotations.{annotation}"), reason))
            }
            _ => Ok(()),
        }
    }

    fn claims(&self) -> Vec<Claim> {
        if !self.is_balanced() {
            return vec![];
        }
        let addresses = self.cluster_addresses().map(|address| (address, "spec.clusterIP"));
        let external = self
            .spec
            .external_ips
            .iter()
            .map(|address| (*address, "spec.externalIPs"));
        let balancers = self.load_balancer_addresses();
        let balancers = balancers.map(|address| (address, "status.loadBalancer.ingress"));
        let addresses: Vec<_> = addresses.chain(external).chain(balancers).collect();
        let mut claims: Vec<Claim> = vec![];
        for (at, port) in self.spec.ports.iter().enumerate() {
            let protocol = port.protocol.name();
            for (address, field) in &addresses {
                let what = format!("address {address} port {}/{protocol}", port.port);
                let field = (*field).to_owned();
                claims.push(Claim { what, field });
            }
            if port.node_port != 0 {
                let what = format!("node port {}/{protocol}", port.node_port);
                let field = format!("spec.ports[{at}].nodePort");
                claims.push(Claim { what, field });
            }
        }
        let mut seen = HashSet::new();
        claims.retain(|claim| seen.insert(claim.what.clone()));
        claims
    }

    fn load(&mut self) -> Result<Vec<String>, Invalid> {
        let spec = &self.spec;
        let has_address = self.cluster_addresses().next().is_some();
        if !self.is_balanced() || has_address {
            return Ok(vec![]);
        }
        let reachable = self.has_node_ports() || !spec.external_ips.is_empty();
        let but = if reachable {
            "it is reached by its other addresses only"
        } else {
            "nobody can reach it"
        };
        Ok(vec![format!(
            "has no clusterIP, which a Kubernetes API server would give it; {but}"
        )])
    }
}

/// A number, or the name of a port.
fn target_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let is_good = value.as_ref().is_none_or(|value| match value {
        Value::Number(number) => number.as_u64().is_some_and(|number| (1..=65_535).contains(&number)),
        Value::String(name) => check_label(name).is_ok() && name.bytes().any(|byte| byte.is_ascii_alphabetic()),
        _ => false,
    });
    match (is_good, value) {
        (true, value) => Ok(value),
        (false, value) => {
            let value = value.unwrap_or_default();
            let expected = "expected a port from 1 to 65535, or the name of one";
            Err(serde::de::Error::custom(format_args!(
                "{value} is no target port; {expected}"
            )))
        }
    }
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}
