//! `show services`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, heading, number};
use crate::program::services::BackendState;

/// A service, and what new connections to it get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type: `ClusterIP`, `NodePort` or `LoadBalancer`; `HostPort` for a workload that ports of the node lead to.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Seconds that a client stays with its backend; 0 if it need not.
    pub affinity_s: u32,
    /// Whether backends on other nodes answer clients directly.
    #[serde(default)]
    pub direct: bool,
    /// What its ports lead to.
    pub pools: Vec<PoolView>,
}

/// Backends, and what leads to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// The port of the service.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whether they are those of this node alone.
    pub local: bool,
    /// Addresses and ports that lead here; `*` for every address of the node's.
    pub frontends: Vec<String>,
    /// By address.
    pub backends: Vec<BackendView>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendView {
    /// Its address and port.
    pub address: String,
    /// The node that it is on, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it gets.
    pub state: BackendStateView,
    /// Its part of the table by which new connections are chosen for.
    pub share_percent: f64,
    /// Connections that it was chosen for since it came.
    pub connections: u64,
}

/// What a backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendStateView {
    /// New connections.
    Ready,
    /// New connections, although it is about to end, for there is nobody else.
    LastResort,
    /// Nothing new: it is about to end.
    Draining,
    /// Nothing new: others are nearer.
    Elsewhere,
}

impl BackendStateView {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::LastResort => "last resort",
            Self::Draining => "draining",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl From<BackendState> for BackendStateView {
    fn from(state: BackendState) -> Self {
        match state {
            BackendState::Ready => Self::Ready,
            BackendState::LastResort => Self::LastResort,
            BackendState::Draining => Self::Draining,
            BackendState::Elsewhere => Self::Elsewhere,
        }
    }
}

/// The view as text.
pub fn table(services: &[ServiceView]) -> String {
    if services.is_empty() {
        return "no services; apply resources of kind Service and EndpointSlice\n".to_owned();
    }
    let mut text = String::new();
    for (at, service) in services.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        let ServiceView { namespace, name, .. } = service;
        let kind = &service.service_type;
        text.push_str(&heading(format_args!("service {namespace}/{name} ({kind})")));
        if service.affinity_s > 0 {
            let seconds = number(service.affinity_s.into());
            text.push_str(&format!("  clients stay with their backends for {seconds} s\n"));
        }
        if service.direct {
            text.push_str("  backends on other nodes answer clients directly\n");
        }
        let pools: Vec<String> = service.pools.iter().map(pool_text).collect();
        text.push_str(&pools.join("\n"));
    }
    text
}

fn pool_text(pool: &PoolView) -> String {
    let here = if pool.local { ", on this node" } else { "" };
    let frontends = pool.frontends.join(", ");
    let head = format!("  {}/{} at {frontends}{here}\n", pool.port, pool.protocol);
    if pool.backends.is_empty() {
        return format!("{head}  no backends\n");
    }
    let mut table = Table::new(&["BACKEND", "NODE", "STATE", ">SHARE", ">CONNECTIONS"]);
    for backend in &pool.backends {
        table.row([
            backend.address.as_str().into(),
            backend.node.as_deref().unwrap_or("-").into(),
            backend.state.word().into(),
            format!("{:.1} %", backend.share_percent).into(),
            number(backend.connections).into(),
        ]);
    }
    format!("{head}\n{table}")
}
