//! Every interleaving, at a small scale, of workers that look up, insert, remove and use memory again.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p nat --release --lib model`
//!
//! What is observed runs in a spawned thread and what changes in the model's own: the other way round loom rarely shows a
//! reader a half-done change.

use super::lanes::{Constant, Way};
use super::*;
use crate::leg::{Leg, Start};
use fastpath::meta::{Endpoint, Flags, VrfId};
use loom::sync::Arc as LoomArc;
use loom::thread;

const NOW: Tick = Tick(1);
/// Where all connections of the models leave.
const ADJACENCY: u32 = 7;

struct World {
    table: Table,
    qsbr: Arc<Qsbr>,
}

/// A connection by its number. All keys are in one bucket, with one tag.
fn new(n: u8) -> New {
    let end = |last| Endpoint::v4([10, 0, 0, last], 1);
    let there = Key::new(&end(n), &end(200), 17, VrfId(0), Flags::IPV4);
    let back = Key::new(&end(100 + n), &end(n), 17, VrfId(0), Flags::IPV4);
    let start = Start {
        adjacency: ADJACENCY,
        ..Start::default()
    };
    New {
        keys: [there, back],
        starts: [start; 2],
    }
}

/// A table for `connections`, of which the first `made` are there. Worker 0 is the model's own thread and online.
fn world(connections: u32, made: u8) -> (LoomArc<World>, Writer) {
    let qsbr = Arc::new(Qsbr::new(2));
    let shape = Shape {
        connections,
        writers: 2,
        seed: 1,
    };
    let table = Table::with_way(&shape, qsbr.clone(), Way::Constant(Constant)).unwrap();
    let mut writer = Writer::new();
    qsbr.online(0);
    for n in 0..made {
        table.insert(&mut writer, &new(n), NOW).unwrap();
    }
    (LoomArc::new(World { table, qsbr }), writer)
}

