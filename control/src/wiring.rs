//! The graph of a worker: every node once (or twice, by name), every edge once. It reads like the picture in the README.

use fastpath::builder::{GraphBuilder, WiringError};
use fastpath::events::Events;
use fastpath::forwarding::{Forwarding, Vrfs};
use fastpath::graph::Graph;
use fastpath::held::{Hold, Released};
use fastpath::interfaces::Interfaces;
use fastpath::nodes::adjacency::{self, Adjacency};
use fastpath::nodes::arp::{self, Arp};
use fastpath::nodes::fragment::{Fragment, Recut};
use fastpath::nodes::icmp_error::{self, IcmpError};
use fastpath::nodes::inbound::{Handoff, Inject, Originate};
use fastpath::nodes::local::{self, Local};
use fastpath::nodes::ndp::{self, Ndp};
use fastpath::nodes::parse::{self, Parse};
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::{Consumed, PortOut};
use fastpath::nodes::route::{self, Route};
use fastpath::nodes::undeliverable::{NestedTunnel, Undeliverable};
use fastpath::publish::Publisher;
use fastpath::rib::Rib;
use fastpath::ring::Consumer;
use std::sync::Arc;
use wireguard::mailbox::Mailbox;

/// What the workers' graphs have in common.
pub struct Shared<'a> {
    /// The ports' addresses.
    pub interfaces: &'a Publisher<Interfaces>,
    /// The tables of routes.
    pub rib: &'a Rib,
    /// Paths and adjacencies.
    pub forwarding: &'a Arc<Forwarding>,
    /// The way to tell control.
    pub events: &'a Events,
    /// The tunnels.
    pub wireguard: &'a Publisher<wireguard::interface::Interfaces>,
    /// The tunnels' way to tell control.
    pub mailbox: &'a Mailbox,
}

/// The rings that lead into one worker's graph.
pub struct Rings {
    /// Frames from control, ready to leave.
    pub inject: Consumer,
    /// IP packets from control, still to be routed.
    pub originate: Consumer,
    /// Frames of the other workers, ready to leave.
    pub handoff: Vec<Consumer>,
}

/// Wires one worker's graph. Packets come from the worker's ports, and by `rings` from control and the other workers.
///
/// # Errors
/// A mistake in the wiring below.
pub fn graph(shared: &Shared<'_>, rings: Rings) -> Result<Graph, WiringError> {
    let interfaces = || shared.interfaces.reader();
    let forwarding = || shared.forwarding.clone();
    let events = || shared.events.clone();
    let vrfs = || -> fastpath::publish::Reader<Vrfs> { shared.rib.reader() };
    let mut graph = GraphBuilder::new();

    let parse = graph.node(Parse::new(interfaces()));
    let arp = graph.node(Arp::new(interfaces(), events()));
    let ndp = graph.node(Ndp::new(interfaces(), events()));
    let route = graph.node(Route::new(forwarding(), vrfs()));
    let local = graph.node(Local::new(interfaces()));
    let adjacency = graph.node(Adjacency::new(forwarding()));
    let icmp_error = graph.node(IcmpError::new(interfaces(), forwarding()));
    // What we send ourselves takes the same way a second time, so that the graph has no cycle.
    let route_own = graph.instance(Route::new(forwarding(), vrfs()), "own");
    let adjacency_own = graph.instance(Adjacency::new(forwarding()), "own");
    let undeliverable = graph.node(Undeliverable);
    let nested = graph.node(NestedTunnel);
    let port_out = graph.sink(PortOut);
    let hold = graph.sink(Hold::new(forwarding(), events()));
    let fragment = graph.sink(Fragment::new(forwarding(), interfaces()));
    let consumed = graph.sink(Consumed);

    graph.source(PortIn, parse);
    graph.source(Released::new(forwarding()), route);
    graph.source(Recut, route);
    graph.source(Originate::new(rings.originate), route_own);
    graph.source(Handoff::new(rings.handoff), port_out);
    graph.source(Inject::new(rings.inject), port_out);

    graph.connect(parse, parse::Next::Route, route);
    graph.connect(parse, parse::Next::Arp, arp);
    graph.connect(parse, parse::Next::Ndp, ndp);
    graph.connect(arp, arp::Next::Answer, port_out);
    graph.connect(arp, arp::Next::Learnt, consumed);
    graph.connect(ndp, ndp::Next::Answer, port_out);
    graph.connect(ndp, ndp::Next::Learnt, consumed);
    graph.connect(route, route::Next::Forward, adjacency);
    graph.connect(route, route::Next::Local, local);
    graph.connect(route, route::Next::Hold, hold);
    graph.connect(route, route::Next::Tunnel, nested);
    graph.connect(route, route::Next::Unreachable, icmp_error);
    graph.connect(local, local::Next::Answer, route_own);
    graph.connect(local, local::Next::AnswerOnLink, port_out);
    graph.connect(local, local::Next::Tunnel, nested);
    graph.connect(local, local::Next::Closed, icmp_error);
    graph.connect(adjacency, adjacency::Next::Transmit, port_out);
    graph.connect(adjacency, adjacency::Next::Hold, hold);
    graph.connect(adjacency, adjacency::Next::Fragment, fragment);
    graph.connect(adjacency, adjacency::Next::Expired, icmp_error);
    graph.connect(adjacency, adjacency::Next::TooBig, icmp_error);
    graph.connect(adjacency, adjacency::Next::HostUnreachable, icmp_error);
    graph.connect(icmp_error, icmp_error::Next::Send, route_own);
    graph.connect(route_own, route::Next::Forward, adjacency_own);
    graph.connect(route_own, route::Next::Local, undeliverable);
    graph.connect(route_own, route::Next::Hold, hold);
    graph.connect(route_own, route::Next::Tunnel, nested);
    graph.connect(route_own, route::Next::Unreachable, undeliverable);
    graph.connect(adjacency_own, adjacency::Next::Transmit, port_out);
    graph.connect(adjacency_own, adjacency::Next::Hold, hold);
    graph.connect(adjacency_own, adjacency::Next::Fragment, fragment);
    graph.connect(adjacency_own, adjacency::Next::Expired, undeliverable);
    graph.connect(adjacency_own, adjacency::Next::TooBig, undeliverable);
    graph.connect(adjacency_own, adjacency::Next::HostUnreachable, undeliverable);
    graph.build()
}
