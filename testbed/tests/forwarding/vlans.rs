//! VLANs: ports that share a link, told apart by a tag.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// The link address of the trunk, and of its VLANs.
const TRUNK: Mac = LEFT_PORT;

/// `left` and its VLANs 100 and 200 in front of `right`.
fn vlans() -> Plane {
    Plane::new(&(two_ports() + &vlan_ports() + &hosts() + &vlan_hosts())).unwrap()
}

fn vlan_ports() -> String {
    let vlan = |id: u16, addresses: &str| {
        let spec = format!("{{device: left, driver: memory, vlan: {id}, addresses: [{addresses}]}}");
        document("Port", &format!("vlan{id}"), &spec)
    };
    vlan(100, "10.3.0.1/24, \"fd00:3::1/64\"") + &vlan(200, "10.4.0.1/24, \"fd00:4::1/64\"")
}

fn vlan_hosts() -> String {
    let hosts = [
        ("vlan100", "10.3.0.2"),
        ("vlan100", "fd00:3::2"),
        ("vlan200", "10.4.0.2"),
        ("vlan200", "fd00:4::2"),
    ];
    let host = |(number, (port, address)): (usize, &(&str, &str))| neighbor(&format!("v{number}"), port, address, LEFT);
    hosts.iter().enumerate().map(host).collect()
}

