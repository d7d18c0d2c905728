//! Resources to what the plane is told: labels and selectors become sets of addresses, and policies, tiers and profiles
//! become what each endpoint has, in the messages of Felix's data-plane protocol.
//!
//! [`Agent::update`] takes a change, [`Agent::flush`] says what follows from all since the last. Both cost what the
//! change touches. Only policies, profiles and sets that an endpoint needs are told of, as Felix does.

mod index;
mod items;
mod kubernetes;
mod policies;
mod rules;
pub mod selector;
mod services;
mod sets;
mod told;
mod track;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use index::{Index, ItemId, SelectorId};
use items::{Endpoint, Item};
use policies::{ALLOW_ALL, Compiled};
use rules::Named;
use selector::{Expression, Labels};
use services::Services;
use sets::Sets;

use crate::program::felix::{self, PolicyId, ToDataplane};
use crate::resource::calico::{DEFAULT_TIER, TierSpec};
use crate::resource::{Key, Kind, Resource};
use crate::store::{Change, Plan};

/// Turns resources into messages.
#[derive(Debug)]
pub struct Agent {
    /// The node whose endpoints have policy here; all where it has no name.
    here: Option<String>,
    /// Endpoints that other nodes have.
    elsewhere: HashSet<Key>,
    tiers: HashMap<String, Tier>,
    policies: HashMap<PolicyId, Policy>,
    profiles: HashMap<String, Profile>,
    items: HashMap<ItemId, Item>,
    services: Services,
    pools: BTreeMap<Key, (IpNet, bool)>,
    index: Index,
    selectors: HashMap<Expression, SelectorId>,
    uses: HashMap<SelectorId, Uses>,
    sets: Sets,
    numbers: Numbers,
    changed: Changed,
    told: Told,
}

#[derive(Debug, Default)]
struct Tier {
    /// None where no such resource is there, only policies that name it.
    spec: Option<TierSpec>,
    policies: HashSet<PolicyId>,
}

#[derive(Debug)]
struct Policy {
    compiled: Compiled,
    selector: SelectorId,
}

#[derive(Debug, Default)]
struct Profile {
    /// None where no such resource is there, only endpoints that name it.
    rules: Option<policies::Profile>,
    labels: Labels,
    users: HashSet<ItemId>,
}

/// Who needs to know what a selector selects.
#[derive(Debug, Default)]
struct Uses {
    policies: BTreeSet<PolicyId>,
    sets: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Numbers {
    items: HashMap<Key, ItemId>,
    next_item: ItemId,
    next_selector: SelectorId,
}

/// What may have to be told.
#[derive(Debug, Default)]
struct Changed {
    policies: BTreeSet<PolicyId>,
    profiles: BTreeSet<String>,
    items: BTreeSet<ItemId>,
}

/// What the plane knows.
#[derive(Debug, Default)]
struct Told {
    policies: HashMap<PolicyId, (felix::Policy, Named)>,
    profiles: HashMap<String, policies::Profile>,
    endpoints: HashMap<ItemId, Endpoint>,
}

impl Default for Agent {
    fn default() -> Self {
        let default_tier = Tier {
            spec: Some(TierSpec::DEFAULT),
            policies: HashSet::new(),
        };
        let allow_all = Profile {
            rules: Some(policies::allow_all()),
            ..Profile::default()
        };
        Self {
            here: None,
            elsewhere: HashSet::new(),
            tiers: HashMap::from([(DEFAULT_TIER.to_owned(), default_tier)]),
            policies: HashMap::new(),
            profiles: HashMap::from([(ALLOW_ALL.to_owned(), allow_all)]),
            items: HashMap::new(),
            services: Services::default(),
            pools: BTreeMap::new(),
            index: Index::default(),
            selectors: HashMap::new(),
            uses: HashMap::new(),
            sets: Sets::default(),
            numbers: Numbers::default(),
            changed: Changed::default(),
            told: Told::default(),
        }
    }
}

impl Agent {
    /// An agent of one node of several: resources tell of endpoints on others too, whose addresses are in sets, but whose
    /// policy is in force there.
    pub fn of_node(name: impl Into<String>) -> Self {
        Self {
            here: Some(name.into()),
            ..Self::default()
        }
    }

    /// Whether there are endpoints, here or elsewhere: there is policy then, and what nobody described is closed.
    pub fn has_endpoints(&self) -> bool {
        !self.elsewhere.is_empty() || !self.told.endpoints.is_empty()
    }

