//! The graph of a worker: every node once (or twice, by name), every edge once. It reads like the picture in the README.

mod chain;

pub use chain::{FLOW_WRITERS, Flows};

use crate::program::policy::Enforcement;
use chain::{Chain, Onwards, expiry};
use fastpath::builder::{GraphBuilder, NodeId, SinkId, Target, WiringError};
use fastpath::events::Events;
use fastpath::forwarding::Forwarding;
use fastpath::graph::Graph;
use fastpath::held::{Hold, Released};
use fastpath::interfaces::Interfaces;
use fastpath::nodes::adjacency::{self, Adjacency};
use fastpath::nodes::arp::{self, Arp};
use fastpath::nodes::decapsulate::{self, Decapsulate};
use fastpath::nodes::encapsulate::{self, Encapsulate};
use fastpath::nodes::fragment::{Fragment, Recut};
use fastpath::nodes::icmp_error::{self, IcmpError};
use fastpath::nodes::inbound::{Handoff, Inject, Originate};
use fastpath::nodes::local::{self, Local};
use fastpath::nodes::ndp::{self, Ndp};
use fastpath::nodes::parse::{self, Parse};
use fastpath::nodes::path_mtu::{self, PathMtu};
use fastpath::nodes::police::{self, Police};
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::{Consumed, PortOut};
use fastpath::nodes::proxy::Ways;
use fastpath::nodes::punt::{self, Punt};
use fastpath::nodes::reject::{self, Reject};
use fastpath::nodes::resume::{self, Resume};
use fastpath::nodes::reverse_path::{self, ReversePath};
use fastpath::nodes::route::{self, Route};
use fastpath::nodes::undeliverable::{NestedTunnel, NoLink, Undeliverable};
use fastpath::publish::{Publisher, Reader};
use fastpath::rib::Rib;
use fastpath::ring::Consumer;
use nat::nodes::fragments::{self, FragmentPorts, Gather, Gathered};
use std::sync::Arc;
use wireguard::mailbox::Mailbox;
use wireguard::nodes::decrypt::{self, Decrypt};
use wireguard::nodes::encrypt::{self, Encrypt};
use wireguard::nodes::park::{self, Park};
use wireguard::nodes::peer::{self, Peer};

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
    /// Connections.
    pub flows: Flows<'a>,
    /// Policy.
    pub policy: &'a Enforcement,
    /// Workers in all.
    pub workers: usize,
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

impl Shared<'_> {
    fn interfaces(&self) -> Reader<Interfaces> {
        self.interfaces.reader()
    }

    fn tunnels(&self) -> Reader<wireguard::interface::Interfaces> {
        self.wireguard.reader()
    }

    fn route(&self) -> Route {
        Route::new(self.forwarding.clone(), self.rib.reader())
    }

    fn ways(&self) -> Ways {
        Ways::new(self.forwarding.clone(), self.rib.reader())
    }

    fn reverse_path(&self) -> ReversePath {
        ReversePath::new(self.forwarding.clone(), self.rib.reader(), self.interfaces())
    }

    fn adjacency(&self) -> Adjacency {
        Adjacency::new(self.forwarding.clone())
    }

    fn encapsulate(&self) -> Encapsulate {
        Encapsulate::new(self.interfaces(), self.forwarding.clone())
    }

    fn peer(&self) -> Peer {
        Peer::new(self.tunnels(), self.mailbox.clone())
    }
}

/// Where packets leave the graph.
#[derive(Clone, Copy)]
struct Ends {
    port_out: SinkId,
    hold: SinkId,
    park: SinkId,
    fragment: SinkId,
    gather: SinkId,
    consumed: SinkId,
    undeliverable: NodeId<Undeliverable>,
    nested: NodeId<NestedTunnel>,
    path_mtu: NodeId<PathMtu>,
}

