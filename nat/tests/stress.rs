//! Two workers that look up, insert, remove and sweep on one small table, for real.

mod common;

use common::keys;
use fastpath::qsbr::Qsbr;
use nat::leg::{LegId, NONE};
use nat::table::{New, Scratch, Shape, Table, Writer};
use nat::time::Tick;
use std::collections::HashMap;
use std::sync::Arc;

const UDP: u8 = 17;
const OWN: u32 = 1_500;
const TURNS: usize = 10_000;
const NOW: Tick = Tick(1);

/// Client `n` of a worker, or (worker 2) one that all fight for.
fn client(worker: u32, n: u32) -> New {
    New {
        keys: keys(worker << 20 | n, UDP),
        ..New::default()
    }
}

struct Worker<'a> {
    table: &'a Table,
    qsbr: &'a Qsbr,
    id: u32,
    writer: Writer,
    mine: HashMap<u32, LegId>,
    random: u64,
    wins: usize,
    ended: usize,
}

impl Worker<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.random >> 33) % u64::from(limit)) as u32
    }

    /// Inserts or removes a client of its own; must never be surprised.
    fn own(&mut self) {
        let n = self.below(OWN);
        let new = client(self.id, n);
        if let Some(leg) = self.mine.remove(&n) {
            assert_eq!(self.table.find(&new.keys[1]), Some(leg ^ 1));
            // Not while all that this worker removed waits for the other one, which may be off its core.
            let removed = self.table.remove(&mut self.writer, leg);
            assert_eq!(self.table.find(&new.keys[0]), (!removed).then_some(leg));
            if !removed {
                self.mine.insert(n, leg);
            }
        } else if let Ok(leg) = self.table.insert(&mut self.writer, &new, NOW) {
            self.table.leg(leg + 1).count(1, NOW);
            self.mine.insert(n, leg);
        }
    }

    /// Inserts or removes a client that the other worker wants as well.
    fn fight(&mut self) {
        let n = self.below(8);
        let new = client(2, n);
        let won = match self.table.find(&new.keys[0]) {
            Some(leg) => self.table.remove(&mut self.writer, leg),
            None => self.table.insert(&mut self.writer, &new, NOW).is_ok(),
        };
        self.wins += usize::from(won);
    }

    /// Its own clients must be found exactly; others, if found, must be intact.
    fn look(&mut self, scratch: &mut Scratch) {
        let asked: Vec<(u32, u32)> = (0..256).map(|_| (self.below(3), self.below(OWN))).collect();
        let wanted: Vec<New> = asked.iter().map(|(worker, n)| client(*worker, *n)).collect();
        let keys: Vec<_> = wanted.iter().map(|new| new.keys[1]).collect();
        let mut found = [0; 256];
        self.table.lookup(scratch, &keys, &mut found);
        for (((worker, n), new), leg) in asked.iter().zip(&wanted).zip(found) {
            if *worker == self.id {
                assert_eq!(leg, self.mine.get(n).map_or(NONE, |leg| leg ^ 1));
            }
            if leg != NONE {
                assert_eq!(self.table.leg(leg).key(), new.keys[1], "used again within the turn");
                assert_eq!(self.table.leg(leg ^ 1).key(), new.keys[0]);
            }
        }
    }

    fn run(mut self) -> Self {
        let mut scratch = Scratch::default();
        self.qsbr.online(self.id as usize);
        for _ in 0..TURNS {
            (0..20).for_each(|_| self.own());
            (0..4).for_each(|_| self.fight());
            self.look(&mut scratch);
            let ended = &mut self.ended;
            self.table.reclaim(&mut self.writer, |_, _| *ended += 1);
            self.qsbr.turn(self.id as usize);
        }
        self.qsbr.offline(self.id as usize);
        self
    }
}

#[test]
fn two_workers_never_surprise_each_other() {
    let qsbr = Arc::new(Qsbr::new(2));
    let shape = Shape {
        connections: 2_000,
        writers: 2,
        seed: 9,
    };
    let table = Table::new(&shape, qsbr.clone()).unwrap();
    let worker = |id| Worker {
        table: &table,
        qsbr: &qsbr,
        id,
        writer: Writer::new(),
        mine: HashMap::new(),
        random: u64::from(id) + 1,
        wins: 0,
        ended: 0,
    };
    let mut workers = std::thread::scope(|scope| {
        [0, 1]
            .map(|id| scope.spawn(move || worker(id).run()))
            .map(|thread| thread.join().expect("no panic"))
    });
    assert!(workers.iter().all(|worker| worker.wins > 0));
    // No half of a connection was left behind by the fights, and none was lost.
    let fought = (0..8).filter(|n| table.find(&client(2, *n).keys[0]).is_some()).count();
    let live = workers.iter().map(|worker| worker.mine.len()).sum::<usize>() + fought;
    assert_eq!((table.len() as usize, table.occupied()), (live, 2 * live));
    for worker in &mut workers {
        let ended = &mut worker.ended;
        table.reclaim(&mut worker.writer, |_, _| *ended += 1);
    }
    assert!(workers.iter().all(|worker| worker.ended > 0));
}
