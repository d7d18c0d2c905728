//! The graph: typed edges when it is wired, plain indices when it runs.
#![allow(unsafe_code)]

use crate::arena::{Arena, FrameIndex};
use crate::batch::{Batch, DROP, Delivery, UNDECIDED};
use crate::clock;
use crate::counters::Counters;
use crate::local::Local;
use crate::meta::Flags;
use crate::node::{Label, Node, Sink, Source, Turn};
use crate::trace::{Fate, Seen, Tracer, Visit};
use crate::vector::{BATCH_MAX, Vector};
use std::marker::PhantomData;
use std::sync::Arc;

/// What can be said of a stage without running it. The same on every worker.
#[derive(Clone)]
pub struct StageInfo {
    /// Its name, with the suffix of its instance.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Names of its edges, and what each leads to, by index of the stage.
    pub edges: Vec<(&'static str, usize)>,
    /// Sentences of its edges; empty where an edge is no complaint.
    pub edge_sentences: &'static [&'static str],
    /// Names and sentences of its reasons to drop.
    pub drops: Vec<(&'static str, &'static str)>,
    /// Tells what it found about a packet.
    pub describe: fn(&Seen) -> String,
}

/// What a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Brings packets.
    Source,
    /// Decides.
    Node,
    /// Takes packets.
    Sink,
}

/// The name and sentence of packets that a stage left undecided.
pub const UNDECIDED_REASON: (&str, &str) = (
    "undecided",
    "A stage forgot to decide about this packet; please report it.",
);

trait AnyNode: Send {
    fn run(&mut self, turn: &Turn, arena: &Arena, inbox: &mut Vector, routes: &mut [u8]);
}

impl<N: Node> AnyNode for N {
    fn run(&mut self, turn: &Turn, arena: &Arena, inbox: &mut Vector, routes: &mut [u8]) {
        // SAFETY: the frames are in this stage's inbox and nowhere else until the engine scatters them.
        self.process(turn, &mut unsafe { Batch::new(arena, &inbox.0, routes) });
    }
}

/// What a stage runs on.
struct Ground<'a> {
    turn: &'a Turn,
    arena: &'a Arena,
    local: &'a mut Local,
}

trait AnySink: Send {
    fn run(&mut self, ground: &mut Ground<'_>, inbox: &mut Vector, refused: &mut Vector, counters: &Counters);
}

impl<S: Sink> AnySink for S {
    fn run(&mut self, ground: &mut Ground<'_>, inbox: &mut Vector, refused: &mut Vector, counters: &Counters) {
        // SAFETY: as for nodes; what the sink takes leaves the inbox.
        let mut delivery = unsafe { Delivery::new(ground.arena, inbox, refused, &counters.drops) };
        self.accept(ground.turn, ground.local, &mut delivery);
    }
}

trait AnySource: Send {
    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector);
}

impl<S: Source> AnySource for S {
    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        Source::poll(self, turn, local, room, into);
    }
}

enum Stage {
    Source(Box<dyn AnySource>),
    Node(Box<dyn AnyNode>),
    Sink(Box<dyn AnySink>),
}

/// A node of the graph under construction. Carries the node's type, so its edges are checked.
pub struct NodeId<N>(usize, PhantomData<fn(N)>);
/// A sink of the graph under construction.
#[derive(Clone, Copy)]
pub struct SinkId(usize);
/// Where an edge may lead.
#[derive(Clone, Copy)]
pub struct Target(usize);

impl<N> Clone for NodeId<N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<N> Copy for NodeId<N> {}
impl<N> From<NodeId<N>> for Target {
    fn from(id: NodeId<N>) -> Self {
        Self(id.0)
    }
}
impl From<SinkId> for Target {
    fn from(id: SinkId) -> Self {
        Self(id.0)
    }
}

