//! Sets of addresses: what a selector, a named port or a service stands for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use base64ct::{Base64UrlUnpadded, Encoding};
use blake2::{Blake2s256, Digest};
use ipnet::IpNet;

use super::selector::Expression;
use crate::program::felix::{IpSetDeltaUpdate, IpSetType, IpSetUpdate, ToDataplane};

/// What a set is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    /// Whatever has such labels.
    Selector(Expression),
    /// The ports of this name and protocol number, of what has such labels.
    NamedPort(Expression, u8, String),
    /// The endpoints of a service.
    Service(ServiceName, ServicePart),
}

/// A service, by namespace and name.
pub(super) type ServiceName = (String, String);

/// What of a service's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServicePart {
    /// Addresses, for rules about who sends.
    Addresses,
    /// Addresses with protocol and port.
    Ports,
}

impl Definition {
    /// The same for the same meaning in every process, and nobody finds two meanings with one.
    pub(super) fn id(&self) -> String {
        let (prefix, text) = match self {
            Self::Selector(expression) => ("s", expression.to_string()),
            Self::NamedPort(expression, protocol, name) => ("n", format!("{expression},{protocol},{name}")),
            Self::Service((namespace, name), ServicePart::Ports) => ("svc", format!("{namespace}/{name}")),
            Self::Service((namespace, name), ServicePart::Addresses) => ("svcnoport", format!("{namespace}/{name}")),
        };
        let hash = Blake2s256::digest(text.as_bytes());
        let mut text = [0; 43];
        let hash = Base64UrlUnpadded::encode(&hash, &mut text).unwrap_or_default();
        format!("{prefix}:{hash}")
    }

    /// What its members are.
    pub(super) fn members(&self) -> IpSetType {
        match self {
            Self::Selector(_) | Self::Service(_, ServicePart::Addresses) => IpSetType::Net,
            Self::NamedPort(..) | Self::Service(_, ServicePart::Ports) => IpSetType::IpAndPort,
        }
    }
}

/// One of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Member {
    Net(IpNet),
    /// Address, protocol number, port.
    Port(IpAddr, u8, u16),
}

impl fmt::Display for Member {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(out),
            Self::Port(address, protocol, port) => {
                let protocol = match protocol {
                    6 => "tcp",
                    17 => "udp",
                    132 => "sctp",
                    _ => return write!(out, "{address},{protocol}:{port}"),
                };
                write!(out, "{address},{protocol}:{port}")
            }
        }
    }
}

/// All sets that rules in force name.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: HashMap<String, Set>,
    /// Those that changed since they were last told of.
    touched: BTreeSet<String>,
    /// Told of, and not there any more.
    gone: BTreeSet<String>,
}

#[derive(Debug)]
struct Set {
    definition: Definition,
    /// Of policies and profiles.
    users: usize,
    /// How many items a member comes from.
    members: HashMap<Member, usize>,
    /// Members that came or went since, and whether they were there before.
    changed: BTreeMap<Member, bool>,
    told: bool,
}

impl Sets {
    /// One more rule names the set. Whether it is new, and wants members.
    pub(super) fn acquire(&mut self, id: &str, definition: &Definition) -> bool {
        if let Some(set) = self.sets.get_mut(id) {
            set.users += 1;
            return false;
        }
        let told = self.gone.remove(id);
        debug_assert!(!told, "sets are released after others were acquired");
        let set = Set {
            definition: definition.clone(),
            users: 1,
            members: HashMap::new(),
            changed: BTreeMap::new(),
            told,
        };
        self.sets.insert(id.to_owned(), set);
        self.touched.insert(id.to_owned());
        true
    }

    /// One rule less names the set. What it was, if that was the last.
    pub(super) fn release(&mut self, id: &str) -> Option<Definition> {
        let set = self.sets.get_mut(id)?;
        set.users -= 1;
        if set.users > 0 {
            return None;
        }
        let set = self.sets.remove(id)?;
        self.touched.remove(id);
        if set.told {
            self.gone.insert(id.to_owned());
        }
        Some(set.definition)
    }

    /// What a set is made from.
    pub(super) fn definition(&self, id: &str) -> Option<&Definition> {
        self.sets.get(id).map(|set| &set.definition)
    }

    /// `members` come to a set, or go, from one item.
    pub(super) fn change(&mut self, id: &str, members: impl IntoIterator<Item = Member>, come: bool) {
        let Some(set) = self.sets.get_mut(id) else { return };
        let mut any = false;
        for member in members {
            any = true;
            let count = set.members.entry(member).or_default();
            set.changed.entry(member).or_insert(*count > 0);
            *count = if come { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                set.members.remove(&member);
            }
        }
        if any && !self.touched.contains(id) {
            self.touched.insert(id.to_owned());
        }
    }

    /// What is new of sets, by name.
    pub(super) fn news(&mut self) -> Vec<ToDataplane> {
        let touched = std::mem::take(&mut self.touched);
        touched
            .into_iter()
            .filter_map(|id| self.sets.get_mut(&id)?.news(id))
            .collect()
    }

    /// Sets that are not there any more.
    pub(super) fn gone(&mut self) -> impl Iterator<Item = ToDataplane> + use<> {
        std::mem::take(&mut self.gone).into_iter().map(ToDataplane::IpSetRemove)
    }
}

impl Set {
    fn news(&mut self, id: String) -> Option<ToDataplane> {
        let changed = std::mem::take(&mut self.changed);
        if !self.told {
            self.told = true;
            let mut members: Vec<_> = self.members.keys().copied().collect();
            members.sort_unstable();
            return Some(ToDataplane::IpSetUpdate(IpSetUpdate {
                id,
                members: members.iter().map(Member::to_string).collect(),
                r#type: self.definition.members(),
            }));
        }
        let mut delta = IpSetDeltaUpdate {
            id,
            ..IpSetDeltaUpdate::default()
        };
        for (member, was) in changed {
            match (was, self.members.contains_key(&member)) {
                (false, true) => delta.added_members.push(member.to_string()),
                (true, false) => delta.removed_members.push(member.to_string()),
                _ => {}
            }
        }
        let nothing = delta.added_members.is_empty() && delta.removed_members.is_empty();
        (!nothing).then_some(ToDataplane::IpSetDeltaUpdate(delta))
    }
}
