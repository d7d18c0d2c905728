//! Connections: the table, who gets another source, and which ports are tracked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use fastpath::generation::Generation;
use fastpath::meta::VrfId;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use ipnet::IpNet;
use nat::fixed::Fixed;
use nat::journal::Journal;
use nat::service::Prefix;
use nat::snat::{Rule, Rules, SHARED_PORTS};
use nat::table::{Shape, Table};
use nat::time::Tick;
use nat::timeouts::Timeouts;
use nat::tracking::Tracking;

use super::ports::Port;
use super::services::Balancing;
use super::static_nat::StaticNat;
use super::views::Views;
use super::{PlaneOptions, State};
use crate::connections::{Connections, Hands};
use crate::program::felix::{IpamPoolUpdate, ToDataplane};
use crate::program::services::Front;
use crate::resource::{Kind, PortRange, PortSpec, ProxyArp, Resource, SourceNatSpec};
use crate::show::memory::MemoryView;
use crate::store::Plan;
use crate::wiring;

/// What control knows of connections.
pub(super) struct Flows {
    pub tracking: Tracking,
    hands: Arc<Hands>,
    timeouts: Timeouts,
    rules: Publisher<Rules>,
    sources: BTreeMap<String, SourceNatSpec>,
    /// Who has an address of its own outside.
    pub static_nat: StaticNat,
    /// The pools that Felix tells of, by name.
    pools: BTreeMap<String, (IpNet, bool)>,
    /// Whether what leaves a pool gets another source.
    outgoing: bool,
    /// Whether the table has its memory.
    backed: bool,
}

/// What a plan replaced, to be put back if it is refused.
pub(super) struct Replaced(Vec<(String, Option<SourceNatSpec>)>);

impl Flows {
    pub fn new(options: &PlaneOptions, qsbr: Arc<Qsbr>, generation: Generation) -> io::Result<Self> {
        let shape = Shape {
            connections: options.flows,
            writers: options.cores.len() * wiring::FLOW_WRITERS + 1,
            seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "flows"),
        };
        let table = Arc::new(Table::new(&shape, qsbr.clone())?);
        let journal = Journal::default();
        Ok(Self {
            hands: Hands::new(&journal, qsbr, options.cores.len()),
            tracking: Tracking {
                table,
                generation,
                journal,
            },
            timeouts: Timeouts::default(),
            rules: Publisher::new(Rules::default()),
            sources: BTreeMap::new(),
            static_nat: StaticNat::default(),
            pools: BTreeMap::new(),
            outgoing: false,
            backed: false,
        })
    }

    pub fn wiring<'a>(&'a self, balancing: &'a Balancing) -> wiring::Flows<'a> {
        wiring::Flows {
            tracking: &self.tracking,
            timeouts: self.timeouts,
            rules: &self.rules,
            services: &balancing.book,
            affinity: &balancing.affinity,
        }
    }

    /// Whether anything asks for connections to be known.
    pub fn are_wanted(&self) -> bool {
        self.outgoing || !self.sources.is_empty() || !self.static_nat.is_empty()
    }

    /// From the first time that connections are to be known, the table has its memory, so that no worker waits for a page.
    /// Beside everybody: it takes a second for some gigabytes. Without the thread pages come as they are touched.
    pub fn back_memory(&mut self) {
        if !std::mem::replace(&mut self.backed, true) {
            let table = self.tracking.table.clone();
            let thread = std::thread::Builder::new().name("flow-memory".to_owned());
            let _ = thread.spawn(move || table.populate());
        }
    }

    /// Ranges of ports that rules give on addresses that the kernel has, too.
    pub fn own_ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        let ranges = self.sources.values().map(|spec| spec.ports.0.clone());
        // A rule that does not reach into ours has its own way, see `Pool::shared`.
        ranges.filter(|range| range.end() < SHARED_PORTS.start())
    }

    /// Takes a message. Whether it changes a pool: most say nothing of them.
    pub fn receive_pool(&mut self, message: &ToDataplane) -> bool {
        match message {
            ToDataplane::IpamPoolUpdate(IpamPoolUpdate { id, cidr, masquerade }) => match cidr.parse::<IpNet>() {
                Ok(net) => {
                    let pool = (net.trunc(), *masquerade);
                    self.pools.insert(id.clone(), pool) != Some(pool)
                }
                Err(_) => {
                    tracing::warn!(
                        "pool {id}: `{}` is no prefix; the pool is left out",
                        cidr.escape_debug()
                    );
                    self.pools.remove(id).is_some()
                }
            },
            ToDataplane::IpamPoolRemove(id) => self.pools.remove(id).is_some(),
            _ => false,
        }
    }

    pub fn reclaim(&mut self, now: Tick) {
        self.rules.reclaim();
        self.hands.reclaim(&self.tracking.table, now);
    }
}

