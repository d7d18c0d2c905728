//! Tunnels in the graph: cycles a packet into one and out of one. `cargo bench -p bench --bench tunnel`
//!
//! Half of the packets are sealed and half opened, so a packet that goes both ways costs what two cost here.

use bench::report::record;
use bench::spread::Spread;
use bench::tunnel::Gateway;
use criterion::{Criterion, Throughput};
use std::time::Duration;

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut criterion = Criterion::default().configure_from_args();
    for peers in [1, 1000] {
        for length in [64, 512, 1420] {
            let scenario = match peers {
                1 => format!("1 peer, {length} bytes"),
                _ => format!("{peers} peers in random order, {length} bytes"),
            };
            run(&mut criterion, &scenario, Gateway::new(peers, length));
        }
    }
    criterion.final_summary();
}

fn run(criterion: &mut Criterion, scenario: &str, mut gateway: Gateway) {
    let cost = gateway.turner.measure("port-out");
    record(
        "Tunnel, both ways on one core",
        scenario,
        "cycles a packet",
        twice(cost.cycles),
    );
    for stage in &cost.stages {
        record("Tunnel, node by node", scenario, &stage.name, twice(stage.cycles));
    }
    let mut group = criterion.benchmark_group("tunnel");
    group
        .throughput(Throughput::Elements(gateway.turner.turn() as u64))
        .sample_size(10);
    group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    group.bench_function(scenario, |b| b.iter(|| gateway.turner.turn()));
    group.finish();
}

/// Once in and once out.
fn twice(cost: Spread) -> Spread {
    Spread {
        median: 2.0 * cost.median,
        minimum: 2.0 * cost.minimum,
        maximum: 2.0 * cost.maximum,
    }
}
