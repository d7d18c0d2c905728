//! The engine alone: every frame reaches exactly one sink, mistakes in the wiring are named, nothing leaks.

use fastpath::arena::Arena;
use fastpath::batch::{Batch, Delivery};
use fastpath::builder::{GraphBuilder, WiringError};
use fastpath::clock::Clock;
use fastpath::graph::Graph;
use fastpath::labels;
use fastpath::local::{Local, Way};
use fastpath::meta::{Meta, PortId};
use fastpath::node::{Never, Node, Sink, Source, Turn};
use fastpath::nodes::inbound::Handoff;
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::PortOut;
use fastpath::pool::Pool;
use fastpath::port::memory::{MemoryEnd, memory};
use fastpath::port::{Queue, QueueCounters};
use fastpath::publish::{Publisher, Reader};
use fastpath::qsbr::Qsbr;
use fastpath::ring::{Consumer, Producer, ring};
use fastpath::trace::{Fate, Tracer, Visits};
use fastpath::vector::{BATCH_MAX, Vector};
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker, Worker};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FRAMES: u32 = 4096;

labels! {
    /// Three ways.
    pub enum Three { First = "first", Second = "second", Third = "third" }
    /// Two reasons.
    pub enum Two { One = "one": "One.", Other = "other": "Other." }
    /// One way.
    pub enum On { On = "on" }
}

/// Brings packets, numbered in their first byte: as many as it may, but no more than `MOST`.
struct Full<const MOST: usize>(&'static AtomicU64);

fn bring(local: &mut Local, count: usize, into: &mut Vector, brought: &AtomicU64) {
    for _ in 0..count {
        let Some(mut frame) = local.frames.take() else { return };
        let number = brought.fetch_add(1, Ordering::Relaxed) as u8;
        let mut packet = local.frames.packet(&mut frame);
        *packet.meta = Meta::default();
        packet.fill(256, &[number; 60]).unwrap();
        into.push(frame);
    }
}

impl<const MOST: usize> Source for Full<MOST> {
    const NAME: &'static str = if MOST < BATCH_MAX { "other-full" } else { "full" };
    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        bring(local, room.min(MOST), into, self.0);
    }
}

/// By the first byte: five fates in turn.
struct Split;

impl Node for Split {
    const NAME: &'static str = "split";
    type Next = Three;
    type Drop = Two;
    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|mut packet| match packet.data()[0] % 5 {
            0 => Ok(Three::First),
            1 => Ok(Three::Second),
            2 => Ok(Three::Third),
            3 => Err(Two::One),
            _ => Err(Two::Other),
        });
    }
}

/// Sends everything to port 1.
struct Out;

impl Node for Out {
    const NAME: &'static str = "out";
    type Next = On;
    type Drop = Never;
    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|packet| {
            packet.meta.egress = PortId(1);
            Ok(On::On)
        });
    }
}

/// Forgets every packet.
struct Forgetful;

impl Node for Forgetful {
    const NAME: &'static str = "forgetful";
    type Next = On;
    type Drop = Never;
    fn process(&mut self, _: &Turn, _: &mut Batch<'_, Self>) {}
}

macro_rules! sinks {
    ($($name:ident = $text:literal),+) => {$(
        /// Counts the packets it takes.
        struct $name(Arc<AtomicU64>);
        impl Sink for $name {
            const NAME: &'static str = $text;
            type Drop = Never;
            fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
                self.0.fetch_add(delivery.len() as u64, Ordering::Relaxed);
                delivery.vector().drain().for_each(|frame| local.frames.give(frame));
            }
        }
    )+};
}
sinks!(SinkA = "sink-a", SinkB = "sink-b", SinkC = "sink-c");

fn pool() -> Arc<Pool> {
    let (arena, frames) = Arena::new(FRAMES).unwrap();
    Pool::new(arena, frames)
}

/// Every frame is back, once.
fn assert_all_back(pool: &Arc<Pool>) {
    let mut frames = pool.frames();
    let taken: Vec<_> = std::iter::from_fn(|| frames.take()).collect();
    let count = taken.len();
    taken.into_iter().for_each(|frame| frames.give(frame));
    assert_eq!(count, FRAMES as usize);
}

