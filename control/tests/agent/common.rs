//! An agent that reads YAML.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::agent::Agent;
use control::program::felix::{
    HostEndpoint, Policy, PolicyId, Rule, ToDataplane, WorkloadEndpoint, WorkloadEndpointId,
};
use control::refusal::Refusal;
use control::resource::{Key, Named, Source, read, read_keys};
use control::store::{Request, Store};

/// A store, an agent, and what a plane would know that listened to it.
#[derive(Default)]
pub struct Cluster {
    store: Store,
    pub agent: Agent,
    pub plane: Listener,
}

/// What a plane knows after the messages so far.
#[derive(Debug, Default, PartialEq)]
pub struct Listener {
    pub sets: BTreeMap<String, BTreeMap<String, ()>>,
    pub policies: BTreeMap<PolicyId, Policy>,
    pub profiles: BTreeMap<String, (Vec<Rule>, Vec<Rule>)>,
    pub workloads: BTreeMap<WorkloadEndpointId, WorkloadEndpoint>,
    pub hosts: BTreeMap<String, HostEndpoint>,
}

impl Cluster {
    pub fn of(yaml: &str) -> Self {
        let mut cluster = Self::default();
        cluster.apply(yaml);
        cluster
    }

    /// The messages that applying the documents makes.
    pub fn apply(&mut self, yaml: &str) -> Vec<ToDataplane> {
        self.try_apply(yaml).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    pub fn try_apply(&mut self, yaml: &str) -> Result<Vec<ToDataplane>, Refusal> {
        let documents = read(&[Source::file("a.yaml", yaml)])?;
        self.carry_out(Request::Apply(documents))
    }

    pub fn delete(&mut self, yaml: &str) -> Vec<ToDataplane> {
        self.try_delete(yaml).unwrap()
    }

    pub fn try_delete(&mut self, yaml: &str) -> Result<Vec<ToDataplane>, Refusal> {
        self.carry_out(Request::Delete(read_keys(&[Source::file("a.yaml", yaml)])?))
    }

    pub fn keys(&self) -> Vec<Key> {
        self.store.all().map(|(key, _)| key.clone()).collect()
    }

    pub fn delete_all(&mut self) {
        let named = self.keys().into_iter().map(|key| Named {
            origin: key.to_string(),
            key,
        });
        let named = named.collect();
        self.carry_out(Request::Delete(named)).unwrap();
    }

    /// A request that the plane cannot carry out.
    pub fn try_in_vain(&mut self, yaml: &str, delete: bool) {
        let source = [Source::file("a.yaml", yaml)];
        let request = match delete {
            true => read_keys(&source).map(Request::Delete),
            false => read(&source).map(Request::Apply),
        };
        if let Ok(plan) = request.and_then(|request| self.store.plan(request)) {
            let messages = self.agent.apply(&plan);
            self.plane.hear(&messages);
            let messages = self.agent.revert(&plan);
            self.plane.hear(&messages);
        }
    }

    pub fn carry_out(&mut self, request: Request) -> Result<Vec<ToDataplane>, Refusal> {
        let plan = self.store.plan(request)?;
        let messages = self.agent.apply(&plan);
        self.store.commit(&plan);
        self.plane.hear(&messages);
        Ok(messages)
    }

    /// What a plane would know whose agent is told all resources at once.
    pub fn anew(&self) -> Listener {
        let mut agent = Agent::default();
        for (key, resource) in self.store.all() {
            agent.update(key, None, Some(Arc::as_ref(resource)));
        }
        let mut plane = Listener::default();
        plane.hear(&agent.flush());
        plane
    }
}

impl Listener {
    /// Takes messages as they come, and holds them to their order: nothing names what is not there.
    pub fn hear(&mut self, messages: &[ToDataplane]) {
        for message in messages {
            self.hear_one(message);
            self.check();
        }
    }

    fn hear_one(&mut self, message: &ToDataplane) {
        match message {
            ToDataplane::IpSetUpdate(set) => {
                let members = set.members.iter().map(|member| (member.clone(), ())).collect();
                self.sets.insert(set.id.clone(), members);
            }
            ToDataplane::IpSetDeltaUpdate(delta) => {
                let set = self.sets.get_mut(&delta.id).expect("a set that is there");
                for member in &delta.added_members {
                    assert!(set.insert(member.clone(), ()).is_none(), "{member} was there");
                }
                for member in &delta.removed_members {
                    assert!(set.remove(member).is_some(), "{member} was not there");
                }
            }
            ToDataplane::IpSetRemove(id) => assert!(self.sets.remove(id).is_some()),
            ToDataplane::ActivePolicyUpdate(update) => {
                self.policies.insert(update.id.clone(), update.policy.clone());
            }
            ToDataplane::ActivePolicyRemove(id) => assert!(self.policies.remove(id).is_some()),
            ToDataplane::ActiveProfileUpdate(update) => {
                let rules = (update.inbound_rules.clone(), update.outbound_rules.clone());
                self.profiles.insert(update.id.clone(), rules);
            }
            ToDataplane::ActiveProfileRemove(id) => assert!(self.profiles.remove(id).is_some()),
            ToDataplane::WorkloadEndpointUpdate(update) => {
                self.workloads.insert(update.id.clone(), update.endpoint.clone());
            }
            ToDataplane::WorkloadEndpointRemove(id) => assert!(self.workloads.remove(id).is_some()),
            ToDataplane::HostEndpointUpdate(update) => {
                self.hosts.insert(update.endpoint_id.clone(), update.endpoint.clone());
            }
            ToDataplane::HostEndpointRemove(id) => assert!(self.hosts.remove(id).is_some()),
            other => panic!("not about policy: {other:?}"),
        }
    }

    fn check(&self) {
        let rules = self
            .policies
            .values()
            .flat_map(|policy| policy.inbound_rules.iter().chain(&policy.outbound_rules));
        let rules = rules.chain(
            self.profiles
                .values()
                .flat_map(|(inbound, outbound)| inbound.iter().chain(outbound)),
        );
        for rule in rules {
            let ends = [&rule.src, &rule.dst].into_iter();
            let sets = ends.flat_map(|end| {
                let named = end.named_port_ip_set_ids.iter().chain(&end.not_named_port_ip_set_ids);
                end.ip_set_ids.iter().chain(&end.not_ip_set_ids).chain(named)
            });
            for set in sets.chain(&rule.dst_ip_port_set_ids) {
                assert!(self.sets.contains_key(set), "no set {set} for {rule:?}");
            }
        }
        let workloads = self.workloads.values().flat_map(|workload| &workload.tiers);
        let hosts = self.hosts.values().flat_map(|host| {
            let early = host.untracked_tiers.iter().chain(&host.pre_dnat_tiers);
            host.tiers.iter().chain(&host.forward_tiers).chain(early)
        });
        for tier in workloads.chain(hosts) {
            for policy in tier.ingress_policies.iter().chain(&tier.egress_policies) {
                assert!(self.policies.contains_key(policy), "no policy {policy:?}");
            }
        }
    }
}