/// The frame with a tag of this type.
fn tagged(kind: u16, id: u16, frame: &[u8]) -> Vec<u8> {
    let tag = [kind.to_be_bytes(), id.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// The number of a frame's tag, and the frame without it.
fn untagged(frame: &[u8]) -> (u16, Vec<u8>) {
    assert_eq!(frame[12..14], [0x81, 0], "no tag");
    let id = u16::from_be_bytes([frame[14], frame[15]]);
    (id, [&frame[..12], &frame[16..]].concat())
}

/// Hosts of one VLAN, of the other, and behind `right`.
fn hosts_of(family: usize) -> [IpAddr; 3] {
    [
        ["10.3.0.2", "10.4.0.2", "10.2.0.2"],
        ["fd00:3::2", "fd00:4::2", "fd00:2::2"],
    ][family]
        .map(address)
}

#[test]
fn packets_come_and_go_with_the_tag_of_their_vlan() {
    let mut plane = vlans();
    for family in 0..2 {
        let [one, other, right] = hosts_of(family);
        let sent = frame(TRUNK, LEFT, &udp((one, 1), (right, 2), 64, b"up"));
        let [came] = plane.exchange("left", &[tagged(0x8100, 100, &sent)], ["right"]);
        assert_eq!(came, [frame(RIGHT, RIGHT_PORT, &udp((one, 1), (right, 2), 63, b"up"))]);
        let sent = frame(RIGHT_PORT, RIGHT, &udp((right, 2), (other, 1), 64, b"down"));
        let [came] = plane.exchange("right", &[sent], ["left"]);
        let expected = frame(LEFT, TRUNK, &udp((right, 2), (other, 1), 63, b"down"));
        assert_eq!(came, [tagged(0x8100, 200, &expected)]);
        // From one VLAN to the other, by the same link.
        let sent = frame(TRUNK, LEFT, &udp((one, 1), (other, 2), 64, b"over"));
        // Its priority and whether it may be dropped first are its sender's affair, and end here.
        let [came] = plane.exchange("left", &[tagged(0x8100, 100 | 0xf000, &sent)], ["left"]);
        assert_eq!(
            untagged(&came[0]),
            (200, frame(LEFT, TRUNK, &udp((one, 1), (other, 2), 63, b"over")))
        );
    }
    assert_eq!(plane.drops(), Default::default());
    let counts = |name: &str, plane: &mut Plane| {
        let ports = plane.views().ports();
        let port = ports.into_iter().find(|port| port.name == name).unwrap();
        (port.rx_packets, port.tx_packets)
    };
    assert_eq!(counts("vlan100", &mut plane), (4, 0));
    assert_eq!(counts("vlan200", &mut plane), (0, 4));
    assert_eq!(counts("left", &mut plane), (4, 4));
}

#[test]
fn the_untagged_port_goes_on_beside_its_vlans_and_a_priority_is_no_vlan() {
    let mut plane = vlans();
    let (left, right) = pairs()[0];
    let sent = frame(LEFT_PORT, LEFT, &udp((left, 1), (right, 2), 64, b""));
    let expected = frame(RIGHT, RIGHT_PORT, &udp((left, 1), (right, 2), 63, b""));
    for sent in [sent.clone(), tagged(0x8100, 0, &sent), tagged(0x8100, 0xe000, &sent)] {
        let [came] = plane.exchange("left", &[sent], ["right"]);
        assert_eq!(came, std::slice::from_ref(&expected));
    }
    assert_eq!(plane.drops(), Default::default());
    // So does a port without any.
    let mut plane = crate::plane();
    assert_eq!(
        plane.exchange("left", &[tagged(0x8100, 0, &sent)], ["right"]),
        [[expected]]
    );
    plane.exchange("left", &[tagged(0x8100, 7, &sent)], ["right"]);
    assert_eq!(plane.drops(), [("parse/vlan-unknown".to_owned(), 1)].into());
}

#[test]
fn unknown_and_stacked_tags_are_dropped_by_name() {
    let mut plane = vlans();
    let [one, _, right] = hosts_of(0);
    let sent = frame(TRUNK, LEFT, &udp((one, 1), (right, 2), 64, b""));
    let inner = tagged(0x8100, 100, &sent);
    let frames = [
        tagged(0x8100, 300, &sent),
        tagged(0x8100, 100, &inner),
        tagged(0x8100, 300, &inner),
        tagged(0x8100, 0, &inner),
        tagged(0x8100, 100, &tagged(0x8100, 0, &sent)),
        tagged(0x88a8, 100, &inner),
        tagged(0x88a8, 100, &sent),
    ];
    let came = plane.exchange("left", &frames, ["right", "left"]);
    assert!(came.iter().all(Vec::is_empty), "{came:?}");
    let expected = [("parse/vlan-unknown".to_owned(), 1), ("parse/vlan-stack".to_owned(), 6)];
    assert_eq!(plane.drops(), expected.into());
    // Cut off anywhere within, it is dropped and nothing else.
    let frames: Vec<Vec<u8>> = (0..inner.len()).map(|length| inner[..length].to_vec()).collect();
    let before: u64 = plane.drops().values().sum();
    assert_eq!(plane.exchange("left", &frames, ["right"]), [Vec::<Vec<u8>>::new()]);
    assert_eq!(plane.drops().values().sum::<u64>(), before + frames.len() as u64);
}

#[test]
fn neighbours_are_asked_for_and_answered_in_their_vlan() {
    let mut plane = Plane::new(&(two_ports() + &vlan_ports() + &hosts())).unwrap();
    let [one, other, right] = hosts_of(0);
    let (IpAddr::V4(one), IpAddr::V4(other)) = (one, other) else {
        unreachable!()
    };
    let asks = |about: [u8; 4], from| arp([0xff; 6], 1, (LEFT, from), ([0; 6], about.into()));
    let [came] = plane.exchange("left", &[tagged(0x8100, 100, &asks([10, 3, 0, 1], one))], ["left"]);
    assert_eq!(
        untagged(&came[0]),
        (100, arp(LEFT, 2, (TRUNK, [10, 3, 0, 1].into()), (LEFT, one)))
    );
    // The address of one VLAN is nobody's in the other, nor without a tag.
    let others = [
        tagged(0x8100, 200, &asks([10, 3, 0, 1], other)),
        asks([10, 3, 0, 1], [10, 1, 0, 9].into()),
    ];
    assert_eq!(plane.exchange("left", &others, ["left"]), [Vec::<Vec<u8>>::new()]);
    assert_eq!(plane.dropped("arp/arp-not-for-us"), 2);
    // Who asked is known; who did not is asked for, with the tag.
    let to = |host: std::net::Ipv4Addr| frame(RIGHT_PORT, RIGHT, &udp((right, 2), (host.into(), 1), 64, b""));
    let [came] = plane.exchange("right", &[to(one)], ["left"]);
    assert_eq!(untagged(&came[0]).0, 100);
    let [came] = plane.exchange("right", &[to(other)], ["left"]);
    let (id, asked) = untagged(&came[0]);
    assert_eq!(
        (id, &asked[12..14], &asked[38..42]),
        (200, &[8, 6][..], &other.octets()[..])
    );
    let told = arp(TRUNK, 2, (LEFT, other), (TRUNK, [10, 4, 0, 1].into()));
    // The answer counts where it was asked for, and not in another VLAN.
    plane.exchange("left", &[tagged(0x8100, 100, &told)], ["left"]);
    let [came] = plane.exchange("left", &[tagged(0x8100, 200, &told)], ["left"]);
    assert_eq!(untagged(&came[0]).0, 200);
}

#[test]
fn the_largest_packet_fits_with_its_tag() {
    let mut plane = vlans();
    let [one, other, right] = hosts_of(0);
    let largest = udp((right, 2), (other, 1), 64, &[7; 1500 - 28]);
    let [came] = plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &largest)], ["left"]);
    assert_eq!(came[0].len(), 1500 + 14 + 4);
    let sent = frame(TRUNK, LEFT, &udp((one, 1), (right, 2), 64, &[7; 1500 - 28]));
    let [came] = plane.exchange("left", &[tagged(0x8100, 100, &sent)], ["right"]);
    assert_eq!(came[0].len(), 1500 + 14);
}