/// Why a graph cannot run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WiringError {
    /// An edge leads nowhere.
    #[error("the edge `{edge}` of node `{node}` leads nowhere")]
    Unconnected {
        /// The node.
        node: String,
        /// Its edge.
        edge: &'static str,
    },
    /// An edge was connected twice.
    #[error("the edge `{edge}` of node `{node}` is connected twice")]
    ConnectedTwice {
        /// The node.
        node: String,
        /// Its edge.
        edge: &'static str,
    },
    /// Two stages have one name.
    #[error("two stages are called `{node}`")]
    SameName {
        /// The name.
        node: String,
    },
    /// A packet could come back to where it was.
    #[error("node `{node}` lies on a cycle, or behind one")]
    Cycle {
        /// The first such node.
        node: String,
    },
}

struct Draft {
    info: StageInfo,
    stage: Stage,
    targets: Vec<Option<usize>>,
}

/// Collects sources, nodes, sinks and edges; [`GraphBuilder::build`] turns them into a [`Graph`].
#[derive(Default)]
pub struct GraphBuilder {
    drafts: Vec<Draft>,
    error: Option<WiringError>,
}

impl GraphBuilder {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, info: StageInfo, stage: Stage) -> usize {
        if self.drafts.iter().any(|draft| draft.info.name == info.name) {
            self.error.get_or_insert(WiringError::SameName {
                node: info.name.clone(),
            });
        }
        let targets = vec![None; info.edge_sentences.len()];
        self.drafts.push(Draft { info, stage, targets });
        self.drafts.len() - 1
    }

    /// Adds a node.
    pub fn node<N: Node>(&mut self, node: N) -> NodeId<N> {
        self.named(node, N::NAME.to_owned())
    }

    /// Adds a second instance of a node, as `name/suffix`.
    pub fn instance<N: Node>(&mut self, node: N, suffix: &str) -> NodeId<N> {
        self.named(node, format!("{}/{suffix}", N::NAME))
    }

    fn named<N: Node>(&mut self, node: N, name: String) -> NodeId<N> {
        let info = StageInfo {
            name,
            kind: Kind::Node,
            edges: N::Next::NAMES.iter().map(|name| (*name, usize::MAX)).collect(),
            edge_sentences: N::Next::SENTENCES,
            drops: reasons::<N::Drop>(),
            describe: N::describe,
        };
        NodeId(self.add(info, Stage::Node(Box::new(node))), PhantomData)
    }

    /// Adds a sink.
    pub fn sink<S: Sink>(&mut self, sink: S) -> SinkId {
        let info = StageInfo {
            name: S::NAME.to_owned(),
            kind: Kind::Sink,
            edges: vec![],
            edge_sentences: &[],
            drops: reasons::<S::Drop>(),
            describe: S::describe,
        };
        SinkId(self.add(info, Stage::Sink(Box::new(sink))))
    }

    /// Adds a source that feeds `to`.
    pub fn source<S: Source>(&mut self, source: S, to: impl Into<Target>) {
        let info = StageInfo {
            name: S::NAME.to_owned(),
            kind: Kind::Source,
            edges: vec![("", usize::MAX)],
            edge_sentences: &[""],
            drops: vec![],
            describe: |_| String::new(),
        };
        let at = self.add(info, Stage::Source(Box::new(source)));
        self.drafts[at].targets[0] = Some(to.into().0);
    }

    /// Leads `edge` of `from` to `to`.
    pub fn connect<N: Node>(&mut self, from: NodeId<N>, edge: N::Next, to: impl Into<Target>) {
        let draft = &mut self.drafts[from.0];
        if draft.targets[usize::from(edge.index())].replace(to.into().0).is_some() {
            let edge = N::Next::NAMES[usize::from(edge.index())];
            self.error.get_or_insert(WiringError::ConnectedTwice {
                node: draft.info.name.clone(),
                edge,
            });
        }
    }

    /// Orders the stages so that every edge points forward.
    ///
    /// # Errors
    /// The first mistake in the wiring.
    pub fn build(self) -> Result<Graph, WiringError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let order = order(&self.drafts)?;
        let mut place = vec![0; order.len()];
        for (position, &draft) in order.iter().enumerate() {
            place[draft] = position;
        }
        let mut drafts: Vec<Option<Draft>> = self.drafts.into_iter().map(Some).collect();
        let mut stages = Vec::with_capacity(order.len());
        let mut infos = Vec::with_capacity(order.len());
        for &draft in &order {
            let Some(Draft {
                mut info,
                stage,
                targets,
            }) = drafts[draft].take()
            else {
                continue;
            };
            let targets: Box<[usize]> = targets.into_iter().flatten().map(|to| place[to]).collect();
            info.edges
                .iter_mut()
                .zip(&targets)
                .for_each(|(edge, target)| edge.1 = *target);
            let counters = Arc::new(Counters::new(targets.len(), info.drops.len()));
            stages.push(Placed {
                stage,
                inbox: Vector::default(),
                targets,
                counters,
            });
            infos.push(info);
        }
        let sources = infos.iter().filter(|info| info.kind == Kind::Source).count();
        Ok(Graph {
            stages: stages.into(),
            sources,
            first: 0,
            refused: Vector::default(),
            tracer: None,
            infos: infos.into(),
        })
    }
}

