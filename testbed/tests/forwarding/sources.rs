//! Sources that nobody can have, or that nobody can have here.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

#[test]
fn an_address_of_ours_is_nobody_elses_source() {
    let mut plane = plane();
    for (_, right) in pairs() {
        let (ours, other) = own(right);
        // Of the port it comes in by, and of another one; to somebody and to us.
        for packet in [
            udp((ours, 1), (right, 2), 64, b""),
            udp((other, 1), (right, 2), 64, b""),
            echo(other, ours, 1, b""),
        ] {
            let sent = frame(LEFT_PORT, LEFT, &packet);
            assert_eq!(
                plane.exchange("left", &[sent], ["left", "right"]),
                [const { Vec::<Vec<u8>>::new() }; 2]
            );
        }
    }
    assert_eq!(plane.drops(), [("parse/own-source".to_owned(), 6)].into());
}

#[test]
fn the_same_address_in_another_table_is_somebody_elses() {
    let yaml = two_ports() + &hosts() + &port("red", "10.7.0.1/24", ", vrf: red");
    let mut plane = Plane::new(&yaml).unwrap();
    assert_eq!(
        across(&mut plane, &udp((address("10.7.0.1"), 1), (pairs()[0].1, 2), 64, b"")).len(),
        1
    );
    // Once it is ours here, it is ours at once.
    plane.delete(&port("red", "", "")).unwrap();
    plane.apply(&port("here", "10.7.0.1/24", "")).unwrap();
    assert!(across(&mut plane, &udp((address("10.7.0.1"), 1), (pairs()[0].1, 2), 64, b"")).is_empty());
    assert_eq!(plane.dropped("parse/own-source"), 1);
}

#[test]
fn martian_sources_are_dropped_by_name() {
    let mut plane = plane();
    let v4 = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.9",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ];
    let v6 = ["::", "::1", "ff02::1", "ff0e::9", "::ffff:10.1.0.2"];
    for from in v4.iter().chain(&v6).map(|text| text.parse::<IpAddr>().unwrap()) {
        let right = pairs()[usize::from(from.is_ipv6())].1;
        assert!(
            across(&mut plane, &udp((from, 1), (right, 2), 64, b"")).is_empty(),
            "{from}"
        );
    }
    let expected = (v4.len() + v6.len()) as u64;
    assert_eq!(plane.drops(), [("parse/martian-source".to_owned(), expected)].into());
}

/// Left asks as `rpf` says; 20/8 is behind right, 30/8 behind both, 40/8 behind left, and 50/8 nowhere.
fn asking(rpf: &str, more: &str) -> Plane {
    let left = port("left", "10.1.0.1/24, \"fd00:1::1/64\"", &format!(", rpf: {rpf}"));
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", "");
    let routes = route("r20", "20.0.0.0/8", "{gateway: 10.2.0.2}")
        + &route("r30", "30.0.0.0/8", "{gateway: 10.1.0.2}, {gateway: 10.2.0.2}")
        + &route("r40", "40.0.0.0/8", "{gateway: 10.1.0.2}")
        + &route("r50", "50.0.0.0/8", "{drop: true}")
        + &route("v20", "2001:20::/32", "{gateway: \"fd00:2::2\"}")
        + &route("v40", "2001:40::/32", "{gateway: \"fd00:1::2\"}");
    Plane::new(&(left + &right + &hosts() + &routes + more)).unwrap()
}

/// Whether a packet from there gets from left to right.
fn passes(plane: &mut Plane, from: &str) -> bool {
    let from = address(from);
    let right = pairs()[usize::from(from.is_ipv6())].1;
    !across(plane, &udp((from, 1), (right, 2), 64, b"")).is_empty()
}

/// A connection for every packet, for nothing else is looked at then.
fn tracked() -> String {
    document(
        "SourceNat",
        "elsewhere",
        "{source: 10.99.0.0/16, address: 10.2.0.1, outPort: right}",
    )
}

#[test]
fn a_port_may_ask_for_a_way_back_to_the_source() {
    let sources = [
        // off, loose, strict
        ("10.1.0.2", [true, true, true]),
        ("10.1.0.77", [true, true, true]),
        ("20.1.1.1", [true, true, false]),
        ("30.1.1.1", [true, true, true]),
        ("40.1.1.1", [true, true, true]),
        ("50.1.1.1", [true, false, false]),
        ("60.1.1.1", [true, false, false]),
        ("fd00:1::2", [true, true, true]),
        ("2001:20::1", [true, true, false]),
        ("2001:40::1", [true, true, true]),
        ("2001:60::1", [true, false, false]),
    ];
    for more in [String::new(), tracked()] {
        for (at, rpf) in ["off", "loose", "strict"].into_iter().enumerate() {
            let mut plane = asking(rpf, &more);
            let mut refused = 0;
            for (from, expected) in sources {
                assert_eq!(
                    passes(&mut plane, from),
                    expected[at],
                    "{rpf} {from} {:?}",
                    plane.drops()
                );
                refused += u64::from(!expected[at]);
            }
            assert_eq!(plane.dropped("reverse-path/reverse-path"), refused);
            // Ports that do not ask are not looked at.
            let spoofed = frame(
                RIGHT_PORT,
                RIGHT,
                &udp((address("60.1.1.1"), 1), (pairs()[0].0, 2), 64, b""),
            );
            assert_eq!(plane.exchange("right", &[spoofed], ["left"])[0].len(), 1);
            assert_eq!(
                plane.packets("reverse-path"),
                if rpf == "off" { 0 } else { sources.len() as u64 }
            );
        }
    }
}

#[test]
fn a_vector_of_both_families_is_told_apart_and_a_link_local_source_is_let_in() {
    let mut plane = asking("strict", "");
    for from in ["20.1.1.1", "10.1.0.2", "2001:20::1", "fd00:1::2"].repeat(10) {
        let (from, right) = (address(from), pairs()[usize::from(from.contains(':'))].1);
        plane.send("left", &frame(LEFT_PORT, LEFT, &udp((from, 1), (right, 2), 64, b"")));
    }
    plane.settle();
    assert_eq!(
        (plane.take("right").len(), plane.dropped("reverse-path/reverse-path")),
        (20, 20)
    );
    // It may speak to us; further it does not get.
    let ping = frame(LEFT_PORT, LEFT, &echo(link_local(LEFT), own(pairs()[1].0).0, 1, b""));
    assert_eq!(plane.exchange("left", &[ping], ["left"])[0].len(), 1);
}

#[test]
fn an_unknown_rpf_is_refused_with_what_is_known() {
    let refusal = Plane::new(&port("left", "", ", rpf: maybe")).err().unwrap().to_string();
    assert!(refusal.contains("spec.rpf") && refusal.contains("strict"), "{refusal}");
}
