//! Forwarding through the real wiring, in simulated time and without root: what comes in, what must go out.

mod changes;
mod errors;
mod headers;
mod limits;
mod neighbours;
mod overlays;
mod proxies;
mod random_tables;
mod routes;
mod scale;
mod sizes;
mod sources;
mod tables;
mod tunnel_paths;
mod vlans;

use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::{Mac, Received, frame, open, port_mac, udp};

/// The host behind `left`, and the one behind `right`.
pub(crate) const LEFT: Mac = [2, 0, 0, 0, 0, 0xa];
pub(crate) const RIGHT: Mac = [2, 0, 0, 0, 0, 0xb];
/// The ports' own link addresses.
pub(crate) const LEFT_PORT: Mac = [0x02, 0x4d, 0x47, 0, 0, 1];
pub(crate) const RIGHT_PORT: Mac = [0x02, 0x4d, 0x47, 0, 0, 2];

/// A host behind `left`, and one behind `right`, once of each family.
pub(crate) fn pairs() -> [(IpAddr, IpAddr); 2] {
    [("10.1.0.2", "10.2.0.2"), ("fd00:1::2", "fd00:2::2")].map(|(left, right)| (address(left), address(right)))
}

/// The plane's own addresses beside them.
pub(crate) fn own(family_of: IpAddr) -> (IpAddr, IpAddr) {
    match family_of {
        IpAddr::V4(_) => (address("10.1.0.1"), address("10.2.0.1")),
        IpAddr::V6(_) => (address("fd00:1::1"), address("fd00:2::1")),
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}\n---\n")
}

/// A port of driver `memory`; `more` are further fields.
pub(crate) fn port(name: &str, addresses: &str, more: &str) -> String {
    document(
        "Port",
        name,
        &format!("{{device: {name}, driver: memory, addresses: [{addresses}]{more}}}"),
    )
}

pub(crate) fn route(name: &str, destination: &str, via: &str) -> String {
    document(
        "Route",
        name,
        &format!("{{destination: \"{destination}\", via: [{via}]}}"),
    )
}

pub(crate) fn neighbor(name: &str, port: &str, address: &str, mac: Mac) -> String {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    document(
        "Neighbor",
        name,
        &format!("{{port: {port}, address: \"{address}\", mac: \"{mac}\"}}"),
    )
}

/// Two ports with subnets of both families.
pub(crate) fn two_ports() -> String {
    port("left", "10.1.0.1/24, \"fd00:1::1/64\"", "") + &port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "")
}

/// The hosts behind them.
pub(crate) fn hosts() -> String {
    let left = neighbor("left4", "left", "10.1.0.2", LEFT) + &neighbor("left6", "left", "fd00:1::2", LEFT);
    left + &neighbor("right4", "right", "10.2.0.2", RIGHT) + &neighbor("right6", "right", "fd00:2::2", RIGHT)
}

/// Two ports, and hosts behind them that need not be asked for.
pub(crate) fn plane() -> Plane {
    Plane::new(&(two_ports() + &hosts())).unwrap()
}

/// Sends an IP packet from the left host, and returns what leaves on the right.
pub(crate) fn across(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    let [right] = plane.exchange("left", &[frame(LEFT_PORT, LEFT, packet)], ["right"]);
    packets(&right)
}

/// Sends an IP packet from the left host, and returns what comes back to it.
pub(crate) fn answers(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    let [left] = plane.exchange("left", &[frame(LEFT_PORT, LEFT, packet)], ["left"]);
    packets(&left)
}

/// The packets among frames: not the plane's questions for neighbours.
pub(crate) fn packets(frames: &[Vec<u8>]) -> Vec<Received> {
    let packets = frames
        .iter()
        .filter(|frame| frame[12..14] != [8, 6])
        .map(|frame| open(frame));
    packets
        .filter(|packet| packet.protocol != 58 || packet.icmp() != (135, 0))
        .collect()
}

/// The one answer to an IP packet from the left host.
pub(crate) fn answer(plane: &mut Plane, packet: &[u8]) -> Received {
    let mut answers = answers(plane, packet);
    assert_eq!(answers.len(), 1, "{answers:?}; drops: {:?}", plane.drops());
    answers.remove(0)
}

#[test]
fn a_packet_is_forwarded_with_one_hop_less_and_new_link_addresses() {
    let mut plane = plane();
    for (left, right) in pairs() {
        for hop_limit in [255, 64, 2] {
            let packet = udp((left, 1000), (right, 2000), hop_limit, b"payload");
            let forwarded = across(&mut plane, &packet);
            // The same packet made with one hop less: every byte of it, the whole checksum included.
            let expected = frame(
                RIGHT,
                RIGHT_PORT,
                &udp((left, 1000), (right, 2000), hop_limit - 1, b"payload"),
            );
            assert_eq!(forwarded, [open(&expected)]);
        }
        let back = frame(RIGHT_PORT, RIGHT, &udp((right, 2000), (left, 1000), 64, b"back"));
        let [came] = plane.exchange("right", &[back], ["left"]);
        let expected = frame(LEFT, LEFT_PORT, &udp((right, 2000), (left, 1000), 63, b"back"));
        assert_eq!(came, [expected]);
    }
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn the_checksum_stays_right_for_every_hop_limit_and_identification() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let original = udp((left, 1), (right, 2), 64, b"");
    let packets: Vec<Vec<u8>> = (0..4000u16)
        .map(|number| {
            let mut packet = original.clone();
            packet[4..6].copy_from_slice(&number.wrapping_mul(0x9e37).to_be_bytes());
            packet[8] = 2 + (number % 254) as u8;
            testbed::packets::fix_v4(&mut packet);
            frame(LEFT_PORT, LEFT, &packet)
        })
        .collect();
    let [came] = plane.exchange("left", &packets, ["right"]);
    assert_eq!(came.len(), packets.len());
    for (sent, came) in packets.iter().zip(&came) {
        // `open` checks the header checksum.
        assert_eq!(open(came).hop_limit + 1, sent[14 + 8]);
    }
}

#[test]
fn padding_is_not_forwarded() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let packet = udp((left, 1), (right, 2), 64, b"");
    let padded = [packet.clone(), vec![0xee; 18]].concat();
    let came = across(&mut plane, &padded);
    assert_eq!(came[0].packet.len(), packet.len());
}

#[test]
fn the_ports_have_the_link_addresses_the_tests_say() {
    assert_eq!([port_mac(1), port_mac(2)], [LEFT_PORT, RIGHT_PORT]);
    let macs: Vec<String> = plane().views().ports().into_iter().map(|port| port.mac).collect();
    assert_eq!(macs, ["02:4d:47:00:00:01", "02:4d:47:00:00:02"]);
}
