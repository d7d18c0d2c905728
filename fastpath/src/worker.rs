//! A worker: one thread, pinned to one core, that turns its graph.

use crate::capture::Capture;
use crate::clock::{self, Clock};
use crate::counters::Counter;
use crate::graph::Graph;
use crate::held::{HELD_PER_NEIGHBOUR, Held, PARKED_PER_PEER};
use crate::local::{GATHERED_MAX, Local, Queues, Way};
use crate::meta::PortId;
use crate::node::Turn;
use crate::nodes::fragment::{PIECES_MAX, Pieces};
use crate::pool::{Frames, Pool};
use crate::port::{Queue, QueueCounters};
use crate::qos::Limiter;
use crate::qsbr::Qsbr;
use crate::ring::Producer;
use crate::trace::Tracer;
use crate::vlan::Vlan;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;

/// Turns without a packet after which an adaptive worker sleeps: some tens of microseconds.
const IDLE_TURNS: u32 = 256;
/// Longest sleep, so that nothing is lost for long if a wake-up should be.
const SLEEP_MS: i64 = 500;
/// The same while a port cannot be waited for: a capture file or memory.
const POLL_MS: i64 = 1;

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls on.
    Spin,
    /// Polls while busy and sleeps on its sockets when idle.
    #[default]
    Adaptive,
}

/// Wakes a worker that sleeps. One system call, and only then.
pub struct Waker {
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Waker {
    /// # Errors
    /// The kernel's, when it gives no event descriptor.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            asleep: AtomicBool::new(false),
            event,
        })
    }

    /// Whether the worker sleeps.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Call after the work was put where the worker looks for it.
    pub fn wake(&self) {
        // Either this sees that the worker sleeps, or the worker sees the work before it does.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // It fails only when 2^64 - 2 wake-ups wait already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

/// What control asks of a worker, between two turns.
pub enum Command {
    /// Take over a queue of a port.
    Attach(PortId, Box<dyn Queue>, Arc<QueueCounters>),
    /// Give up the queues of a port: they are closed. Answers when it is done.
    Detach(PortId, Sender<()>),
    /// Have a VLAN's packets come and go by the port of its link. It is given up as a port's queues are.
    Join(Vlan),
    /// Send packets to a port this way.
    SetWay(PortId, Way),
    /// Send packets to a port, if its queues are here; or drop them, for its link is down.
    SetUp(PortId, bool),
    /// Have no more leave by a port than this allows.
    Limit(PortId, Option<Arc<Limiter>>),
    /// Arm a trace.
    Trace(Option<Tracer>),
    /// Arm a capture, or end it.
    Capture(Option<Capture>),
    /// Bring the counters up to date that cost a system call. Answers when it is done.
    Sample(Sender<()>),
}

/// What a worker tells about itself.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Turns.
    pub turns: Counter,
    /// Turns with packets.
    pub busy_turns: Counter,
    /// Packets inhaled.
    pub packets: Counter,
    /// Time-stamp counter cycles of turns with packets.
    pub busy_cycles: Counter,
    /// Time-stamp counter cycles since the start.
    pub cycles: Counter,
    /// Sleeps.
    pub sleeps: Counter,
}

/// What a worker is made of.
pub struct Parts {
    /// Its number.
    pub number: u16,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// What it does when idle.
    pub idle: Idle,
    /// What it turns.
    pub graph: Graph,
    /// Where its frames come from.
    pub pool: Arc<Pool>,
    /// Where it says that it has let go of what it read.
    pub qsbr: Arc<Qsbr>,
    /// Its clock.
    pub clock: Clock,
    /// What wakes it.
    pub waker: Arc<Waker>,
    /// Rings to the other workers, with their wakers.
    pub handoff: Vec<(u16, Producer, Arc<Waker>)>,
}

