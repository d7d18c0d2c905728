//! `show workers`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, number};

/// A worker and its load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its number, from zero.
    pub worker: usize,
    /// The core it is pinned to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    /// What it is doing, such as `busy` or `asleep`.
    pub state: String,
    /// The queues it owns, as `PORT/QUEUE`.
    pub queues: Vec<String>,
    /// The share of its time in which it had packets.
    pub load_percent: f64,
    /// Turns it ran.
    pub turns: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
}

/// The view as text.
pub fn table(workers: &Vec<WorkerView>) -> String {
    let mut table = Table::new(&[">WORKER", ">CORE", "STATE", ">LOAD", ">TURNS", ">SLEEPS", "QUEUES"]);
    for worker in workers {
        table.row([
            worker.worker.into(),
            worker
                .core
                .map_or_else(|| "-".to_owned(), |core| core.to_string())
                .into(),
            worker.state.as_str().into(),
            format!("{:.1} %", worker.load_percent).into(),
            number(worker.turns).into(),
            number(worker.sleeps).into(),
            worker.queues.join(", ").into(),
        ]);
    }
    table.to_string()
}
