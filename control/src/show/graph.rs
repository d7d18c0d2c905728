//! `show graph`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The picture of the graph, in two languages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphView {
    /// As text.
    pub text: String,
    /// For Graphviz: `margay show graph -o json | jq -r .dot | dot -Tsvg`.
    pub dot: String,
}

/// The view as text.
pub fn table(graph: &GraphView) -> String {
    let mut text = graph.text.trim_end().to_owned();
    text.push('\n');
    text
}
