//! A gateway: the product's graph with memory ports, a tunnel, and control's part done by hand, in simulated time.

use classifier::sets::Capacity;
use control::program::policy::Enforcement;
use nat::affinity::Affinity;
use nat::service::Book;
use nat::snat::Rules;
use nat::table::{Shape, Table};
use nat::timeouts::Timeouts;
use nat::tracking::Tracking;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use control::wiring::{self, Rings};
use fastpath::arena::Arena;
use fastpath::clock::Clock;
use fastpath::events::Events;
use fastpath::fib::{self, Pages};
use fastpath::forwarding::{Forwarding, LinkState};
use fastpath::graph::Graph;
use fastpath::interfaces::{Interface, Interfaces, Listener};
use fastpath::meta::{PortId, VrfId};
use fastpath::pool::{Frames, Pool};
use fastpath::port::memory::{MemoryEnd, memory};
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::rib::{Hop, Origin, Rib, Target};
use fastpath::ring::{Producer, ring};
use fastpath::trace::{Tracer, Visits};
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker};
use ipnet::IpNet;
use testbed::packets::Mac;
use wireguard::allowed_ips::AllowedIps;
use wireguard::interface::{self as tunnels, Lookups};
use wireguard::mailbox::Mailbox;
use wireguard::outer::{HANDSHAKE_CLASS, datagram};
use wireguard::peer::PeerId;
use wireguard::tunnel::{Action, Now, PeerConfig, Random, Tunnel};

/// UDP port that every gateway listens on.
pub const PORT: u16 = 51820;
/// Most bytes of a packet inside a tunnel, and on the ports.
pub const MTU: u16 = 1420;
pub const LINK_MTU: u16 = 1500;
pub const SECOND: u64 = 1_000_000_000;

const FRAMES: u32 = 8192;
const INSIDE: PortId = PortId(0);
const OUTSIDE: PortId = PortId(1);
pub const TUNNEL: PortId = PortId(2);

/// SplitMix64: the same numbers for the same seed.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

/// A host behind gateway `number`, of IPv4 or IPv6.
pub fn host(number: u8, is_v4: bool) -> IpAddr {
    behind(number, is_v4, 2)
}

/// The gateway's own address on the side of its host.
pub fn inside(number: u8, is_v4: bool) -> IpAddr {
    behind(number, is_v4, 1)
}

