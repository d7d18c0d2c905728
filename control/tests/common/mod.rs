//! A plane that carries nothing, and a server over it on a socket of its own.
#![allow(dead_code, reason = "each test file uses a part of this")]

mod services;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use control::api::Plane;
use control::capture::{CaptureRequest, Capturing, Scene};
use control::connections::{Connections, Hands, Served};
use control::flow_logs::FlowLogs;
use control::program::policy::Question;
use control::refusal::Refusal;
use control::server::{Limits, Server};
use control::show::drops::DropView;
use control::show::explain::{ExplainStep, ExplainView};
use control::show::graph::GraphView;
use control::show::memory::MemoryView;
use control::show::neighbors::{NeighborState, NeighborView};
use control::show::policies::{PolicyView, RuleView};
use control::show::ports::{PortState, PortView, SocketView};
use control::show::routes::{HopView, RouteAction, RouteOrigin, RouteView};
use control::show::runtime::{Idle, NodeRuntime, RuntimeView, WorkerRuntime};
use control::show::services::ServiceView;
use control::show::trace::{TraceStep, TracedPacket};
use control::show::wireguard::{WireguardPeerView, WireguardView};
use control::show::workers::WorkerView;
use control::store::Plan;
use fastpath::capture::Catch;
use fastpath::meta::VrfId;
use fastpath::qsbr::Qsbr;
use nat::journal::Journal;
use nat::table::{New, Shape, Table, Writer};
use nat::time::Tick;

/// Remembers what it was told and shows a fixed picture.
#[derive(Default)]
pub struct TestPlane {
    pub plans: Mutex<Vec<Plan>>,
    pub refuse: AtomicBool,
    pub not_ready: AtomicBool,
    pub traced: Mutex<Option<(u32, String)>>,
    /// Whether `apply` was called.
    pub applying: AtomicBool,
    /// While this is true, `apply` does not return.
    pub held: Mutex<bool>,
    pub released: Condvar,
    /// What is in the table of connections.
    pub connections: Mutex<Vec<New>>,
    /// What is told of connections.
    pub journal: Journal,
}

impl TestPlane {
    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }
}

impl Plane for TestPlane {
    fn apply(&self, plan: &Plan) -> Result<(), Refusal> {
        self.applying.store(true, Ordering::Relaxed);
        let held = self.held.lock().unwrap();
        drop(
            self.released
                .wait_timeout_while(held, Duration::from_secs(20), |held| *held)
                .unwrap(),
        );
        if self.refuse.load(Ordering::Relaxed) {
            return Err(Refusal::new(
                "device left0 does not exist; `ip link` lists what there is",
            ));
        }
        self.plans.lock().unwrap().push(plan.clone());
        Ok(())
    }

    fn ports(&self) -> Vec<PortView> {
        vec![port("left", None), port("right", Some("device right0 is gone"))]
    }

    fn routes(&self) -> Vec<RouteView> {
        let hop = |gateway: &str, weight| HopView {
            gateway: Some(gateway.into()),
            port: "right".into(),
            weight,
        };
        vec![RouteView {
            destination: "10.20.0.0/16".into(),
            vrf: "default".into(),
            origin: RouteOrigin::Static,
            name: "to-right".into(),
            via: vec![hop("10.2.0.2", 1), hop("10.2.0.3", 2)],
            action: RouteAction::Forward,
            table: None,
        }]
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        vec![NeighborView {
            address: "10.2.0.2".into(),
            port: "right".into(),
            mac: None,
            state: NeighborState::Incomplete,
            age_s: Some(3),
        }]
    }

    fn connections(&self) -> Connections {
        let qsbr = Arc::new(Qsbr::new(2));
        qsbr.online(0);
        let table = room(20_000, qsbr.clone());
        let mut writer = Writer::new();
        for new in &*self.connections.lock().unwrap() {
            let leg = table.insert(&mut writer, new, Tick(10)).unwrap();
            table.leg(leg).count(1500, Tick(50));
        }
        qsbr.offline(0);
        let hands = Hands::new(&self.journal, qsbr, 1);
        Connections::new(table, hands, Tick(100), [(VrfId(0), "default".to_owned())].into())
    }

    fn flow_logs(&self) -> Arc<FlowLogs> {
        Arc::new(FlowLogs::new(room(1, Arc::new(Qsbr::new(1))), vec![]))
    }

