//! Policy: cycles a lookup, a packet, an address and a change, time to build, and memory.
//! `CLASSBENCH=DIR cargo bench -p bench --bench classifier`, with ClassBench's rule files in DIR (acl1_1k and so on);
//! without them, rules of the same kind are generated.

#[path = "classifier/policies.rs"]
mod policies;
#[path = "classifier/rules.rs"]
mod rules;

use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use classifier::expand::expand;
use classifier::lookup::hash::Multipliers;
use classifier::lookup::select::Plan;
use classifier::lookup::{Hits, Lookup, Way};
use classifier::packet::{Columns, Key, Packet, VECTOR};
use classifier::pattern::{Pattern, Rank};
use classifier::rule::{IpVersion, Rule};
use classifier::sets::{Capacity, Class, Sets, View};
use fastpath::clock;
use fastpath::qsbr::Qsbr;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// The table of the report.
const TABLE: &str = "Policy";
/// Packets of one measurement.
const PACKETS: usize = VECTOR * 128;
/// Times each is measured.
const RUNS: usize = 31;

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    for (name, rules) in rules::files() {
        lookups(&name, &rules);
    }
    policies::sets();
    policies::packets();
    policies::changes();
}

/// Memory enough for everything measured here.
fn capacity() -> Capacity {
    Capacity {
        prefix_bytes: 256 << 20,
        class_bytes: 256 << 20,
    }
}

/// Cycles each of `count` of what `work` does.
fn cycles(count: usize, mut work: impl FnMut()) -> Spread {
    work();
    Spread::of((0..RUNS).map(|_| {
        let start = clock::cycles();
        work();
        (clock::cycles() - start) as f64 / count as f64
    }))
}

fn lookups(name: &str, rules: &[Rule]) {
    let multipliers = Multipliers::fixed(1);
    let rank = |place: usize| Rank::of((rules.len() - place) as u32);
    let of = |(place, rule)| expand::<1>(rule, IpVersion::V4, rank(place)).patterns;
    let patterns: Vec<Pattern<1>> = rules.iter().enumerate().flat_map(of).collect();
    let start = Instant::now();
    let plan = Plan::best(&patterns, multipliers);
    let lookup = Lookup::build_with(&patterns, &plan, multipliers);
    let built = start.elapsed();
    let packets = rules::trace(rules, PACKETS, &mut Rng(1));
    for way in Way::all() {
        let label = match way {
            Way::Portable => "portable",
            Way::Avx2(_) => "AVX2",
            Way::Avx512(_) => "AVX-512",
        };
        let sets = Sets::new(small(), Arc::new(Qsbr::new(0))).expect("memory");
        let mut finder = Finder::new(sets.view());
        let found = cycles(PACKETS, || finder.find(&lookup, way, &packets));
        record(TABLE, name, &format!("cycles a lookup, {label}"), found);
    }
    let once = |value: f64| Spread::of([value]);
    record(
        TABLE,
        name,
        "ms to choose tables and build",
        once(built.as_secs_f64() * 1e3),
    );
    let rebuilt = Spread::of((0..RUNS).map(|_| {
        let start = Instant::now();
        black_box(Lookup::build_with(&patterns, &plan, multipliers));
        start.elapsed().as_secs_f64() * 1e3
    }));
    record(TABLE, name, "ms to build again", rebuilt);
    record(
        TABLE,
        name,
        "us a pattern that comes or goes",
        updates(lookup.clone(), &patterns),
    );
    record(TABLE, name, "KiB", once(lookup.bytes() as f64 / 1024.0));
}

/// What lookups write.
struct Finder {
    sets: View,
    columns: Columns<1>,
    best: [Rank; VECTOR],
    hits: Hits,
}

impl Finder {
    fn new(sets: View) -> Box<Finder> {
        Box::new(Finder {
            sets,
            columns: Columns::new(),
            best: [Rank::NONE; VECTOR],
            hits: Hits::new(),
        })
    }

    /// Looks all packets up as the classifier does: their keys into columns, then a lookup for each vector.
    fn find(&mut self, lookup: &Lookup<1>, way: Way, packets: &[Packet]) {
        let memory = self.sets.memory();
        for packets in packets.chunks(VECTOR) {
            self.columns.clear();
            for (i, packet) in packets.iter().enumerate() {
                self.columns.push(i as u8, &Key::new(packet), [Class::default(); 2]);
            }
            lookup.find(way, &self.columns, memory, &|_, _| true, &mut self.best, &mut self.hits);
            black_box(&self.best);
        }
    }
}

fn small() -> Capacity {
    Capacity {
        prefix_bytes: 1 << 20,
        class_bytes: 1 << 12,
    }
}

fn updates(mut lookup: Lookup<1>, patterns: &[Pattern<1>]) -> Spread {
    Spread::of((0..RUNS).map(|_| {
        let start = Instant::now();
        for pattern in patterns {
            lookup.remove(pattern);
            lookup.insert(pattern);
        }
        start.elapsed().as_secs_f64() * 1e6 / patterns.len() as f64 / 2.0
    }))
}
