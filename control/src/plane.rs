//! The running data plane: what control knows, and the hands it has in the workers.

mod announce;
mod capture;
mod devices;
mod flow_logs;
mod flows;
mod learn;
mod manual;
mod marking;
mod neighbours;
mod overlays;
mod path_mtu;
mod policy;
mod ports;
mod punt;
mod qos;
mod routes;
mod services;
mod static_nat;
mod taps;
mod trace;
pub mod views;
mod vlans;
mod wireguard;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use ::wireguard::mailbox::Mailbox;
use fastpath::arena::Arena;
use fastpath::clock::{Calibration, Clock};
use fastpath::events::Events;
use fastpath::fib;
use fastpath::forwarding::Forwarding;
use fastpath::interfaces::Interfaces;
use fastpath::meta::{PortId, VrfId};
use fastpath::neighbours::{Key, Neighbours};
use fastpath::pool::{Frames, Pool};
use fastpath::port::memory::MemoryEnd;
use fastpath::port::xdp::Umem;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::rib::Rib;
use fastpath::worker::{Idle, ManualWorker};
use nat::time::Tick;

use crate::agent::Agent;
use crate::flow_logs::FlowLogs;
use crate::kernel_routes::KernelRoutes;
use crate::program::policy::Enforcement;
use crate::program::services::Place;
use crate::refusal::Refusal;
use crate::resource::{NeighborSpec, Object, Route};
use crate::store::Plan;
pub use manual::ManualPlane;
use ports::Ports;
use routes::Connected;
use services::Balancing;
use trace::Trace;
use wireguard::{ALLOWED_BYTES, AllowedRoutes, Post, Tunnels};
use workers::Workers;

/// Address space for the lookup tables of all VRFs; the kernel backs what is used.
const FIB_BYTES: usize = 1 << 30;
/// Control looks after its tables at least this often.
const TICK: Duration = Duration::from_millis(500);

/// What a plane is started with.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// Frames.
    pub frames: u32,
    /// A worker each, and the core it is pinned to, if any.
    pub cores: Vec<Option<usize>>,
    /// What workers do when idle.
    pub idle: Idle,
    /// Where the plane runs, as services see it.
    pub place: Place,
    /// Connections that are remembered at most.
    pub flows: u32,
}

/// Why a plane cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// The running data plane.
pub struct DataPlane {
    shared: Arc<Shared>,
    /// The one that looks after events, and the one that serves tunnels.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Between the socket's threads and the one that looks after events.
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    ready: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic under the lock (a bug) the rest goes on as well as it can.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How workers reach control, and wake it.
struct Wakes {
    events: Events,
    mailbox: Mailbox,
}

/// A thread that may be asleep, once it is known.
#[derive(Clone, Default)]
struct Sleeper(Arc<OnceLock<Thread>>);

impl Sleeper {
    fn is(&self, thread: &JoinHandle<()>) {
        // It is said once.
        let _ = self.0.set(thread.thread().clone());
    }

    fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// Everything control knows.
struct State {
    clock: Clock,
    start: Calibration,
    /// The time where no clock runs: captures and tests say what time it is.
    manual_ns: Option<u64>,
    umem: Umem,
    pool: Arc<Pool>,
    frames: Frames,
    forwarding: Arc<Forwarding>,
    interfaces: Publisher<Interfaces>,
    /// The tunnels as workers see them, and as control does.
    wireguard: Publisher<::wireguard::interface::Interfaces>,
    tunnels: Tunnels,
    mailbox: Mailbox,
    /// How messages of tunnels leave, where no thread serves them.
    post: Option<Post>,
    allowed: AllowedRoutes,
    balancing: Balancing,
    rib: Rib,
    neighbours: Neighbours,
    /// Routes of neighbours' own: by neighbour and table.
    own_routes: BTreeSet<(Key, VrfId)>,
    /// Ports that a table other than their own has routes onto the link of. Those that have gone may still stand here.
    on_links: BTreeSet<(PortId, VrfId)>,
    events: Events,
    workers: Workers,
    ports: Ports,
    vrfs: HashMap<String, VrfId>,
    connected: Connected,
    routes: BTreeMap<String, Arc<Object<Route>>>,
    permanent: BTreeMap<String, NeighborSpec>,
    flows: flows::Flows,
    punting: punt::Punting,
    hosts: ports::Hosts,
    learning: learn::Learning,
    policing: qos::Policing,
    marking: marking::Marking,
    path_mtus: path_mtu::PathMtus,
    policy: Enforcement,
    flow_logs: Arc<FlowLogs>,
    agent: Agent,
    trace: Trace,
    armed: capture::Armed,
}

/// The error of something that could not be had.
fn fail(what: &str) -> impl Fn(&dyn std::fmt::Display) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

/// Control's own way into the graph.
fn post(workers: &mut Workers, pool: &Arc<Pool>) -> Option<Post> {
    let (ring, waker) = workers.take_originate(0)?;
    Some(Post::new(pool.frames(), ring, waker))
}

/// Memory that was asked for, or why it cannot be had.
fn reserved<T, E: std::fmt::Display>(memory: Result<T, E>, holds: &str) -> Result<T, StartError> {
    memory.map_err(|error| fail(&format!("cannot reserve memory for {holds}"))(&error))
}

/// Without any, and with memory for as many as the options say.
fn connections(options: &PlaneOptions, qsbr: &Arc<Qsbr>, rib: &Rib) -> Result<flows::Flows, StartError> {
    let flows = flows::Flows::new(options, qsbr.clone(), rib.generation().clone());
    reserved(flows, "flows")
}

/// Memory for tables of prefixes.
fn table(bytes: usize, qsbr: &Arc<Qsbr>, holds: &str) -> Result<fib::Pool, StartError> {
    reserved(fib::Pool::new(bytes, fib::Pages::Huge, qsbr.clone()), holds)
}

impl State {
    fn new(options: &PlaneOptions, wakes: Wakes, manual: bool) -> Result<(Self, Vec<ManualWorker>), StartError> {
        let umem = Umem::new(options.frames).map_err(|error| StartError(error.to_string()))?;
        let (arena, frames) = Arena::over(umem.clone()).map_err(|error| fail("cannot set frames aside")(&error))?;
        let pool = Pool::new(arena, frames);
        let qsbr = Arc::new(Qsbr::new(options.cores.len() + 1)); // the last place is control's own
        let (fib, forwarding) = (table(FIB_BYTES, &qsbr, "routes")?, Arc::<Forwarding>::default());
        let rib = Rib::new(forwarding.clone(), qsbr.clone(), fib);
        let flows = connections(options, &qsbr, &rib)?;
        let policy = reserved(policy::enforcement(qsbr.clone()), "policy")?;
        let (interfaces, wireguard) = (Publisher::new(Default::default()), Publisher::new(Default::default()));
        let allowed = table(ALLOWED_BYTES, &qsbr, "allowed IPs")?;
        let (clock, balancing) = (Clock::new(), Balancing::new(options.place.clone()));
        let ground = workers::Ground {
            pool: &pool,
            qsbr: &qsbr,
            clock,
            wiring: crate::wiring::Shared {
                interfaces: &interfaces,
                rib: &rib,
                forwarding: &forwarding,
                events: &wakes.events,
                wireguard: &wireguard,
                mailbox: &wakes.mailbox,
                flows: flows.wiring(&balancing),
                policy: &policy,
                workers: options.cores.len(),
            },
        };
        let (mut workers, manual_workers) = Workers::start(&ground, options, manual).map_err(StartError)?;
        let state = Self {
            clock,
            start: Calibration::begin(),
            manual_ns: manual.then_some(0),
            umem,
            post: post(&mut workers, &pool),
            frames: pool.frames(),
            pool,
            forwarding,
            interfaces,
            wireguard,
            tunnels: Tunnels::new(allowed, options.cores.len()),
            mailbox: wakes.mailbox,
            allowed: AllowedRoutes::new(),
            balancing,
            rib,
            neighbours: Neighbours::default(),
            own_routes: BTreeSet::new(),
            on_links: BTreeSet::new(),
            learning: learn::Learning::new(wakes.events.clone()),
            events: wakes.events,
            workers,
            ports: Ports::default(),
            vrfs: HashMap::from([("default".to_owned(), VrfId(0))]),
            connected: Connected::default(),
            routes: BTreeMap::new(),
            permanent: BTreeMap::new(),
            flow_logs: Arc::new(FlowLogs::new(flows.tracking.table.clone(), policy.all_reports())),
            flows,
            punting: punt::Punting::default(),
            hosts: ports::Hosts::default(),
            policing: qos::Policing::default(),
            marking: marking::Marking::default(),
            path_mtus: path_mtu::PathMtus::default(),
            policy,
            agent: policy::agent(&options.place),
            trace: Trace::default(),
            armed: capture::Armed::default(),
        };
        Ok((state, manual_workers))
    }

    fn now_ns(&self) -> u64 {
        self.manual_ns.unwrap_or_else(|| self.clock.now_ns())
    }

    /// Carries a plan out. What touches neither ports nor routes looks at none of them: agents change policy and services
    /// often.
    fn apply(&mut self, plan: &Plan) -> Result<(), Refusal> {
        if plan.is_of_ours() {
            self.apply_ours(plan)?;
        }
        self.apply_services(plan);
        self.track();
        self.tell_resources(plan);
        self.publish_flows();
        self.claim();
        Ok(())
    }

    /// Ports first, for what they need can be missing; then tunnels, addresses, neighbours and routes.
    fn apply_ours(&mut self, plan: &Plan) -> Result<(), Refusal> {
        self.learn_vrfs(plan)?;
        let opened = self.prepare_ports(plan)?;
        if let Err(refusal) = self.prepare_tunnels(plan) {
            self.revert_ports(opened);
            return Err(refusal);
        }
        let before = Saved::of(&self.routes, plan);
        let sources = self.take_source_nats(plan);
        match self.write_tables(plan) {
            Ok(()) => {
                self.finish_tunnels(plan);
                self.finish_ports(opened);
                self.choose_tunnel_sources(plan);
                self.publish_interfaces();
                self.place_node_ports();
                self.describe_ports();
                self.find_learners();
                Ok(())
            }
            Err(refusal) => {
                before.restore(&mut self.routes);
                self.restore_source_nats(sources);
                self.revert_tunnels(plan);
                self.revert_ports(opened);
                // What was there before fits again.
                let _ = self.connect();
                let _ = self.write_allowed(None);
                let _ = self.rewrite_routes();
                self.write_own_routes(None);
                Err(refusal)
            }
        }
    }

