//! Control's end: told of sets, policies and chains, it compiles what changed and publishes it whole.

use crate::classify::Classifier;
use crate::endpoints::{Endpoint, Endpoints, Settings};
use crate::lookup::Way;
use crate::lookup::hash::Multipliers;
use crate::program::{Chain, ChainId, Compiled, Direction, Policy, PolicyId, Program, Steps};
use crate::rule::{Rule, SetId};
use crate::ruleset::{Ruleset, Splice, Unfinished};
use crate::sets::{Capacity, Change, Kind, SetError, Sets};
use crate::tally::{Count, Place, Places, Tallies, Tally};
use fastpath::meta::PortId;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

/// A policy as written, and the sets it names.
struct Written {
    policy: Policy,
    compiled: Compiled,
}

/// Where a rule is counted, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter(Place);

/// A chain, and how many use it.
struct Shared {
    chain: Arc<Chain>,
    users: usize,
}

/// Compiles policies and publishes them to workers.
///
/// Sets change at once, a member at a time; policies, chains and endpoints change for workers with
/// [`publish`](Self::publish), all of them together, between two vectors.
pub struct Compiler {
    sets: Sets,
    next: Program,
    publisher: Publisher<Program>,
    policies: HashMap<PolicyId, Written>,
    policy_names: Names,
    /// Which policies name a set, or have named it.
    users: HashMap<SetId, HashSet<PolicyId>>,
    /// Sets that go when no published policy names them.
    removed: Vec<SetId>,
    chains: HashMap<ChainId, Shared>,
    by_chain: HashMap<Arc<Chain>, ChainId>,
    chain_names: Names,
    /// Released chains, with the stamp after which no worker has a packet that names them.
    released: VecDeque<(u64, ChainId)>,
    qsbr: Arc<Qsbr>,
    multipliers: Multipliers,
    tallies: Tallies,
    now_ns: u64,
}

/// Numbers from 1 on, the lowest that is free first.
#[derive(Default)]
struct Names {
    free: BTreeSet<u32>,
    given: u32,
}

impl Names {
    fn give(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.given += 1;
            self.given
        })
    }
}

impl Compiler {
    /// Without sets, policies and chains. Workers announce their turns to `qsbr`.
    ///
    /// # Errors
    /// The kernel's, if it has no memory of that `capacity`.
    pub fn new(capacity: Capacity, qsbr: Arc<Qsbr>) -> io::Result<Compiler> {
        Compiler::with_multipliers(capacity, qsbr, Multipliers::random())
    }