impl Views<'_> {
    /// See [`Plane::connections`](crate::api::Plane::connections).
    pub fn connections(&self) -> Connections {
        let state = &*self.0;
        let vrfs = state.vrfs.iter().map(|(name, id)| (*id, name.clone()));
        let now = Tick::from_ns(state.now_ns());
        let Flows { tracking, hands, .. } = &state.flows;
        Connections::new(tracking.table.clone(), hands.clone(), now, vrfs.collect())
    }
}

impl State {
    /// Room for connections, and what they take.
    pub(super) fn flow_memory(&self) -> MemoryView {
        let table = &self.flows.tracking.table;
        MemoryView {
            what: "connections".to_owned(),
            capacity: table.capacity().into(),
            used: table.len().into(),
            bytes: table.bytes() as u64,
        }
    }

    /// Takes the SourceNats of a plan over, and gives ports the addresses that they answer for.
    pub(super) fn take_source_nats(&mut self, plan: &Plan) -> Replaced {
        let mut replaced = vec![];
        for planned in plan.of_kind(Kind::SourceNat) {
            let name = planned.key.name.clone();
            let before = match planned.after.as_deref() {
                Some(Resource::SourceNat(object)) => self.flows.sources.insert(name.clone(), object.body.spec.clone()),
                _ => self.flows.sources.remove(&name),
            };
            replaced.push((name, before));
        }
        self.give_aliases();
        Replaced(replaced)
    }

    pub(super) fn restore_source_nats(&mut self, Replaced(replaced): Replaced) {
        for (name, before) in replaced {
            match before {
                Some(spec) => self.flows.sources.insert(name, spec),
                None => self.flows.sources.remove(&name),
            };
        }
        self.give_aliases();
    }

    /// Workloads got or lost addresses outside: ports answer for others now, and connections begin with others.
    pub(super) fn place_static_nat(&mut self) {
        if !self.flows.static_nat.take_changed() {
            return;
        }
        self.place_aliases();
        self.publish_flows();
        self.claim();
    }

    /// Services came or went: ports answer for those addresses of theirs that they are told to answer for.
    pub(super) fn place_services(&mut self) {
        let is_answered = |(front, _): &(Front, bool)| self.ports.iter().any(|port| serves(port, front.address));
        if self.balancing.changed().iter().any(is_answered) {
            self.place_aliases();
        }
    }

    fn place_aliases(&mut self) {
        self.give_aliases();
        if let Err(full) = self.connect() {
            tracing::warn!("not every address of services and workloads is answered for: {full}");
        }
        self.publish_interfaces();
    }