fn behind(number: u8, is_v4: bool, host: u8) -> IpAddr {
    match is_v4 {
        true => [10, number, 0, host].into(),
        false => Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The gateway's address on the wire between all gateways.
pub fn outside(number: u8, is_v4: bool) -> IpAddr {
    match is_v4 {
        true => [192, 0, 2, number].into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The gateway's address inside the tunnel.
pub fn within(number: u8, is_v4: bool) -> IpAddr {
    match is_v4 {
        true => [10, 99, 0, number].into(),
        false => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Link addresses: of the gateway inside and outside, and of its host.
pub fn mac(number: u8, which: u8) -> Mac {
    [2, 0, 0, 0, number, which]
}

fn private(number: u8) -> [u8; 32] {
    [number; 32]
}

pub fn at(ns: u64) -> Now {
    Now {
        ns,
        wall: Duration::from_secs(1_700_000_000) + Duration::from_nanos(ns),
    }
}

/// What differs between gateways of a test.
#[derive(Clone, Copy)]
pub struct Settings {
    pub mtu: u16,
    pub clamp_mss: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mtu: MTU,
            clamp_mss: false,
        }
    }
}

pub struct Gateway {
    pub number: u8,
    pub tunnel: Tunnel,
    pub inside: MemoryEnd,
    pub outside: MemoryEnd,
    pub mailbox: Mailbox,
    pub visits: Visits,
    // Before the pool, so that every frame is back when that is counted.
    worker: Option<ManualWorker>,
    commands: crossbeam_channel::Sender<Command>,
    originate: Producer,
    frames: Option<Frames>,
    pool: Arc<Pool>,
    rib: Rib,
    forwarding: Arc<Forwarding>,
    _interfaces: Publisher<Interfaces>,
    tables: fib::Pool,
    allowed: AllowedIps,
    _tunnels: Publisher<tunnels::Interfaces>,
    identification: u16,
}

impl Gateway {
    pub fn new(number: u8, settings: Settings) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        let forwarding = Arc::new(Forwarding::default());
        let pool = |bytes| fib::Pool::new(bytes, Pages::Small, qsbr.clone()).unwrap();
        let rib = Rib::new(forwarding.clone(), qsbr.clone(), pool(64 << 20));
        let tables = pool(16 << 20);
        let allowed = AllowedIps::new(&tables);
        let tunnel = Tunnel::new(&private(number), 2048, Box::new(Seeded(number.into())));
        let interface = interface(&settings, &allowed, &tunnel);
        let tunnels = Publisher::new(tunnels::Interfaces(vec![None, None, Some(Arc::new(interface))]));
        let interfaces = Publisher::new(interfaces(number, settings.mtu));
        let mailbox = Mailbox::new(|| {});
        let flows = flows(&rib, &qsbr);
        let rules = Publisher::new(Rules::default());
        let policy = Enforcement::new(CAPACITY, qsbr.clone()).unwrap();
        let shared = wiring::Shared {
            interfaces: &interfaces,
            rib: &rib,
            forwarding: &forwarding,
            events: &Events::new(|| {}),
            wireguard: &tunnels,
            mailbox: &mailbox,
            flows: wiring::Flows {
                tracking: &flows,
                timeouts: Timeouts::default(),
                rules: &rules,
                services: &Book::default(),
                affinity: &Arc::new(Affinity::new(16, 1)),
            },
            policy: &policy,
            workers: 1,
        };
        let (originate, originated) = ring(1024);
        let rings = Rings {
            inject: ring(8).1,
            originate: originated,
            handoff: vec![],
        };
        let graph = wiring::graph(&shared, 0, rings).unwrap();
        let (worker, commands, pool) = worker(graph, qsbr);
        let [inside, outside] = [INSIDE, OUTSIDE].map(|port| {
            let (queue, end) = memory();
            commands
                .send(Command::Attach(port, Box::new(queue), Arc::default()))
                .unwrap();
            end
        });
        let mut gateway = Self {
            number,
            tunnel,
            inside,
            outside,
            mailbox,
            visits: Visits::default(),
            worker: Some(worker),
            commands,
            originate,
            frames: Some(pool.frames()),
            pool,
            rib,
            forwarding,
            _interfaces: interfaces,
            tables,
            allowed,
            _tunnels: tunnels,
            identification: 0,
        };
        gateway.write_routes();
        gateway
    }

    fn write_routes(&mut self) {
        let number = self.number;
        self.rib.set_port(INSIDE, mac(number, 0), LINK_MTU);
        self.rib.set_port(OUTSIDE, mac(number, 1), LINK_MTU);
        for is_v4 in [true, false] {
            for own in [inside, outside, within] {
                self.route(own(number, is_v4).into(), Origin::Connected, &Target::Local);
            }
            self.neighbour(INSIDE, host(number, is_v4), mac(number, 2));
            for other in (1..10).filter(|other| *other != number) {
                self.neighbour(OUTSIDE, outside(other, is_v4), mac(other, 1));
            }
        }
    }

    fn neighbour(&mut self, port: PortId, address: IpAddr, mac: Mac) {
        let hop = Hop {
            port,
            address,
            weight: 1,
        };
        self.rib.set_link(port, address, LinkState::Complete, mac);
        self.route(address.into(), Origin::Neighbour, &Target::Hops(vec![hop]));
    }

    fn route(&mut self, net: IpNet, origin: Origin, target: &Target) {
        self.rib.set(VrfId(0), net, origin, target).unwrap();
    }

    /// Adds another gateway as a peer, which may use the addresses behind it and within, and `more`.
    pub fn add(&mut self, other: u8, endpoint: Option<IpAddr>, more: &[&str]) -> PeerId {
        let public_key = *Tunnel::new(&private(other), 1, Box::new(Seeded(0))).public_key();
        let config = PeerConfig {
            public_key,
            preshared_key: zeroize::Zeroizing::new([0; 32]),
            endpoint: endpoint.map(|address| SocketAddr::new(address, PORT)),
            persistent_keepalive_s: 0,
        };
        let peer = self.tunnel.add(&config, at(SECOND)).unwrap();
        let mut nets: Vec<IpNet> = more.iter().map(|net| net.parse().unwrap()).collect();
        for is_v4 in [true, false] {
            nets.push(within(other, is_v4).into());
            nets.push(
                IpNet::new(host(other, is_v4), if is_v4 { 24 } else { 64 })
                    .unwrap()
                    .trunc(),
            );
        }
        self.allow(peer, &nets);
        peer
    }

    pub fn allow(&mut self, peer: PeerId, nets: &[IpNet]) {
        self.allowed.set(&mut self.tables, peer, nets).unwrap();
        for net in nets {
            self.route(*net, Origin::Allowed, &Target::Tunnel(TUNNEL));
        }
    }

    /// A route into the tunnel that no peer answers for, or anything else.
    pub fn route_into_tunnel(&mut self, net: &str) {
        let net: IpNet = net.parse().unwrap();
        self.route(net, Origin::Static, &Target::Tunnel(TUNNEL));
        // As control does: a neighbour has a route of its own only where it would be asked for on its link.
        self.rib.clear(VrfId(0), net, Origin::Neighbour).unwrap();
    }

    /// One turn of the worker, then control's part.
    pub fn turn(&mut self, now_ns: u64) -> usize {
        let carried = self.work(now_ns);
        self.control(now_ns);
        carried
    }

    /// One turn of the worker alone.
    pub fn work(&mut self, now_ns: u64) -> usize {
        self.worker.as_mut().unwrap().turn(now_ns)
    }

    /// What control does with what workers say, and with time.
    pub fn control(&mut self, now_ns: u64) {
        let now = at(now_ns);
        while let Some(letter) = self.mailbox.letter() {
            // What is refused is left out.
            let _ = self
                .tunnel
                .receive(letter.bytes(), letter.ends, self.mailbox.backlog(), now);
        }
        while let Some((_, notice)) = self.mailbox.notice() {
            self.tunnel.notice(notice, now);
        }
        if self.tunnel.next_wake().is_some_and(|at| at <= now_ns) {
            self.tunnel.wake(now);
        }
        while let Some(action) = self.tunnel.poll() {
            match action {
                Action::Send { ends, bytes } => {
                    let ends = ends.from(Some(outside(self.number, ends.remote.is_ipv4())));
                    let frames = self.frames.as_mut().unwrap();
                    let mut frame = frames.take().unwrap();
                    self.identification += 1;
                    let message = (&bytes[..], HANDSHAKE_CLASS);
                    let packet = &mut frames.packet(&mut frame);
                    let (way, id) = ((ends, PORT), self.identification);
                    assert!(datagram(packet, (TUNNEL, VrfId(0)), way, message, id));
                    self.originate.send(&mut vec![frame]);
                }
                Action::Established(_) | Action::Unreachable(_) => self.forwarding.announce(),
            }
        }
    }

    /// A packet from the host behind it.
    pub fn send(&self, packet: &[u8]) {
        let frame = testbed::packets::frame(mac(self.number, 0), mac(self.number, 2), packet);
        self.inside.send.send(frame).unwrap();
    }

    /// A datagram from the wire.
    pub fn hear(&self, frame: &[u8]) {
        self.outside.send.send(frame.to_vec()).unwrap();
    }

    /// IP packets that its host has received.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let frames = self.inside.receive.try_iter();
        frames.map(|frame| frame[14..].to_vec()).collect()
    }

    /// Packets dropped, or answered with an error, by the names of stage and reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let graph = self.worker.as_ref().unwrap().graph();
        let mut found = BTreeMap::new();
        for (stage, counters) in graph.stages().iter().zip(graph.counters()) {
            let named = stage.edges.iter().zip(stage.edge_sentences).zip(&counters.edges);
            let told = named.filter(|((_, sentence), _)| !sentence.is_empty());
            let edges = told.map(|((edge, _), counter)| (edge.0, counter));
            let reasons = stage.drops.iter().map(|drop| drop.0).zip(&counters.drops);
            for (name, counter) in edges.chain(reasons).filter(|(_, counter)| counter.read() > 0) {
                found.insert(format!("{}: {name}", stage.name), counter.read());
            }
        }
        found
    }

    /// Packets that a stage handled.
    pub fn handled(&self, stage: &str) -> u64 {
        let graph = self.worker.as_ref().unwrap().graph();
        let place = graph.stages().iter().position(|one| one.name == stage).unwrap();
        graph.counters()[place].packets.read()
    }

    /// Traces the next packets; what each stage said of them is in [`Self::story`].
    pub fn trace(&mut self, count: u32) {
        let remaining = Arc::new(std::sync::atomic::AtomicU32::new(count));
        let tracer = Tracer::new(remaining, None, self.visits.clone());
        self.commands.send(Command::Trace(Some(tracer))).unwrap();
    }

    pub fn story(&self) -> Vec<String> {
        let stages = self.worker.as_ref().unwrap().graph().stages().clone();
        let told = std::iter::from_fn(|| self.visits.next());
        let line = |visit: fastpath::trace::Visit| {
            let stage = &stages[usize::from(visit.stage)];
            format!("{}: {}", stage.name, (stage.describe)(&visit.seen))
        };
        told.map(line).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // The worker gives back what waits; what was still to be routed is the ring's.
        for _ in 0..8 {
            self.work(u64::MAX / 2);
        }
        self.worker = None;
        self.frames = None;
        let mut frames = self.pool.frames();
        let free = std::iter::from_fn(|| frames.take()).count();
        assert_eq!(free, FRAMES as usize, "frames were lost");
    }
}

fn worker(graph: Graph, qsbr: Arc<Qsbr>) -> (ManualWorker, crossbeam_channel::Sender<Command>, Arc<Pool>) {
    let (arena, frames) = Arena::new(FRAMES).unwrap();
    let pool = Pool::new(arena, frames);
    let parts = Parts {
        number: 0,
        core: None,
        idle: Idle::Spin,
        graph,
        pool: pool.clone(),
        qsbr,
        clock: Clock::new(),
        waker: Arc::new(Waker::new().unwrap()),
        handoff: vec![],
    };
    let (worker, commands) = ManualWorker::new(parts);
    (worker, commands, pool)
}

/// The tunnel as workers see it.
fn interface(settings: &Settings, allowed: &AllowedIps, tunnel: &Tunnel) -> tunnels::Interface {
    tunnels::Interface {
        port: TUNNEL,
        vrf: VrfId(0),
        mtu: settings.mtu,
        listen_port: PORT,
        clamp_mss: settings.clamp_mss,
        allowed: allowed.view(),
        lookups: Lookups::new(&tunnel.tables(), 1),
    }
}

/// For sets that there are none of.
const CAPACITY: Capacity = Capacity {
    prefix_bytes: 1 << 20,
    class_bytes: 1 << 20,
};

/// A table that nothing is put into: no port is tracked.
fn flows(rib: &Rib, qsbr: &Arc<Qsbr>) -> Tracking {
    let shape = Shape {
        connections: 16,
        writers: wiring::FLOW_WRITERS,
        seed: 1,
    };
    Tracking {
        table: Arc::new(Table::new(&shape, qsbr.clone()).unwrap()),
        generation: rib.generation().clone(),
        journal: Default::default(),
    }
}

fn interfaces(number: u8, tunnel_mtu: u16) -> Interfaces {
    let both = |of: fn(u8, bool) -> IpAddr, lengths: [u8; 2]| {
        vec![(of(number, true), lengths[0]), (of(number, false), lengths[1])]
    };
    let port = |name: &str, mac, mtu, addresses| {
        Some(Interface {
            name: name.to_owned(),
            mac,
            mtu,
            vrf: VrfId(0),
            tracked: false,
            shared: false,
            addresses,
            ..Interface::default()
        })
    };
    Interfaces {
        ports: vec![
            port("inside", mac(number, 0), LINK_MTU, both(inside, [24, 64])),
            port("outside", mac(number, 1), LINK_MTU, both(outside, [24, 64])),
            port("wg0", [0; 6], tunnel_mtu, both(within, [32, 128])),
        ],
        listeners: vec![Listener {
            vrf: VrfId(0),
            udp_port: PORT,
            port: TUNNEL,
        }],
        ..Interfaces::default()
    }
}
