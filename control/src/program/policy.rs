//! Policy: Felix says which sets, policies, profiles and endpoints there are; what follows are compiled policies, and
//! who is behind each port of the plane.
//!
//! Messages come in and are kept; nothing of them is in force before the first `InSync`. [`Enforcement::publish`] then
//! puts into force what has come since the last time, as one change: workers judge a packet by all of it, or by nothing
//! of it. Only members of sets come and go at once. Both cost what the messages touch.

mod book;
mod explain;
mod ports;
mod reports;
mod rules;
mod sets;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use classifier::classify::Classifier;
use classifier::compiler::Compiler;
use classifier::endpoints::Settings;
use classifier::program::{Direction, PolicyId};
use classifier::report::Reports;
use classifier::sets::Capacity;
use classifier::tally::{Count, Tally};
use fastpath::meta::PortId;
use fastpath::qsbr::Qsbr;

pub use book::PolicyName;
pub use explain::{Answer, Question, Step, Verdict};
pub use ports::PortInfo;
pub use rules::protocol_number;

use book::{Book, Written};
use ports::Ports;
use sets::{Sets, Told};

use super::felix::{self, ToDataplane};
use crate::resource::{Dscp, QosControls};

/// The most warnings that are kept between two calls of [`Enforcement::take_warnings`].
const WARNINGS_MAX: usize = 100;

/// What Felix has said so far, and what was made of it.
pub struct Enforcement {
    compiler: Compiler,
    in_sync: bool,
    settings: Settings,
    /// What the names of workloads' interfaces begin with, where that was said.
    prefixes: Option<Vec<String>>,
    sets: Sets,
    book: Book,
    ports: Ports,
    /// Whether there is policy though no endpoint is told of.
    expected: bool,
    /// Whether that holds whatever resources say.
    always: bool,
    /// Something is to be published.
    changed: bool,
    /// How often something was put into force.
    publications: u64,
    /// What workers report, by queue.
    reports: Mutex<Vec<Arc<Reports>>>,
    warnings: Warnings,
}

/// Sentences for whoever runs the plane: what could not be carried out as written.
#[derive(Default)]
struct Warnings {
    list: Vec<String>,
    left_out: usize,
}

impl Warnings {
    fn add(&mut self, warning: String) {
        match self.list.len() < WARNINGS_MAX {
            true => self.list.push(warning),
            false => self.left_out += 1,
        }
    }
}

/// A policy or profile, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyInfo {
    /// Which.
    pub name: PolicyName,
    /// The tier of a policy.
    pub tier: Option<String>,
    /// Rules for packets to endpoints.
    pub ingress_rules: usize,
    /// Rules for packets from them.
    pub egress_rules: usize,
    /// Mentions by endpoints: one for each list of an endpoint that it is in.
    pub mentions: usize,
    /// Why it denies all packets to and from its endpoints; nothing where it does not.
    pub unfinished: [Option<String>; 2],
    /// Its rules, those of ingress first.
    pub rules: Vec<RuleInfo>,
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleInfo {
    /// Whether it is one for packets to endpoints, or from them.
    pub direction: Direction,
    /// What it does, in lower case.
    pub action: String,
    /// What it matched.
    pub count: Count,
}

impl Enforcement {
    /// Without policy: every packet passes. Workers announce their turns to `qsbr`.
    ///
    /// # Errors
    /// The kernel's, if it has no memory of that `capacity` for sets.
    pub fn new(capacity: Capacity, qsbr: Arc<Qsbr>) -> io::Result<Self> {
        Ok(Self {
            compiler: Compiler::new(capacity, qsbr)?,
            in_sync: false,
            settings: settings::settings(&BTreeMap::new(), &mut |_| {}),
            prefixes: None,
            sets: Sets::default(),
            book: Book::default(),
            ports: Ports::default(),
            expected: false,
            always: false,
            changed: false,
            publications: 0,
            reports: Mutex::default(),
            warnings: Warnings::default(),
        })
    }

    /// A worker's end.
    pub fn classifier(&self) -> Classifier {
        self.compiler.classifier()
    }

    /// Counters for one worker.
    pub fn tally(&self) -> Arc<Tally> {
        self.compiler.tally()
    }

    /// A worker's end that counts with that worker's counters.
    pub fn counting(&self, tally: &Arc<Tally>) -> Classifier {
        self.compiler.counting(tally.clone())
    }

