//! What the plane tells of itself.

use std::collections::HashMap;
use std::sync::Arc;

use fastpath::builder::StageInfo;
use fastpath::counters::Counters;
use fastpath::forwarding::{ADJACENCIES, PATHS};
use fastpath::neighbours::{NEIGHBOURS_MAX, State as Known};
use fastpath::picture;
use fastpath::port::QueueCounters;
use fastpath::rib::{Origin, Target};
use fastpath::worker;

use super::ports::Port;
use super::{DataPlane, State};
use crate::api::Plane;
use crate::capture::{CaptureRequest, Capturing};
use crate::connections::{Connections, Served};
use crate::flow_logs::FlowLogs;
use crate::program::policy::Question;
use crate::refusal::Refusal;
use crate::show::drops::DropView;
use crate::show::explain::ExplainView;
use crate::show::graph::GraphView;
use crate::show::memory::MemoryView;
use crate::show::neighbors::{NeighborState, NeighborView};
use crate::show::policies::PolicyView;
use crate::show::ports::{PortState, PortView, SocketView};
use crate::show::routes::{HopView, RouteAction, RouteOrigin, RouteView};
use crate::show::runtime::{Idle, NodeRuntime, RuntimeView, WorkerRuntime};
use crate::show::services::ServiceView;
use crate::show::trace::TracedPacket;
use crate::show::wireguard::WireguardView;
use crate::show::workers::WorkerView;
use crate::store::Plan;

/// The views, as the socket gives them.
pub struct Views<'a>(pub(super) &'a mut State);

impl Plane for DataPlane {
    fn apply(&self, plan: &Plan) -> Result<(), Refusal> {
        self.shared.lock().apply(plan)
    }

    fn ports(&self) -> Vec<PortView> {
        Views(&mut self.shared.lock()).ports()
    }

    fn routes(&self) -> Vec<RouteView> {
        Views(&mut self.shared.lock()).routes()
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        Views(&mut self.shared.lock()).neighbors()
    }

    fn runtime(&self) -> RuntimeView {
        Views(&mut self.shared.lock()).runtime()
    }

    fn drops(&self) -> Vec<DropView> {
        Views(&mut self.shared.lock()).drops()
    }

    fn graph(&self) -> GraphView {
        Views(&mut self.shared.lock()).graph()
    }

    fn workers(&self) -> Vec<WorkerView> {
        Views(&mut self.shared.lock()).workers()
    }

    fn connections(&self) -> Connections {
        Views(&mut self.shared.lock()).connections()
    }

    fn flow_logs(&self) -> Arc<FlowLogs> {
        self.shared.lock().flow_logs.clone()
    }

    fn wireguard(&self) -> Vec<WireguardView> {
        Views(&mut self.shared.lock()).wireguard()
    }

    fn services(&self) -> Vec<ServiceView> {
        Views(&mut self.shared.lock()).services()
    }

    fn served(&self) -> Served {
        Views(&mut self.shared.lock()).served()
    }

    fn policies(&self) -> Vec<PolicyView> {
        Views(&mut self.shared.lock()).policies()
    }

    fn explain(&self, question: &Question) -> Result<ExplainView, Refusal> {
        Views(&mut self.shared.lock()).explain(question)
    }

    fn memory(&self) -> Vec<MemoryView> {
        Views(&mut self.shared.lock()).memory()
    }

    fn trace_add(&self, count: u32, filter: &str) -> Result<(), Refusal> {
        Views(&mut self.shared.lock()).trace_add(count, filter)
    }

    fn trace_show(&self) -> Vec<TracedPacket> {
        Views(&mut self.shared.lock()).trace_show()
    }

