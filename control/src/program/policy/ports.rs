//! Who is behind which port: endpoints find their ports as Calico's find their interfaces.
//!
//! A workload is behind the port of its interface. Behind another port is the host: its endpoint of that name, else one
//! without a name that expects an address of the port, else the one named `*`. Where several fit, the first by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use classifier::compiler::Compiler;
use classifier::endpoints::{Endpoint, Sources, Workload};
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, PolicyId, Tier};
use fastpath::meta::PortId;
use ipnet::IpNet;

use super::book::{Book, PolicyName};
use super::rules::network;
use crate::program::felix::{self, HostEndpoint, TierInfo, WorkloadEndpoint, WorkloadEndpointId};

/// The host endpoint of all interfaces.
const ALL: &str = "*";
/// The state of a workload that is up.
const ACTIVE: &str = "active";

/// A port of the plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// Its device, which may have another name.
    pub device: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl PortInfo {
    fn names(&self) -> impl Iterator<Item = &str> {
        [Some(self.name.as_str()), self.device.as_deref()].into_iter().flatten()
    }
}

/// Who is behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Workload(WorkloadEndpointId),
    Host(String),
    /// No endpoint, but an interface of the host.
    Open,
}

/// What a port was described with, to be given back.
#[derive(Default)]
struct Described {
    who: Option<Who>,
    chains: Vec<ChainId>,
    policies: Vec<PolicyId>,
}

/// Ports, endpoints, and what was made of them.
#[derive(Default)]
pub(super) struct Ports {
    ports: BTreeMap<PortId, PortInfo>,
    by_name: HashMap<String, PortId>,
    workloads: BTreeMap<WorkloadEndpointId, WorkloadEndpoint>,
    by_interface: HashMap<String, BTreeSet<WorkloadEndpointId>>,
    hosts: BTreeMap<String, HostEndpoint>,
    described: HashMap<PortId, Described>,
    tiers: HashMap<ChainId, Vec<String>>,
    dirty: BTreeSet<PortId>,
}

impl Ports {
    pub(super) fn any_endpoint(&self) -> bool {
        !self.workloads.is_empty() || !self.hosts.is_empty()
    }

    pub(super) fn dirty_all(&mut self) {
        self.dirty.extend(self.ports.keys());
    }

    /// Whether it is another now.
    pub(super) fn set_port(&mut self, port: PortId, info: Option<PortInfo>) -> bool {
        if self.ports.get(&port) == info.as_ref() {
            return false;
        }
        self.by_name.retain(|_, named| *named != port);
        if let Some(info) = &info {
            // A port's own name goes before another's device.
            if let Some(device) = &info.device {
                self.by_name.entry(device.clone()).or_insert(port);
            }
            self.by_name.insert(info.name.clone(), port);
        }
        match info {
            Some(info) => self.ports.insert(port, info),
            None => self.ports.remove(&port),
        };
        self.dirty.insert(port);
        true
    }