    /// A queue for one more worker's reports, which it fills while there is policy.
    pub fn reports(&self) -> Arc<Reports> {
        let reports = Arc::new(Reports::default());
        self.reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reports.clone());
        reports
    }

    /// All such queues.
    pub fn all_reports(&self) -> Vec<Arc<Reports>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What time it is, by the workers' clock.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.compiler.set_now_ns(now_ns);
    }

    /// Whether somebody has policy, so that packets have to be tracked and judged.
    pub fn in_force(&self) -> bool {
        self.in_sync && self.is_wanted()
    }

    fn is_wanted(&self) -> bool {
        self.always || self.expected || self.ports.any_endpoint()
    }

    /// There is policy even where no endpoint here is known: what nobody described is closed.
    pub fn expect(&mut self, expected: bool) {
        self.changed |= self.expected != expected;
        self.expected = expected;
    }

    /// From now on there is policy, whoever is known: somebody else than our own agent says what it is.
    pub fn expect_always(&mut self) {
        self.changed |= !self.always;
        self.always = true;
    }

    /// Takes a message. What it says counts from the next [`publish`](Self::publish) on.
    pub fn receive(&mut self, message: ToDataplane) {
        use ToDataplane as To;
        self.changed = true;
        let warn = &mut |warning| self.warnings.add(warning);
        match message {
            To::InSync => self.in_sync = true,
            To::ConfigUpdate(update) => {
                self.settings = settings::settings(&update.config, warn);
                self.prefixes = settings::workload_prefixes(&update.config);
                self.ports.dirty_all();
            }
            To::ActivePolicyUpdate(update) => {
                let written = Written {
                    tier: Some(update.policy.tier),
                    inbound: update.policy.inbound_rules,
                    outbound: update.policy.outbound_rules,
                };
                let name = PolicyName::Policy(update.id);
                self.book
                    .write(name, written, self.sets.ids(), &mut self.compiler, warn);
            }
            To::ActivePolicyRemove(id) => self.book.remove(&PolicyName::Policy(id), &mut self.compiler),
            To::ActiveProfileUpdate(update) => {
                let written = Written {
                    tier: None,
                    inbound: update.inbound_rules,
                    outbound: update.outbound_rules,
                };
                let name = PolicyName::Profile(update.id);
                self.book
                    .write(name, written, self.sets.ids(), &mut self.compiler, warn);
            }
            To::ActiveProfileRemove(id) => self.book.remove(&PolicyName::Profile(id), &mut self.compiler),
            To::WorkloadEndpointUpdate(update) => self.ports.set_workload(update.id, Some(update.endpoint)),
            To::WorkloadEndpointRemove(id) => self.ports.set_workload(id, None),
            To::HostEndpointUpdate(update) => self.ports.set_host(update.endpoint_id, Some(update.endpoint)),
            To::HostEndpointRemove(id) => self.ports.set_host(id, None),
            message => self.receive_set(message),
        }
    }

    /// A port has come, is another now, or has gone.
    pub fn set_port(&mut self, port: PortId, info: Option<PortInfo>) {
        self.changed |= self.ports.set_port(port, info);
    }

    /// The ports that it knows of.
    pub fn ports(&self) -> impl Iterator<Item = PortId> {
        self.ports.iter().map(|(port, _)| port)
    }

    /// The workload behind a port, as `namespace/pod`, and its limits, as they are in force.
    pub fn limits_behind(&self, port: PortId) -> Option<(&str, &QosControls)> {
        let (id, workload) = self.ports.workload_behind(port)?;
        Some((&id.workload_id, workload.qos_controls.as_deref()?))
    }

    /// What packets from the workload behind a port are marked with.
    pub fn workload_mark(&self, port: PortId) -> Option<Dscp> {
        let (_, workload) = self.ports.workload_behind(port)?;
        workload.qos_controls.as_ref()?.dscp
    }

    /// What packets from the host behind a port are marked with.
    pub fn host_mark(&self, port: PortId) -> Option<Dscp> {
        self.ports.host_behind(port)?.dscp
    }

    /// Puts into force what has come since the last time. Whether anything did: verdicts made before are stale then.
    pub fn publish(&mut self) -> bool {
        if !self.in_sync || !std::mem::take(&mut self.changed) {
            return false;
        }
        self.settings.in_force = self.is_wanted();
        let warn = &mut |warning| self.warnings.add(warning);
        self.compiler.set_settings(self.settings.clone());
        let prefixes = self.prefixes.as_deref();
        self.ports.describe(prefixes, &mut self.book, &mut self.compiler, warn);
        self.compiler.publish();
        self.publications += 1;
        for reports in self.all_reports() {
            reports.set_wanted(self.settings.in_force);
        }
        true
    }

    /// Frees what no worker can still see. Whether something still waits.
    pub fn reclaim(&mut self) -> bool {
        self.compiler.reclaim()
    }

    /// What could not be carried out as written, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let Warnings { mut list, left_out } = std::mem::take(&mut self.warnings);
        if left_out > 0 {
            list.push(format!("and {left_out} more"));
        }
        list
    }

    /// Every policy and profile, those that are mentioned but not there among them; in order of tier and name.
    pub fn policies(&self) -> Vec<PolicyInfo> {
        let mut policies: Vec<PolicyInfo> = self.book.iter().map(|(name, entry)| self.info(name, entry)).collect();
        policies.sort_by(|a, b| (a.tier.is_none(), &a.tier, &a.name).cmp(&(b.tier.is_none(), &b.tier, &b.name)));
        policies
    }

    /// Bytes that compiled policies and sets take, and how many sets there are.
    pub fn memory(&self) -> (usize, usize) {
        let bytes = self.compiler.policy_bytes() + self.compiler.sets().used_bytes();
        (bytes, self.sets.len())
    }

    fn info(&self, name: &PolicyName, entry: &book::Entry) -> PolicyInfo {
        let missing = || [(); 2].map(|()| Some("it is not there".to_owned()));
        let unfinished = match &entry.written {
            None => missing(),
            Some(_) => self
                .compiler
                .unfinished(entry.id)
                .map(|why| why.map(|why| why.to_string())),
        };
        let written = entry.written.as_ref();
        PolicyInfo {
            name: name.clone(),
            tier: written.and_then(|written| written.tier.clone()),
            ingress_rules: written.map_or(0, |written| written.inbound.len()),
            egress_rules: written.map_or(0, |written| written.outbound.len()),
            mentions: entry.users,
            unfinished,
            rules: self.rules(entry),
        }
    }

    fn rules(&self, entry: &book::Entry) -> Vec<RuleInfo> {
        let Some(written) = &entry.written else { return vec![] };
        let directions = [
            (Direction::Ingress, &written.inbound),
            (Direction::Egress, &written.outbound),
        ];
        let of = |(direction, rules): (Direction, &'_ Vec<felix::Rule>)| {
            let counts = self.compiler.counts(entry.id, direction);
            let info = |(rule, count): (&felix::Rule, Count)| RuleInfo {
                direction,
                action: action(rule),
                count,
            };
            rules.iter().zip(counts).map(info).collect::<Vec<_>>()
        };
        directions.into_iter().flat_map(of).collect()
    }

    fn receive_set(&mut self, message: ToDataplane) {
        let (compiler, sets) = (&mut self.compiler, &mut self.sets);
        let mut full = None;
        let warn = &mut |warning| self.warnings.add(warning);
        let name = match message {
            ToDataplane::IpSetUpdate(update) => {
                match sets.update(&update, compiler, warn) {
                    Ok(Told::Members) => return,
                    Ok(Told::Renamed) => {}
                    Err(error) => full = Some(error),
                }
                update.id
            }
            ToDataplane::IpSetDeltaUpdate(delta) => {
                match sets.change(&delta, compiler, warn) {
                    Ok(()) => return,
                    Err(error) => full = Some(error),
                }
                delta.id
            }
            ToDataplane::IpSetRemove(id) => {
                sets.remove(&id, compiler);
                id
            }
            // Routes and nodes are told to somebody else.
            _ => return,
        };
        if let Some(error) = full {
            // A set that lacks members could allow too much, or too little: without it, policies that name it deny.
            warn(format!(
                "set {name} is left out, and policies that name it deny: {error}"
            ));
            sets.remove(&name, compiler);
        }
        self.book.renamed(&name, sets.ids(), compiler, warn);
    }

    /// The rule's action as written, where there is such a rule.
    fn action(&self, policy: PolicyId, direction: Direction, rule: u32) -> Option<String> {
        let written = self.book.entry(policy)?.written.as_ref()?;
        let rules = match direction {
            Direction::Ingress => &written.inbound,
            Direction::Egress => &written.outbound,
        };
        rules.get(rule as usize).map(action)
    }
}

/// What a rule does, as written.
fn action(rule: &felix::Rule) -> String {
    match rule.action.as_str() {
        "" => "allow".to_owned(),
        action => action.to_ascii_lowercase(),
    }
}
