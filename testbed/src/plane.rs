//! The whole data plane in one thread and simulated time: YAML in, frames in and out of ports of driver `memory`, drops
//! by name. When it goes, every frame has to be back in the pool, and every packet accounted for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::plane::{ManualPlane, PlaneOptions, views::Views};
use control::program::felix::ToDataplane;
use control::program::services::Place;
use control::refusal::Refusal;
use control::resource::{Source, read, read_keys};
use control::store::{Request, Store};
use fastpath::builder::Kind;
use fastpath::pool::Pool;
use fastpath::worker::Idle;

use crate::Error;
use crate::smol::Wire;

/// Connections that a plane remembers where nobody says otherwise.
pub(crate) const FLOWS: u32 = 1 << 16;
/// Frames of a plane. Few, so that a leak shows soon; more than a vector and the waiting rooms need.
pub(crate) const FRAMES: u32 = 8192;
/// Turns in which a plane has to come to rest.
const TURNS_MAX: usize = 10_000;
/// How far time goes at once.
const STEP: Duration = Duration::from_millis(100);

/// A plane, its resources, and its time.
pub struct Plane {
    plane: Option<ManualPlane>,
    store: Store,
    pool: Arc<Pool>,
    workers: usize,
    now: Duration,
}

impl Plane {
    /// A plane of one worker with these resources.
    pub fn new(yaml: &str) -> Result<Self, Error> {
        Self::with_workers(yaml, 1)
    }

    /// A plane of several workers, which take turns.
    pub fn with_workers(yaml: &str, workers: usize) -> Result<Self, Error> {
        Self::start(yaml, workers, FLOWS, Place::default())
    }

    /// A plane that remembers so many connections.
    pub fn with_flows(yaml: &str, flows: u32) -> Result<Self, Error> {
        Self::start(yaml, 1, flows, Place::default())
    }

    /// A plane on a node of that name.
    pub fn on_node(yaml: &str, name: &str) -> Result<Self, Error> {
        let place = Place {
            node: name.to_owned(),
            named: true,
            zone: None,
        };
        Self::start(yaml, 1, FLOWS, place)
    }

    fn start(yaml: &str, workers: usize, flows: u32, place: Place) -> Result<Self, Error> {
        let options = PlaneOptions {
            flows,
            frames: FRAMES,
            cores: vec![None; workers],
            idle: Idle::Spin,
            place,
        };
        let plane = ManualPlane::new(&options).map_err(|error| failed(&error))?;
        let mut this = Self {
            pool: plane.pool().clone(),
            plane: Some(plane),
            store: Store::default(),
            workers,
            now: Duration::ZERO,
        };
        this.apply(yaml)?;
        Ok(this)
    }

    /// Applies resources, as `margay apply` does.
    pub fn apply(&mut self, yaml: &str) -> Result<(), Error> {
        let documents = read(&[Source::file("resources.yaml", yaml)]).map_err(|refusal| refused(&refusal))?;
        self.carry_out(Request::Apply(documents))
    }

    /// Deletes resources, as `margay delete` does.
    pub fn delete(&mut self, yaml: &str) -> Result<(), Error> {
        let named = read_keys(&[Source::file("resources.yaml", yaml)]).map_err(|refusal| refused(&refusal))?;
        self.carry_out(Request::Delete(named))
    }

    /// Tells the plane of policy, as Felix does.
    pub fn tell(&mut self, messages: Vec<ToDataplane>) {
        self.manual().tell(messages);
    }

    fn carry_out(&mut self, request: Request) -> Result<(), Error> {
        let plan = self.store.plan(request).map_err(|refusal| refused(&refusal))?;
        self.manual().apply(&plan).map_err(|refusal| refused(&refusal))?;
        self.store.commit(&plan);
        Ok(())
    }

    fn manual(&mut self) -> &mut ManualPlane {
        self.plane.as_mut().expect("a plane is only taken down when it goes")
    }

    /// Puts a frame on the cable of a port; it is received in the next turn.
    pub fn send(&mut self, port: &str, frame: &[u8]) {
        let end = self.manual().memory_end(port);
        let end = end.unwrap_or_else(|| panic!("there is no port `{port}` of driver memory"));
        end.send.try_send(frame.to_vec()).expect("the cable holds 4,096 frames");
    }

    /// The cable of a port, to plug an in-process host in.
    pub fn wire(&mut self, port: &str) -> Wire {
        let end = self.manual().memory_end(port);
        let end = end.unwrap_or_else(|| panic!("there is no port `{port}` of driver memory"));
        Wire {
            rx: end.receive,
            tx: end.send,
        }
    }

    /// Takes the frames that a port has sent since.
    pub fn take(&mut self, port: &str) -> Vec<Vec<u8>> {
        let end = self.manual().memory_end(port);
        let end = end.unwrap_or_else(|| panic!("there is no port `{port}` of driver memory"));
        end.receive.try_iter().collect()
    }

