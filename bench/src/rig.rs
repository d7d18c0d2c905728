//! One worker with the product's whole graph (`control::wiring`), fed and emptied by queues in memory, turned by the
//! benchmark, and read by its own counters.

use crate::spread::Spread;
use crate::traffic::Generator;
use classifier::sets::Capacity;
use control::agent::Agent;
use control::program::felix::ToDataplane;
use control::program::policy::{Enforcement, PortInfo};
use control::resource::{Source, read};
use control::wiring::{FLOW_WRITERS, Flows, Rings};
use fastpath::arena::Arena;
use fastpath::builder::{Kind, StageInfo};
use fastpath::clock::Clock;
use fastpath::counters::Counters;
use fastpath::events::Events;
use fastpath::fib::{self, Pages};
use fastpath::forwarding::{Forwarding, LinkState};
use fastpath::generation::Generation;
use fastpath::graph::Graph;
use fastpath::interfaces::{Interface, Interfaces};
use fastpath::meta::{PortId, VrfId};
use fastpath::pool::Pool;
use fastpath::port::Queue;
use fastpath::port::xdp::Umem;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::rib::{Hop, Origin, Rib, Target};
use fastpath::ring::ring;
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker};
use ipnet::IpNet;
use nat::affinity::Affinity;
use nat::service::Book;
use nat::snat::{Rule, Rules};
use nat::table::{Shape, Table};
use nat::timeouts::Timeouts;
use nat::tracking::Tracking;
use std::net::IpAddr;
use std::sync::Arc;
use wireguard::mailbox::Mailbox;

/// The link address of the port that packets come in by.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Frames of the rig: as many as `margay run` sets aside.
const FRAMES: u32 = 65_536;
/// Vectors turned before anything is measured, and between two readings of the counters.
const WARM_UP: usize = 512;
/// Packets between two readings of the counters.
const RUN_PACKETS: u64 = 1 << 14;
/// Readings.
const RUNS: usize = 301;

/// A worker that the benchmark turns.
pub struct Turner {
    worker: ManualWorker,
    now_ns: u64,
}

/// A worker with the product's graph, and control's hands on its tables.
pub struct Rig {
    /// The worker.
    pub turner: Turner,
    rib: Rib,
    // Workers hold readers; the publisher keeps the value alive and could change it.
    _interfaces: Publisher<Interfaces>,
    _connections: Connections,
}

/// Room for sets of policy.
const SETS: Capacity = Capacity {
    prefix_bytes: 1 << 20,
    class_bytes: 1 << 20,
};

/// What becomes of connections.
#[derive(Default)]
pub struct Tracked {
    /// Room for so many.
    pub connections: u32,
    /// Which get another source.
    pub rules: Vec<Rule>,
    /// Which get another target.
    pub services: Book,
    /// Policy and endpoints, as YAML; the ports are called `port-1` and `port-2`.
    pub policy: String,
}

/// What the nodes of connections work on.
pub struct Connections {
    tracking: Tracking,
    rules: Publisher<Rules>,
    services: Book,
    affinity: Arc<Affinity>,
    /// What packets are judged by.
    pub policy: Enforcement,
}

impl Connections {
    /// An empty table, with what becomes of those in it.
    ///
    /// # Panics
    /// If there is no address space for it, or policy is not what the product takes.
    pub fn new(tracked: Tracked, qsbr: &Arc<Qsbr>) -> Self {
        let shape = Shape {
            connections: tracked.connections.max(1),
            writers: FLOW_WRITERS,
            seed: 1,
        };
        let tracking = Tracking {
            table: Arc::new(Table::new(&shape, qsbr.clone()).expect("address space")),
            generation: Generation::default(),
            journal: Default::default(),
        };
        tracking.table.populate();
        Self {
            tracking,
            rules: Publisher::new(Rules::from(tracked.rules)),
            services: tracked.services,
            affinity: Arc::new(Affinity::new(16, 1)),
            policy: enforcement(&tracked.policy, qsbr),
        }
    }

    /// For one worker's graph.
    pub fn wiring(&self) -> Flows<'_> {
        Flows {
            tracking: &self.tracking,
            timeouts: Timeouts::default(),
            rules: &self.rules,
            services: &self.services,
            affinity: &self.affinity,
        }
    }
}

