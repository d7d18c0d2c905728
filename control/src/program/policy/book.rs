//! Policies and profiles by name: their rules, and who has them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use classifier::compiler::Compiler;
use classifier::program::{Policy, PolicyId};

use super::rules::{SetIds, rule, set_names};
use crate::program::felix;

/// Names a policy or a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyName {
    /// A policy.
    Policy(felix::PolicyId),
    /// A profile.
    Profile(String),
}

impl PolicyName {
    /// Its kind.
    pub fn kind(&self) -> &str {
        match self {
            Self::Policy(id) => &id.kind,
            Self::Profile(_) => "Profile",
        }
    }

    /// Its name, behind its namespace where it has one.
    pub fn name(&self) -> String {
        match self {
            Self::Policy(id) if !id.namespace.is_empty() => format!("{}/{}", id.namespace, id.name),
            Self::Policy(id) => id.name.clone(),
            Self::Profile(name) => name.clone(),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind(), self.name())
    }
}

/// Rules as they were told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Written {
    /// Of a policy.
    pub tier: Option<String>,
    pub inbound: Vec<felix::Rule>,
    pub outbound: Vec<felix::Rule>,
}

pub(super) struct Entry {
    pub id: PolicyId,
    /// Nothing until it comes.
    pub written: Option<Written>,
    /// Mentions in chains.
    pub users: usize,
}

/// All of them.
#[derive(Default)]
pub(super) struct Book {
    entries: HashMap<PolicyName, Entry>,
    names: HashMap<PolicyId, PolicyName>,
    /// Who mentions a set.
    mentions: HashMap<String, BTreeSet<PolicyName>>,
}

impl Book {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PolicyName, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn name(&self, id: PolicyId) -> Option<&PolicyName> {
        self.names.get(&id)
    }

    pub(super) fn entry(&self, id: PolicyId) -> Option<&Entry> {
        self.entries.get(self.names.get(&id)?)
    }

    /// It has come, or is another now.
    pub(super) fn write(
        &mut self,
        name: PolicyName,
        written: Written,
        sets: &SetIds,
        compiler: &mut Compiler,
        warn: &mut dyn FnMut(String),
    ) {
        self.forget_mentions(&name);
        for set in written.inbound.iter().chain(&written.outbound).flat_map(set_names) {
            self.mentions.entry(set.clone()).or_default().insert(name.clone());
        }
        let id = self.id(&name, compiler);
        compile(&name, id, &written, sets, compiler, warn);
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.written = Some(written);
        }
    }

    /// It has gone. Who still mentions it denies.
    pub(super) fn remove(&mut self, name: &PolicyName, compiler: &mut Compiler) {
        self.forget_mentions(name);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.written = None;
            compiler.remove_policy(entry.id);
            self.forget_unused(name, compiler);
        }
    }

    /// A set has another name for workers now: who mentions it is compiled again.
    pub(super) fn renamed(&self, set: &str, sets: &SetIds, compiler: &mut Compiler, warn: &mut dyn FnMut(String)) {
        for name in self.mentions.get(set).into_iter().flatten() {
            if let Some((entry, written)) = self
                .entries
                .get(name)
                .and_then(|entry| Some((entry, entry.written.as_ref()?)))
            {
                compile(name, entry.id, written, sets, compiler, warn);
            }
        }
    }

    /// For a chain that mentions it.
    pub(super) fn mention(&mut self, name: PolicyName, compiler: &mut Compiler) -> PolicyId {
        let id = self.id(&name, compiler);
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.users += 1;
        }
        id
    }

    /// A chain that mentioned it is gone.
    pub(super) fn unmention(&mut self, id: PolicyId, compiler: &mut Compiler) {
        let Some(name) = self.names.get(&id).cloned() else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.users = entry.users.saturating_sub(1);
        }
        self.forget_unused(&name, compiler);
    }

    fn id(&mut self, name: &PolicyName, compiler: &mut Compiler) -> PolicyId {
        if let Some(entry) = self.entries.get(name) {
            return entry.id;
        }
        let id = compiler.reserve_policy();
        self.names.insert(id, name.clone());
        let entry = Entry {
            id,
            written: None,
            users: 0,
        };
        self.entries.insert(name.clone(), entry);
        id
    }

    fn forget_unused(&mut self, name: &PolicyName, compiler: &mut Compiler) {
        let unused = |entry: &&Entry| entry.users == 0 && entry.written.is_none();
        if let Some(id) = self.entries.get(name).filter(unused).map(|entry| entry.id) {
            self.entries.remove(name);
            self.names.remove(&id);
            compiler.release_policy(id);
        }
    }

    fn forget_mentions(&mut self, name: &PolicyName) {
        let written = self.entries.get(name).and_then(|entry| entry.written.as_ref());
        let Some(written) = written else { return };
        for set in written.inbound.iter().chain(&written.outbound).flat_map(set_names) {
            if let Some(mentions) = self.mentions.get_mut(set) {
                mentions.remove(name);
                if mentions.is_empty() {
                    self.mentions.remove(set);
                }
            }
        }
    }
}

fn compile(
    name: &PolicyName,
    id: PolicyId,
    written: &Written,
    sets: &SetIds,
    compiler: &mut Compiler,
    warn: &mut dyn FnMut(String),
) {
    let mut rules = |direction: &str, rules: &[felix::Rule]| {
        let mut convert = |(place, written): (usize, &felix::Rule)| {
            let (rule, odd) = rule(written, sets);
            if let Some(odd) = odd {
                warn(format!("{name}, {direction} rule {place}: {odd}"));
            }
            rule
        };
        rules.iter().enumerate().map(&mut convert).collect()
    };
    let policy = Policy {
        ingress: rules("ingress", &written.inbound),
        egress: rules("egress", &written.outbound),
    };
    compiler.set_policy(id, policy);
}
