//! A graph of one node of the classifier: packets in, their fates out.

use fastpath::arena::Arena;
use fastpath::batch::Delivery;
use fastpath::builder::GraphBuilder;
use fastpath::clock::Clock;
use fastpath::local::Local;
use fastpath::meta::Meta;
use fastpath::node::{Label, Never, Node, Sink, Source, Turn};
use fastpath::pool::Pool;
use fastpath::qsbr::Qsbr;
use fastpath::vector::Vector;
use fastpath::worker::{Idle, ManualWorker, Parts, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A packet to be fed: what is known of it, and its bytes.
pub type Fed = (Meta, Vec<u8>);

/// Ways that packets left by, with what was known of them then; and reasons for which others were dropped, with how many.
pub type Fates = (Vec<(&'static str, Meta)>, Vec<(&'static str, u64)>);

/// Which way a packet left, and what was known of it then.
type Taken = Arc<Mutex<Vec<(&'static str, Meta)>>>;

struct Feed(Arc<Mutex<VecDeque<Fed>>>);

impl Source for Feed {
    const NAME: &'static str = "feed";

    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        let mut waiting = self.0.lock().unwrap();
        for _ in 0..room {
            let Some((meta, bytes)) = waiting.pop_front() else {
                return;
            };
            let mut frame = local.frames.take().unwrap();
            let packet = &mut local.frames.packet(&mut frame);
            *packet.meta = meta;
            packet.fill(256, &bytes).unwrap();
            into.push(frame);
        }
    }
}

macro_rules! ends {
    ($($name:ident = $text:literal),+) => {$(
        struct $name(&'static str, Taken);
        impl Sink for $name {
            const NAME: &'static str = $text;
            type Drop = Never;
            fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
                for place in 0..delivery.len() {
                    self.1.lock().unwrap().push((self.0, *delivery.packet(place).meta));
                }
                delivery.vector().drain().for_each(|frame| local.frames.give(frame));
            }
        }
    )+};
}
ends!(First = "first", Second = "second");

/// The graph, and a worker that turns it.
pub struct Bench {
    worker: ManualWorker,
    waiting: Arc<Mutex<VecDeque<Fed>>>,
    taken: Taken,
    drops: Vec<u64>,
    now_ns: u64,
}

impl Bench {
    /// Of a node with one or two edges.
    pub fn new<N: Node>(node: N, edges: &[N::Next], qsbr: &Arc<Qsbr>) -> Bench {
        let (waiting, taken) = (Arc::<Mutex<VecDeque<Fed>>>::default(), Taken::default());
        let (arena, frames) = Arena::new(1024).unwrap();
        let mut graph = GraphBuilder::new();
        let node = graph.node(node);
        graph.source(Feed(waiting.clone()), node);
        let name = |edge: &N::Next| N::Next::NAMES[usize::from(edge.index())];
        let first = graph.sink(First(name(&edges[0]), taken.clone()));
        graph.connect(node, edges[0], first);
        if let Some(edge) = edges.get(1) {
            let second = graph.sink(Second(name(edge), taken.clone()));
            graph.connect(node, *edge, second);
        }
        let parts = Parts {
            number: 0,
            core: None,
            idle: Idle::Adaptive,
            graph: graph.build().unwrap(),
            pool: Pool::new(arena, frames),
            qsbr: qsbr.clone(),
            clock: Clock::new(),
            waker: Arc::new(Waker::new().unwrap()),
            handoff: vec![],
        };
        let (worker, _) = ManualWorker::new(parts);
        Bench {
            worker,
            waiting,
            taken,
            drops: vec![0; N::Drop::NAMES.len()],
            now_ns: 0,
        }
    }

    /// Feeds at most a vector. What left, in order; and the reasons for which others were dropped, by name.
    pub fn run(&mut self, packets: impl IntoIterator<Item = Fed>) -> Fates {
        self.waiting.lock().unwrap().extend(packets);
        self.now_ns += 1;
        self.worker.turn(self.now_ns);
        assert!(self.waiting.lock().unwrap().is_empty(), "more than a vector");
        let graph = self.worker.graph();
        let node = graph
            .stages()
            .iter()
            .position(|stage| !stage.drops.is_empty() && !stage.edges.is_empty());
        let node = node.unwrap();
        let (names, counters) = (&graph.stages()[node].drops, &graph.counters()[node].drops);
        assert_eq!(counters[self.drops.len()].read(), 0, "somebody was not decided about");
        let mut drops = vec![];
        for (place, before) in self.drops.iter_mut().enumerate() {
            let now = counters[place].read();
            if now != *before {
                drops.push((names[place].0, now - *before));
            }
            *before = now;
        }
        (std::mem::take(&mut *self.taken.lock().unwrap()), drops)
    }

    /// What becomes of one packet: the name of its edge, or of the reason why it is dropped.
    pub fn fate(&mut self, packet: Fed) -> &'static str {
        match self.run([packet]) {
            (taken, _) if !taken.is_empty() => taken[0].0,
            (_, drops) => drops[0].0,
        }
    }
}