    /// The same with hashes of one's own choice, so that measurements can be repeated.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_multipliers(capacity: Capacity, qsbr: Arc<Qsbr>, multipliers: Multipliers) -> io::Result<Compiler> {
        Ok(Compiler {
            sets: Sets::new(capacity, qsbr.clone())?,
            next: Program::default(),
            publisher: Publisher::new(Program::default()),
            policies: HashMap::new(),
            policy_names: Names::default(),
            users: HashMap::new(),
            removed: vec![],
            chains: HashMap::new(),
            by_chain: HashMap::new(),
            chain_names: Names::default(),
            released: VecDeque::new(),
            qsbr,
            multipliers,
            tallies: Tallies::default(),
            now_ns: 0,
        })
    }

    /// A worker's end.
    pub fn classifier(&self) -> Classifier {
        self.classifier_with(Way::best())
    }

    /// The same, looking up in a given way.
    pub fn classifier_with(&self, way: Way) -> Classifier {
        Classifier::new(self.publisher.reader(), self.sets.view(), way, None)
    }

    /// Counters for one worker.
    pub fn tally(&self) -> Arc<Tally> {
        self.tallies.tally()
    }

    /// A worker's end that counts with that worker's counters.
    pub fn counting(&self, tally: Arc<Tally>) -> Classifier {
        Classifier::new(self.publisher.reader(), self.sets.view(), Way::best(), Some(tally))
    }

    /// Where a rule is counted, if it is there.
    pub fn counter(&self, id: PolicyId, direction: Direction, rule: u32) -> Option<Counter> {
        let written = self.policies.get(&id)?;
        let place = written.compiled.places.of(direction).get(rule as usize)?;
        Some(Counter(*place))
    }

    /// Adds to what was counted for a rule: what packets carried that were not judged one by one.
    pub fn credit(&mut self, counter: Counter, packets: u64, bytes: u64) {
        self.tallies.credit(counter.0, packets, bytes, self.now_ns);
    }

    /// Which rules of policies a chain asks, if there is such a chain.
    pub fn direction(&self, chain: ChainId) -> Option<Direction> {
        self.chains.get(&chain).map(|shared| shared.chain.direction)
    }

    /// What time it is, for rules that come.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// What was counted for each rule of a policy.
    pub fn counts(&self, id: PolicyId, direction: Direction) -> Vec<Count> {
        let written = self.policies.get(&id);
        let places = written.map(|written| written.compiled.places.of(direction).iter());
        places
            .into_iter()
            .flatten()
            .map(|place| self.tallies.count(*place))
            .collect()
    }

    /// The sets.
    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// A new set without members.
    ///
    /// # Errors
    /// [`SetError::TooMany`].
    pub fn create_set(&mut self, kind: Kind) -> Result<SetId, SetError> {
        self.sets.create(kind)
    }

    /// Makes members of sets come and go, as [`Sets::apply`] says. Workers see it at once.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn change_members(&mut self, changes: &[Change]) -> Result<(), SetError> {
        self.sets.apply(changes)
    }

    /// Removes a set, when the next [`publish`](Self::publish) has gone out. Policies that still name it deny from then on
    /// what comes to them.
    pub fn remove_set(&mut self, set: SetId) {
        self.removed.push(set);
        for policy in self.users.remove(&set).unwrap_or_default() {
            self.withdraw(policy, set);
        }
    }

    /// The name of a policy or profile that is still to come. Until it does, it denies what comes to it.
    pub fn reserve_policy(&mut self) -> PolicyId {
        PolicyId(self.policy_names.give())
    }

    /// Gives a policy or profile its rules.
    pub fn set_policy(&mut self, id: PolicyId, policy: Policy) {
        let missing = |rule: &Rule| missing(&self.sets, rule) || names(rule).any(|set| self.removed.contains(&set));
        let compile = |old: Option<(&Ruleset, &[Rule])>, rules: &[Rule]| {
            Arc::new(match old {
                Some((ruleset, old)) => ruleset.recompile(old, rules, missing, self.multipliers),
                None => Ruleset::compile(rules, missing, self.multipliers),
            })
        };
        let old = self.policies.get(&id);
        let none = Policy::default();
        let (was, places) = old.map_or((&none, Places::default()), |old| {
            (&old.policy, old.compiled.places.clone())
        });
        let (tallies, now_ns) = (&mut self.tallies, self.now_ns);
        let mut placed = |direction, was: &[Rule], rules: &[Rule]| {
            moved(tallies, places.of(direction), &Splice::between(was, rules), now_ns)
        };
        let places = Places::new(
            placed(Direction::Ingress, &was.ingress, &policy.ingress),
            placed(Direction::Egress, &was.egress, &policy.egress),
        );
        let compiled = Compiled {
            places,
            ingress: compile(
                old.map(|old| (&*old.compiled.ingress, &*old.policy.ingress)),
                &policy.ingress,
            ),
            egress: compile(
                old.map(|old| (&*old.compiled.egress, &*old.policy.egress)),
                &policy.egress,
            ),
        };
        self.next.policies.set(id.0, Some(Arc::new(compiled.clone())));
        for (was, rules) in [(&was.ingress, &policy.ingress), (&was.egress, &policy.egress)] {
            for set in Splice::between(was, rules).come.iter().flat_map(names) {
                self.users.entry(set).or_default().insert(id);
            }
        }
        self.policies.insert(id, Written { policy, compiled });
    }

    /// Takes a policy's or profile's rules. Chains that still name it deny what comes to it.
    pub fn remove_policy(&mut self, id: PolicyId) {
        self.next.policies.set(id.0, None);
        self.forget_users(id);
        if let Some(written) = self.policies.remove(&id) {
            for direction in [Direction::Ingress, Direction::Egress] {
                self.tallies.take(written.compiled.places.of(direction));
            }
        }
    }

    /// Takes a name back that no chain has any more.
    pub fn release_policy(&mut self, id: PolicyId) {
        self.remove_policy(id);
        self.policy_names.free.insert(id.0);
    }

    /// Why a policy denies everything in a direction, if it does.
    pub fn unfinished(&self, id: PolicyId) -> [Option<Unfinished>; 2] {
        match self.policies.get(&id) {
            Some(written) => [&written.compiled.ingress, &written.compiled.egress].map(|rules| rules.unfinished()),
            None => [None; 2],
        }
    }

    /// The chain's name; endpoints whose chains are equal share one. To be released as often as it was asked for.
    pub fn chain(&mut self, chain: &Chain) -> ChainId {
        if let Some(id) = self.by_chain.get(chain) {
            if let Some(shared) = self.chains.get_mut(id) {
                shared.users += 1;
            }
            return *id;
        }
        let id = ChainId(self.chain_names.give());
        let chain = Arc::new(chain.clone());
        self.next.chains.set(id.0, Some(Arc::new(Steps::of(&chain))));
        self.by_chain.insert(chain.clone(), id);
        self.chains.insert(id, Shared { chain, users: 1 });
        id
    }

    /// Gives a chain back, which no endpoint names any more from the next [`publish`](Self::publish) on.
    pub fn release_chain(&mut self, id: ChainId) {
        let Some(shared) = self.chains.get_mut(&id) else { return };
        shared.users -= 1;
        if shared.users == 0 {
            self.by_chain.remove(&shared.chain);
            self.chains.remove(&id);
            self.next.chains.set(id.0, None);
            self.released.push_back((self.qsbr.stamp(), id));
        }
    }

    /// Says what is behind a port: nothing, until it is said again.
    pub fn set_endpoint(&mut self, port: PortId, endpoint: Option<Endpoint>) {
        let endpoint = endpoint.map(Arc::new);
        self.next.endpoints.ports.set(u32::from(port.0), endpoint);
    }

    /// What holds for all endpoints.
    pub fn set_settings(&mut self, settings: Settings) {
        self.next.endpoints.settings = settings;
    }

    /// The endpoints as workers see them after the next [`publish`](Self::publish).
    pub fn endpoints(&self) -> &Endpoints {
        &self.next.endpoints
    }

    /// Distinct chains.
    pub fn chains(&self) -> usize {
        self.chains.len()
    }

    /// Shows workers all changes of policies, chains and endpoints since the last time, at once.
    pub fn publish(&mut self) {
        self.publisher.publish(self.next.clone());
        self.tallies.published(self.qsbr.stamp());
        self.removed.drain(..).for_each(|set| self.sets.remove(set));
    }

    /// Frees what no worker can still see. Returns whether something still waits, or there is more to do.
    pub fn reclaim(&mut self) -> bool {
        self.publisher.reclaim();
        let safe = self.qsbr.safe();
        while let Some((_, id)) = self.released.pop_front_if(|(stamp, _)| *stamp <= safe) {
            self.chain_names.free.insert(id.0);
        }
        let counted = self.tallies.reclaim(safe);
        self.sets.reclaim() || !self.released.is_empty() || counted
    }

    /// Bytes of compiled policies.
    pub fn policy_bytes(&self) -> usize {
        let compiled = self.policies.values().map(|written| &written.compiled);
        compiled
            .map(|compiled| compiled.ingress.bytes() + compiled.egress.bytes())
            .sum::<usize>()
            + self.tallies.bytes()
    }

    /// Makes a policy name a set that is missing instead of `gone`, whose name may soon be another's.
    fn withdraw(&mut self, id: PolicyId, gone: SetId) {
        let Some(mut policy) = self.policies.get(&id).map(|written| written.policy.clone()) else {
            return;
        };
        let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
        for name in rules.flat_map(Rule::sets_mut).filter(|name| **name == gone) {
            *name = SetId::MISSING;
        }
        self.set_policy(id, policy);
    }

    fn forget_users(&mut self, id: PolicyId) {
        let Some(written) = self.policies.get(&id) else { return };
        for set in rules(&written.policy).flat_map(names) {
            if let Some(users) = self.users.get_mut(&set) {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(&set);
                }
            }
        }
    }
}