    /// Does what events and time demand; when it wants to be called again.
    fn look_after(&mut self) -> Duration {
        self.heed_events();
        self.tend_neighbours();
        self.forget_path_mtus();
        self.tend_ports();
        self.tend_punting();
        self.interfaces.reclaim();
        self.wireguard.reclaim();
        self.balancing.book.reclaim();
        self.policy.reclaim();
        let now_ns = self.now_ns();
        self.flows.reclaim(Tick::from_ns(now_ns));
        let more = self.learn();
        let next = self
            .neighbours
            .next_deadline()
            .map_or(u64::MAX, |deadline| deadline.saturating_sub(now_ns));
        more.unwrap_or(TICK).min(Duration::from_nanos(next))
    }
}

/// The part of a map that a plan may change, to be put back if it is refused.
struct Saved<T>(Vec<(String, Option<T>)>);

impl<T: Clone> Saved<T> {
    fn of(map: &BTreeMap<String, T>, plan: &Plan) -> Self {
        let names = plan.changes.iter().map(|planned| &planned.key.name);
        Self(names.map(|name| (name.clone(), map.get(name).cloned())).collect())
    }

    fn restore(self, map: &mut BTreeMap<String, T>) {
        for (name, value) in self.0 {
            match value {
                Some(value) => map.insert(name, value),
                None => map.remove(&name),
            };
        }
    }
}

impl DataPlane {
    /// Starts the workers, with no port and no route.
    ///
    /// # Errors
    /// Memory or threads that cannot be had, in a sentence.
    pub fn start(options: &PlaneOptions) -> Result<Self, StartError> {
        let (looker, server) = (Sleeper::default(), Sleeper::default());
        let (look, serve) = (looker.clone(), server.clone());
        let wakes = Wakes {
            events: Events::new(move || look.wake()),
            mailbox: Mailbox::new(move || serve.wake()),
        };
        let (mut state, _) = State::new(options, wakes, false)?;
        let ground = state.post.take().map(|post| wireguard::Ground {
            tunnels: state.tunnels.clone(),
            mailbox: state.mailbox.clone(),
            clock: state.clock,
            forwarding: state.forwarding.clone(),
            wakers: state.workers.wakers(),
            post,
        });
        let (stop, ready) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            stop,
            ready,
        });
        let theirs = shared.clone();
        let look = move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                let wait = theirs.lock().look_after();
                std::thread::park_timeout(wait);
            }
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(look);
        let failed = |error| StartError(format!("cannot start a thread: {error}"));
        let thread = thread.map_err(failed)?;
        looker.is(&thread);
        let mut threads = vec![thread, flow_logs::start(&shared).map_err(failed)?];
        if let Some(ground) = ground {
            let thread = ground.start(shared.clone()).map_err(failed)?;
            server.is(&thread);
            threads.push(thread);
        }
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Says that everything asked for at the start is there.
    pub fn set_ready(&self) {
        self.shared.ready.store(true, Ordering::Relaxed);
    }

    /// Ends the workers, which closes the sockets, and lets go of the devices, which are left as they were found.
    pub fn shut_down(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        threads.iter().for_each(|thread| thread.thread().unpark());
        for thread in threads {
            let _ = thread.join();
        }
        let mut state = self.shared.lock();
        state.hosts.follow();
        state.workers.stop();
        state.ports.close_all();
        state.hosts.give_back();
        state.finish_flow_logs();
    }

    /// Keeps what devices had before TAPs took their places in a folder, and gives back what a plane that was killed left
    /// there.
    pub fn keep_records(&self, folder: &std::path::Path) {
        self.shared.lock().hosts.folder = folder.to_owned();
        let left = crate::takeover::records(folder).and_then(|records| {
            let mut here = records.iter().filter(|record| record.is_here());
            here.try_for_each(|record| crate::takeover::restore(folder, record))
        });
        if let Err(error) = left {
            tracing::error!("a device that a TAP took the place of is not given back: {error}");
        }
    }

    /// Tells of a change of a network device.
    pub fn link_changed(&self, link: &crate::links::Link) {
        self.shared.lock().link_changed(link);
    }

    /// Where the kernel's routes are to be written down.
    pub fn kernel_routes(&self) -> Arc<KernelRoutes> {
        self.shared.lock().learning.kernel.clone()
    }

    /// The other end of a port of driver `memory`.
    pub fn memory_end(&self, port: &str) -> Option<MemoryEnd> {
        self.shared.lock().ports.memory_end(port)
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.shut_down();
    }
}
