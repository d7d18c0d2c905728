//! What `margay show` shows: one file per view, with its fields and how it looks as a table.
//!
//! A view is one file, one line in the list below, and one method of [`Plane`].

pub mod drops;
pub mod explain;
pub mod flow_logs;
pub mod flows;
pub mod graph;
pub mod memory;
pub mod neighbors;
pub mod policies;
pub mod ports;
pub mod routes;
pub mod runtime;
pub mod services;
pub mod table;
pub mod trace;
pub mod wireguard;
pub mod workers;

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Plane;

/// Makes the enums over all views from the one list of them.
macro_rules! views {
    ($($(#[$doc:meta])* $view:ident, $name:literal, $content:ty, $method:ident, $table:path;)*) => {
        /// The views of the plane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
        pub enum View {
            $($(#[$doc])* #[value(name = $name)] $view,)*
        }

        impl View {
            /// All views.
            pub const ALL: &'static [View] = &[$(View::$view),*];

            /// The name on the command line and in the socket's path.
            pub fn name(self) -> &'static str {
                match self { $(View::$view => $name,)* }
            }

            /// What the view shows now.
            pub fn look(self, plane: &dyn Plane) -> Shown {
                match self { $(View::$view => Shown::$view(plane.$method()),)* }
            }

            /// The table for the JSON of this view.
            pub fn table(self, json: &[u8]) -> Result<String, serde_json::Error> {
                Ok(match self { $(View::$view => $table(&serde_json::from_slice::<$content>(json)?),)* })
            }
        }

        /// The content of a view.
        #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
        #[serde(untagged)]
        pub enum Shown {
            $($(#[$doc])* $view($content),)*
        }
    };
}

views! {
    /// Ports, their state and counters.
    Ports, "ports", Vec<ports::PortView>, ports, ports::table;
    /// Routes: connected, local, static and of tunnels.
    Routes, "routes", Vec<routes::RouteView>, routes, routes::table;
    /// Neighbours, given and resolved.
    Neighbors, "neighbors", Vec<neighbors::NeighborView>, neighbors, neighbors::table;
    /// Calls, vectors, packets and cycles of each node, by worker.
    Runtime, "runtime", runtime::RuntimeView, runtime, runtime::table;
    /// Dropped packets, by node and reason.
    Drops, "drops", Vec<drops::DropView>, drops, drops::table;
    /// The picture of the graph.
    Graph, "graph", graph::GraphView, graph, graph::table;
    /// Workers, their cores and load.
    Workers, "workers", Vec<workers::WorkerView>, workers, workers::table;
    /// Connections, the largest first.
    Flows, "flows", flows::FlowsView, flows, flows::table;
    /// Who spoke with whom, and what policy said of it.
    FlowLogs, "flow-logs", crate::flow_logs::FlowLogsView, flow_log, flow_logs::table;
    /// Tunnels and their peers.
    Wireguard, "wireguard", Vec<wireguard::WireguardView>, wireguard, wireguard::table;
    /// Services, and the share of each of their backends.
    Services, "services", Vec<services::ServiceView>, services, services::table;
    /// Policies and profiles.
    Policies, "policies", Vec<policies::PolicyView>, policies, policies::table;
    /// Memory set aside and used.
    Memory, "memory", Vec<memory::MemoryView>, memory, memory::table;
}

impl View {
    /// The view of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|view| view.name() == name)
    }

    /// All names as a person would list them.
    pub fn list() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|view| view.name()).collect();
        names.join(", ")
    }
}

impl fmt::Display for View {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
