//! What becomes of connections, told to whoever asks: that they began, and how they ended. While nobody asks, workers
//! know by one load and write nothing.
//!
//! Every writer of the table has a ring of its own, in which it overwrites nothing and waits for nobody: what does not
//! fit is counted, and lost.

use crate::key::Key;
use crate::protocol::{self, Phase};
use crate::table::{Connection, End, Table, Writer};
use crate::time::Tick;
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Events that one writer keeps for its reader.
const RING: usize = 4096;

/// What became of a connection, and what it was then.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// How it ended; none where it began.
    pub end: Option<Reason>,
    /// Keys of both directions, as packets arrive.
    pub keys: [Key; 2],
    /// Packets of both directions.
    pub packets: [u64; 2],
    /// Their bytes.
    pub bytes: [u64; 2],
    /// Where it stood.
    pub phase: Phase,
    /// Ticks since a packet came in either direction.
    pub idle: u32,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its ends were done with it, or one broke it off.
    Closed,
    /// Nothing came for as long as its state allows.
    Timeout,
    /// Never confirmed, and the table was full.
    Evicted,
    /// Made anew: its backend has gone, or its ends began another like it.
    Replaced,
    /// Somebody asked for it.
    Deleted,
}

/// All rings. Clones are of the same.
#[derive(Clone, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_read: AtomicBool,
    lost: AtomicU64,
    rings: Mutex<Vec<Arc<Ring>>>,
}

/// Made when somebody asks for the first time.
type Ring = OnceLock<ArrayQueue<Event>>;

/// One writer's end.
pub struct Pen {
    shared: Arc<Shared>,
    ring: Arc<Ring>,
}

impl Journal {
    /// For one more writer.
    pub fn pen(&self) -> Pen {
        let ring = Arc::new(Ring::default());
        let mut rings = self.0.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_read.load(Acquire) {
            ring.get_or_init(|| ArrayQueue::new(RING));
        }
        rings.push(Arc::clone(&ring));
        Pen {
            shared: Arc::clone(&self.0),
            ring,
        }
    }

    /// From now on events are kept, or no more.
    pub fn set_read(&self, is_read: bool) {
        let rings = self.0.rings.lock().unwrap_or_else(PoisonError::into_inner);
        for ring in rings.iter() {
            // What was left when the last reader went is of no interest to the next.
            let ring = ring.get_or_init(|| ArrayQueue::new(RING));
            while is_read && ring.pop().is_some() {}
        }
        self.0.is_read.store(is_read, Release);
    }

    /// Takes out what is there, at most so much as all rings hold; those of one writer in their order.
    pub fn read(&self, mut each: impl FnMut(Event)) {
        let rings = self.0.rings.lock().unwrap_or_else(PoisonError::into_inner);
        for ring in rings.iter().filter_map(|ring| ring.get()) {
            std::iter::from_fn(|| ring.pop()).take(RING).for_each(&mut each);
        }
    }

    /// Events that did not fit since the start.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

impl Pen {
    /// Tells of a connection that begins.
    #[inline(always)]
    pub fn begins(&self, connection: &Connection<'_>, now: Tick) {
        if self.shared.is_read.load(Acquire) {
            self.write(connection, None, now);
        }
    }

    /// Frees what every worker has left behind, and tells of it. See [`Table::reclaim`].
    #[inline(always)]
    pub fn reclaim(&self, table: &Table, writer: &mut Writer, now: Tick) {
        table.reclaim(writer, |connection, end| {
            if self.shared.is_read.load(Acquire) {
                self.write(&connection, Some(end), now);
            }
        });
    }

