//! Network devices come, go and change, and their ports follow.

use fastpath::port::xdp::DeviceState;
use fastpath::punt::Crossing;

use super::State;
use super::ports::{Backing, Port};
use super::taps;
use crate::links::Link;
use crate::resource::{Driver, PortSpec};

impl State {
    /// A device came, went or changed.
    pub(super) fn link_changed(&mut self, link: &Link) {
        let sees = |port: &Port| {
            let device = self.device_of(port);
            let is_device = port.spec.driver == Driver::Xdp && port.spec.vlan.is_none();
            (is_device && link.is_called(&device)).then(|| (port.name.clone(), device))
        };
        let seen: Vec<_> = self.ports.iter().filter_map(sees).collect();
        for (name, device) in seen {
            if self.is_old_news(&name, link) {
                continue;
            }
            if link.removed || self.device_was_replaced(&name, link) {
                self.lose_device(&name, &format!("device {device} is gone"));
            }
            if !link.removed {
                self.follow_device(&name, link);
            }
        }
        self.follow_interfaces();
        // Of our own devices the kernel may speak late: of one that is gone when the next has its name already.
        if self
            .ports
            .iter()
            .any(|port| port.spec.driver == Driver::Tap && port.spec.device == link.name)
        {
            self.tend_taps();
        }
    }

    /// Ports' link addresses may have changed, and their link-local addresses with them.
    fn follow_interfaces(&mut self) {
        self.publish_interfaces();
        if let Err(full) = self.connect() {
            tracing::warn!("cannot route to our own addresses: {full}");
        }
    }

    /// What is told of a device that a TAP takes the place of may be what was done to it the last time, when it was given
    /// back: it has its other name again by now.
    fn is_old_news(&self, name: &str, link: &Link) -> bool {
        let port = self.ports.id(name).and_then(|id| self.ports.get(id));
        let is_there = |port: &Port| match &port.backing {
            Some(Backing::Device(device)) => device.ifindex() == link.ifindex && device.state().is_ok(),
            _ => false,
        };
        link.removed && port.is_some_and(|port| port.crossing != Crossing::Nobody && is_there(port))
    }

    fn device_was_replaced(&self, name: &str, link: &Link) -> bool {
        let port = self.ports.id(name).and_then(|id| self.ports.get(id));
        matches!(port.and_then(|port| port.backing.as_ref()), Some(Backing::Device(device)) if device.ifindex() != link.ifindex)
    }

    fn lose_device(&mut self, name: &str, why: &str) {
        self.close_port(name);
        if let Some(port) = self.ports.get_mut(name) {
            tracing::warn!("port {name} is down: {why}");
            (port.running, port.why) = (false, Some(why.to_owned()));
        }
    }

    fn follow_device(&mut self, name: &str, link: &Link) {
        let Some(port) = self.ports.get_mut(name) else { return };
        if port.backing.is_none()
            && let Err(why) = self.open_port(name)
        {
            return self.say_why(name, why);
        }
        let Some(port) = self.ports.get_mut(name) else { return };
        port.mac = link.mac;
        self.judge(name);
    }

    fn say_why(&mut self, name: &str, why: String) {
        if let Some(port) = self.ports.get_mut(name) {
            port.why = Some(why);
        }
    }

    /// Gives up TAP devices that are gone or out of reach, and looks at those that no link event tells of.
    fn tend_taps(&mut self) {
        let taps = |port: &Port| match &port.backing {
            Some(Backing::Tap(device)) => Some((port.name.clone(), taps::trouble(device, &port.spec))),
            _ => None,
        };
        let found: Vec<_> = self.ports.iter().filter_map(taps).collect();
        for (name, trouble) in found {
            match trouble {
                Some(why) => {
                    self.lose_device(&self.owner_of(&name), &why);
                    self.follow_interfaces();
                }
                None => self.judge(&name),
            }
        }
    }

    /// Says whether a port can pass packets, as its device is now. Workers send to it only then: what a device that is
    /// down was given would wait in its ring and go out when it is up, however old it is by then.
    pub(super) fn judge(&mut self, name: &str) {
        let Some(device) = self.ports.id(name).and_then(|id| self.ports.get(id)) else {
            return;
        };
        let device = self.device_of(device);
        let Some(port) = self.ports.get_mut(name) else { return };
        let state = match &port.backing {
            Some(Backing::Device(device)) => device.state(),
            Some(Backing::Tap(device)) => device.state(),
            _ => return,
        };
        let why = match state {
            Ok(state) => trouble(&device, &port.spec, state),
            Err(error) => Some(format!("cannot look at device {device}: {error}")),
        };
        let (id, was, is) = (port.id, port.running, why.is_none());
        match &why {
            None if !was => tracing::info!("port {name} is up"),
            Some(why) if was => tracing::warn!("port {name} is down: {why}"),
            _ => {}
        }
        (port.running, port.why) = (is, why);
        self.workers.set_up(id, is);
        if is && !was {
            // There may be others behind it now.
            self.forget_learnt(id);
        }
    }

    /// Tries again to open what could not be opened.
    pub(super) fn tend_ports(&mut self) {
        if self.manual_ns.is_some() {
            return;
        }
        self.tend_taps();
        let lost =
            |port: &&Port| port.backing.is_none() && port.spec.driver.is_network_device() && port.spec.vlan.is_none();
        let names: Vec<String> = self.ports.iter().filter(lost).map(|port| port.name.clone()).collect();
        for name in names {
            match self.open_port(&name) {
                Ok(()) => self.follow_interfaces(),
                Err(why) => self.say_why(&name, why),
            }
        }
    }
}

/// Why packets cannot pass the device, if they cannot.
fn trouble(device: &str, spec: &PortSpec, state: DeviceState) -> Option<String> {
    if !state.up {
        let place = spec.netns.as_ref().map_or(String::new(), |name| format!(" -n {name}"));
        return Some(format!("device {device} is down; `ip{place} link set {device} up`"));
    }
    if !state.running {
        return Some(format!("device {device} has no carrier"));
    }
    (state.mtu < u32::from(spec.mtu)).then(|| too_small(device, state.mtu, spec.mtu))
}

/// The sentence for a port that promises larger packets than its device takes.
pub(super) fn too_small(device: &str, has: u32, wanted: u16) -> String {
    format!(
        "device {device} has an MTU of {has}, less than the port's {wanted}; set mtu: {has}, \
         or `ip link set {device} mtu {wanted}`"
    )
}