fn parts(number: u16, graph: Graph, pool: &Arc<Pool>, qsbr: &Arc<Qsbr>) -> Parts {
    Parts {
        number,
        core: None,
        idle: Idle::Adaptive,
        graph,
        pool: pool.clone(),
        qsbr: qsbr.clone(),
        clock: Clock::new(),
        waker: Arc::new(Waker::new().unwrap()),
        handoff: vec![],
    }
}

fn counter() -> &'static AtomicU64 {
    Box::leak(Box::new(AtomicU64::new(0)))
}

/// Two full sources, a split and three sinks.
fn split() -> (Graph, &'static AtomicU64, [Arc<AtomicU64>; 3]) {
    let (brought, taken) = (counter(), [(); 3].map(|()| Arc::new(AtomicU64::new(0))));
    let mut graph = GraphBuilder::new();
    let node = graph.node(Split);
    let a = graph.sink(SinkA(taken[0].clone()));
    let b = graph.sink(SinkB(taken[1].clone()));
    let c = graph.sink(SinkC(taken[2].clone()));
    graph.source(Full::<BATCH_MAX>(brought), node);
    graph.source(Full::<100>(brought), node);
    graph.connect(node, Three::First, a);
    graph.connect(node, Three::Second, b);
    graph.connect(node, Three::Third, c);
    (graph.build().unwrap(), brought, taken)
}

fn stage(graph: &Graph, name: &str) -> (usize, Arc<fastpath::counters::Counters>) {
    let at = graph.stages().iter().position(|stage| stage.name == name).unwrap();
    (at, graph.counters()[at].clone())
}

#[test]
fn every_frame_reaches_exactly_one_end_and_is_counted_once() {
    let (pool, qsbr) = (pool(), Arc::new(Qsbr::new(1)));
    let (graph, brought, taken) = split();
    let (mut worker, _commands) = ManualWorker::new(parts(0, graph, &pool, &qsbr));
    let turns = 100;
    for now in 0..turns {
        // Two sources that could each fill a vector share one budget.
        assert_eq!(worker.turn(now), BATCH_MAX);
    }
    let brought = brought.load(Ordering::Relaxed);
    let counters = stage(worker.graph(), "split").1;
    let read = |list: &[fastpath::counters::Counter]| list.iter().map(|one| one.read()).collect::<Vec<_>>();
    let (edges, drops) = (read(&counters.edges), read(&counters.drops));
    assert_eq!(taken.map(|sink| sink.load(Ordering::Relaxed)).to_vec(), edges);
    assert_eq!(edges.iter().chain(&drops).sum::<u64>(), brought);
    assert!(
        edges.iter().chain(&drops[..2]).all(|count| *count > brought / 6),
        "{edges:?} {drops:?}"
    );
    assert_eq!(
        (drops[2], counters.vectors.read(), counters.packets.read()),
        (0, turns, brought)
    );
    // Neither source starves the other: each is asked first in every second turn.
    let [full, other] = ["full", "other-full"].map(|name| stage(worker.graph(), name).1.packets.read());
    assert_eq!((full, other), (turns / 2 * 256 + turns / 2 * 156, turns / 2 * 100));
    drop(worker);
    assert_all_back(&pool);
}