/// The places of rules of which some are others now. Those that stay keep theirs, wherever they stand.
fn moved(tallies: &mut Tallies, places: &Arc<[Place]>, change: &Splice<'_>, now_ns: u64) -> Arc<[Place]> {
    if change.gone.is_empty() && change.come.is_empty() {
        return places.clone();
    }
    let (before, behind) = places.split_at(change.first.min(places.len()));
    let (gone, behind) = behind.split_at(change.gone.len().min(behind.len()));
    let mut theirs: HashMap<&Rule, Vec<Place>> = HashMap::new();
    for (rule, place) in change.gone.iter().zip(gone).rev() {
        theirs.entry(rule).or_default().push(*place);
    }
    let mut come = |rule| match theirs.get_mut(rule).and_then(Vec::pop) {
        Some(place) => place,
        None => tallies.give(now_ns),
    };
    let come: Vec<_> = change.come.iter().map(&mut come).collect();
    theirs.values().for_each(|places| tallies.take(places));
    before.iter().chain(&come).chain(behind).copied().collect()
}

fn rules(policy: &Policy) -> impl Iterator<Item = &Rule> {
    policy.ingress.iter().chain(&policy.egress)
}

fn names(rule: &Rule) -> impl Iterator<Item = SetId> + '_ {
    rule.address_sets().chain(rule.port_sets())
}

