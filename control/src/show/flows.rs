//! `show flows`: the connections that are followed.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, bytes, number};

/// How many connections there are, and the first of those asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowsView {
    /// Connections there are.
    pub live: u64,
    /// Connections there can be.
    pub capacity: u64,
    /// Of these, connections that match what was asked for; none where everything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// The first of them, at most 1,000; `GET /v1/flows` gives all.
    pub flows: Vec<FlowView>,
}

/// A connection. `source` opened it, by sending to `target`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// Its name, such as `tcp`, or its number.
    pub protocol: String,
    /// The routing table that it came in by.
    pub vrf: String,
    /// Who opened it.
    pub source: EndView,
    /// Whom it was opened to.
    pub target: EndView,
    /// What `target` takes `source` for, where that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_source: Option<EndView>,
    /// Who really answers, where that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_target: Option<EndView>,
    /// Where it stands.
    pub state: FlowState,
    /// Packets from `source`.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets to `source`.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
}

/// What becomes of connections: a line of `GET /v1/flows?follow=true`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FlowEvent {
    /// One began.
    Create(FlowEventView),
    /// One ended, and what it had carried.
    End(FlowEventView),
    /// More happened than was taken down.
    Lost {
        /// So many events, of any connection.
        events: u64,
    },
    /// The last line: what happened was not read fast enough.
    CutOff,
}

/// A connection of which something became.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowEventView {
    /// When, in milliseconds since 1970, to a hundredth of a second.
    pub time_ms: u64,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FlowEnd>,
    /// The connection.
    #[serde(flatten)]
    pub flow: FlowView,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowEnd {
    /// Its ends were done with it, or one broke it off.
    Closed,
    /// It was silent for as long as its state allows.
    Timeout,
    /// The table was full, and it had never been answered.
    Evicted,
    /// Another was made in its place: its backend has gone, or its ends began anew.
    Replaced,
    /// Somebody asked for it.
    Deleted,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// Its address.
    pub address: String,
    /// Its port, or the identifier of an echo; none where the protocol has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl EndView {
    /// An end.
    pub fn new(address: IpAddr, port: Option<u16>) -> Self {
        Self {
            address: address.to_string(),
            port,
        }
    }
}

impl fmt::Display for EndView {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => out.write_str(&self.address),
            Some(port) if self.address.contains(':') => write!(out, "[{}]:{port}", self.address),
            Some(port) => write!(out, "{}:{port}", self.address),
        }
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// Not confirmed yet by both sides.
    Opening,
    /// Confirmed by both sides.
    Established,
    /// Both sides have said that they are done.
    Closing,
    /// One side has broken it off.
    Reset,
}

impl fmt::Display for FlowState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            FlowState::Opening => "opening",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Reset => "reset",
        })
    }
}

/// The view as text.
pub fn table(view: &FlowsView) -> String {
    if view.live == 0 {
        return format!("no connections; there is room for {}\n", number(view.capacity));
    }
    if view.flows.is_empty() {
        return summary(view);
    }
    let mut table = Table::new(&[
        "PROTOCOL",
        "SOURCE",
        "TARGET",
        "AS SOURCE",
        "AS TARGET",
        "STATE",
        ">PACKETS",
        ">SENT",
        ">RECEIVED",
        ">IDLE",
    ]);
    for flow in &view.flows {
        let or_same = |end: &Option<EndView>| end.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        table.row([
            flow.protocol.as_str().into(),
            (&flow.source).into(),
            (&flow.target).into(),
            or_same(&flow.translated_source).into(),
            or_same(&flow.translated_target).into(),
            flow.state.into(),
            number(flow.packets + flow.reply_packets).into(),
            bytes(flow.bytes).into(),
            bytes(flow.reply_bytes).into(),
            format!("{} s", number(flow.idle_s)).into(),
        ]);
    }
    format!("{table}{}", summary(view))
}

fn summary(view: &FlowsView) -> String {
    let shown = view.flows.len() as u64;
    let matching = view.matched.map(|matched| format!(", {} match", number(matched)));
    let first = shown < view.matched.unwrap_or(view.live);
    let first = first.then(|| format!(", the first {} are shown", number(shown)));
    format!(
        "{} connections of at most {}{}{}\n",
        number(view.live),
        number(view.capacity),
        matching.unwrap_or_default(),
        first.filter(|_| shown > 0).unwrap_or_default(),
    )
}
