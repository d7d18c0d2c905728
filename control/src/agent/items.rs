//! What selectors select: endpoints of workloads and of hosts, and sets of networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::{ACCOUNT, OF_ACCOUNT, OF_NAMESPACE};
use super::selector::{Labels, NAMESPACE};
use super::sets::{Definition, Member};
use crate::program::felix::{self, NatInfo, WorkloadEndpointId};
use crate::resource::calico::{HostEndpointSpec, NetworkSetSpec, host_mark};
use crate::resource::{Metadata, Resource, WorkloadEndpoint};

/// Something with labels and addresses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Its own; its profiles add theirs.
    pub(super) labels: Labels,
    /// In order.
    pub(super) profiles: Vec<String>,
    nets: Vec<IpNet>,
    ports: Vec<Port>,
    /// What has policy of its own.
    pub(super) endpoint: Option<Endpoint>,
}

/// An endpoint, but for its tiers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Endpoint {
    Workload(WorkloadEndpointId, felix::WorkloadEndpoint),
    Host(String, felix::HostEndpoint),
}

#[derive(Clone, Debug, PartialEq)]
struct Port {
    name: String,
    protocol: u8,
    number: u16,
}

/// The node that an endpoint is on, where its resource says so.
pub(super) fn node_of(resource: &Resource) -> Option<&str> {
    let node = match resource {
        Resource::WorkloadEndpoint(object) => Some(object.body.spec.node.as_str()),
        Resource::HostEndpoint(object) => object.body.spec.node.as_deref(),
        _ => None,
    };
    node.filter(|node| !node.is_empty())
}

impl Item {
    /// What a resource is to selectors, if anything.
    pub(super) fn of(resource: &Resource) -> Option<Self> {
        match resource {
            Resource::WorkloadEndpoint(object) => Some(workload(&object.metadata, &object.body)),
            Resource::HostEndpoint(object) => Some(host(&object.metadata, &object.body.spec)),
            Resource::NetworkSet(object) => Some(network_set(&object.metadata, &object.body.spec)),
            Resource::GlobalNetworkSet(object) => Some(network_set(&object.metadata, &object.body.spec)),
            _ => None,
        }
    }

    /// What it brings to a set that selects it.
    pub(super) fn members(&self, definition: &Definition) -> Vec<Member> {
        match definition {
            Definition::Selector(_) => self.nets.iter().copied().map(Member::Net).collect(),
            Definition::NamedPort(_, protocol, name) => {
                let ports = self.ports.iter();
                let ports = ports.filter(|port| port.protocol == *protocol && port.name == *name);
                ports
                    .flat_map(|port| {
                        self.addresses()
                            .map(|address| Member::Port(address, port.protocol, port.number))
                    })
                    .collect()
            }
            Definition::Service(..) => vec![],
        }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.nets.iter().map(IpNet::addr)
    }
}

/// Labels of a namespace, as what is in it sees them.
pub(super) fn namespace_labels(metadata: &Metadata) -> Labels {
    let Metadata { name, labels, .. } = metadata;
    let mut seen = under(OF_NAMESPACE, labels);
    seen.insert(format!("{OF_NAMESPACE}projectcalico.org/name"), name.clone());
    // A cluster adds it to every namespace; files rarely have it.
    let metadata_name = format!("{OF_NAMESPACE}kubernetes.io/metadata.name");
    seen.entry(metadata_name).or_insert_with(|| name.clone());
    seen
}

/// Labels of a service account, as what runs as it sees them.
pub(super) fn account_labels(metadata: &Metadata) -> Labels {
    let Metadata { name, labels, .. } = metadata;
    let mut seen = under(OF_ACCOUNT, labels);
    seen.insert(format!("{OF_ACCOUNT}projectcalico.org/name"), name.clone());
    seen
}

fn under(prefix: &str, labels: &Labels) -> Labels {
    labels
        .iter()
        .map(|(key, value)| (format!("{prefix}{key}"), value.clone()))
        .collect()
}

