//! The workers: started together, reached one by one.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use fastpath::arena::FrameIndex;
use fastpath::builder::StageInfo;
use fastpath::clock::Clock;
use fastpath::counters::Counters;
use fastpath::local::Way;
use fastpath::meta::PortId;
use fastpath::pool::Pool;
use fastpath::port::{Queue, QueueCounters};
use fastpath::qsbr::Qsbr;
use fastpath::ring::{Consumer, Producer, ring};
use fastpath::vlan::Vlan;
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker, Worker, WorkerCounters};

use super::PlaneOptions;
use crate::wiring;

/// Frames that wait between two workers, or between control and a worker.
const RING: u32 = 1024;
/// A worker answers within a turn; this is for one that hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the workers stand on.
pub(super) struct Ground<'a> {
    pub pool: &'a Arc<Pool>,
    pub qsbr: &'a Arc<Qsbr>,
    pub clock: Clock,
    pub wiring: wiring::Shared<'a>,
}

enum Hands {
    Thread(Worker),
    Manual(Sender<Command>, Arc<WorkerCounters>),
}

/// One worker, as control reaches it.
pub(super) struct Handle {
    hands: Hands,
    inject: Producer,
    originate: Option<Producer>,
    waker: Arc<Waker>,
    pub core: Option<usize>,
    pub stages: Arc<[StageInfo]>,
    pub stage_counters: Vec<Arc<Counters>>,
}

impl Handle {
    fn ask(&self, command: Command) {
        match &self.hands {
            Hands::Thread(worker) => worker.ask(command),
            Hands::Manual(sender, _) => {
                let _ = sender.send(command);
            }
        }
    }

    pub fn counters(&self) -> &WorkerCounters {
        match &self.hands {
            Hands::Thread(worker) => worker.counters(),
            Hands::Manual(_, counters) => counters,
        }
    }

    pub fn is_asleep(&self) -> bool {
        self.is_thread() && self.waker.is_asleep()
    }

    fn is_thread(&self) -> bool {
        matches!(self.hands, Hands::Thread(_))
    }
}

/// All workers.
pub(super) struct Workers {
    pub handles: Vec<Handle>,
    pub idle: Idle,
}

impl Workers {
    /// Wires and starts a worker for each core; with `manual`, the caller turns them.
    pub fn start(
        ground: &Ground<'_>,
        options: &PlaneOptions,
        manual: bool,
    ) -> Result<(Self, Vec<ManualWorker>), String> {
        let count = options.cores.len();
        let wakers = (0..count)
            .map(|_| Waker::new().map(Arc::new))
            .collect::<Result<Vec<_>, _>>();
        let wakers = wakers.map_err(|error| format!("cannot make an event descriptor: {error}"))?;
        let mut senders: Vec<Vec<(u16, Producer, Arc<Waker>)>> = (0..count).map(|_| vec![]).collect();
        let mut receivers: Vec<Vec<Consumer>> = (0..count).map(|_| vec![]).collect();
        for (from, sender) in senders.iter_mut().enumerate() {
            for to in (0..count).filter(|to| *to != from) {
                let (producer, consumer) = ring(RING);
                sender.push((to as u16, producer, wakers[to].clone()));
                receivers[to].push(consumer);
            }
        }
        let (mut handles, mut turned) = (vec![], vec![]);
        for (number, (handoff, inbound)) in senders.into_iter().zip(receivers).enumerate() {
            let (inject, injected) = ring(RING);
            let (originate, originated) = ring(RING);
            let rings = wiring::Rings {
                inject: injected,
                originate: originated,
                handoff: inbound,
            };
            let graph = wiring::graph(&ground.wiring, number, rings).map_err(|error| error.to_string())?;
            let (stages, stage_counters) = (graph.stages().clone(), graph.counters());
            let (core, waker) = (options.cores[number], wakers[number].clone());
            let parts = Parts {
                number: number as u16,
                core,
                idle: options.idle,
                graph,
                pool: ground.pool.clone(),
                qsbr: ground.qsbr.clone(),
                clock: ground.clock,
                waker: waker.clone(),
                handoff,
            };
            let hands = if manual {
                let (worker, commands) = ManualWorker::new(parts);
                let counters = worker.counters().clone();
                turned.push(worker);
                Hands::Manual(commands, counters)
            } else {
                let worker = Worker::start(parts).map_err(|error| format!("cannot start worker {number}: {error}"))?;
                Hands::Thread(worker)
            };
            handles.push(Handle {
                hands,
                inject,
                originate: Some(originate),
                waker,
                core,
                stages,
                stage_counters,
            });
        }
        Ok((
            Self {
                handles,
                idle: options.idle,
            },
            turned,
        ))
    }

