//! Choosing backends: building a service's table, changing one backend of it, and asking it. `cargo bench -p bench --bench maglev`

use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use nat::maglev::{Backend, Maglev};
use std::hint::black_box;
use std::time::Instant;

/// The table of the report.
const TABLE: &str = "Maglev";
const RUNS: u64 = 21;
/// Of the slots of the table that all backends share, so many a backend: prime numbers, as in the paper.
const PLAIN: &[(u64, usize)] = &[(100, 2_053), (1_000, 99_347), (10_000, 1_589_251)];

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    for (count, slots) in PLAIN {
        let backends: Vec<Backend> = (0..*count).map(backend).collect();
        let say =
            |what: &str, measure: &str, value| record(TABLE, &format!("{count} backends: {what}"), measure, value);
        let build = |_| micros(|| drop(black_box(Maglev::new(backends.iter().copied()).table())));
        say("built", "µs", Spread::of((0..RUNS).map(build)));
        let plain_build = |_| micros(|| drop(black_box(plain(&backends, *slots))));
        say(
            "a plain table of the same, built",
            "µs",
            Spread::of((0..5).map(plain_build)),
        );
        let mut maglev = Maglev::new(backends.iter().copied());
        let change = |n| {
            let backend = backends[(n * 7_919 % count) as usize];
            let start = Instant::now();
            maglev.remove(backend.id);
            black_box(maglev.table());
            maglev.set(backend);
            black_box(maglev.table());
            start.elapsed().as_secs_f64() * 1e6 / 2.0
        };
        say("one goes or comes", "µs", Spread::of((0..RUNS).map(change)));
        let mut rng = Rng(5);
        let hashes: Vec<u64> = (0..1 << 16).map(|_| rng.bits()).collect();
        let table = maglev.table();
        let choose = |_| {
            let all = micros(|| hashes.iter().for_each(|hash| _ = black_box(table.choose(*hash))));
            all * 1e3 / hashes.len() as f64
        };
        say("a choice", "ns", Spread::of((0..RUNS).map(choose)));
    }
}

fn backend(n: u64) -> Backend {
    Backend {
        id: Rng(n * 2 + 1).bits(),
        number: n as u32,
        weight: 1,
    }
}

fn micros(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

/// One table for all backends, by turns, as in the paper.
fn plain(backends: &[Backend], slots: usize) -> Vec<u32> {
    let mut owners = vec![u32::MAX; slots];
    let mut order: Vec<&Backend> = backends.iter().collect();
    order.sort_unstable_by_key(|backend| backend.id);
    let mut states: Vec<(usize, usize, u32)> = order
        .iter()
        .map(|backend| {
            let hash = Rng(backend.id | 1).bits();
            let (offset, skip) = (hash as u32 as usize % slots, (hash >> 32) as usize % (slots - 1) + 1);
            (offset, skip, backend.number)
        })
        .collect();
    let mut left = slots;
    while left > 0 {
        for (next, skip, number) in &mut states {
            if left == 0 {
                break;
            }
            while owners[*next] != u32::MAX {
                *next = (*next + *skip) % slots;
            }
            owners[*next] = *number;
            left -= 1;
        }
    }
    owners
}
