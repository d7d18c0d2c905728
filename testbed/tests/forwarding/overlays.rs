//! Tunnels that are ports with neighbours: IP in IP and VXLAN. `left` is inside, `right` outside.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// The other end outside, which is [`RIGHT`] on the link of `right`, and a third one there.
pub(crate) const END: &str = "10.2.0.2";
pub(crate) const STRANGER: &str = "10.2.0.9";
/// Our end.
pub(crate) const OURS: &str = "10.2.0.1";
/// Ethernet addresses inside VXLAN: ours as it follows from 10.2.0.1, and the other end's.
const VTEP: Mac = [0x02, 0x4d, 10, 2, 0, 1];
const THEIRS: Mac = [0x66, 0, 0, 0, 0, 7];

/// A host behind the other end, in both families.
const FAR: [&str; 2] = ["10.9.0.7", "fd00:9::7"];

fn ipip(more: &str) -> String {
    document(
        "Port",
        "tunl0",
        &format!("{{device: tunl0, driver: ipip, local: {OURS}{more}}}"),
    )
}

fn vxlan(name: &str, more: &str) -> String {
    document(
        "Port",
        name,
        &format!("{{device: {name}, driver: vxlan, local: {OURS}{more}}}"),
    )
}

/// `left`, `right` and what is behind them, with these resources.
pub(crate) fn with(more: &[String]) -> Plane {
    let plane = Plane::new(&(two_ports() + &hosts() + &more.concat()));
    plane.unwrap_or_else(|error| panic!("{error}"))
}

/// IP in IP as Calico has it: no fixed end, each route names its own.
pub(crate) fn ipip_plane() -> Plane {
    with(&[
        ipip(", addresses: [10.8.0.1/32]"),
        route("far4", "10.9.0.0/16", &format!("{{gateway: {END}, port: tunl0}}")),
    ])
}

/// IP in IP with one other end.
pub(crate) fn point_to_point() -> Plane {
    with(&[
        ipip(&format!(", remote: {END}, addresses: [10.8.0.1/30, \"fd00:8::1/64\"]")),
        route("far4", "10.9.0.0/16", "{port: tunl0}"),
        route("far6", "fd00:9::/32", "{port: tunl0}"),
    ])
}

/// VXLAN as Calico has it: a neighbour for each node, with its tunnel's Ethernet address and where it is.
pub(crate) fn vxlan_plane() -> Plane {
    let neighbour = |name: &str, address: &str| {
        let mac = THEIRS.map(|byte| format!("{byte:02x}")).join(":");
        document(
            "Neighbor",
            name,
            &format!("{{port: vxlan, address: \"{address}\", mac: \"{mac}\", remote: {END}}}"),
        )
    };
    with(&[
        vxlan("vxlan", ", addresses: [10.8.0.1/32, \"fd00:8::1/128\"]"),
        neighbour("n4", "10.8.0.7"),
        neighbour("n6", "fd00:8::7"),
        route("far4", "10.9.0.0/16", "{gateway: 10.8.0.7, port: vxlan}"),
        route("far6", "fd00:9::/32", "{gateway: \"fd00:8::7\", port: vxlan}"),
    ])
}

pub(crate) fn far(family: usize) -> (IpAddr, IpAddr) {
    (pairs()[family].0, address(FAR[family]))
}

/// Sends an IP packet from the left host, and returns the outer packets that leave on the right.
fn wrapped(plane: &mut Plane, packet: &[u8]) -> Vec<Vec<u8>> {
    let [right] = plane.exchange("left", &[frame(LEFT_PORT, LEFT, packet)], ["right"]);
    right.into_iter().filter(|frame| frame[12..14] != [8, 6]).collect()
}

/// The one outer packet of it, from the IP header on.
pub(crate) fn wrapped_one(plane: &mut Plane, packet: &[u8]) -> Vec<u8> {
    let mut came = wrapped(plane, packet);
    assert_eq!(came.len(), 1, "drops: {:?}", plane.drops());
    assert_eq!(came[0][..12], [RIGHT, RIGHT_PORT].concat());
    came.remove(0).split_off(14)
}

