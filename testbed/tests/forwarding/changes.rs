//! Configuration that changes under traffic.

use std::time::Duration;

use testbed::Plane;
use testbed::packets::*;

use crate::*;

#[test]
fn a_port_gets_another_address_while_it_runs() {
    let mut plane = plane();
    for (left, _) in pairs() {
        assert_eq!(answers(&mut plane, &echo(left, own(left).0, 1, b"")).len(), 1);
    }
    plane
        .apply(&port("left", "10.1.0.77/24, \"fd00:1::77/64\"", ""))
        .unwrap();
    for (left, right) in pairs() {
        let new = address(if left.is_ipv4() { "10.1.0.77" } else { "fd00:1::77" });
        assert_eq!(answer(&mut plane, &echo(left, new, 1, b"")).source, new);
        assert_eq!(answer(&mut plane, &udp((left, 1), (right, 2), 1, b"")).source, new);
        // The old one is a host like any other, and nobody has it.
        assert!(answers(&mut plane, &echo(left, own(left).0, 1, b"")).is_empty());
        assert_eq!(across(&mut plane, &udp((left, 1), (right, 2), 64, b"")).len(), 1);
    }
}

#[test]
fn a_port_moves_to_another_subnet_and_leaves_nothing_behind() {
    for (left, right) in pairs() {
        let mut plane = Plane::new(&two_ports()).unwrap();
        // The right host makes itself known.
        let asks = match right {
            std::net::IpAddr::V4(right) => arp([0xff; 6], 1, (RIGHT, right), ([0; 6], [10, 2, 0, 1].into())),
            std::net::IpAddr::V6(right) => solicitation((RIGHT, right), "fd00:2::1".parse().unwrap()),
        };
        plane.exchange("right", &[asks], ["right"]);
        let packet = udp((left, 1), (right, 2), 64, b"");
        assert_eq!(across(&mut plane, &packet).len(), 1);
        plane
            .apply(&port("right", "10.3.0.1/24, \"fd00:3::1/64\"", ""))
            .unwrap();
        assert!(
            across(&mut plane, &packet).is_empty(),
            "the old subnet is still reached"
        );
        assert_eq!(plane.dropped("route/no-route"), 1);
    }
}

#[test]
fn a_port_that_changes_its_table_leaves_nothing_in_the_old_one() {
    for (left, right) in pairs() {
        let mut plane = plane();
        let packet = udp((left, 1), (right, 2), 64, b"");
        assert_eq!(across(&mut plane, &packet).len(), 1);
        plane
            .apply(&port("right", "10.2.0.1/24, \"fd00:2::1/64\"", ", vrf: red"))
            .unwrap();
        assert!(across(&mut plane, &packet).is_empty(), "a table leaks");
        assert_eq!(plane.dropped("route/no-route"), 1);
        plane
            .apply(&port("right", "10.2.0.1/24, \"fd00:2::1/64\"", ""))
            .unwrap();
        assert_eq!(across(&mut plane, &packet).len(), 1);
    }
}

