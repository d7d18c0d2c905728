//! What one Felix has said: the whole of it, so that what the next one says can be told as a difference.

use std::collections::{BTreeMap, HashSet};

use crate::program::felix::{
    HostMetadataRemove, IpSetDeltaUpdate, IpSetType, IpSetUpdate, PolicyId, RouteRemove, ToDataplane as To,
    WireguardEndpointRemove, WorkloadEndpointId,
};

/// What a message is about, in the order in which it has to be told: endpoints refer to what stands before them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Config,
    Profile(String),
    Policy(PolicyId),
    Pool(String),
    Address(String),
    AddressV6(String),
    Key(String),
    KeyV6(String),
    Route(String),
    Workload(WorkloadEndpointId),
    Host(String),
}

/// All that was said and not taken back.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    sets: BTreeMap<String, (IpSetType, HashSet<String>)>,
    said: BTreeMap<Name, To>,
}

impl Snapshot {
    /// Takes a message. One that changes a set which is not there says nothing.
    pub fn hear(&mut self, message: To) {
        match message {
            To::IpSetUpdate(set) => {
                self.sets
                    .insert(set.id, (set.r#type, set.members.into_iter().collect()));
            }
            To::IpSetDeltaUpdate(delta) => {
                if let Some((_, members)) = self.sets.get_mut(&delta.id) {
                    for member in &delta.removed_members {
                        members.remove(member);
                    }
                    members.extend(delta.added_members);
                }
            }
            To::IpSetRemove(id) => {
                self.sets.remove(&id);
            }
            message => match Name::of(&message) {
                Some((name, true)) => {
                    self.said.insert(name, message);
                }
                Some((name, false)) => {
                    self.said.remove(&name);
                }
                None => {}
            },
        }
    }

    /// The settings.
    pub fn setting(&self, name: &str) -> Option<&str> {
        match self.said.get(&Name::Config)? {
            To::ConfigUpdate(update) => update.config.get(name).map(String::as_str),
            _ => None,
        }
    }

    /// All messages but those about sets.
    pub fn messages(&self) -> impl Iterator<Item = &To> {
        self.said.values()
    }

    /// Sets, policies, endpoints and what else there is, for the log.
    pub fn sizes(&self) -> [usize; 4] {
        let count = |is: fn(&Name) -> bool| self.said.keys().filter(|name| is(name)).count();
        let policies = count(|name| matches!(name, Name::Policy(_) | Name::Profile(_)));
        let endpoints = count(|name| matches!(name, Name::Workload(_) | Name::Host(_)));
        [
            self.sets.len(),
            policies,
            endpoints,
            self.said.len() - policies - endpoints,
        ]
    }

    /// What has to be told whoever knows this, so that he knows `next`: what is referred to comes first and goes last.
    pub fn difference(&self, next: &Snapshot) -> Vec<To> {
        let is_endpoint = |name: &Name| matches!(name, Name::Workload(_) | Name::Host(_));
        let gone = || self.said.keys().rev().filter(|name| !next.said.contains_key(name));
        // Endpoints that go make room for others with their interface.
        let mut messages: Vec<To> = gone()
            .filter(|name| is_endpoint(name))
            .filter_map(Name::removal)
            .collect();
        messages.extend(next.sets.iter().filter_map(|(id, set)| self.set_difference(id, set)));
        let news = next
            .said
            .iter()
            .filter(|(name, message)| self.said.get(name) != Some(message));
        messages.extend(news.map(|(_, message)| message.clone()));
        messages.extend(gone().filter(|name| !is_endpoint(name)).filter_map(Name::removal));
        let sets = self.sets.keys().filter(|id| !next.sets.contains_key(*id));
        messages.extend(sets.map(|id| To::IpSetRemove(id.clone())));
        messages
    }

    fn set_difference(&self, id: &str, (kind, members): &(IpSetType, HashSet<String>)) -> Option<To> {
        let id = id.to_owned();
        match self.sets.get(&id) {
            Some((before, had)) if before == kind => {
                let delta = IpSetDeltaUpdate {
                    id,
                    added_members: members.difference(had).cloned().collect(),
                    removed_members: had.difference(members).cloned().collect(),
                };
                let same = delta.added_members.is_empty() && delta.removed_members.is_empty();
                (!same).then_some(To::IpSetDeltaUpdate(delta))
            }
            _ => Some(To::IpSetUpdate(IpSetUpdate {
                id,
                members: members.iter().cloned().collect(),
                r#type: *kind,
            })),
        }
    }
}

impl Name {
    /// What a message is about, and whether it says what that is, or that it is gone.
    fn of(message: &To) -> Option<(Name, bool)> {
        Some(match message {
            To::ConfigUpdate(_) => (Name::Config, true),
            To::ActiveProfileUpdate(update) => (Name::Profile(update.id.clone()), true),
            To::ActiveProfileRemove(id) => (Name::Profile(id.clone()), false),
            To::ActivePolicyUpdate(update) => (Name::Policy(update.id.clone()), true),
            To::ActivePolicyRemove(id) => (Name::Policy(id.clone()), false),
            To::IpamPoolUpdate(update) => (Name::Pool(update.id.clone()), true),
            To::IpamPoolRemove(id) => (Name::Pool(id.clone()), false),
            To::HostMetadataUpdate(update) => (Name::Address(update.hostname.clone()), true),
            To::HostMetadataRemove(gone) => (Name::Address(gone.hostname.clone()), false),
            To::HostMetadataV6Update(update) => (Name::AddressV6(update.hostname.clone()), true),
            To::HostMetadataV6Remove(gone) => (Name::AddressV6(gone.hostname.clone()), false),
            To::HostMetadataV4V6Update(update) => (Name::Address(update.hostname.clone()), true),
            To::HostMetadataV4V6Remove(gone) => (Name::Address(gone.hostname.clone()), false),
            To::WireguardEndpointUpdate(update) => (Name::Key(update.hostname.clone()), true),
            To::WireguardEndpointRemove(gone) => (Name::Key(gone.hostname.clone()), false),
            To::WireguardEndpointV6Update(update) => (Name::KeyV6(update.hostname.clone()), true),
            To::WireguardEndpointV6Remove(gone) => (Name::KeyV6(gone.hostname.clone()), false),
            To::RouteUpdate(update) => (Name::Route(update.dst.clone()), true),
            To::RouteRemove(gone) => (Name::Route(gone.dst.clone()), false),
            To::WorkloadEndpointUpdate(update) => (Name::Workload(update.id.clone()), true),
            To::WorkloadEndpointRemove(id) => (Name::Workload(id.clone()), false),
            To::HostEndpointUpdate(update) => (Name::Host(update.endpoint_id.clone()), true),
            To::HostEndpointRemove(id) => (Name::Host(id.clone()), false),
            To::InSync | To::IpSetUpdate(_) | To::IpSetDeltaUpdate(_) | To::IpSetRemove(_) => return None,
        })
    }

    /// The message that it is gone; settings stay as they were last.
    fn removal(&self) -> Option<To> {
        let node = |hostname: &String| HostMetadataRemove {
            hostname: hostname.clone(),
        };
        let key = |hostname: &String| WireguardEndpointRemove {
            hostname: hostname.clone(),
        };
        Some(match self {
            Name::Config => return None,
            Name::Profile(id) => To::ActiveProfileRemove(id.clone()),
            Name::Policy(id) => To::ActivePolicyRemove(id.clone()),
            Name::Pool(id) => To::IpamPoolRemove(id.clone()),
            Name::Address(hostname) => To::HostMetadataV4V6Remove(node(hostname)),
            Name::AddressV6(hostname) => To::HostMetadataV6Remove(node(hostname)),
            Name::Key(hostname) => To::WireguardEndpointRemove(key(hostname)),
            Name::KeyV6(hostname) => To::WireguardEndpointV6Remove(key(hostname)),
            Name::Route(dst) => To::RouteRemove(RouteRemove { dst: dst.clone() }),
            Name::Workload(id) => To::WorkloadEndpointRemove(id.clone()),
            Name::Host(id) => To::HostEndpointRemove(id.clone()),
        })
    }
}
