//! One node alone in a graph: a packet in, and what became of it.

use fastpath::arena::Arena;
use fastpath::batch::Delivery;
use fastpath::builder::GraphBuilder;
use fastpath::clock::Clock;
use fastpath::local::Local;
use fastpath::meta::{Endpoint, Flags, Meta};
use fastpath::node::{Never, Node, Sink, Source, Turn};
use fastpath::pool::Pool;
use fastpath::qsbr::Qsbr;
use fastpath::vector::Vector;
use fastpath::wire::ethernet;
use fastpath::worker::{Idle, ManualWorker, Parts, Waker};
use std::sync::{Arc, Mutex};

/// A packet, as the node before would have left it.
pub type Sent = (Meta, Vec<u8>);

/// The first packet of a connection, of IPv4 and with the ports alone.
pub fn opening(protocol: u8, source: ([u8; 4], u16), target: ([u8; 4], u16)) -> Sent {
    let mut meta = Meta::default();
    (meta.source, meta.target) = (Endpoint::v4(source.0, source.1), Endpoint::v4(target.0, target.1));
    (meta.protocol, meta.flow, meta.flags) = (protocol, crate::leg::NONE, Flags::IPV4);
    (meta.network_offset, meta.transport_offset) = (ethernet::HEADER as u8, 20);
    let mut bytes = vec![0; 14 + 20 + 20];
    bytes[26..30].copy_from_slice(&source.0);
    bytes[30..34].copy_from_slice(&target.0);
    bytes[34..36].copy_from_slice(&source.1.to_be_bytes());
    bytes[36..38].copy_from_slice(&target.1.to_be_bytes());
    (meta, bytes)
}

/// The node under test.
pub struct Alone {
    worker: ManualWorker,
    given: Arc<Mutex<Option<Sent>>>,
    left: Arc<Mutex<Option<(usize, Meta)>>>,
    stage: usize,
}

struct Given(Arc<Mutex<Option<Sent>>>);

impl Source for Given {
    const NAME: &'static str = "given";

    fn poll(&mut self, _: &Turn, local: &mut Local, _: usize, into: &mut Vector) {
        if let Some((meta, bytes)) = self.0.lock().unwrap().take() {
            let mut frame = local.frames.take().unwrap();
            let mut packet = local.frames.packet(&mut frame);
            // Where the bytes are is known to the frame's own meta alone.
            let own = &mut *packet.meta;
            (own.source, own.target, own.protocol, own.flags) = (meta.source, meta.target, meta.protocol, meta.flags);
            (own.flow, own.port, own.vrf, own.reserved) = (meta.flow, meta.port, meta.vrf, meta.reserved);
            (own.network_offset, own.transport_offset) = (meta.network_offset, meta.transport_offset);
            packet.fill(256, &bytes).unwrap();
            into.push(frame);
        }
    }
}

macro_rules! sinks {
    ($($name:ident = $edge:literal),+) => {$(
        struct $name(Arc<Mutex<Option<(usize, Meta)>>>);

        impl Sink for $name {
            const NAME: &'static str = stringify!($name);
            type Drop = Never;

            fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
                for at in 0..delivery.len() {
                    *self.0.lock().unwrap() = Some(($edge, *delivery.packet(at).meta));
                }
                delivery.vector().drain().for_each(|frame| local.frames.give(frame));
            }
        }
    )+};
}
sinks!(First = 0, Second = 1);

impl Alone {
    /// A node with two edges.
    pub fn new<N: Node>(node: N, edges: [N::Next; 2]) -> Self {
        let (given, left) = (Arc::default(), Arc::default());
        let mut graph = GraphBuilder::new();
        let node = graph.node(node);
        let (first, second) = (
            graph.sink(First(Arc::clone(&left))),
            graph.sink(Second(Arc::clone(&left))),
        );
        graph.source(Given(Arc::clone(&given)), node);
        graph.connect(node, edges[0], first);
        graph.connect(node, edges[1], second);
        let (arena, frames) = Arena::new(64).unwrap();
        let parts = Parts {
            number: 0,
            core: None,
            idle: Idle::Adaptive,
            graph: graph.build().unwrap(),
            pool: Pool::new(arena, frames),
            qsbr: Arc::new(Qsbr::new(1)),
            clock: Clock::new(),
            waker: Arc::new(Waker::new().unwrap()),
            handoff: vec![],
        };
        let stage = parts.graph.stages().iter().position(|stage| stage.name == N::NAME);
        let (stage, worker) = (stage.unwrap(), ManualWorker::new(parts).0);
        Self {
            worker,
            given,
            left,
            stage,
        }
    }

    /// The edge that a packet leaves by, and its meta then; or the index of the reason it is dropped for.
    pub fn send(&mut self, packet: Sent, now_s: u64) -> Result<(usize, Meta), usize> {
        let before = self.dropped();
        *self.given.lock().unwrap() = Some(packet);
        self.worker.turn(now_s * 1_000_000_000);
        let left = self.left.lock().unwrap().take();
        let after = self.dropped();
        let counted = || before.iter().zip(&after).position(|(before, after)| before != after);
        left.ok_or_else(|| counted().unwrap())
    }

    fn dropped(&self) -> Vec<u64> {
        let drops = &self.worker.graph().counters()[self.stage].drops;
        drops.iter().map(|counter| counter.read()).collect()
    }
}
