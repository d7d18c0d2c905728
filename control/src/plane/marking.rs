//! Marks on what leaves the cluster (DSCP): whose packets get which, and what the cluster is.
//!
//! As in Calico, what goes to pods and nodes keeps its mark. A packet is marked before a service's address is translated,
//! so the addresses of services count as the cluster's, too: what goes there ends at a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fastpath::dscp::{self, AddressRanges};
use fastpath::interfaces::Interface;
use fastpath::meta::PortId;
use ipnet::IpNet;

use super::State;
use super::ports::Port;
use crate::program::felix::ToDataplane;

/// The marks in force.
#[derive(Default)]
pub(super) struct Marking {
    /// The addresses of nodes, by name: of IPv4 and of IPv6.
    nodes: BTreeMap<String, [Option<IpAddr>; 2]>,
    nodes_changed: bool,
    pools: Vec<IpNet>,
    cluster: Arc<AddressRanges>,
    /// By ports that packets come in by.
    marks: BTreeMap<PortId, u8>,
}

impl Marking {
    /// Takes a message: those that tell of nodes mean something here.
    pub fn receive(&mut self, message: &ToDataplane) {
        use ToDataplane as To;
        match message {
            To::HostMetadataUpdate(node) => self.set_node(&node.hostname, [Some(&node.ipv4_addr), None]),
            To::HostMetadataRemove(node) => self.set_node(&node.hostname, [Some(""), None]),
            To::HostMetadataV6Update(node) => self.set_node(&node.hostname, [None, Some(&node.ipv6_addr)]),
            To::HostMetadataV6Remove(node) => self.set_node(&node.hostname, [None, Some("")]),
            To::HostMetadataV4V6Update(node) => {
                self.set_node(&node.hostname, [Some(&node.ipv4_addr), Some(&node.ipv6_addr)]);
            }
            To::HostMetadataV4V6Remove(node) => self.set_node(&node.hostname, [Some(""); 2]),
            _ => {}
        }
    }

    /// Of each family an address, none where it is empty, or nothing that is said.
    fn set_node(&mut self, name: &str, said: [Option<&str>; 2]) {
        let known = self.nodes.entry(name.to_owned()).or_default();
        for (address, said) in known.iter_mut().zip(said) {
            let Some(said) = said else { continue };
            let said = said.parse().ok();
            self.nodes_changed |= *address != said;
            *address = said;
        }
        if *known == [None; 2] {
            self.nodes.remove(name);
        }
    }

    /// The port as workers see it, with the mark of what comes in by it.
    pub fn over(&self, port: &Port, interface: Interface) -> Interface {
        let marking = self.of(port.id).map(|dscp| dscp::Marking {
            dscp,
            cluster: self.cluster.clone(),
        });
        Interface { marking, ..interface }
    }

    /// What is marked that comes in by a port.
    pub fn of(&self, port: PortId) -> Option<u8> {
        self.marks.get(&port).copied()
    }
}

impl State {
    /// Puts into force what ports and the endpoints behind them say now, and what the cluster is now. While nothing is
    /// marked nobody has to know the latter.
    pub(super) fn enforce_marks(&mut self) {
        let marks = self.marks();
        let pools: Vec<_> = self.pools().map(|(net, _)| net).collect();
        let is_moved =
            self.marking.nodes_changed || pools != self.marking.pools || !self.balancing.changed().is_empty();
        let begins = self.marking.marks.is_empty();
        let is_same = marks == self.marking.marks && (marks.is_empty() || !is_moved);
        if is_same {
            return;
        }
        if marks.is_empty() {
            self.marking.cluster = Arc::default();
        } else if is_moved || begins {
            let fronts = self.balancing.fronts().map(|front| front.address);
            let nodes = self.marking.nodes.values().flatten().flatten().copied();
            let whole = |address: IpAddr| (address, if address.is_ipv4() { 32 } else { 128 });
            let pools_here = pools.iter().map(|net| (net.addr(), net.prefix_len()));
            // The front of a node port is at no address.
            let addresses = fronts.chain(nodes).filter(|address| !address.is_unspecified());
            let cluster = AddressRanges::new(pools_here.chain(addresses.map(whole)));
            self.marking.cluster = Arc::new(cluster);
            (self.marking.pools, self.marking.nodes_changed) = (pools, false);
        }
        self.marking.marks = marks;
        self.publish_interfaces();
    }

    /// Who is behind a port goes before the port. What a host itself sends comes in by its TAP.
    fn marks(&self) -> BTreeMap<PortId, u8> {
        let of_port = self.ports.iter().filter_map(|port| {
            let behind = self.policy.workload_mark(port.id);
            let own = || port.spec.qos.as_ref().and_then(|qos| qos.dscp);
            Some((port.id, behind.or_else(own)?.0))
        });
        let of_hosts = self.hosts.taps();
        let of_hosts = of_hosts.filter_map(|(owner, tap)| Some((tap, self.policy.host_mark(owner)?.0)));
        of_port.chain(of_hosts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::felix::{HostMetadataRemove, HostMetadataUpdate, HostMetadataV6Update};

    #[test]
    fn nodes_are_kept_by_family() {
        let mut marking = Marking::default();
        let hostname = || "one".to_owned();
        marking.receive(&ToDataplane::HostMetadataUpdate(HostMetadataUpdate {
            hostname: hostname(),
            ipv4_addr: "192.0.2.1".into(),
        }));
        assert!(std::mem::take(&mut marking.nodes_changed));
        marking.receive(&ToDataplane::HostMetadataV6Update(HostMetadataV6Update {
            hostname: hostname(),
            ipv6_addr: "2001:db8::1".into(),
        }));
        assert!(std::mem::take(&mut marking.nodes_changed));
        let both = [Some("192.0.2.1".parse().unwrap()), Some("2001:db8::1".parse().unwrap())];
        assert_eq!(marking.nodes["one"], both);
        marking.receive(&ToDataplane::HostMetadataRemove(HostMetadataRemove {
            hostname: hostname(),
        }));
        assert_eq!(marking.nodes["one"], [None, both[1]]);
        assert!(std::mem::take(&mut marking.nodes_changed));
        let nonsense = HostMetadataV6Update {
            hostname: hostname(),
            ipv6_addr: "none".into(),
        };
        marking.receive(&ToDataplane::HostMetadataV6Update(nonsense));
        assert!(marking.nodes.is_empty() && marking.nodes_changed);
    }
}
