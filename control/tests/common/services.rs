//! Services that a plane of tests has.

use control::connections::{Served, ServedBackend};
use control::show::services::{BackendStateView, BackendView, PoolView, ServiceView};
use fastpath::meta::Endpoint;

pub fn served() -> Served {
    Served {
        backends: vec![ServedBackend {
            service: ("shop".into(), "web".into()),
            service_type: "ClusterIP",
            port: "80/TCP".into(),
            local: false,
            address: "10.1.0.5:8080".into(),
            state: BackendStateView::Draining,
            connections: 1204,
            pool: nat::service::PoolId(0),
            endpoint: Endpoint::v4([10, 1, 0, 5], 8080),
        }],
        unlisted: 7,
        ..Served::default()
    }
}

pub fn views() -> Vec<ServiceView> {
    let backend = |address: &str, node: Option<&str>, state, share_percent, connections| BackendView {
        address: address.into(),
        node: node.map(Into::into),
        state,
        share_percent,
        connections,
    };
    vec![ServiceView {
        namespace: "default".into(),
        name: "web".into(),
        service_type: "NodePort".into(),
        affinity_s: 10_800,
        direct: false,
        pools: vec![
            PoolView {
                port: 80,
                protocol: "TCP".into(),
                local: false,
                frontends: vec!["*:30080".into(), "10.96.0.1:80".into()],
                backends: vec![
                    backend("10.1.0.5:8080", Some("here"), BackendStateView::Ready, 100.0, 1_234),
                    backend("10.1.0.6:8080", None, BackendStateView::Draining, 0.0, 7),
                ],
            },
            PoolView {
                port: 53,
                protocol: "UDP".into(),
                local: true,
                frontends: vec!["[fd00:96::1]:53".into()],
                backends: vec![],
            },
        ],
    }]
}
