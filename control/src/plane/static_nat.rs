//! Static NAT: which workloads have addresses of their own outside, as messages tell.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::program::felix::{NatInfo, ToDataplane, WorkloadEndpointId};

/// Addresses outside, and who has them.
#[derive(Default)]
pub(super) struct StaticNat {
    /// Where several say that they have an address, the first has it: who replaces an endpoint may come before it goes.
    holders: BTreeMap<IpAddr, BTreeMap<WorkloadEndpointId, IpAddr>>,
    held: HashMap<WorkloadEndpointId, Vec<IpAddr>>,
    changed: bool,
}

impl StaticNat {
    /// Takes a message; most say nothing of this.
    pub fn receive(&mut self, message: &ToDataplane) {
        match message {
            ToDataplane::WorkloadEndpointUpdate(update) => {
                let endpoint = &update.endpoint;
                let nats = endpoint.ipv4_nat.iter().chain(&endpoint.ipv6_nat);
                let active = nats.filter(|_| endpoint.state == "active");
                self.set(&update.id, active.filter_map(pair).collect());
            }
            ToDataplane::WorkloadEndpointRemove(id) => self.set(id, vec![]),
            _ => {}
        }
    }

    /// Addresses outside with those inside, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let first = |holders: &BTreeMap<_, IpAddr>| holders.values().next().copied();
        let pairs = self.holders.iter();
        pairs.filter_map(move |(outside, holders)| Some((*outside, first(holders)?)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Whether the pairs may be others than when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn set(&mut self, id: &WorkloadEndpointId, pairs: Vec<(IpAddr, IpAddr)>) {
        let held = self.held.remove(id).unwrap_or_default();
        self.changed |= !held.is_empty() || !pairs.is_empty();
        for outside in held {
            if let Some(holders) = self.holders.get_mut(&outside) {
                holders.remove(id);
                if holders.is_empty() {
                    self.holders.remove(&outside);
                }
            }
        }
        if !pairs.is_empty() {
            self.held
                .insert(id.clone(), pairs.iter().map(|(outside, _)| *outside).collect());
        }
        for (outside, inside) in pairs {
            self.holders.entry(outside).or_default().insert(id.clone(), inside);
        }
    }
}

/// None where it is no pair of addresses of one family: there is nothing to translate then.
fn pair(nat: &NatInfo) -> Option<(IpAddr, IpAddr)> {
    let (outside, inside): (IpAddr, IpAddr) = (nat.ext_ip.parse().ok()?, nat.int_ip.parse().ok()?);
    (outside.is_ipv4() == inside.is_ipv4()).then_some((outside, inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::felix::{WorkloadEndpoint, WorkloadEndpointUpdate};

    fn id(name: &str) -> WorkloadEndpointId {
        WorkloadEndpointId {
            workload_id: name.to_owned(),
            ..WorkloadEndpointId::default()
        }
    }

    fn update(name: &str, state: &str, nats: &[(&str, &str)]) -> ToDataplane {
        let nats = nats.iter().map(|(outside, inside)| NatInfo {
            ext_ip: (*outside).to_owned(),
            int_ip: (*inside).to_owned(),
        });
        let endpoint = WorkloadEndpoint {
            state: state.to_owned(),
            ipv4_nat: nats.collect(),
            ..WorkloadEndpoint::default()
        };
        ToDataplane::WorkloadEndpointUpdate(WorkloadEndpointUpdate { id: id(name), endpoint })
    }

    #[test]
    fn the_first_of_two_has_an_address_until_it_goes() {
        let mut nat = StaticNat::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let pairs = |nat: &StaticNat| nat.pairs().collect::<Vec<_>>();
        nat.receive(&update(
            "b",
            "active",
            &[("192.0.2.5", "10.0.0.2"), ("nonsense", "10.0.0.2")],
        ));
        nat.receive(&update("a", "active", &[("192.0.2.5", "10.0.0.1")]));
        assert_eq!(pairs(&nat), [(address("192.0.2.5"), address("10.0.0.1"))]);
        assert!(nat.take_changed() && !nat.take_changed());
        nat.receive(&update("c", "active", &[]));
        nat.receive(&ToDataplane::InSync);
        assert!(!nat.take_changed(), "that was about something else");
        nat.receive(&update("a", "inactive", &[("192.0.2.5", "10.0.0.1")]));
        assert_eq!(pairs(&nat), [(address("192.0.2.5"), address("10.0.0.2"))]);
        nat.receive(&ToDataplane::WorkloadEndpointRemove(id("b")));
        assert!(nat.is_empty() && nat.take_changed());
    }
}