/// A UDP datagram without a checksum around a frame of this network.
fn in_vxlan(vni: u32, flags: u8, inner: &[u8]) -> Vec<u8> {
    let length = (16 + inner.len()) as u16;
    let [_, a, b, c] = vni.to_be_bytes();
    let [high, low] = length.to_be_bytes();
    let head = [0xd0, 0, 0x12, 0xb5, high, low, 0, 0, flags, 0, 0, 0, a, b, c, 0];
    [&head, inner].concat()
}

/// Puts outer packets on the right link; what then leaves on the left.
fn arrives(plane: &mut Plane, from: &str, protocol: u8, class: u8, payload: &[u8]) -> Vec<Received> {
    let mut outer = ip(address(from), address(OURS), protocol, 64, payload);
    outer[1] = class;
    fix_v4(&mut outer);
    let [left] = plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["left"]);
    packets(&left)
}

/// The same for a packet inside VXLAN network 4,096.
fn arrives_by_vxlan(plane: &mut Plane, from: &str, class: u8, inner: &[u8]) -> Vec<Received> {
    arrives(plane, from, 17, class, &in_vxlan(4096, 8, &frame(VTEP, THEIRS, inner)))
}

/// Writes the traffic class of an IP packet.
fn with_class(mut packet: Vec<u8>, class: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[1] = class;
        fix_v4(&mut packet);
    } else {
        packet[0] = 0x60 | class >> 4;
        packet[1] = class << 4;
    }
    packet
}

#[test]
fn ip_in_ip_goes_to_the_gateway_with_one_hop_less_inside_and_64_outside() {
    let mut plane = ipip_plane();
    let (left, far) = far(0);
    let outer = wrapped_one(&mut plane, &udp((left, 1), (far, 2), 9, b"inside"));
    let inner = udp((left, 1), (far, 2), 8, b"inside");
    assert_eq!(outer[20..], inner);
    let expected = ip(address(OURS), address(END), 4, 64, &inner);
    assert_eq!((&outer[..4], &outer[6..10]), (&expected[..4], &expected[6..10]));
    assert_eq!(outer[12..20], expected[12..20]);
    // Only from where routes lead, and back to whom it is for.
    let back = udp((far, 2), (left, 1), 64, b"back");
    let came = arrives(&mut plane, END, 4, 0, &back);
    assert_eq!(
        came,
        [open(&frame(LEFT, LEFT_PORT, &udp((far, 2), (left, 1), 63, b"back")))]
    );
    assert_eq!(plane.drops(), Default::default());
    assert!(arrives(&mut plane, STRANGER, 4, 0, &back).is_empty());
    assert_eq!(plane.dropped("decapsulate/unknown-remote"), 1);
    let counts = plane
        .views()
        .ports()
        .into_iter()
        .find(|port| port.name == "tunl0")
        .unwrap();
    let length = 14 + back.len() as u64;
    assert_eq!((counts.rx_packets, counts.rx_bytes, counts.tx_packets), (1, length, 1));
    assert_eq!((counts.mtu, counts.mac.as_str()), (1480, ""));
}

#[test]
fn both_families_go_through_a_tunnel_between_two() {
    let mut plane = point_to_point();
    for (family, protocol) in [(0, 4), (1, 41)] {
        let (left, far) = far(family);
        let outer = wrapped_one(&mut plane, &udp((left, 1), (far, 2), 9, b"inside"));
        assert_eq!(
            (outer[9], &outer[20..]),
            (protocol, &udp((left, 1), (far, 2), 8, b"inside")[..])
        );
        let back = udp((far, 2), (left, 1), 64, b"back");
        assert_eq!(arrives(&mut plane, END, protocol, 0, &back).len(), 1);
        // The header outside says what is inside.
        assert!(arrives(&mut plane, END, 45 - protocol, 0, &back).is_empty());
        assert_eq!(plane.dropped("decapsulate/inner-not-ip"), 1 + family as u64);
    }
    // The tunnel's own subnet is behind it, and its address is ours.
    let near = wrapped_one(&mut plane, &udp((pairs()[0].0, 1), (address("10.8.0.2"), 2), 9, b""));
    assert_eq!(near[16..20], [10, 2, 0, 2]);
    let ping = echo(address(FAR[0]), address("10.8.0.1"), 1, b"ping");
    let mut outer = ip(address(END), address(OURS), 4, 64, &ping);
    fix_v4(&mut outer);
    let [right] = plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["right"]);
    assert_eq!(right.len(), 1, "{:?}", plane.drops());
    assert_eq!(
        right[0][14 + 20 + 20..][..2],
        [0, 0],
        "an echo reply, through the tunnel"
    );
}

