//! Routes: cycles and time a lookup, cycles a change, and memory. `cargo bench -p bench --bench fib`

use bench::routes::{self, Rng, Route};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastpath::clock;
use fastpath::fib::{Key, Pages, Pool, Table};
use fastpath::qsbr::Qsbr;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const VECTOR: usize = 256;
const LOOKUPS: usize = VECTOR * 2048;

criterion_group!(benches, v4, v6);
criterion_main!(benches);

fn v4(criterion: &mut Criterion) {
    let all = routes::v4(950_000, 42);
    for count in [1, 10_000, 500_000, 950_000] {
        let any = |rng: &mut Rng| ((1 << 24) + rng.below(223 << 24)) as u32;
        let inside = |rng: &mut Rng, key: u32, length| key | rng.bits() as u32 & !u32::MAX.masked(length);
        family(criterion, "fib/v4", &all[..count], any, inside);
    }
}

fn v6(criterion: &mut Criterion) {
    for count in [10_000, 200_000] {
        let inside = |rng: &mut Rng, key: u128, length| key | rng.wide() & !u128::MAX.masked(length);
        family(criterion, "fib/v6", &routes::v6(count, 42), Rng::wide, inside);
    }
}

fn family<K: Key>(
    criterion: &mut Criterion,
    name: &str,
    routes: &[Route<K>],
    any: impl Fn(&mut Rng) -> K,
    inside: impl Fn(&mut Rng, K, u32) -> K,
) {
    let qsbr = Arc::new(Qsbr::new(1));
    let mut pool = Pool::new(1 << 30, Pages::Huge, qsbr.clone()).expect("address space");
    let mut table = Table::<K>::new(&pool);
    let start = clock::cycles();
    for (key, length, id) in routes {
        table.insert(&mut pool, *key, *length, *id).expect("1 GiB is enough");
    }
    let build = (clock::cycles() - start) / routes.len() as u64;
    pool.reclaim();

    let mut rng = Rng(77);
    let of_route = |rng: &mut Rng| {
        let (key, length, _) = routes[rng.below(routes.len() as u64) as usize];
        inside(rng, key, length)
    };
    let from_routes: Vec<K> = (0..LOOKUPS).map(|_| of_route(&mut rng)).collect();
    let half: Vec<K> = from_routes
        .iter()
        .map(|a| if rng.below(2) == 0 { any(&mut rng) } else { *a })
        .collect();

    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(LOOKUPS as u64)).sample_size(20);
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for (kind, addresses) in [("half", &half), ("from_routes", &from_routes)] {
        group.bench_function(format!("{kind}/{}", routes.len()), |b| {
            b.iter(|| lookups(&table, &qsbr, addresses))
        });
        let cycles = (0..21)
            .map(|_| lookups(&table, &qsbr, addresses) as f64 / LOOKUPS as f64)
            .collect();
        println!(
            "{name}/{kind}/{}: cycles a lookup, vectors of 256: {}",
            routes.len(),
            spread(cycles)
        );
    }
    group.finish();
    println!(
        "{name}/half/{}: the same with caches emptied: {}",
        routes.len(),
        cold(&table, &half)
    );
    for size in [1, 16] {
        let short = |_| short_vectors(&table, &half, size);
        let cycles = (0..21).map(short).collect();
        println!(
            "{name}/half/{}: cycles a lookup, vectors of {size}: {}",
            routes.len(),
            spread(cycles)
        );
    }
    say_sizes(name, &table, &pool, routes.len(), build);
    if routes.len() > 1000 {
        changes(name, &mut table, &mut pool, routes, &mut rng);
    }
}

fn say_sizes<K: Key>(name: &str, table: &Table<K>, pool: &Pool, routes: usize, build: u64) {
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let (used, touched) = (megabytes(pool.used_bytes()), megabytes(pool.touched_bytes()));
    let control = megabytes(table.control_bytes());
    println!(
        "{name}/{}: {used:.1} MB used, {touched:.1} touched, {control:.1} of control",
        routes
    );
    println!("{name}/{}: cycles a route to build: {build}", routes);
}

/// Cycles of looking up all of `addresses` as a worker does: vectors, a turn after each.
fn lookups<K: Key>(table: &Table<K>, qsbr: &Qsbr, addresses: &[K]) -> u64 {
    let (view, mut ids) = (table.view(), [0; VECTOR]);
    qsbr.online(0);
    let start = clock::cycles();
    for addresses in addresses.chunks_exact(VECTOR) {
        view.lookup_batch(addresses, &mut ids);
        black_box(&ids);
        qsbr.turn(0);
    }
    let cycles = clock::cycles() - start;
    qsbr.offline(0);
    cycles
}

fn short_vectors<K: Key>(table: &Table<K>, addresses: &[K], size: usize) -> f64 {
    let (view, mut ids) = (table.view(), [0; VECTOR]);
    let start = clock::cycles();
    for addresses in addresses.chunks_exact(size) {
        view.lookup_batch(addresses, black_box(&mut ids[..size]));
    }
    (clock::cycles() - start) as f64 / addresses.len() as f64
}

/// Vectors looked up after 64 MB of other memory was read.
fn cold<K: Key>(table: &Table<K>, addresses: &[K]) -> String {
    let (view, mut ids, other) = (table.view(), [0; VECTOR], vec![1u64; 8 << 20]);
    let one = |addresses: &[K]| {
        black_box(other.iter().sum::<u64>());
        black_box(addresses.iter().max());
        let start = clock::cycles();
        view.lookup_batch(addresses, black_box(&mut ids));
        (clock::cycles() - start) as f64 / VECTOR as f64
    };
    spread(addresses.chunks_exact(VECTOR).take(60).map(one).collect())
}

fn changes<K: Key>(name: &str, table: &mut Table<K>, pool: &mut Pool, routes: &[Route<K>], rng: &mut Rng) {
    let (mut removed, mut inserted, mut replaced) = (vec![], vec![], vec![]);
    for _ in 0..100_000.min(routes.len() * 4) {
        let mut one = |table: &mut Table<K>, change: &dyn Fn(&mut Table<K>, &mut Pool)| {
            let start = clock::cycles();
            change(table, pool);
            (clock::cycles() - start) as f64
        };
        let (key, length, id) = routes[rng.below(routes.len() as u64) as usize];
        removed.push(one(table, &|table, pool| {
            assert!(table.remove(pool, key, length).is_ok())
        }));
        inserted.push(one(table, &|table, pool| {
            assert!(table.insert(pool, key, length, id).is_ok())
        }));
        let (key, length, id) = routes[rng.below(routes.len() as u64) as usize];
        replaced.push(one(table, &|table, pool| {
            assert!(table.insert(pool, key, length, id ^ 1).is_ok())
        }));
    }
    for (what, cycles) in [("remove", removed), ("insert", inserted), ("replace", replaced)] {
        let mean = cycles.iter().sum::<f64>() / cycles.len() as f64;
        println!(
            "{name}/{}: cycles a {what}: mean {mean:.0}, {}",
            routes.len(),
            spread(cycles)
        );
    }
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 100];
    format!(
        "median {:.1} (minimum {:.1}, 99th percentile {:.1}, maximum {:.1})",
        at(50),
        at(0),
        at(99),
        at(100)
    )
}
