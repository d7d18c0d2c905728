//! One worker with the nodes of flows between those that they stand between in the product, two ports of memory, and
//! simulated time.

use crate::PUBLIC;
use crate::packets::{Plain, port_mac};
use fastpath::arena::Arena;
use fastpath::builder::{GraphBuilder, NodeId, SinkId};
use fastpath::clock::Clock;
use fastpath::fib::{self, Pages};
use fastpath::forwarding::{Forwarding, LinkState};
use fastpath::generation::Generation;
use fastpath::graph::Graph;
use fastpath::interfaces::{Interface, Interfaces, Listener};
use fastpath::meta::{PortId, VrfId};
use fastpath::nodes::adjacency::{self, Adjacency};
use fastpath::nodes::icmp_error::{self, IcmpError};
use fastpath::nodes::parse::{self, Parse};
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::{Consumed, PortOut};
use fastpath::nodes::route::{self, Route};
use fastpath::pool::Pool;
use fastpath::port::memory::{MemoryEnd, memory};
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::rib::{Hop, Origin, Rib, Target};
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker};
use nat::nodes::admit::{self, Admit};
use nat::nodes::flows::{self, Flows};
use nat::nodes::fragments::{self, FragmentPorts, Gather, Gathered};
use nat::nodes::rewrite::{self, Rewrite};
use nat::nodes::sweep::Expiry;
use nat::snat::{Rule, Rules};
use nat::table::{Shape, Table};
use nat::timeouts::Timeouts;
use nat::tracking::{Decided, Tracking};
use std::net::IpAddr;
use std::sync::Arc;

pub const INSIDE: usize = 0;
pub const OUTSIDE: usize = 1;
/// A UDP port that a tunnel listens on.
pub const TUNNEL: u16 = 51820;

pub struct Plane {
    worker: ManualWorker,
    ends: [MemoryEnd; 2],
    pub tracking: Tracking,
    rib: Rib,
    rules: Publisher<Rules>,
    now_ns: u64,
    _interfaces: Publisher<Interfaces>,
}