#[test]
fn mistakes_in_the_wiring_are_named() {
    let sink = |graph: &mut GraphBuilder| graph.sink(SinkA(Arc::default()));
    let wrong = |build: &dyn Fn(&mut GraphBuilder)| {
        let mut graph = GraphBuilder::new();
        build(&mut graph);
        graph.build().err().expect("the mistake was not seen")
    };
    let (node, edge) = ("split".to_owned(), "third");
    let missing = wrong(&|graph| {
        let (node, to) = (graph.node(Split), sink(graph));
        graph.connect(node, Three::First, to);
        graph.connect(node, Three::Second, to);
    });
    assert_eq!(
        missing,
        WiringError::Unconnected {
            node: node.clone(),
            edge
        }
    );
    assert_eq!(missing.to_string(), "the edge `third` of node `split` leads nowhere");
    let double = wrong(&|graph| {
        let (node, to) = (graph.node(Split), sink(graph));
        let edges = [Three::First, Three::Second, Three::Third, Three::Third];
        edges.into_iter().for_each(|edge| graph.connect(node, edge, to));
    });
    assert_eq!(
        double,
        WiringError::ConnectedTwice {
            node: node.clone(),
            edge
        }
    );
    let same = wrong(&|graph| {
        let (one, other, to) = (graph.node(Out), graph.node(Out), sink(graph));
        graph.connect(one, On::On, to);
        graph.connect(other, On::On, to);
    });
    assert_eq!(same, WiringError::SameName { node: "out".to_owned() });
    let cycle = wrong(&|graph| {
        let (node, back, to) = (graph.node(Split), graph.node(Out), sink(graph));
        graph.connect(node, Three::First, to);
        graph.connect(node, Three::Second, back);
        graph.connect(node, Three::Third, to);
        graph.connect(back, On::On, node);
    });
    assert_eq!(cycle, WiringError::Cycle { node });
}

#[test]
fn two_instances_of_a_node_have_two_names() {
    let mut graph = GraphBuilder::new();
    let (one, other, to) = (
        graph.node(Out),
        graph.instance(Out, "inner"),
        graph.sink(SinkA(Arc::default())),
    );
    graph.connect(one, On::On, other);
    graph.connect(other, On::On, to);
    let graph = graph.build().unwrap();
    let names = graph.stages().iter().map(|stage| stage.name.as_str());
    assert!(names.eq(["out", "out/inner", "sink-a"]));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "`forgetful` left a packet undecided")]
fn an_undecided_packet_stops_a_debug_build() {
    let mut graph = GraphBuilder::new();
    let (node, to) = (graph.node(Forgetful), graph.sink(SinkA(Arc::default())));
    graph.source(Full::<1>(counter()), node);
    graph.connect(node, On::On, to);
    let (mut worker, _commands) = ManualWorker::new(parts(0, graph.build().unwrap(), &pool(), &Arc::new(Qsbr::new(1))));
    worker.turn(0);
}

#[test]
fn the_visits_of_traced_packets_are_recorded() {
    let (pool, qsbr) = (pool(), Arc::new(Qsbr::new(1)));
    let (graph, _, _) = split();
    let [source, node, sink] = ["full", "split", "sink-b"].map(|name| stage(&graph, name).0 as u16);
    let (mut worker, commands) = ManualWorker::new(parts(0, graph, &pool, &qsbr));
    let visits = Visits::default();
    let wanted = Arc::new(AtomicU32::new(2));
    // Those of a first byte of 1 go to the second sink, those of 3 are dropped.
    let filter = |packet: &[u8]| packet[0] % 5 == 1 || packet[0] % 5 == 3;
    let tracer = Tracer::new(wanted.clone(), Some(Box::new(filter)), visits.clone());
    commands.send(Command::Trace(Some(tracer))).unwrap();
    worker.turn(7);
    worker.turn(8);
    let seen: Vec<_> = std::iter::from_fn(|| visits.next())
        .map(|visit| (visit.stage, visit.fate))
        .collect();
    let expected = [
        (source, Fate::Entered),
        (source, Fate::Entered),
        (node, Fate::Edge(1)),
        (node, Fate::Dropped(0)),
        (sink, Fate::Taken),
    ];
    assert_eq!(seen, expected);
    assert_eq!(wanted.load(Ordering::Relaxed), 0);
    drop(worker);
    assert_all_back(&pool);
}

/// From ports to port 1, and what the other workers have for it.
fn through(handoff: Vec<Consumer>) -> Graph {
    let mut graph = GraphBuilder::new();
    let (node, out) = (graph.node(Out), graph.sink(PortOut));
    graph.source(PortIn, node);
    graph.source(Handoff::new(handoff), out);
    graph.connect(node, On::On, out);
    graph.build().unwrap()
}

