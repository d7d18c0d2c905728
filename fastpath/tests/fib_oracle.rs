//! Random changes against a naive oracle, and readers during changes.

use fastpath::fib::{Key, NO_ROUTE, Pages, Pool, Table, View};
use fastpath::qsbr::Qsbr;
use routes::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

// The benchmarks' generator, by path: no crate may depend on `bench`.
#[path = "../../bench/src/routes.rs"]
mod routes;

type Oracle<K> = BTreeMap<(u32, K), u32>;

fn naive<K: Key>(oracle: &Oracle<K>, address: K) -> u32 {
    (0..=K::BITS)
        .rev()
        .find_map(|l| oracle.get(&(l, address.masked(l))).copied())
        .unwrap_or(NO_ROUTE)
}

fn check<K: Key>(table: &Table<K>, oracle: &Oracle<K>, addresses: &[K]) {
    let view = table.view();
    let mut ids = vec![0; addresses.len()];
    view.lookup_batch(addresses, &mut ids);
    for (address, id) in addresses.iter().zip(&ids) {
        let expected = naive(oracle, *address);
        assert_eq!(*id, expected, "batch {address:x?}");
        assert_eq!(view.lookup(*address), expected, "single {address:x?}");
    }
}

fn pool(bytes: usize, qsbr: &Arc<Qsbr>) -> Pool {
    Pool::new(bytes, Pages::Small, qsbr.clone()).unwrap()
}

/// Addresses that share long prefixes: each byte is one of few.
fn near<K: Key>(rng: &mut Rng, from: impl Fn(u128) -> K, spread: u64) -> K {
    let address = (0..K::BITS / 8).fold(0u128, |address, _| {
        let bytes = [0, 1, 127, 128, 255, 254, rng.below(256)];
        address << 8 | u128::from(bytes[rng.below(spread) as usize])
    });
    from(address)
}

fn churn<K: Key>(seed: u64, steps: usize, from: impl Fn(u128) -> K + Copy) {
    let mut rng = Rng(seed);
    let spread = 2 + seed % 6;
    let mut pool = pool(64 << 20, &Arc::new(Qsbr::new(1)));
    let empty = pool.used_bytes();
    let mut table = Table::<K>::new(&pool);
    let mut oracle = Oracle::<K>::new();
    let target = [20, 300, 3000][seed as usize % 3];
    for step in 0..steps {
        let grow = rng.below(100) < if oracle.len() < target { 70 } else { 35 };
        let length = rng.below(u64::from(K::BITS) + 1) as u32;
        let key = near(&mut rng, from, spread).masked(length);
        if grow || oracle.is_empty() {
            let id = rng.below(3 + seed) as u32;
            assert_eq!(
                table.insert(&mut pool, key, length, id),
                Ok(oracle.insert((length, key), id))
            );
        } else {
            let (length, key) = *oracle.range((length, key)..).chain(&oracle).next().unwrap().0;
            assert_eq!(table.remove(&mut pool, key, length), Ok(oracle.remove(&(length, key))));
        }
        assert_eq!(table.len(), oracle.len());
        if step % 32 == 0 || step + 1 == steps {
            let addresses: Vec<K> = (0..64 + step % 37).map(|_| near(&mut rng, from, spread)).collect();
            check(&table, &oracle, &addresses);
        }
    }
    let listed: Oracle<K> = table.iter().map(|(key, length, id)| ((length, key), id)).collect();
    assert_eq!(listed, oracle);
    if seed.is_multiple_of(2) {
        table.clear(&mut pool);
        check(&table, &Oracle::new(), &[from(0), from(u128::MAX)]);
    }
    for ((length, key), id) in oracle.into_iter().filter(|_| !seed.is_multiple_of(2)) {
        assert_eq!(table.get(key, length), Some(id));
        assert_eq!(table.remove(&mut pool, key, length), Ok(Some(id)));
        assert_eq!(table.remove(&mut pool, key, length), Ok(None));
        assert_eq!(table.get(key, length), None);
    }
    assert!(table.is_empty());
    pool.reclaim();
    assert_eq!(pool.used_bytes(), empty, "an empty table holds no nodes");
}

#[test]
fn v4_churn() {
    (0..9).for_each(|seed| churn::<u32>(seed, 4000, |address| address as u32));
}

#[test]
fn v6_churn() {
    (0..9).for_each(|seed| churn::<u128>(seed, 3000, |address| address));
}

