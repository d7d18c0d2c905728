//! `show runtime`: who does how much, and what it costs; after VPP's command of that name.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, heading, number};

/// What the workers have done since counting began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeView {
    /// Seconds since counting began.
    pub elapsed_s: f64,
    /// Each worker.
    pub workers: Vec<WorkerRuntime>,
}

/// What one worker has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerRuntime {
    /// Its number, from zero.
    pub worker: usize,
    /// The core it is pinned to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    /// How it passes the time without packets.
    pub idle: Idle,
    /// The share of its time in which it had packets.
    pub load_percent: f64,
    /// Turns it ran.
    pub turns: u64,
    /// Each node, in the order in which a turn runs them.
    pub nodes: Vec<NodeRuntime>,
}

/// How a worker passes the time without packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// It polls on.
    Spin,
    /// It polls while busy and sleeps on the sockets when idle.
    #[default]
    Adaptive,
}

/// What one node of one worker has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeRuntime {
    /// Its name.
    pub name: String,
    /// Times it was called.
    pub calls: u64,
    /// Calls that had packets.
    pub vectors: u64,
    /// Packets it saw.
    pub packets: u64,
    /// Packets in a vector, on average.
    pub packets_per_vector: f64,
    /// Cycles of the time-stamp counter it spent on a packet, on average.
    pub cycles_per_packet: f64,
}

/// The view as text.
pub fn table(runtime: &RuntimeView) -> String {
    let mut text = format!("Time {:.1} s\n", runtime.elapsed_s);
    for worker in &runtime.workers {
        let core = worker
            .core
            .map_or_else(|| "not pinned".to_owned(), |core| format!("core {core}"));
        let idle = match worker.idle {
            Idle::Spin => "spins when idle",
            Idle::Adaptive => "sleeps when idle",
        };
        let turns = number(worker.turns);
        let line = format!(
            "Worker {} ({core}, {idle}): load {:.1} %, {turns} turns",
            worker.worker, worker.load_percent
        );
        let _ = write!(text, "\n{}{}", heading(line), nodes(&worker.nodes));
    }
    text
}

fn nodes(nodes: &[NodeRuntime]) -> Table {
    let mut table = Table::new(&[
        "NODE",
        ">CALLS",
        ">VECTORS",
        ">PACKETS",
        ">PACKETS/VECTOR",
        ">CYCLES/PACKET",
    ]);
    for node in nodes {
        table.row([
            node.name.as_str().into(),
            number(node.calls).into(),
            number(node.vectors).into(),
            number(node.packets).into(),
            format!("{:.1}", node.packets_per_vector).into(),
            format!("{:.1}", node.cycles_per_packet).into(),
        ]);
    }
    table
}
