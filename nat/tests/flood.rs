//! A full table, a flood of SYNs beside established connections, and what idleness ends.

mod common;

use common::{keys, segment};
use fastpath::qsbr::Qsbr;
use nat::expiry::Sweep;
use nat::leg::{LegId, Start};
use nat::protocol::{Outcome, Phase, follow, opens, phase};
use nat::table::{End, New, Refused, Shape, Table, Writer};
use nat::tcp::flag;
use nat::time::{TICKS_PER_SECOND, Tick};
use nat::timeouts::Timeouts;
use std::collections::HashSet;
use std::sync::Arc;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A worker with a table of its own.
struct Host {
    table: Table,
    writer: Writer,
    sweep: Sweep,
    qsbr: Arc<Qsbr>,
    now: Tick,
    ended: Vec<(LegId, End)>,
}

impl Host {
    fn new(connections: u32) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        qsbr.online(0);
        let shape = Shape {
            connections,
            writers: 1,
            seed: 9,
        };
        let table = Table::new(&shape, qsbr.clone()).unwrap();
        Self {
            sweep: Sweep::new(&table, 0, 1),
            table,
            writer: Writer::new(),
            qsbr,
            now: Tick(1000),
            ended: vec![],
        }
    }

    /// As a worker ends its turn.
    fn turn(&mut self) {
        self.visit(32);
        let ended = &mut self.ended;
        self.table
            .reclaim(&mut self.writer, |connection, end| ended.push((connection.id(), end)));
        self.qsbr.turn(0);
    }

    fn visit(&mut self, visits: u32) -> u32 {
        let timeouts = Timeouts::default();
        self.sweep
            .visit(&self.table, &mut self.writer, &timeouts, self.now, visits)
    }

    /// Sweeps the whole table, turn by turn.
    fn sweep(&mut self) -> u32 {
        let before = self.table.len();
        for _ in 0..self.sweep.round().div_ceil(512) {
            self.visit(512);
            self.turn();
        }
        // What was met last is told of in a later turn.
        (0..2).for_each(|_| self.turn());
        before - self.table.len()
    }

    /// The first packet of client `n`.
    fn open(&mut self, n: u32, protocol: u8, transport: &[u8]) -> Result<LegId, Refused> {
        let mark = opens(protocol, transport).expect("it opens");
        let new = New {
            keys: keys(n, protocol),
            starts: [
                Start {
                    mark,
                    ..Start::default()
                },
                Start::default(),
            ],
        };
        let leg = self.table.insert(&mut self.writer, &new, self.now)?;
        self.table.leg(leg).count(60, self.now);
        Ok(leg)
    }

    /// A packet of a known connection.
    fn see(&mut self, leg: LegId, transport: &[u8]) {
        let protocol = self.table.leg(leg).key().protocol();
        let (mine, other) = (self.table.mark(leg), || self.table.mark(leg ^ 1));
        if let Outcome::Becomes(mark) = follow(protocol, mine, other, transport) {
            self.table.set_mark(leg, mark);
        }
        self.table.leg(leg).count(60, self.now);
    }

    fn answer_syn(&mut self, leg: LegId) {
        self.see(leg + 1, &segment(flag::SYN | flag::ACK, 900, 101));
    }

    fn syn(&mut self, n: u32) -> Result<LegId, Refused> {
        self.open(n, TCP, &segment(flag::SYN, 100, 0))
    }

    fn establish(&mut self, n: u32) -> LegId {
        let leg = self.syn(n).expect("there is room");
        self.answer_syn(leg);
        self.see(leg, &segment(flag::ACK, 101, 901));
        assert_eq!(phase(&self.table.connection(leg)), Phase::Established);
        leg
    }
}

