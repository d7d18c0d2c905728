//! Hosts that have a TAP in place of a port's device (`punt: tap`). The TAP is a port beside it, `NAME/host`: what comes in
//! there leaves by the device, and what is for the host leaves there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use fastpath::interfaces::Interface;
use fastpath::meta::PortId;
use fastpath::port::{Queue, tap};
use fastpath::punt::{Crossing, Ports as Claimed, Punt as ForHost};

use super::super::State;
use super::{Backing, Behind, Port};
use crate::resource::{Driver, PortSpec, ProxyArp, Punt, Rpf};
use crate::takeover::{self, Takeover};

/// How often a host is asked for its addresses.
const PERIOD_NS: u64 = 250_000_000;
/// Where it is written down what devices had, unless something else is said.
const FOLDER: &str = "/run/margay/punt";

/// A host behind a port.
struct Host {
    takeover: Takeover,
    tap: PortId,
    addresses: Vec<IpAddr>,
    asked_ns: u64,
}

/// The hosts, by the ports that are on their devices.
pub struct Hosts {
    /// Where it is written down what their devices had.
    pub folder: PathBuf,
    list: HashMap<PortId, Host>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            folder: FOLDER.into(),
            list: HashMap::new(),
        }
    }
}

impl Hosts {
    /// The kernel's number for the TAP of the host behind a port.
    pub fn tap_index(&self, port: PortId) -> Option<u32> {
        self.list.get(&port).map(|host| host.takeover.tap_index())
    }

    /// The ports that hosts are behind, each with that of the host's TAP.
    pub fn taps(&self) -> impl Iterator<Item = (PortId, PortId)> {
        self.list.iter().map(|(owner, host)| (*owner, host.tap))
    }

    /// The name that the device of a port has for now.
    fn renamed(&self, port: PortId) -> Option<String> {
        self.list.get(&port).map(|host| host.takeover.renamed())
    }

    /// Writes down what the hosts have by now: their TAPs are about to go.
    pub fn follow(&mut self) {
        for host in self.list.values_mut() {
            if let Err(error) = host.takeover.follow() {
                tracing::warn!("a device gets back what it had at the start: {error}");
            }
        }
    }

    /// Gives every device back; the TAPs are closed.
    pub fn give_back(&mut self) {
        self.list.drain().for_each(|(_, host)| give_back(&host.takeover));
    }
}

fn give_back(takeover: &Takeover) {
    if let Err(error) = takeover.give_back() {
        tracing::error!("a device is not given back: {error}; then `margay restore` does it");
    }
}

/// The name of the port of a host's TAP.
fn tap_name(port: &str) -> String {
    format!("{port}/host")
}

impl State {
    /// Puts a TAP in place of the device of a port, and opens the device.
    pub(super) fn open_with_host(&mut self, name: &str, spec: &PortSpec) -> Result<Behind, String> {
        let taken = takeover::take(&self.hosts.folder, &spec.device, (spec.queues, spec.mtu));
        let mut takeover = taken.map_err(|error| error.to_string())?;
        let renamed = PortSpec {
            device: takeover.renamed(),
            ..spec.clone()
        };
        let opened = self.open_device(&renamed);
        match (opened, takeover.take_tap(), self.ports.id(name)) {
            (Ok(behind), Some(tap), Some(owner)) => {
                self.add_host((name, owner), spec, takeover, tap);
                Ok(behind)
            }
            (opened, tap, _) => {
                drop(tap);
                give_back(&takeover);
                let why = opened.err().unwrap_or_else(|| format!("port {name} is gone"));
                Err(why.replace(&renamed.device, &spec.device))
            }
        }
    }

    fn add_host(
        &mut self,
        (name, owner): (&str, PortId),
        spec: &PortSpec,
        takeover: Takeover,
        (device, queues): (tap::Device, Vec<OwnedFd>),
    ) {
        let (id, udp) = (self.ports.free_id(), device.joins_udp());
        let queue = |descriptor| -> Box<dyn Queue> { Box::new(tap::TapQueue::new(descriptor, udp)) };
        let counters = self.workers.attach(id, queues.into_iter().map(queue).collect());
        let addresses = takeover.addresses().unwrap_or_default();
        self.ports.insert(Port {
            id,
            name: tap_name(name),
            spec: tap_spec(spec),
            aliases: vec![],
            mac: takeover.mac(),
            backing: Some(Backing::Tap(device)),
            mode: String::new(),
            running: false,
            why: None,
            crossing: Crossing::Wire(owner),
            counters,
            closed: 0,
        });
        if let Some(port) = self.ports.get_mut(name) {
            port.crossing = Crossing::Host(ForHost::new(id, addresses.clone(), vec![]));
        }
        let asked_ns = self.now_ns();
        let host = Host {
            takeover,
            tap: id,
            addresses,
            asked_ns,
        };
        self.hosts.list.insert(owner, host);
        self.judge(&tap_name(name));
    }