#[test]
fn a_vlan_comes_and_goes_with_its_resources() {
    let mut plane = vlans();
    let [one, _, right] = hosts_of(0);
    let sent = tagged(0x8100, 100, &frame(TRUNK, LEFT, &udp((one, 1), (right, 2), 64, b"")));
    assert_eq!(
        plane.exchange("left", std::slice::from_ref(&sent), ["right"])[0].len(),
        1
    );
    let no_trunk = plane
        .delete(&(port("left", "", "") + &hosts()))
        .unwrap_err()
        .to_string();
    assert!(
        no_trunk.contains("needs a Port of driver memory for device left itself"),
        "{no_trunk}"
    );
    plane.delete(&vlan_hosts()).unwrap();
    plane.delete(&vlan_ports()).unwrap();
    assert!(plane.exchange("left", std::slice::from_ref(&sent), ["right"])[0].is_empty());
    assert_eq!(plane.dropped("parse/vlan-unknown"), 1);
    plane.apply(&vlan_ports()).unwrap();
    assert_eq!(plane.exchange("left", &[sent], ["right"])[0].len(), 1);
}

#[test]
fn what_a_vlan_cannot_say_is_refused() {
    let refusals = [
        ("device: left, driver: memory, vlan: 0", "spec.vlan"),
        ("device: left, driver: memory, vlan: 4095", "spec.vlan"),
        (
            "device: left, driver: memory, vlan: 5, queues: 2",
            "spec.queues: is for the port of device left itself",
        ),
        (
            "device: left, driver: memory, vlan: 5, mtu: 1600",
            "spec.mtu: 1600 is more than the 1500 of Port/left",
        ),
        (
            "device: other, driver: memory, vlan: 5",
            "needs a Port of driver memory for device other itself",
        ),
        (
            "device: left.100, driver: memory, vlan: 5",
            "spec.device: is Port/vlan100, a VLAN itself; VLANs are not stacked: a frame has one tag here",
        ),
        (
            "device: left, driver: memory, vlan: 100",
            "vlan 100 of memory device left already belongs to Port/vlan100",
        ),
    ];
    let mut plane = vlans();
    for (spec, expected) in refusals {
        let refusal = plane
            .apply(&document("Port", "new", &format!("{{{spec}}}")))
            .unwrap_err();
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}

#[test]
fn vlans_work_by_whichever_worker_owns_the_link() {
    for workers in [2, 3] {
        let yaml = two_ports() + &vlan_ports() + &hosts() + &vlan_hosts();
        let mut plane = Plane::with_workers(&yaml, workers).unwrap();
        let [one, other, right] = hosts_of(1);
        let down = frame(RIGHT_PORT, RIGHT, &udp((right, 2), (other, 1), 64, b""));
        assert_eq!(untagged(&plane.exchange("right", &[down], ["left"])[0][0]).0, 200);
        let up = tagged(0x8100, 100, &frame(TRUNK, LEFT, &udp((one, 1), (right, 2), 64, b"")));
        assert_eq!(plane.exchange("left", &[up], ["right"])[0].len(), 1);
    }
}