impl Ends {
    fn new(graph: &mut GraphBuilder, shared: &Shared<'_>) -> Self {
        let forwarding = || shared.forwarding.clone();
        let ends = Self {
            port_out: graph.sink(PortOut),
            hold: graph.sink(Hold::new(forwarding(), shared.events.clone())),
            park: graph.sink(Park),
            fragment: graph.sink(Fragment::new(forwarding(), shared.interfaces())),
            gather: graph.sink(Gather),
            consumed: graph.sink(Consumed),
            undeliverable: graph.node(Undeliverable),
            nested: graph.node(NestedTunnel),
            path_mtu: graph.node(PathMtu::new(shared.interfaces(), shared.events.clone())),
        };
        graph.connect(ends.path_mtu, path_mtu::Next::Learnt, ends.consumed);
        ends
    }
}

/// Wires one worker's graph. Packets come from the worker's ports, and by `rings` from control and the other workers.
///
/// # Errors
/// A mistake in the wiring below.
pub fn graph(shared: &Shared<'_>, worker: usize, rings: Rings) -> Result<Graph, WiringError> {
    let graph = &mut GraphBuilder::new();
    let parse = graph.node(Parse::new(shared.interfaces()));
    let resume = graph.node(Resume);
    let route = graph.node(shared.route());
    let chain = Chain::new(graph, shared, None);
    let fragment_ports = graph.node(FragmentPorts);
    let local = graph.node(Local::new(shared.interfaces()));
    let adjacency = graph.node(shared.adjacency());
    let icmp_error = graph.node(IcmpError::new(shared.interfaces(), shared.forwarding.clone()));
    let ends = Ends::new(graph, shared);
    let encapsulate = graph.node(shared.encapsulate());
    // What we send ourselves takes the same way a second time, so that the graph has no cycle.
    let route_own = own(graph, shared, &ends, "own", encapsulate.into());
    let reject = reject(graph, icmp_error, route_own);
    let tunnel = tunnel(graph, shared, &ends, (adjacency, icmp_error, route_own, reject));
    overlay(graph, shared, (local, adjacency, encapsulate), &tunnel);

    graph.source(PortIn, parse);
    graph.source(expiry(shared, worker), resume);
    graph.source(Released::new(shared.forwarding.clone()), resume);
    graph.source(park::Released::new(shared.forwarding.clone()), route);
    graph.source(Recut, route);
    graph.source(Gathered::default(), fragment_ports);
    graph.source(Originate::new(rings.originate), tunnel.route_outer);
    graph.source(Handoff::new(rings.handoff), ends.port_out);
    graph.source(Inject::new(rings.inject), ends.port_out);

    graph.connect(resume, resume::Next::Parse, parse);
    graph.connect(resume, resume::Next::Route, route);
    graph.connect(parse, parse::Next::Route, route);
    graph.connect(parse, parse::Next::Flows, chain.first());
    checks(graph, shared, parse, (route, chain.first().into()));
    graph.connect(fragment_ports, fragments::Next::Flows, chain.flows);
    neighbours(graph, shared, &ends, parse);
    graph.connect(route, route::Next::Forward, adjacency);
    graph.connect(route, route::Next::Local, local);
    graph.connect(route, route::Next::Hold, ends.hold);
    graph.connect(route, route::Next::Tunnel, tunnel.peer);
    graph.connect(route, route::Next::Unreachable, icmp_error);
    let onwards = Onwards {
        route,
        local,
        adjacency,
        icmp_error,
        peer: tunnel.peer,
        reject,
    };
    chain.connect(graph, &ends, &onwards);
    graph.connect(local, local::Next::Answer, route_own);
    graph.connect(local, local::Next::AnswerOnLink, ends.port_out);
    graph.connect(local, local::Next::Tunnel, tunnel.decrypt);
    graph.connect(local, local::Next::Closed, icmp_error);
    graph.connect(adjacency, adjacency::Next::Transmit, ends.port_out);
    graph.connect(adjacency, adjacency::Next::Hold, ends.hold);
    graph.connect(adjacency, adjacency::Next::Fragment, ends.fragment);
    graph.connect(adjacency, adjacency::Next::Expired, icmp_error);
    graph.connect(adjacency, adjacency::Next::TooBig, icmp_error);
    graph.connect(adjacency, adjacency::Next::HostUnreachable, icmp_error);
    graph.connect(icmp_error, icmp_error::Next::Send, route_own);
    std::mem::take(graph).build()
}