/// What a stage cost.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Cycles a packet.
    pub cycles: Spread,
}

/// What forwarding cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Cycles a packet in all nodes together, sources and sinks apart.
    pub cycles: Spread,
    /// Nodes, sources and sinks that saw packets.
    pub stages: Vec<Stage>,
}

impl Rig {
    /// Two ports, packets from `generator` to the first; routes are still to come.
    pub fn new(generator: Generator) -> Self {
        Self::build(|graph, qsbr| Turner::new(graph, qsbr, generator), None)
    }

    /// The same with both ports tracked, and packets from these queues at them.
    pub fn tracked(queues: [Box<dyn Queue>; 2], tracked: Tracked) -> Self {
        let turner = |graph, qsbr| Turner::with_queues(graph, qsbr, queues);
        Self::build(turner, Some(tracked))
    }

    fn build(turner: impl FnOnce(Graph, Arc<Qsbr>) -> Turner, tracked: Option<Tracked>) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        let is_tracked = tracked.is_some();
        let connections = Connections::new(tracked.unwrap_or_default(), &qsbr);
        let forwarding = Arc::new(Forwarding::default());
        let tables = fib::Pool::new(1 << 30, Pages::Huge, qsbr.clone()).expect("address space");
        let mut rib = Rib::new(forwarding.clone(), qsbr.clone(), tables);
        let interfaces = Publisher::new(Interfaces {
            ports: [1, 2].map(|number| port(number, is_tracked)).into(),
            listeners: vec![],
            ..Interfaces::default()
        });
        let tunnels = Publisher::new(wireguard::interface::Interfaces::default());
        let events = Events::new(|| {});
        let shared = control::wiring::Shared {
            interfaces: &interfaces,
            rib: &rib,
            forwarding: &forwarding,
            events: &events,
            wireguard: &tunnels,
            mailbox: &Mailbox::new(|| {}),
            flows: connections.wiring(),
            policy: &connections.policy,
            workers: 1,
        };
        let rings = Rings {
            inject: ring(1024).1,
            originate: ring(1024).1,
            handoff: vec![],
        };
        let graph = control::wiring::graph(&shared, 0, rings).expect("the product's own wiring");
        for port in [0, 1] {
            rib.set_port(PortId(port), [2, 0, 0, 0, 0, 1 + port as u8], 1500);
        }
        Self {
            turner: turner(graph, qsbr),
            rib,
            _interfaces: interfaces,
            _connections: connections,
        }
    }

    /// Adds a neighbour behind the second port, whose link address is known.
    pub fn neighbour(&mut self, address: IpAddr) {
        let mac = [2, 0, 0, 0, 1, 1];
        self.rib.set_link(PortId(1), address, LinkState::Complete, mac);
    }

    /// Adds a route by a gateway behind the second port.
    pub fn route(&mut self, net: IpNet, gateway: IpAddr) {
        let hop = Hop {
            port: PortId(1),
            address: gateway,
            weight: 1,
        };
        let target = Target::Hops(vec![hop]);
        self.rib
            .set(VrfId(0), net, Origin::Static, &target)
            .expect("room for the route");
    }
}

impl Turner {
    /// Turns `graph`, with packets from `generator` to port 0 and a port 1 that takes what is sent.
    pub fn new(graph: Graph, qsbr: Arc<Qsbr>, generator: Generator) -> Self {
        let sink = Generator::new(vec![], 0);
        Self::with_queues(graph, qsbr, [Box::new(generator), Box::new(sink)])
    }

    /// Turns `graph`, with these queues at the ports 0 and 1. Where both have packets, they come in turn.
    pub fn with_queues(graph: Graph, qsbr: Arc<Qsbr>, queues: [Box<dyn Queue>; 2]) -> Self {
        let umem = Umem::new(FRAMES).expect("memory for the frames");
        let (arena, frames) = Arena::over(umem).expect("memory for the metas");
        let parts = Parts {
            number: 0,
            core: None,
            idle: Idle::Spin,
            graph,
            pool: Pool::new(arena, frames),
            qsbr,
            clock: Clock::new(),
            waker: Arc::new(Waker::new().expect("an event descriptor")),
            handoff: vec![],
        };
        let (worker, commands) = ManualWorker::new(parts);
        for (port, queue) in (0..).zip(queues) {
            // The worker lives, so it hears.
            let _ = commands.send(Command::Attach(PortId(port), queue, Arc::default()));
        }
        Self { worker, now_ns: 0 }
    }