    #[cold]
    fn write(&self, connection: &Connection<'_>, end: Option<End>, now: Tick) {
        let [there, back] = [connection.there(), connection.back()];
        let phase = protocol::phase(connection);
        let event = Event {
            end: end.map(|end| reason(end, phase)),
            keys: connection.keys(),
            packets: [there.packets(), back.packets()],
            bytes: [there.bytes(), back.bytes()],
            phase,
            idle: connection.idle(now),
        };
        if self.ring.get().is_none_or(|ring| ring.push(event).is_err()) {
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }
}

fn reason(end: End, phase: Phase) -> Reason {
    match (end, phase) {
        (End::Idle, Phase::Closing | Phase::Reset) => Reason::Closed,
        (End::Idle, _) => Reason::Timeout,
        (End::Evicted, _) => Reason::Evicted,
        (End::Removed, _) => Reason::Replaced,
        (End::Deleted, _) => Reason::Deleted,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::leg::Start;
    use crate::table::{New, Shape};
    use fastpath::meta::{Endpoint, Flags, VrfId};
    use fastpath::qsbr::Qsbr;

    fn new(n: u32) -> New {
        let [a, b, c, d] = n.to_be_bytes();
        let end = |address, port| Endpoint::v4(address, port);
        let there = Key::new(
            &end([10 + a, b, c, d], 1),
            &end([192, 0, 2, 1], 53),
            17,
            VrfId(0),
            Flags::IPV4,
        );
        New {
            keys: [there, there.reversed()],
            starts: [Start::default(); 2],
        }
    }

    fn table() -> Table {
        let shape = Shape {
            connections: 10_000,
            writers: 1,
            seed: 1,
        };
        Table::new(&shape, Arc::new(Qsbr::new(0))).unwrap()
    }

    fn events(journal: &Journal) -> Vec<(Option<Reason>, Key, u64)> {
        let mut events = vec![];
        journal.read(|event| events.push((event.end, event.keys[0], event.packets[0])));
        events
    }

    #[test]
    fn what_begins_and_ends_is_told_to_who_asks_and_to_nobody_before() {
        let (table, journal, mut writer) = (table(), Journal::default(), Writer::new());
        let pen = journal.pen();
        let mut begin = |n| {
            let leg = table.insert(&mut writer, &new(n), Tick(1)).unwrap();
            pen.begins(&table.connection(leg), Tick(1));
            table.leg(leg).count(100, Tick(2));
            leg
        };
        let first = begin(1);
        assert_eq!(events(&journal), []);
        journal.set_read(true);
        let second = begin(2);
        assert_eq!(events(&journal), [(None, new(2).keys[0], 0)]);
        assert!(table.remove(&mut writer, first));
        assert!(table.remove_seen(&mut writer, second, new(2).keys));
        pen.reclaim(&table, &mut writer, Tick(3));
        let expected = [(Reason::Replaced, 1), (Reason::Deleted, 2)];
        let expected = expected.map(|(reason, n)| (Some(reason), new(n).keys[0], 1));
        assert_eq!(events(&journal), expected);
        assert_eq!(journal.lost(), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_not_waited_for() {
        let (table, journal, mut writer) = (table(), Journal::default(), Writer::new());
        let pen = journal.pen();
        journal.set_read(true);
        for n in 0..RING as u32 + 7 {
            let leg = table.insert(&mut writer, &new(n), Tick(1)).unwrap();
            pen.begins(&table.connection(leg), Tick(1));
        }
        assert_eq!((events(&journal).len(), journal.lost()), (RING, 7));
        journal.set_read(false);
        let leg = table.insert(&mut writer, &new(9_999), Tick(1)).unwrap();
        pen.begins(&table.connection(leg), Tick(1));
        assert_eq!((events(&journal).len(), journal.lost()), (0, 7));
    }

    #[test]
    fn a_connection_that_was_closed_did_not_time_out() {
        assert_eq!(reason(End::Idle, Phase::Closing), Reason::Closed);
        assert_eq!(reason(End::Idle, Phase::Reset), Reason::Closed);
        assert_eq!(reason(End::Idle, Phase::Established), Reason::Timeout);
        assert_eq!(reason(End::Evicted, Phase::Opening), Reason::Evicted);
    }
}