#[test]
fn vxlan_goes_to_where_the_gateway_is_and_comes_back() {
    let mut plane = vxlan_plane();
    for family in 0..2 {
        let (left, far) = far(family);
        let mut ports = std::collections::BTreeSet::new();
        for port in 0..8 {
            let outer = wrapped_one(&mut plane, &udp((left, port), (far, 2), 9, b"inside"));
            let inner = frame(THEIRS, VTEP, &udp((left, port), (far, 2), 8, b"inside"));
            let datagram = in_vxlan(4096, 8, &inner);
            assert_eq!(outer[22..], datagram[2..]);
            assert_eq!(
                (outer[8], outer[9], &outer[12..20]),
                (64, 17, &[10, 2, 0, 1, 10, 2, 0, 2][..])
            );
            assert!(outer[20] >= 0xc0, "a dynamic port");
            let again = wrapped_one(&mut plane, &udp((left, port), (far, 2), 9, b"again"));
            assert_eq!(outer[20..22], again[20..22], "one for a flow");
            ports.insert(outer[20..22].to_vec());
        }
        assert!(ports.len() > 4, "flows have ports of their own: {ports:?}");
        let back = udp((far, 2), (left, 1), 64, b"back");
        let came = arrives_by_vxlan(&mut plane, END, 0, &back);
        assert_eq!(
            came,
            [open(&frame(LEFT, LEFT_PORT, &udp((far, 2), (left, 1), 63, b"back")))]
        );
    }
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn what_is_not_for_the_tunnel_is_dropped_by_name() {
    let mut plane = vxlan_plane();
    let (left, far) = far(0);
    let inner = udp((far, 2), (left, 1), 64, b"back");
    let good = frame(VTEP, THEIRS, &inner);
    let cases = [
        (END, in_vxlan(4097, 8, &good), "decapsulate/unknown-tunnel"),
        (STRANGER, in_vxlan(4096, 8, &good), "decapsulate/unknown-remote"),
        (END, in_vxlan(4096, 0, &good), "decapsulate/not-a-tunnel-packet"),
        (END, in_vxlan(4096, 8, &good[..13]), "decapsulate/not-a-tunnel-packet"),
        (END, in_vxlan(4096, 8, &good[..20]), "decapsulate/inner-not-ip"),
        (
            END,
            in_vxlan(4096, 8, &frame(THEIRS, VTEP, &inner)),
            "parse/inner/not-our-mac",
        ),
        (
            END,
            in_vxlan(4096, 8, &ethernet(VTEP, THEIRS, 0x8100, &[5; 40])),
            "parse/inner/vlan-unknown",
        ),
        (
            END,
            in_vxlan(4096, 8, &ethernet(VTEP, THEIRS, 0x0806, &[0; 28])),
            "no-link/no-link",
        ),
    ];
    for (from, datagram, reason) in cases {
        let before = plane.dropped(reason);
        assert!(arrives(&mut plane, from, 17, 0, &datagram).is_empty(), "{reason}");
        assert_eq!(plane.dropped(reason), before + 1, "{reason}: {:?}", plane.drops());
    }
    // To an address of ours that is not the tunnel's.
    let datagram = in_vxlan(4096, 8, &good);
    let outer = ip(address(END), address("10.1.0.1"), 17, 64, &datagram);
    plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["left"]);
    assert_eq!(plane.dropped("decapsulate/unknown-tunnel"), 2);
    // A tunnel in the tunnel.
    let nested = ip(far, address(OURS), 17, 64, &datagram);
    assert!(arrives_by_vxlan(&mut plane, END, 0, &nested).is_empty());
    assert_eq!(plane.dropped("nested-tunnel/nested-tunnel"), 1, "{:?}", plane.drops());
}