fn missing(sets: &Sets, rule: &Rule) -> bool {
    !rule.address_sets().all(|set| sets.is(set, Kind::Networks))
        || !rule.port_sets().all(|set| sets.is(set, Kind::Ports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Action, End};

    #[test]
    fn a_policy_without_one_of_its_sets_stays_unfinished_when_another_set_gets_the_name() {
        let capacity = Capacity {
            prefix_bytes: 1 << 20,
            class_bytes: 1 << 20,
        };
        let mut compiler = Compiler::new(capacity, Arc::new(Qsbr::new(0))).unwrap();
        let sets = [(); 2].map(|()| compiler.create_set(Kind::Networks).unwrap());
        let from = |set| Rule {
            source: End {
                sets: vec![set],
                ..End::default()
            },
            ..Rule::all(Action::Allow)
        };
        let id = compiler.reserve_policy();
        compiler.set_policy(
            id,
            Policy {
                ingress: vec![from(sets[0])],
                egress: vec![from(sets[1])],
            },
        );
        assert_eq!(compiler.unfinished(id), [None, None]);
        compiler.remove_set(sets[0]);
        compiler.publish();
        compiler.reclaim();
        assert_eq!(
            compiler.create_set(Kind::Networks),
            Ok(sets[0]),
            "the name is another's now"
        );
        let missing = Some(Unfinished::MissingSet { rule: 0 });
        assert_eq!(compiler.unfinished(id), [missing, None]);
        compiler.remove_set(sets[1]);
        assert_eq!(compiler.unfinished(id), [missing, missing]);
    }

    #[test]
    fn equal_chains_are_one_until_the_last_is_released() {
        let capacity = Capacity {
            prefix_bytes: 1 << 20,
            class_bytes: 1 << 20,
        };
        let qsbr = Arc::new(Qsbr::new(1));
        let mut compiler = Compiler::new(capacity, qsbr.clone()).unwrap();
        let chain = Chain {
            direction: crate::program::Direction::Ingress,
            tiers: vec![],
            last: crate::program::Last::Allow,
        };
        let id = compiler.chain(&chain);
        assert_eq!((compiler.chain(&chain), compiler.chains()), (id, 1));
        assert_ne!(id, ChainId::default(), "what has no chain yet is denied");
        compiler.release_chain(id);
        assert_eq!(compiler.chains(), 1);
        qsbr.online(0);
        compiler.release_chain(id);
        compiler.reclaim();
        assert_ne!(
            compiler.chain(&chain),
            id,
            "a worker may still have packets that name it"
        );
        compiler.release_chain(id);
        qsbr.turn(0);
        compiler.reclaim();
        let other = Chain {
            last: crate::program::Last::Undecided,
            ..chain
        };
        assert_eq!(compiler.chain(&other), id);
    }
}
