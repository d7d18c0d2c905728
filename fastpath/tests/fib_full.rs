//! A full pool: every refused change leaves the table as it was, and there is a way out.

use fastpath::fib::{Full, Key, NO_ROUTE, Pages, Pool, Table};
use fastpath::qsbr::Qsbr;
use routes::{Rng, Route};
use std::sync::Arc;

// The benchmarks' generator, by path: no crate may depend on `bench`.
#[path = "../../bench/src/routes.rs"]
mod routes;

const BYTES: usize = 1 << 20;
const FULL: Full = Full { reserved_bytes: BYTES };

fn pool(qsbr: &Arc<Qsbr>) -> Pool {
    Pool::new(BYTES, Pages::Small, qsbr.clone()).unwrap()
}

/// All that can be asked of a table: its routes, and answers for addresses in and beside the routes of `probes`.
fn state<K: Key>(table: &Table<K>, probes: &[K]) -> (Vec<Route<K>>, Vec<u32>) {
    let mut routes: Vec<_> = table.iter().collect();
    routes.sort_unstable();
    let mut ids = vec![0; probes.len()];
    table.view().lookup_batch(probes, &mut ids);
    (routes, ids)
}

/// Fills the table until ten additions were refused; what was taken and what was not.
fn fill<K: Key>(table: &mut Table<K>, pool: &mut Pool, routes: &[Route<K>], probes: &[K]) -> [Vec<Route<K>>; 2] {
    let (mut taken, mut refused) = (vec![], vec![]);
    let mut before = state(table, probes);
    for route @ (key, length, id) in routes.iter().copied() {
        // Reading all of it before every addition would take minutes: only where the end is near.
        if pool.used_bytes() > BYTES * 9 / 10 {
            before = state(table, probes);
        }
        let used = pool.used_bytes();
        match table.insert(pool, key, length, id) {
            Ok(_) => taken.push(route),
            Err(full) => {
                assert_eq!(full, FULL);
                assert!(pool.used_bytes() <= used, "a refused change holds no nodes");
                assert_eq!(state(table, probes), before, "refused: {key:x?}/{length}");
                refused.push(route);
            }
        }
        if refused.len() == 10 {
            return [taken, refused];
        }
    }
    panic!("{} routes fit into {BYTES} bytes", taken.len());
}

fn fills_and_empties<K: Key>(routes: &[Route<K>]) {
    let mut pool = pool(&Arc::new(Qsbr::new(1)));
    let empty = pool.used_bytes();
    let mut table = Table::<K>::new(&pool);
    let probes: Vec<K> = routes.iter().map(|route| route.0).collect();
    let [taken, refused] = fill(&mut table, &mut pool, routes, &probes);
    assert!(pool.touched_bytes() <= pool.reserved_bytes());
    // A route that is there can be replaced or not, but stays what it was if not.
    for (key, length, id) in &taken[..100] {
        let expected = match table.insert(&mut pool, *key, *length, *id ^ 1) {
            Ok(was) => {
                assert_eq!(was, Some(*id));
                id ^ 1
            }
            Err(full) => {
                assert_eq!(full, FULL);
                *id
            }
        };
        assert_eq!(table.get(*key, *length), Some(expected));
    }
    for (key, length, _) in &taken {
        assert!(
            table.remove(&mut pool, *key, *length).unwrap().is_some(),
            "removals have a reserve"
        );
    }
    pool.reclaim();
    assert_eq!((table.len(), pool.used_bytes()), (0, empty));
    for (key, length, id) in refused {
        assert_eq!(
            table.insert(&mut pool, key, length, id),
            Ok(None),
            "there is room again"
        );
    }
}

#[test]
fn v4_fills_and_empties() {
    fills_and_empties(&routes::v4(40_000, 1));
}

#[test]
fn v6_fills_and_empties() {
    fills_and_empties(&routes::v6(20_000, 1));
}

/// Each of these takes a dozen nodes of its own, so a refusal comes half-way down.
#[test]
fn long_paths_are_all_or_nothing() {
    let mut rng = Rng(3);
    let routes: Vec<_> = (0..4000).map(|id| (rng.wide(), 128, id)).collect();
    fills_and_empties(&routes);
}