#[test]
fn a_route_changes_under_traffic_and_no_packet_is_lost() {
    let via = |hop: u8| route("to", "20.0.0.0/8", &format!("{{gateway: 10.2.0.{hop}}}"));
    let mut plane =
        Plane::new(&(two_ports() + &hosts() + &neighbor("other", "right", "10.2.0.3", [2; 6]) + &via(2))).unwrap();
    let packet = frame(
        LEFT_PORT,
        LEFT,
        &udp((pairs()[0].0, 1), (address("20.1.1.1"), 2), 64, b""),
    );
    let mut came = vec![];
    for round in 0..50u8 {
        (0..100).for_each(|_| plane.send("left", &packet));
        plane.turn();
        plane.apply(&via(2 + round % 2)).unwrap();
        plane.settle();
        came.extend(packets(&plane.take("right")));
    }
    assert_eq!(came.len(), 5000);
    let others = came.iter().filter(|packet| packet.to == [2; 6]).count();
    assert!((1000..4000).contains(&others), "{others} went by the other gateway");
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn a_deleted_port_takes_its_routes_and_neighbours_with_it() {
    for (left, right) in pairs() {
        let mut plane = plane();
        let packet = udp((left, 1), (right, 2), 64, b"");
        assert_eq!(across(&mut plane, &packet).len(), 1);
        // A packet waits for a neighbour while the port goes.
        let unknown = if right.is_ipv4() { "10.2.0.99" } else { "fd00:2::99" };
        across(&mut plane, &udp((left, 1), (address(unknown), 2), 64, b""));
        plane
            .delete(
                &(neighbor("right4", "right", "10.2.0.2", RIGHT)
                    + &neighbor("right6", "right", "fd00:2::2", RIGHT)
                    + &port("right", "", "")),
            )
            .unwrap();
        plane.advance(Duration::from_secs(5));
        plane.take("left");
        assert_eq!(answer(&mut plane, &packet).icmp().1, 0);
        assert!(
            plane
                .views()
                .neighbors()
                .iter()
                .all(|neighbour| neighbour.port == "left")
        );
        // Another port in its place, with its number, begins afresh.
        plane
            .apply(&port("third", "10.4.0.1/24, \"fd00:4::1/64\"", ""))
            .unwrap();
        assert_eq!(
            answer(&mut plane, &packet).icmp().1,
            0,
            "the old neighbour is still known"
        );
        assert!(plane.take("third").is_empty());
    }
}

#[test]
fn frames_on_the_cable_of_a_deleted_port_do_no_harm() {
    let mut plane = Plane::new(&(two_ports() + &neighbor("left4", "left", "10.1.0.2", LEFT))).unwrap();
    let (left, right) = pairs()[0];
    (0..300).for_each(|_| plane.send("right", &frame(RIGHT_PORT, RIGHT, &udp((right, 1), (left, 2), 64, b""))));
    plane.turn();
    plane.delete(&port("right", "", "")).unwrap();
    plane.settle();
    plane.apply(&port("right", "10.2.0.1/24", "")).unwrap();
    plane.send("right", &frame(RIGHT_PORT, RIGHT, &udp((right, 1), (left, 2), 64, b"")));
    plane.settle();
    assert!(plane.take("left").len() > 1);
}

#[test]
fn an_mtu_and_a_neighbour_change_at_once() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let packet = udp((left, 1), (right, 2), 64, &[0; 1400]);
    assert_eq!(across(&mut plane, &packet).len(), 1);
    plane
        .apply(&port("right", "10.2.0.1/24, \"fd00:2::1/64\"", ", mtu: 1000"))
        .unwrap();
    assert_eq!(across(&mut plane, &packet).len(), 2);
    plane
        .apply(&neighbor("right4", "right", "10.2.0.2", [2, 9, 9, 9, 9, 9]))
        .unwrap();
    assert!(
        across(&mut plane, &packet)
            .iter()
            .all(|piece| piece.to == [2, 9, 9, 9, 9, 9])
    );
    plane.delete(&neighbor("right4", "right", "10.2.0.2", RIGHT)).unwrap();
    let [asked] = plane.exchange("left", &[frame(LEFT_PORT, LEFT, &packet)], ["right"]);
    assert_eq!(
        (asked.len(), &asked[0][12..14]),
        (1, [8, 6].as_slice()),
        "it is asked for now"
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut plane = plane();
    let wrong = route("to", "20.0.0.0/8", "{gateway: 10.2.0.2}") + &port("third", "10.1.0.9/24", ", queues: 2");
    assert!(plane.apply(&wrong).is_err());
    let (left, _) = pairs()[0];
    assert_eq!(
        answer(&mut plane, &udp((left, 1), (address("20.1.1.1"), 2), 64, b"")).icmp(),
        (3, 0)
    );
    assert_eq!(plane.views().ports().len(), 2);
}
