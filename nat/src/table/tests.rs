//! The table against a plain map, when it is full, and under two threads.

use super::lanes::{Constant, Way};
use super::*;
use crate::leg::{NONE, Start, Verdict};
use fastpath::meta::{Endpoint, Flags, VrfId};
use proptest::prelude::*;
use std::collections::HashMap;

const UDP: u8 = 17;

/// Key `n` of IPv4 where it is even, else of IPv6.
fn key(n: u8) -> Key {
    let end = |last: u8, port| match n % 2 {
        0 => Endpoint::v4([10, 0, 0, last], port),
        _ => Endpoint {
            address: [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, last],
            port,
        },
    };
    let flags = Flags::IPV4.when(n.is_multiple_of(2));
    Key::new(&end(n, 1000), &end(255, 53), UDP, VrfId(7), flags)
}

fn new(a: u8, b: u8) -> New {
    New {
        keys: [key(a), key(b & !1 | a & 1)],
        starts: [Start::default(); 2],
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    InsertBatch(Vec<(u8, u8)>),
    Remove(u8),
    Answer(u8),
    Turn,
    Lookup,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pair = || (any::<u8>(), any::<u8>());
    let step = prop_oneof![
        4 => pair().prop_map(|(a, b)| Step::Insert(a, b)),
        1 => prop::collection::vec(pair(), 0..40).prop_map(Step::InsertBatch),
        3 => any::<u8>().prop_map(Step::Remove),
        2 => any::<u8>().prop_map(Step::Answer),
        1 => Just(Step::Turn),
        1 => Just(Step::Lookup),
    ];
    prop::collection::vec(step, 1..400)
}

struct Known {
    keys: [Key; 2],
    answered: bool,
    age: usize,
}

/// A table, and what it should hold: of each key its leg, and of each first leg its connection.
struct Both {
    table: Table,
    writer: Writer,
    qsbr: Arc<Qsbr>,
    legs: HashMap<Key, LegId>,
    connections: HashMap<LegId, Known>,
    /// Keys of what ended and was not told of.
    ending: Vec<[Key; 2]>,
    made: usize,
    evicted: u64,
}

impl Both {
    fn new(way: Way, connections: u32) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        qsbr.online(0);
        let shape = Shape {
            connections,
            writers: 1,
            seed: 3,
        };
        Self {
            table: Table::with_way(&shape, qsbr.clone(), way).unwrap(),
            writer: Writer::new(),
            qsbr,
            legs: HashMap::new(),
            connections: HashMap::new(),
            ending: vec![],
            made: 0,
            evicted: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Insert(a, b) => {
                let made = self.table.insert(&mut self.writer, &new(*a, *b), Tick(1));
                self.inserted(&new(*a, *b), made);
            }
            Step::InsertBatch(pairs) => {
                let news: Vec<New> = pairs.iter().map(|(a, b)| new(*a, *b)).collect();
                let mut fates = vec![];
                self.table
                    .insert_batch(&mut self.writer, &news, Tick(1), |i, fate| fates.push((i, fate)));
                assert!(fates.iter().map(|(i, _)| *i).eq(0..news.len()), "each once, in order");
                for (i, fate) in fates {
                    self.inserted(&news[i], fate);
                }
            }
            Step::Remove(a) => {
                assert_eq!(self.table.find(&key(*a)), self.legs.get(&key(*a)).copied());
                if let Some(leg) = self.table.find(&key(*a)) {
                    self.forget(leg & !1);
                    assert!(self.table.remove(&mut self.writer, leg));
                    assert!(!self.table.remove(&mut self.writer, leg));
                }
            }
            Step::Answer(a) => {
                if let Some(leg) = self.table.find(&key(*a)) {
                    self.table.leg(leg).count(100, Tick(2));
                    self.connections.get_mut(&(leg & !1)).unwrap().answered |= leg & 1 == 1;
                }
            }
            Step::Turn => {
                for _ in 0..2 {
                    let ending = &mut self.ending;
                    self.table.reclaim(&mut self.writer, |connection, _| {
                        let keys = connection.keys();
                        let told = ending.iter().position(|ending| *ending == keys);
                        ending.swap_remove(told.expect("it ended, and was not told of before"));
                    });
                    self.qsbr.turn(0);
                }
                assert!(self.ending.is_empty(), "everything that ended was told of");
            }
            Step::Lookup => self.check(),
        }
    }

    fn inserted(&mut self, new: &New, made: Result<LegId, Refused>) {
        let [there, back] = new.keys;
        match made {
            Ok(leg) => {
                if self.connections.len() == self.table.capacity() as usize {
                    self.evicted(new);
                }
                let fresh = !self.legs.contains_key(&there) && !self.legs.contains_key(&back);
                assert!(fresh, "a key twice");
                let known = Known {
                    keys: new.keys,
                    answered: false,
                    age: self.made,
                };
                self.made += 1;
                self.connections.insert(leg, known);
                self.legs.insert(back, leg + 1);
                self.legs.insert(there, leg);
            }
            Err(Refused::Exists(leg)) => self.was_there(&there, leg),
            Err(Refused::ReverseTaken(leg)) => self.was_there(&back, leg),
            Err(Refused::Full) => {
                assert_eq!(self.connections.len(), self.table.capacity() as usize);
                // What ages out of the ring of the unconfirmed has to wait for its idle time.
            }
            Err(Refused::Crowded) => assert!(self.connections.len() > 300, "a chain of 64 buckets"),
        }
    }

    /// A key that was refused has a leg, or had one until something later in its batch took its place.
    fn was_there(&self, key: &Key, leg: LegId) {
        match self.legs.get(key) {
            Some(known) => assert_eq!(*known, leg),
            None => assert!(self.ending.iter().any(|keys| keys.contains(key)), "nobody had that key"),
        }
    }

    /// Somebody had to go, who was never answered. Of several whom a batch made go, who had a key of the new one went before
    /// it, and else the oldest; but a number that is used again eight times meanwhile may go before its turn, for it is
    /// taken for its first use.
    fn evicted(&mut self, new: &New) {
        let is_gone = |leg: LegId, known: &Known| self.table.find(&known.keys[0]) != Some(leg);
        let gone = self.connections.iter().filter(|(leg, known)| is_gone(**leg, known));
        let before = |known: &Known| known.keys.iter().any(|key| new.keys.contains(key));
        let first = gone.min_by_key(|(_, known)| (!before(known), known.age));
        let (leg, known) = first.expect("one more than fit");
        assert!(!known.answered, "answered, and evicted");
        let leg = *leg;
        self.forget(leg);
        self.evicted += 1;
    }

    fn forget(&mut self, first: LegId) {
        let known = self.connections.remove(&first).unwrap();
        self.legs.retain(|key, _| !known.keys.contains(key));
        self.ending.push(known.keys);
    }

    fn check(&self) {
        let keys: Vec<Key> = (0..=255).map(key).collect();
        let wanted: Vec<LegId> = keys
            .iter()
            .map(|key| self.legs.get(key).copied().unwrap_or(NONE))
            .collect();
        let mut scratch = Scratch::default();
        for count in [256, 77, 1, 0] {
            let mut found = vec![0; count];
            self.table.lookup(&mut scratch, &keys[..count], &mut found);
            assert_eq!(found, wanted[..count]);
        }
        for (leg, known) in &self.connections {
            let connection = self.table.connection(*leg);
            assert_eq!(connection.keys(), known.keys);
            assert_eq!(connection.is_answered(), known.answered);
        }
        assert_eq!(self.table.len() as usize, self.connections.len());
        assert_eq!(self.table.occupied(), self.legs.len());
        assert_eq!(self.table.evicted(), self.evicted);
    }
}

