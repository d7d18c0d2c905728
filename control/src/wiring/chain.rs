//! Where packets find their connections, and where new ones are decided and made.

use super::{Ends, Shared};
use classifier::nodes::classify::{self, Classify};
use classifier::nodes::pre_dnat::{self, PreDnat};
use classifier::nodes::untracked::{self, Untracked};
use fastpath::builder::{GraphBuilder, NodeId};
use fastpath::node::Node;
use fastpath::nodes::adjacency::Adjacency;
use fastpath::nodes::icmp_error::IcmpError;
use fastpath::nodes::local::{self, Local};
use fastpath::nodes::reject::Reject;
use fastpath::nodes::route::{self, Route};
use fastpath::publish::Publisher;
use nat::affinity::Affinity;
use nat::nodes::admit::{self, Admit};
use nat::nodes::balance::{self, Balance};
use nat::nodes::flows::{self, Flows as FlowsNode};
use nat::nodes::rewrite::{self, Rewrite};
use nat::nodes::sweep::Expiry;
use nat::service::Book;
use nat::snat::Rules;
use nat::timeouts::Timeouts;
use nat::tracking::{Decided, Tracking};
use std::sync::Arc;
use wireguard::nodes::peer::Peer;

/// Nodes of one worker that change the table of connections.
pub const FLOW_WRITERS: usize = 5;

/// What the nodes of connections stand on.
pub struct Flows<'a> {
    /// The table.
    pub tracking: &'a Tracking,
    /// How long connections may be silent.
    pub timeouts: Timeouts,
    /// Who gets another source.
    pub rules: &'a Publisher<Rules>,
    /// Services and their backends.
    pub services: &'a Book,
    /// Who had which backend.
    pub affinity: &'a Arc<Affinity>,
}

/// The nodes between where a packet is known to be tracked and where it goes.
pub(super) struct Chain {
    untracked: NodeId<Untracked>,
    pub flows: NodeId<FlowsNode>,
    pre_dnat: NodeId<PreDnat>,
    balance: NodeId<Balance>,
    route: NodeId<Route>,
    classify: NodeId<Classify>,
    admit: NodeId<Admit>,
    rewrite: NodeId<Rewrite>,
}

/// Where packets go once their connection is known.
pub(super) struct Onwards {
    pub route: NodeId<Route>,
    pub local: NodeId<Local>,
    pub adjacency: NodeId<Adjacency>,
    pub icmp_error: NodeId<IcmpError>,
    pub peer: NodeId<Peer>,
    pub reject: NodeId<Reject>,
}

impl Chain {
    /// The nodes, with `suffix` behind their names.
    pub fn new(graph: &mut GraphBuilder, shared: &Shared<'_>, suffix: Option<&str>) -> Self {
        let connections = &shared.flows;
        let (tracking, decided) = (connections.tracking, Decided::default());
        let flows = FlowsNode::new(tracking.clone(), decided.clone());
        let balance = Balance::new(
            connections.services.reader(),
            connections.rules.reader(),
            shared.interfaces(),
            connections.affinity.clone(),
        );
        let admit = Admit::new(
            tracking.clone(),
            decided,
            connections.rules.reader(),
            shared.interfaces(),
            shared.forwarding.clone(),
        );
        let rewrite = Rewrite::new(tracking.clone(), shared.forwarding.clone());
        let new = suffix.map_or_else(|| "new".to_owned(), |suffix| format!("new-{suffix}"));
        let route = graph.instance(shared.route(), &new);
        let policy = shared.policy;
        let (tally, reports) = (policy.tally(), policy.reports());
        Self {
            untracked: add(
                graph,
                Untracked::new(policy.counting(&tally)).reporting(reports.clone()),
                suffix,
            ),
            flows: add(graph, flows, suffix),
            pre_dnat: add(
                graph,
                PreDnat::new(policy.counting(&tally)).reporting(reports.clone()),
                suffix,
            ),
            balance: add(graph, balance, suffix),
            route,
            classify: add(
                graph,
                Classify::new(policy.counting(&tally), shared.forwarding.clone()).reporting(reports),
                suffix,
            ),
            admit: add(graph, admit, suffix),
            rewrite: add(graph, rewrite, suffix),
        }
    }

    /// Where a tracked port's packets begin.
    pub fn first(&self) -> NodeId<Untracked> {
        self.untracked
    }

    /// Leads packets onwards.
    pub fn connect(&self, graph: &mut GraphBuilder, ends: &Ends, onwards: &Onwards) {
        graph.connect(self.flows, flows::Next::Untracked, onwards.route);
        graph.connect(self.flows, flows::Next::Fragment, ends.gather);
        graph.connect(self.flows, flows::Next::PathMtu, ends.path_mtu);
        graph.connect(onwards.local, local::Next::PathMtu, ends.path_mtu);
        graph.connect(self.flows, flows::Next::Known, self.rewrite);
        graph.connect(self.flows, flows::Next::Decide, self.pre_dnat);
        graph.connect(self.untracked, untracked::Next::Track, self.flows);
        graph.connect(self.untracked, untracked::Next::Untracked, onwards.route);
        graph.connect(self.pre_dnat, pre_dnat::Next::On, self.balance);
        graph.connect(self.balance, balance::Next::Route, self.route);
        graph.connect(self.balance, balance::Next::NoEndpoints, onwards.reject);
        graph.connect(self.route, route::Next::Forward, self.classify);
        graph.connect(self.route, route::Next::Local, self.classify);
        graph.connect(self.route, route::Next::Tunnel, self.classify);
        graph.connect(self.route, route::Next::Hold, ends.hold);
        graph.connect(self.route, route::Next::Unreachable, onwards.icmp_error);
        graph.connect(self.classify, classify::Next::Allowed, self.admit);
        graph.connect(self.classify, classify::Next::Rejected, onwards.reject);
        graph.connect(self.admit, admit::Next::Rewrite, self.rewrite);
        graph.connect(self.rewrite, rewrite::Next::Transmit, ends.port_out);
        graph.connect(self.rewrite, rewrite::Next::Forward, onwards.adjacency);
        graph.connect(self.rewrite, rewrite::Next::Local, onwards.local);
        graph.connect(self.rewrite, rewrite::Next::Tunnel, onwards.peer);
        graph.connect(self.rewrite, rewrite::Next::Expired, onwards.icmp_error);
        graph.connect(self.rewrite, rewrite::Next::TooBig, onwards.icmp_error);
    }
}

fn add<N: Node>(graph: &mut GraphBuilder, node: N, suffix: Option<&str>) -> NodeId<N> {
    match suffix {
        None => graph.node(node),
        Some(suffix) => graph.instance(node, suffix),
    }
}

/// Forgets idle connections.
pub(super) fn expiry(shared: &Shared<'_>, worker: usize) -> Expiry {
    let Flows { tracking, timeouts, .. } = &shared.flows;
    Expiry::new((*tracking).clone(), *timeouts, worker, shared.workers)
}
