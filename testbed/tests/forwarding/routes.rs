//! Which way: prefixes, next hops, flows, tables.

use std::collections::HashMap;
use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// Gateways behind `right`, by number.
fn gateway(number: u8) -> Mac {
    [2, 0, 0, 0, 1, number]
}

fn gateways() -> String {
    (3..=5)
        .map(|number| {
            neighbor(
                &format!("gate4-{number}"),
                "right",
                &format!("10.2.0.{number}"),
                gateway(number),
            ) + &neighbor(
                &format!("gate6-{number}"),
                "right",
                &format!("fd00:2::{number}"),
                gateway(number),
            )
        })
        .collect()
}

/// Two ports, hosts and gateways, and these routes.
fn with(routes: &str) -> Plane {
    Plane::new(&(two_ports() + &hosts() + &gateways() + routes)).unwrap()
}

/// Where the left host's packet to an address goes: the link address, or none.
fn way(plane: &mut Plane, to: &str) -> Option<Mac> {
    let to = address(to);
    let from = if to.is_ipv4() { pairs()[0].0 } else { pairs()[1].0 };
    across(plane, &udp((from, 1), (to, 2), 64, b""))
        .first()
        .map(|packet| packet.to)
}

#[test]
fn the_longest_prefix_wins() {
    let prefixes = [
        ("20.0.0.0/8", 3),
        ("20.1.0.0/16", 4),
        ("20.1.2.3/32", 5),
        ("0.0.0.0/0", 5),
    ];
    let v4 = prefixes
        .iter()
        .enumerate()
        .map(|(number, (prefix, hop))| route(&format!("v4-{number}"), prefix, &format!("{{gateway: 10.2.0.{hop}}}")));
    let prefixes = [
        ("2001:db8::/32", 3),
        ("2001:db8:1::/48", 4),
        ("2001:db8:1::7/128", 5),
        ("::/0", 5),
    ];
    let v6 = prefixes.iter().enumerate().map(|(number, (prefix, hop))| {
        route(
            &format!("v6-{number}"),
            prefix,
            &format!("{{gateway: \"fd00:2::{hop}\"}}"),
        )
    });
    let mut plane = with(&v4.chain(v6).collect::<String>());
    let expected = [
        ("20.9.9.9", 3),
        ("20.1.9.9", 4),
        ("20.1.2.3", 5),
        ("20.1.2.4", 4),
        ("21.0.0.1", 5),
        ("2001:db8:2::1", 3),
        ("2001:db8:1::1", 4),
        ("2001:db8:1::7", 5),
        ("2001:db9::1", 5),
    ];
    for (to, number) in expected {
        assert_eq!(way(&mut plane, to), Some(gateway(number)), "{to}");
    }
    assert_eq!(way(&mut plane, "10.2.0.2"), Some(RIGHT));
}

#[test]
fn a_longer_prefix_wins_over_the_subnet_of_a_known_neighbour() {
    let routes =
        route("not-these-v4", "10.2.0.0/29", "{drop: true}") + &route("not-these-v6", "fd00:2::/120", "{drop: true}");
    let mut plane = Plane::new(&(two_ports() + &routes + &hosts())).unwrap();
    for (_, right) in pairs() {
        assert_eq!(way(&mut plane, &right.to_string()), None);
    }
    assert_eq!(plane.dropped("route/drop-route"), 2);
    // The same when the route comes later, and when it goes.
    let mut plane = crate::plane();
    plane.apply(&routes).unwrap();
    for (_, right) in pairs() {
        assert_eq!(way(&mut plane, &right.to_string()), None);
    }
    plane.delete(&routes).unwrap();
    for (_, right) in pairs() {
        assert_eq!(way(&mut plane, &right.to_string()), Some(RIGHT));
    }
}

#[test]
fn a_gateway_within_its_own_route_is_still_reached() {
    let mut plane = with(&route("half", "10.2.0.0/25", "{gateway: 10.2.0.3}"));
    assert_eq!(way(&mut plane, "10.2.0.2"), Some(gateway(3)));
    assert_eq!(way(&mut plane, "10.2.0.3"), Some(gateway(3)));
}

#[test]
fn a_drop_route_drops_and_says_so() {
    let mut plane =
        with(&(route("hole4", "20.0.0.0/8", "{drop: true}") + &route("hole6", "2001:db8::/32", "{drop: true}")));
    for (to, (from, _)) in ["20.1.1.1", "2001:db8::1"].into_iter().zip(pairs()) {
        let packet = udp((from, 1), (address(to), 2), 64, b"");
        assert!(answers(&mut plane, &packet).is_empty(), "a dropped packet was answered");
    }
    assert_eq!(plane.drops(), [("route/drop-route".to_owned(), 2)].into());
}

