//! Connections in the graph: cycles a packet of established ones and of new ones, with policy, services, source NAT, and
//! without. `cargo bench -p bench --bench flows_graph`

use bench::report::record;
use bench::rig::{OUR_MAC, Rig, Tracked};
use bench::traffic::{Generator, udp};
use fastpath::arena::{FrameIndex, HEADROOM};
use fastpath::meta::{Endpoint, VrfId};
use fastpath::pool::Frames;
use fastpath::port::Queue;
use fastpath::vector::{BATCH_MAX, Vector};
use fastpath::wire::{checksum::checksum, protocol};
use nat::service::{Book, Frontend, Lead, Member};
use nat::snat::Rule;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// The table of the report.
const TABLE: &str = "Connections in the graph";
/// The first of the servers.
const SERVERS: u32 = 20 << 24;
/// The first of the services' addresses.
const SERVICES: u32 = 10 << 24 | 96 << 16;
/// Backends of a service.
const BACKENDS: u32 = 3;
/// Rules of the policy.
const RULES: u32 = 1_000;
const VRF: VrfId = VrfId(0);

/// What becomes of connections.
#[derive(Clone, Copy, Default)]
struct Scenario {
    masquerade: bool,
    services: u32,
    policy: bool,
}

const FOLLOWED: Scenario = Scenario {
    masquerade: false,
    services: 0,
    policy: false,
};
const MASQUERADE: Scenario = Scenario {
    masquerade: true,
    ..FOLLOWED
};
const POLICY: Scenario = Scenario {
    policy: true,
    ..FOLLOWED
};

const fn service(services: u32) -> Scenario {
    Scenario { services, ..FOLLOWED }
}

const ALL_AT_ONCE: Scenario = Scenario {
    policy: true,
    ..service(1_000)
};

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let (few, some, many, most) = (10_000, 1 << 16, 1 << 20, 10 << 20);
    for (scenario, counts) in [
        (FOLLOWED, [few, some, many].as_slice()),
        (MASQUERADE, &[few, some, many]),
        (POLICY, &[few, some]),
        (service(1_000), &[few, some, many, most]),
        (ALL_AT_ONCE, &[few, some, many]),
    ] {
        counts.iter().for_each(|count| established(*count, &scenario));
    }
    let services = [10, 1_000, 10_000].map(service);
    for scenario in [FOLLOWED, MASQUERADE, POLICY]
        .iter()
        .chain(&services)
        .chain(&[ALL_AT_ONCE])
    {
        let name = format!("new, {}", scenario.name());
        // Room for all that are made while it is measured.
        measure(&name, scenario.rig(8 << 20, 1 << 24));
    }
}

fn established(connections: u32, scenario: &Scenario) {
    let amount = match connections {
        ..10_001 => "10 K".to_owned(),
        10_001..=65_536 => "64 K".to_owned(),
        _ => format!("{} M", connections >> 20),
    };
    let mut rig = scenario.rig(connections, connections);
    let mut sent = 0;
    while sent < connections as usize {
        sent += rig.turner.turn();
    }
    measure(&format!("{amount} established, {}", scenario.name()), rig);
}

fn measure(name: &str, mut rig: Rig) {
    let cost = rig.turner.measure("port-out");
    record(TABLE, name, "cycles a packet", cost.cycles);
    for stage in &cost.stages {
        record(
            "Connections in the graph, node by node",
            name,
            &stage.name,
            stage.cycles,
        );
    }
}

