//! Every interleaving of what workers and control share: counter, window, keys and tables.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p wireguard --release --test loom_shared`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use wireguard::replay::{WINDOW, Window};
use wireguard::session::{Counter, Ends, Secret, Slots, View, Way};
use wireguard::timers::REJECT_AFTER_MESSAGES;

#[test]
fn no_two_packets_get_the_same_number() {
    loom::model(|| {
        let counter = Arc::new(Counter::new(REJECT_AFTER_MESSAGES - 3));
        let other = counter.clone();
        let taker = thread::spawn(move || [other.take(2), other.take(1)]);
        let mine = [counter.take(1), counter.take(2)];
        let theirs = taker.join().unwrap();
        let taken = mine.into_iter().chain(theirs).flatten();
        let mut numbers: Vec<u64> = taken.flatten().collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.iter().all(|&number| number < REJECT_AFTER_MESSAGES));
    });
}

#[test]
fn of_several_workers_one_accepts_a_packet() {
    // The packet itself, its neighbour in the same word, and one that takes the word over.
    for others in [[5, 5], [5, 6], [5, 5 + WINDOW + 32], [5 + WINDOW + 32, 5 + WINDOW + 32]] {
        loom::model(move || {
            let window = Arc::new(Window::new());
            let workers = others.map(|counter| {
                let window = window.clone();
                thread::spawn(move || window.accept(counter).is_ok().then_some(counter))
            });
            let mine = window.accept(5).is_ok().then_some(5);
            let accepted = workers.map(|worker| worker.join().unwrap());
            let mut counters: Vec<u64> = accepted.into_iter().chain([mine]).flatten().collect();
            let count = counters.len();
            counters.sort_unstable();
            counters.dedup();
            assert_eq!(counters.len(), count, "accepted twice");
            assert!(
                others
                    .into_iter()
                    .chain([5])
                    .all(|counter| window.accept(counter).is_err())
            );
        });
    }
}

#[test]
fn a_key_is_read_whole_or_not_at_all() {
    loom::model(|| {
        let key = [7; 32];
        let secret = Arc::new(Secret::new(&key));
        let shared = secret.clone();
        let reader = thread::spawn(move || shared.read());
        secret.erase();
        assert!(secret.read().is_none());
        if let Some(read) = reader.join().unwrap() {
            assert_eq!(*read, key);
        }
    });
}

#[test]
fn a_worker_sees_the_last_change_once_control_is_done() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let shared = slots.clone();
        let worker = thread::spawn(move || {
            let mut view = View::new(shared);
            let seen = [0, 1].map(|_| view.get(0).map_or(0, |value| **value));
            (view, seen)
        });
        slots.set(0, Some(Arc::new(1)));
        slots.set(0, Some(Arc::new(2)));
        let (mut view, seen) = worker.join().unwrap();
        assert!(seen[0] <= seen[1], "never back");
        assert_eq!(view.get(0).map(|value| **value), Some(2));
    });
}

#[test]
fn a_way_is_read_whole_whoever_changes_it() {
    let ends = |number: u8| Ends {
        remote: ([10, 0, 0, number], u16::from(number)).into(),
        local: Some([192, 0, 2, number].into()),
    };
    let mut model = loom::model::Builder::new();
    // All interleavings take minutes.
    model.preemption_bound = Some(3);
    model.check(move || {
        let way = Arc::new(Way::default());
        way.change(|_| Some(ends(1)));
        let [worker, control] = [way.clone(), way.clone()];
        let worker = thread::spawn(move || worker.follow(ends(2)));
        let control = thread::spawn(move || control.change(|_| Some(ends(3))));
        let known = [1, 2, 3].map(|number| Some(ends(number)));
        assert!(known.contains(&way.get()));
        worker.join().unwrap();
        control.join().unwrap();
        assert!(known[1..].contains(&way.get()));
    });
}
