//! The connections there are, for people and programs: read beside the workers, which notice nothing of it.

mod filter;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use fastpath::meta::{Endpoint, VrfId};
use nat::key::Key;
use nat::protocol::{self, Phase};
use nat::table::{Connection, Table};
use nat::time::{TICKS_PER_SECOND, Tick};

pub use filter::Filter;

use crate::show::flows::{EndView, FlowState, FlowView, FlowsView};

/// The most connections `show flows` shows.
pub const SHOWN_MAX: usize = 1000;
/// Places of the table looked at for one page: a millisecond or two.
const VISITS: u32 = 1 << 14;

/// The table as it is while somebody looks. One that is on its way out may be seen half.
pub struct Connections {
    table: Arc<Table>,
    now: Tick,
    vrfs: HashMap<VrfId, String>,
}

impl Connections {
    /// Those of `table`, silent since so long `now`, in tables of routes of these names.
    pub fn new(table: Arc<Table>, now: Tick, vrfs: HashMap<VrfId, String>) -> Self {
        Self { table, now, vrfs }
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
        let found = here.filter(|connection| filter.matches(connection, &self.vrfs));
        let page = found.map(|connection| self.view(&connection)).collect();
        (page, (end < self.table.numbers_end()).then_some(end))
    }

    /// The [`SHOWN_MAX`] that carried most, most first.
    pub fn largest(&self) -> FlowsView {
        let mut largest = BinaryHeap::with_capacity(SHOWN_MAX + 1);
        for connection in self.table.connections_from(0) {
            let bytes = connection.there().bytes() + connection.back().bytes();
            largest.push(Reverse((bytes, connection.id())));
            if largest.len() > SHOWN_MAX {
                largest.pop();
            }
        }
        let flows = largest.into_sorted_vec();
        let view = |Reverse((_, id)): Reverse<(u64, u32)>| self.view(&self.table.connection(id));
        FlowsView {
            live: self.live(),
            capacity: self.capacity(),
            flows: flows.into_iter().map(view).collect(),
        }
    }

    fn view(&self, connection: &Connection<'_>) -> FlowView {
        let [there, back] = connection.keys();
        let [source, target] = [there.source(), there.target()];
        let [real_source, real_target] = [back.target(), back.source()];
        let has_ports = has_ports(&there);
        let end = |end: &Endpoint| EndView::new(end.ip(), has_ports.then_some(end.port));
        let changed = |to: &Endpoint, from: &Endpoint| (to != from).then(|| end(to));
        FlowView {
            protocol: filter::name_of(there.protocol()),
            vrf: self.vrfs.get(&there.vrf()).cloned().unwrap_or_default(),
            source: end(&source),
            target: end(&target),
            translated_source: changed(&real_source, &source),
            translated_target: changed(&real_target, &target),
            state: state(connection),
            packets: connection.there().packets(),
            bytes: connection.there().bytes(),
            reply_packets: connection.back().packets(),
            reply_bytes: connection.back().bytes(),
            idle_s: (connection.idle(self.now) / TICKS_PER_SECOND).into(),
        }
    }
}

/// Whether the key says ports, or an identifier in their place.
fn has_ports(key: &Key) -> bool {
    (key.source().port, key.target().port) != (0, 0)
}

fn state(connection: &Connection<'_>) -> FlowState {
    match protocol::phase(connection) {
        Phase::Opening => FlowState::Opening,
        Phase::Established => FlowState::Established,
        Phase::Closing => FlowState::Closing,
        Phase::Reset => FlowState::Reset,
    }
}
