//! The flow table: cycles a lookup, a new connection, an end and a visit of the sweep, beside DPDK's `rte_hash`.
//! `cargo bench -p bench --bench flows [-- CONNECTIONS...]`

#[path = "flows/rte_hash.rs"]
mod rte_hash;

use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use fastpath::clock::cycles;
use fastpath::meta::{Endpoint, Flags, VrfId};
use fastpath::qsbr::Qsbr;
use nat::expiry::Sweep;
use nat::key::Key;
use nat::leg::{LegId, Start};
use nat::table::{New, Scratch, Shape, Table, Writer};
use nat::time::Tick;
use nat::timeouts::Timeouts;
use std::hint::black_box;
use std::sync::Arc;

/// The table of the report.
const TABLE: &str = "Flow table";
const VECTOR: usize = 256;
const RUNS: usize = 11;
/// Vectors looked up in one run.
const VECTORS: usize = 2_000;
const UDP: u8 = 17;
/// Connections made, and ended, to see what that costs.
const CHURN: u32 = 200_000;
const NOW: Tick = Tick(1);

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let asked: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let all = if asked.is_empty() {
        vec![10_000, 65_536, 1_000_000, 10_000_000]
    } else {
        asked
    };
    for connections in all {
        table(connections, Flags::IPV4);
        if connections == 1_000_000 {
            table(connections, Flags::default());
        }
        rte_hash::measure(TABLE, connections);
    }
}

/// A worker alone with a table.
struct Bench {
    table: Table,
    writer: Writer,
    qsbr: Arc<Qsbr>,
    family: Flags,
    rng: Rng,
}

fn table(connections: u32, family: Flags) {
    let qsbr = Arc::new(Qsbr::new(1));
    qsbr.online(0);
    let shape = Shape {
        connections,
        writers: 1,
        seed: 42,
    };
    let mut bench = Bench {
        table: Table::new(&shape, qsbr.clone()).expect("address space"),
        writer: Writer::new(),
        qsbr,
        family,
        rng: Rng(77),
    };
    let name = if family.has(Flags::IPV4) { "IPv4" } else { "IPv6" };
    let scenario = format!("{name}, {connections} connections");
    let say = |measure: &str, value| record(TABLE, &scenario, measure, value);
    bench.fill(0..connections);
    say(
        "bytes a connection",
        Spread::of([bench.table.bytes() as f64 / f64::from(connections)]),
    );
    bench.lookups();
    say("cycles a lookup", Spread::of((0..RUNS).map(|_| bench.lookups())));
    say(
        "cycles a visit of the sweep",
        Spread::of((0..RUNS).map(|_| bench.sweep())),
    );
    let (mut ends, mut plain, mut staged) = (vec![], vec![], vec![]);
    let part = CHURN.min(connections / 2);
    for run in 0..RUNS as u32 {
        // What ends in one run begins in the same run again.
        let from = run * 7_919 % (connections - part + 1);
        ends.push(bench.end(from..from + part));
        plain.push(bench.fill(from..from + part / 2));
        staged.push(bench.fill_staged(from + part / 2..from + part));
    }
    say("cycles a connection's end", Spread::of(ends));
    say("cycles a new connection, one by one", Spread::of(plain));
    say("cycles a new connection, in vectors", Spread::of(staged));
}

impl Bench {
    /// Connection `n`: a client to a service, and the answers of the pod behind it.
    fn new_connection(&self, n: u32) -> New {
        let end = |address: u32, port: u32| {
            let [a, b, c, d] = address.to_be_bytes();
            if self.family.has(Flags::IPV4) {
                return Endpoint::v4([a, b, c, d], port as u16);
            }
            Endpoint {
                address: [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, a, b, c, d],
                port: port as u16,
            }
        };
        let own = 1024 + (n & 63) * 977;
        let client = end(0x0a00_0000 + (n >> 6), own);
        let service = end(0xc000_0200 + n % 251, 80);
        let pod = end(0xac10_0000 + n.wrapping_mul(40_503) % 60_000, 8080);
        let key = |source, target| Key::new(source, target, UDP, VrfId(0), self.family);
        let start = Start {
            adjacency: n % 64,
            generation: 1,
            ..Start::default()
        };
        New {
            keys: [key(&client, &service), key(&pod, &client)],
            starts: [start; 2],
        }
    }

