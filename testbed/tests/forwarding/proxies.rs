//! Answers for others: proxy ARP and neighbour discovery.

use std::net::{Ipv4Addr, Ipv6Addr};

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// The left port answers as `proxy` says. 20/8 and 2001:20::/32 are behind right, 40/8 behind left.
fn answering(proxy: &str) -> Plane {
    let left = port("left", "10.1.0.1/24, \"fd00:1::1/64\"", &format!(", proxyArp: {proxy}"));
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "");
    let routes = route("r20", "20.0.0.0/8", "{gateway: 10.2.0.2}")
        + &route("r40", "40.0.0.0/8", "{gateway: 10.1.0.2}")
        + &route("r50", "50.0.0.0/8", "{drop: true}")
        + &route("v20", "2001:20::/32", "{gateway: \"fd00:2::2\"}");
    Plane::new(&(left + &right + &hosts() + &routes)).unwrap()
}

/// Whether the left host is told a link address for `about`; that must be the port's.
fn told(plane: &mut Plane, about: &str) -> bool {
    let asks = match address(about) {
        IpAddr::V4(about) => arp([0xff; 6], 1, (LEFT, [10, 1, 0, 2].into()), ([0; 6], about)),
        IpAddr::V6(about) => solicitation((LEFT, "fd00:1::2".parse().unwrap()), about),
    };
    let [came] = plane.exchange("left", &[asks], ["left"]);
    let Some(came) = came.first() else { return false };
    match address(about) {
        IpAddr::V4(about) => assert_eq!(*came, arp(LEFT, 2, (LEFT_PORT, about), (LEFT, [10, 1, 0, 2].into()))),
        IpAddr::V6(about) => {
            let came = open(came);
            assert_eq!(
                (came.source, came.icmp(), came.word()),
                (link_local(LEFT_PORT), (136, 0), 0xc000_0000)
            );
            assert_eq!(came.quote(), [&about.octets()[..], &[2, 1], &LEFT_PORT].concat());
        }
    }
    true
}

#[test]
fn a_port_answers_for_what_is_routed_elsewhere_and_for_nothing_else() {
    let all = [
        // Elsewhere: behind a gateway, on another link, another port's own address.
        ("20.1.1.1", [false, true, false]),
        ("10.2.0.9", [false, true, false]),
        ("2001:20::1", [false, true, false]),
        ("fd00:2::9", [false, true, false]),
        ("10.2.0.1", [false, true, false]),
        // On this link, behind it, or nowhere.
        ("10.1.0.9", [false, false, false]),
        ("40.1.1.1", [false, false, false]),
        ("50.1.1.1", [false, false, false]),
        ("60.1.1.1", [false, false, false]),
        ("fd00:1::9", [false, false, false]),
        ("2001:60::1", [false, false, false]),
        // Named, whether there is a route or not; not where it leads back.
        ("169.254.1.1", [false, false, true]),
        ("2001:70::1", [false, false, true]),
    ];
    let proxies = [
        "false",
        "true",
        "[169.254.1.1/32, 10.1.0.0/24, 40.0.0.0/8, \"2001:70::/64\"]",
    ];
    for (at, proxy) in proxies.into_iter().enumerate() {
        let mut plane = answering(proxy);
        for (about, expected) in all {
            assert_eq!(told(&mut plane, about), expected[at], "{proxy} {about}");
        }
    }
}

#[test]
fn who_checks_whether_an_address_is_free_is_not_told_that_it_is_taken() {
    let mut plane = answering("true");
    let probe = arp(
        [0xff; 6],
        1,
        (LEFT, Ipv4Addr::UNSPECIFIED),
        ([0; 6], [20, 1, 1, 1].into()),
    );
    let announcement = arp(
        [0xff; 6],
        1,
        (LEFT, [20, 1, 1, 1].into()),
        ([0; 6], [20, 1, 1, 1].into()),
    );
    let answer = arp(
        LEFT_PORT,
        2,
        (LEFT, [10, 1, 0, 2].into()),
        (LEFT_PORT, [20, 1, 1, 1].into()),
    );
    let probe6 = solicitation((LEFT, Ipv6Addr::UNSPECIFIED), "2001:20::1".parse().unwrap());
    let [came] = plane.exchange("left", &[probe, announcement, answer, probe6], ["left"]);
    assert!(came.is_empty(), "{came:?}");
}

/// Calico's pods have an address of 32 bits and one router, 169.254.1.1, which is nowhere; their default route leads there.
#[test]
fn a_pod_reaches_the_world_by_a_router_that_is_nowhere() {
    const POD: Mac = [2, 0, 0, 0, 4, 1];
    let pod = "10.65.0.7";
    let yaml = port("cali1", "", ", proxyArp: true")
        + &port("up", "10.2.0.1/24", "")
        + &neighbor("router", "up", "10.2.0.2", RIGHT)
        + &route("pod", "10.65.0.7/32", "{port: cali1}")
        + &route("world", "0.0.0.0/0", "{gateway: 10.2.0.2}");
    let mut plane = Plane::new(&yaml).unwrap();
    let (IpAddr::V4(own), router) = (address(pod), Ipv4Addr::new(169, 254, 1, 1)) else {
        unreachable!()
    };
    let asks = arp([0xff; 6], 1, (POD, own), ([0; 6], router));
    let [came] = plane.exchange("cali1", &[asks], ["cali1"]);
    assert_eq!(came, [arp(POD, 2, (port_mac(1), router), (POD, own))]);
    let out = frame(
        port_mac(1),
        POD,
        &udp((own.into(), 1), (address("8.8.8.8"), 2), 64, b""),
    );
    assert_eq!(plane.exchange("cali1", &[out], ["up"])[0].len(), 1);
    // The answer has the pod asked for, from an address of ours, and then gets there.
    let back = frame(
        port_mac(2),
        RIGHT,
        &udp((address("8.8.8.8"), 2), (own.into(), 1), 64, b""),
    );
    let [asked] = plane.exchange("up", &[back], ["cali1"]);
    assert_eq!(
        (&asked[0][28..32], &asked[0][38..42]),
        (&[10, 2, 0, 1][..], &own.octets()[..])
    );
    let told = arp(port_mac(1), 2, (POD, own), (port_mac(1), [10, 2, 0, 1].into()));
    let [came] = plane.exchange("cali1", &[told], ["cali1"]);
    assert_eq!(open(&came[0]).to, POD);
}

#[test]
fn what_is_no_prefix_is_refused() {
    for (proxy, expected) in [
        ("maybe", "expected `true`, `false` or prefixes"),
        ("[10.0.0.0/33]", "spec.proxyArp"),
    ] {
        let refusal = Plane::new(&port("left", "", &format!(", proxyArp: {proxy}")))
            .err()
            .unwrap()
            .to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
}
