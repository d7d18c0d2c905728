//! Ports that are VLANs of another port's link: they come and go, and are up and down, with that.

use fastpath::meta::PortId;

use super::State;
use super::ports::Backing;

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

    fn trunk_of(&self, vlan: &super::ports::Port) -> Option<Trunk> {
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