    /// Closes the TAP of the host behind a port, if there is one. Its device is to be given back when it is closed.
    pub(super) fn close_host(&mut self, name: &str, owner: PortId) -> Option<impl FnOnce() + use<>> {
        let mut host = self.hosts.list.remove(&owner)?;
        if let Err(error) = host.takeover.follow() {
            tracing::warn!("a device gets back what it had at the start: {error}");
        }
        self.workers.detach(host.tap);
        self.ports.remove(&tap_name(name));
        if let Some(port) = self.ports.get_mut(name) {
            port.crossing = Crossing::Nobody;
        }
        Some(move || give_back(&host.takeover))
    }

    /// The port that a TAP in place of a device belongs to; or the port itself.
    pub(in crate::plane) fn owner_of(&self, name: &str) -> String {
        let port = self.ports.id(name).and_then(|id| self.ports.get(id));
        match port.map(|port| &port.crossing) {
            Some(Crossing::Wire(owner)) => self.ports.name_of(*owner),
            _ => name.to_owned(),
        }
    }

    /// The name that the device of a port has now.
    pub(in crate::plane) fn device_of(&self, port: &Port) -> String {
        self.hosts.renamed(port.id).unwrap_or_else(|| port.spec.device.clone())
    }

    /// The MTU of a port is that of its host's TAP.
    pub(super) fn follow_host_mtu(&mut self, name: &str, mtu: u16) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(&tap_name(name)) else {
            return Ok(());
        };
        port.spec.mtu = mtu;
        match &port.backing {
            Some(Backing::Tap(device)) => super::taps::follow_mtu(device, &port.spec),
            _ => Ok(()),
        }
    }

    /// Asks the hosts for their addresses now and then: what is sent to those is theirs.
    pub(in crate::plane) fn ask_hosts(&mut self) {
        let now_ns = self.now_ns();
        for host in self.hosts.list.values_mut() {
            if now_ns.saturating_sub(host.asked_ns) >= PERIOD_NS {
                host.asked_ns = now_ns;
                // A TAP that is gone is noticed elsewhere.
                host.addresses = host.takeover.addresses().unwrap_or_default();
            }
        }
    }

    /// Tells workers what hosts get: what is sent to their addresses, but for the ports that are claimed.
    pub(in crate::plane) fn tell_hosts(&mut self, claimed: impl Fn(&Self, PortId) -> Vec<Claimed>) {
        let told = self.hosts.list.iter().map(|(owner, host)| {
            let punt = ForHost::new(host.tap, host.addresses.clone(), claimed(self, *owner));
            (*owner, Crossing::Host(punt))
        });
        let told: Vec<_> = told.collect();
        let mut has_changed = false;
        for (owner, crossing) in told {
            if let Some(Some(port)) = self.ports.list.get_mut(owner.index())
                && port.crossing != crossing
            {
                port.crossing = crossing;
                has_changed = true;
            }
        }
        if has_changed {
            self.publish_interfaces();
        }
    }
}

/// What the port of a host's TAP is: nothing of what the other one has beside queues and MTU.
fn tap_spec(spec: &PortSpec) -> PortSpec {
    PortSpec {
        driver: Driver::Tap,
        mode: None,
        zero_copy: None,
        addresses: vec![],
        punt: Punt::None,
        rpf: Rpf::Off,
        proxy_arp: ProxyArp::Nobody,
        qos: None,
        ..spec.clone()
    }
}

/// What workers see of a port whose link a host shares: the kernel has its addresses, too.
pub(super) fn with_host(port: &Port, interface: Interface) -> Interface {
    Interface {
        shared: port.spec.punt != Punt::None,
        crossing: port.crossing.clone(),
        ..interface
    }
}
