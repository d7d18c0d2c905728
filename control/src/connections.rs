//! The connections there are, for people and programs: read beside the workers, which notice nothing of it.

mod filter;
mod follow;
mod used;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastpath::meta::{Endpoint, VrfId};
use fastpath::qsbr::Qsbr;
use nat::journal::{Event, Journal, Pen};
use nat::key::Key;
use nat::leg::Leg;
use nat::protocol::{self, Phase};
use nat::table::{Connection, Table, Writer};
use nat::time::{TICKS_PER_SECOND, Tick};

pub(crate) use filter::name_of as protocol_name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use filter::Filter;
use follow::Followers;
pub use follow::{Followed, Following};
pub use used::{Carried, LISTED_MAX, Served, ServedBackend, Translated, Used};

use crate::refusal::Refusal;
use crate::show::flows::{EndView, FlowState, FlowView, FlowsView};

/// The most connections `show flows` shows.
pub const SHOWN_MAX: usize = 1000;
/// What control removes connections with, and hears of them by. One for a table.
pub struct Hands {
    remover: Mutex<Writer>,
    /// Control's own place among those that read the table: what it looks at while it removes is not used again meanwhile.
    qsbr: Arc<Qsbr>,
    place: usize,
    pen: Pen,
    followers: Arc<Followers>,
}

impl Hands {
    /// `journal` is what the table's workers write; `place` in `qsbr` is nobody else's.
    pub fn new(journal: &Journal, qsbr: Arc<Qsbr>, place: usize) -> Arc<Self> {
        Arc::new(Self {
            remover: Mutex::new(Writer::new()),
            qsbr,
            place,
            pen: journal.pen(),
            followers: Followers::new(journal.clone()),
        })
    }

    /// Frees what was removed and workers have left behind since.
    pub fn reclaim(&self, table: &Table, now: Tick) {
        // Who deletes just now does so, too.
        if let Ok(mut remover) = self.remover.try_lock() {
            self.pen.reclaim(table, &mut remover, now);
        }
    }
}

/// How long deletion waits for workers to let go of what it ended before: they do with every turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks whether they have.
const PAUSE: Duration = Duration::from_micros(200);
/// Places of the table looked at for one page: a millisecond or two.
const VISITS: u32 = 1 << 14;

/// Which connections come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Those that carried most bytes, both ways
    #[default]
    Bytes,
    /// Those that carried most packets, both ways
    Packets,
    /// Those that have been silent for longest
    Idle,
}

/// The table as it is while somebody looks. One that is on its way out may be seen half.
pub struct Connections {
    table: Arc<Table>,
    hands: Arc<Hands>,
    now: Tick,
    vrfs: HashMap<VrfId, String>,
}

impl Connections {
    /// Those of `table`, silent since so long `now`, in tables of routes of these names. `hands` are a writer that the
    /// table was made for.
    pub fn new(table: Arc<Table>, hands: Arc<Hands>, now: Tick, vrfs: HashMap<VrfId, String>) -> Self {
        Self {
            table,
            hands,
            now,
            vrfs,
        }
    }

    /// How many there are.
    pub fn live(&self) -> u64 {
        self.table.len().into()
    }

    /// How many there can be.
    pub fn capacity(&self) -> u64 {
        self.table.capacity().into()
    }

    /// Those that `filter` matches at the next places of the table from `from` on, and where to go on; the first page
    /// begins at 0, and after the last one there is nowhere.
    pub fn page(&self, filter: &Filter, from: u32) -> (Vec<FlowView>, Option<u32>) {
        let end = from.saturating_add(VISITS);
        let here = self.table.connections_from(from);
        let here = here.take_while(|connection| connection.id() / 2 < end);
        let found = here.filter(|connection| filter.matches(&connection.keys(), &self.vrfs));
        let page = found.map(|connection| self.view(&connection)).collect();
        (page, (end < self.table.numbers_end()).then_some(end))
    }

    /// Of those that `filter` matches, the first [`SHOWN_MAX`] by `sort`.
    pub fn first(&self, filter: &Filter, sort: Sort) -> FlowsView {
        let mut first = BinaryHeap::with_capacity(SHOWN_MAX + 1);
        let mut matched = 0;
        for connection in self.matching(filter) {
            matched += 1;
            first.push(Reverse((self.rank(&connection, sort), connection.id())));
            if first.len() > SHOWN_MAX {
                first.pop();
            }
        }
        let view = |Reverse((_, id)): Reverse<(u64, u32)>| self.view(&self.table.connection(id));
        FlowsView {
            live: self.live(),
            capacity: self.capacity(),
            matched: (!filter.is_empty()).then_some(matched),
            flows: first.into_sorted_vec().into_iter().map(view).collect(),
        }
    }

