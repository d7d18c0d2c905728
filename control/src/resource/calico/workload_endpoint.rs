//! `kind: WorkloadEndpoint`: a pod, container or virtual machine behind a port.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::{self, Protocol};
use super::host_endpoint::{check_port, check_profiles};
use crate::resource::{Body, Claim, Invalid, MacAddress, Metadata, QosControls};

/// The body of a WorkloadEndpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// What the endpoint is.
    pub spec: Box<WorkloadEndpointSpec>,
}

/// What a WorkloadEndpoint is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadEndpointSpec {
    /// Who made the workload. Default `k8s`, so that the policies of Kubernetes are for it.
    pub orchestrator: String,
    /// The workload's name, for orchestrators without pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The node it is on. Its policy is in force there alone, where nodes have names (`--node-name`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The container it is of. Accepted as Calico has it; means nothing here.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Which of the workload's interfaces. Default `eth0`.
    pub endpoint: String,
    /// The service account it runs as.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Its addresses.
    #[serde(deserialize_with = "fields::addresses")]
    pub ip_networks: Vec<IpAddr>,
    /// Its addresses outside, one for one.
    #[serde(rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// Accepted as Calico has it; means nothing here.
    #[serde(rename = "ipv4Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv4_gateway: String,
    /// Accepted as Calico has it; means nothing here.
    #[serde(rename = "ipv6Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv6_gateway: String,
    /// The profiles that decide where no policy does, in order: `kns.NAMESPACE` and `ksa.NAMESPACE.ACCOUNT` for pods.
    /// Labels of the namespace and the account are seen only through them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// A Port's name or device.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// Its Ethernet address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Ports that rules can name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadEndpointPort>,
    /// Prefixes it may send from, beside its addresses.
    #[serde(deserialize_with = "fields::nets", skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<IpNet>,
    /// How much may go to it, and come from it. Default: not limited.
    #[serde(rename = "qosControls", skip_serializing_if = "Option::is_none")]
    pub qos_controls: Option<QosControls>,
}

/// An address outside that stands for one inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpNat {
    /// Inside.
    #[serde(rename = "internalIP", deserialize_with = "crate::resource::fields::address")]
    pub internal_ip: IpAddr,
    /// Outside.
    #[serde(rename = "externalIP", deserialize_with = "crate::resource::fields::address")]
    pub external_ip: IpAddr,
}

impl IpNat {
    fn check(&self, field: &str) -> Result<(), Invalid> {
        let Self {
            internal_ip,
            external_ip,
        } = self;
        let refuse = |reason| Err(Invalid::at(format!("{field}.externalIP"), reason));
        if internal_ip.is_ipv4() != external_ip.is_ipv4() {
            return refuse(format!("{external_ip} is not of the family of {internal_ip}"));
        }
        if external_ip.is_multicast() || external_ip.is_unspecified() || external_ip.is_loopback() {
            return refuse(format!("{external_ip} is nobody's; expected a unicast address"));
        }
        Ok(())
    }
}

/// What is claimed by who has an address outside.
pub fn outside(address: IpAddr) -> String {
    format!("address {address} outside")
}

/// A port of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpointPort {
    /// What rules call it, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of which protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    #[serde(deserialize_with = "crate::resource::fields::within::<_, 1, 65535>")]
    pub port: u16,
    /// The port of the node that leads here; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The address of the node where it does. Default, and what an unspecified one means: every one of its family.
    #[serde(
        default,
        rename = "hostIP",
        deserialize_with = "host_ip",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_ip: Option<IpAddr>,
}

/// Kubernetes writes an empty one where there is none.
fn host_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = (!text.is_empty()).then(|| text.parse());
    address.transpose().map_err(|_| {
        let text = text.escape_debug();
        serde::de::Error::custom(format!(
            "`{text}` is no address; expected one of the node's, such as 192.0.2.1"
        ))
    })
}