    fn runtime(&self) -> RuntimeView {
        let node = |name: &str, packets| NodeRuntime {
            name: name.into(),
            calls: 10_000,
            vectors: 4_000,
            packets,
            packets_per_vector: packets as f64 / 4_000.0,
            cycles_per_packet: 12.34,
        };
        let nodes = vec![node("parse", 1_000_000), node("route", 999_000)];
        let worker = WorkerRuntime {
            worker: 0,
            core: Some(1),
            idle: Idle::Adaptive,
            load_percent: 35.21,
            turns: 1_234_567,
            nodes,
        };
        RuntimeView {
            elapsed_s: 10.25,
            workers: vec![worker],
        }
    }

    fn drops(&self) -> Vec<DropView> {
        vec![DropView {
            node: "hop-limit".into(),
            reason: "expired".into(),
            sentence: "the hop limit reached zero".into(),
            packets: 1_234,
            port: Some("left".into()),
        }]
    }

    fn graph(&self) -> GraphView {
        GraphView {
            text: "port-in -> parse -> route\n".into(),
            dot: "digraph { a -> b }".into(),
        }
    }

    fn workers(&self) -> Vec<WorkerView> {
        vec![WorkerView {
            worker: 0,
            core: Some(1),
            state: "asleep".into(),
            queues: vec!["left/0".into(), "right/0".into()],
            load_percent: 0.5,
            turns: 1_000,
            sleeps: 17,
        }]
    }

    fn served(&self) -> Served {
        services::served()
    }

    fn services(&self) -> Vec<ServiceView> {
        services::views()
    }

    fn wireguard(&self) -> Vec<WireguardView> {
        let peer = |name: &str, endpoint: Option<&str>, age_s| WireguardPeerView {
            name: name.into(),
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".into(),
            preshared_key: false,
            endpoint: endpoint.map(Into::into),
            allowed_ips: vec!["10.9.0.2/32".into(), "fd00:9::2/128".into()],
            handshake_age_s: age_s,
            handshakes: 3,
            rx_packets: 1_000,
            rx_bytes: 1_536,
            tx_packets: 7,
            tx_bytes: 420,
            persistent_keepalive_s: 25,
        };
        vec![WireguardView {
            name: "wg0".into(),
            public_key: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".into(),
            listen_port: 51820,
            mtu: 1420,
            vrf: "default".into(),
            transport_vrf: "default".into(),
            addresses: vec!["10.9.0.1/24".into()],
            peers: vec![
                peer("laptop", Some("192.0.2.9:51820"), Some(65)),
                peer("new", None, None),
            ],
        }]
    }

    fn policies(&self) -> Vec<PolicyView> {
        vec![PolicyView {
            kind: "NetworkPolicy".into(),
            name: "shop/web".into(),
            tier: Some("default".into()),
            ingress_rules: 2,
            egress_rules: 0,
            mentions: 3,
            unfinished: None,
            rules: vec![
                rule(0, "allow", (12_345, 2 << 20), Some(3)),
                rule(1, "deny", (0, 0), None),
            ],
        }]
    }

    fn explain(&self, question: &Question) -> Result<ExplainView, Refusal> {
        let step = ExplainStep {
            endpoint: question.to.clone(),
            stage: "ingress".into(),
            tier: Some("default".into()),
            policy: Some("NetworkPolicy shop/web".into()),
            rule: Some(1),
            verdict: "deny".into(),
            pending: false,
            reason: "a rule of a policy".into(),
        };
        Ok(ExplainView {
            verdict: "deny".into(),
            pending: None,
            steps: vec![step],
        })
    }