fn reasons<L: Label>() -> Vec<(&'static str, &'static str)> {
    let named = L::NAMES.iter().copied().zip(L::SENTENCES.iter().copied());
    named.chain([UNDECIDED_REASON]).collect()
}

/// Kahn's algorithm. Sources come first, in the order they were added.
fn order(drafts: &[Draft]) -> Result<Vec<usize>, WiringError> {
    let mut waiting = vec![0; drafts.len()];
    for draft in drafts {
        for (target, edge) in draft.targets.iter().zip(&draft.info.edges) {
            let unconnected = || WiringError::Unconnected {
                node: draft.info.name.clone(),
                edge: edge.0,
            };
            waiting[target.ok_or_else(unconnected)?] += 1;
        }
    }
    let is_source = |at: usize| drafts[at].info.kind == Kind::Source;
    let roots = |sources: bool| {
        let waiting = &waiting;
        (0..drafts.len())
            .rev()
            .filter(move |&at| waiting[at] == 0 && is_source(at) == sources)
    };
    let mut ready: Vec<usize> = roots(false).chain(roots(true)).collect();
    let mut order = Vec::with_capacity(drafts.len());
    // All sources leave `ready` before anything they lead to enters it.
    let sources = drafts.iter().filter(|draft| draft.info.kind == Kind::Source).count();
    order.extend(ready.drain(ready.len() - sources..).rev());
    let mut next = 0;
    loop {
        while next < order.len() {
            for &to in drafts[order[next]].targets.iter().flatten() {
                waiting[to] -= 1;
                if waiting[to] == 0 {
                    ready.push(to);
                }
            }
            next += 1;
        }
        match ready.pop() {
            Some(stage) => order.push(stage),
            None => break,
        }
    }
    match (0..drafts.len()).find(|at| !order.contains(at)) {
        Some(left) => Err(WiringError::Cycle {
            node: drafts[left].info.name.clone(),
        }),
        None => Ok(order),
    }
}

struct Placed {
    stage: Stage,
    inbox: Vector,
    targets: Box<[usize]>,
    counters: Arc<Counters>,
}

/// One worker's graph: stages in topological order, empty between turns.
pub struct Graph {
    stages: Box<[Placed]>,
    sources: usize,
    /// The source that is asked first in the next turn.
    first: usize,
    refused: Vector,
    tracer: Option<Tracer>,
    infos: Arc<[StageInfo]>,
}

impl Graph {
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
        placed.scatter(routes, ahead, at + 1, ground.local);
    }

    fn deliver(&mut self, ground: &mut Ground<'_>, at: usize) {
        let placed = &mut self.stages[at];
        if let Some(tracer) = &self.tracer {
            record(tracer, ground, at, &mut placed.inbox.0, |_| Fate::Taken);
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
            placed.counters.drops[placed.counters.drops.len() - 1].add(placed.inbox.len() as u64);
            self.refused.0.append(&mut placed.inbox.0);
        }
        self.refused.drain().for_each(|frame| ground.local.frames.give(frame));
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

impl Placed {
    /// Moves every packet to the inbox its route names. A unanimous vector moves as a whole.
    fn scatter(&mut self, routes: &[u8], ahead: &mut [Placed], first: usize, local: &mut Local) {
        let edge = usize::from(routes[0]);
        if routes[0] < DROP && routes.iter().all(|route| *route == routes[0]) {
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