fn plug() -> (Box<dyn Queue>, MemoryEnd, Arc<QueueCounters>) {
    let (queue, end) = memory();
    (Box::new(queue), end, Arc::default())
}

/// Two workers' parts, the first of which can hand packets to the second.
fn two_workers(pool: &Arc<Pool>, ring_size: u32) -> (Parts, Parts) {
    let qsbr = Arc::new(Qsbr::new(2));
    let (producer, consumer): (Producer, Consumer) = ring(ring_size);
    let second = parts(1, through(vec![consumer]), pool, &qsbr);
    let mut first = parts(0, through(vec![]), pool, &qsbr);
    first.handoff = vec![(1, producer, second.waker.clone())];
    (first, second)
}

#[test]
fn a_packet_leaves_by_a_port_of_another_worker() {
    let pool = pool();
    let (first, second) = two_workers(&pool, 64);
    let ((mut first, to_first), (mut second, to_second)) = (ManualWorker::new(first), ManualWorker::new(second));
    let ((left, left_end, _), (right, right_end, sent)) = (plug(), plug());
    to_first.send(Command::Attach(PortId(0), left, Arc::default())).unwrap();
    to_first.send(Command::SetWay(PortId(1), Way::Handoff(1))).unwrap();
    to_second.send(Command::Attach(PortId(1), right, sent.clone())).unwrap();
    (0..200u8).for_each(|number| left_end.send.send(vec![number; 60]).unwrap());
    assert_eq!((first.turn(0), second.turn(0)), (200, 64));
    let came: Vec<u8> = right_end.receive.try_iter().map(|packet| packet[0]).collect();
    assert_eq!(came, (0..64).collect::<Vec<u8>>());
    // The ring holds 64; the rest was refused by name.
    let (at, counters) = stage(first.graph(), "port-out");
    let names = &first.graph().stages()[at].drops;
    let full = names.iter().position(|drop| drop.0 == "handoff-full").unwrap();
    assert_eq!(counters.drops[full].read(), 136);
    assert_eq!(sent.tx_packets.read(), 64);
    drop((first, second));
    assert_all_back(&pool);
}