#[test]
fn the_way_outside_does_not_lead_into_a_tunnel() {
    let mut plane = ipip_plane();
    plane
        .apply(&route(
            "loop",
            "10.2.0.2/32",
            &format!("{{gateway: {END}, port: tunl0}}"),
        ))
        .unwrap();
    let (left, far) = far(0);
    assert!(wrapped(&mut plane, &udp((left, 1), (far, 2), 9, b"")).is_empty());
    assert_eq!(plane.dropped("nested-tunnel/nested-tunnel"), 1, "{:?}", plane.drops());
}

#[test]
fn the_sender_inside_is_told_of_the_mtu() {
    for (mut plane, mtus) in [
        (point_to_point(), [1480, 1480]),
        (vxlan_plane(), [1450, 1450]),
        (ipip_plane(), [1480, 0]),
    ] {
        for (family, mtu) in mtus.into_iter().enumerate().filter(|(_, mtu)| *mtu > 0) {
            let (left, far) = far(family);
            let large = |length: usize| {
                let header = if family == 0 { 28 } else { 48 };
                let mut packet = udp((left, 1), (far, 2), 64, &vec![7; length - header]);
                if family == 0 {
                    packet[6] = 0x40;
                    fix_v4(&mut packet);
                }
                packet
            };
            let outer = wrapped_one(&mut plane, &large(mtu));
            assert_eq!(outer.len(), 1500, "as much as the link takes");
            assert_eq!(outer[6], 0x40, "not to be cut outside either");
            let told = answer(&mut plane, &large(mtu + 1));
            let icmp = if family == 0 { (3, 4) } else { (2, 0) };
            assert_eq!((told.icmp(), told.word() as usize, told.target), (icmp, mtu, left));
        }
        // What may be cut is cut inside, so that every piece is a whole packet outside.
        let (left, far) = far(0);
        let pieces = wrapped(&mut plane, &udp((left, 1), (far, 2), 64, &[7; 1472]));
        assert_eq!(pieces.len(), 2);
        assert!(
            pieces.iter().all(|piece| piece.len() <= 1514 && piece[20] == 0),
            "whole outside"
        );
    }
}

#[test]
fn class_and_congestion_pass_both_ways() {
    for (mut plane, vxlan) in [(point_to_point(), false), (vxlan_plane(), true)] {
        for family in 0..2 {
            let (left, far) = far(family);
            for class in [0, 0xb8, 0xb9, 0xba, 0xbb] {
                let outer = wrapped_one(&mut plane, &with_class(udp((left, 1), (far, 2), 9, b""), class));
                assert_eq!(outer[1], class);
            }
            let class_of = |packet: &[u8]| match packet[0] >> 4 {
                4 => packet[1],
                _ => packet[0] << 4 | packet[1] >> 4,
            };
            // Inside, outside, inside again (RFC 6040 section 4.2).
            for (inner, outer, expected) in [(0xb8, 1, Some(0xb8)), (2, 3, Some(3)), (2, 1, Some(1)), (0xb8, 3, None)] {
                let packet = with_class(udp((far, 2), (left, 1), 64, b""), inner);
                let came = match vxlan {
                    true => arrives_by_vxlan(&mut plane, END, outer, &packet),
                    false => arrives(&mut plane, END, [4, 41][family], outer, &packet),
                };
                let classes: Vec<u8> = came.iter().map(|came| class_of(&came.packet)).collect();
                assert_eq!(classes, Vec::from_iter(expected));
            }
            assert_eq!(plane.dropped("decapsulate/ecn-not-capable"), 1 + family as u64);
        }
    }
}