fn agree(way: Way, steps: &[Step], connections: u32) {
    let mut both = Both::new(way, connections);
    steps.iter().for_each(|step| both.take(step));
    both.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_map(steps in steps()) {
        Way::all().into_iter().for_each(|way| agree(way, &steps, 100));
    }

    #[test]
    fn it_is_a_map_of_keys_that_collide(steps in steps()) {
        agree(Way::Constant(Constant), &steps, 40);
    }

    #[test]
    fn it_is_a_tiny_map(steps in steps()) {
        Way::all().into_iter().for_each(|way| agree(way, &steps, 3));
    }

    #[test]
    fn what_a_leg_holds_is_kept_apart(
        a: u8, verdict: (u32, u32), number: u32, bits in 0u16..1 << 13, packets in prop::collection::vec((0u32..65536, any::<u32>()), 0..20),
    ) {
        let mut both = Both::new(Way::all()[0], 4);
        let new = New { keys: [key(a), key(a).reversed()], ..New::default() };
        let leg = both.table.insert(&mut both.writer, &new, Tick(5)).unwrap();
        let verdict = Verdict { adjacency: verdict.0 & 0xff_ffff, generation: verdict.1 };
        let mark = Mark { bits, number };
        for side in [leg, leg + 1] {
            both.table.set_mark(side, mark);
            both.table.leg(side).renew(verdict);
            for (bytes, now) in &packets {
                prop_assert_eq!(both.table.leg(side).count(*bytes, Tick(*now)), verdict);
            }
            both.table.set_mark(side, mark);
            let seen = both.table.leg(side);
            prop_assert_eq!(both.table.mark(side), mark);
            prop_assert_eq!(seen.verdict(), verdict);
            prop_assert_eq!(seen.packets(), packets.len() as u64);
            prop_assert_eq!(seen.bytes(), packets.iter().map(|(bytes, _)| u64::from(*bytes)).sum::<u64>());
            prop_assert_eq!(seen.seen(), Tick(packets.last().map_or(5, |(_, now)| *now)));
        }
        prop_assert_eq!(both.table.connection(leg).keys(), new.keys);
    }
}