    /// Ends those that `filter` matches; how many. Workers go on meanwhile: what begins while this looks may stay.
    ///
    /// # Errors
    /// Workers that do not let go of what was ended before; how many there were.
    pub fn delete(&self, filter: &Filter) -> Result<u64, Refusal> {
        let mut writer = self.hands.remover.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deleted = 0;
        for connection in self.table.connections_from(0) {
            let keys = connection.keys();
            if filter.matches(&keys, &self.vrfs) {
                if !self.makes_room(&mut writer) {
                    return Err(Refusal::new(format!(
                        "{deleted} connections were deleted, and others that match are left: a worker holds those for \
                         longer than {} s; look at `margay show workers`",
                        PATIENCE.as_secs()
                    )));
                }
                self.hands.qsbr.online(self.hands.place);
                deleted += u64::from(self.table.remove_seen(&mut writer, connection.id(), keys));
                self.hands.qsbr.offline(self.hands.place);
            }
        }
        self.reclaim(&mut writer);
        Ok(deleted)
    }

    fn reclaim(&self, writer: &mut Writer) {
        self.hands.pen.reclaim(&self.table, writer, self.now);
    }

    /// What becomes of those that `filter` matches, from now on.
    ///
    /// # Errors
    /// Too many follow already, or no thread can be had.
    pub fn follow(&self, filter: Filter) -> Result<Following, Refusal> {
        self.hands.followers.follow(filter, self.vrfs.clone())
    }

    /// How those who follow fare.
    pub fn followed(&self) -> Followed {
        self.hands.followers.counts()
    }

    /// Waits until one more connection may be removed; no, if workers take too long.
    fn makes_room(&self, writer: &mut Writer) -> bool {
        let since = Instant::now();
        while !writer.has_room() {
            self.reclaim(writer);
            if writer.has_room() {
                break;
            }
            if since.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    fn matching(&self, filter: &Filter) -> impl Iterator<Item = Connection<'_>> {
        let all = self.table.connections_from(0);
        all.filter(|connection| filter.matches(&connection.keys(), &self.vrfs))
    }

    /// Whoever has more comes first.
    fn rank(&self, connection: &Connection<'_>, sort: Sort) -> u64 {
        let both = |of: fn(&Leg) -> u64| of(connection.there()) + of(connection.back());
        match sort {
            Sort::Bytes => both(Leg::bytes),
            Sort::Packets => both(Leg::packets),
            Sort::Idle => connection.idle(self.now).into(),
        }
    }

    fn view(&self, connection: &Connection<'_>) -> FlowView {
        let legs = [connection.there(), connection.back()];
        view(
            &Event {
                end: None,
                keys: connection.keys(),
                packets: legs.map(Leg::packets),
                bytes: legs.map(Leg::bytes),
                phase: protocol::phase(connection),
                idle: connection.idle(self.now),
            },
            &self.vrfs,
        )
    }
}

/// A connection as it was.
fn view(event: &Event, vrfs: &HashMap<VrfId, String>) -> FlowView {
    let [there, back] = event.keys;
    let [source, target] = [there.source(), there.target()];
    let [real_source, real_target] = [back.target(), back.source()];
    let has_ports = has_ports(&there);
    let end = |end: &Endpoint| EndView::new(end.ip(), has_ports.then_some(end.port));
    let changed = |to: &Endpoint, from: &Endpoint| (to != from).then(|| end(to));
    FlowView {
        protocol: filter::name_of(there.protocol()),
        vrf: vrfs.get(&there.vrf()).cloned().unwrap_or_default(),
        source: end(&source),
        target: end(&target),
        translated_source: changed(&real_source, &source),
        translated_target: changed(&real_target, &target),
        state: state(event.phase),
        packets: event.packets[0],
        bytes: event.bytes[0],
        reply_packets: event.packets[1],
        reply_bytes: event.bytes[1],
        idle_s: (event.idle / TICKS_PER_SECOND).into(),
    }
}

/// Whether the key says ports, or an identifier in their place.
fn has_ports(key: &Key) -> bool {
    (key.source().port, key.target().port) != (0, 0)
}

fn state(phase: Phase) -> FlowState {
    match phase {
        Phase::Opening => FlowState::Opening,
        Phase::Established => FlowState::Established,
        Phase::Closing => FlowState::Closing,
        Phase::Reset => FlowState::Reset,
    }
}