/// A running worker, as control sees it. Ends with it.
pub struct Worker {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// The kernel's, when it gives no thread.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let (commands, receiver) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(WorkerCounters::default());
        let waker = parts.waker.clone();
        let mut run = Run::new(parts, receiver, stop.clone(), counters.clone());
        let name = format!("worker-{}", run.turn.worker);
        let thread = std::thread::Builder::new().name(name).spawn(move || run.run())?;
        Ok(Self {
            commands,
            waker,
            stop,
            counters,
            thread: Some(thread),
        })
    }

    /// Asks for something; the worker does it before its next turn.
    pub fn ask(&self, command: Command) {
        // A worker that has ended needs no commands.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    /// What it counted so far.
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Ends the worker after its turn; its queues are closed. Whether it ended without a panic.
    pub fn stop(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The same turns without a thread: the caller says when, and what time it is. For tests, benchmarks and captures.
pub struct ManualWorker(Run);

impl ManualWorker {
    /// Sets a worker up.
    pub fn new(parts: Parts) -> (Self, Sender<Command>) {
        let (commands, receiver) = unbounded();
        let run = Run::new(parts, receiver, Arc::new(AtomicBool::new(false)), Arc::default());
        run.qsbr.online(usize::from(run.turn.worker));
        (Self(run), commands)
    }

    /// One turn at this time. How many packets it carried.
    pub fn turn(&mut self, now_ns: u64) -> usize {
        self.0.turn.now_ns = now_ns;
        self.0.obey();
        self.0.once()
    }

    /// Its graph, with the counters of every stage.
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// What it counted so far.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.0.counters
    }
}

impl Drop for ManualWorker {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Run {
    graph: Graph,
    local: Local,
    arena: Arc<crate::arena::Arena>,
    qsbr: Arc<Qsbr>,
    clock: Clock,
    turn: Turn,
    core: Option<usize>,
    idle: Idle,
    idle_turns: u32,
    waker: Arc<Waker>,
    commands: Receiver<Command>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
}

impl Run {
    fn new(parts: Parts, commands: Receiver<Command>, stop: Arc<AtomicBool>, counters: Arc<WorkerCounters>) -> Self {
        let mut queues = Queues::default();
        for (worker, producer, waker) in parts.handoff {
            queues.connect(worker, producer, waker);
        }
        let frames: Frames = parts.pool.frames();
        Self {
            graph: parts.graph,
            arena: frames.arena().clone(),
            local: Local {
                frames,
                queues,
                held: Held::new(HELD_PER_NEIGHBOUR),
                parked: Held::new(PARKED_PER_PEER),
                pieces: Pieces::with_capacity(PIECES_MAX),
                gathered: VecDeque::with_capacity(GATHERED_MAX),
            },
            qsbr: parts.qsbr,
            clock: parts.clock,
            turn: Turn {
                now_ns: 0,
                worker: parts.number,
            },
            core: parts.core,
            idle: parts.idle,
            idle_turns: 0,
            waker: parts.waker,
            commands,
            stop,
            counters,
        }
    }

    fn run(&mut self) {
        if let Some(id) = self.core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let worker = usize::from(self.turn.worker);
        let start = clock::cycles();
        self.qsbr.online(worker);
        while !self.stop.load(Ordering::Relaxed) {
            let before = clock::cycles();
            self.turn.now_ns = self.clock.now_ns();
            self.obey();
            let carried = self.once();
            let after = clock::cycles();
            self.counters.cycles.set(after.wrapping_sub(start));
            if carried > 0 {
                self.counters.busy_cycles.add(after.wrapping_sub(before));
                self.idle_turns = 0;
                continue;
            }
            self.idle_turns += 1;
            if self.idle == Idle::Adaptive && self.idle_turns >= IDLE_TURNS {
                self.idle_turns = 0;
                self.sleep();
            } else {
                std::hint::spin_loop();
            }
        }
        self.end();
    }

    /// Does what control asked for. One load when it asked for nothing.
    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(port, queue, counters) => self.local.queues.attach(port, queue, counters),
                Command::Detach(port, done) => {
                    let closed = self.local.queues.detach(port);
                    closed.into_iter().for_each(|queue| queue.close(&mut self.local.frames));
                    let _ = done.send(());
                }
                Command::Join(vlan) => self.local.queues.join(vlan),
                Command::SetWay(port, way) if !self.local.queues.owns(port) => self.local.queues.set_way(port, way),
                Command::SetWay(..) => {}
                Command::SetUp(port, up) => self.local.queues.set_up(port, up),
                Command::Limit(port, limiter) => self.local.queues.limit(port, limiter),
                Command::Trace(tracer) => self.graph.trace(tracer),
                Command::Capture(capture) => self.graph.capture(capture),
                Command::Sample(done) => {
                    self.local.queues.sample();
                    let _ = done.send(());
                }
            }
        }
    }

    fn once(&mut self) -> usize {
        self.local.queues.set_now_ns(self.turn.now_ns);
        let carried = self.graph.turn(&self.turn, &self.arena, &mut self.local);
        self.local.queues.flush(&mut self.local.frames);
        self.qsbr.turn(usize::from(self.turn.worker));
        self.counters.turns.add(1);
        if carried > 0 {
            self.counters.busy_turns.add(1);
            self.counters.packets.add(carried as u64);
        }
        carried
    }

    /// Sleeps until a socket has packets, somebody wakes it, or half a second is over.
    fn sleep(&mut self) {
        self.waker.asleep.store(true, Ordering::Relaxed);
        // Either this sees work that was put before, or whoever puts it sees that we sleep.
        fence(Ordering::SeqCst);
        let idle = self.commands.is_empty() && !self.stop.load(Ordering::Relaxed);
        let busy = self.local.queues.each().any(|queue| queue.busy());
        let polled = self.local.queues.each().any(|queue| queue.wait_on().is_none());
        // One more turn looks at the rings of the other workers after the fence.
        if idle && !busy && self.once() == 0 {
            let mut waits: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(self.waker.event.as_fd(), PollFlags::IN)];
            let queues = self.local.queues.each().filter_map(|queue| queue.wait_on());
            waits.extend(queues.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let limit = Timespec {
                tv_sec: 0,
                tv_nsec: if polled { POLL_MS } else { SLEEP_MS } * 1_000_000,
            };
            let worker = usize::from(self.turn.worker);
            self.qsbr.offline(worker);
            // An interrupted or failed wait is a short one.
            let _ = poll(&mut waits, Some(&limit));
            self.qsbr.online(worker);
            self.counters.sleeps.add(1);
        }
        self.waker.asleep.store(false, Ordering::Relaxed);
        let _ = rustix::io::read(&self.waker.event, &mut [0; 8]);
    }

    fn end(&mut self) {
        let ports: Vec<PortId> = (0..=u16::MAX)
            .map(PortId)
            .filter(|port| self.local.queues.owns(*port))
            .collect();
        for port in ports {
            let closed = self.local.queues.detach(port);
            closed.into_iter().for_each(|queue| queue.close(&mut self.local.frames));
        }
        self.graph.close(&mut self.local.frames);
        let Local {
            held,
            parked,
            pieces,
            gathered,
            ..
        } = &mut self.local;
        let waiting = held.drain().chain(parked.drain());
        let waiting: Vec<_> = waiting.chain(pieces.drain(..)).chain(gathered.drain(..)).collect();
        waiting.into_iter().for_each(|frame| self.local.frames.give(frame));
        self.qsbr.offline(usize::from(self.turn.worker));
    }
}
