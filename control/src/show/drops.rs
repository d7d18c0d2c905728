//! `show drops`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, number};

/// Packets dropped by one node for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DropView {
    /// The node that dropped them.
    pub node: String,
    /// The name of the reason.
    pub reason: String,
    /// The reason in a sentence.
    pub sentence: String,
    /// How many.
    pub packets: u64,
    /// The name of the Port they came in by, where that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// The view as text.
pub fn table(drops: &Vec<DropView>) -> String {
    if drops.is_empty() {
        return "no packet was dropped\n".to_owned();
    }
    let mut table = Table::new(&[">PACKETS", "NODE", "REASON", "PORT", "SENTENCE"]);
    for drop in drops {
        table.row([
            number(drop.packets).into(),
            drop.node.as_str().into(),
            drop.reason.as_str().into(),
            drop.port.as_deref().unwrap_or("-").into(),
            drop.sentence.as_str().into(),
        ]);
    }
    table.to_string()
}