impl Plane {
    /// Clients are inside, in 10.1.0.0/16 and fd00:1::/64; everything else is outside, and no MTU is above 1,500.
    pub fn new(connections: u32, rules: Vec<Rule>) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        let forwarding = Arc::new(Forwarding::default());
        let tables = fib::Pool::new(1 << 24, Pages::Small, qsbr.clone()).unwrap();
        let mut rib = Rib::new(forwarding.clone(), qsbr.clone(), tables);
        let interfaces = Publisher::new(Interfaces {
            ports: [INSIDE, OUTSIDE].map(interface).into(),
            listeners: vec![Listener {
                vrf: VrfId(0),
                udp_port: TUNNEL,
                port: PortId(OUTSIDE as u16),
            }],
            ..Interfaces::default()
        });
        let shape = Shape {
            connections,
            writers: 8,
            seed: 1,
        };
        let tracking = Tracking {
            table: Arc::new(Table::new(&shape, qsbr.clone()).unwrap()),
            generation: Generation::default(),
            journal: Default::default(),
        };
        let rules = Publisher::new(Rules::from(rules));
        let graph = graph(&tracking, &rules, &interfaces, &rib, &forwarding);
        for port in [INSIDE, OUTSIDE] {
            rib.set_port(PortId(port as u16), port_mac(port), 1500);
        }
        let (arena, frames) = Arena::new(1024).unwrap();
        let parts = Parts {
            number: 0,
            core: None,
            idle: Idle::Spin,
            graph,
            pool: Pool::new(arena, frames),
            qsbr,
            clock: Clock::new(),
            waker: Arc::new(Waker::new().unwrap()),
            handoff: vec![],
        };
        let (worker, commands) = ManualWorker::new(parts);
        let ends = [INSIDE, OUTSIDE].map(|port| {
            let (queue, end) = memory();
            let attach = Command::Attach(PortId(port as u16), Box::new(queue), Arc::default());
            commands.send(attach).unwrap();
            end
        });
        let mut this = Self {
            worker,
            ends,
            tracking,
            rib,
            rules,
            now_ns: 0,
            _interfaces: interfaces,
        };
        this.gateway(INSIDE, "10.1.0.0/16", "10.1.0.2");
        this.gateway(INSIDE, "fd00:1::/64", "fd00:1::2");
        this.gateway(OUTSIDE, "0.0.0.0/0", "192.0.2.2");
        this.gateway(OUTSIDE, "::/0", "2001:db8::2");
        for address in PUBLIC {
            this.reroute(address, &Target::Local);
        }
        this
    }

    /// Leads a prefix by a gateway, whose link address is known.
    pub fn gateway(&mut self, port: usize, net: &str, gateway: &str) {
        let (id, address): (_, IpAddr) = (PortId(port as u16), gateway.parse().unwrap());
        let hop = Hop {
            port: id,
            address,
            weight: 1,
        };
        let target = Target::Hops(vec![hop]);
        self.rib
            .set(VrfId(0), net.parse().unwrap(), Origin::Static, &target)
            .unwrap();
        let mac = [2, 0, 0, 0, 0, 0x11 + port as u8];
        self.rib.set_link(id, address, LinkState::Complete, mac);
    }

    /// What a route, or an address, now leads to, and every verdict stale.
    pub fn reroute(&mut self, net: &str, target: &Target) {
        let net = net.parse().or_else(|_| net.parse::<IpAddr>().map(Into::into)).unwrap();
        self.rib.set(VrfId(0), net, Origin::Static, target).unwrap();
        self.tracking.generation.advance();
    }

    /// Other rules of source NAT, which connections there are do not follow.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules.publish(Rules::from(rules));
        self.tracking.generation.advance();
    }

    /// Lets seconds pass, in steps so small that nothing is overlooked.
    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.now_ns += 50_000_000;
            self.worker.turn(self.now_ns);
        }
    }

    /// Puts frames on the cable of a port; what leaves inside, and what outside.
    pub fn exchange(&mut self, port: usize, frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
        for frame in frames {
            self.ends[port].send.try_send(frame.clone()).unwrap();
        }
        for _ in 0..8 + frames.len() / 100 {
            self.now_ns += 10_000;
            self.worker.turn(self.now_ns);
        }
        [INSIDE, OUTSIDE].map(|port| self.ends[port].receive.try_iter().collect())
    }

    /// Sends a packet to a port; it has to come out by the other, with one hop less, or not at all.
    pub fn pass(&mut self, port: usize, packet: &Plain) -> Option<Plain> {
        let out = self.exchange(port, &[packet.frame(port)]);
        assert_eq!(out[port], [] as [Vec<u8>; 0], "it came back");
        let frames = &out[1 - port];
        assert!(frames.len() <= 1, "it came out twice");
        frames.first().map(|frame| {
            let mut passed = Plain::open(frame);
            assert_eq!(passed.hops + 1, packet.hops);
            passed.hops = packet.hops;
            passed
        })
    }

    /// Packets dropped for a `node/reason`.
    pub fn dropped(&self, reason: &str) -> u64 {
        let (node, name) = reason.rsplit_once('/').unwrap();
        let graph = self.worker.graph();
        let stages = graph.stages();
        let stage = stages.iter().position(|stage| stage.name == node).unwrap();
        let drop = stages[stage].drops.iter().position(|drop| drop.0 == name).unwrap();
        graph.counters()[stage].drops[drop].read()
    }

    /// Packets that a stage saw.
    pub fn seen(&self, stage: &str) -> u64 {
        let graph = self.worker.graph();
        let at = graph.stages().iter().position(|info| info.name == stage).unwrap();
        graph.counters()[at].packets.read()
    }
}

fn interface(port: usize) -> Option<Interface> {
    let addresses: [(&str, u8); 2] = match port {
        INSIDE => [("10.1.0.1", 16), ("fd00:1::1", 64)],
        _ => [("192.0.2.254", 24), ("2001:db8::1", 64)],
    };
    Some(Interface {
        name: format!("port-{port}"),
        mac: port_mac(port),
        mtu: 1500,
        vrf: VrfId(0),
        tracked: true,
        shared: false,
        addresses: addresses
            .map(|(address, length)| (address.parse().unwrap(), length))
            .into(),
        ..Interface::default()
    })
}

