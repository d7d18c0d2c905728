//! Limits of rate: exact in simulated time, in both directions, with one worker and several, and nothing for others.

use std::time::Duration;

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// `left` and `right` with such limits on `left`, and `workers`.
fn limited(qos: &str, workers: usize) -> Plane {
    let left = port("left", "10.1.0.1/24, \"fd00:1::1/64\"", &format!(", qos: {{{qos}}}"));
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "");
    Plane::with_workers(&(left + &right + &hosts()), workers).unwrap()
}

/// Frames of 1,000 bytes to the right, or to the left.
fn frames(count: usize, to_right: bool) -> Vec<Vec<u8>> {
    let (left, right) = pairs()[0];
    let payload = [0; 1000 - 14 - 20 - 8];
    let one = match to_right {
        true => frame(LEFT_PORT, LEFT, &udp((left, 1), (right, 2), 64, &payload)),
        false => frame(RIGHT_PORT, RIGHT, &udp((right, 2), (left, 1), 64, &payload)),
    };
    assert_eq!(one.len(), 1000);
    vec![one; count]
}

/// How many of so many arrive at once, and later each millisecond.
fn passed(plane: &mut Plane, to_right: bool) -> [usize; 2] {
    let (from, to) = if to_right { ("left", "right") } else { ("right", "left") };
    let offer = |plane: &mut Plane, count| plane.exchange(from, &frames(count, to_right), [to])[0].len();
    let at_once = offer(plane, 100);
    let mut later = 0;
    for _ in 0..50 {
        plane.advance(Duration::from_millis(1));
        later += offer(plane, 5);
    }
    [at_once, later]
}

#[test]
fn what_exceeds_a_burst_and_then_the_rate_is_dropped_by_name() {
    // 8 Mbit/s are a frame a millisecond.
    let bits = |direction: &str| format!("{direction}Bandwidth: 8M, {direction}Burst: 80k");
    let packets = |direction: &str| format!("{direction}PacketRate: 1000, {direction}PacketBurst: 20");
    for workers in [1, 2] {
        for (qos, to_right, expected, reason) in [
            (bits("egress"), true, 10, "police/bandwidth-limit"),
            (bits("ingress"), false, 10, "port-out/bandwidth-limit"),
            (packets("egress"), true, 20, "police/packet-rate-limit"),
            (packets("ingress"), false, 20, "port-out/packet-rate-limit"),
        ] {
            let mut plane = limited(&qos, workers);
            assert_eq!(passed(&mut plane, to_right), [expected, 50], "{qos}, {workers} workers");
            let dropped = (100 - expected) as u64 + 50 * 4;
            assert_eq!(plane.drops(), [(reason.to_owned(), dropped)].into());
            // The other direction is not limited.
            assert_eq!(passed(&mut plane, !to_right), [100, 250], "{qos}, {workers} workers");
            let ports = plane.views().ports();
            let limits = ports[0].limits.clone().unwrap();
            let limit = limits.ingress.or(limits.egress).unwrap();
            assert_eq!(limit.bandwidth_drops + limit.packet_rate_drops, dropped);
            assert_eq!(ports[1].limits, None);
        }
    }
}

#[test]
fn limits_come_change_and_go_while_packets_run() {
    let mut plane = limited("egressBandwidth: 8M, egressBurst: 80k", 1);
    assert_eq!(passed(&mut plane, true), [10, 50]);
    let with = |qos: &str| port("left", "10.1.0.1/24, \"fd00:1::1/64\"", qos);
    // What stays as it is keeps its tokens: none.
    plane
        .apply(&with(
            ", qos: {egressBandwidth: 8M, egressBurst: 80k, ingressBandwidth: 8M, ingressBurst: 160k}",
        ))
        .unwrap();
    assert_eq!(passed(&mut plane, true), [0, 50]);
    assert_eq!(passed(&mut plane, false), [20, 50]);
    plane.apply(&with("")).unwrap();
    assert_eq!(passed(&mut plane, true), [100, 250]);
    assert_eq!(passed(&mut plane, false), [100, 250]);
    // A port that takes the place of a limited one is its own.
    plane
        .apply(&with(
            ", qos: {egressBandwidth: 8M, egressBurst: 80k, ingressBandwidth: 8M}",
        ))
        .unwrap();
    plane.delete(&hosts()).unwrap();
    plane.delete(&with("")).unwrap();
    plane.apply(&(with("") + &hosts())).unwrap();
    assert_eq!(passed(&mut plane, true), [100, 250]);
    assert_eq!(passed(&mut plane, false), [100, 250]);
}

#[test]
fn a_flood_does_not_keep_a_neighbour_from_being_asked_for() {
    let qos = ", qos: {ingressPacketRate: 1, ingressPacketBurst: 1}";
    let left = port("left", "10.1.0.1/24, \"fd00:1::1/64\"", qos);
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "");
    let mut plane = Plane::new(&(left + &right + &hosts())).unwrap();
    assert_eq!(plane.exchange("right", &frames(50, false), ["left"])[0].len(), 1);
    for (_, right) in pairs() {
        let unknown = address(if right.is_ipv4() { "10.1.0.77" } else { "fd00:1::77" });
        let asking = frame(RIGHT_PORT, RIGHT, &udp((right, 1), (unknown, 2), 64, b""));
        let [asked] = plane.exchange("right", &[asking], ["left"]);
        assert_eq!(asked.len(), 1, "{right}: {:?}", plane.drops());
    }
}

#[test]
fn a_vlan_has_limits_of_its_own_and_those_of_its_link() {
    let trunk = port(
        "left",
        "10.1.0.1/24, \"fd00:1::1/64\"",
        ", qos: {ingressPacketRate: 1, ingressPacketBurst: 30}",
    );
    let vlan = |id: u16, net: u16, more: &str| {
        let spec = format!("{{device: left, driver: memory, vlan: {id}, addresses: [10.{net}.0.1/24]{more}}}");
        document("Port", &format!("vlan{id}"), &spec)
            + &neighbor(&format!("v{id}"), &format!("vlan{id}"), &format!("10.{net}.0.2"), LEFT)
    };
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "");
    for workers in [1, 2] {
        let slow = vlan(
            100,
            3,
            ", qos: {ingressPacketRate: 1, ingressPacketBurst: 10, egressPacketRate: 1, egressPacketBurst: 3}",
        );
        let documents = trunk.clone() + &right + &hosts() + &slow + &vlan(200, 4, "");
        let mut plane = Plane::with_workers(&documents, workers).unwrap();
        let mut to = |text: &str| {
            let packet = udp((address("10.2.0.2"), 1), (address(text), 2), 64, b"");
            plane.exchange("right", &vec![frame(RIGHT_PORT, RIGHT, &packet); 25], ["left"])[0].len()
        };
        assert_eq!(to("10.3.0.2"), 10, "{workers} workers");
        assert_eq!(to("10.4.0.2"), 20, "{workers} workers");
        assert_eq!(to("10.1.0.2"), 0, "{workers} workers");
        let packet = udp((address("10.3.0.2"), 1), (address("10.2.0.2"), 2), 64, b"");
        let sent = frame(LEFT_PORT, LEFT, &packet);
        let tagged = [&sent[..12], &[0x81, 0, 0, 100], &sent[12..]].concat();
        assert_eq!(
            plane.exchange("left", &vec![tagged; 25], ["right"])[0].len(),
            3,
            "{workers} workers"
        );
    }
}