    /// An address of a pool, and one that stands for another, is answered for by the port in whose subnet it lies; so is
    /// that of a service where the port is told to.
    fn give_aliases(&mut self) {
        let fixed = self.flows.static_nat.pairs();
        let fixed = fixed.map(|(outside, _)| ("default".to_owned(), outside));
        let pools: Vec<_> = self
            .flows
            .sources
            .values()
            .flat_map(|spec| {
                let out_port = spec.out_port.as_ref().and_then(|port| self.ports.id(port));
                let port = out_port.and_then(|port| self.ports.get(port));
                let vrf = port.map_or(&spec.vrf, |port| &port.spec.vrf).clone();
                spec.pool().map(move |(_, address)| (vrf.clone(), address))
            })
            .chain(fixed)
            .collect();
        for port in self.ports.list.iter_mut().flatten() {
            let subnets = &port.spec.addresses;
            let is_near = |address| {
                subnets
                    .iter()
                    .any(|net: &IpNet| net.contains(&address) && net.addr() != address)
            };
            let near = pools
                .iter()
                .filter(|(vrf, address)| *vrf == port.spec.vrf && is_near(*address));
            let near: BTreeSet<_> = near.map(|(_, address)| *address).collect();
            let served = self.balancing.fronts().map(|front| front.address);
            let served = served.filter(|address| serves(port, *address));
            port.aliases = served.chain(near).collect::<BTreeSet<_>>().into_iter().collect();
        }
    }

    /// Shows workers the rules, and makes what was decided without them stale.
    pub(super) fn publish_flows(&mut self) {
        let rules = self.flows.sources.values().map(|spec| Rule {
            vrf: self.vrf(&spec.vrf),
            sources: vec![(spec.source.addr(), spec.source.prefix_len())],
            excluded: spec.exclude.iter().map(|net| (net.addr(), net.prefix_len())).collect(),
            out_port: spec.out_port.as_ref().and_then(|port| self.ports.id(port)),
            addresses: spec.pool().map(|(_, address)| address).collect(),
            ports: spec.ports.0.clone(),
        });
        // What is written about an address comes before what holds for its pool.
        let pools: Vec<_> = self.pools().collect();
        let outgoing = outgoing(&pools);
        let is_outgoing = outgoing.is_some();
        let near = pools.iter().map(|(net, _)| Prefix::new(net.addr(), net.prefix_len()));
        let rules = Rules {
            rules: rules.chain(outgoing).collect(),
            fixed: Fixed::new(self.flows.static_nat.pairs(), near.collect()),
        };
        if *self.flows.rules.current() != rules {
            self.flows.rules.publish(rules);
        }
        self.flows.outgoing = is_outgoing;
        self.track();
        self.flows.tracking.generation.advance();
        self.enforce_marks();
    }

    /// The pools that resources and Felix tell of, and whether what leaves each for the world gets an address of the host.
    pub(super) fn pools(&self) -> impl Iterator<Item = (IpNet, bool)> {
        self.agent.pools().chain(self.flows.pools.values().copied())
    }
}

/// Whether a port answers for a service at the address, which lies in a prefix of its own and in one of `proxyArp`.
fn serves(port: &Port, address: IpAddr) -> bool {
    let PortSpec {
        proxy_arp,
        addresses,
        vrf,
        ..
    } = &port.spec;
    match proxy_arp {
        ProxyArp::Prefixes(nets) => {
            let is_near = |net: &IpNet| net.contains(&address) && net.addr() != address;
            vrf == "default" && nets.iter().any(|net| net.contains(&address)) && addresses.iter().any(is_near)
        }
        ProxyArp::Nobody | ProxyArp::Routed => false,
    }
}

/// What goes from a pool with `natOutgoing` to an address in no pool gets the address of the port that it leaves by.
fn outgoing(pools: &[(IpNet, bool)]) -> Option<Rule> {
    let prefix = |net: &IpNet| (net.addr(), net.prefix_len());
    let sources = pools.iter().filter(|(_, outgoing)| *outgoing);
    let sources: Vec<_> = sources.map(|(net, _)| prefix(net)).collect();
    (!sources.is_empty()).then(|| Rule {
        vrf: VrfId::default(),
        sources,
        excluded: pools.iter().map(|(net, _)| prefix(net)).collect(),
        out_port: None,
        addresses: vec![],
        ports: PortRange::default().0,
    })
}
