//! Ports that are VLANs of another port's link: they come and go, and are up and down, with that. And devices that are
//! VLANs to the kernel, which get nothing while a port takes all that comes by their link.

use fastpath::meta::PortId;

use super::State;
use super::ports::{Backing, Port};
use crate::resource::{Driver, PortSpec, Punt};

/// The kernel's own VLANs in our network namespace: a line for each, of its name, number and the device it is on
/// (net/8021q/vlanproc.c). There is no such file where the kernel has none.
const KERNELS: &str = "/proc/net/vlan/config";
/// VLANs in one another: more than a frame has room for.
const STACKED_MAX: usize = 8;

/// What a VLAN has of the port of its link.
struct Trunk {
    id: PortId,
    name: String,
    mac: [u8; 6],
    is_up: bool,
    why: Option<String>,
}

impl State {
    /// Has every VLAN's packets come and go by the port of its link, as the ports are now.
    pub(super) fn follow_trunks(&mut self) {
        let vlans = self.ports.iter().filter_map(|port| Some((port, port.spec.vlan?)));
        let vlans: Vec<_> = vlans
            .map(|(port, vlan)| (port.name.clone(), vlan, self.trunk_of(port)))
            .collect();
        for (name, vlan, trunk) in vlans {
            let Some(port) = self.ports.get_mut(&name) else {
                continue;
            };
            let (id, was) = (port.id, port.running);
            let joined = match port.backing {
                Some(Backing::Vlan(trunk)) => Some(trunk),
                _ => None,
            };
            (port.running, port.why) = match &trunk {
                Some(trunk) if trunk.is_up => (true, None),
                Some(trunk) => {
                    let why = trunk.why.as_deref().unwrap_or("its device is not open");
                    (false, Some(format!("port {} is down: {why}", trunk.name)))
                }
                None => (false, Some("the port of its link is gone".to_owned())),
            };
            port.mac = trunk.as_ref().map_or(port.mac, |trunk| trunk.mac);
            let is = port.running;
            let trunk = trunk.map(|trunk| trunk.id);
            if is && !was {
                // There may be others behind it now.
                self.forget_learnt(id);
            }
            if joined == trunk {
                continue;
            }
            self.close_port(&name);
            if let Some(trunk) = trunk {
                let counters = self.workers.join(id, vlan, trunk);
                if let Some(port) = self.ports.get_mut(&name) {
                    port.counters.extend(counters);
                    port.backing = Some(Backing::Vlan(trunk));
                }
            }
        }
    }

    /// Refuses a device that would get nothing, because a port takes what comes for it before the kernel takes its tag
    /// off; and one that would take so from a port there is.
    pub(super) fn refuse_hidden(&self, name: &str, spec: &PortSpec) -> Result<(), String> {
        let takes_all =
            |spec: &PortSpec| spec.driver == Driver::Xdp && spec.vlan.is_none() && spec.punt != Punt::Kernel;
        if spec.driver != Driver::Xdp {
            return Ok(());
        }
        let vlans = std::fs::read_to_string(KERNELS).unwrap_or_default();
        if vlans.is_empty() {
            return Ok(());
        }
        let others = self
            .ports
            .iter()
            .filter(|port| port.name != name && port.backing.is_some());
        let devices = others.filter(|port| port.spec.driver == Driver::Xdp && port.spec.vlan.is_none());
        for (port, device) in devices.map(|port| (port, self.device_of(port))) {
            if let Some(id) = vlan_on(&vlans, &spec.device, &device).filter(|_| takes_all(&port.spec)) {
                return Err(hidden(&spec.device, id, &device, &port.name));
            }
            if let Some(id) = vlan_on(&vlans, &device, &spec.device).filter(|_| takes_all(spec)) {
                let why = hidden(&device, id, &spec.device, name);
                return Err(format!("Port/{} would get nothing any more: {why}", port.name));
            }
        }
        Ok(())
    }

    fn trunk_of(&self, vlan: &Port) -> Option<Trunk> {
        let trunk = self.ports.iter().find(|port| port.spec.is_trunk_of(&vlan.spec))?;
        Some(Trunk {
            id: trunk.id,
            name: trunk.name.clone(),
            mac: trunk.mac,
            is_up: trunk.is_up(),
            why: trunk.why.clone(),
        })
    }
}

/// The sentence for a device that a port keeps everything from.
fn hidden(device: &str, id: u16, link: &str, port: &str) -> String {
    format!(
        "device {device} is VLAN {id} of device {link}, and what comes there goes to Port/{port} with its tag; \
         delete the one, and write `device: {link}, vlan: {id}` beside the other"
    )
}

/// The number of the kernel's VLAN that leads from `device` onto `link`, through others if need be: the last before it.
fn vlan_on(vlans: &str, device: &str, link: &str) -> Option<u16> {
    let mut device = device;
    for _ in 0..STACKED_MAX {
        let (id, on) = vlans.lines().find_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            let [name, id, on] = [fields.next()?, fields.next()?, fields.next()?];
            (name == device).then_some((id.parse().ok()?, on))
        })?;
        if on == link {
            return Some(id);
        }
        device = on;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6 writes it.
    const CONFIG: &str = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                          eth1.100       | 100  | eth1\nguests         | 7  | eth1.100\nround          | 9  | round\n";

    #[test]
    fn the_way_from_a_vlan_to_its_link_is_found_through_others() {
        assert_eq!(vlan_on(CONFIG, "eth1.100", "eth1"), Some(100));
        assert_eq!(vlan_on(CONFIG, "guests", "eth1.100"), Some(7));
        assert_eq!(vlan_on(CONFIG, "guests", "eth1"), Some(100));
        assert_eq!(vlan_on(CONFIG, "eth1", "eth1.100"), None);
        assert_eq!(vlan_on(CONFIG, "eth2", "eth1"), None);
        assert_eq!(vlan_on(CONFIG, "round", "eth1"), None);
        assert_eq!(vlan_on("", "eth1.100", "eth1"), None);
        assert_eq!(vlan_on("eth1.100 | a number | eth1", "eth1.100", "eth1"), None);
    }
}
