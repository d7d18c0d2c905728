//! Every interleaving of a writer that reuses memory and readers that may still see it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p fastpath --release --test loom_qsbr`
#![cfg(loom)]

use fastpath::qsbr::Qsbr;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use loom::thread;

/// Two places, one of them linked, as a table's root links one of two nodes. A cell stands for the memory of each: loom
/// fails the run if it is written while it may be read.
struct Shared {
    qsbr: Qsbr,
    linked: AtomicUsize,
    places: [UnsafeCell<()>; 2],
    freed: AtomicBool,
}

impl Shared {
    fn new(workers: usize) -> Arc<Shared> {
        let places = [UnsafeCell::new(()), UnsafeCell::new(())];
        Arc::new(Shared {
            qsbr: Qsbr::new(workers),
            linked: AtomicUsize::new(0),
            places,
            freed: AtomicBool::new(false),
        })
    }

    fn read(&self) {
        let place = self.linked.load(Acquire);
        self.places[place].with(|_| assert!(place == 1 || !self.freed.load(Relaxed), "a freed place was read"));
    }

    /// Links place 1 instead of place 0, and writes to place 0 as soon as that is allowed.
    fn replace(&self) {
        self.linked.store(1, Release);
        let stamp = self.qsbr.stamp();
        while self.qsbr.safe() < stamp {
            thread::yield_now();
        }
        self.places[0].with_mut(|_| self.freed.store(true, Relaxed));
    }
}

#[test]
fn a_reader_in_turns_never_sees_what_was_freed() {
    loom::model(|| {
        let shared = Shared::new(1);
        let reader = shared.clone();
        let reader = thread::spawn(move || {
            reader.qsbr.online(0);
            reader.read();
            reader.qsbr.turn(0);
            reader.read();
            reader.qsbr.offline(0);
        });
        shared.replace();
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_that_goes_and_comes_back_never_sees_what_was_freed() {
    loom::model(|| {
        let shared = Shared::new(1);
        let reader = shared.clone();
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                reader.qsbr.online(0);
                reader.read();
                reader.qsbr.offline(0);
            }
        });
        shared.replace();
        reader.join().unwrap();
    });
}

#[test]
fn the_slowest_of_two_readers_decides() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new(2);
        let readers: Vec<_> = (0..2)
            .map(|worker| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.qsbr.online(worker);
                    shared.read();
                    shared.qsbr.offline(worker);
                })
            })
            .collect();
        shared.replace();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