/// A short prefix changes the holes between longer ones where they are, so even a full pool takes it.
#[test]
fn a_short_prefix_over_many_takes_no_memory() {
    let mut pool = pool(&Arc::new(Qsbr::new(0)));
    let mut table = Table::<u32>::new(&pool);
    let mut rng = Rng(7);
    let routes: Vec<Route<u32>> = (10..40_000)
        .map(|id| (0x0a00_0000 | rng.bits() as u32 >> 8, 32, id))
        .collect();
    let probes: Vec<u32> = routes
        .iter()
        .flat_map(|route| [route.0, route.0 ^ 1, route.0 ^ 0x1_0000])
        .collect();
    fill(&mut table, &mut pool, &routes, &probes);
    pool.reclaim();
    let (before, used) = (state(&table, &probes), pool.used_bytes());
    assert_eq!(table.insert(&mut pool, 0x0a00_0000, 8, 5), Ok(None));
    let after = state(&table, &probes);
    assert!(
        before
            .1
            .iter()
            .zip(&after.1)
            .all(|(old, new)| new == if *old == NO_ROUTE { &5 } else { old })
    );
    assert!(after.1.contains(&5) && pool.used_bytes() == used);
    assert_eq!(table.remove(&mut pool, 0x0a00_0000, 8), Ok(Some(5)));
    assert_eq!(state(&table, &probes), before);
}

/// With a worker that never finishes its turn nothing is freed: changes are refused, and go on when it does.
#[test]
fn a_stuck_worker_fills_the_pool_and_nothing_worse() {
    let qsbr = Arc::new(Qsbr::new(1));
    let mut pool = pool(&qsbr);
    let mut table = Table::<u32>::new(&pool);
    let keys: Vec<u32> = (0..200).map(|i| 0x0a00_0000 | i << 8).collect();
    keys.iter()
        .for_each(|key| assert_eq!(table.insert(&mut pool, *key, 24, 1), Ok(None)));
    qsbr.online(0);
    // Adding and removing beside the others copies a node each time.
    let mut refused = None;
    for step in 0..1_000_000 {
        let key = keys[step % keys.len()] | 0x80;
        let result = table
            .insert(&mut pool, key, 25, 2)
            .and_then(|_| table.remove(&mut pool, key, 25));
        if result.is_err() {
            refused = Some(key);
            break;
        }
    }
    let refused = refused.expect("the pool is never full");
    let before = state(&table, &keys);
    assert!(table.insert(&mut pool, refused, 25, 2).is_err());
    assert_eq!(state(&table, &keys), before);
    assert!(pool.waiting() > 1000);
    qsbr.turn(0);
    assert!(table.insert(&mut pool, refused, 25, 2).is_ok());
    assert!(pool.waiting() < 100);
}

/// Without room for the wide root a table stays in its small form, and answers the same.
#[test]
fn a_table_that_cannot_widen_still_answers() {
    let mut pool = pool(&Arc::new(Qsbr::new(0)));
    let mut tables: Vec<Table<u32>> = (0..5).map(|_| Table::new(&pool)).collect();
    let routes: Vec<Route<u32>> = (0..1200).map(|i| (0x0a00_0000 | i << 8, 24, i)).collect();
    for table in &mut tables {
        // Four roots of 256 KiB would be all of it; a clustered table itself takes a few.
        for (key, length, id) in &routes {
            table.insert(&mut pool, *key, *length, *id).unwrap();
        }
    }
    assert!(
        pool.used_bytes() > BYTES / 2 && pool.used_bytes() < BYTES,
        "some are wide, not all"
    );
    for table in &tables {
        assert!(routes.iter().all(|(key, _, id)| table.view().lookup(*key | 7) == *id));
    }
}

#[test]
fn the_error_says_what_to_do() {
    let sentence = "the route memory of 1048576 bytes is full: remove routes, or start with more route memory";
    assert_eq!(FULL.to_string(), sentence);
}