    fn turn(&mut self) {
        self.table.reclaim(&mut self.writer, |_, _| ());
        self.qsbr.turn(0);
    }

    /// Cycles a connection made one by one.
    fn fill(&mut self, numbers: std::ops::Range<u32>) -> f64 {
        let (count, mut total) = (f64::from(numbers.end - numbers.start), 0);
        for from in numbers.clone().step_by(VECTOR) {
            let news = self.news(from, numbers.end);
            let start = cycles();
            for new in &news {
                let leg = self.table.insert(&mut self.writer, new, NOW).expect("there is room");
                black_box(leg);
            }
            self.turn();
            total += cycles() - start;
        }
        total as f64 / count
    }

    /// Cycles a connection made in vectors.
    fn fill_staged(&mut self, numbers: std::ops::Range<u32>) -> f64 {
        let (count, mut total) = (f64::from(numbers.end - numbers.start), 0);
        for from in numbers.clone().step_by(VECTOR) {
            let news = self.news(from, numbers.end);
            let start = cycles();
            self.table.insert_batch(&mut self.writer, &news, NOW, |_, made| {
                black_box(made.expect("there is room"));
            });
            self.turn();
            total += cycles() - start;
        }
        total as f64 / count
    }

    fn news(&self, from: u32, end: u32) -> Vec<New> {
        (from..end.min(from + VECTOR as u32))
            .map(|n| self.new_connection(n))
            .collect()
    }

    /// Cycles a lookup: keys are in the first-level cache, as the node before leaves them.
    fn lookups(&mut self) -> f64 {
        let (mut scratch, mut found, mut total) = (Scratch::default(), [0; VECTOR], 0);
        let mut keys = [Key::default(); VECTOR];
        for _ in 0..VECTORS {
            for key in &mut keys {
                let n = self.rng.below(u64::from(self.table.capacity())) as u32;
                *key = self.new_connection(n).keys[self.rng.below(2) as usize];
            }
            let start = cycles();
            self.table.lookup(&mut scratch, &keys, &mut found);
            total += cycles() - start;
            self.qsbr.turn(0);
            assert!(
                found.iter().all(|leg| self.table.numbers_end() > *leg / 2),
                "all are there"
            );
        }
        total as f64 / (VECTORS * VECTOR) as f64
    }

    /// Cycles a live connection's visit; nothing is old enough to go.
    fn sweep(&mut self) -> f64 {
        let mut sweep = Sweep::new(&self.table, 0, 1);
        let start = cycles();
        for _ in 0..sweep.round().div_ceil(512) {
            let removed = sweep.visit(&self.table, &mut self.writer, &Timeouts::default(), NOW, 512);
            assert_eq!(removed, 0);
        }
        (cycles() - start) as f64 / f64::from(self.table.len())
    }

    /// Cycles a removal.
    fn end(&mut self, numbers: std::ops::Range<u32>) -> f64 {
        let (count, mut total) = (f64::from(numbers.end - numbers.start), 0);
        for from in numbers.clone().step_by(VECTOR) {
            let legs: Vec<LegId> = self.news(from, numbers.end).iter().map(|new| self.leg(new)).collect();
            let start = cycles();
            for leg in legs {
                assert!(self.table.remove(&mut self.writer, leg));
            }
            self.turn();
            total += cycles() - start;
        }
        self.turn();
        total as f64 / count
    }

    fn leg(&self, new: &New) -> LegId {
        self.table.find(&new.keys[0]).expect("made before")
    }
}
