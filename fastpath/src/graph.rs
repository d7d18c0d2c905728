//! A running graph: stages in topological order, plain indices for edges.
#![allow(unsafe_code)]

use crate::arena::{Arena, FrameIndex};
use crate::batch::{Batch, DROP, Delivery, Refused, UNDECIDED};
use crate::builder::StageInfo;
use crate::capture::{Capture, Reason};
use crate::clock;
use crate::counters::Counters;
use crate::local::Local;
use crate::meta::Flags;
use crate::node::{Node, Sink, Source, Turn};
use crate::pool::Frames;
use crate::trace::{Fate, Seen, Tracer, Visit};
use crate::vector::{BATCH_MAX, Vector};
use std::sync::Arc;

pub(crate) trait AnyNode: Send {
    fn run(&mut self, turn: &Turn, arena: &Arena, inbox: &mut Vector, routes: &mut [u8]);
}

impl<N: Node> AnyNode for N {
    fn run(&mut self, turn: &Turn, arena: &Arena, inbox: &mut Vector, routes: &mut [u8]) {
        // SAFETY: the frames are in this stage's inbox and nowhere else until the engine scatters them.
        self.process(turn, &mut unsafe { Batch::new(arena, &inbox.0, routes) });
    }
}

/// What a stage runs on.
pub(crate) struct Ground<'a> {
    turn: &'a Turn,
    arena: &'a Arena,
    local: &'a mut Local,
}

pub(crate) trait AnySink: Send {
    fn run(&mut self, ground: &mut Ground<'_>, inbox: &mut Vector, refused: &mut Refused, counters: &Counters);
}

impl<S: Sink> AnySink for S {
    fn run(&mut self, ground: &mut Ground<'_>, inbox: &mut Vector, refused: &mut Refused, counters: &Counters) {
        // SAFETY: as for nodes; what the sink takes leaves the inbox.
        let mut delivery = unsafe { Delivery::new(ground.arena, inbox, refused, &counters.drops) };
        self.accept(ground.turn, ground.local, &mut delivery);
    }
}

pub(crate) trait AnySource: Send {
    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector);
    fn close(&mut self, frames: &mut Frames);
}

impl<S: Source> AnySource for S {
    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        Source::poll(self, turn, local, room, into);
    }

    fn close(&mut self, frames: &mut Frames) {
        Source::close(self, frames);
    }
}

pub(crate) enum Stage {
    Source(Box<dyn AnySource>),
    Node(Box<dyn AnyNode>),
    Sink(Box<dyn AnySink>),
}

pub(crate) struct Placed {
    pub stage: Stage,
    pub inbox: Vector,
    pub targets: Box<[usize]>,
    pub counters: Arc<Counters>,
}

/// One worker's graph: stages in topological order, empty between turns.
pub struct Graph {
    stages: Box<[Placed]>,
    sources: usize,
    /// The source that is asked first in the next turn.
    first: usize,
    refused: Refused,
    tracer: Option<Tracer>,
    capture: Option<Capture>,
    infos: Arc<[StageInfo]>,
}

impl Graph {
    pub(crate) fn new(stages: Vec<Placed>, infos: Vec<StageInfo>, sources: usize) -> Self {
        let (stages, infos) = (stages.into(), infos.into());
        Self {
            stages,
            sources,
            first: 0,
            refused: Refused::default(),
            tracer: None,
            capture: None,
            infos,
        }
    }

    /// The stages, in the order they run.
    pub fn stages(&self) -> &Arc<[StageInfo]> {
        &self.infos
    }