fn workload(metadata: &Metadata, body: &WorkloadEndpoint) -> Item {
    let spec = &*body.spec;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    // Nobody gets into another namespace by a label of his own.
    let foreign = |key: &String| key.starts_with(OF_NAMESPACE) || key.starts_with(OF_ACCOUNT);
    let mut labels = metadata.labels.clone();
    labels.retain(|key, _| !foreign(key));
    labels.insert(NAMESPACE.to_owned(), namespace);
    labels.insert("projectcalico.org/orchestrator".to_owned(), spec.orchestrator.clone());
    if !spec.service_account_name.is_empty() {
        labels.insert(ACCOUNT.to_owned(), spec.service_account_name.clone());
    }
    let ports = spec.ports.iter().filter(|port| !port.name.is_empty());
    let ports = ports.map(|port| Port {
        name: port.name.clone(),
        protocol: port.protocol.number(),
        number: port.port,
    });
    Item {
        labels,
        profiles: spec.profiles.clone(),
        nets: spec.ip_networks.iter().copied().map(IpNet::from).collect(),
        ports: ports.collect(),
        endpoint: (!spec.interface_name.is_empty()).then(|| workload_endpoint(metadata, body)),
    }
}

fn workload_endpoint(metadata: &Metadata, body: &WorkloadEndpoint) -> Endpoint {
    let spec = &*body.spec;
    let id = WorkloadEndpointId {
        orchestrator_id: spec.orchestrator.clone(),
        workload_id: body.workload_id(metadata),
        endpoint_id: spec.endpoint.clone(),
    };
    let nets = |is_v4: bool| {
        let nets = spec
            .ip_networks
            .iter()
            .filter(move |address| address.is_ipv4() == is_v4);
        nets.map(|address| IpNet::from(*address).to_string()).collect()
    };
    let nats = |is_v4: bool| {
        let nats = spec
            .ip_nats
            .iter()
            .filter(move |nat| nat.internal_ip.is_ipv4() == is_v4);
        nats.map(|nat| NatInfo {
            ext_ip: nat.external_ip.to_string(),
            int_ip: nat.internal_ip.to_string(),
        })
        .collect()
    };
    let endpoint = felix::WorkloadEndpoint {
        state: "active".to_owned(),
        name: spec.interface_name.clone(),
        mac: spec.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        profile_ids: spec.profiles.clone(),
        ipv4_nets: nets(true),
        ipv6_nets: nets(false),
        tiers: vec![],
        ipv4_nat: nats(true),
        ipv6_nat: nats(false),
        allow_spoofed_source_prefixes: spec
            .allow_spoofed_source_prefixes
            .iter()
            .map(IpNet::to_string)
            .collect(),
        qos_controls: spec.qos_controls.clone().map(Box::new),
    };
    Endpoint::Workload(id, endpoint)
}

fn host(metadata: &Metadata, spec: &HostEndpointSpec) -> Item {
    let addresses = |is_v4: bool| {
        let addresses = spec
            .expected_ips
            .iter()
            .filter(move |address| address.is_ipv4() == is_v4);
        addresses.map(IpAddr::to_string).collect()
    };
    let ports = spec.ports.iter().map(|port| Port {
        name: port.name.clone(),
        protocol: port.protocol.number(),
        number: port.port,
    });
    let endpoint = felix::HostEndpoint {
        name: spec.interface_name.clone().unwrap_or_default(),
        profile_ids: spec.profiles.clone(),
        expected_ipv4_addrs: addresses(true),
        expected_ipv6_addrs: addresses(false),
        // What cannot be read was refused.
        dscp: host_mark(metadata).unwrap_or_default(),
        ..felix::HostEndpoint::default()
    };
    Item {
        labels: metadata.labels.clone(),
        profiles: spec.profiles.clone(),
        nets: spec.expected_ips.iter().copied().map(IpNet::from).collect(),
        ports: ports.collect(),
        endpoint: Some(Endpoint::Host(metadata.name.clone(), endpoint)),
    }
}

fn network_set(metadata: &Metadata, spec: &NetworkSetSpec) -> Item {
    let mut labels = metadata.labels.clone();
    let mut profiles = vec![];
    if let Some(namespace) = &metadata.namespace {
        labels.insert(NAMESPACE.to_owned(), namespace.clone());
        // It sees the labels of its namespace as a workload does.
        profiles.push(format!("kns.{namespace}"));
    }
    Item {
        labels,
        profiles,
        nets: spec.nets.clone(),
        ports: vec![],
        endpoint: None,
    }
}