/// Who is where on the links, and what of it is a host's.
fn neighbours(graph: &mut GraphBuilder, shared: &Shared<'_>, ends: &Ends, parse: NodeId<Parse>) {
    let arp = graph.node(Arp::new(shared.interfaces(), shared.events.clone(), shared.ways()));
    let ndp = graph.node(Ndp::new(shared.interfaces(), shared.events.clone(), shared.ways()));
    graph.connect(parse, parse::Next::Arp, arp);
    graph.connect(parse, parse::Next::Ndp, ndp);
    let punt = graph.node(Punt::new(shared.interfaces()));
    graph.connect(parse, parse::Next::Punt, punt);
    graph.connect(arp, arp::Next::Punt, punt);
    graph.connect(ndp, ndp::Next::Punt, punt);
    graph.connect(punt, punt::Next::Transmit, ends.port_out);
    graph.connect(arp, arp::Next::Answer, ends.port_out);
    graph.connect(arp, arp::Next::Learnt, ends.consumed);
    graph.connect(ndp, ndp::Next::Answer, ends.port_out);
    graph.connect(ndp, ndp::Next::Learnt, ends.consumed);
}

/// What some ports ask of their packets before those are routed, or looked up among connections.
fn checks(
    graph: &mut GraphBuilder,
    shared: &Shared<'_>,
    parse: NodeId<Parse>,
    (route, flows): (NodeId<Route>, Target),
) {
    let police = graph.node(Police::new(shared.interfaces()));
    let reverse_path = graph.node(shared.reverse_path());
    graph.connect(parse, parse::Next::Police, police);
    graph.connect(parse, parse::Next::Check, reverse_path);
    graph.connect(police, police::Next::Route, route);
    graph.connect(police, police::Next::Flows, flows);
    graph.connect(police, police::Next::Check, reverse_path);
    graph.connect(reverse_path, reverse_path::Next::Route, route);
    graph.connect(reverse_path, reverse_path::Next::Flows, flows);
}

/// Where packets are refused: TCP is reset, other senders are told.
fn reject(graph: &mut GraphBuilder, icmp_error: NodeId<IcmpError>, route_own: NodeId<Route>) -> NodeId<Reject> {
    let reject = graph.node(Reject);
    graph.connect(reject, reject::Next::Reset, route_own);
    graph.connect(reject, reject::Next::Tell, icmp_error);
    reject
}

/// The way of packets of ours, about which no error is sent. Its edge into tunnels is still to be connected.
fn own(graph: &mut GraphBuilder, shared: &Shared<'_>, ends: &Ends, suffix: &str, wrap: Target) -> NodeId<Route> {
    let route = graph.instance(shared.route(), suffix);
    let adjacency = graph.instance(shared.adjacency(), suffix);
    graph.connect(route, route::Next::Forward, adjacency);
    graph.connect(route, route::Next::Local, ends.undeliverable);
    graph.connect(route, route::Next::Hold, ends.hold);
    graph.connect(route, route::Next::Unreachable, ends.undeliverable);
    graph.connect(adjacency, adjacency::Next::Transmit, ends.port_out);
    graph.connect(adjacency, adjacency::Next::Wrap, wrap);
    graph.connect(adjacency, adjacency::Next::Hold, ends.hold);
    graph.connect(adjacency, adjacency::Next::Fragment, ends.fragment);
    graph.connect(adjacency, adjacency::Next::Expired, ends.undeliverable);
    graph.connect(adjacency, adjacency::Next::TooBig, ends.undeliverable);
    graph.connect(adjacency, adjacency::Next::HostUnreachable, ends.undeliverable);
    route
}

/// The ways into tunnels that are ports with neighbours, and out of them: beside those of the others, with whom they share
/// what is inside and outside.
fn overlay(
    graph: &mut GraphBuilder,
    shared: &Shared<'_>,
    (local, adjacency, encapsulate): (NodeId<Local>, NodeId<Adjacency>, NodeId<Encapsulate>),
    tunnel: &Tunnel,
) {
    let decapsulate = graph.node(Decapsulate::new(shared.interfaces()));
    graph.connect(local, local::Next::Wrapped, decapsulate);
    graph.connect(decapsulate, decapsulate::Next::Inner, tunnel.parse);
    graph.connect(adjacency, adjacency::Next::Wrap, encapsulate);
    graph.connect(encapsulate, encapsulate::Next::Send, tunnel.route_outer);
}

