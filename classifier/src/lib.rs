//! Which packets are allowed, by ordered rules in ordered tiers.
//!
//! Control tells a [`compiler::Compiler`] of [`sets`], policies and chains of tiers; it compiles each policy once, for
//! all chains that name it, and publishes what changed. A worker's [`classify::Classifier`] judges vectors of packets:
//! each gets a verdict, and what decided it. The order of evaluation is Calico's.
//!
//! A [`rule`] becomes [`expand`]ed patterns, which a [`lookup`] finds with few hash tables and wide comparisons, and
//! a [`guard`] for what no pattern can say. Who is behind each port, and so which chains a packet has to pass, say the
//! [`endpoints`]; the [`nodes`] of the graph ask them.

pub mod classify;
pub mod compiler;
pub mod endpoints;
pub mod expand;
pub mod guard;
pub mod lookup;
pub mod nodes;
pub mod packet;
pub mod pattern;
pub mod program;
pub mod report;
pub mod rule;
pub mod ruleset;
pub mod sets;
pub mod tally;
pub mod verdict;