#[test]
fn tables_as_bgp_has_them() {
    let mut pool = pool(256 << 20, &Arc::new(Qsbr::new(1)));
    let (mut table4, mut oracle4) = (Table::<u32>::new(&pool), Oracle::new());
    let (mut table6, mut oracle6) = (Table::<u128>::new(&pool), Oracle::new());
    for (key, length, id) in routes::v4(30_000, 1) {
        table4.insert(&mut pool, key, length, id).unwrap();
        oracle4.insert((length, key), id);
    }
    for (key, length, id) in routes::v6(10_000, 1) {
        table6.insert(&mut pool, key, length, id).unwrap();
        oracle6.insert((length, key), id);
    }
    let mut rng = Rng(5);
    // The first and last address of each prefix, the one before it, and any.
    let mut addresses: Vec<u32> = (0..20_000).map(|_| rng.bits() as u32).collect();
    addresses.extend(
        oracle4
            .keys()
            .flat_map(|(l, k)| [*k, k.wrapping_sub(1), k | !u32::MAX.masked(*l)]),
    );
    check(&table4, &oracle4, &addresses);
    let mut addresses: Vec<u128> = (0..2000).map(|_| rng.wide()).collect();
    addresses.extend(
        oracle6
            .keys()
            .flat_map(|(l, k)| [*k, k.wrapping_sub(1), k | !u128::MAX.masked(*l)]),
    );
    check(&table6, &oracle6, &addresses);
}

#[test]
fn tables_of_one_pool_do_not_meet() {
    let mut pool = pool(64 << 20, &Arc::new(Qsbr::new(0)));
    let mut tables: Vec<_> = (0..20).map(|_| Table::<u32>::new(&pool)).collect();
    let routes = routes::v4(3000, 2);
    for (i, (key, length, id)) in routes.iter().enumerate() {
        tables[i % 2].insert(&mut pool, *key, *length, *id).unwrap();
        tables[2 + i % 18].insert(&mut pool, *key, *length, *id).unwrap();
    }
    for (n, table) in tables.iter().enumerate() {
        let mine = |i: usize| if n < 2 { i % 2 == n } else { 2 + i % 18 == n };
        let oracle = routes.iter().enumerate().filter(|(i, _)| mine(*i));
        let oracle: Oracle<u32> = oracle.map(|(_, (key, length, id))| ((*length, *key), *id)).collect();
        let addresses: Vec<u32> = routes.iter().map(|route| route.0).collect();
        check(table, &oracle, &addresses);
    }
}

#[test]
#[should_panic(expected = "the pool that the table was made from")]
fn a_table_does_not_take_nodes_of_another_pool() {
    let qsbr = Arc::new(Qsbr::new(0));
    let mut table = Table::<u32>::new(&pool(1 << 20, &qsbr));
    let _ = table.insert(&mut pool(1 << 20, &qsbr), 0, 8, 1);
}

/// Looks up `stay`, which never changes, and addresses around it, until `stop`.
fn read(worker: usize, view: &View<u32>, qsbr: &Qsbr, stay: &[(u32, u32)], stop: &AtomicBool, turns: &AtomicUsize) {
    let addresses: Vec<u32> = stay.iter().map(|x| x.0).collect();
    let around: Vec<u32> = addresses.iter().map(|address| address ^ 0x1_0101).collect();
    let mut ids = [0; 256];
    qsbr.online(worker);
    while !stop.load(Relaxed) {
        view.lookup_batch(&addresses, &mut ids);
        assert!(ids.iter().zip(stay).all(|(id, route)| *id == route.1));
        view.lookup_batch(&around, &mut ids);
        assert!(
            ids.iter().all(|id| *id < 1256 || *id == NO_ROUTE),
            "an id that nobody stored"
        );
        turns.fetch_add(1, Relaxed);
        qsbr.turn(worker);
    }
    qsbr.offline(worker);
}

/// A route that stays is found whatever happens around it; freed nodes are poisoned in debug builds, so a reader that met
/// one would see a strange id.
#[test]
fn readers_during_churn() {
    let qsbr = Arc::new(Qsbr::new(2));
    let mut pool = pool(64 << 20, &qsbr);
    let mut table = Table::<u32>::new(&pool);
    let (stop, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stay: Vec<(u32, u32)> = (0..256u32)
        .map(|i| (0x0a00_0000 | i.wrapping_mul(0x9e37_79b9) >> 8, i))
        .collect();
    stay.iter()
        .for_each(|(key, id)| assert_eq!(table.insert(&mut pool, *key, 32, *id), Ok(None)));
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (view, qsbr, stay, stop, turns) = (table.view(), &qsbr, &stay, &stop, &turns);
            scope.spawn(move || read(worker, &view, qsbr, stay, stop, turns));
        }
        let mut rng = Rng(3);
        let mut have = vec![];
        for step in 0..40_000u64 {
            // Grows past the root's widening and shrinks below its narrowing.
            if (step / 4000).is_multiple_of(2) || have.is_empty() {
                let length = 9 + rng.below(23) as u32;
                let key = (0x0a00_0000 | rng.bits() as u32 >> 8).masked(length);
                if table
                    .insert(&mut pool, key, length, 256 + rng.below(1000) as u32)
                    .unwrap()
                    .is_none()
                {
                    have.push((key, length));
                }
            } else {
                let (key, length) = have.swap_remove(rng.below(have.len() as u64) as usize);
                table.remove(&mut pool, key, length).unwrap();
            }
        }
        stop.store(true, Relaxed);
    });
    assert!(turns.load(Relaxed) > 0);
}
