//! Whose the allowed IPs of WireGuard's peers are. Of several peers of an interface that are given the same, the last
//! one that was applied has it (wg(8)), and that is said aloud.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{Change, Plan, Planned, Store};
use crate::resource::{Key, Kind, Resource, WireguardPeer};

/// A prefix of an interface, by the interface's name.
type Prefix = (String, IpNet);

/// The peer that has a prefix.
#[derive(Debug, Default)]
pub(super) struct Allowed(HashMap<Prefix, Key>);

impl Allowed {
    /// Whether the peer has everything it was given.
    pub(super) fn is_whole(&self, key: &Key, resource: &Resource) -> bool {
        prefixes(resource).all(|prefix| self.0.get(&prefix) == Some(key))
    }

    /// Makes it what `plan` says.
    pub(super) fn commit(&mut self, plan: &Plan) {
        for (prefix, owner) in self.changes(plan).0 {
            match owner {
                Some(key) => self.0.insert(prefix, key),
                None => self.0.remove(&prefix),
            };
        }
    }

    /// What the user should know of `plan`.
    pub(super) fn warnings(&self, store: &Store, plan: &Plan) -> Vec<String> {
        let (changed, mut warnings) = self.changes(plan);
        let owner = |prefix: &Prefix| changed.get(prefix).map_or_else(|| self.0.get(prefix), Option::as_ref);
        let vrfs = vrfs(store, plan);
        let added = changed.iter().filter(|(_, owner)| owner.is_some());
        for ((interface, net), _) in added {
            let shared = vrfs.iter().filter(|(other, vrf)| {
                *other != interface && vrfs.get(interface) == Some(vrf) && owner(&((*other).clone(), *net)).is_some()
            });
            warnings.extend(shared.map(|(other, _)| {
                let winner = interface.min(other);
                format!("allowed IP {net} leads to {interface} and {other}: packets go to {winner}; a Route can say otherwise")
            }));
        }
        warnings.sort();
        warnings
    }

    fn changes(&self, plan: &Plan) -> (HashMap<Prefix, Option<Key>>, Vec<String>) {
        let (mut changed, mut warnings) = (HashMap::<Prefix, Option<Key>>::new(), vec![]);
        for Planned { key, before, after, .. } in plan.of_kind(Kind::WireguardPeer) {
            let has = |changed: &HashMap<Prefix, Option<Key>>, prefix: &Prefix| {
                let kept = || self.0.get(prefix).cloned();
                changed.get(prefix).cloned().unwrap_or_else(kept)
            };
            for prefix in before.iter().flat_map(|before| prefixes(before)) {
                if has(&changed, &prefix).as_ref() == Some(key) {
                    changed.insert(prefix, None);
                }
            }
            for prefix in after.iter().flat_map(|after| prefixes(after)) {
                if let Some(loser) = has(&changed, &prefix).filter(|owner| owner != key) {
                    let (interface, net) = &prefix;
                    warnings.push(format!("{key} takes allowed IP {net} of {interface} from {loser}"));
                }
                changed.insert(prefix, Some(key.clone()));
            }
        }
        (changed, warnings)
    }
}

impl Planned {
    /// A peer that lost a prefix gets it back when it is applied again.
    pub(super) fn reclaim(self, allowed: &Allowed) -> Self {
        let whole = self
            .after
            .as_deref()
            .is_none_or(|after| allowed.is_whole(&self.key, after));
        match self.change {
            Change::Unchanged if !whole => Self {
                change: Change::Configured,
                ..self
            },
            _ => self,
        }
    }
}

/// The routing table of each interface, as it would be after `plan`.
fn vrfs(store: &Store, plan: &Plan) -> BTreeMap<String, String> {
    let kept = store.of_kind(Kind::WireguardInterface);
    let kept = kept.map(|(key, resource)| (key, Some(&**resource)));
    let planned = plan.of_kind(Kind::WireguardInterface);
    let planned = planned.map(|planned| (&planned.key, planned.after.as_deref()));
    let mut vrfs = BTreeMap::new();
    for (key, resource) in kept.chain(planned) {
        match resource {
            Some(Resource::WireguardInterface(object)) => vrfs.insert(key.name.clone(), object.body.spec.vrf.clone()),
            _ => vrfs.remove(&key.name),
        };
    }
    vrfs
}

fn prefixes(resource: &Resource) -> impl Iterator<Item = Prefix> + '_ {
    let spec = match resource {
        Resource::WireguardPeer(object) => Some(spec(&object.body)),
        _ => None,
    };
    spec.into_iter().flatten()
}

fn spec(peer: &WireguardPeer) -> impl Iterator<Item = Prefix> + '_ {
    let spec = &peer.spec;
    spec.allowed_ips.iter().map(|net| (spec.interface.clone(), *net))
}
