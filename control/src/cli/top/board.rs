//! What is shown: what changed between two looks, a second.

use std::time::Instant;

use serde::de::DeserializeOwned;

use super::super::client::Client;
use super::super::{Error, output};
use crate::show::drops::DropView;
use crate::show::flows::FlowsView;
use crate::show::ports::{PortState, PortView};
use crate::show::workers::WorkerView;

/// One look at the data plane.
pub(super) struct Sample {
    pub at: Instant,
    pub ports: Vec<PortView>,
    pub workers: Vec<WorkerView>,
    pub drops: Vec<DropView>,
    pub flows: (u64, u64),
}

impl Sample {
    /// Asks for everything.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn take(client: &Client) -> Result<Sample, Error> {
        let flows: FlowsView = view(client, "flows")?;
        Ok(Sample {
            at: Instant::now(),
            ports: view(client, "ports")?,
            workers: view(client, "workers")?,
            drops: view(client, "drops")?,
            flows: (flows.live, flows.capacity),
        })
    }
}

fn view<T: DeserializeOwned>(client: &Client, name: &str) -> Result<T, Error> {
    serde_json::from_value(client.get(&format!("/v1/show/{name}"))?).map_err(output::odd)
}

/// A port: its rates a second.
pub(super) struct PortRow {
    pub name: String,
    pub is_up: bool,
    pub rx_packets: f64,
    pub rx_bits: f64,
    pub tx_packets: f64,
    pub tx_bits: f64,
    pub drops: f64,
}

/// A reason for drops.
pub(super) struct DropRow {
    pub name: String,
    pub sentence: String,
    pub rate: f64,
    pub total: u64,
}

/// Everything on the screen.
pub(super) struct Board {
    pub ports: Vec<PortRow>,
    pub workers: Vec<WorkerView>,
    /// Those that drop most at the moment first.
    pub drops: Vec<DropRow>,
    pub flows: (u64, u64),
    pub paused: bool,
    /// Why the figures are old.
    pub trouble: Option<String>,
}

impl Board {
    /// What went on from one look to the next.
    pub fn between(before: &Sample, now: &Sample) -> Board {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        // A counter that went back belongs to a data plane that was started anew.
        let rate = |now: u64, before: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        let port = |port: &PortView| {
            let old = before.ports.iter().find(|old| old.name == port.name).unwrap_or(port);
            PortRow {
                name: port.name.clone(),
                is_up: port.state == PortState::Up,
                rx_packets: rate(port.rx_packets, old.rx_packets),
                rx_bits: 8.0 * rate(port.rx_bytes, old.rx_bytes),
                tx_packets: rate(port.tx_packets, old.tx_packets),
                tx_bits: 8.0 * rate(port.tx_bytes, old.tx_bytes),
                drops: rate(port.drops, old.drops),
            }
        };
        let dropped = |drop: &DropView| {
            let is_same =
                |old: &&DropView| (&old.node, &old.reason, &old.port) == (&drop.node, &drop.reason, &drop.port);
            let old = before.drops.iter().find(is_same).map_or(0, |old| old.packets);
            DropRow {
                name: format!("{}/{}", drop.node, drop.reason),
                sentence: drop.sentence.clone(),
                rate: rate(drop.packets, old),
                total: drop.packets,
            }
        };
        let mut drops: Vec<DropRow> = now.drops.iter().filter(|drop| drop.packets > 0).map(dropped).collect();
        drops.sort_by(|one, other| other.rate.total_cmp(&one.rate).then(other.total.cmp(&one.total)));
        Board {
            ports: now.ports.iter().map(port).collect(),
            workers: now.workers.clone(),
            drops,
            flows: now.flows,
            paused: false,
            trouble: None,
        }
    }
}
