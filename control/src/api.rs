//! Where the server and the plane meet.

use std::sync::Arc;

use crate::capture::{CaptureRequest, Capturing};
use crate::connections::{Connections, Filter, Served, Sort};
use crate::flow_logs::{FlowLogs, FlowLogsView};
use crate::program::policy::Question;
use crate::refusal::Refusal;
use crate::show::drops::DropView;
use crate::show::explain::ExplainView;
use crate::show::flows::FlowsView;
use crate::show::graph::GraphView;
use crate::show::memory::MemoryView;
use crate::show::neighbors::NeighborView;
use crate::show::policies::PolicyView;
use crate::show::ports::PortView;
use crate::show::routes::RouteView;
use crate::show::runtime::RuntimeView;
use crate::show::services::ServiceView;
use crate::show::trace::TracedPacket;
use crate::show::wireguard::WireguardView;
use crate::show::workers::WorkerView;
use crate::store::Plan;

/// The most packets one request traces.
pub const TRACE_MAX: u32 = 1000;

/// The data plane as the socket sees it. Calls may block; the server makes them where that holds up nobody.
pub trait Plane: Send + Sync + 'static {
    /// Carries a plan out, wholly or not at all. Calls come one at a time, each against the result of the last that
    /// succeeded.
    fn apply(&self, plan: &Plan) -> Result<(), Refusal>;

    /// Every port and its counters.
    fn ports(&self) -> Vec<PortView>;

    /// Every route, also those that follow from addresses.
    fn routes(&self) -> Vec<RouteView>;

    /// Every neighbour, given or resolved.
    fn neighbors(&self) -> Vec<NeighborView>;

    /// What each node of each worker has done.
    fn runtime(&self) -> RuntimeView;

    /// Every reason for which packets were dropped.
    fn drops(&self) -> Vec<DropView>;

    /// The picture of the graph.
    fn graph(&self) -> GraphView;

    /// What each worker is doing.
    fn workers(&self) -> Vec<WorkerView>;

    /// The connections, to look at beside the workers.
    fn connections(&self) -> Connections;

    /// The largest connections.
    fn flows(&self) -> FlowsView {
        self.connections().first(&Filter::default(), Sort::default())
    }

    /// The flow logs, to look at beside the workers.
    fn flow_logs(&self) -> Arc<FlowLogs>;

    /// The flow logs that are kept.
    fn flow_log(&self) -> FlowLogsView {
        self.flow_logs().view()
    }

    /// Every tunnel and its peers.
    fn wireguard(&self) -> Vec<WireguardView>;

    /// Every service that leads anywhere, and its backends.
    fn services(&self) -> Vec<ServiceView>;

    /// Every service with what its backends were given, to be counted beside the workers.
    fn served(&self) -> Served;

    /// Every policy and profile.
    fn policies(&self) -> Vec<PolicyView>;

    /// What becomes of a packet, and which policies decide.
    fn explain(&self, question: &Question) -> Result<ExplainView, Refusal>;

    /// What memory is set aside, and how much of it is used.
    fn memory(&self) -> Vec<MemoryView>;

    /// Traces the next `count` packets that `filter` (a pcap-filter expression, empty for every packet) matches.
    fn trace_add(&self, count: u32, filter: &str) -> Result<(), Refusal>;

    /// The packets traced so far, oldest first.
    fn trace_show(&self) -> Vec<TracedPacket>;

    /// Forgets the packets traced and stops tracing.
    fn trace_clear(&self);

    /// Captures packets, until what is returned is dropped.
    fn capture(&self, request: &CaptureRequest) -> Result<Capturing, Refusal>;

    /// Whether every port asked for at start is up.
    fn ready(&self) -> bool;
}
