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
mod sets;
mod told;
mod track;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use index::{Index, ItemId, SelectorId};
use items::{Endpoint, Item};
use policies::{ALLOW_ALL, Compiled};
use rules::Named;
use selector::{Expression, Labels};
use sets::{Definition, ServiceName, ServicePart, Sets};

use crate::program::felix::{self, PolicyId, ToDataplane};
use crate::resource::calico::{DEFAULT_TIER, Protocol, TierSpec};
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
    services: HashMap<ServiceName, Vec<ServiceEndpoint>>,
    pools: BTreeMap<Key, (IpNet, bool)>,
    index: Index,
    selectors: HashMap<Expression, SelectorId>,
    uses: HashMap<SelectorId, Uses>,
    sets: Sets,
    numbers: Numbers,
    changed: Changed,
    told: Told,
}

/// Where an endpoint of a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// The protocol of the port.
    pub protocol: Protocol,
    /// Its own port, not the service's.
    pub port: u16,
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
            services: HashMap::new(),
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

    /// The endpoints of a service that rules can name are these; none if it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, endpoints: Vec<ServiceEndpoint>) {
        let service = (namespace.to_owned(), name.to_owned());
        let old = self.services.remove(&service).unwrap_or_default();
        for part in [ServicePart::Addresses, ServicePart::Ports] {
            let id = Definition::Service(service.clone(), part).id();
            self.sets
                .change(&id, old.iter().map(|endpoint| endpoint.member(part)), false);
            self.sets
                .change(&id, endpoints.iter().map(|endpoint| endpoint.member(part)), true);
        }
        if !endpoints.is_empty() {
            self.services.insert(service, endpoints);
        }
    }

    /// The pools, and whether what leaves each for the world has to leave with an address of the host
    /// (`IPPool.natOutgoing`). What goes from a pool to any pool keeps its address.
    pub fn pools(&self) -> Vec<(IpNet, bool)> {
        self.pools.values().copied().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Source, read};

    fn resource(text: &str) -> Resource {
        read(&[Source::file("a.yaml", text)]).unwrap().remove(0).resource
    }

    fn texts(messages: &[ToDataplane]) -> Vec<String> {
        let text = |message: &ToDataplane| match message {
            ToDataplane::IpSetUpdate(set) => format!("{} {:?}", set.id.split(':').next().unwrap(), set.members),
            ToDataplane::IpSetDeltaUpdate(delta) => format!("+{:?} -{:?}", delta.added_members, delta.removed_members),
            other => format!("{other:?}").split('(').next().unwrap().to_owned(),
        };
        messages.iter().map(text).collect()
    }

    #[test]
    fn rules_follow_services() {
        let mut agent = Agent::default();
        let pod = "{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: a}, \
                   spec: {ipNetworks: [10.0.0.1], interfaceName: if0}}";
        let policy = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p}, \
                      spec: {egress: [{action: Allow}], ingress: [{action: Deny}]}}";
        let mut policy = resource(policy);
        if let Resource::NetworkPolicy(object) = &mut policy {
            let services: crate::resource::calico::ServiceMatch = serde_json::from_str(r#"{"name": "db"}"#).unwrap();
            object.body.spec.egress[0].destination.services = Some(services.clone());
            object.body.spec.ingress[0].source.services = Some(services);
        }
        let at = |port| ServiceEndpoint {
            address: IpAddr::from([10, 0, 0, 9]),
            protocol: Protocol::Name("TCP"),
            port,
        };
        agent.set_service("default", "db", vec![at(5432)]);
        agent.set_service("other", "db", vec![at(1)]);
        for resource in [resource(pod), policy] {
            agent.update(&resource.key(), None, Some(&resource));
        }
        assert_eq!(
            texts(&agent.flush()),
            [
                "svc [\"10.0.0.9,tcp:5432\"]",
                "svcnoport [\"10.0.0.9/32\"]",
                "ActivePolicyUpdate",
                "WorkloadEndpointUpdate"
            ]
        );
        agent.set_service("default", "db", vec![at(5432), at(5433)]);
        assert_eq!(texts(&agent.flush()), ["+[\"10.0.0.9,tcp:5433\"] -[]"]);
        agent.set_service("default", "db", vec![]);
        assert_eq!(
            texts(&agent.flush()),
            [
                "+[] -[\"10.0.0.9,tcp:5432\", \"10.0.0.9,tcp:5433\"]",
                "+[] -[\"10.0.0.9/32\"]"
            ]
        );
    }
}
