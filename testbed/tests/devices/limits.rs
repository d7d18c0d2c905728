//! Limits of rate as hosts meet them: what arrives is what is configured, whatever is sent.

use serde_json::Value;
use testbed::need;

use super::router::{self, Net, iperf, iperf_server, port};

/// Megabits a second to the right host, and from it.
const TO: f64 = 20.0;
const FROM: f64 = 10.0;

/// Within a tenth of a limit, in megabits a second.
fn is_held(rate: f64, limit: f64) -> bool {
    (limit * 0.9..=limit * 1.1).contains(&rate)
}

/// What arrived of datagrams of 1,000 bytes, in megabits a second.
fn received(report: &Value) -> f64 {
    let sum = &report["end"]["sum"];
    let number = |field: &str| sum[field].as_f64().unwrap();
    assert!(number("lost_packets") > 0.0, "nothing exceeded the limit: {sum}");
    (number("packets") - number("lost_packets")) * 8000.0 / 1e6 / number("seconds")
}

/// What a stream carries, in megabits a second.
fn stream(net: &Net, direction: &str) -> f64 {
    let report = iperf(&net.left, &format!("-c 10.2.0.2 {direction} -t 5"));
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

#[test]
fn a_limit_is_held_each_way_for_datagrams_and_streams() {
    need!("iperf3", "ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let qos = format!("right0, qos: {{ ingressBandwidth: {TO}M, egressBandwidth: {FROM}M }}, ");
    margay.apply(&router::PORTS.replace("right0, ", &qos)).unwrap();
    let _server = iperf_server(&net.right);
    for address in ["10.2.0.2", "fd00:2::2"] {
        for (direction, limit) in [("", TO), ("--reverse", FROM)] {
            let offered = limit * 2.5;
            let arguments = format!("-c {address} {direction} -u -b {offered}M -l 1000 -t 4");
            let rate = received(&iperf(&net.left, &arguments));
            assert!(is_held(rate, limit), "{address} {direction}: {rate} of {limit} Mbit/s");
        }
    }
    // A stream finds the rate by its losses, after which Linux waits for a fifth of a second: so long the burst has to last.
    for (direction, limit) in [("", TO), ("--reverse", FROM)] {
        let rate = stream(&net, direction);
        assert!(is_held(rate, limit), "{direction}: {rate} of {limit} Mbit/s");
    }
    let limits = &port(&margay, "right")["limits"];
    for direction in ["ingress", "egress"] {
        let dropped = limits[direction]["bandwidth_drops"].as_u64().unwrap();
        assert!(dropped > 1_000, "{limits}");
    }
    // A limit of packets of 1,448 bytes of payload, as streams send them.
    let qos = "right0, qos: { ingressPacketRate: 1000 }, ";
    margay.apply(&router::PORTS.replace("right0, ", qos)).unwrap();
    let (rate, limit) = (stream(&net, ""), 1448.0 * 8.0 / 1000.0);
    assert!(is_held(rate, limit), "packets: {rate} of {limit} Mbit/s");
    margay.stop().unwrap();
}
