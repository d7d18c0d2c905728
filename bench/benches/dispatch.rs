//! What the engine itself costs: going from node to node, splitting, rings between workers, the pool of frames.
//! `cargo bench -p bench --bench dispatch`

use bench::report::record;
use bench::rig::{OUR_MAC, Turner};
use bench::spread::Spread;
use bench::traffic::{Generator, udp};
use fastpath::arena::{Arena, FrameIndex};
use fastpath::batch::Batch;
use fastpath::builder::{GraphBuilder, NodeId};
use fastpath::clock;
use fastpath::labels;
use fastpath::node::{Never, Node, Turn};
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::Consumed;
use fastpath::pool::{Frames, Pool};
use fastpath::qsbr::Qsbr;
use fastpath::ring::ring;
use fastpath::vector::{BATCH_MAX, Vector};
use std::sync::Arc;

/// The table of the report.
const TABLE: &str = "The engine";
/// Nodes of the chain.
const CHAIN: usize = 8;
/// Times each part is measured.
const RUNS: usize = 1001;

labels! {
    /// Where all packets go.
    enum Only { Next = "next" }
    /// Where every other packet goes.
    enum Either { Even = "even", Odd = "odd" }
}

/// Sends every packet on without a look.
struct Pass;

impl Node for Pass {
    const NAME: &'static str = "pass";
    type Next = Only;
    type Drop = Never;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|_| Ok(Only::Next));
    }
}

/// Sends packets by turns to one side and to the other: the worst there is for vectors.
struct Split(bool);

impl Node for Split {
    const NAME: &'static str = "split";
    type Next = Either;
    type Drop = Never;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|_| {
            self.0 = !self.0;
            Ok(if self.0 { Either::Odd } else { Either::Even })
        });
    }
}

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    for size in [256, 16, 1] {
        let cost = chain(size).measure("consumed").cycles;
        let each = Spread {
            median: cost.median / CHAIN as f64,
            minimum: cost.minimum / CHAIN as f64,
            maximum: cost.maximum / CHAIN as f64,
        };
        record(
            TABLE,
            &format!("a node that does nothing, vectors of {size}"),
            "cycles a packet",
            each,
        );
    }
    let cost = split().measure("consumed");
    let splitter = cost.stages.iter().find(|stage| stage.name == "split");
    if let Some(stage) = splitter {
        record(
            TABLE,
            "a vector split in two, packet by packet",
            "cycles a packet",
            stage.cycles,
        );
    }
    let (arena, frames) = Arena::new(4096).expect("memory");
    let mut frames = Pool::new(arena, frames).frames();
    through_ring(&mut frames);
    through_pool(&mut frames);
}

fn generator(size: usize) -> Generator {
    let packet = udp(OUR_MAC, ([10, 1, 0, 2].into(), 1024), ([20, 0, 0, 1].into(), 4096));
    Generator::new(vec![packet], size)
}

fn chain(size: usize) -> Turner {
    let mut graph = GraphBuilder::new();
    let nodes: Vec<NodeId<Pass>> = (0..CHAIN).map(|at| graph.instance(Pass, &at.to_string())).collect();
    let end = graph.sink(Consumed);
    graph.source(PortIn, nodes[0]);
    for pair in nodes.windows(2) {
        graph.connect(pair[0], Only::Next, pair[1]);
    }
    graph.connect(nodes[CHAIN - 1], Only::Next, end);
    let graph = graph.build().expect("a chain");
    Turner::new(graph, Arc::new(Qsbr::new(1)), generator(size))
}

fn split() -> Turner {
    let mut graph = GraphBuilder::new();
    let split = graph.node(Split(false));
    let (even, odd) = (graph.instance(Pass, "even"), graph.instance(Pass, "odd"));
    let end = graph.sink(Consumed);
    graph.source(PortIn, split);
    graph.connect(split, Either::Even, even);
    graph.connect(split, Either::Odd, odd);
    graph.connect(even, Only::Next, end);
    graph.connect(odd, Only::Next, end);
    let graph = graph.build().expect("a fork");
    Turner::new(graph, Arc::new(Qsbr::new(1)), generator(BATCH_MAX))
}

/// A vector into a ring and out of it, by one thread: what it costs without a fight for cache lines.
fn through_ring(frames: &mut Frames) {
    let (mut producer, mut consumer) = ring(1024);
    let mut going: Vec<FrameIndex> = std::iter::from_fn(|| frames.take()).take(BATCH_MAX).collect();
    let mut coming = Vector::default();
    let one = |_| {
        let start = clock::cycles();
        producer.send(&mut going);
        consumer.receive(BATCH_MAX, &mut coming);
        let cycles = clock::cycles() - start;
        going.extend(coming.drain());
        cycles as f64 / BATCH_MAX as f64
    };
    let spread = Spread::of((0..RUNS).map(one));
    record(
        TABLE,
        "into a ring and out of it, vectors of 256",
        "cycles a packet",
        spread,
    );
    going.into_iter().for_each(|frame| frames.give(frame));
}

/// A vector of frames out of the pool and back.
fn through_pool(frames: &mut Frames) {
    let mut taken = Vec::with_capacity(BATCH_MAX);
    let one = |_| {
        let start = clock::cycles();
        taken.extend(std::iter::from_fn(|| frames.take()).take(BATCH_MAX));
        taken.drain(..).for_each(|frame| frames.give(frame));
        (clock::cycles() - start) as f64 / BATCH_MAX as f64
    };
    let spread = Spread::of((0..RUNS).map(one));
    record(
        TABLE,
        "out of the pool and back, vectors of 256",
        "cycles a packet",
        spread,
    );
}
