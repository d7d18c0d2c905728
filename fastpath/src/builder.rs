//! Wiring a graph: typed edges while it is built, mistakes named before it runs.

use crate::counters::Counters;
use crate::graph::{Graph, Placed, Stage};
use crate::node::{Label, Node, Sink, Source};
use crate::trace::Seen;
use crate::vector::Vector;
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
        Ok(Graph::new(stages, infos, sources))
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
