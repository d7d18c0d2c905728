//! Ports: devices opened and closed, queues handed to workers, states followed.

mod hosts;
mod tunnels;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fastpath::interfaces::{Interface, Interfaces, Proxy, ReversePath};
use fastpath::meta::{PortId, VrfId};
use fastpath::port::memory::{MemoryEnd, memory};
use fastpath::port::pcap::PcapQueue;
use fastpath::port::socket::SocketQueue;
use fastpath::port::{Queue, QueueCounters, tap, xdp};
use fastpath::punt::Crossing;

use super::State;
use super::announce::Announced;
use super::devices::too_small;
use super::routes::host;
use super::taps;
use crate::refusal::Refusal;
use crate::resource::{Driver, Kind, Mode, PortSpec, ProxyArp, Punt, Resource, Rpf, ZeroCopy};
use crate::store::{Plan, Planned};
pub(super) use hosts::Hosts;

/// Entries of each of a socket's rings: what one TCP connection with Linux's largest receive buffer has on its way fits,
/// should the worker lose its core for a moment.
const RING: u32 = 4096;

/// What is behind a port.
pub(super) enum Backing {
    Device(xdp::Device),
    Tap(tap::Device),
    Memory(MemoryEnd),
    Capture,
    /// No device: packets come and go by other ports, wrapped.
    Tunnel,
    /// No device of its own: packets come and go by this port, with a tag.
    Vlan(PortId),
}

/// What is behind a port, its queues, and how its driver runs.
pub(super) type Behind = (Backing, Vec<Box<dyn Queue>>, String);

/// One port.
pub(super) struct Port {
    pub id: PortId,
    pub name: String,
    pub spec: PortSpec,
    /// Addresses of others' that it answers for: those of pools of source NAT.
    pub aliases: Vec<IpAddr>,
    pub mac: [u8; 6],
    pub backing: Option<Backing>,
    /// How the driver runs, in words.
    pub mode: String,
    /// The device can pass packets.
    pub running: bool,
    /// Why it is down.
    pub why: Option<String>,
    /// With whom it shares its link.
    pub crossing: Crossing,
    /// Each queue's worker and counters, those of closed queues included.
    pub counters: Vec<(usize, Arc<QueueCounters>)>,
    /// How many of them are of queues now closed.
    pub closed: usize,
}

impl Port {
    pub fn is_tunnel(&self) -> bool {
        self.spec.driver == Driver::Wireguard
    }

    /// A tunnel with neighbours.
    pub fn is_overlay(&self) -> bool {
        self.spec.driver.is_overlay()
    }

    pub fn is_up(&self) -> bool {
        self.backing.is_some() && self.running
    }

    pub fn interface(&self, vrf: VrfId, tracked: bool) -> Interface {
        let addresses = self.spec.addresses.iter().map(|net| (net.addr(), net.prefix_len()));
        let aliases = self
            .aliases
            .iter()
            .map(|address| (*address, host(*address).prefix_len()));
        let interface = Interface {
            name: self.name.clone(),
            mac: self.mac,
            mtu: self.spec.mtu,
            vrf,
            tracked,
            addresses: addresses.chain(aliases).collect(),
            is_vlan: self.spec.vlan.is_some(),
            reverse_path: match self.spec.rpf {
                Rpf::Off => ReversePath::Off,
                Rpf::Loose => ReversePath::Loose,
                Rpf::Strict => ReversePath::Strict,
            },
            proxy: match &self.spec.proxy_arp {
                ProxyArp::Nobody => Proxy::Nobody,
                ProxyArp::Routed => Proxy::Routed,
                ProxyArp::Prefixes(nets) => {
                    Proxy::Prefixes(nets.iter().map(|net| (net.addr(), net.prefix_len())).collect())
                }
            },
            ..Interface::default()
        };
        hosts::with_host(self, interface)
    }
}

/// All ports.
#[derive(Default)]
pub(super) struct Ports {
    pub list: Vec<Option<Port>>,
    names: HashMap<String, PortId>,
    /// Numbers of ports that are no more, but that routes may still name: not to be given yet.
    pub leaving: Vec<PortId>,
    /// What their links were told.
    pub announced: Announced,
}

impl Ports {
    pub fn id(&self, name: &str) -> Option<PortId> {
        self.names.get(name).copied()
    }

    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.list.get(id.index()).and_then(Option::as_ref)
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Port> {
        let id = self.id(name)?;
        self.list.get_mut(id.index()).and_then(Option::as_mut)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.list.iter().flatten()
    }