    /// Counters of every stage, in the order of [`Self::stages`], for control to read.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.stages.iter().map(|stage| stage.counters.clone()).collect()
    }

    /// Arms a trace, or ends it.
    pub fn trace(&mut self, tracer: Option<Tracer>) {
        self.tracer = tracer;
    }

    /// Arms a capture, or ends it.
    pub fn capture(&mut self, capture: Option<Capture>) {
        self.capture = capture;
    }

    /// Has sources give up the frames that they keep.
    pub(crate) fn close(&mut self, frames: &mut Frames) {
        for placed in &mut self.stages {
            if let Stage::Source(source) = &mut placed.stage {
                source.close(frames);
            }
        }
    }

    /// Inhales at most one vector and carries every packet to a sink. How many packets there were.
    ///
    /// `arena` is the one that `local`'s frames are of; it comes beside them so that a stage can look at packets
    /// while it moves frames.
    pub(crate) fn turn(&mut self, turn: &Turn, arena: &Arena, local: &mut Local) -> usize {
        if self.tracer.as_mut().is_some_and(|tracer| tracer.is_over(turn.now_ns)) {
            self.tracer = None;
        }
        let mut clock = clock::cycles();
        let ground = &mut Ground { turn, arena, local };
        let inhaled = self.inhale(ground, &mut clock);
        if inhaled == 0 {
            return 0;
        }
        let mut routes = [UNDECIDED; BATCH_MAX];
        for at in self.sources..self.stages.len() {
            let length = self.stages[at].inbox.len();
            if length == 0 {
                continue;
            }
            match self.stages[at].stage {
                Stage::Sink(_) => self.deliver(ground, at),
                _ => self.decide(ground, at, &mut routes[..length]),
            }
            let now = clock::cycles();
            let counters = &self.stages[at].counters;
            counters.calls.add(1);
            counters.vectors.add(1);
            counters.packets.add(length as u64);
            counters.cycles.add(now.wrapping_sub(clock));
            clock = now;
        }
        inhaled
    }

    /// Asks every source. They share one budget, so no inbox can overflow however edges merge.
    fn inhale(&mut self, ground: &mut Ground<'_>, clock: &mut u64) -> usize {
        let mut room = BATCH_MAX;
        for step in 0..self.sources {
            let at = (self.first + step) % self.sources;
            let (sources, stages) = self.stages.split_at_mut(self.sources);
            let placed = &mut sources[at];
            let Stage::Source(source) = &mut placed.stage else {
                continue;
            };
            let inbox = &mut stages[placed.targets[0] - self.sources].inbox;
            let before = inbox.len();
            source.poll(ground.turn, ground.local, room, inbox);
            let received = inbox.len() - before;
            let now = clock::cycles();
            placed.counters.calls.add(1);
            if received > 0 {
                placed.counters.vectors.add(1);
                placed.counters.packets.add(received as u64);
                placed.counters.cycles.add(now.wrapping_sub(*clock));
                placed.counters.edges[0].add(received as u64);
                room -= received;
                if self.tracer.is_some() {
                    self.mark(ground, at, before);
                }
                if let Some(capture) = &self.capture
                    && capture.watches_source(&self.infos[at].name)
                {
                    let frames = &mut self.stages[self.stages[at].targets[0]].inbox.0[before..];
                    see(capture, ground, frames, None);
                }
            }
            *clock = now;
        }
        self.first = (self.first + 1) % self.sources.max(1);
        BATCH_MAX - room
    }

    fn decide(&mut self, ground: &mut Ground<'_>, at: usize, routes: &mut [u8]) {
        let (reached, ahead) = self.stages.split_at_mut(at + 1);
        let placed = &mut reached[at];
        routes.fill(UNDECIDED);
        if let Stage::Node(node) = &mut placed.stage {
            node.run(ground.turn, ground.arena, &mut placed.inbox, routes);
        }
        debug_assert!(
            !routes.contains(&UNDECIDED),
            "`{}` left a packet undecided",
            self.infos[at].name
        );
        if let Some(tracer) = &self.tracer {
            let fate = |index: usize| match routes[index] {
                route if route < DROP => Fate::Edge(route),
                route => Fate::Dropped(route & !DROP),
            };
            record(tracer, ground, at, &mut placed.inbox.0, fate);
        }
        if let Some(capture) = &self.capture
            && capture.watches_drops()
        {
            see_dropped(capture, ground, at, &mut placed.inbox.0, routes);
        }
        placed.scatter(routes, ahead, at + 1, ground.local);
    }

    fn deliver(&mut self, ground: &mut Ground<'_>, at: usize) {
        let placed = &mut self.stages[at];
        if let Some(tracer) = &self.tracer {
            record(tracer, ground, at, &mut placed.inbox.0, |_| Fate::Taken);
        }
        if let Some(capture) = &self.capture
            && capture.watches_sink(&self.infos[at].name)
        {
            see(capture, ground, &mut placed.inbox.0, None);
        }
        if let Stage::Sink(sink) = &mut placed.stage {
            sink.run(ground, &mut placed.inbox, &mut self.refused, &placed.counters);
        }
        debug_assert!(
            placed.inbox.is_empty(),
            "`{}` left a packet undecided",
            self.infos[at].name
        );
        if !placed.inbox.is_empty() {
            let last = placed.counters.drops.len() - 1;
            placed.counters.drops[last].add(placed.inbox.len() as u64);
            self.refused.append(&mut placed.inbox, last as u8);
        }
        let Refused { frames, reasons } = &mut self.refused;
        if let Some(capture) = &self.capture
            && capture.watches_drops()
        {
            see_dropped(capture, ground, at, &mut frames.0, reasons);
        }
        reasons.clear();
        frames.drain().for_each(|frame| ground.local.frames.give(frame));
    }

    /// Marks the packets that the armed trace wants among those just received.
    fn mark(&mut self, ground: &mut Ground<'_>, source: usize, from: usize) {
        let Some(tracer) = &self.tracer else { return };
        let target = self.stages[source].targets[0];
        let frames = &mut self.stages[target].inbox.0[from..];
        for frame in frames.iter_mut() {
            let mut packet = ground.local.frames.packet(frame);
            if !packet.meta.flags.has(Flags::TRACED) && tracer.wants(packet.data()) {
                packet.meta.flags.set(Flags::TRACED);
            }
        }
        record(tracer, ground, source, frames, |_| Fate::Entered);
    }
}

