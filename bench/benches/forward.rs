//! Forwarding in the graph: cycles a packet and node, and time. `cargo bench -p bench --bench forward`

use bench::report::record;
use bench::rig::{OUR_MAC, Rig};
use bench::routes::{self, Rng};
use bench::traffic::{Generator, PACKETS, udp};
use criterion::{Criterion, Throughput};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;
use std::time::Duration;

/// Routes of the large table, as many as two thirds of the IPv4 default-free zone.
const MANY: usize = 500_000;

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut criterion = Criterion::default().configure_from_args();
    for family in [Family::V4, Family::V6] {
        let name = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        for size in [256, 64, 16, 1] {
            let scenario = format!("{name}, 1 route, one flow, vectors of {size}");
            run(&mut criterion, &scenario, one_route(family, 1, size));
        }
        run(
            &mut criterion,
            &format!("{name}, 1 route, 64 K destinations"),
            one_route(family, PACKETS, 256),
        );
        run(
            &mut criterion,
            &format!("{name}, 500 K routes, random destinations"),
            many_routes(family),
        );
    }
    criterion.final_summary();
}

/// Says what a rig's packets cost: by the graph's own counters, and by the wall clock with source and sink.
fn run(criterion: &mut Criterion, scenario: &str, mut rig: Rig) {
    let cost = rig.turner.measure("port-out");
    record("In the graph", scenario, "cycles a packet", cost.cycles);
    for stage in &cost.stages {
        record("In the graph, node by node", scenario, &stage.name, stage.cycles);
    }
    let mut group = criterion.benchmark_group("forward");
    let per_turn = rig.turner.turn() as u64;
    group.throughput(Throughput::Elements(per_turn)).sample_size(20);
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    group.bench_function(scenario, |b| b.iter(|| rig.turner.turn()));
    group.finish();
}

fn source(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 1, 0, 2]),
        Family::V6 => IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 2]),
    }
}

fn gateway(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 2, 0, 2 + number]),
        Family::V6 => IpAddr::from([0xfd00, 2, 0, 0, 0, 0, 0, 2 + u16::from(number)]),
    }
}

fn packets(family: Family, targets: impl Iterator<Item = IpAddr>) -> Vec<Vec<u8>> {
    targets
        .map(|target| udp(OUR_MAC, (source(family), 1024), (target, 4096)))
        .collect()
}

/// One route by one gateway, to this many destinations in a random order.
fn one_route(family: Family, destinations: usize, size: usize) -> Rig {
    let mut rng = Rng(1);
    let mut any = || match family {
        Family::V4 => IpAddr::from(((20 << 24) + rng.below(1 << 16) as u32).to_be_bytes()),
        Family::V6 => IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(rng.below(1 << 16))).to_be_bytes()),
    };
    let targets: Vec<IpAddr> = (0..destinations).map(|_| any()).collect();
    let mut rig = Rig::new(Generator::new(packets(family, targets.into_iter()), size));
    let net: IpNet = match family {
        Family::V4 => "20.0.0.0/8".parse().expect("a prefix"),
        Family::V6 => "2001:db8::/32".parse().expect("a prefix"),
    };
    rig.route(net, gateway(family, 0));
    rig.neighbour(gateway(family, 0));
    rig
}

/// A full table by sixteen gateways; destinations drawn from its routes, so that every packet has one.
fn many_routes(family: Family) -> Rig {
    let mut rng = Rng(2);
    let nets: Vec<IpNet> = match family {
        Family::V4 => routes::v4(MANY, 42)
            .into_iter()
            .filter_map(|(key, length, _)| Some(Ipv4Net::new(key.into(), length as u8).ok()?.into()))
            .collect(),
        Family::V6 => routes::v6(MANY, 42)
            .into_iter()
            .filter_map(|(key, length, _)| Some(Ipv6Net::new(key.into(), length as u8).ok()?.into()))
            .collect(),
    };
    let mut any = || match nets[rng.below(nets.len() as u64) as usize] {
        IpNet::V4(net) => {
            IpAddr::from((net.network().to_bits() | rng.bits() as u32 & net.hostmask().to_bits()).to_be_bytes())
        }
        IpNet::V6(net) => IpAddr::from((net.network().to_bits() | rng.wide() & net.hostmask().to_bits()).to_be_bytes()),
    };
    let forwarded = |address: &IpAddr| !address.is_loopback() && !address.is_multicast();
    let targets: Vec<IpAddr> = std::iter::repeat_with(&mut any)
        .filter(forwarded)
        .take(4 * PACKETS)
        .collect();
    let mut rig = Rig::new(Generator::new(packets(family, targets.into_iter()), 256));
    for (number, net) in nets.into_iter().enumerate() {
        rig.route(net, gateway(family, (number % 16) as u8));
    }
    (0..16).for_each(|number| rig.neighbour(gateway(family, number)));
    rig
}