    pub fn name_of(&self, id: PortId) -> String {
        self.get(id)
            .map_or_else(|| format!("port {}", id.0), |port| port.name.clone())
    }

    pub fn memory_end(&self, name: &str) -> Option<MemoryEnd> {
        match &self.get(self.id(name)?)?.backing {
            Some(Backing::Memory(end)) => Some(end.clone()),
            _ => None,
        }
    }

    /// Lets go of every device; the workers have closed the sockets already.
    pub fn close_all(&mut self) {
        self.list.iter_mut().flatten().for_each(|port| port.backing = None);
    }

    fn insert(&mut self, port: Port) {
        let at = port.id.index();
        self.names.insert(port.name.clone(), port.id);
        if self.list.len() <= at {
            self.list.resize_with(at + 1, || None);
        }
        self.list[at] = Some(port);
    }

    fn remove(&mut self, name: &str) -> Option<Port> {
        let id = self.names.remove(name)?;
        self.list.get_mut(id.index()).and_then(Option::take)
    }

    fn free_id(&self) -> PortId {
        let ids = (0..=self.list.len() + self.leaving.len()).map(|id| PortId(id as u16));
        let mut free = ids.filter(|id| self.get(*id).is_none() && !self.leaving.contains(id));
        free.next().unwrap_or(PortId(self.list.len() as u16))
    }
}

/// What `prepare_ports` did, to be finished or taken back.
#[derive(Default)]
pub(super) struct Opened {
    created: Vec<String>,
    /// Ports that changed, as they were.
    changed: Vec<(String, PortSpec)>,
    /// Ports to be removed at the end.
    removed: Vec<String>,
}

fn port_spec(resource: Option<&Arc<Resource>>) -> Option<&PortSpec> {
    match resource.map(AsRef::as_ref) {
        Some(Resource::Port(object)) => Some(&object.body.spec),
        _ => None,
    }
}

/// Whether a change of the spec needs the device opened again.
fn needs_reopening(old: &PortSpec, new: &PortSpec) -> bool {
    let device = |spec: &PortSpec| {
        let whose = (spec.device_name(), spec.driver, spec.punt);
        (whose, spec.mode, spec.zero_copy, spec.queues)
    };
    let host = |spec: &PortSpec| (spec.netns.clone(), spec.host_addresses.clone());
    device(old) != device(new) || host(old) != host(new)
}

impl State {
    /// Opens what the plan needs. On a refusal everything is as it was.
    pub(super) fn prepare_ports(&mut self, plan: &Plan) -> Result<Opened, Refusal> {
        let mut opened = Opened::default();
        for planned in plan.of_kind(Kind::Port) {
            let name = planned.key.name.clone();
            let result = match (port_spec(planned.before.as_ref()), port_spec(planned.after.as_ref())) {
                (None, Some(spec)) => self
                    .create_port(&name, spec, planned)
                    .map(|()| opened.created.push(name)),
                (Some(old), Some(new)) => {
                    let result = self.change_port(&name, new, planned);
                    result.map(|()| opened.changed.push((name, old.clone())))
                }
                (Some(_), None) => {
                    opened.removed.push(name);
                    Ok(())
                }
                (None, None) => Ok(()),
            };
            if let Err(refusal) = result {
                self.revert_ports(opened);
                return Err(refusal);
            }
        }
        Ok(opened)
    }

    /// Takes back what `prepare_ports` did.
    pub(super) fn revert_ports(&mut self, opened: Opened) {
        for (name, spec) in opened.changed {
            // The device was there a moment ago; if it is gone by now, the port shows that.
            let _ = self.set_spec(&name, &spec);
        }
        opened.created.iter().for_each(|name| self.remove_port(name));
        self.publish_interfaces();
    }

    /// Removes what the plan removes: nothing refers to it any more.
    pub(super) fn finish_ports(&mut self, opened: Opened) {
        opened.removed.iter().for_each(|name| self.remove_port(name));
        self.publish_interfaces();
    }

    fn remove_port(&mut self, name: &str) {
        self.close_port(name);
        if let Some(id) = self.ports.id(name) {
            self.forget_neighbours(id);
            self.rib.set_wrapped(id, false);
            self.ports.remove(name);
        }
    }