    pub(super) fn set_workload(&mut self, id: WorkloadEndpointId, endpoint: Option<WorkloadEndpoint>) {
        let first = self.workloads.is_empty();
        if let Some(before) = self.workloads.remove(&id) {
            self.dirty.extend(self.by_name.get(&before.name));
            if let Some(ids) = self.by_interface.get_mut(&before.name) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_interface.remove(&before.name);
                }
            }
        }
        if let Some(endpoint) = endpoint {
            self.dirty.extend(self.by_name.get(&endpoint.name));
            self.by_interface
                .entry(endpoint.name.clone())
                .or_default()
                .insert(id.clone());
            self.workloads.insert(id, endpoint);
        }
        if first != self.workloads.is_empty() {
            self.dirty_all();
        }
    }

    /// Which of them is behind which port may change for all of them, so each is looked at again.
    pub(super) fn set_host(&mut self, id: String, endpoint: Option<HostEndpoint>) {
        match endpoint {
            Some(endpoint) => self.hosts.insert(id, endpoint),
            None => self.hosts.remove(&id),
        };
        self.dirty_all();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PortId, &PortInfo)> {
        self.ports.iter().map(|(port, info)| (*port, info))
    }

    pub(super) fn named(&self, name: &str) -> Option<PortId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn who(&self, port: PortId) -> Option<&Who> {
        self.described.get(&port)?.who.as_ref()
    }

    /// The workload behind a port.
    pub(super) fn workload_behind(&self, port: PortId) -> Option<(&WorkloadEndpointId, &WorkloadEndpoint)> {
        match self.who(port)? {
            Who::Workload(id) => self.workloads.get_key_value(id),
            Who::Host(_) | Who::Open => None,
        }
    }

    /// The endpoint of the host behind a port.
    pub(super) fn host_behind(&self, port: PortId) -> Option<&HostEndpoint> {
        match self.who(port)? {
            Who::Host(id) => self.host(id),
            Who::Workload(_) | Who::Open => None,
        }
    }

    pub(super) fn host(&self, id: &str) -> Option<&HostEndpoint> {
        self.hosts.get(id)
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = (&WorkloadEndpointId, &WorkloadEndpoint)> {
        self.workloads.iter()
    }

    /// The tiers of a chain, by their places.
    pub(super) fn tier(&self, chain: ChainId, place: u16) -> Option<&str> {
        self.tiers.get(&chain)?.get(usize::from(place)).map(String::as_str)
    }

    /// Tells the compiler who is behind the ports that may have changed.
    pub(super) fn describe(
        &mut self,
        prefixes: Option<&[String]>,
        book: &mut Book,
        compiler: &mut Compiler,
        warn: &mut dyn FnMut(String),
    ) {
        for port in std::mem::take(&mut self.dirty) {
            let who = self.ports.get(&port).and_then(|info| self.find(info, prefixes));
            let mut making = Making {
                book: &mut *book,
                compiler: &mut *compiler,
                tiers: &mut self.tiers,
                made: Described::default(),
            };
            let all = self.hosts.values().find(|host| host.name == ALL);
            let endpoint = who.as_ref().map(|who| match who {
                Who::Workload(id) => making.workload(&self.workloads[id], all, (id, &mut *warn)),
                Who::Host(id) => making.host(&self.hosts[id]),
                Who::Open => Endpoint::default(),
            });
            let made = Described { who, ..making.made };
            compiler.set_endpoint(port, endpoint);
            // What came before is given back after, so that what stays is not compiled again.
            if let Some(before) = self.described.insert(port, made) {
                before
                    .chains
                    .into_iter()
                    .for_each(|chain| compiler.release_chain(chain));
                before
                    .policies
                    .into_iter()
                    .for_each(|policy| book.unmention(policy, compiler));
            }
            if !self.ports.contains_key(&port) {
                self.described.remove(&port);
            }
        }
    }

    fn find(&self, info: &PortInfo, prefixes: Option<&[String]>) -> Option<Who> {
        let workload = info.names().find_map(|name| self.by_interface.get(name)?.first());
        if let Some(id) = workload {
            return Some(Who::Workload(id.clone()));
        }
        let is_workloads = |prefix: &String| info.names().any(|name| name.starts_with(prefix.as_str()));
        if prefixes.is_some_and(|prefixes| prefixes.iter().any(is_workloads)) {
            return None;
        }
        let expected = |host: &HostEndpoint| {
            let texts = host.expected_ipv4_addrs.iter().chain(&host.expected_ipv6_addrs);
            let mut addresses = texts.filter_map(|text| text.parse::<IpAddr>().ok());
            host.name.is_empty() && addresses.any(|address| info.addresses.contains(&address))
        };
        let named = |host: &HostEndpoint| info.names().any(|name| name == host.name);
        let all = |host: &HostEndpoint| host.name == ALL;
        let first = |fits: &dyn Fn(&HostEndpoint) -> bool| self.hosts.iter().find(|(_, host)| fits(host));
        let host = first(&named).or_else(|| first(&expected)).or_else(|| first(&all));
        match host {
            Some((id, _)) => Some(Who::Host(id.clone())),
            // Felix says by their names which interfaces are workloads'; it says nothing of the others.
            None => prefixes.map(|_| Who::Open),
        }
    }
}

/// Chains for one port.
struct Making<'a> {
    book: &'a mut Book,
    compiler: &'a mut Compiler,
    tiers: &'a mut HashMap<ChainId, Vec<String>>,
    made: Described,
}

/// What a kind of policy does with packets that none of its rules decides.
#[derive(Clone, Copy)]
enum Behind<'a> {
    Profiles(&'a [String]),
    Allow,
    Undecided,
}

