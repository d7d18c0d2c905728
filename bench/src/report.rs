//! What benchmarks found, a line each, until the report is written of it.

use crate::spread::Spread;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The table it stands in.
    pub table: String,
    /// What was done.
    pub scenario: String,
    /// What was measured, with its unit.
    pub measure: String,
    /// The figure.
    pub value: Spread,
}

/// Where the rows wait: beside what was built.
pub fn rows_file() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    target.join("bench-rows.jsonl")
}

/// Prints a figure, and adds it to what the report is written of.
pub fn record(table: &str, scenario: &str, measure: &str, value: Spread) {
    println!("{table}: {scenario}: {measure}: {value}");
    let row = Row {
        table: table.to_owned(),
        scenario: scenario.to_owned(),
        measure: measure.to_owned(),
        value,
    };
    let written = serde_json::to_string(&row)
        .map_err(std::io::Error::from)
        .and_then(|line| {
            let mut file = OpenOptions::new().create(true).append(true).open(rows_file())?;
            writeln!(file, "{line}")
        });
    if let Err(error) = written {
        eprintln!(
            "{}: {error}; the figure will be missing in the report",
            rows_file().display()
        );
    }
}