#[test]
fn the_oldest_unconfirmed_goes_first_and_the_confirmed_never() {
    let mut both = Both::new(Way::all()[0], 20);
    (0..20).for_each(|n| both.take(&Step::Insert(2 * n, 200)));
    assert_eq!(both.connections.len(), 1, "their answers are the same: one can be made");
    let mut both = Both::new(Way::all()[0], 20);
    (0..20).for_each(|n| both.take(&Step::Insert(2 * n, 100 + 2 * n)));
    // Every third is answered.
    (0..20)
        .filter(|n| n % 3 == 0)
        .for_each(|n| both.take(&Step::Answer(100 + 2 * n)));
    let mut victims = (0..20).filter(|n| n % 3 != 0);
    for n in 0..13 {
        both.take(&Step::Insert(160 + 2 * n, 200 + 2 * n));
        let victim = victims.next().unwrap();
        assert_eq!(both.table.find(&key(2 * victim)), None, "the oldest");
        both.check();
        both.take(&Step::Turn);
        both.take(&Step::Answer(200 + 2 * n));
    }
    let refused = both.table.insert(&mut both.writer, &new(1, 3), Tick(3));
    assert_eq!(refused, Err(Refused::Full));
    assert_eq!(
        both.table
            .insert(&mut both.writer, &new(160, 200), Tick(3))
            .map_err(|_| ()),
        Err(())
    );
    both.check();
}

#[test]
fn a_full_table_has_the_memory_that_was_promised() {
    let qsbr = Arc::new(Qsbr::new(0));
    let shape = Shape {
        connections: 200_000,
        writers: 1,
        seed: 1,
    };
    let table = Table::new(&shape, qsbr).unwrap();
    let reserve = HELD_MAX * 136;
    let per_connection = (table.bytes() - reserve) as f64 / 200_000.0;
    assert!(per_connection <= 157.2, "{per_connection} bytes a connection");
    let mut writer = Writer::new();
    for n in 0..200_000u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let there = Key::new(
            &Endpoint::v4([10, b, c, d], 77 + u16::from(a)),
            &Endpoint::v4([192, 0, 2, 1], 80),
            UDP,
            VrfId(0),
            Flags::IPV4,
        );
        let new = New {
            keys: [there, there.reversed()],
            ..New::default()
        };
        table.insert(&mut writer, &new, Tick(0)).unwrap();
    }
    assert_eq!(table.len(), table.capacity());
    assert!(
        table.strays() < 40_000,
        "a tenth of the keys away from home: {}",
        table.strays()
    );
}