impl Default for WorkloadEndpointSpec {
    fn default() -> Self {
        Self {
            orchestrator: "k8s".to_owned(),
            workload: String::new(),
            node: String::new(),
            container_id: String::new(),
            pod: String::new(),
            endpoint: "eth0".to_owned(),
            service_account_name: String::new(),
            ip_networks: vec![],
            ip_nats: vec![],
            ipv4_gateway: String::new(),
            ipv6_gateway: String::new(),
            profiles: vec![],
            interface_name: String::new(),
            mac: None,
            ports: vec![],
            allow_spoofed_source_prefixes: vec![],
            qos_controls: None,
        }
    }
}

impl WorkloadEndpoint {
    /// The workload as messages have it: `namespace/pod`.
    pub fn workload_id(&self, metadata: &Metadata) -> String {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let mut names = [&self.spec.pod, &self.spec.workload, &metadata.name].into_iter();
        let name = names.find(|name| !name.is_empty()).unwrap_or(&metadata.name);
        format!("{namespace}/{name}")
    }
}

impl Body for WorkloadEndpoint {
    const API_VERSION: &'static str = super::API_VERSION;
    const KIND: &'static str = "WorkloadEndpoint";
    const PLURAL: &'static str = "workloadendpoints";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"];

    fn row(&self) -> Vec<String> {
        let spec = &self.spec;
        let workload = if spec.pod.is_empty() { &spec.workload } else { &spec.pod };
        let networks: Vec<_> = spec.ip_networks.iter().map(IpAddr::to_string).collect();
        vec![
            workload.clone(),
            spec.node.clone(),
            networks.join(", "),
            spec.interface_name.clone(),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        let WorkloadEndpointSpec {
            node, interface_name, ..
        } = &*self.spec;
        let interface = (!interface_name.is_empty()).then(|| Claim {
            what: format!("the workload's end of interface {interface_name} on node `{node}`"),
            field: "spec.interfaceName".to_owned(),
        });
        let nats = self.spec.ip_nats.iter().enumerate().map(|(at, nat)| Claim {
            what: outside(nat.external_ip),
            field: format!("spec.ipNATs[{at}].externalIP"),
        });
        interface
            .into_iter()
            .chain(nats)
            .chain(self.host_port_claims())
            .collect()
    }

    /// What messages know it by.
    fn claims_by_name(&self, metadata: &Metadata) -> Vec<Claim> {
        let WorkloadEndpointSpec {
            orchestrator, endpoint, ..
        } = &*self.spec;
        let workload = self.workload_id(metadata);
        vec![Claim {
            what: format!("{orchestrator} endpoint {endpoint} of {workload}"),
            field: "spec.endpoint".to_owned(),
        }]
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        for (field, name) in [("orchestrator", &spec.orchestrator), ("endpoint", &spec.endpoint)] {
            if name.is_empty() {
                let reason = "is empty; leave it out for the default";
                return Err(Invalid::at(format!("spec.{field}"), reason));
            }
        }
        for (at, nat) in spec.ip_nats.iter().enumerate() {
            nat.check(&format!("spec.ipNATs[{at}]"))?;
            if spec.ip_nats[..at]
                .iter()
                .any(|other| other.external_ip == nat.external_ip)
            {
                let reason = format!("{} is given twice; one address inside can have it", nat.external_ip);
                return Err(Invalid::at(format!("spec.ipNATs[{at}].externalIP"), reason));
            }
            if !spec.ip_networks.contains(&nat.internal_ip) {
                let reason = format!("{} is no address of the endpoint's ipNetworks", nat.internal_ip);
                return Err(Invalid::at(format!("spec.ipNATs[{at}].internalIP"), reason));
            }
        }
        if let Some(qos) = &spec.qos_controls {
            qos.check("spec.qosControls")?;
        }
        self.check_host_ports()?;
        check_profiles(&spec.profiles)?;
        for (at, port) in spec.ports.iter().enumerate().filter(|(_, port)| !port.name.is_empty()) {
            check_port(&port.name, port.protocol, &format!("spec.ports[{at}]"))?;
        }
        Ok(())
    }

    fn check_name(name: &str) -> Result<(), String> {
        fields::check_subdomain(name)
    }
}