#[test]
fn vxlan_runs_over_ipv6() {
    let mut plane = with(&[
        document(
            "Port",
            "vxlan",
            "{device: vxlan, driver: vxlan, local: \"fd00:2::1\", remote: \"fd00:2::2\", vni: 7, udpPort: 8472, \
             mac: \"02:00:00:00:00:77\", addresses: [10.8.0.1/24]}",
        ),
        neighbor("far", "vxlan", "10.8.0.7", THEIRS),
        route("far4", "10.9.0.0/16", "{gateway: 10.8.0.7}"),
    ]);
    let (left, far) = far(0);
    let ours = [2, 0, 0, 0, 0, 0x77];
    let [right] = plane.exchange(
        "left",
        &[frame(LEFT_PORT, LEFT, &udp((left, 1), (far, 2), 9, b"in"))],
        ["right"],
    );
    // `open` checks the checksum, which there is over IPv6.
    let outer = open(&right[0]);
    assert_eq!(
        (outer.source, outer.target, outer.protocol),
        (address("fd00:2::1"), address("fd00:2::2"), 17)
    );
    assert_eq!(outer.payload[2..4], 8472u16.to_be_bytes());
    assert_eq!(outer.payload[8..16], [8, 0, 0, 0, 0, 0, 7, 0]);
    assert_eq!(
        outer.payload[16..],
        frame(THEIRS, ours, &udp((left, 1), (far, 2), 8, b"in"))
    );
    let back = frame(ours, THEIRS, &udp((far, 2), (left, 1), 64, b"back"));
    let inside = [&[8, 0, 0, 0, 0, 0, 7, 0], &back[..]].concat();
    let outer = udp((address("fd00:2::2"), 50000), (address("fd00:2::1"), 8472), 64, &inside);
    let [came] = plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["left"]);
    assert_eq!(came, [frame(LEFT, LEFT_PORT, &udp((far, 2), (left, 1), 63, b"back"))]);
    assert_eq!(
        plane
            .views()
            .ports()
            .iter()
            .find(|port| port.name == "vxlan")
            .unwrap()
            .mtu,
        1430
    );
}

#[test]
fn inside_and_outside_have_tables_of_their_own() {
    let mut plane = with(&[
        ipip(&format!(", remote: {END}, vrf: red, addresses: [10.8.0.1/30]")),
        port("inside", "10.1.0.1/24", ", vrf: red"),
        document(
            "Neighbor",
            "in",
            "{port: inside, address: 10.1.0.2, mac: \"02:00:00:00:00:0a\"}",
        ),
        document(
            "Route",
            "far",
            "{destination: 10.9.0.0/16, vrf: red, via: [{port: tunl0}]}",
        ),
    ]);
    let (left, far) = far(0);
    let inside = port_mac(4);
    let packet = frame(inside, LEFT, &udp((left, 1), (far, 2), 9, b""));
    let [right] = plane.exchange("inside", &[packet], ["right"]);
    assert_eq!(right.len(), 1, "{:?}", plane.drops());
    let outer = ip(
        address(END),
        address(OURS),
        4,
        64,
        &udp((far, 2), (left, 1), 64, b"back"),
    );
    let [inner, left] = plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["inside", "left"]);
    assert_eq!((inner.len(), left.len()), (1, 0));
    plane
        .delete(&(ipip("") + &route("far", "10.9.0.0/16", "{drop: true}")))
        .unwrap();
    plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &outer)], ["inside"]);
    assert_eq!(plane.dropped("local/closed"), 1, "{:?}", plane.drops());
}

#[test]
fn what_makes_no_tunnel_is_refused() {
    let refused = |more: &str, says: &str| {
        let error = Plane::new(&(two_ports() + &hosts() + more))
            .err()
            .expect(more)
            .to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    };
    refused(&document("Port", "t", "{device: t, driver: ipip}"), "spec.local");
    refused(
        &document("Port", "t", "{device: t, driver: ipip, local: 10.2.0.77}"),
        "no Port has the address 10.2.0.77",
    );
    refused(&ipip(", vni: 7"), "for driver vxlan only");
    refused(&ipip(&format!(", remote: {OURS}")), "is the local end, too");
    refused(&vxlan("v", ", remote: \"fd00:2::2\""), "of another family");
    refused(&vxlan("v", ", vni: 16777216"), "16777215");
    refused(
        &(vxlan("v", "") + &vxlan("w", "")),
        "VXLAN network 4096 on UDP port 4789 of 10.2.0.1 in vrf default",
    );
    refused(&vxlan("v", ", queues: 2"), "is for links");
    refused(
        &(vxlan("v", "") + &neighbor("n", "v", "10.8.0.7", THEIRS)),
        "spec.remote",
    );
    refused(
        &(ipip("") + &route("r", "10.9.0.0/16", "{port: tunl0}")),
        "write `gateway`",
    );
    refused(&port("p", "", ", vni: 7"), "for drivers ipip and vxlan only");
    let remote = document(
        "Neighbor",
        "n",
        "{port: left, address: 10.1.0.9, mac: \"02:00:00:00:00:0c\", remote: 10.2.0.2}",
    );
    refused(&remote, "for Ports of driver vxlan only");
}
