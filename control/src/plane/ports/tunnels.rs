//! The ports of tunnels that have a resource of their own.

use super::{Backing, Port, Ports};
use crate::resource::{Driver, PortSpec, ProxyArp, Punt, Rpf, WireguardInterfaceSpec};

impl Ports {
    /// Makes the port of a tunnel, or changes it.
    pub fn set_tunnel(&mut self, name: &str, tunnel: &WireguardInterfaceSpec) {
        let spec = PortSpec {
            device: name.to_owned(),
            driver: Driver::Wireguard,
            mode: None,
            zero_copy: None,
            queues: 0,
            mtu: tunnel.mtu,
            vrf: tunnel.vrf.clone(),
            addresses: tunnel.addresses.clone(),
            punt: Punt::None,
            vlan: None,
            rpf: Rpf::Off,
            proxy_arp: ProxyArp::Nobody,
            netns: None,
            host_addresses: vec![],
            local: None,
            remote: None,
            transport_vrf: None,
            vni: None,
            udp_port: None,
            mac: None,
            qos: None,
        };
        let id = self.id(name).unwrap_or_else(|| self.free_id());
        self.insert(Port {
            id,
            name: name.to_owned(),
            spec,
            aliases: vec![],
            mac: [0; 6],
            backing: Some(Backing::Tunnel),
            mode: String::new(),
            running: true,
            why: None,
            crossing: Default::default(),
            counters: vec![],
            closed: 0,
        });
    }

    /// Gives up the port of a tunnel.
    pub fn remove_tunnel(&mut self, name: &str) {
        self.remove(name);
    }
}