/// The ways into the tunnels and out of them.
struct Tunnel {
    peer: NodeId<Peer>,
    decrypt: NodeId<Decrypt>,
    parse: NodeId<Parse>,
    route_outer: NodeId<Route>,
}

/// A packet goes into one tunnel at most, and out of one: what is nested deeper is dropped by name.
fn tunnel(
    graph: &mut GraphBuilder,
    shared: &Shared<'_>,
    ends: &Ends,
    (adjacency, icmp_error, route_own, reject): (NodeId<Adjacency>, NodeId<IcmpError>, NodeId<Route>, NodeId<Reject>),
) -> Tunnel {
    let peer = graph.node(shared.peer());
    let peer_own = graph.instance(shared.peer(), "own");
    let encrypt = graph.node(Encrypt::new(shared.tunnels(), shared.mailbox.clone()));
    let route_outer = own(graph, shared, ends, "outer", ends.nested.into());
    let decrypt = graph.node(Decrypt::new(shared.tunnels(), shared.mailbox.clone()));
    let parse = graph.instance(Parse::new(shared.interfaces()), "inner");
    let reverse_path = graph.instance(shared.reverse_path(), "inner");
    let route = graph.instance(shared.route(), "inner");
    let chain = Chain::new(graph, shared, Some("inner"));
    let local = graph.instance(Local::new(shared.interfaces()), "inner");
    let no_link = graph.node(NoLink);

    for (peer, icmp_error) in [(peer, icmp_error.into()), (peer_own, ends.undeliverable.into())] {
        let icmp_error: Target = icmp_error;
        graph.connect(peer, peer::Next::Encrypt, encrypt);
        graph.connect(peer, peer::Next::Park, ends.park);
        graph.connect(peer, peer::Next::Fragment, ends.fragment);
        graph.connect(peer, peer::Next::Expired, icmp_error);
        graph.connect(peer, peer::Next::TooBig, icmp_error);
        graph.connect(peer, peer::Next::NoPeer, icmp_error);
        graph.connect(peer, peer::Next::Unreachable, icmp_error);
    }
    graph.connect(route_own, route::Next::Tunnel, peer_own);
    graph.connect(encrypt, encrypt::Next::Send, route_outer);
    graph.connect(route_outer, route::Next::Tunnel, ends.nested);

    graph.connect(decrypt, decrypt::Next::Inner, parse);
    graph.connect(decrypt, decrypt::Next::Consumed, ends.consumed);
    graph.connect(parse, parse::Next::Route, route);
    graph.connect(parse, parse::Next::Flows, chain.first());
    let onwards = Onwards {
        route,
        local,
        adjacency,
        icmp_error,
        peer,
        reject,
    };
    chain.connect(graph, ends, &onwards);
    graph.connect(parse, parse::Next::Check, reverse_path);
    graph.connect(reverse_path, reverse_path::Next::Route, route);
    graph.connect(reverse_path, reverse_path::Next::Flows, chain.first());
    // A tunnel's own port has no limits.
    graph.connect(parse, parse::Next::Police, no_link);
    graph.connect(parse, parse::Next::Arp, no_link);
    graph.connect(parse, parse::Next::Ndp, no_link);
    graph.connect(parse, parse::Next::Punt, no_link);
    graph.connect(route, route::Next::Forward, adjacency);
    graph.connect(route, route::Next::Local, local);
    graph.connect(route, route::Next::Hold, ends.hold);
    graph.connect(route, route::Next::Tunnel, peer);
    graph.connect(route, route::Next::Unreachable, icmp_error);
    graph.connect(local, local::Next::Answer, route_own);
    graph.connect(local, local::Next::AnswerOnLink, peer_own);
    graph.connect(local, local::Next::Tunnel, ends.nested);
    graph.connect(local, local::Next::Wrapped, ends.nested);
    graph.connect(local, local::Next::Closed, icmp_error);
    Tunnel {
        peer,
        decrypt,
        parse,
        route_outer,
    }
}
