//! Limits of workloads, beside their policy.

use std::time::Duration;

use super::*;

fn with_limits(qos: &str) -> String {
    PODS.replace(
        "interfaceName: db,",
        &format!("interfaceName: db, qosControls: {{{qos}}},"),
    )
}

/// How many of so many packets of a flow arrive.
fn arrive(plane: &mut Plane, from: Host, to: Host, count: usize) -> usize {
    let (ports, mac): (_, Mac) = (
        if from == DB { (5432, 4000) } else { (4000, 5432) },
        [2, 0, 0, 0, 0, from.2],
    );
    let packet = udp((address(from), ports.0), (address(to), ports.1), 64, b"?");
    let frames = vec![frame(port_mac(from.2), mac, &packet); count];
    plane.exchange(from.0, &frames, [to.0])[0].len()
}

#[test]
fn an_established_flow_is_limited_in_both_directions_and_others_are_not() {
    let mut plane = plane(&[DATABASE]);
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    assert_eq!(arrive(&mut plane, DB, WEB, 100), 100);
    let limits = "ingressPacketRate: 10, ingressPacketBurst: 20, egressPacketRate: 10, egressPacketBurst: 30";
    plane.apply(&with_limits(limits)).unwrap();
    // The first one is decided anew, and those behind it replay that.
    assert_eq!(arrive(&mut plane, WEB, DB, 100), 20);
    assert_eq!(arrive(&mut plane, DB, WEB, 100), 30);
    plane.advance(Duration::from_secs(1));
    assert_eq!(arrive(&mut plane, WEB, DB, 100), 10);
    assert_eq!(arrive(&mut plane, DB, WEB, 100), 10);
    assert!(plane.packets("rewrite") > 150, "they take the short way");
    // Web and the world talk as before.
    assert_eq!(arrive(&mut plane, WEB, WORLD, 100), 100);
    let drops = plane.drops();
    assert_eq!(drops["port-out/packet-rate-limit"], 80 + 90);
    assert_eq!(drops["police/packet-rate-limit"], 70 + 90);
    let ports = plane.views().ports();
    let limited: Vec<_> = ports
        .iter()
        .filter_map(|port| Some((port.name.as_str(), port.limits.as_ref()?)))
        .collect();
    let [("db", limits)] = limited[..] else {
        panic!("{limited:?}")
    };
    assert_eq!(limits.endpoint.as_deref(), Some("shop/db"));
    assert_eq!(limits.ingress.as_ref().unwrap().packet_rate_drops, 80 + 90);
    assert_eq!(limits.egress.as_ref().unwrap().packet_rate_drops, 70 + 90);
    plane.apply(PODS).unwrap();
    assert_eq!(arrive(&mut plane, WEB, DB, 100), 100);
    assert_eq!(arrive(&mut plane, DB, WEB, 100), 100);
}

#[test]
fn of_the_limits_of_a_port_and_of_the_workload_behind_it_the_lower_counts() {
    let limits = "egressPacketRate: 10, egressPacketBurst: 30, ingressPacketRate: 10, ingressPacketBurst: 40";
    let mut plane = Plane::new(&(NETWORK.to_owned() + "---\n" + &with_limits(limits))).unwrap();
    let port = "{apiVersion: margay/v1, kind: Port, metadata: {name: db}, spec: {device: db, driver: memory,
        addresses: [10.2.0.1/24], qos: {egressPacketRate: 5, egressPacketBurst: 7, ingressPacketRate: 90}}}";
    plane.apply(port).unwrap();
    assert_eq!(arrive(&mut plane, DB, WEB, 100), 7);
    assert_eq!(arrive(&mut plane, WEB, DB, 100), 40);
}
