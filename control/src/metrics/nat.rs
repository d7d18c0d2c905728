//! Services and their backends, addresses of source NAT, and the table of connections.

use super::Page;
use crate::connections::{Carried, Connections, Served, ServedBackend, Translated, Used, protocol_name};

/// What a family says of each backend.
type OfBackend = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ServedBackend, &Carried) -> u64,
);

const BACKENDS: &[OfBackend] = &[
    (
        "margay_service_backend_connections_total",
        "counter",
        "Connections that a backend was chosen for since it came.",
        |backend, _| backend.connections,
    ),
    (
        "margay_service_backend_connections",
        "gauge",
        "Connections that a backend has.",
        |_, carried| carried.connections,
    ),
    (
        "margay_service_backend_packets",
        "gauge",
        "Packets of the connections that a backend has, both ways.",
        |_, carried| carried.packets,
    ),
    (
        "margay_service_backend_bytes",
        "gauge",
        "Bytes of the connections that a backend has, both ways.",
        |_, carried| carried.bytes,
    ),
];

/// What a family says of each address.
type OfAddress = (&'static str, &'static str, fn(&Translated) -> u64);

const ADDRESSES: &[OfAddress] = &[
    (
        "margay_source_nat_connections",
        "Connections that come from an address instead of their own.",
        |address| address.connections,
    ),
    (
        "margay_source_nat_ports",
        "Different ports that they have there.",
        |address| address.ports.into(),
    ),
];

pub(super) fn write(page: &mut Page, connections: &Connections, served: &Served) {
    table(page, connections);
    let used = connections.used(&served.services);
    backends(page, served, &used);
    for (name, help, value) in ADDRESSES {
        page.family(name, "gauge", help);
        for ((address, protocol), translated) in &used.addresses {
            let labels = [
                ("address", &*address.to_string()),
                ("protocol", &protocol_name(*protocol)),
            ];
            page.sample(name, &labels, value(translated));
        }
    }
}

fn table(page: &mut Page, connections: &Connections) {
    page.family("margay_flows", "gauge", "Connections there are.");
    page.sample("margay_flows", &[], connections.live());
    page.family("margay_flows_capacity", "gauge", "Connections there can be.");
    page.sample("margay_flows_capacity", &[], connections.capacity());
    let name = "margay_flows_evicted_total";
    page.family(name, "counter", "Connections never answered that made room for others.");
    page.sample(name, &[], connections.evicted());
    let followed = connections.followed();
    page.family("margay_flow_followers", "gauge", "Clients that follow connections.");
    page.sample("margay_flow_followers", &[], followed.followers);
    let cut_off = "margay_flow_followers_cut_off_total";
    page.family(
        cut_off,
        "counter",
        "Clients that followed connections and read too slowly.",
    );
    page.sample(cut_off, &[("reason", "slow-reader")], followed.cut_off);
    let lost = "margay_flow_events_lost_total";
    page.family(
        lost,
        "counter",
        "Events of connections that did not fit, for nobody took those before.",
    );
    page.sample(lost, &[], followed.lost);
}

fn backends(page: &mut Page, served: &Served, used: &Used) {
    for (name, kind, help, value) in BACKENDS {
        page.family(name, kind, help);
        for backend in &served.backends {
            let carried = used.backends.get(&(backend.pool, backend.endpoint));
            page.sample(
                name,
                &labels(backend),
                value(backend, carried.unwrap_or(&Carried::default())),
            );
        }
    }
    let name = "margay_service_backend_state";
    page.family(name, "gauge", "1 for the state that a backend is in.");
    for backend in &served.backends {
        let [a, b, c, d, e, f] = labels(backend);
        page.sample(name, &[a, b, c, d, e, f, ("state", backend.state.word())], 1);
    }
    let name = "margay_service_backends_unlisted";
    page.family(
        name,
        "gauge",
        "Backends that are not told of here, for they are too many.",
    );
    page.sample(name, &[], served.unlisted);
}

fn labels(backend: &ServedBackend) -> [(&str, &str); 6] {
    let (namespace, name) = &backend.service;
    [
        ("namespace", namespace),
        ("service", name),
        ("type", backend.service_type),
        ("port", &backend.port),
        ("policy", if backend.local { "Local" } else { "Cluster" }),
        ("backend", &backend.address),
    ]
}
