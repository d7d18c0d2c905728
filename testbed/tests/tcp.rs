//! Real TCP through the plane, without root: in-process hosts on ports of driver `memory`, in simulated time. ARP and
//! neighbour discovery are the plane's own.

use std::time::Duration;

use testbed::Plane;
use testbed::smol::{Host, Network};

const MEGABYTE: usize = 1 << 20;

/// Two ports of these MTUs.
fn ports(left: u16, right: u16) -> String {
    let port = |name: &str, number: u8, mtu: u16| {
        format!(
            "{{apiVersion: margay/v1, kind: Port, metadata: {{name: {name}}}, spec: {{device: {name}, driver: memory, \
             mtu: {mtu}, addresses: [10.{number}.0.1/24, \"fd00:{number}::1/64\"]}}}}\n---\n"
        )
    };
    port("left", 1, left) + &port("right", 2, right)
}

/// A host behind each port, of the port's MTU, with the plane as its gateway.
fn hosts(plane: &mut Plane, mtus: [usize; 2]) -> Vec<Host> {
    let mut host = |port: &str, number: u8| {
        let addresses = [format!("10.{number}.0.2/24"), format!("fd00:{number}::2/64")];
        let gateways = [format!("10.{number}.0.1"), format!("fd00:{number}::1")];
        let (addresses, gateways) = (
            addresses.each_ref().map(String::as_str),
            gateways.each_ref().map(String::as_str),
        );
        let (mac, mtu) = ([2, 0, 0, 0, 0, number], mtus[usize::from(number) - 1]);
        Host::with_mtu(mac, &addresses, &gateways, plane.wire(port), mtu).unwrap()
    };
    vec![host("left", 1), host("right", 2)]
}

/// Runs hosts behind ports of these MTUs, with a plane of some workers between them.
fn with(mtus: [u16; 2], workers: usize, run: impl FnOnce(&mut Network<'_>)) {
    let mut plane = Plane::with_workers(&ports(mtus[0], mtus[1]), workers).unwrap();
    run_behind(&mut plane, mtus, run);
}

fn run_behind(plane: &mut Plane, mtus: [u16; 2], run: impl FnOnce(&mut Network<'_>)) {
    let hosts = hosts(plane, mtus.map(usize::from));
    let between = |now: Duration| {
        plane.set_time(now);
        plane.turn();
    };
    run(&mut Network::simulated(hosts, between));
}

#[test]
fn hosts_ping_each_other_and_the_plane_over_both_families() {
    with([1500, 1500], 1, |network| {
        for to in [
            "10.2.0.2",
            "fd00:2::2",
            "10.1.0.1",
            "fd00:1::1",
            "10.2.0.1",
            "fd00:2::1",
        ] {
            network.ping(0, to.parse().unwrap()).unwrap();
        }
        for to in ["10.1.0.2", "fd00:1::2"] {
            network.ping(1, to.parse().unwrap()).unwrap();
        }
    });
}

#[test]
fn a_megabyte_arrives_each_way_over_both_families() {
    with([1500, 1500], 1, megabytes);
}

#[test]
fn a_megabyte_arrives_between_ports_of_different_workers() {
    with([1500, 1500], 2, megabytes);
}

#[test]
fn a_megabyte_arrives_each_way_when_one_side_is_narrow() {
    // The host there asks for smaller segments; it does not discover the MTU of the path.
    with([1500, 1280], 1, megabytes);
}

#[test]
fn a_megabyte_arrives_each_way_through_source_nat() {
    let rules =
        [("v4", "10.1.0.0/24", "10.2.0.1"), ("v6", "fd00:1::/64", "fd00:2::1")].map(|(name, source, address)| {
            format!(
                "{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: {name}}}, \
             spec: {{source: '{source}', address: '{address}', outPort: right}}}}\n---\n"
            )
        });
    let mut plane = Plane::with_workers(&(ports(1500, 1500) + &rules.concat()), 2).unwrap();
    run_behind(&mut plane, [1500, 1500], megabytes);
    // Each megabyte is more than 700 segments, and all but the first of a connection are known.
    assert!(plane.packets("rewrite") > 4 * 700, "{}", plane.packets("rewrite"));
}

fn megabytes(network: &mut Network<'_>) {
    for at in ["10.2.0.2:80", "[fd00:2::2]:80"] {
        network.transfer(0, 1, at.parse().unwrap(), MEGABYTE).unwrap();
    }
    for at in ["10.1.0.2:80", "[fd00:1::2]:80"] {
        network.transfer(1, 0, at.parse().unwrap(), MEGABYTE).unwrap();
    }
}