impl Scenario {
    fn name(&self) -> String {
        let parts = [
            self.policy.then(|| format!("a policy of {RULES} rules")),
            (self.services > 0).then(|| format!("{} services of {BACKENDS}", self.services)),
            self.masquerade.then(|| "source NAT".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => "followed only".to_owned(),
            false => format!("with {}", parts.join(" and ")),
        }
    }

    /// With room for so many connections, and packets of `clients` in turn.
    fn rig(&self, connections: u32, clients: u32) -> Rig {
        let queues: [Box<dyn Queue>; 2] = [
            Box::new(Clients::new(clients, self.services)),
            Box::new(Generator::new(vec![], 0)),
        ];
        let tracked = Tracked {
            connections,
            rules: if self.masquerade { masquerade() } else { vec![] },
            services: book(self.services),
            policy: if self.policy { policy() } else { String::new() },
        };
        let mut rig = Rig::tracked(queues, tracked);
        rig.route("20.0.0.0/8".parse().expect("a prefix"), IpAddr::from([10, 2, 0, 2]));
        rig.neighbour(IpAddr::from([10, 2, 0, 2]));
        rig
    }
}

/// Everybody gets one address.
fn masquerade() -> Vec<Rule> {
    vec![Rule {
        vrf: VRF,
        sources: vec![(IpAddr::from([0, 0, 0, 0]), 0)],
        excluded: vec![],
        out_port: None,
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        ports: 1024..=65535,
    }]
}

fn book(services: u32) -> Book {
    let mut book = Book::default();
    for n in 0..services {
        let member = |backend: u32| Member {
            endpoint: Endpoint::v4((SERVERS + n * 256 + backend).to_be_bytes(), 8080),
            weight: 1,
            remote: false,
        };
        let pool = book.add_pool();
        book.set_pool(pool, &(0..BACKENDS).map(member).collect::<Vec<_>>(), 0);
        let lead = Lead {
            pool,
            sources: Arc::new([]),
            masquerade: false,
            silent: false,
            direct: None,
        };
        let address = IpAddr::from((SERVICES + n).to_be_bytes());
        book.set_frontend(Frontend::at(VRF, address, protocol::UDP, 53), lead);
    }
    book.publish();
    book
}

/// The clients are a workload; what it may send says a policy whose last rule lets pass what the others do not deny.
fn policy() -> String {
    let mut text = "\
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: world}, spec: {node: this, interfaceName: port-2}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: clients, namespace: default, labels: {app: clients}},
 spec: {pod: clients, interfaceName: port-1, ipNetworks: [10.1.0.0/32], allowSpoofedSourcePrefixes: [10.1.0.0/16]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: many}, spec: {selector: app == 'clients',
 types: [Egress], egress: [\n"
        .to_owned();
    for n in 1..RULES {
        let (net, port) = (n % 200, 1 + n * 7 % 1_000);
        let protocol = if n % 3 == 0 { "TCP" } else { "UDP" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {{action: Deny, protocol: {protocol}, destination: {{nets: [30.{net}.0.0/16], ports: [{port}]}}}},"
        );
    }
    text + "  {action: Allow}]}}\n"
}

/// Packets of so many clients, one of each in turn, in no order; those of a client belong to one connection.
struct Clients {
    packet: Vec<u8>,
    clients: u32,
    services: u32,
    next: u32,
}

impl Clients {
    fn new(clients: u32, services: u32) -> Self {
        let (client, server) = (IpAddr::from([10, 1, 0, 0]), IpAddr::from([20, 0, 0, 0]));
        Self {
            packet: udp(OUR_MAC, (client, 0), (server, 53)),
            clients,
            services,
            next: 0,
        }
    }

    fn write(&mut self, client: u32) {
        let server = match self.services {
            // A server for each client: none has to look for a port.
            0 => SERVERS + client,
            services => SERVICES + (client.wrapping_mul(0x9e37_79b1) >> 8) % services,
        };
        let (header, transport) = self.packet[14..].split_at_mut(20);
        header[14..16].copy_from_slice(&(client as u16).to_be_bytes());
        header[16..20].copy_from_slice(&server.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum);
        transport[..2].copy_from_slice(&(2048 + (client >> 16) as u16).to_be_bytes());
    }
}

impl Queue for Clients {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room.min(BATCH_MAX) {
            let Some(mut frame) = frames.take() else { return };
            // A prime, and not far from the golden section of 24 bits: it comes to each before it comes to one again.
            self.next = ((u64::from(self.next) + 10_368_899) % u64::from(self.clients)) as u32;
            self.write(self.next);
            // It is short enough.
            let _ = frames.packet(&mut frame).fill(HEADROOM, &self.packet);
            into.push(frame);
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        from.drain(..).for_each(|frame| frames.give(frame));
    }

    fn close(self: Box<Self>, _: &mut Frames) {}
}