/// Records the visit of every traced packet among `frames`.
fn record(
    tracer: &Tracer,
    ground: &mut Ground<'_>,
    stage: usize,
    frames: &mut [FrameIndex],
    fate: impl Fn(usize) -> Fate,
) {
    for (index, frame) in frames.iter_mut().enumerate() {
        let number = frame.0;
        let mut packet = ground.local.frames.packet(frame);
        if packet.meta.flags.has(Flags::TRACED) {
            let (meta, data) = packet.split();
            tracer.record(Visit {
                frame: number,
                at_ns: ground.turn.now_ns,
                cycles: clock::cycles(),
                worker: ground.turn.worker,
                stage: stage as u16,
                fate: fate(index),
                seen: Seen::new(meta, data),
            });
        }
    }
}

/// Shows packets to an armed capture.
fn see(capture: &Capture, ground: &mut Ground<'_>, frames: &mut [FrameIndex], reason: Option<Reason>) {
    for frame in frames {
        let mut packet = ground.local.frames.packet(frame);
        let (meta, data) = packet.split();
        capture.see(meta, data, ground.turn.now_ns, reason);
    }
}

/// Shows those of `frames` to an armed capture that are dropped. A sink's reasons are marked as those of nodes are.
fn see_dropped(capture: &Capture, ground: &mut Ground<'_>, stage: usize, frames: &mut [FrameIndex], routes: &[u8]) {
    for (frame, route) in frames.iter_mut().zip(routes).filter(|(_, route)| **route >= DROP) {
        let reason = Reason {
            stage: stage as u16,
            drop: route & !DROP,
        };
        see(capture, ground, std::slice::from_mut(frame), Some(reason));
    }
}

impl Placed {
    /// Moves every packet to the inbox its route names. A unanimous vector moves as a whole.
    fn scatter(&mut self, routes: &[u8], ahead: &mut [Placed], first: usize, local: &mut Local) {
        let edge = usize::from(routes[0]);
        // Without an early end, so that it is done in wide words.
        let unlike = routes.iter().fold(0, |unlike, route| unlike | route ^ routes[0]);
        if routes[0] < DROP && unlike == 0 {
            self.counters.edges[edge].add(routes.len() as u64);
            let inbox = &mut ahead[self.targets[edge] - first].inbox;
            if inbox.is_empty() {
                std::mem::swap(inbox, &mut self.inbox);
            } else {
                inbox.0.append(&mut self.inbox.0);
            }
            return;
        }
        for (frame, &route) in self.inbox.0.drain(..).zip(routes) {
            if route < DROP {
                self.counters.edges[usize::from(route)].add(1);
                ahead[self.targets[usize::from(route)] - first].inbox.push(frame);
            } else {
                let reason = usize::from(route & !DROP).min(self.counters.drops.len() - 1);
                self.counters.drops[reason].add(1);
                local.frames.give(frame);
            }
        }
    }
}
