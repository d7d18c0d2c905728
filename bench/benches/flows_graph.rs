//! Connections in the graph: cycles a packet of established ones and of new ones, with source NAT and without.
//! `cargo bench -p bench --bench flows_graph`

use bench::report::record;
use bench::rig::{OUR_MAC, Rig};
use bench::traffic::{Generator, shuffle, udp};
use fastpath::arena::{FrameIndex, HEADROOM};
use fastpath::meta::VrfId;
use fastpath::pool::Frames;
use fastpath::port::Queue;
use fastpath::vector::Vector;
use fastpath::wire::checksum::checksum;
use nat::snat::Rule;
use std::net::IpAddr;

/// The table of the report.
const TABLE: &str = "Connections in the graph";
/// The first of the servers.
const SERVERS: u32 = 20 << 24;

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    for connections in [10_000, 65_536, 1 << 20] {
        for (rules, name) in [(vec![], "followed only"), (masquerade(), "with source NAT")] {
            established(
                connections,
                &rules,
                &format!("{} established, {name}", amount(connections)),
            );
        }
    }
    for (rules, name) in [(vec![], "followed only"), (masquerade(), "with source NAT")] {
        new(&rules, name);
    }
}

fn amount(connections: u32) -> String {
    match connections {
        ..10_001 => "10 K".to_owned(),
        10_001..=65_536 => "64 K".to_owned(),
        _ => "1 M".to_owned(),
    }
}

/// Everybody gets one address.
fn masquerade() -> Vec<Rule> {
    vec![Rule {
        vrf: VrfId(0),
        sources: vec![(IpAddr::from([0, 0, 0, 0]), 0)],
        excluded: vec![],
        out_port: None,
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        ports: 1024..=65535,
    }]
}

/// A packet of each of so many connections, in a random order: one client to each server, so that none has to look for
/// a port.
fn packets(connections: u32) -> Vec<Vec<u8>> {
    let mut order: Vec<u32> = (0..connections).collect();
    shuffle(&mut order, 3);
    order.into_iter().map(packet).collect()
}

fn packet(n: u32) -> Vec<u8> {
    let client = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
    let server = IpAddr::from((SERVERS + n).to_be_bytes());
    udp(OUR_MAC, (client, 2048 + (n >> 16) as u16), (server, 53))
}

/// Packets that all open a connection.
struct Openers {
    packet: Vec<u8>,
    next: u32,
}

impl Queue for Openers {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room {
            let Some(mut frame) = frames.take() else { return };
            // Odd: it comes to each number of 24 bits before it comes to one again.
            self.next = self.next.wrapping_add(0x9e_3779) & 0xff_ffff;
            let header = &mut self.packet[14..34];
            header[16..20].copy_from_slice(&(SERVERS + self.next).to_be_bytes());
            header[10..12].fill(0);
            let sum = checksum(header);
            header[10..12].copy_from_slice(&sum);
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

fn rig(queue: impl Queue + 'static, connections: u32, rules: &[Rule]) -> Rig {
    let queues: [Box<dyn Queue>; 2] = [Box::new(queue), Box::new(Generator::new(vec![], 0))];
    let mut rig = Rig::tracked(queues, connections, rules.to_vec());
    rig.route("20.0.0.0/8".parse().expect("a prefix"), IpAddr::from([10, 2, 0, 2]));
    rig.neighbour(IpAddr::from([10, 2, 0, 2]));
    rig
}

fn established(connections: u32, rules: &[Rule], scenario: &str) {
    let mut rig = rig(Generator::new(packets(connections), 256), connections, rules);
    let mut sent = 0;
    while sent < connections as usize {
        sent += rig.turner.turn();
    }
    let cost = rig.turner.measure("port-out");
    record(TABLE, scenario, "cycles a packet", cost.cycles);
    for stage in &cost.stages {
        record(
            "Connections in the graph, node by node",
            scenario,
            &stage.name,
            stage.cycles,
        );
    }
}

/// Every packet makes a connection, in a table with room for them all.
fn new(rules: &[Rule], name: &str) {
    let openers = Openers {
        packet: packet(0),
        next: 0,
    };
    let mut rig = rig(openers, 8 << 20, rules);
    let cost = rig.turner.measure("port-out");
    let scenario = format!("new, {name}");
    record(TABLE, &scenario, "cycles a packet", cost.cycles);
    for stage in &cost.stages {
        record(
            "Connections in the graph, node by node",
            &scenario,
            &stage.name,
            stage.cycles,
        );
    }
}