    fn memory(&self) -> Vec<MemoryView> {
        vec![MemoryView {
            what: "frames".into(),
            capacity: 65_536,
            used: 4_096,
            bytes: 134_217_728,
        }]
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Capturing, Refusal> {
        if request.filter == "nonsense" {
            return Err(Refusal::new("`nonsense` is not a pcap-filter expression"));
        }
        let scene = Scene {
            ports: vec![],
            stages: [].into(),
            epoch: Duration::ZERO,
        };
        Ok(Capturing::new(Catch::new(0), scene, || {}))
    }

    fn trace_add(&self, count: u32, filter: &str) -> Result<(), Refusal> {
        if filter == "nonsense" {
            return Err(Refusal::new("`nonsense` is not a pcap-filter expression"));
        }
        *self.traced.lock().unwrap() = Some((count, filter.to_owned()));
        Ok(())
    }

    fn trace_show(&self) -> Vec<TracedPacket> {
        let step = |node: &str, at_ns, decision: &str, detail: &str| TraceStep {
            node: node.into(),
            at_ns,
            decision: decision.into(),
            detail: detail.into(),
        };
        if self.traced.lock().unwrap().is_none() {
            return Vec::new();
        }
        let steps = vec![
            step("parse", 0, "ipv4", "10.1.0.2 > 10.2.0.2 icmp"),
            step("hop-limit", 1_250, "drop expired", ""),
        ];
        vec![TracedPacket {
            number: 1,
            at: 1_500_000,
            port: "left".into(),
            length: 98,
            steps,
        }]
    }

    fn trace_clear(&self) {
        *self.traced.lock().unwrap() = None;
    }

    fn ready(&self) -> bool {
        !self.not_ready.load(Ordering::Relaxed)
    }
}

fn port(name: &str, why: Option<&str>) -> PortView {
    PortView {
        name: name.into(),
        device: format!("{name}0"),
        driver: "xdp".into(),
        mode: "generic".into(),
        state: if why.is_some() { PortState::Down } else { PortState::Up },
        why: why.map(Into::into),
        queues: 1,
        mtu: 1500,
        vrf: "default".into(),
        mac: "02:00:00:00:00:01".into(),
        addresses: vec!["10.1.0.1/24".into(), "fd00:1::1/64".into()],
        rx_packets: 1_234_567,
        rx_bytes: 1_610_612_736,
        tx_packets: 7,
        tx_bytes: 420,
        drops: 3,
        socket: Some(SocketView {
            rx_ring_full: 12,
            ..SocketView::default()
        }),
        limits: None,
    }
}

/// A server in a thread of its own, stopped and removed when it goes out of scope.
pub struct Running {
    pub plane: Arc<TestPlane>,
    pub socket: PathBuf,
    pub folder: tempfile::TempDir,
    pub metrics: std::net::SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run").join("margay.sock");
        let plane = Arc::new(TestPlane::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = {
            let _inside = runtime.enter();
            Server::bind(&socket, Some(([127, 0, 0, 1], 0).into()), limits).unwrap()
        };
        let metrics = server.metrics_address().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let intent = Arc::new(control::intent::Intent::new(plane.clone()));
        let thread = std::thread::spawn(move || {
            runtime.block_on(server.serve(intent, async {
                let _ = stopped.await;
            }));
            runtime.shutdown_background();
        });
        Self {
            plane,
            socket,
            folder,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn stop(&mut self) {
        self.plane.hold(false);
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `condition` holds; a minute is for ever.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One request by hand, and the whole answer: status, headers in lower case, body.
pub fn exchange(mut stream: impl std::io::Read + std::io::Write, request: &[u8]) -> (u16, String, String) {
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// A connection that gives up reading after a minute.
pub fn connect(socket: &Path) -> std::os::unix::net::UnixStream {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// One request without ceremony.
pub fn ask(socket: &Path, method: &str, path: &str, content_type: &str, body: &str) -> (u16, serde_json::Value) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: margay\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (status, _, body) = exchange(connect(socket), request.as_bytes());
    (status, serde_json::from_str(&body).unwrap_or(serde_json::Value::Null))
}

pub fn get(socket: &Path, path: &str) -> (u16, serde_json::Value) {
    ask(socket, "GET", path, "application/json", "")
}

pub fn apply(socket: &Path, yaml: &str) -> (u16, serde_json::Value) {
    ask(socket, "POST", "/v1/apply", "application/yaml", yaml)
}

pub const PORTS: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left0, addresses: [10.1.0.1/24, 'fd00:1::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right0, addresses: [10.2.0.1/24, 'fd00:2::1/64']}}
";

fn room(connections: u32, qsbr: Arc<Qsbr>) -> Arc<Table> {
    let shape = Shape {
        connections,
        writers: 1,
        seed: 1,
    };
    Arc::new(Table::new(&shape, qsbr).unwrap())
}

fn rule(rule: usize, action: &str, (packets, bytes): (u64, u64), idle_s: Option<u64>) -> RuleView {
    RuleView {
        direction: "ingress".into(),
        rule,
        action: action.into(),
        packets,
        bytes,
        idle_s,
        age_s: 864_000,
    }
}