    /// The worker that owns queue `queue` of a port.
    pub fn owner(&self, port: PortId, queue: usize) -> usize {
        (port.index() + queue) % self.handles.len()
    }

    /// Hands the queues of a port to their workers, and tells the others the way. A queue's worker and counters each.
    pub fn attach(&self, port: PortId, queues: Vec<Box<dyn Queue>>) -> Vec<(usize, Arc<QueueCounters>)> {
        let count = queues.len();
        let attach = |(number, queue)| {
            let (owner, counters) = (self.owner(port, number), Arc::new(QueueCounters::default()));
            self.handles[owner].ask(Command::Attach(port, queue, counters.clone()));
            (owner, counters)
        };
        let attached: Vec<_> = queues.into_iter().enumerate().map(attach).collect();
        for (number, handle) in self.handles.iter().enumerate() {
            if count > 0 && attached.iter().all(|(owner, _)| *owner != number) {
                let way = Way::Handoff(self.owner(port, number % count) as u16);
                handle.ask(Command::SetWay(port, way));
            }
        }
        attached
    }

    /// Has a VLAN's packets come and go by the port of its link. Each worker's counters.
    pub fn join(&self, port: PortId, id: u16, trunk: PortId) -> Vec<(usize, Arc<QueueCounters>)> {
        let join = |(number, handle): (usize, &Handle)| {
            let counters = Arc::new(QueueCounters::default());
            let theirs = counters.clone();
            handle.ask(Command::Join(Vlan {
                id,
                port,
                trunk,
                counters: theirs,
            }));
            (number, counters)
        };
        self.handles.iter().enumerate().map(join).collect()
    }

    /// Has the queues of a port closed, and waits for that.
    /// Counters of a port without queues, one for each worker.
    pub fn counters(&self) -> Vec<(usize, Arc<QueueCounters>)> {
        let numbers = 0..self.handles.len();
        numbers.map(|number| (number, Arc::default())).collect()
    }

    pub fn detach(&self, port: PortId) {
        for handle in &self.handles {
            handle.ask(Command::SetWay(port, Way::Nowhere));
        }
        self.wait(|done| Command::Detach(port, done));
    }

    /// Has packets to a port sent, or dropped as long as it is down.
    pub fn set_up(&self, port: PortId, up: bool) {
        self.ask_all(|| Command::SetUp(port, up));
    }

    /// Has the sockets' own counters brought up to date.
    pub fn sample(&self) {
        self.wait(Command::Sample);
    }

    /// Asks every worker and waits for the answers of those that run by themselves.
    fn wait(&self, command: impl Fn(Sender<()>) -> Command) {
        let (done, answers) = bounded(self.handles.len());
        self.handles.iter().for_each(|handle| handle.ask(command(done.clone())));
        for _ in self.handles.iter().filter(|handle| handle.is_thread()) {
            if answers.recv_timeout(PATIENCE).is_err() {
                return;
            }
        }
    }

    /// Asks every worker.
    pub fn ask_all(&self, mut command: impl FnMut() -> Command) {
        self.handles.iter().for_each(|handle| handle.ask(command()));
    }

    /// Sends a packet that control made; what does not fit comes back.
    pub fn inject(&mut self, worker: usize, frames: &mut Vec<FrameIndex>) {
        if let Some(handle) = self.handles.get_mut(worker) {
            handle.inject.send(frames);
            handle.waker.wake();
        }
    }

    /// The ring by which a worker is given IP packets to route and send, and how to wake it. For the first who asks.
    pub fn take_originate(&mut self, worker: usize) -> Option<(Producer, Arc<Waker>)> {
        let handle = self.handles.get_mut(worker)?;
        Some((handle.originate.take()?, handle.waker.clone()))
    }

    /// How to wake each worker.
    pub fn wakers(&self) -> Vec<Arc<Waker>> {
        self.handles.iter().map(|handle| handle.waker.clone()).collect()
    }

    /// Wakes every worker: packets may wait there for what control has just learnt.
    pub fn wake(&self) {
        self.handles.iter().for_each(|handle| handle.waker.wake());
    }

    /// Ends every worker.
    pub fn stop(&mut self) {
        for handle in &mut self.handles {
            if let Hands::Thread(worker) = &mut handle.hands
                && !worker.stop()
            {
                tracing::error!("a worker ended by a panic; please report it");
            }
        }
    }
}