    /// Turns until nothing moves, at the time it is.
    pub fn settle(&mut self) {
        let now_ns = self.now.as_nanos() as u64;
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            quiet = if self.manual().turn(now_ns) == 0 { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("packets still move after {TURNS_MAX} turns");
    }

    /// Turns once, at the time it is; packets carried.
    pub fn turn(&mut self) -> usize {
        let now_ns = self.now.as_nanos() as u64;
        self.manual().turn(now_ns)
    }

    /// Sets the time, which must not go back.
    pub fn set_time(&mut self, now: Duration) {
        self.now = now.max(self.now);
    }

    /// Lets time pass, and everything happen that it brings.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now = end.min(self.now + STEP);
            self.settle();
        }
    }

    /// Puts frames on the cable of a port, and returns what leaves by each port then, in the order of `ports`.
    pub fn exchange<const N: usize>(&mut self, port: &str, frames: &[Vec<u8>], ports: [&str; N]) -> [Vec<Vec<u8>>; N] {
        frames.iter().for_each(|frame| self.send(port, frame));
        self.settle();
        ports.map(|port| self.take(port))
    }

    /// What was dropped so far, and what senders were told of: packets by `node/reason`.
    pub fn drops(&mut self) -> BTreeMap<String, u64> {
        let drops = self.views().drops().into_iter();
        drops
            .map(|drop| (format!("{}/{}", drop.node, drop.reason), drop.packets))
            .collect()
    }

    /// Packets dropped for one `node/reason`.
    pub fn dropped(&mut self, reason: &str) -> u64 {
        self.drops().get(reason).copied().unwrap_or_default()
    }

    /// Every `node/reason` for which packets can be dropped.
    pub fn reasons(&mut self) -> Vec<String> {
        let stages = self.manual().worker(0).map(|worker| worker.graph().stages().clone());
        let stages = stages.expect("a plane has a worker");
        let of_stage = |stage: &fastpath::builder::StageInfo| -> Vec<String> {
            let names = stage.drops.iter().map(|drop| format!("{}/{}", stage.name, drop.0));
            names.collect()
        };
        stages.iter().flat_map(of_stage).collect()
    }

    /// The views of the plane, as the socket gives them.
    pub fn views(&mut self) -> Views<'_> {
        self.manual().views()
    }

    /// Packets that a stage handled, over all workers.
    pub fn packets(&mut self, stage: &str) -> u64 {
        let runtime = self.views().runtime();
        let nodes = runtime.workers.iter().flat_map(|worker| &worker.nodes);
        nodes.filter(|node| node.name == stage).map(|node| node.packets).sum()
    }

    /// Checks for every stage that what came in is what went out or was dropped, and that nothing was left undecided.
    fn account(&mut self) {
        for number in 0..self.workers {
            let Some(worker) = self.manual().worker(number) else {
                continue;
            };
            let (stages, counters) = (worker.graph().stages().clone(), worker.graph().counters());
            let mut arrived = vec![0; stages.len()];
            for (stage, counters) in stages.iter().zip(&counters) {
                for ((_, target), packets) in stage.edges.iter().zip(&counters.edges) {
                    arrived[*target] += packets.read();
                }
            }
            for ((stage, counters), arrived) in stages.iter().zip(&counters).zip(arrived) {
                let sum = |list: &[fastpath::counters::Counter]| list.iter().map(|one| one.read()).sum::<u64>();
                let (edges, drops) = (sum(&counters.edges), sum(&counters.drops));
                let (name, packets) = (&stage.name, counters.packets.read());
                match stage.kind {
                    Kind::Source => assert_eq!(packets, edges, "`{name}` brought others than it received"),
                    Kind::Node => assert_eq!(packets, edges + drops, "`{name}` lost packets, or made some"),
                    Kind::Sink => assert!(drops <= packets, "`{name}` refused more than it got"),
                }
                assert!(
                    stage.kind == Kind::Source || packets == arrived,
                    "packets to `{name}` were lost"
                );
                let undecided = counters.drops.last().map_or(0, |last| last.read());
                assert_eq!(undecided, 0, "`{name}` left packets undecided");
            }
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.settle();
        self.account();
        self.plane = None;
        let mut frames = self.pool.frames();
        let taken: Vec<_> = std::iter::from_fn(|| frames.take()).collect();
        let (back, all) = (taken.len(), self.pool.arena().frames() as usize);
        taken.into_iter().for_each(|frame| frames.give(frame));
        assert_eq!(back, all, "of {all} frames only {back} are back");
    }
}

pub(crate) fn refused(refusal: &Refusal) -> Error {
    failed(refusal)
}

pub(crate) fn failed(reason: &dyn std::fmt::Display) -> Error {
    Error::Plane {
        reason: reason.to_string(),
    }
}
