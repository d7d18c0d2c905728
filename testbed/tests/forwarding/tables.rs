//! Several tables of routes, and ways from one into another.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// The hosts behind `red` and `blue`, which have the same address.
const RED: Mac = [2, 0, 0, 0, 2, 1];
const BLUE: Mac = [2, 0, 0, 0, 2, 2];
/// A server behind `shared`, and a router beside it.
const SERVER: Mac = [2, 0, 0, 0, 2, 3];
const ROUTER: Mac = [2, 0, 0, 0, 2, 4];

/// A route of a table other than the default one.
fn route_in(vrf: &str, name: &str, destination: &str, via: &str) -> String {
    let spec = format!("{{destination: \"{destination}\", vrf: {vrf}, via: [{via}]}}");
    document("Route", name, &spec)
}

/// Tables `red` and `blue` have the same subnet; the default one has a server in another.
fn three_tables(routes: &str) -> Plane {
    let ports = port("red", "10.1.0.1/24, \"fd00:1::1/64\"", ", vrf: red")
        + &port("blue", "10.1.0.1/24, \"fd00:1::1/64\"", ", vrf: blue")
        + &port("shared", "10.9.0.1/24, \"fd00:9::1/64\"", "");
    let hosts = [
        ("red", "10.1.0.2", "fd00:1::2", RED),
        ("blue", "10.1.0.2", "fd00:1::2", BLUE),
        ("shared", "10.9.0.2", "fd00:9::2", SERVER),
    ];
    let hosts = hosts.map(|(name, v4, v6, mac)| {
        neighbor(&format!("{name}4"), name, v4, mac) + &neighbor(&format!("{name}6"), name, v6, mac)
    });
    let router = neighbor("router", "shared", "10.9.0.9", ROUTER);
    Plane::new(&(ports + &hosts.concat() + &router + routes)).unwrap()
}

/// The red, blue and shared ports by number, and their hosts.
const FROM: [(&str, Mac); 3] = [("red", RED), ("blue", BLUE), ("shared", SERVER)];

/// Sends an IP packet from a port's host; what leaves by each port.
fn send(plane: &mut Plane, from: usize, packet: &[u8]) -> [Vec<Received>; 3] {
    let (name, mac) = FROM[from];
    let frame = frame(port_mac(from as u8 + 1), mac, packet);
    let came = plane.exchange(name, &[frame], FROM.map(|from| from.0));
    came.map(|frames| packets(&frames))
}

/// Where an IP packet from a port's host goes: the port and the link address, if anywhere.
fn way(plane: &mut Plane, from: usize, packet: &[u8]) -> Option<(usize, Mac)> {
    let came = send(plane, from, packet);
    let found: Vec<_> = came.iter().enumerate().filter(|came| !came.1.is_empty()).collect();
    assert!(
        found.len() < 2 && found.iter().all(|came| came.1.len() == 1),
        "{found:?}"
    );
    found.first().map(|came| (came.0, came.1[0].to))
}

/// A packet between two addresses.
fn between(from: &str, to: &str) -> Vec<u8> {
    udp((address(from), 1000), (address(to), 2000), 64, b"leak")
}

#[test]
fn a_route_into_another_table_leads_where_that_says_and_no_further() {
    let routes = route_in("red", "red-out4", "10.9.0.0/16", "{vrf: default}")
        + &route_in("red", "red-out6", "fd00:9::/48", "{vrf: default}")
        + &route("back4", "10.1.0.0/24", "{vrf: red}")
        + &route("back6", "fd00:1::/64", "{vrf: red}")
        + &route("beyond", "10.9.7.0/24", "{gateway: 10.9.0.9}");
    let mut plane = three_tables(&routes);
    for (host, server) in [("10.1.0.2", "10.9.0.2"), ("fd00:1::2", "fd00:9::2")] {
        assert_eq!(way(&mut plane, 0, &between(host, server)), Some((2, SERVER)));
        assert_eq!(way(&mut plane, 2, &between(server, host)), Some((0, RED)));
        // Blue has the same addresses and no such route: its host is told, and nobody else hears of it.
        let [red, blue, shared] = send(&mut plane, 1, &between(host, server));
        assert!(red.is_empty() && shared.is_empty());
        assert_eq!(blue[0].to, BLUE);
    }
    assert_eq!(way(&mut plane, 0, &between("10.1.0.2", "10.9.7.7")), Some((2, ROUTER)));
    assert_eq!(plane.drops(), [("route/no-route".to_owned(), 2)].into());
    // The server's address of ours answers from the other table, too, and the answer finds back.
    let [red, ..] = send(&mut plane, 0, &echo(address("10.1.0.2"), address("10.9.0.1"), 1, b"?"));
    assert_eq!((red[0].to, red[0].icmp()), (RED, (0, 0)));
    // What the default table has no route to is said to who asked.
    let [red, ..] = send(&mut plane, 0, &between("10.1.0.2", "10.9.200.1"));
    assert_eq!((red[0].to, red[0].icmp()), (RED, (3, 0)));
}

