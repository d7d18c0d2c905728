//! The engine: packet memory, nodes, graph, workers, ports, IP forwarding.
//!
//! A worker runs *turns*. In each turn its sources fill vectors, every node with a non-empty vector runs once, in
//! topological order, and sinks take what remains. Between turns the graph is empty, so that is where a worker notices
//! new configuration. This crate knows no feature: policy, flows and tunnels are nodes of other crates.

pub mod arena;
pub mod batch;
pub mod builder;
pub mod capture;
pub mod clock;
pub mod counters;
pub mod dscp;
pub mod events;
pub mod fib;
pub mod forwarding;
pub mod generation;
pub mod graph;
pub mod held;
pub mod interfaces;
pub mod local;
pub mod memory;
pub mod meta;
pub mod neighbours;
pub mod node;
pub mod nodes;
pub mod overlay;
pub mod packet;
pub mod picture;
pub mod pool;
pub mod port;
pub mod publish;
pub mod punt;
pub mod qos;
pub mod qsbr;
pub mod rib;
pub mod ring;
pub(crate) mod sync;
pub mod trace;
pub mod vector;
pub mod vlan;
pub mod wire;
pub mod worker;
