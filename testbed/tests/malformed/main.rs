//! Bad packets: each is dropped by the name it deserves, and whatever comes, nothing stops, leaks or grows.

mod storm;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use table::cases;
use testbed::Plane;
use testbed::packets::*;

pub(crate) const HOST: Mac = [2, 0, 0, 0, 0, 0xa];
pub(crate) const OURS: Mac = [0x02, 0x4d, 0x47, 0, 0, 1];

/// Two ports, one of them narrow, neighbours, an ECMP route and a route that drops.
const RESOURCES: &str = r#"
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24, "fd00:1::1/64"]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, mtu: 1280, addresses: [10.2.0.1/24, "fd00:2::1/64"]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left4}, spec: {port: left, address: 10.1.0.2, mac: "02:00:00:00:00:0a"}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left6}, spec: {port: left, address: "fd00:1::2", mac: "02:00:00:00:00:0a"}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right4}, spec: {port: right, address: 10.2.0.2, mac: "02:00:00:00:00:0b"}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right6}, spec: {port: right, address: "fd00:2::2", mac: "02:00:00:00:00:0b"}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: hole}, spec: {destination: 20.0.0.0/8, via: [{drop: true}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: many}, spec: {destination: "2001:db8::/32", via: [{gateway: "fd00:2::2"}, {gateway: "fd00:2::3"}]}}
"#;

pub(crate) fn a(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn plane() -> Plane {
    Plane::new(RESOURCES).unwrap()
}

#[test]
fn each_bad_packet_is_dropped_by_its_name() {
    let mut plane = plane();
    for (what, reason, bytes) in cases() {
        plane.advance(Duration::from_millis(100));
        plane.take("left");
        let before = plane.drops();
        let came = plane.exchange("left", &[bytes], ["left", "right"]);
        let mut after = plane.drops();
        // The edges that lead to an error are named, too; it is the end that counts.
        after.retain(|name, count| {
            before.get(name) != Some(count) && !name.ends_with("/closed") && !name.contains("expired")
        });
        assert_eq!(after.keys().collect::<Vec<_>>(), [reason], "{what}");
        assert!(came.iter().all(Vec::is_empty), "{what}: {came:?}");
    }
}

/// Reasons that no single bad packet from outside leads to, with where they are proven.
const ELSEWHERE: &[&str] = &[
    "parse/unknown-port",           // a port that goes while its packet is on the way: two threads
    "icmp-error/icmp-rate-limited", // errors.rs
    "icmp-error/icmp-no-address",   // errors.rs
    "icmp-error/icmp-no-room",      // a frame without headroom: no port has such
    "local/own-to-us",              // undeliverable takes what we send to ourselves
];

#[test]
fn the_table_covers_every_reason_that_a_packet_from_outside_can_meet() {
    let named: BTreeSet<String> = cases().iter().map(|case| case.1.to_owned()).collect();
    let stages = ["parse", "arp", "ndp", "local", "icmp-error"];
    // Not the second instances: what they see was inside a tunnel, and its sender is known (tests/wireguard).
    let of_stages = |reason: &String| {
        let stage = reason.rsplit_once('/').map(|(stage, _)| stage);
        stages.iter().any(|name| stage == Some(name))
    };
    let all: BTreeSet<String> = plane()
        .reasons()
        .into_iter()
        .filter(|reason| of_stages(reason) && !reason.ends_with("/undecided"))
        .collect();
    let elsewhere: BTreeSet<String> = ELSEWHERE.iter().map(|reason| (*reason).to_owned()).collect();
    assert!(
        elsewhere.is_subset(&all),
        "{:?} are no reasons any more",
        elsewhere.difference(&all)
    );
    let missing: Vec<_> = all
        .difference(&named)
        .filter(|reason| !elsewhere.contains(*reason))
        .collect();
    assert!(missing.is_empty(), "no packet of the table is dropped for {missing:?}");
}

#[test]
fn a_giant_frame_is_lost_on_the_cable() {
    let mut plane = plane();
    let giant = frame(OURS, HOST, &udp((a("10.1.0.2"), 1), (a("10.2.0.2"), 2), 64, &[0; 9000]));
    assert_eq!(
        plane.exchange("left", &[giant], ["left", "right"]),
        [Vec::<Vec<u8>>::new(), vec![]]
    );
}
