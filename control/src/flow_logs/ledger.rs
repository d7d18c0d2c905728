//! From reports and the table of connections to what is written down: which connection counts for what.
//!
//! A report says what policy decided of a connection; what it carried since is read from the table, which workers do not
//! notice. Each is looked at once a round, and as connections stay in the table for longer than that after their last
//! packet, what they carried is complete.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use classifier::compiler::Counter;
use classifier::report::{Fate, Report, Reports, Stages};
use fastpath::meta::{Endpoint, VrfId};
use nat::table::{Connection, Table};

use super::aggregates::{Aggregates, Key, Sums};
use super::{FlowLog, LogEnd, LogVerdict, WINDOW};

/// Time in which every connection is looked at once: less than any of them stays when it is silent.
const ROUND_NS: u64 = 4_000_000_000;
/// Connections whose policy is remembered at most, some 80 bytes each.
const TRACKED_MAX: usize = 1 << 21;
/// Ways through policy whose names are remembered at most.
const PATHS_MAX: usize = 1 << 14;
/// Reports that are heard at once, so that other things are done in between.
const HEARD_AT_ONCE: usize = 1 << 16;
/// No connection.
const NOBODY: u32 = u32::MAX;

/// What decided, by name, and where its rules are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// What is in force.
    pub verdict: LogVerdict,
    /// What would be, with what is staged.
    pub pending: Option<LogVerdict>,
    /// The rules that decided.
    pub counters: Vec<Counter>,
}

/// Who knows policies by name.
pub trait Deciders {
    /// Another number whenever numbers of policies and chains may mean others.
    fn version(&mut self) -> u64;

    /// What was decided, in words.
    fn name(&mut self, stages: &Stages, fate: Fate) -> Path;

    /// Counts packets and bytes for rules.
    fn credit(&mut self, carried: &[(Counter, u64, u64)]);
}

/// What a turn looks at.
pub(super) struct Sight<'a> {
    pub now_ns: u64,
    pub wall_ms: u64,
    pub table: &'a Table,
    pub deciders: &'a mut dyn Deciders,
}

/// What decided, shared by all that it decided.
struct Decided {
    verdict: Arc<LogVerdict>,
    pending: Option<Arc<LogVerdict>>,
    counters: Box<[Counter]>,
}

struct Tracked {
    aggregate: u32,
    decided: Arc<Decided>,
    /// Which it is in the table, once it was seen there.
    number: u32,
    /// When it was seen last.
    round: u32,
    /// What is written down already: packets and bytes there, packets and bytes back.
    seen: [u64; 4],
}

/// The books.
#[derive(Default)]
pub(super) struct Ledger {
    aggregates: Aggregates,
    tracked: HashMap<u64, Tracked>,
    hasher: RandomState,
    paths: HashMap<(Stages, Fate), Arc<Decided>>,
    version: u64,
    carried: HashMap<Counter, (u64, u64)>,
    round: u32,
    hand: u32,
    looked_ns: u64,
    window_ns: u64,
}

impl Ledger {
    /// Takes what workers reported.
    pub fn hear(
        &mut self,
        reports: &[Arc<Reports>],
        names: &mut dyn FnMut(IpAddr) -> Arc<LogEnd>,
        sight: &mut Sight<'_>,
    ) {
        let version = sight.deciders.version();
        if self.version != version {
            self.paths.clear();
            self.version = version;
        }
        for queue in reports {
            for _ in 0..HEARD_AT_ONCE {
                let Some(report) = queue.next() else { break };
                let decided = self.decided(&report, sight.deciders);
                self.take(&report, decided, names);
            }
        }
    }

    /// Looks at as many connections as are due. What is written down since the last window began, if it ends now.
    pub fn look(&mut self, sight: &mut Sight<'_>) -> Option<Vec<FlowLog>> {
        self.sweep(sight);
        if !self.carried.is_empty() {
            let carried = self.carried.drain();
            let carried: Vec<_> = carried
                .map(|(counter, (packets, bytes))| (counter, packets, bytes))
                .collect();
            sight.deciders.credit(&carried);
        }
        let elapsed_ns = sight.now_ns.saturating_sub(self.window_ns);
        (elapsed_ns >= WINDOW.as_nanos() as u64).then(|| self.close(sight))
    }

    /// What is written down since the last window began, with all that connections carried until now.
    pub fn finish(&mut self, sight: &Sight<'_>) -> Vec<FlowLog> {
        if !self.tracked.is_empty() {
            self.hand = 0;
            self.walk(sight.table.numbers_end(), sight);
        }
        self.close(sight)
    }

    fn close(&mut self, sight: &Sight<'_>) -> Vec<FlowLog> {
        let elapsed_ns = sight.now_ns.saturating_sub(self.window_ns);
        self.window_ns = sight.now_ns;
        let start_ms = sight.wall_ms.saturating_sub(elapsed_ns / 1_000_000);
        self.aggregates.close(start_ms, sight.wall_ms)
    }

    fn decided(&mut self, report: &Report, deciders: &mut dyn Deciders) -> Arc<Decided> {
        let key = (report.stages, report.fate);
        if let Some(decided) = self.paths.get(&key) {
            return decided.clone();
        }
        if self.paths.len() >= PATHS_MAX {
            self.paths.clear();
        }
        let path = deciders.name(&report.stages, report.fate);
        let decided = Arc::new(Decided {
            verdict: Arc::new(path.verdict),
            pending: path.pending.map(Arc::new),
            counters: path.counters.into(),
        });
        self.paths.insert(key, decided.clone());
        decided
    }