    /// Takes the changes of a plan and says what follows from them.
    pub fn apply(&mut self, plan: &Plan) -> Vec<ToDataplane> {
        for planned in plan
            .changes
            .iter()
            .filter(|planned| planned.change != Change::Unchanged)
        {
            self.update(&planned.key, planned.before.as_deref(), planned.after.as_deref());
        }
        self.flush()
    }

    /// Takes the changes of a plan back, as when the plane could not carry them out, and says what follows from that.
    pub fn revert(&mut self, plan: &Plan) -> Vec<ToDataplane> {
        for planned in plan.changes.iter().rev() {
            self.update(&planned.key, planned.after.as_deref(), planned.before.as_deref());
        }
        self.flush()
    }

    /// A resource was `before` and is `after`. Kinds that say nothing about policy are passed over.
    pub fn update(&mut self, key: &Key, before: Option<&Resource>, after: Option<&Resource>) {
        match key.kind {
            Kind::Tier => self.set_tier(&key.name, after),
            Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::KubernetesNetworkPolicy => {
                let id = before.and_then(policies::compile).map(|compiled| compiled.id);
                self.set_policy(id, after.and_then(policies::compile));
            }
            Kind::WorkloadEndpoint | Kind::HostEndpoint | Kind::NetworkSet | Kind::GlobalNetworkSet => {
                let is_elsewhere = after.and_then(items::node_of).is_some_and(|node| !self.is_here(node));
                let mut item = after.and_then(Item::of);
                if let Some(item) = item.as_mut().filter(|_| is_elsewhere) {
                    item.endpoint = None;
                }
                self.set_item(key, item);
                if is_elsewhere {
                    self.elsewhere.insert(key.clone());
                } else {
                    self.elsewhere.remove(key);
                }
            }
            Kind::Profile | Kind::Namespace | Kind::ServiceAccount => {
                if let Some(name) = before.or(after).and_then(policies::profile_name) {
                    self.set_profile(name, after.and_then(policies::profile_of));
                }
            }
            Kind::EndpointSlice => self.set_slice(key, before, after),
            Kind::IpPool => {
                match after {
                    Some(Resource::IpPool(pool)) => {
                        let spec = &pool.body.spec;
                        self.pools.insert(key.clone(), (spec.cidr, spec.nat_outgoing));
                    }
                    _ => {
                        self.pools.remove(key);
                    }
                };
            }
            _ => {}
        }
    }

    fn is_here(&self, node: &str) -> bool {
        self.here.as_deref().is_none_or(|here| here == node)
    }

    /// The pools, and whether what leaves each for the world has to leave with an address of the host
    /// (`IPPool.natOutgoing`). What goes from a pool to any pool keeps its address.
    pub fn pools(&self) -> impl Iterator<Item = (IpNet, bool)> {
        self.pools.values().copied()
    }

    /// What the plane has to be told since the last time: sets, policies, profiles, then endpoints; and what goes, the
    /// other way round.
    pub fn flush(&mut self) -> Vec<ToDataplane> {
        let changed = std::mem::take(&mut self.changed);
        let policies: Vec<_> = changed
            .policies
            .into_iter()
            .map(|id| (self.policy_wanted(&id), id))
            .collect();
        let profiles: Vec<_> = changed
            .profiles
            .into_iter()
            .map(|name| (self.profile_wanted(&name), name))
            .collect();
        let wanted = policies.iter().filter_map(|(policy, _)| Some(&policy.as_ref()?.1));
        let wanted = wanted.chain(
            profiles
                .iter()
                .filter_map(|(profile, _)| Some(&profile.as_ref()?.named)),
        );
        let mut acquired = vec![];
        wanted.for_each(|named| acquired.extend(named.iter().map(|(id, of)| (id.clone(), of.clone()))));
        acquired
            .iter()
            .for_each(|(id, definition)| self.acquire(id, definition));

        let (mut news, mut gone, mut released) = (vec![], vec![], vec![]);
        for (policy, id) in policies {
            released.extend(self.told.tell_policy(id, policy, &mut news, &mut gone));
        }
        for (profile, name) in profiles {
            released.extend(self.told.tell_profile(name, profile, &mut news, &mut gone));
        }
        released.iter().for_each(|id| self.release(id));

        // Endpoints that go make room for others with their name.
        let (mut messages, mut endpoints) = (vec![], vec![]);
        for item in changed.items {
            let wanted = self.endpoint_wanted(item);
            self.told.tell_endpoint(item, wanted, &mut endpoints, &mut messages);
        }
        messages.extend(self.sets.news());
        messages.append(&mut news);
        messages.append(&mut endpoints);
        messages.append(&mut gone);
        messages.extend(self.sets.gone());
        messages
    }
}