#[test]
fn a_packet_that_turns_in_a_circle_of_tables_is_dropped() {
    let routes = route_in("red", "there", "10.50.0.0/16", "{vrf: blue}")
        + &route_in("blue", "and-back", "10.50.0.0/16", "{vrf: red}")
        + &route_in("blue", "but-this", "10.50.1.0/24", "{vrf: default}")
        + &route("out", "10.50.0.0/16", "{gateway: 10.9.0.9}");
    let mut plane = three_tables(&routes);
    assert_eq!(way(&mut plane, 0, &between("10.1.0.2", "10.50.2.1")), None);
    assert_eq!(plane.drops(), [("route/table-loop".to_owned(), 1)].into());
    // Through two tables to where it ends.
    assert_eq!(way(&mut plane, 0, &between("10.1.0.2", "10.50.1.1")), Some((2, ROUTER)));
}

#[test]
fn a_gateway_may_be_in_another_table_or_by_a_port_of_it() {
    let routes = route_in("red", "in", "10.60.0.0/16", "{gateway: 10.9.0.9, vrf: default}")
        + &route_in("blue", "by", "10.60.0.0/16", "{gateway: 169.254.7.7, port: shared}");
    let mut plane = three_tables(&routes);
    assert_eq!(way(&mut plane, 0, &between("10.1.0.2", "10.60.0.1")), Some((2, ROUTER)));
    // On no subnet of the port, and asked for all the same.
    let came = send_raw(&mut plane, 1, &between("10.1.0.2", "10.60.0.1"));
    assert_eq!(came[2].len(), 1);
    let asked = &came[2][0];
    assert_eq!((&asked[12..14], &asked[38..42]), (&[8, 6][..], &[169, 254, 7, 7][..]));
    let told = arp(
        port_mac(3),
        2,
        (ROUTER, [169, 254, 7, 7].into()),
        (port_mac(3), [10, 9, 0, 1].into()),
    );
    let [came] = plane.exchange("shared", &[told], ["shared"]);
    assert_eq!(open(&came[0]).to, ROUTER);
}

#[test]
fn the_link_of_a_port_in_another_table_is_reached_and_each_host_on_it_asked_for() {
    let routes = route_in("red", "link", "10.9.0.0/24", "{port: shared}");
    let mut plane = three_tables(&routes);
    assert_eq!(way(&mut plane, 0, &between("10.1.0.2", "10.9.0.2")), Some((2, SERVER)));
    let came = send_raw(&mut plane, 0, &between("10.1.0.2", "10.9.0.77"));
    assert_eq!((came[2].len(), &came[2][0][38..42]), (1, &[10, 9, 0, 77][..]));
    let told = arp(
        port_mac(3),
        2,
        (ROUTER, [10, 9, 0, 77].into()),
        (port_mac(3), [10, 9, 0, 1].into()),
    );
    let [came] = plane.exchange("shared", &[told], ["shared"]);
    assert_eq!(open(&came[0]).to, ROUTER);
    plane.delete(&routes).unwrap();
    assert_eq!(
        way(&mut plane, 0, &between("10.1.0.2", "10.9.0.77")),
        Some((0, RED)),
        "told: no route"
    );
    assert_eq!(plane.dropped("route/no-route"), 1);
}

/// As [`send`], with the plane's questions.
fn send_raw(plane: &mut Plane, from: usize, packet: &[u8]) -> [Vec<Vec<u8>>; 3] {
    let (name, mac) = FROM[from];
    let frame = frame(port_mac(from as u8 + 1), mac, packet);
    plane.exchange(name, &[frame], FROM.map(|from| from.0))
}

#[test]
fn packets_of_all_tables_in_one_vector_keep_to_their_own() {
    let mut plane = three_tables(&route_in("red", "out", "0.0.0.0/0", "{vrf: default}"));
    for _ in 0..50 {
        for (from, (name, mac)) in FROM[..2].iter().enumerate() {
            plane.send(
                name,
                &frame(port_mac(from as u8 + 1), *mac, &between("10.1.0.2", "10.9.0.2")),
            );
        }
    }
    plane.settle();
    assert_eq!(plane.take("shared").len(), 50);
    assert_eq!(plane.dropped("route/no-route"), 50);
}