#[test]
fn without_a_route_the_sender_is_told() {
    let mut plane = with("");
    for (to, (from, _)) in ["20.1.1.1", "2001:db8::1"].into_iter().zip(pairs()) {
        let packet = udp((from, 1), (address(to), 2), 64, b"where to?");
        let told = answer(&mut plane, &packet);
        assert_eq!(told.icmp(), if from.is_ipv4() { (3, 0) } else { (1, 0) });
        assert_eq!((told.source, told.target, told.to), (own(from).0, from, LEFT));
        assert_eq!(told.quote(), packet);
    }
    assert_eq!(plane.dropped("route/no-route"), 2);
}

#[test]
fn an_on_link_route_asks_for_the_destination_itself() {
    let routes = route("link4", "20.0.0.0/8", "{port: right}") + &route("link6", "2001:db8::/32", "{port: right}");
    let mut plane = with(&routes);
    for (to, (from, _)) in [address("20.1.1.1"), address("2001:db8::1")].into_iter().zip(pairs()) {
        let packet = frame(LEFT_PORT, LEFT, &udp((from, 1), (to, 2), 64, b""));
        let [asked] = plane.exchange("left", &[packet], ["right"]);
        assert_eq!(asked.len(), 1);
        let answer = match to {
            IpAddr::V4(to) => arp(RIGHT_PORT, 2, (gateway(9), to), (RIGHT_PORT, [10, 2, 0, 1].into())),
            IpAddr::V6(about) => advertisement((RIGHT_PORT, link_local(RIGHT_PORT)), (gateway(9), to), about),
        };
        let [came] = plane.exchange("right", &[answer], ["right"]);
        assert_eq!(open(&came[0]).to, gateway(9));
    }
}

/// How many of 10,000 flows go to each gateway; each flow sends two packets, which must go the same way.
fn shares(plane: &mut Plane, to: IpAddr, from: IpAddr) -> HashMap<Mac, usize> {
    let mut shares = HashMap::new();
    for chunk in 0..10u16 {
        let packet = |flow: u16| {
            let port = 1024 + chunk * 1000 + flow;
            frame(LEFT_PORT, LEFT, &udp((from, port), (to, 80 + flow % 7), 64, b""))
        };
        let frames: Vec<Vec<u8>> = (0..1000).chain(0..1000).map(packet).collect();
        let [came] = plane.exchange("left", &frames, ["right"]);
        let came = open_all(&came);
        assert_eq!(came.len(), 2000);
        let mut ways: HashMap<Vec<u8>, Mac> = HashMap::new();
        for packet in came {
            let first = *ways.entry(packet.payload[..4].to_vec()).or_insert(packet.to);
            assert_eq!(first, packet.to, "packets of one flow took two ways");
        }
        ways.into_values().for_each(|mac| *shares.entry(mac).or_default() += 1);
    }
    shares
}

#[test]
fn flows_are_spread_by_weight_and_keep_their_way() {
    let routes = route(
        "ecmp4",
        "20.0.0.0/8",
        "{gateway: 10.2.0.3}, {gateway: 10.2.0.4, weight: 2}",
    ) + &route(
        "ecmp6",
        "2001:db8::/32",
        "{gateway: \"fd00:2::3\"}, {gateway: \"fd00:2::4\", weight: 2}",
    );
    let mut plane = with(&routes);
    for (to, (from, _)) in ["20.1.1.1", "2001:db8::1"].into_iter().zip(pairs()) {
        let shares = shares(&mut plane, address(to), from);
        assert_eq!(shares.len(), 2);
        for (number, share) in [(3, 1.0 / 3.0), (4, 2.0 / 3.0)] {
            let part = shares[&gateway(number)] as f64 / 10_000.0;
            assert!(
                (part - share).abs() < 0.05,
                "gateway {number} got {part} of the flows to {to}"
            );
        }
    }
}

#[test]
fn the_fragments_of_a_packet_take_one_way() {
    let hops = "{gateway: 10.2.0.3}, {gateway: 10.2.0.4}";
    let hops6 = hops.replace("10.2.0.", "\"fd00:2::").replace('}', "\"}");
    let routes = route("ecmp4", "20.0.0.0/8", hops) + &route("ecmp6", "2001:db8::/32", &hops6);
    let mut plane = with(&routes);
    for (to, (from, _)) in ["20.1.1.1", "2001:db8::1"].into_iter().zip(pairs()) {
        let to = address(to);
        let mut ways = HashMap::<Mac, usize>::new();
        for flow in 0..200u16 {
            let whole = udp_datagram((from, 1024 + flow), (to, 80), &[0; 120]);
            let piece = |at: usize, more: bool| match to {
                IpAddr::V4(_) => {
                    let flags = if more { 0x2000 } else { 0 };
                    with_fragment(ip(from, to, 17, 64, &whole[at..at + 64]), flags, at as u16)
                }
                IpAddr::V6(_) => {
                    let word = (at as u16 | u16::from(more)).to_be_bytes();
                    let head = [17, 0, word[0], word[1], 0, 0, 0, 9];
                    ip(from, to, 44, 64, &[&head, &whole[at..at + 64]].concat())
                }
            };
            let frames = [piece(0, true), piece(64, false)].map(|packet| frame(LEFT_PORT, LEFT, &packet));
            let [came] = plane.exchange("left", &frames, ["right"]);
            let [first, last] = [open(&came[0]).to, open(&came[1]).to];
            assert_eq!(first, last, "flow {flow} to {to}");
            *ways.entry(first).or_default() += 1;
        }
        assert_eq!(
            ways.len(),
            1,
            "fragments are spread by addresses, and these are the same: {ways:?}"
        );
    }
}