    fn take(&mut self, report: &Report, decided: Arc<Decided>, names: &mut dyn FnMut(IpAddr) -> Arc<LogEnd>) {
        let packet = &report.packet;
        let key = Key {
            source: names(packet.source.ip()),
            target: names(packet.target.ip()),
            protocol: packet.protocol,
            port: packet.target.port,
            verdict: decided.verdict.clone(),
            pending: decided.pending.clone(),
        };
        let number = self.aggregates.number(key);
        let mut judged = [0; 4];
        let at = if report.is_reply { 2 } else { 0 };
        (judged[at], judged[at + 1]) = (1, u64::from(report.length));
        if let Some(sums) = self.aggregates.sums(number) {
            sums.add(&judged);
        }
        let identity = self.identity(report.vrf, &packet.source, &packet.target, packet.protocol);
        let allowed = report.fate == Fate::Allowed;
        if let Some(tracked) = self.tracked.get_mut(&identity) {
            (0..4).for_each(|i| tracked.seen[i] += judged[i]);
            if allowed && tracked.aggregate != number {
                self.aggregates.leave(tracked.aggregate);
                self.aggregates.join(number);
                tracked.aggregate = number;
            }
            if allowed {
                tracked.decided = decided;
            }
            return;
        }
        if !allowed {
            return;
        }
        if let Some(sums) = self.aggregates.sums(number) {
            sums.started += 1;
        }
        if self.tracked.len() < TRACKED_MAX {
            self.aggregates.join(number);
            let tracked = Tracked {
                aggregate: number,
                decided,
                number: NOBODY,
                round: self.round,
                seen: judged,
            };
            self.tracked.insert(identity, tracked);
        }
    }

    /// Looks at the connections that are due, and forgets those that are gone when a round is over.
    fn sweep(&mut self, sight: &Sight<'_>) {
        let end = sight.table.numbers_end();
        let elapsed_ns = sight.now_ns.saturating_sub(self.looked_ns).min(ROUND_NS);
        let due = (elapsed_ns * u64::from(end) / ROUND_NS) as u32;
        if due == 0 || self.tracked.is_empty() {
            self.looked_ns = sight.now_ns;
            return;
        }
        self.looked_ns = sight.now_ns;
        self.walk(end.min(self.hand.saturating_add(due)), sight);
        if self.hand == end {
            self.hand = 0;
            self.forget();
            self.round += 1;
        }
    }

    /// Looks at the connections up to a number.
    fn walk(&mut self, to: u32, sight: &Sight<'_>) {
        // Where none is left, the last may not be cleared away yet.
        if !sight.table.is_empty() {
            let here = sight.table.connections_from(self.hand);
            for connection in here.take_while(|connection| connection.id() / 2 < to) {
                self.see(&connection);
            }
        }
        self.hand = to;
    }

    fn see(&mut self, connection: &Connection<'_>) {
        let [there, back] = connection.keys();
        let (source, mut target) = (there.source(), back.source());
        if matches!(there.protocol(), 1 | 58) {
            target.port = 0;
        }
        let identity = self.identity(there.vrf(), &source, &target, there.protocol());
        let Some(tracked) = self.tracked.get_mut(&identity) else {
            return;
        };
        let [there, back] = [connection.there(), connection.back()];
        let now = [there.packets(), there.bytes(), back.packets(), back.bytes()];
        let number = connection.id() / 2;
        if tracked.number != number && tracked.number != NOBODY {
            // Another connection of the same ends.
            tracked.seen = [0; 4];
        }
        (tracked.number, tracked.round) = (number, self.round);
        let more: [u64; 4] = std::array::from_fn(|i| now[i].saturating_sub(tracked.seen[i]));
        // A packet may have been judged, and told, but not yet counted.
        tracked.seen = std::array::from_fn(|i| now[i].max(tracked.seen[i]));
        if more == [0; 4] {
            return;
        }
        if let Some(sums) = self.aggregates.sums(tracked.aggregate) {
            sums.add(&more);
        }
        for counter in &tracked.decided.counters {
            let (packets, bytes) = self.carried.entry(*counter).or_default();
            *packets += more[0] + more[2];
            *bytes += more[1] + more[3];
        }
    }

    /// Forgets the connections that a whole round has not seen.
    fn forget(&mut self) {
        let (round, aggregates) = (self.round, &mut self.aggregates);
        self.tracked.retain(|_, tracked| {
            let stays = tracked.round.saturating_add(1) >= round;
            if !stays {
                aggregates.leave(tracked.aggregate);
                if let Some(sums) = aggregates.sums(tracked.aggregate) {
                    sums.completed += 1;
                }
            }
            stays
        });
    }

    /// The same for a report and for the connection that it is about, and for nothing else.
    fn identity(&self, vrf: VrfId, source: &Endpoint, target: &Endpoint, protocol: u8) -> u64 {
        // Of ICMP, what stands in place of the target's port is the kind of message.
        let port = if matches!(protocol, 1 | 58) { 0 } else { target.port };
        self.hasher
            .hash_one((vrf.0, source.address, source.port, target.address, port, protocol))
    }
}

impl Sums {
    fn add(&mut self, more: &[u64; 4]) {
        (0..4).for_each(|i| self.carried[i] += more[i]);
    }
}
