//! Services: loading many, changing their backends, and finding the backend of a new connection. `cargo bench -p bench --bench services`

use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use control::plane::{ManualPlane, PlaneOptions};
use control::resource::Resource;
use control::store::{Change, Plan, Planned};
use fastpath::meta::{Endpoint, Flags, VrfId};
use fastpath::wire::protocol;
use fastpath::worker::Idle;
use nat::key::Key;
use nat::service::{Book, Frontend, Lead, Member};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// The table of the report.
const TABLE: &str = "Services";
const SERVICES: u32 = 10_000;
const BACKENDS: u32 = 100;
/// Services that have a backend changed in one apply.
const CHANGED: u32 = 1_000;
const RUNS: u32 = 7;
const VRF: VrfId = VrfId(0);

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut loads = vec![];
    let mut plane = plane();
    for _ in 0..3 {
        plane = self::plane();
        let start = Instant::now();
        plane.apply(&everything()).unwrap_or_else(|refusal| panic!("{refusal}"));
        loads.push(start.elapsed().as_secs_f64());
    }
    let scenario = format!("{SERVICES} services of {BACKENDS} backends");
    record(TABLE, &format!("{scenario}: loaded"), "s", Spread::of(loads));
    let change = |run: u32| {
        let slices = (0..CHANGED).map(|n| ((run * CHANGED + n) % SERVICES, run + 1));
        let plan = Plan {
            changes: slices
                .map(|(service, gone)| configured(slice(service, 0), slice(service, gone)))
                .collect(),
            warnings: vec![],
        };
        let start = Instant::now();
        plane.apply(&plan).unwrap_or_else(|refusal| panic!("{refusal}"));
        f64::from(CHANGED) / start.elapsed().as_secs_f64()
    };
    let changes = Spread::of((0..RUNS).map(change));
    record(
        TABLE,
        &format!("{scenario}: backends changed, {CHANGED} an apply"),
        "a second",
        changes,
    );
    for services in [10, 1_000, SERVICES] {
        let found = Spread::of(choices(services));
        record(
            TABLE,
            &format!("{services} services: a choice for a new connection"),
            "ns",
            found,
        );
    }
}

fn plane() -> ManualPlane {
    let options = PlaneOptions {
        flows: 1 << 16,
        frames: 4096,
        cores: vec![None],
        idle: Idle::Spin,
        place: Default::default(),
    };
    ManualPlane::new(&options).unwrap_or_else(|error| panic!("{error}"))
}

fn everything() -> Plan {
    let services = (0..SERVICES).flat_map(|n| [service(n), slice(n, 0)]);
    Plan {
        changes: services.map(created).collect(),
        warnings: vec![],
    }
}

fn created(resource: Resource) -> Planned {
    Planned {
        key: resource.key(),
        origin: String::new(),
        change: Change::Created,
        before: None,
        after: Some(Arc::new(resource)),
    }
}

fn configured(before: Resource, after: Resource) -> Planned {
    Planned {
        change: Change::Configured,
        before: Some(Arc::new(before)),
        ..created(after)
    }
}

fn service(n: u32) -> Resource {
    let [_, _, high, low] = n.to_be_bytes();
    read(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}")},
        "spec": {"clusterIP": format!("10.96.{high}.{low}"), "ports": [{"port": 80}]},
    }))
}

/// The backends of a service; all but the one numbered `gone`, counted from 1.
fn slice(n: u32, gone: u32) -> Resource {
    let [_, _, high, low] = n.to_be_bytes();
    let backends = (1..=BACKENDS).filter(|backend| *backend != gone);
    let address =
        |backend: u32| json!({"addresses": [format!("{}.{high}.{low}.{}", 100 + backend / 100, backend % 100 + 1)]});
    read(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{n}"), "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": backends.map(address).collect::<Vec<_>>(),
    }))
}

fn read(value: serde_json::Value) -> Resource {
    Resource::from_value(value).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// Nanoseconds for each of many connections to services in no order.
fn choices(services: u32) -> Vec<f64> {
    let mut book = Book::default();
    let address = |n: u32| (0x0a60_0000 + n).to_be_bytes();
    for n in 0..services {
        let member = |backend: u32| Member {
            endpoint: Endpoint::v4((0x6400_0000 + n * 256 + backend).to_be_bytes(), 8080),
            weight: 1,
            remote: false,
        };
        let pool = book.add_pool();
        book.set_pool(pool, &(0..BACKENDS).map(member).collect::<Vec<_>>(), 0);
        let lead = Lead {
            pool,
            sources: Arc::new([]),
            masquerade: false,
            silent: false,
            direct: None,
        };
        book.set_frontend(Frontend::at(VRF, address(n).into(), protocol::TCP, 80), lead);
    }
    book.publish();
    let found = book.published();
    let mut rng = Rng(7);
    let targets: Vec<(Endpoint, Key)> = (0..1 << 14)
        .map(|_| {
            let bits = rng.bits();
            let target = Endpoint::v4(address((bits >> 32) as u32 % services), 80);
            let source = Endpoint::v4((bits as u32).to_be_bytes(), (bits >> 20) as u16);
            (target, Key::new(&source, &target, protocol::TCP, VRF, Flags::IPV4))
        })
        .collect();
    let run = |_| {
        let start = Instant::now();
        for (target, key) in &targets {
            let (_, pool) = found
                .find(VRF, target, protocol::TCP)
                .unwrap_or_else(|| panic!("it is there"));
            black_box(pool.choose(key));
        }
        start.elapsed().as_secs_f64() * 1e9 / targets.len() as f64
    };
    (0..21).map(run).collect()
}
