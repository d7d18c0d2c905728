//! `show memory`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, bytes, number};

/// Memory set aside for one purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryView {
    /// What it holds, such as `frames` or `routes`.
    pub what: String,
    /// How many of them it can hold.
    pub capacity: u64,
    /// How many of them it holds.
    pub used: u64,
    /// Bytes set aside.
    pub bytes: u64,
}

/// The view as text.
pub fn table(memory: &Vec<MemoryView>) -> String {
    let mut table = Table::new(&["WHAT", ">USED", ">CAPACITY", ">FULL", ">MEMORY"]);
    for part in memory {
        let percent = if part.capacity == 0 {
            0.0
        } else {
            part.used as f64 * 100.0 / part.capacity as f64
        };
        table.row([
            part.what.as_str().into(),
            number(part.used).into(),
            number(part.capacity).into(),
            format!("{percent:.1} %").into(),
            bytes(part.bytes).into(),
        ]);
    }
    let total = memory.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
    table.row(["total".into(), "".into(), "".into(), "".into(), bytes(total).into()]);
    table.to_string()
}