impl Making<'_> {
    fn workload(
        &mut self,
        workload: &WorkloadEndpoint,
        all: Option<&HostEndpoint>,
        (id, warn): (&WorkloadEndpointId, &mut dyn FnMut(String)),
    ) -> Endpoint {
        let behind = Behind::Profiles(&workload.profile_ids);
        let ingress = self.chain(Direction::Ingress, &workload.tiers, behind);
        let egress = self.chain(Direction::Egress, &workload.tiers, behind);
        let (mut endpoint, mut prefixes) = (Endpoint::default(), vec![]);
        if let Some(all) = all {
            endpoint = self.forwarded(all);
        }
        // From the network: first the policy of all interfaces, then the workload's own; the other way out.
        endpoint.sends[1] = Some(egress);
        endpoint.receives = [Some(ingress), endpoint.receives[0]];
        endpoint.to_host = Some(egress);
        let addresses = workload.ipv4_nets.iter().chain(&workload.ipv6_nets);
        for text in addresses.chain(&workload.allow_spoofed_source_prefixes) {
            match network(text) {
                Some(net) => prefixes.push(net),
                None => warn(format!(
                    "{}: the address `{}` is left out: it is none",
                    id.workload_id,
                    text.escape_debug()
                )),
            }
        }
        endpoint.workload = Some(Workload {
            up: workload.state == ACTIVE,
            sources: Sources::new(&prefixes),
        });
        endpoint
    }

    fn host(&mut self, host: &HostEndpoint) -> Endpoint {
        let behind = Behind::Profiles(&host.profile_ids);
        Endpoint {
            to_host: Some(self.chain(Direction::Ingress, &host.tiers, behind)),
            from_host: Some(self.chain(Direction::Egress, &host.tiers, behind)),
            untracked: self.optional(Direction::Ingress, &host.untracked_tiers, Behind::Undecided),
            ..self.forwarded(host)
        }
    }

    /// Policy for what the host forwards.
    fn forwarded(&mut self, host: &HostEndpoint) -> Endpoint {
        let ingress = self.optional(Direction::Ingress, &host.forward_tiers, Behind::Allow);
        let egress = self.optional(Direction::Egress, &host.forward_tiers, Behind::Allow);
        Endpoint {
            sends: [ingress, None],
            receives: [egress, None],
            before_services: self.optional(Direction::Ingress, &host.pre_dnat_tiers, Behind::Undecided),
            ..Endpoint::default()
        }
    }

    /// Without policies there is no chain.
    fn optional(&mut self, direction: Direction, tiers: &[TierInfo], behind: Behind<'_>) -> Option<ChainId> {
        let any = tiers.iter().any(|tier| !policies(tier, direction).is_empty());
        any.then(|| self.chain(direction, tiers, behind))
    }

    fn chain(&mut self, direction: Direction, tiers: &[TierInfo], behind: Behind<'_>) -> ChainId {
        let there = || tiers.iter().filter(|tier| !policies(tier, direction).is_empty());
        let names = there().map(|tier| tier.name.clone()).collect();
        let tiers = there().map(|tier| Tier {
            policies: policies(tier, direction).iter().map(|id| self.placed(id)).collect(),
            default: match behind {
                // Policy that decides before the rest does leaves to the rest what it does not decide.
                Behind::Undecided => DefaultAction::Pass,
                _ if tier.default_action.eq_ignore_ascii_case("pass") => DefaultAction::Pass,
                _ => DefaultAction::Deny,
            },
        });
        let tiers = tiers.collect::<Vec<_>>();
        let last = match behind {
            Behind::Allow => Last::Allow,
            Behind::Undecided => Last::Undecided,
            Behind::Profiles(profiles) => Last::Profiles(
                profiles
                    .iter()
                    .map(|name| self.mention(PolicyName::Profile(name.clone())))
                    .collect(),
            ),
        };
        let chain = self.compiler.chain(&Chain { direction, tiers, last });
        self.tiers.insert(chain, names);
        self.made.chains.push(chain);
        chain
    }

    fn placed(&mut self, id: &felix::PolicyId) -> Placed {
        Placed {
            policy: self.mention(PolicyName::Policy(id.clone())),
            staged: id.is_staged(),
        }
    }

    fn mention(&mut self, name: PolicyName) -> PolicyId {
        let id = self.book.mention(name, self.compiler);
        self.made.policies.push(id);
        id
    }
}

fn policies(tier: &TierInfo, direction: Direction) -> &[felix::PolicyId] {
    match direction {
        Direction::Ingress => &tier.ingress_policies,
        Direction::Egress => &tier.egress_policies,
    }
}

/// The prefixes of a workload, those that are.
pub(super) fn addresses(workload: &WorkloadEndpoint) -> impl Iterator<Item = IpNet> {
    let texts = workload.ipv4_nets.iter().chain(&workload.ipv6_nets);
    texts.filter_map(|text| network(text))
}