fn graph(
    tracking: &Tracking,
    rules: &Publisher<Rules>,
    interfaces: &Publisher<Interfaces>,
    rib: &Rib,
    forwarding: &Arc<Forwarding>,
) -> Graph {
    let graph = &mut GraphBuilder::new();
    let decided = Decided::default();
    let parse = graph.node(Parse::new(interfaces.reader()));
    let flows = graph.node(Flows::new(tracking.clone(), decided.clone()));
    let route = graph.node(Route::new(forwarding.clone(), rib.reader()));
    let route_new = graph.instance(Route::new(forwarding.clone(), rib.reader()), "new");
    let admit = graph.node(Admit::new(
        tracking.clone(),
        decided,
        rules.reader(),
        interfaces.reader(),
        forwarding.clone(),
    ));
    let rewrite = graph.node(Rewrite::new(tracking.clone(), forwarding.clone()));
    let adjacency = graph.node(Adjacency::new(forwarding.clone()));
    let icmp_error = graph.node(IcmpError::new(interfaces.reader(), forwarding.clone()));
    let route_own = graph.instance(Route::new(forwarding.clone(), rib.reader()), "own");
    let adjacency_own = graph.instance(Adjacency::new(forwarding.clone()), "own");
    let port_out = graph.sink(PortOut);
    let consumed = graph.sink(Consumed);

    graph.source(PortIn, parse);
    graph.source(Expiry::new(tracking.clone(), Timeouts::default(), 0, 1), port_out);
    graph.connect(parse, parse::Next::Route, route);
    graph.connect(parse, parse::Next::Flows, flows);
    graph.connect(parse, parse::Next::Arp, consumed);
    graph.connect(parse, parse::Next::Ndp, consumed);
    graph.connect(parse, parse::Next::Check, consumed);
    graph.connect(parse, parse::Next::Police, consumed);
    graph.connect(parse, parse::Next::Punt, consumed);
    let fragment_ports = graph.node(FragmentPorts);
    let gather = graph.sink(Gather);
    graph.source(Gathered::default(), fragment_ports);
    graph.connect(fragment_ports, fragments::Next::Flows, flows);
    graph.connect(flows, flows::Next::Fragment, gather);
    graph.connect(flows, flows::Next::Known, rewrite);
    graph.connect(flows, flows::Next::Decide, route_new);
    graph.connect(flows, flows::Next::Untracked, route);
    graph.connect(flows, flows::Next::PathMtu, consumed);
    for next in [route::Next::Forward, route::Next::Local, route::Next::Tunnel] {
        graph.connect(route_new, next, admit);
    }
    graph.connect(admit, admit::Next::Rewrite, rewrite);
    graph.connect(rewrite, rewrite::Next::Transmit, port_out);
    graph.connect(rewrite, rewrite::Next::Forward, adjacency);
    graph.connect(rewrite, rewrite::Next::Local, consumed);
    graph.connect(rewrite, rewrite::Next::Tunnel, consumed);
    graph.connect(rewrite, rewrite::Next::Expired, icmp_error);
    graph.connect(rewrite, rewrite::Next::TooBig, icmp_error);
    graph.connect(icmp_error, icmp_error::Next::Send, route_own);
    for (route, adjacency) in [(route, adjacency), (route_own, adjacency_own)] {
        graph.connect(route, route::Next::Forward, adjacency);
        graph.connect(route, route::Next::Local, consumed);
        graph.connect(route, route::Next::Tunnel, consumed);
        last(graph, adjacency, port_out, consumed);
    }
    for route in [route, route_new, route_own] {
        graph.connect(route, route::Next::Hold, consumed);
        graph.connect(route, route::Next::Unreachable, consumed);
    }
    std::mem::take(graph).build().unwrap()
}

/// What a neighbour's link address lets leave, leaves.
fn last(graph: &mut GraphBuilder, adjacency: NodeId<Adjacency>, port_out: SinkId, consumed: SinkId) {
    use adjacency::Next;
    graph.connect(adjacency, Next::Transmit, port_out);
    graph.connect(adjacency, Next::Wrap, port_out);
    for next in [
        Next::Hold,
        Next::Fragment,
        Next::Expired,
        Next::TooBig,
        Next::HostUnreachable,
    ] {
        graph.connect(adjacency, next, consumed);
    }
}