    fn trace_clear(&self) {
        Views(&mut self.shared.lock()).trace_clear();
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Capturing, Refusal> {
        let shared = self.shared.clone();
        let disarm = move || shared.lock().disarm_capture();
        self.shared.lock().arm_capture(request, disarm)
    }

    fn ready(&self) -> bool {
        self.shared.ready.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// `02:00:00:00:00:01`.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn sum(port: &Port, counter: impl Fn(&QueueCounters) -> u64) -> u64 {
    port.counters.iter().map(|(_, counters)| counter(counters)).sum()
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn load_percent(counters: &worker::WorkerCounters) -> f64 {
    100.0 * ratio(counters.busy_cycles.read(), counters.cycles.read())
}

impl Views<'_> {
    /// See [`Plane::ports`].
    pub fn ports(&self) -> Vec<PortView> {
        self.0.workers.sample();
        let mut ports: Vec<PortView> = self.0.ports.iter().map(|port| port_view(self.0, port)).collect();
        ports.sort_by(|one, other| one.name.cmp(&other.name));
        ports
    }

    /// See [`Plane::routes`]. Routes to single neighbours are left to [`Self::neighbors`].
    pub fn routes(&self) -> Vec<RouteView> {
        let state = &*self.0;
        let vrf_names: HashMap<_, _> = state.vrfs.iter().map(|(name, id)| (*id, name.clone())).collect();
        let mut written: HashMap<_, _> = HashMap::new();
        for (name, route) in &state.routes {
            let spec = &route.body.spec;
            written.insert((state.vrf(&spec.vrf), spec.destination), name.clone());
        }
        let mut routes = vec![];
        for (vrf, net, origin, target) in state.rib.iter() {
            if origin == Origin::Neighbour || target == Target::Broadcast {
                continue;
            }
            let owner = state
                .ports
                .iter()
                .find(|port| port.spec.addresses.iter().any(|own| own.contains(&net)));
            let name = match origin {
                Origin::Static => written.get(&(vrf, net)).cloned(),
                Origin::Allowed => state.allowed.get(&(vrf, net)).map(|port| state.ports.name_of(*port)),
                Origin::Kernel => state.learnt_from(vrf, net),
                _ => owner.map(|port| port.name.clone()),
            };
            let hop = |gateway: Option<String>, port, weight| HopView {
                gateway,
                port: state.ports.name_of(port),
                weight,
            };
            let (action, via) = match &target {
                Target::Local => (RouteAction::Local, vec![]),
                Target::OnLink(port) | Target::Tunnel(port) => (RouteAction::Forward, vec![hop(None, *port, 1)]),
                Target::Drop | Target::Broadcast => (RouteAction::Drop, vec![]),
                Target::Table(_) => (RouteAction::Table, vec![]),
                Target::Hops(hops) => {
                    let via = hops
                        .iter()
                        .map(|one| hop(Some(one.address.to_string()), one.port, one.weight));
                    (RouteAction::Forward, via.collect())
                }
            };
            let table = match &target {
                Target::Table(vrf) => vrf_names.get(vrf).cloned(),
                _ => None,
            };
            let origin = match (origin, &target) {
                (Origin::Static, _) => RouteOrigin::Static,
                (Origin::Allowed, _) => RouteOrigin::Allowed,
                (Origin::Kernel, _) => RouteOrigin::Kernel,
                (_, Target::Local) => RouteOrigin::Local,
                _ => RouteOrigin::Connected,
            };
            let vrf_name = vrf_names.get(&vrf).cloned().unwrap_or_default();
            let view = RouteView {
                destination: net.to_string(),
                vrf: vrf_name,
                origin,
                name: name.unwrap_or_default(),
                via,
                action,
                table,
            };
            routes.push(((vrf, net), view));
        }
        routes.sort_by_key(|route| route.0);
        routes.into_iter().map(|route| route.1).collect()
    }

    /// See [`Plane::neighbors`].
    pub fn neighbors(&self) -> Vec<NeighborView> {
        let state = &*self.0;
        let now_ns = state.now_ns();
        let mut all: Vec<_> = state.neighbours.iter().collect();
        all.sort_by_key(|neighbour| neighbour.0);
        let view = |((port, address), known, since_ns): ((fastpath::meta::PortId, std::net::IpAddr), Known, u64)| {
            let (state_name, mac) = match known {
                Known::Permanent(mac) => (NeighborState::Permanent, Some(mac)),
                Known::Reachable(mac) => (NeighborState::Reachable, Some(mac)),
                Known::Unused(mac) | Known::Stale(mac) => (NeighborState::Stale, Some(mac)),
                Known::Incomplete => (NeighborState::Incomplete, None),
                Known::Failed => (NeighborState::Failed, None),
            };
            NeighborView {
                address: address.to_string(),
                port: state.ports.name_of(port),
                mac: mac.map(mac_text),
                state: state_name,
                age_s: (state_name != NeighborState::Permanent)
                    .then_some(now_ns.saturating_sub(since_ns) / 1_000_000_000),
            }
        };
        all.into_iter().map(view).collect()
    }

    /// See [`Plane::runtime`].
    pub fn runtime(&self) -> RuntimeView {
        let workers = self.0.workers.handles.iter().enumerate().map(|(number, handle)| {
            let nodes = handle.stages.iter().zip(&handle.stage_counters);
            WorkerRuntime {
                worker: number,
                core: handle.core,
                idle: match self.0.workers.idle {
                    worker::Idle::Spin => Idle::Spin,
                    worker::Idle::Adaptive => Idle::Adaptive,
                },
                load_percent: load_percent(handle.counters()),
                turns: handle.counters().turns.read(),
                nodes: nodes.map(|(stage, counters)| node_runtime(stage, counters)).collect(),
            }
        });
        RuntimeView {
            elapsed_s: self.0.now_ns() as f64 / 1e9,
            workers: workers.collect(),
        }
    }

    /// See [`Plane::drops`]: reasons that occurred, and errors that senders were told of.
    pub fn drops(&self) -> Vec<DropView> {
        let Some(first) = self.0.workers.handles.first() else {
            return vec![];
        };
        let mut drops = vec![];
        for (at, stage) in first.stages.iter().enumerate() {
            let total = |read: &dyn Fn(&Counters) -> u64| -> u64 {
                self.0
                    .workers
                    .handles
                    .iter()
                    .map(|handle| read(&handle.stage_counters[at]))
                    .sum()
            };
            let mut add = |reason: &str, sentence: &str, packets: u64| {
                if packets > 0 {
                    let (node, reason, sentence) = (stage.name.clone(), reason.to_owned(), sentence.to_owned());
                    drops.push(DropView {
                        node,
                        reason,
                        sentence,
                        packets,
                        port: None,
                    });
                }
            };
            for (index, (reason, sentence)) in stage.drops.iter().enumerate() {
                add(reason, sentence, total(&|counters| counters.drops[index].read()));
            }
            for (index, ((edge, _), sentence)) in stage.edges.iter().zip(stage.edge_sentences).enumerate() {
                if !sentence.is_empty() {
                    add(edge, sentence, total(&|counters| counters.edges[index].read()));
                }
            }
        }
        drops.extend(self.0.tunnels.drops());
        drops
    }

    /// See [`Plane::capture`]. The workers' part is armed until it has caught enough.
    ///
    /// # Errors
    /// As there.
    pub fn capture(&mut self, request: &CaptureRequest) -> Result<Capturing, Refusal> {
        self.0.arm_capture(request, || {})
    }

    /// See [`Plane::trace_add`].
    ///
    /// # Errors
    /// The filter cannot be read, or too many packets are asked for.
    pub fn trace_add(&mut self, count: u32, filter: &str) -> Result<(), Refusal> {
        self.0.trace_add(count, filter)
    }

    /// See [`Plane::trace_show`].
    pub fn trace_show(&mut self) -> Vec<TracedPacket> {
        self.0.trace_show()
    }

    /// See [`Plane::trace_clear`].
    pub fn trace_clear(&mut self) {
        self.0.trace_clear();
    }

    /// See [`Plane::graph`].
    pub fn graph(&self) -> GraphView {
        let stages: Arc<[StageInfo]> = self
            .0
            .workers
            .handles
            .first()
            .map_or(Arc::new([]), |handle| handle.stages.clone());
        GraphView {
            text: picture::text(&stages),
            dot: picture::dot(&stages),
        }
    }

    /// See [`Plane::workers`].
    pub fn workers(&self) -> Vec<WorkerView> {
        let state = &*self.0;
        let view = |(number, handle): (usize, &super::workers::Handle)| {
            let counters = handle.counters();
            let queues_of = |port: &Port| -> Vec<String> {
                let open = port.counters[port.closed..].iter().enumerate();
                let mine = open.filter(|(_, (owner, _))| *owner == number);
                mine.map(|(queue, _)| format!("{}/{queue}", port.name)).collect()
            };
            WorkerView {
                worker: number,
                core: handle.core,
                state: if handle.is_asleep() { "asleep" } else { "awake" }.to_owned(),
                queues: state.ports.iter().flat_map(queues_of).collect(),
                load_percent: load_percent(counters),
                turns: counters.turns.read(),
                sleeps: counters.sleeps.read(),
            }
        };
        state.workers.handles.iter().enumerate().map(view).collect()
    }

    /// See [`Plane::flow_logs`].
    pub fn flow_logs(&self) -> Arc<FlowLogs> {
        self.0.flow_logs.clone()
    }

    /// See [`Plane::services`].
    pub fn services(&self) -> Vec<ServiceView> {
        self.0.balancing.views()
    }

    /// See [`Plane::served`].
    pub fn served(&self) -> Served {
        self.0.balancing.served()
    }

    /// See [`Plane::memory`].
    pub fn memory(&self) -> Vec<MemoryView> {
        let state = &*self.0;
        let view = |what: &str, capacity: usize, used: usize, bytes: usize| MemoryView {
            what: what.to_owned(),
            capacity: capacity as u64,
            used: used as u64,
            bytes: bytes as u64,
        };
        let frames = state.pool.arena().frames() as usize;
        let (fib_used, fib_reserved) = state.rib.bytes();
        vec![
            view(
                "frames",
                frames,
                frames - state.pool.free().min(frames),
                state.pool.arena().bytes(),
            ),
            view("routes", fib_reserved / 64, state.rib.len(), fib_used),
            view(
                "paths and adjacencies",
                PATHS + ADJACENCIES,
                state.rib.indices(),
                state.forwarding.bytes(),
            ),
            view("neighbours", NEIGHBOURS_MAX, state.neighbours.len(), 0),
            state.flow_memory(),
            state.tunnel_memory(),
            state.balancing.memory(state.now_ns()),
        ]
    }
}

fn port_view(state: &State, port: &Port) -> PortView {
    let spec = &port.spec;
    let queues = || {
        let received = (
            sum(port, |counters| counters.rx_packets.read()),
            sum(port, |counters| counters.rx_bytes.read()),
        );
        let sent = (
            sum(port, |counters| counters.tx_packets.read()),
            sum(port, |counters| counters.tx_bytes.read()),
        );
        [received, sent]
    };
    let [received, sent] = match port.is_tunnel() {
        true => state.tunnel_traffic(port),
        false => queues(),
    };
    let socket = || SocketView {
        rx_dropped: sum(port, |counters| counters.socket_dropped.read()),
        rx_ring_full: sum(port, |counters| counters.socket_ring_full.read()),
        fill_ring_empty: sum(port, |counters| counters.socket_fill_empty.read()),
        tx_invalid: sum(port, |counters| counters.socket_tx_invalid.read()),
    };
    PortView {
        name: port.name.clone(),
        device: spec.device_name(),
        driver: spec.driver.name().to_owned(),
        mode: port.mode.clone(),
        state: if port.is_up() { PortState::Up } else { PortState::Down },
        why: port.why.clone(),
        queues: spec.queues,
        mtu: spec.mtu,
        vrf: spec.vrf.clone(),
        mac: if port.is_tunnel() || port.mac == [0; 6] {
            String::new()
        } else {
            mac_text(port.mac)
        },
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        rx_packets: received.0,
        rx_bytes: received.1,
        tx_packets: sent.0,
        tx_bytes: sent.1,
        drops: sum(port, |counters| counters.tx_full.read()),
        limits: state.policing.view(port, state.marking.of(port.id)),
        socket: (spec.driver.is_network_device() && spec.vlan.is_none()).then(socket),
    }
}

fn node_runtime(stage: &StageInfo, counters: &Counters) -> NodeRuntime {
    let (vectors, packets) = (counters.vectors.read(), counters.packets.read());
    NodeRuntime {
        name: stage.name.clone(),
        calls: counters.calls.read(),
        vectors,
        packets,
        packets_per_vector: ratio(packets, vectors),
        cycles_per_packet: ratio(counters.cycles.read(), packets),
    }
}
