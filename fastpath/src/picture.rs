//! Pictures of the graph, for people (text) and for Graphviz.

use crate::builder::{Kind, StageInfo};
use std::fmt::Write;

/// A line a stage, in the order they run; under it a line an edge.
pub fn text(stages: &[StageInfo]) -> String {
    let width = stages
        .iter()
        .flat_map(|stage| &stage.edges)
        .map(|edge| edge.0.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for stage in stages {
        let _ = match stage.kind {
            Kind::Source => writeln!(out, "{} >", stage.name),
            Kind::Node => writeln!(out, "{}", stage.name),
            Kind::Sink => writeln!(out, "> {}", stage.name),
        };
        for (index, (edge, target)) in stage.edges.iter().enumerate() {
            let branch = if index + 1 == stage.edges.len() { "`-" } else { "|-" };
            let line = "-".repeat(width - edge.len() + 1);
            let space = if edge.is_empty() { "-" } else { " " };
            let _ = writeln!(out, "  {branch}{space}{edge}{space}{line}> {}", stages[*target].name);
        }
    }
    out
}

/// The same for `dot`.
pub fn dot(stages: &[StageInfo]) -> String {
    let mut out = String::from("digraph margay {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    for stage in stages {
        let shape = match stage.kind {
            Kind::Source => "cds",
            Kind::Node => "box",
            Kind::Sink => "house",
        };
        let _ = writeln!(out, "  \"{}\" [shape={shape}];", stage.name);
    }
    for stage in stages {
        for (edge, target) in &stage.edges {
            let _ = writeln!(
                out,
                "  \"{}\" -> \"{}\" [label=\"{edge}\"];",
                stage.name, stages[*target].name
            );
        }
    }
    out.push_str("}\n");
    out
}