    /// One turn; packets carried.
    pub fn turn(&mut self) -> usize {
        self.now_ns += 10_000;
        self.worker.turn(self.now_ns)
    }

    /// Turns until the counters have told enough.
    ///
    /// # Panics
    /// If a packet ended elsewhere than in `sink`: then not what was meant was measured.
    pub fn measure(&mut self, sink: &str) -> Cost {
        for _ in 0..WARM_UP {
            self.turn();
        }
        let stages = self.worker.graph().stages().clone();
        let counters = self.worker.graph().counters();
        let mut runs: Vec<Vec<f64>> = vec![];
        for _ in 0..RUNS {
            let before = readings(&counters);
            let mut packets = 0;
            while packets < RUN_PACKETS {
                packets += self.turn() as u64;
            }
            let after = readings(&counters);
            let cycles = after.iter().zip(&before).map(|(after, before)| after.0 - before.0);
            runs.push(cycles.map(|cycles| cycles as f64 / packets as f64).collect());
            let end = stages.iter().position(|stage| stage.name == sink).expect("the sink");
            let astray = || astray(&stages, &counters);
            assert_eq!(
                after[end].1 - before[end].1,
                packets,
                "packets went astray: {}",
                astray()
            );
        }
        let of = |at: usize| Spread::of(runs.iter().map(|run| run[at]));
        let is_node = |at: &usize| stages[*at].kind == Kind::Node;
        let sum = |run: &Vec<f64>| (0..stages.len()).filter(is_node).map(|at| run[at]).sum();
        let seen = (0..stages.len()).filter(|at| counters[*at].packets.read() > 0);
        Cost {
            cycles: Spread::of(runs.iter().map(sum)),
            stages: seen
                .map(|at| Stage {
                    name: stages[at].name.clone(),
                    cycles: of(at),
                })
                .collect(),
        }
    }
}

/// What the product's agent makes of resources, in force.
fn enforcement(yaml: &str, qsbr: &Arc<Qsbr>) -> Enforcement {
    let mut policy = Enforcement::new(SETS, qsbr.clone()).expect("address space");
    let mut agent = Agent::default();
    for document in read(&[Source::file("bench.yaml", yaml)]).expect("documents that are right") {
        agent.update(&document.resource.key(), None, Some(&document.resource));
    }
    policy.receive(ToDataplane::InSync);
    policy.expect(agent.has_endpoints());
    for message in agent.flush() {
        policy.receive(message);
    }
    for port in [0, 1] {
        let info = PortInfo {
            name: format!("port-{}", port + 1),
            ..PortInfo::default()
        };
        policy.set_port(PortId(port), Some(info));
    }
    policy.publish();
    policy
}

/// Why packets were dropped.
fn astray(stages: &[StageInfo], counters: &[Arc<Counters>]) -> String {
    let drops = stages.iter().zip(counters).flat_map(|(stage, counters)| {
        let reasons = stage.drops.iter().zip(&counters.drops);
        reasons.map(|((reason, _), count)| (&stage.name, reason, count.read()))
    });
    let drops = drops.filter(|(.., count)| *count > 0);
    let drops: Vec<_> = drops
        .map(|(stage, reason, count)| format!("{stage} {reason} {count}"))
        .collect();
    drops.join(", ")
}

/// Cycles and packets of each stage so far.
fn readings(counters: &[Arc<Counters>]) -> Vec<(u64, u64)> {
    counters
        .iter()
        .map(|stage| (stage.cycles.read(), stage.packets.read()))
        .collect()
}

fn port(number: u8, tracked: bool) -> Option<Interface> {
    let addresses = [
        (IpAddr::from([10, number, 0, 1]), 16),
        (IpAddr::from([0xfd00, u16::from(number), 0, 0, 0, 0, 0, 1]), 64),
    ];
    Some(Interface {
        name: format!("port-{number}"),
        mac: [2, 0, 0, 0, 0, number],
        mtu: 1500,
        vrf: VrfId(0),
        tracked,
        shared: false,
        addresses: addresses.into(),
        ..Interface::default()
    })
}
