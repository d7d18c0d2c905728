//! `show ports`.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Cell, Table, bytes, number};

/// A port, its state and its counters since it came up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortView {
    /// The name of the Port.
    pub name: String,
    /// The device or file behind it.
    pub device: String,
    /// `xdp`, `tap`, `pcap`, `memory`, or `wireguard` for a tunnel.
    pub driver: String,
    /// How the driver runs, such as `native zero-copy` or `generic`; empty where it knows but one way.
    pub mode: String,
    /// Whether packets can come and go.
    pub state: PortState,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Receive and transmit queues.
    pub queues: u16,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// The routing table.
    pub vrf: String,
    /// The Ethernet address; empty for a tunnel, which has none.
    pub mac: String,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that did not fit into its transmit rings; the other reasons are counted by node (`show drops`).
    pub drops: u64,
    /// What was lost between the kernel and the graph, for drivers `xdp` and `tap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketView>,
    /// How much may go by it and come, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsView>,
}

/// The limits of a port, and of the workload behind it: of each kind the lower one. And its mark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitsView {
    /// The workload behind the port, as `namespace/pod`, where it has limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Of what is sent to who is behind the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<LimitView>,
    /// Of what comes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<LimitView>,
    /// The DSCP of what comes from there, where it leaves the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
}

/// Limits of one direction, and what was dropped for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// Bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Bits at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Bits a second while the burst lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peakrate: Option<u64>,
    /// Packets a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_rate: Option<u64>,
    /// Packets at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_burst: Option<u64>,
    /// Packets dropped for their bits, since the limits are such.
    pub bandwidth_drops: u64,
    /// Packets dropped for their number.
    pub packet_rate_drops: u64,
}

/// Whether packets can come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// They can.
    Up,
    /// They cannot; `why` says for what reason.
    Down,
}

/// What was lost between the kernel and the graph. For driver `xdp` the kernel counts it for the AF_XDP sockets of a port
/// (`struct xdp_statistics`, include/uapi/linux/if_xdp.h), for `tap` the queues do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SocketView {
    /// Received and dropped for other reasons than the two below: a `tap` packet does not fit a frame, or is malformed.
    pub rx_dropped: u64,
    /// Received and dropped because the receive ring was full: the worker is too slow. Never for `tap`.
    pub rx_ring_full: u64,
    /// Received and dropped because no frame was offered: the pool is empty.
    pub fill_ring_empty: u64,
    /// Packets the kernel refused to send.
    pub tx_invalid: u64,
}

/// The view as text.
pub fn table(ports: &Vec<PortView>) -> String {
    if ports.is_empty() {
        return "no ports; apply a resource of kind Port\n".to_owned();
    }
    let mut state = Table::new(&[
        "NAME",
        "STATE",
        "DEVICE",
        "DRIVER",
        "MODE",
        ">QUEUES",
        ">MTU",
        "VRF",
        "MAC",
        "ADDRESSES",
    ]);
    for port in ports {
        state.row([
            port.name.as_str().into(),
            match port.state {
                PortState::Up => Cell::good("up"),
                PortState::Down => Cell::bad("down"),
            },
            port.device.as_str().into(),
            port.driver.as_str().into(),
            port.mode.as_str().into(),
            port.queues.into(),
            port.mtu.into(),
            port.vrf.as_str().into(),
            port.mac.as_str().into(),
            port.addresses.join(", ").into(),
        ]);
    }
    let mut text = state.to_string();
    for port in ports {
        if let Some(why) = &port.why {
            let _ = writeln!(text, "{} is down: {why}", port.name);
        }
    }
    let _ = write!(text, "\n{}", traffic(ports));
    let sockets = sockets(ports);
    if !sockets.is_empty() {
        let _ = write!(text, "\n{sockets}");
    }
    let limits = limits(ports);
    if !limits.is_empty() {
        let _ = write!(text, "\n{limits}");
    }
    text
}

fn limits(ports: &[PortView]) -> Table {
    let headings = [
        "NAME",
        "ENDPOINT",
        "LIMITED",
        ">BITS/S",
        ">BURST",
        ">PACKETS/S",
        ">BURST",
        ">OVER BITS",
        ">OVER PACKETS",
        ">DSCP",
    ];
    let mut table = Table::new(&headings);
    for (port, limits) in ports.iter().filter_map(|port| Some((port, port.limits.as_ref()?))) {
        let directions = [
            ("ingress", &limits.ingress, None),
            ("egress", &limits.egress, limits.dscp),
        ];
        let said = |(_, limit, dscp): &(_, &Option<_>, Option<_>)| limit.is_some() || dscp.is_some();
        for (direction, limit, dscp) in directions.into_iter().filter(said) {
            let limit = limit.clone().unwrap_or_default();
            let rate = |rate: Option<u64>| rate.map_or_else(|| "-".to_owned(), number).into();
            table.row([
                port.name.as_str().into(),
                limits.endpoint.as_deref().unwrap_or("-").into(),
                direction.into(),
                rate(limit.bandwidth),
                rate(limit.burst),
                rate(limit.packet_rate),
                rate(limit.packet_burst),
                Cell::alarm(limit.bandwidth_drops),
                Cell::alarm(limit.packet_rate_drops),
                dscp.map_or_else(|| "-".to_owned(), |dscp| dscp.to_string()).into(),
            ]);
        }
    }
    table
}

fn traffic(ports: &[PortView]) -> Table {
    let mut table = Table::new(&["NAME", ">RX PACKETS", ">RX BYTES", ">TX PACKETS", ">TX BYTES", ">DROPS"]);
    for port in ports {
        table.row([
            port.name.as_str().into(),
            number(port.rx_packets).into(),
            bytes(port.rx_bytes).into(),
            number(port.tx_packets).into(),
            bytes(port.tx_bytes).into(),
            Cell::alarm(port.drops),
        ]);
    }
    table
}

fn sockets(ports: &[PortView]) -> Table {
    let headings = [
        "NAME",
        ">RX DROPPED",
        ">RX RING FULL",
        ">FILL RING EMPTY",
        ">TX INVALID",
    ];
    let mut table = Table::new(&headings);
    for (port, socket) in ports.iter().filter_map(|port| Some((port, port.socket?))) {
        table.row([
            port.name.as_str().into(),
            Cell::alarm(socket.rx_dropped),
            Cell::alarm(socket.rx_ring_full),
            Cell::alarm(socket.fill_ring_empty),
            Cell::alarm(socket.tx_invalid),
        ]);
    }
    table
}
