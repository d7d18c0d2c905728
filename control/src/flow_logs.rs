//! Flow logs: who spoke with whom, what policy said of it, and what staged policy would have said, in windows of time.
//!
//! Workers report each packet that was judged; a [`Ledger`](ledger::Ledger) adds up what is alike, looks from time to time
//! at what the connections carried since, and closes a window every 15 seconds. What is closed is kept for a while, for
//! whoever asks or follows, and written to a file where one was named.

mod aggregates;
mod file;
mod ledger;
mod names;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use classifier::report::Reports;
use nat::table::Table;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::Plan;
pub use file::{FileLog, Limits};
pub use ledger::{Deciders, Path as DecidedPath};
use ledger::{Ledger, Sight};
use names::Names;
pub(crate) use names::workload_name;

/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(15);
/// Logs that are kept: an hour of 68 a window.
pub const KEPT_MAX: usize = 1 << 14;

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct LogEnd {
    /// What it is.
    pub kind: EndKind,
    /// Its name, behind its namespace where it has one; none of an address that nothing is known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address; none of a set, which has many, and of what was added up because there was too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndKind {
    /// A WorkloadEndpoint.
    Workload,
    /// A HostEndpoint.
    Host,
    /// A NetworkSet.
    Set,
    /// A GlobalNetworkSet.
    GlobalSet,
    /// An address of none of these.
    Address,
    /// Anybody: beyond so many different flows in one window the rest is added up.
    Other,
}

/// What decided, of one end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LogPolicy {
    /// `egress` of who sends, or `ingress` of who gets it.
    pub direction: String,
    /// The tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The policy or profile, by kind and name; none where a tier's end decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The rule, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// `allow`, `deny`, or `pass` where it left the decision to others.
    pub action: String,
}

/// What is said of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LogVerdict {
    /// `allow` or `deny`.
    pub action: String,
    /// What decided, in order.
    pub policies: Vec<LogPolicy>,
    /// Why, where no policy was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Flows that are alike, in one window of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLog {
    /// When the window began, in milliseconds since 1970.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: u64,
    /// Who opened them.
    pub source: LogEnd,
    /// Whom they were opened to, behind a service: its backend.
    pub target: LogEnd,
    /// The protocol's name, such as `tcp`, or its number.
    pub protocol: String,
    /// The target's port; none where the protocol has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Type and code of ICMP, such as `8/0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<String>,
    /// What became of them.
    pub verdict: LogVerdict,
    /// What would have, with staged policies in force; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<LogVerdict>,
    /// Connections that were opened.
    pub started: u64,
    /// Connections that are gone.
    pub completed: u64,
    /// Packets from the source, denied ones too.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets to the source.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

/// What is known of flows, and what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLogsView {
    /// Judgements that control was too slow for: their flows may be missing.
    pub lost: u64,
    /// Windows that did not get into the file.
    pub unwritten: u64,
    /// Why the last one did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_error: Option<String>,
    /// The windows that are kept, oldest first.
    pub logs: Vec<FlowLog>,
}

/// The flow logs of a plane.
pub struct FlowLogs {
    /// What workers tell.
    reports: Vec<Arc<Reports>>,
    names: Mutex<Names>,
    ledger: Mutex<Ledger>,
    kept: Mutex<Kept>,
    file: Mutex<Option<FileLog>>,
    table: Arc<Table>,
}

/// Closed windows, the last ones.
#[derive(Default)]
struct Kept {
    logs: VecDeque<Arc<FlowLog>>,
    /// The number of the first that is kept.
    first: u64,
}

/// Logs from a number on, and the number to go on with.
pub struct Page {
    /// The logs.
    pub logs: Vec<Arc<FlowLog>>,
    /// The number of the next.
    pub next: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FlowLogs {
    /// Of connections in `table`, of which workers tell by `reports`.
    pub fn new(table: Arc<Table>, reports: Vec<Arc<Reports>>) -> Self {
        Self {
            reports,
            names: Mutex::default(),
            ledger: Mutex::default(),
            kept: Mutex::default(),
            file: Mutex::default(),
            table,
        }
    }

    /// Learns and forgets names.
    pub fn learn(&self, plan: &Plan) {
        lock(&self.names).learn(plan);
    }

    /// Writes what is closed from now on to a file, too.
    ///
    /// # Errors
    /// The file cannot be written, or there is no thread to be had.
    pub fn write_to(&self, path: &Path, limits: Limits) -> io::Result<()> {
        *lock(&self.file) = Some(FileLog::open(path, limits)?);
        Ok(())
    }

    /// Does what is to be done at a time of the plane's clock, which is `wall_ms` since 1970. Not for workers.
    pub fn turn(&self, now_ns: u64, wall_ms: u64, deciders: &mut dyn Deciders) {
        let mut ledger = lock(&self.ledger);
        let mut sight = Sight {
            now_ns,
            wall_ms,
            table: &self.table,
            deciders,
        };
        // Names are not held while others are asked: who applies resources holds what those need.
        ledger.hear(&self.reports, &mut |address| lock(&self.names).of(address), &mut sight);
        let Some(closed) = ledger.look(&mut sight) else { return };
        drop(ledger);
        self.keep(closed);
    }

    /// As [`FlowLogs::turn`] when it is over: closes the window that has begun, and waits until the file has it.
    pub fn finish(&self, now_ns: u64, wall_ms: u64, deciders: &mut dyn Deciders) {
        let mut ledger = lock(&self.ledger);
        let mut sight = Sight {
            now_ns,
            wall_ms,
            table: &self.table,
            deciders,
        };
        ledger.hear(&self.reports, &mut |address| lock(&self.names).of(address), &mut sight);
        let closed = ledger.finish(&sight);
        drop(ledger);
        self.keep(closed);
        *lock(&self.file) = None;
    }

    fn keep(&self, closed: Vec<FlowLog>) {
        let closed: Vec<_> = closed.into_iter().map(Arc::new).collect();
        if let Some(file) = &*lock(&self.file) {
            file.write(&closed);
        }
        lock(&self.kept).add(closed);
    }

    /// The logs that are kept, from number `from` on.
    pub fn page(&self, from: u64) -> Page {
        let kept = lock(&self.kept);
        let skipped = from.saturating_sub(kept.first) as usize;
        Page {
            logs: kept.logs.iter().skip(skipped).cloned().collect(),
            next: kept.first + kept.logs.len() as u64,
        }
    }

    /// Judgements that were not heard, for there were too many at once.
    pub fn lost(&self) -> u64 {
        self.reports.iter().map(|reports| reports.lost()).sum()
    }

    /// Windows that did not get into the file, and why the last one did not.
    pub fn unwritten(&self) -> (u64, Option<String>) {
        lock(&self.file).as_ref().map(FileLog::failures).unwrap_or_default()
    }

    /// All that is kept.
    pub fn view(&self) -> FlowLogsView {
        let (unwritten, file_error) = self.unwritten();
        FlowLogsView {
            lost: self.lost(),
            unwritten,
            file_error,
            logs: self.page(0).logs.iter().map(|log| (**log).clone()).collect(),
        }
    }
}

impl Kept {
    fn add(&mut self, logs: Vec<Arc<FlowLog>>) {
        self.logs.extend(logs);
        let over = self.logs.len().saturating_sub(KEPT_MAX);
        self.logs.drain(..over);
        self.first += over as u64;
    }
}