#[test]
fn queues_come_and_go_between_turns_and_no_frame_is_lost() {
    let (pool, qsbr) = (pool(), Arc::new(Qsbr::new(1)));
    let (mut worker, commands) = ManualWorker::new(parts(0, through(vec![]), &pool, &qsbr));
    let mut came = 0;
    for round in 0..20 {
        let ((left, left_end, _), (right, right_end, _)) = (plug(), plug());
        commands.send(Command::Attach(PortId(0), left, Arc::default())).unwrap();
        if round % 2 == 0 {
            commands
                .send(Command::Attach(PortId(1), right, Arc::default()))
                .unwrap();
        }
        (0..300).for_each(|_| left_end.send.send(vec![1; 60]).unwrap());
        worker.turn(round);
        let (done, answers) = crossbeam_channel::bounded(2);
        commands.send(Command::Detach(PortId(0), done.clone())).unwrap();
        commands.send(Command::Detach(PortId(1), done)).unwrap();
        assert_eq!(worker.turn(round), 0, "a queue that was given up is still polled");
        assert_eq!(answers.try_iter().count(), 2);
        came += right_end.receive.try_iter().count();
    }
    assert_eq!(came, 10 * BATCH_MAX);
    let down = stage(worker.graph(), "port-out").1.drops[0].read();
    assert_eq!(down, 10 * BATCH_MAX as u64);
    drop(worker);
    assert_all_back(&pool);
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A queue that can be slept on, for it brings nothing.
struct Silent(std::os::fd::OwnedFd);

impl Queue for Silent {
    fn receive(&mut self, _: &mut fastpath::pool::Frames, _: usize, _: &mut Vector) {}
    fn transmit(&mut self, _: &mut fastpath::pool::Frames, _: &mut Vec<fastpath::arena::FrameIndex>) {}
    fn wait_on(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }
    fn close(self: Box<Self>, _: &mut fastpath::pool::Frames) {}
}

#[test]
fn an_idle_worker_sleeps_and_wakes_for_a_command_and_for_its_end() {
    let (pool, qsbr) = (pool(), Arc::new(Qsbr::new(1)));
    let parts = parts(0, through(vec![]), &pool, &qsbr);
    let waker = parts.waker.clone();
    let mut worker = Worker::start(parts).unwrap();
    let silent = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    worker.ask(Command::Attach(PortId(5), Box::new(Silent(silent)), Arc::default()));
    for _ in 0..20 {
        wait_until("sleep", || waker.is_asleep());
        let (done, answer) = crossbeam_channel::bounded(1);
        worker.ask(Command::Sample(done));
        answer.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    assert!(worker.counters().sleeps.read() > 0);
    wait_until("sleep", || waker.is_asleep());
    assert!(worker.stop(), "it ended by a panic");
    assert_all_back(&pool);
}

#[test]
fn two_threads_hand_packets_over_and_give_every_frame_back() {
    let pool = pool();
    let (first, second) = two_workers(&pool, 1024);
    let (mut first, mut second) = (Worker::start(first).unwrap(), Worker::start(second).unwrap());
    let ((left, left_end, _), (right, right_end, _)) = (plug(), plug());
    first.ask(Command::Attach(PortId(0), left, Arc::default()));
    first.ask(Command::SetWay(PortId(1), Way::Handoff(1)));
    second.ask(Command::Attach(PortId(1), right, Arc::default()));
    let total = 20_000u32;
    let (mut came, mut last) = (0, None);
    for number in 0..total {
        left_end
            .send
            .send_timeout(number.to_be_bytes().to_vec(), Duration::from_secs(20))
            .unwrap();
        // No more on the way than the rings hold, so that nothing has to be refused.
        while number - came >= 500 {
            let packet = right_end.receive.recv_timeout(Duration::from_secs(20)).unwrap();
            let number = u32::from_be_bytes(packet[..4].try_into().unwrap());
            assert_eq!(number, last.map_or(0, |last| last + 1), "out of order");
            last = Some(number);
            came += 1;
        }
    }
    while came < total {
        right_end.receive.recv_timeout(Duration::from_secs(20)).unwrap();
        came += 1;
    }
    assert!(first.stop() && second.stop());
    drop((first, second));
    assert_all_back(&pool);
}

/// Takes the newest value of a snapshot into the meta, and lets the sink see it.
struct Reads(Reader<u32>);

impl Node for Reads {
    const NAME: &'static str = "reads";
    type Next = On;
    type Drop = Never;
    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let value = *self.0.refresh();
        batch.each(|mut packet| {
            packet.data()[0] = value as u8;
            packet.meta.egress = PortId(1);
            Ok(On::On)
        });
    }
}

#[test]
fn a_worker_sees_what_was_published_in_its_next_turn() {
    let (pool, qsbr) = (pool(), Arc::new(Qsbr::new(1)));
    let mut publisher = Publisher::new(0);
    let mut graph = GraphBuilder::new();
    let (node, out) = (graph.node(Reads(publisher.reader())), graph.sink(PortOut));
    graph.source(PortIn, node);
    graph.connect(node, On::On, out);
    let (mut worker, commands) = ManualWorker::new(parts(0, graph.build().unwrap(), &pool, &qsbr));
    let ((left, left_end, _), (right, right_end, _)) = (plug(), plug());
    commands.send(Command::Attach(PortId(0), left, Arc::default())).unwrap();
    commands
        .send(Command::Attach(PortId(1), right, Arc::default()))
        .unwrap();
    for value in 1..100 {
        publisher.publish(value);
        left_end.send.send(vec![0; 60]).unwrap();
        worker.turn(u64::from(value));
        assert_eq!(right_end.receive.try_recv().unwrap()[0], value as u8);
    }
    drop(worker);
    assert_all_back(&pool);
}