    fn create_port(&mut self, name: &str, spec: &PortSpec, planned: &Planned) -> Result<(), Refusal> {
        refuse_unavailable(spec, planned)?;
        let id = self.ports.free_id();
        let [high, low] = (id.0 + 1).to_be_bytes();
        let mac = [0x02, 0x4d, 0x47, 0x00, high, low];
        let (mode, running) = (String::new(), false);
        let (counters, closed) = (vec![], 0);
        let spec = spec.clone();
        let name = name.to_owned();
        self.ports.insert(Port {
            id,
            name: name.clone(),
            spec,
            aliases: vec![],
            mac,
            backing: None,
            mode,
            running,
            why: None,
            crossing: Crossing::Nobody,
            counters,
            closed,
        });
        self.open_port(&name).map_err(|reason| {
            self.ports.remove(&name);
            Refusal::of_field(&planned.origin, "spec.device", reason)
        })
    }

    fn change_port(&mut self, name: &str, spec: &PortSpec, planned: &Planned) -> Result<(), Refusal> {
        refuse_unavailable(spec, planned)?;
        let Some(port) = self.ports.get_mut(name) else {
            return Ok(());
        };
        let old = port.spec.clone();
        if old.driver != spec.driver && (old.driver.is_overlay() || spec.driver.is_overlay()) {
            let reason = format!(
                "is {} now; delete the port first to make it another kind",
                old.driver.name()
            );
            return Err(Refusal::of_field(&planned.origin, "spec.driver", reason));
        }
        if let Some(Backing::Device(device)) = &port.backing
            && spec.device == old.device
        {
            check_mtu(device, spec).map_err(|reason| Refusal::of_field(&planned.origin, "spec.mtu", reason))?;
        }
        self.set_spec(name, spec).map_err(|reason| {
            let _ = self.set_spec(name, &old);
            Refusal::of_field(&planned.origin, "spec.device", reason)
        })
    }

