//! Members of sets, from the text that Felix sends.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use classifier::compiler::Compiler;
use classifier::rule::SetId;
use classifier::sets::{Change, Kind, Member, SetError};
use ipnet::IpNet;

use super::rules::{SetIds, network, protocol_number};
use crate::program::felix::{IpSetDeltaUpdate, IpSetType, IpSetUpdate};

/// The sets that Felix has told of.
#[derive(Default)]
pub(super) struct Sets {
    ids: SetIds,
    kinds: HashMap<String, Kind>,
}

/// What became of a message about a set.
pub(super) enum Told {
    /// Nothing that rules need to know.
    Members,
    /// Its name is another now: policies that name it are to be compiled again.
    Renamed,
}

impl Sets {
    pub(super) fn ids(&self) -> &SetIds {
        &self.ids
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All members anew. What was a member before and is now never stops being one.
    pub(super) fn update(
        &mut self,
        update: &IpSetUpdate,
        compiler: &mut Compiler,
        warn: &mut dyn FnMut(String),
    ) -> Result<Told, SetError> {
        let kind = match update.r#type {
            IpSetType::Ip | IpSetType::Net => Kind::Networks,
            IpSetType::IpAndPort => Kind::Ports,
        };
        let mut told = Told::Members;
        if self.kinds.get(&update.id).is_some_and(|before| *before != kind) {
            self.remove(&update.id, compiler);
        }
        let id = match self.ids.get(&update.id) {
            Some(id) => *id,
            None => {
                told = Told::Renamed;
                compiler.create_set(kind)?
            }
        };
        let wanted: HashSet<Member> = self.members(&update.id, kind, &update.members, warn).collect();
        let present: HashSet<Member> = compiler.sets().members(id).copied().collect();
        let mut changes: Vec<Change> = vec![];
        changes.extend(wanted.difference(&present).map(|member| change(id, *member, true)));
        changes.extend(present.difference(&wanted).map(|member| change(id, *member, false)));
        self.ids.insert(update.id.clone(), id);
        self.kinds.insert(update.id.clone(), kind);
        compiler.change_members(&changes)?;
        Ok(told)
    }

    /// Some members come, others go.
    pub(super) fn change(
        &mut self,
        delta: &IpSetDeltaUpdate,
        compiler: &mut Compiler,
        warn: &mut dyn FnMut(String),
    ) -> Result<(), SetError> {
        let (Some(id), Some(kind)) = (self.ids.get(&delta.id).copied(), self.kinds.get(&delta.id).copied()) else {
            warn(format!("set {}: members came before the set", delta.id));
            return Ok(());
        };
        let mut changes: Vec<Change> = vec![];
        for (members, present) in [(&delta.removed_members, false), (&delta.added_members, true)] {
            let members = self.members(&delta.id, kind, members, warn);
            changes.extend(members.map(|member| change(id, member, present)));
        }
        compiler.change_members(&changes)
    }

    /// It is there no more.
    pub(super) fn remove(&mut self, name: &str, compiler: &mut Compiler) {
        self.kinds.remove(name);
        if let Some(id) = self.ids.remove(name) {
            compiler.remove_set(id);
        }
    }

    fn members(
        &self,
        set: &str,
        kind: Kind,
        texts: &[String],
        warn: &mut dyn FnMut(String),
    ) -> impl Iterator<Item = Member> + use<> {
        let mut members = vec![];
        for text in texts {
            let member = match kind {
                Kind::Networks => network(text).map(Member::Network),
                Kind::Ports => port_member(text),
            };
            match member {
                Some(member) => members.push(member),
                None => warn(format!(
                    "set {set}: the member `{}` is left out: it is none",
                    text.escape_debug()
                )),
            }
        }
        members.into_iter()
    }
}

fn change(set: SetId, member: Member, present: bool) -> Change {
    Change { set, member, present }
}

/// `10.0.0.1,tcp:80`.
fn port_member(text: &str) -> Option<Member> {
    let (address, rest) = text.split_once(',')?;
    let (protocol, port) = rest.split_once(':')?;
    let address: IpAddr = match address.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let net: IpNet = address.parse().ok()?;
            (net.prefix_len() == net.max_prefix_len()).then_some(net.addr())?
        }
    };
    Some(Member::Port {
        address,
        protocol: protocol_number(protocol)?,
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_with_ports() {
        let tcp = |address: &str, port| Member::Port {
            address: address.parse().unwrap(),
            protocol: 6,
            port,
        };
        assert_eq!(port_member("10.0.0.1,tcp:80"), Some(tcp("10.0.0.1", 80)));
        assert_eq!(port_member("fd00::1,TCP:0"), Some(tcp("fd00::1", 0)));
        assert_eq!(port_member("10.0.0.1/32,6:80"), Some(tcp("10.0.0.1", 80)));
        for odd in [
            "",
            "10.0.0.1",
            "10.0.0.1,80",
            "10.0.0.0/24,tcp:80",
            "10.0.0.1,tcp:70000",
            "10.0.0.1,gre:1",
        ] {
            assert_eq!(port_member(odd), None, "{odd}");
        }
    }
}