#[test]
fn a_flood_of_syns_touches_no_established_connection_and_keeps_nobody_out() {
    let mut host = Host::new(5_000);
    let established: Vec<(u32, LegId)> = (0..1_000).map(|n| (n, host.establish(n))).collect();
    host.turn();
    let mut newcomers = vec![];
    for n in 0..50_000u32 {
        let leg = host.syn(1_000_000 + n).expect("the oldest unconfirmed makes room");
        // The server answers every second one, for all it knows.
        if n % 2 == 0 {
            host.answer_syn(leg);
        }
        if n % 100 == 0 {
            let newcomer = 100_000 + n;
            newcomers.push((newcomer, host.establish(newcomer)));
        }
        if n % 200 == 0 {
            host.turn();
        }
    }
    for (n, leg) in established.iter().chain(&newcomers) {
        assert_eq!(
            keys(*n, TCP).map(|key| host.table.find(&key)),
            [Some(*leg), Some(*leg + 1)]
        );
    }
    assert_eq!(host.table.len(), host.table.capacity());
    host.turn();
    assert!(host.ended.iter().all(|(_, end)| *end == End::Evicted));
    // The last of the flood are there, older ones are not.
    let there = |n: u32| host.table.find(&keys(1_000_000 + n, TCP)[0]).is_some();
    let left = host.table.capacity() - (established.len() + newcomers.len()) as u32;
    assert!((50_000 - left + 10..50_000).all(there) && !(0..50_000 - left - 10).any(there));
    // And once it is over, idleness ends what is left of it.
    host.now = Tick(host.now.0 + 20 * TICKS_PER_SECOND);
    assert_eq!(host.sweep(), left);
    assert_eq!(host.table.len() as usize, established.len() + newcomers.len());
}

#[test]
fn a_table_full_of_established_connections_refuses_new_ones() {
    let mut host = Host::new(500);
    for n in 0..500 {
        host.establish(n);
    }
    for n in 500..600 {
        assert_eq!(host.syn(n), Err(Refused::Full));
        assert_eq!(host.open(n, UDP, &[0; 8]), Err(Refused::Full));
    }
    host.turn();
    assert_eq!(host.ended, [], "nobody went");
    // The room of one that ends is there in the next turn.
    let leg = host.table.find(&keys(7, TCP)[1]).unwrap();
    assert!(host.table.remove(&mut host.writer, leg));
    host.establish(1_000);
    assert_eq!(host.syn(1_001), Err(Refused::Full));
}

#[test]
fn every_protocol_has_its_times() {
    let mut host = Host::new(100);
    let legs = [
        ("opening", host.syn(0).unwrap(), 20),
        ("established", host.establish(1), 3600),
        ("closing", host.establish(2), 30),
        ("reset", host.establish(3), 40),
        ("half closed", host.establish(4), 3600),
        ("udp", host.open(5, UDP, &[0; 8]).unwrap(), 60),
        ("echo", host.open(6, 1, &[8; 8]).unwrap(), 5),
        ("gre", host.open(7, 47, &[]).unwrap(), 600),
        (
            "sctp",
            host.open(8, 132, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 9])
                .unwrap(),
            20,
        ),
    ];
    host.see(legs[2].1, &segment(flag::FIN | flag::ACK, 101, 901));
    host.see(legs[2].1 + 1, &segment(flag::FIN | flag::ACK, 901, 102));
    host.see(legs[3].1 + 1, &segment(flag::RST, 901, 0));
    host.see(legs[4].1, &segment(flag::FIN | flag::ACK, 101, 901));
    let start = host.now.0;
    let mut gone = HashSet::new();
    let mut moments: Vec<u32> = legs.iter().map(|(_, _, seconds)| *seconds).collect();
    moments.sort_unstable();
    moments.dedup();
    for seconds in moments {
        for (early, ticks) in [
            (true, seconds * TICKS_PER_SECOND - 1),
            (false, seconds * TICKS_PER_SECOND),
        ] {
            host.now = Tick(start + ticks);
            host.sweep();
            gone.extend(host.ended.drain(..).map(|(leg, end)| {
                assert_eq!(end, End::Idle);
                leg
            }));
            for (name, leg, limit) in legs {
                let due = limit < seconds || limit == seconds && !early;
                assert_eq!(gone.contains(&leg), due, "{name} after {ticks} ticks");
            }
        }
    }
    assert!(host.table.is_empty());
}

#[test]
fn a_sweep_costs_what_it_was_allowed() {
    let mut host = Host::new(3_000);
    for n in 0..3_000 {
        host.syn(n).unwrap();
    }
    host.now = Tick(host.now.0 + 1000);
    let (mut removed, mut rounds) = (0, 0);
    while !host.table.is_empty() {
        let now = host.visit(100);
        assert!(now <= 100);
        removed += now;
        rounds += 1;
        host.table.reclaim(&mut host.writer, |_, _| ());
        host.qsbr.turn(0);
    }
    assert_eq!(
        (removed, rounds),
        (3_000, 30),
        "from the first number on, without a gap"
    );
}