    fn set_spec(&mut self, name: &str, spec: &PortSpec) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(name) else {
            return Ok(());
        };
        let may_be_lost = port.spec.driver.is_network_device();
        let reopen = needs_reopening(&port.spec, spec) || (port.backing.is_none() && !may_be_lost);
        port.spec = spec.clone();
        port.mac = spec.overlay_mac().unwrap_or(port.mac);
        if let (Some(Backing::Tap(device)), false) = (&port.backing, reopen) {
            taps::follow_mtu(device, spec)?;
        }
        self.follow_host_mtu(name, spec.mtu)?;
        if reopen {
            self.close_port(name);
            self.open_port(name)?;
        }
        self.judge(name);
        Ok(())
    }

    /// Opens what is behind a port and hands its queues to the workers.
    pub(super) fn open_port(&mut self, name: &str) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(name) else {
            return Ok(());
        };
        let (id, spec) = (port.id, port.spec.clone());
        if spec.vlan.is_some() {
            // It comes with the port of its link.
            return Ok(());
        }
        self.refuse_hidden(name, &spec)?;
        let (backing, queues, mode) = match spec.driver {
            Driver::Xdp if spec.punt == Punt::Tap => self.open_with_host(name, &spec)?,
            Driver::Xdp => self.open_device(&spec)?,
            Driver::Memory => {
                let (queue, end) = memory();
                let queues: Vec<Box<dyn Queue>> = vec![Box::new(queue)];
                (Backing::Memory(end), queues, String::new())
            }
            Driver::Pcap => {
                let queue = PcapQueue::open(Path::new(&spec.device)).map_err(|error| error.to_string())?;
                let queues: Vec<Box<dyn Queue>> = vec![Box::new(queue)];
                (Backing::Capture, queues, String::new())
            }
            Driver::Ipip | Driver::Vxlan | Driver::Wireguard => (Backing::Tunnel, vec![], String::new()),
            Driver::Tap => taps::open(&spec)?,
        };
        let counters = match spec.driver.is_overlay() {
            true => self.workers.counters(),
            false => self.workers.attach(id, queues),
        };
        let Some(port) = self.ports.get_mut(name) else {
            return Ok(());
        };
        match &backing {
            Backing::Device(device) => port.mac = device.mac(),
            Backing::Tap(_) => {}
            Backing::Memory(_) | Backing::Capture | Backing::Tunnel | Backing::Vlan(_) => {
                (port.running, port.why) = (true, None)
            }
        }
        port.mac = spec.overlay_mac().unwrap_or(port.mac);
        port.counters.extend(counters);
        port.mode = mode;
        port.backing = Some(backing);
        self.judge(name);
        Ok(())
    }

    fn open_device(&self, spec: &PortSpec) -> Result<Behind, String> {
        let options = xdp::Options {
            device: spec.device.clone(),
            mode: match spec.mode.unwrap_or_default() {
                Mode::Auto => xdp::Mode::Auto,
                Mode::Native => xdp::Mode::Native,
                Mode::Generic => xdp::Mode::Generic,
            },
            zero_copy: match spec.zero_copy.unwrap_or_default() {
                ZeroCopy::Auto => xdp::ZeroCopy::Auto,
                ZeroCopy::Always => xdp::ZeroCopy::Always,
                ZeroCopy::Never => xdp::ZeroCopy::Never,
            },
            queues: u32::from(spec.queues),
            ring_size: RING,
            claimed_only: spec.punt == Punt::Kernel,
        };
        let (device, sockets) = xdp::Device::open(&self.umem, &options).map_err(|error| error.to_string())?;
        check_mtu(&device, spec)?;
        // A few ports must not drain the pool: each socket gets at most an eighth of what there is.
        let level = (self.pool.arena().frames() / 8 / u32::from(spec.queues)).clamp(64, RING) as usize;
        let queue = |socket| -> Box<dyn Queue> { Box::new(SocketQueue::new(socket, level)) };
        let mode = match (device.attached(), device.zero_copy()) {
            (attached, true) => format!("{attached} zero-copy"),
            (attached, false) => attached.to_string(),
        };
        Ok((Backing::Device(device), sockets.into_iter().map(queue).collect(), mode))
    }

    pub(super) fn close_port(&mut self, name: &str) {
        let Some(id) = self.ports.id(name) else { return };
        let give_back = self.close_host(name, id);
        self.workers.detach(id);
        self.punting.forget(id);
        if let Some(port) = self.ports.get_mut(name) {
            // The program goes first with the device; the sockets are closed by now.
            port.backing = None;
            port.closed = port.counters.len();
        }
        if let Some(give_back) = give_back {
            give_back();
        }
    }

    /// Packets belong to connections from when something asks for it until nothing does.
    pub(super) fn track(&mut self) {
        let tracked = self.is_tracked();
        let interfaces = self.interfaces.current();
        if interfaces.ports.iter().flatten().any(|port| port.tracked != tracked) {
            self.publish_interfaces();
        }
    }

    pub(super) fn is_tracked(&self) -> bool {
        self.flows.are_wanted() || self.balancing.is_wanted() || self.policy.in_force()
    }

    /// Shows nodes the ports as they are now, and tells adjacencies their link addresses and MTUs.
    pub(super) fn publish_interfaces(&mut self) {
        self.follow_trunks();
        let ports: Vec<(PortId, [u8; 6], u16)> = self
            .ports
            .iter()
            .map(|port| (port.id, port.mac, port.spec.mtu))
            .collect();
        ports
            .into_iter()
            .for_each(|(id, mac, mtu)| self.rib.set_port(id, mac, mtu));
        self.know_ends();
        let tracked = self.is_tracked();
        if tracked {
            self.flows.back_memory();
        }
        let vrf = |port: &Port| self.vrfs.get(&port.spec.vrf).copied().unwrap_or_default();
        let interfaces = self.ports.list.iter().map(|port| {
            let port = port.as_ref()?;
            let limited = self.policing.over(port, port.interface(vrf(port), tracked));
            Some(self.marking.over(port, limited))
        });
        let mut interfaces = Interfaces::new(interfaces.collect(), self.listeners());
        interfaces.overlays = self.overlays();
        if *self.interfaces.current() != interfaces {
            self.interfaces.publish(interfaces);
            self.place_node_ports();
        }
        self.announce_addresses();
    }
}

/// A port must not promise more than its device carries.
fn check_mtu(device: &xdp::Device, spec: &PortSpec) -> Result<(), String> {
    if device.mtu() >= u32::from(spec.mtu) {
        return Ok(());
    }
    Err(too_small(&spec.device, device.mtu(), spec.mtu))
}

/// What a port may say but this version cannot do.
fn refuse_unavailable(spec: &PortSpec, planned: &Planned) -> Result<(), Refusal> {
    let refuse = |field, reason: &str| Err(Refusal::of_field(&planned.origin, field, reason));
    match spec.driver {
        Driver::Pcap | Driver::Memory if spec.queues != 1 => {
            refuse("spec.queues", "ports of drivers pcap and memory have one queue")
        }
        _ => Ok(()),
    }
}