impl World {
    /// As worker 1, in one turn: looks a connection up by both keys, and whatever is found must be whole.
    fn look(&self, n: u8) -> [bool; 2] {
        self.qsbr.online(1);
        let found = new(n).keys.map(|key| {
            let leg = self.table.find(&key)?;
            assert_eq!(self.table.leg(leg).key(), key, "another's memory");
            assert_eq!(self.table.leg(leg).verdict().adjacency, ADJACENCY, "half a leg");
            Some(leg)
        });
        for (leg, key) in found
            .iter()
            .zip(new(n).keys)
            .filter_map(|(leg, key)| leg.map(|leg| (leg, key)))
        {
            assert_eq!(self.table.leg(leg).key(), key, "used again within the turn");
        }
        self.qsbr.offline(1);
        found.map(|leg| leg.is_some())
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(model);
}

#[test]
fn of_two_workers_one_makes_a_connection() {
    check(|| {
        let (world, mut writer) = world(2, 0);
        let other = world.clone();
        let rival = thread::spawn(move || {
            other.qsbr.online(1);
            let made = other.table.insert(&mut Writer::new(), &new(0), NOW);
            other.qsbr.offline(1);
            made
        });
        let mine = world.table.insert(&mut writer, &new(0), NOW);
        let theirs = rival.join().unwrap();
        let won = [mine, theirs].into_iter().filter(Result::is_ok).count();
        // One may have met the other half-way: then its answers belonged to the other for a moment.
        assert!(won <= 1, "made twice");
        assert_eq!(world.table.occupied(), 2 * won);
        assert_eq!(world.table.len() as usize, won);
    });
}

#[test]
fn a_reader_sees_a_whole_connection_or_none() {
    check(|| {
        let (world, mut writer) = world(2, 1);
        let other = world.clone();
        let reader = thread::spawn(move || (other.look(1), other.look(0)));
        world.table.insert(&mut writer, &new(1), NOW).unwrap();
        let (_, old) = reader.join().unwrap();
        assert_eq!(old, [true; 2], "what was there stays found");
    });
}

#[test]
fn memory_is_not_used_again_while_somebody_may_read_it() {
    check(|| {
        let (world, mut writer) = world(1, 1);
        let other = world.clone();
        let reader = thread::spawn(move || other.look(0));
        let leg = world.table.find(&new(0).keys[0]).unwrap();
        assert!(world.table.remove(&mut writer, leg));
        for _ in 0..2 {
            world.qsbr.turn(0);
            world.table.reclaim(&mut writer, |_, _| ());
        }
        world.table.insert(&mut writer, &new(1), NOW).unwrap();
        reader.join().unwrap();
        assert_eq!(world.look(1), [true; 2]);
        assert_eq!(world.look(0), [false; 2]);
    });
}

#[test]
fn a_remover_leaves_no_half_behind() {
    check(|| {
        let (world, mut writer) = world(2, 0);
        let other = world.clone();
        let remover = thread::spawn(move || {
            other.qsbr.online(1);
            let mut writer = Writer::new();
            let met = other.table.connections_from(0).next().map(|connection| connection.id());
            let removed = met.is_some_and(|leg| other.table.remove(&mut writer, leg));
            other.qsbr.offline(1);
            removed
        });
        world.table.insert(&mut writer, &new(0), NOW).unwrap();
        let removed = remover.join().unwrap();
        assert_eq!(world.table.occupied(), if removed { 0 } else { 2 });
    });
}

#[test]
fn control_removes_what_it_saw_and_nothing_in_its_place() {
    check(|| {
        let (world, mut writer) = world(1, 1);
        let other = world.clone();
        // Not online: no worker waits for it, and the memory under its eyes may become another's.
        let control = thread::spawn(move || {
            let seen = other.table.connection(0);
            let (leg, keys) = (seen.id(), seen.keys());
            keys == new(0).keys && other.table.remove_seen(&mut Writer::new(), leg, keys)
        });
        let leg = world.table.find(&new(0).keys[0]);
        let removed = leg.is_some_and(|leg| world.table.remove(&mut writer, leg));
        for _ in 0..2 {
            world.qsbr.turn(0);
            world.table.reclaim(&mut writer, |_, _| ());
        }
        let made = world.table.insert(&mut writer, &new(1), NOW).is_ok();
        let deleted = control.join().unwrap();
        assert!(removed != deleted, "by one of the two");
        assert_eq!(world.table.occupied(), if made { 2 } else { 0 });
        assert_eq!(world.look(1), [made; 2]);
        assert_eq!(world.look(0), [false; 2]);
    });
}

#[test]
fn a_key_beyond_its_bucket_is_found_while_others_come_and_go() {
    check(|| {
        // Ten keys of five connections fill the bucket; those of the sixth are in the next one.
        let (world, mut writer) = world(8, 6);
        let other = world.clone();
        let reader = thread::spawn(move || other.look(5));
        let leg = world.table.find(&new(0).keys[0]).unwrap();
        assert!(world.table.remove(&mut writer, leg));
        assert_eq!(reader.join().unwrap(), [true; 2]);
        assert_eq!(world.look(5), [true; 2]);
    });
}

#[test]
fn free_numbers_are_given_to_one() {
    check(|| {
        let legs: LoomArc<Vec<Leg>> = LoomArc::new((0..12).map(|_| Leg::default()).collect());
        let numbers = LoomArc::new(Numbers::new(6));
        let mut all = vec![];
        numbers.fetch(&legs, &mut all);
        numbers.fetch(&legs, &mut all);
        let (first, second) = (all[..3].try_into().unwrap(), all[3..].try_into().unwrap());
        numbers.push(&legs, &first);
        let (theirs, their_legs) = (numbers.clone(), legs.clone());
        let other = thread::spawn(move || {
            let mut taken = vec![];
            theirs.fetch(&their_legs, &mut taken);
            if let Ok(batch) = taken[..].try_into() {
                theirs.push(&their_legs, &batch);
                taken.clear();
                theirs.fetch(&their_legs, &mut taken);
            }
            taken
        });
        numbers.push(&legs, &second);
        let mut taken = vec![];
        numbers.fetch(&legs, &mut taken);
        taken.extend(other.join().unwrap());
        numbers.fetch(&legs, &mut taken);
        taken.sort_unstable();
        all.sort_unstable();
        assert_eq!(taken, all, "each once");
    });
}
