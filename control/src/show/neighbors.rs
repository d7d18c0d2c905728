//! `show neighbors`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Cell, Table, number};

/// An on-link host as the plane knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NeighborView {
    /// Its IP address.
    pub address: String,
    /// The name of the Port whose link it is on.
    pub port: String,
    /// Its Ethernet address, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// What is known of it.
    pub state: NeighborState,
    /// Seconds since it last said where it is; none for a permanent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
}

/// What is known of a neighbour (as RFC 4861 section 7.3.2 has it, for both families).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NeighborState {
    /// Given by a resource.
    Permanent,
    /// It answered lately.
    Reachable,
    /// It answered a while ago.
    Stale,
    /// It was asked and has not answered yet.
    Incomplete,
    /// It was asked and did not answer.
    Failed,
}

/// The view as text.
pub fn table(neighbors: &Vec<NeighborView>) -> String {
    if neighbors.is_empty() {
        return "no neighbours yet; they are resolved when packets are to go to them\n".to_owned();
    }
    let mut table = Table::new(&["ADDRESS", "PORT", "MAC", "STATE", ">AGE"]);
    for neighbor in neighbors {
        table.row([
            neighbor.address.as_str().into(),
            neighbor.port.as_str().into(),
            neighbor.mac.as_deref().unwrap_or("-").into(),
            state(neighbor.state),
            neighbor
                .age_s
                .map_or_else(|| "-".to_owned(), |age_s| format!("{} s", number(age_s)))
                .into(),
        ]);
    }
    table.to_string()
}

fn state(state: NeighborState) -> Cell {
    match state {
        NeighborState::Permanent => Cell::good("permanent"),
        NeighborState::Reachable => Cell::good("reachable"),
        NeighborState::Stale => "stale".into(),
        NeighborState::Incomplete => "incomplete".into(),
        NeighborState::Failed => Cell::bad("failed"),
    }
}
