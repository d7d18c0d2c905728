//! `/metrics`: Prometheus' text format 0.0.4.

mod nat;

use std::fmt::Write;

use crate::api::Plane;
use crate::flow_logs::FlowLogs;
use crate::show::ports::{PortState, PortView};
use crate::show::runtime::NodeRuntime;
use crate::show::wireguard::WireguardPeerView;

/// One counter or gauge: its name, its type, what it counts, and where it is found.
type Family<T, V> = (&'static str, &'static str, &'static str, fn(&T) -> V);

const PORTS: &[Family<PortView, Option<u64>>] = &[
    ("margay_port_up", "gauge", "1 where packets can come and go.", |port| {
        Some((port.state == PortState::Up).into())
    }),
    ("margay_port_rx_packets_total", "counter", "Packets received.", |port| {
        Some(port.rx_packets)
    }),
    ("margay_port_rx_bytes_total", "counter", "Bytes received.", |port| {
        Some(port.rx_bytes)
    }),
    ("margay_port_tx_packets_total", "counter", "Packets sent.", |port| {
        Some(port.tx_packets)
    }),
    ("margay_port_tx_bytes_total", "counter", "Bytes sent.", |port| {
        Some(port.tx_bytes)
    }),
    (
        "margay_port_drops_total",
        "counter",
        "Packets that did not fit into the transmit rings.",
        |port| Some(port.drops),
    ),
    (
        "margay_port_socket_rx_dropped_total",
        "counter",
        "Dropped by the kernel before an AF_XDP socket.",
        |port| port.socket.map(|socket| socket.rx_dropped),
    ),
    (
        "margay_port_socket_rx_ring_full_total",
        "counter",
        "Dropped because a receive ring was full.",
        |port| port.socket.map(|socket| socket.rx_ring_full),
    ),
    (
        "margay_port_socket_fill_ring_empty_total",
        "counter",
        "Dropped because no frame was offered.",
        |port| port.socket.map(|socket| socket.fill_ring_empty),
    ),
    (
        "margay_port_socket_tx_invalid_total",
        "counter",
        "Descriptors the kernel refused to send.",
        |port| port.socket.map(|socket| socket.tx_invalid),
    ),
];

const NODES: &[Family<NodeRuntime, f64>] = &[
    (
        "margay_node_calls_total",
        "counter",
        "Times a node was called.",
        |node| node.calls as f64,
    ),
    (
        "margay_node_vectors_total",
        "counter",
        "Calls of a node that had packets.",
        |node| node.vectors as f64,
    ),
    ("margay_node_packets_total", "counter", "Packets a node saw.", |node| {
        node.packets as f64
    }),
    (
        "margay_node_cycles_per_packet",
        "gauge",
        "Time-stamp counter cycles a packet.",
        |node| node.cycles_per_packet,
    ),
];

const PEERS: &[Family<WireguardPeerView, Option<u64>>] = &[
    (
        "margay_wireguard_peer_rx_packets_total",
        "counter",
        "Messages received from a peer.",
        |peer| Some(peer.rx_packets),
    ),
    (
        "margay_wireguard_peer_rx_bytes_total",
        "counter",
        "Bytes received from a peer.",
        |peer| Some(peer.rx_bytes),
    ),
    (
        "margay_wireguard_peer_tx_packets_total",
        "counter",
        "Messages sent to a peer.",
        |peer| Some(peer.tx_packets),
    ),
    (
        "margay_wireguard_peer_tx_bytes_total",
        "counter",
        "Bytes sent to a peer.",
        |peer| Some(peer.tx_bytes),
    ),
    (
        "margay_wireguard_peer_handshakes_total",
        "counter",
        "Handshakes completed with a peer.",
        |peer| Some(peer.handshakes),
    ),
    (
        "margay_wireguard_peer_handshake_age_seconds",
        "gauge",
        "Time since the last handshake.",
        |peer| peer.handshake_age_s,
    ),
];

/// The counters of ports, nodes, peers and drops.
pub fn text(plane: &dyn Plane) -> String {
    let mut page = Page(String::new());
    let ports = plane.ports();
    for (name, kind, help, value) in PORTS {
        page.family(name, kind, help);
        for port in &ports {
            if let Some(value) = value(port) {
                page.sample(name, &[("port", &port.name)], value);
            }
        }
    }
    limits(&mut page, &ports);
    flow_logs(&mut page, &plane.flow_logs());
    let runtime = plane.runtime();
    for (name, kind, help, value) in NODES {
        page.family(name, kind, help);
        for worker in &runtime.workers {
            let number = worker.worker.to_string();
            for node in &worker.nodes {
                page.sample(name, &[("worker", &number), ("node", &node.name)], value(node));
            }
        }
    }
    let connections = plane.connections();
    nat::write(&mut page, &connections, &plane.served());
    let tunnels = plane.wireguard();
    for (name, kind, help, value) in PEERS {
        page.family(name, kind, help);
        for (tunnel, peer) in tunnels
            .iter()
            .flat_map(|tunnel| tunnel.peers.iter().map(move |peer| (tunnel, peer)))
        {
            let labels = [
                ("interface", tunnel.name.as_str()),
                ("peer", &peer.name),
                ("public_key", &peer.public_key),
            ];
            if let Some(value) = value(peer) {
                page.sample(name, &labels, value);
            }
        }
    }
    let name = "margay_drops_total";
    page.family(name, "counter", "Packets dropped, by node and reason.");
    for drop in plane.drops() {
        let mut labels = vec![("node", drop.node.as_str()), ("reason", drop.reason.as_str())];
        labels.extend(drop.port.as_deref().map(|port| ("port", port)));
        page.sample(name, &labels, drop.packets);
    }
    page.0
}

/// What flow logs do not tell.
fn flow_logs(page: &mut Page, logs: &FlowLogs) {
    let name = "margay_flow_logs_lost_total";
    page.family(
        name,
        "counter",
        "Judgements that flow logs do not tell of: too many at once.",
    );
    page.sample(name, &[], logs.lost());
    let name = "margay_flow_logs_unwritten_windows_total";
    page.family(name, "counter", "Windows of flow logs that did not get into the file.");
    page.sample(name, &[], logs.unwritten().0);
}

/// What limits of ports dropped.
fn limits(page: &mut Page, ports: &[PortView]) {
    let name = "margay_port_limited_total";
    page.family(
        name,
        "counter",
        "Packets dropped because a limit was exceeded, since the limits are such.",
    );
    for (port, limits) in ports.iter().filter_map(|port| Some((port, port.limits.as_ref()?))) {
        let directions = [("ingress", &limits.ingress), ("egress", &limits.egress)];
        for (direction, limit) in directions
            .into_iter()
            .filter_map(|(name, limit)| Some((name, limit.as_ref()?)))
        {
            let reasons = [
                ("bandwidth", limit.bandwidth_drops),
                ("packet-rate", limit.packet_rate_drops),
            ];
            for (reason, packets) in reasons {
                page.sample(
                    name,
                    &[("port", &port.name), ("direction", direction), ("reason", reason)],
                    packets,
                );
            }
        }
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        // Without labels, without braces.
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.sample("x", &[("a", "q\"b\\c\nd"), ("b", "")], 7);
        assert_eq!(page.0, "x{a=\"q\\\"b\\\\c\\nd\",b=\"\"} 7\n");
    }
}
