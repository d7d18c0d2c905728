//! `show routes`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::Table;

/// A route of the plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteView {
    /// The prefix.
    pub destination: String,
    /// The routing table.
    pub vrf: String,
    /// Where the route comes from.
    pub origin: RouteOrigin,
    /// The name of the Route, Port or WireguardInterface it comes from; for origin `kernel` who gave it to the kernel, as
    /// `ip route` says: `bird`, `static`, `dhcp`.
    pub name: String,
    /// Next hops, for action `forward`.
    pub via: Vec<HopView>,
    /// What becomes of packets to it.
    pub action: RouteAction,
    /// For action `table`: the routing table that says where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteOrigin {
    /// The prefix of a port's address.
    Connected,
    /// A port's address itself.
    Local,
    /// A resource of kind Route.
    Static,
    /// Allowed IPs of a WireGuard peer.
    Allowed,
    /// The kernel's table, as a routing daemon writes it.
    Kernel,
}

/// What becomes of packets to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteAction {
    /// They leave by a next hop.
    Forward,
    /// They go where another table says.
    Table,
    /// They are for the data plane or its host.
    Local,
    /// They are dropped.
    Drop,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HopView {
    /// The router; none where the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The name of the Port packets leave by.
    pub port: String,
    /// Its share among the hops of the route.
    pub weight: u16,
}

/// The view as text.
pub fn table(routes: &Vec<RouteView>) -> String {
    if routes.is_empty() {
        return "no routes; give a Port an address or apply a resource of kind Route\n".to_owned();
    }
    let mut table = Table::new(&["DESTINATION", "VRF", "ORIGIN", "NAME", "ACTION", "VIA"]);
    for route in routes {
        let origin = match route.origin {
            RouteOrigin::Connected => "connected",
            RouteOrigin::Local => "local",
            RouteOrigin::Allowed => "allowed",
            RouteOrigin::Kernel => "kernel",
            RouteOrigin::Static => "static",
        };
        let action = match route.action {
            RouteAction::Forward => "forward",
            RouteAction::Local => "local",
            RouteAction::Table => "table",
            RouteAction::Drop => "drop",
        };
        let table_name = route.table.iter().map(|vrf| format!("vrf {vrf}"));
        let via: Vec<_> = route.via.iter().map(hop).chain(table_name).collect();
        table.row([
            route.destination.as_str().into(),
            route.vrf.as_str().into(),
            origin.into(),
            route.name.as_str().into(),
            action.into(),
            via.join(", ").into(),
        ]);
    }
    table.to_string()
}

fn hop(HopView { gateway, port, weight }: &HopView) -> String {
    let to = match gateway {
        Some(gateway) => format!("{gateway} on {port}"),
        None => port.clone(),
    };
    if *weight == 1 {
        to
    } else {
        format!("{to} (weight {weight})")
    }
}