#[test]
fn a_subnets_own_address_and_its_broadcast_address_are_not_forwarded_to() {
    let mut plane = with("");
    for to in ["10.2.0.0", "10.2.0.255"] {
        assert_eq!(way(&mut plane, to), None);
    }
    assert_eq!(plane.drops(), [("route/directed-broadcast".to_owned(), 2)].into());
}

#[test]
fn link_local_addresses_stay_on_their_link() {
    let mut plane = with(&route("all", "::/0", "{gateway: \"fd00:2::3\"}"));
    let (left, right) = pairs()[1];
    let local = link_local(LEFT);
    assert!(across(&mut plane, &udp((local, 1), (right, 2), 64, b"")).is_empty());
    assert!(across(&mut plane, &udp((left, 1), (address("fe80::1234"), 2), 64, b"")).is_empty());
    assert_eq!(plane.drops(), [("route/link-local".to_owned(), 2)].into());
}

/// Two ports in table `red` and two in the default one, with the same subnets, hosts and routes.
fn two_tables() -> Plane {
    let mut yaml = String::new();
    for (vrf, first) in [("default", 0u8), ("red", 2)] {
        let more = format!(", vrf: {vrf}");
        let (left, right) = (format!("{vrf}-left"), format!("{vrf}-right"));
        yaml += &port(&left, "10.1.0.1/24, \"fd00:1::1/64\"", &more);
        yaml += &port(&right, "10.2.0.1/24, \"fd00:2::1/64\"", &more);
        for (family, host) in [("v4", "10.2.0.2"), ("v6", "fd00:2::2")] {
            yaml += &neighbor(&format!("{vrf}-{family}"), &right, host, gateway(first));
        }
        let spec = format!("{{destination: 20.0.0.0/8, vrf: {vrf}, via: [{{gateway: 10.2.0.2}}]}}");
        yaml += &document("Route", &format!("{vrf}-route"), &spec);
    }
    let only = "{destination: 30.0.0.0/8, vrf: red, via: [{gateway: 10.2.0.2}]}";
    Plane::new(&(yaml + &document("Route", "only-red", only))).unwrap()
}

#[test]
fn tables_of_routes_do_not_leak() {
    let ports = ["default-left", "default-right", "red-left", "red-right"];
    let mut plane = two_tables();
    for (table, came_by) in [("default", 0), ("red", 2)] {
        for to in ["10.2.0.2", "fd00:2::2", "20.1.1.1"].map(address) {
            let from = if to.is_ipv4() { pairs()[0].0 } else { pairs()[1].0 };
            let packet = frame(port_mac(came_by + 1), LEFT, &udp((from, 1), (to, 2), 64, b""));
            let came = plane.exchange(&format!("{table}-left"), &[packet], ports);
            for (number, frames) in came.iter().enumerate() {
                assert_eq!(
                    frames.len(),
                    usize::from(number == usize::from(came_by) + 1),
                    "{table} {to} {number}"
                );
            }
            assert_eq!(open(&came[usize::from(came_by) + 1][0]).to, gateway(came_by));
        }
    }
    // Both tables in one vector, and a route that only one has.
    for port in [1u8, 3] {
        let name = ports[usize::from(port) - 1];
        for to in ["30.1.1.1", "20.1.1.1"] {
            let packet = udp((pairs()[0].0, 1), (address(to), 2), 64, b"");
            plane.send(name, &frame(port_mac(port), LEFT, &packet));
        }
    }
    plane.settle();
    let counts = ports.map(|port| {
        plane
            .take(port)
            .iter()
            .filter(|frame| frame[12] == 8 && frame[13] == 0)
            .count()
    });
    assert_eq!(counts[1], 1);
    assert_eq!(counts[3], 2);
    assert_eq!(plane.dropped("route/no-route"), 1);
}

#[test]
fn each_table_has_its_own_addresses() {
    let mut plane = two_tables();
    for (number, port) in [(1, "default-left"), (3, "red-left")] {
        let (left, _) = pairs()[0];
        // Who speaks to us over the link is known from then on.
        let asks = arp(
            [0xff; 6],
            1,
            (LEFT, [10, 1, 0, 2].into()),
            ([0; 6], [10, 1, 0, 1].into()),
        );
        let ping = frame(port_mac(number), LEFT, &echo(left, address("10.2.0.1"), 1, b""));
        plane.exchange(port, &[asks], [port]);
        let [came] = plane.exchange(port, &[ping], [port]);
        assert_eq!(open_all(&came).len(), 1, "{port} {:?}", plane.drops());
        assert_eq!(open(&came[0]).icmp(), (0, 0));
    }
}
