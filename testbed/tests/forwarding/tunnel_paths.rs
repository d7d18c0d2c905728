//! The ways outside of tunnels: routers there say how much at once they take, and the sender inside is told.

use std::time::Duration;

use testbed::Plane;
use testbed::packets::*;

use super::overlays::{END, OURS, STRANGER, far, ipip_plane, point_to_point, vxlan_plane, with, wrapped_one};
use crate::*;

/// What the router on the right says about an outer packet of ours: the next link takes so much.
fn say(plane: &mut Plane, outer: &[u8], mtu: u16) {
    let quoted = &outer[..outer.len().min(48)];
    let (from, to, kind) = match outer[0] >> 4 {
        4 => (STRANGER, OURS, (3, 4)),
        _ => ("fd00:2::9", "fd00:2::1", (2, 0)),
    };
    let error = icmp(address(from), address(to), 64, kind, mtu.into(), quoted);
    plane.exchange("right", &[frame(RIGHT_PORT, RIGHT, &error)], []);
}

/// A packet for the far host of so many bytes that must not be cut.
fn whole(family: usize, length: usize) -> Vec<u8> {
    let (left, far) = far(family);
    let header = if family == 0 { 28 } else { 48 };
    let mut packet = udp((left, 1), (far, 2), 64, &vec![7; length - header]);
    if family == 0 {
        packet[6] = 0x40;
        fix_v4(&mut packet);
    }
    packet
}

/// So much passes, and whose packet has a byte more is told so.
fn takes(plane: &mut Plane, family: usize, mtu: usize) {
    wrapped_one(plane, &whole(family, mtu));
    let told = answer(plane, &whole(family, mtu + 1));
    assert_eq!(told.word() as usize, mtu, "{told:?}");
}

#[test]
fn the_sender_inside_is_told_what_a_router_outside_says_until_that_is_old() {
    for (mut plane, overhead, families) in [(ipip_plane(), 20, 1), (point_to_point(), 20, 2), (vxlan_plane(), 50, 2)] {
        for family in 0..families {
            let outer = wrapped_one(&mut plane, &whole(family, 1200));
            assert_eq!(outer.len(), 1200 + overhead);
            // Both families are behind one end.
            if family == 0 {
                say(&mut plane, &outer, 1400);
                takes(&mut plane, family, 1400 - overhead);
            }
            say(&mut plane, &outer, 1350);
            takes(&mut plane, family, 1350 - overhead);
            // One that was on its way for longer, and one that a router of the tunnel's own MTU would not send.
            say(&mut plane, &outer, 1400);
            say(&mut plane, &outer, 9000);
            takes(&mut plane, family, 1350 - overhead);
        }
        // What may be cut is cut inside.
        let (left, far) = far(0);
        let packet = udp((left, 1), (far, 2), 64, &[7; 1472]);
        let [right] = plane.exchange("left", &[frame(LEFT_PORT, LEFT, &packet)], ["right"]);
        assert!(
            right.len() == 2 && right.iter().all(|piece| piece.len() <= 1350 + 14),
            "{}",
            right.len()
        );
        plane.advance(Duration::from_secs(590));
        takes(&mut plane, 0, 1350 - overhead);
        plane.advance(Duration::from_secs(20));
        for family in 0..families {
            takes(&mut plane, family, 1500 - overhead);
        }
    }
}

#[test]
fn it_is_heard_while_connections_are_tracked_too() {
    let mut plane = point_to_point();
    plane
        .apply("{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 172.16.0.0/12, addresses: [10.2.0.7]}}")
        .unwrap();
    let outer = wrapped_one(&mut plane, &whole(0, 1400));
    assert!(plane.packets("flows") > 0);
    say(&mut plane, &outer, 1400);
    takes(&mut plane, 0, 1380);
}

#[test]
fn vxlan_over_ipv6_hears_it_too() {
    let mut plane = with(&[
        document(
            "Port",
            "vxlan",
            "{device: vxlan, driver: vxlan, local: \"fd00:2::1\", remote: \"fd00:2::2\", addresses: [10.8.0.1/24]}",
        ),
        neighbor("far", "vxlan", "10.8.0.7", RIGHT),
        route("far4", "10.9.0.0/16", "{gateway: 10.8.0.7}"),
    ]);
    let outer = wrapped_one(&mut plane, &whole(0, 1400));
    say(&mut plane, &outer, 1400);
    takes(&mut plane, 0, 1400 - 70);
    // No IPv6 link takes less than 1,280 bytes, whoever says so.
    say(&mut plane, &outer, 600);
    takes(&mut plane, 0, 1280 - 70);
}

#[test]
fn who_does_not_know_the_tunnel_is_not_believed() {
    let mut plane = vxlan_plane();
    let outer = wrapped_one(&mut plane, &whole(0, 1400));
    let changed = |at: usize, byte: u8| {
        let mut changed = outer.clone();
        changed[at] = byte;
        changed
    };
    // Another protocol, another source, another end, another port, and next to nothing.
    for wrong in [
        changed(9, 4),
        changed(15, 77),
        changed(19, 9),
        changed(22, 0),
        outer[..20].to_vec(),
    ] {
        say(&mut plane, &wrong, 1000);
    }
    let ignored = plane.drops()["path-mtu/unrelated-error"];
    assert_eq!(ignored, 5);
    takes(&mut plane, 0, 1450);
    // Who does is believed down to what Linux believes.
    say(&mut plane, &outer, 0);
    takes(&mut plane, 0, 552 - 50);
}

#[test]
fn a_tunnel_that_comes_again_knows_nothing_of_the_way() {
    let mut plane = point_to_point();
    let outer = wrapped_one(&mut plane, &whole(0, 1400));
    say(&mut plane, &outer, 1400);
    takes(&mut plane, 0, 1380);
    for (kind, name) in [("Route", "far4"), ("Route", "far6"), ("Port", "tunl0")] {
        plane
            .delete(&format!(
                "{{apiVersion: margay/v1, kind: {kind}, metadata: {{name: {name}}}}}"
            ))
            .unwrap();
    }
    let tunnel = format!("{{device: tunl0, driver: ipip, local: {OURS}, remote: {END}, addresses: [10.8.0.1/30]}}");
    plane
        .apply(&(document("Port", "tunl0", &tunnel) + &route("far4", "10.9.0.0/16", "{port: tunl0}")))
        .unwrap();
    takes(&mut plane, 0, 1480);
}
