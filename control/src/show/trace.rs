//! `trace show`: each node a packet visited and what it decided there.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{heading, nanoseconds};

/// The story of one packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TracedPacket {
    /// Its number in the trace, from one.
    pub number: u64,
    /// When it came in, in nanoseconds since tracing began.
    pub at: u64,
    /// The name of the Port it came in by.
    pub port: String,
    /// Its length in bytes, Ethernet header included.
    pub length: u32,
    /// What happened to it, in order.
    pub steps: Vec<TraceStep>,
}

/// One node's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// The name of the node.
    pub node: String,
    /// When, in nanoseconds since the packet came in.
    pub at_ns: u64,
    /// The edge it sent the packet to, or the reason it dropped it for.
    pub decision: String,
    /// What it saw, such as `10.1.0.2 > 10.2.0.2 icmp`; may be empty.
    pub detail: String,
}

/// The stories as text.
pub fn table(packets: &[TracedPacket]) -> String {
    if packets.is_empty() {
        return "no packet traced yet; start with `margay trace add --count 10`\n".to_owned();
    }
    let stories: Vec<_> = packets.iter().map(story).collect();
    stories.join("\n")
}

fn story(packet: &TracedPacket) -> String {
    let TracedPacket {
        number,
        at,
        port,
        length,
        steps,
    } = packet;
    let mut text = heading(format_args!(
        "Packet {number}: in by {port}, {length} bytes, at {}",
        nanoseconds(*at)
    ));
    let width = |text: fn(&TraceStep) -> &str| steps.iter().map(|step| text(step).chars().count()).max().unwrap_or(0);
    let (node_width, decision_width) = (width(|step| &step.node), width(|step| &step.decision));
    for TraceStep {
        node,
        at_ns,
        decision,
        detail,
    } in steps
    {
        let after = nanoseconds(*at_ns);
        let line = format!("  {after:>10}  {node:node_width$}  {decision:decision_width$}  {detail}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
