//! What senders are told, what is answered for ourselves, and when we keep silent.

use std::time::Duration;

use testbed::packets::*;

use crate::*;

#[test]
fn echo_is_answered_at_each_of_our_addresses() {
    let mut plane = plane();
    for (left, _) in pairs() {
        let (near, far) = own(left);
        for to in [near, far] {
            for payload in [&b""[..], b"odd", &[7; 1400]] {
                let reply = answer(&mut plane, &echo(left, to, 42, payload));
                assert_eq!(reply.icmp(), if left.is_ipv4() { (0, 0) } else { (129, 0) });
                assert_eq!((reply.source, reply.target, reply.hop_limit), (to, left, 64));
                assert_eq!((reply.word(), reply.quote()), (0x4d47_002a, payload));
                assert_eq!((reply.to, reply.from), (LEFT, LEFT_PORT));
            }
        }
    }
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn echo_is_answered_at_the_link_local_address() {
    let mut plane = plane();
    let (to, from) = (link_local(LEFT_PORT), link_local(LEFT));
    let reply = answer(&mut plane, &echo(from, to, 7, b"on the link"));
    assert_eq!((reply.icmp(), reply.source, reply.target), ((129, 0), to, from));
    assert_eq!(
        (reply.to, reply.from, reply.quote()),
        (LEFT, LEFT_PORT, b"on the link".as_slice())
    );
    // A global address asks the link-local one: the answer takes the route.
    let (left, _) = pairs()[1];
    assert!(answers(&mut plane, &echo(left, to, 7, b"")).len() <= 1);
}

#[test]
fn echo_with_a_wrong_checksum_is_not_answered() {
    let mut plane = plane();
    for (left, _) in pairs() {
        let mut packet = echo(left, own(left).0, 1, b"payload");
        *packet.last_mut().unwrap() ^= 1;
        assert!(answers(&mut plane, &packet).is_empty());
    }
    assert_eq!(plane.drops(), [("local/icmp-checksum".to_owned(), 2)].into());
}

#[test]
fn when_the_hop_limit_runs_out_the_sender_is_told_from_the_port_it_came_by() {
    let mut plane = plane();
    for (left, right) in pairs() {
        for hop_limit in [1, 0] {
            let packet = udp((left, 1000), (right, 33434), hop_limit, b"trace");
            // `answer` checks the checksum, with the pseudo-header for IPv6.
            let told = answer(&mut plane, &packet);
            assert_eq!(told.icmp(), if left.is_ipv4() { (11, 0) } else { (3, 0) });
            assert_eq!((told.source, told.target, told.hop_limit), (own(left).0, left, 64));
            assert_eq!((told.to, told.from), (LEFT, LEFT_PORT));
            assert_eq!((told.word(), told.quote()), (0, packet.as_slice()));
        }
        // From the other side it is the other port's address.
        let packet = frame(RIGHT_PORT, RIGHT, &udp((right, 1000), (left, 33434), 1, b"trace"));
        let [came] = plane.exchange("right", &[packet], ["right"]);
        assert_eq!(open(&came[0]).source, own(left).1);
        assert_eq!(across(&mut plane, &udp((left, 1), (right, 2), 2, b""))[0].hop_limit, 1);
    }
    assert_eq!(plane.dropped("adjacency/hop-limit-expired"), 6);
}

#[test]
fn a_message_quotes_as_much_as_fits() {
    let mut plane = plane();
    for ((left, right), most) in pairs().into_iter().zip([576, 1280]) {
        let packet = udp((left, 1000), (right, 33434), 1, &[0x5a; 1400]);
        let told = answer(&mut plane, &packet);
        assert_eq!(told.packet.len(), most);
        assert!(packet.starts_with(told.quote()));
    }
}

#[test]
fn packets_to_us_that_nobody_takes_are_refused_in_words() {
    let mut plane = plane();
    for (left, _) in pairs() {
        let (near, far) = own(left);
        let v4 = left.is_ipv4();
        for to in [near, far] {
            for packet in [udp((left, 1000), (to, 7), 1, b"hello"), tcp((left, 1000), (to, 80), 64)] {
                let told = answer(&mut plane, &packet);
                assert_eq!(told.icmp(), if v4 { (3, 3) } else { (1, 4) });
                assert_eq!((told.target, told.quote()), (left, packet.as_slice()));
            }
            let packet = ip(left, to, 200, 64, b"what is this?");
            let told = answer(&mut plane, &packet);
            // The pointer of IPv6 names the place of the next header.
            assert_eq!((told.icmp(), told.word()), if v4 { ((3, 2), 0) } else { ((4, 1), 6) });
            assert_eq!(told.quote(), packet);
        }
    }
    assert_eq!(plane.dropped("local/closed"), 12);
}

#[test]
fn the_pointer_finds_an_unknown_protocol_behind_extension_headers() {
    let mut plane = plane();
    let (left, _) = pairs()[1];
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    for (chain, pointer) in [(options(200).to_vec(), 40), ([options(60), options(200)].concat(), 48)] {
        let packet = ip(left, own(left).0, 60, 64, &[chain, vec![1; 16]].concat());
        let told = answer(&mut plane, &packet);
        assert_eq!((told.icmp(), told.word()), ((4, 1), pointer));
    }
}

#[test]
fn messages_are_limited_and_come_again_with_time() {
    let mut plane = plane();
    for (left, right) in pairs() {
        plane.advance(Duration::from_secs(1));
        let packet = frame(LEFT_PORT, LEFT, &udp((left, 1000), (right, 33434), 1, b""));
        let many = vec![packet; 500];
        let before = plane.dropped("icmp-error/icmp-rate-limited");
        let [told] = plane.exchange("left", &many, ["left"]);
        assert_eq!(told.len(), 50);
        assert_eq!(plane.dropped("icmp-error/icmp-rate-limited") - before, 450);
        plane.set_time(Duration::from_secs(1) * if left.is_ipv4() { 1 } else { 3 } + Duration::from_millis(20));
        plane.advance(Duration::from_millis(20));
        let [told] = plane.exchange("left", &many, ["left"]);
        assert!((20..=50).contains(&told.len()), "{}", told.len());
        // The other port has a limit of its own.
        let packet = frame(RIGHT_PORT, RIGHT, &udp((right, 1000), (left, 33434), 1, b""));
        let [told] = plane.exchange("right", &[packet], ["right"]);
        assert_eq!(told.len(), 1);
    }
}

#[test]
fn no_error_is_sent_about_an_error() {
    let mut plane = plane();
    let errors_v4 = [3, 4, 5, 11, 12].map(|kind| (0, kind));
    let errors_v6 = [1, 2, 3, 4, 100, 127].map(|kind| (1, kind));
    for (family, kind) in errors_v4.into_iter().chain(errors_v6) {
        let (left, right) = pairs()[family];
        let quoted = udp((right, 1), (left, 2), 64, b"");
        assert!(
            answers(&mut plane, &icmp(left, right, 1, (kind, 0), 0, &quoted)).is_empty(),
            "{family} {kind}"
        );
    }
    assert_eq!(plane.dropped("icmp-error/icmp-not-allowed"), 11);
    // About an echo request there is one.
    for (left, right) in pairs() {
        let mut packet = echo(left, right, 1, b"");
        let at = if left.is_ipv4() { 8 } else { 7 };
        packet[at] = 1;
        if left.is_ipv4() {
            fix_v4(&mut packet);
        }
        assert_eq!(answers(&mut plane, &packet).len(), 1);
    }
}

#[test]
fn no_error_is_sent_about_a_later_fragment() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let later = with_fragment(ip(left, right, 17, 1, &[0; 64]), 0x2000, 800);
    assert!(answers(&mut plane, &later).is_empty());
    let first = with_fragment(ip(left, right, 17, 1, &[0; 64]), 0x2000, 0);
    assert_eq!(answers(&mut plane, &first).len(), 1);
    let (left, right) = pairs()[1];
    let piece = |offset: u16| {
        let fields = (offset | 1).to_be_bytes();
        ip(
            left,
            right,
            44,
            1,
            &[&[17, 0, fields[0], fields[1], 0, 0, 0, 9], [0; 64].as_slice()].concat(),
        )
    };
    assert!(answers(&mut plane, &piece(800)).is_empty());
    assert_eq!(answers(&mut plane, &piece(0)).len(), 1);
    assert_eq!(plane.dropped("icmp-error/icmp-not-allowed"), 2);
}

#[test]
fn what_comes_to_many_on_the_link_for_one_host_is_neither_forwarded_nor_answered() {
    let mut plane = plane();
    let groups: [Mac; 2] = [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1]];
    for (left, right) in pairs() {
        for to in groups {
            // RFC 1812 section 5.3.4 and RFC 1122 section 3.3.6.
            let packets = [udp((left, 1), (right, 2), 64, b""), udp((left, 1), (right, 2), 1, b"")];
            let to_us = [
                udp((left, 1), (own(left).0, 2), 64, b""),
                echo(left, own(left).0, 1, b""),
            ];
            let frames: Vec<Vec<u8>> = packets
                .iter()
                .chain(&to_us)
                .map(|packet| frame(to, LEFT, packet))
                .collect();
            assert_eq!(
                plane.exchange("left", &frames, ["left", "right"]),
                [Vec::<Vec<u8>>::new(), vec![]]
            );
        }
    }
    assert_eq!(plane.dropped("parse/link-broadcast"), 16);
}

#[test]
fn multicast_and_broadcast_are_dropped_in_silence() {
    let mut plane = plane();
    let group: Mac = [0x01, 0, 0x5e, 0, 0, 1];
    let targets = [
        (0, "224.0.0.1"),
        (0, "239.1.2.3"),
        (0, "255.255.255.255"),
        (1, "ff02::1"),
        (1, "ff05::2"),
    ];
    for (family, to) in targets {
        let packet = udp((pairs()[family].0, 1), (address(to), 2), 1, b"");
        let [came] = plane.exchange("left", &[frame(group, LEFT, &packet)], ["left"]);
        assert!(came.is_empty());
    }
    assert_eq!(plane.drops(), [("parse/multicast".to_owned(), 5)].into());
}

#[test]
fn an_error_without_an_address_to_send_it_from_is_not_sent() {
    // The left port has no IPv4 address, and no other port of its table has one.
    let yaml = port("left", "\"fd00:1::1/64\"", "") + &neighbor("host", "left", "fd00:1::2", LEFT);
    let mut plane = testbed::Plane::new(&yaml).unwrap();
    let packet = udp((pairs()[0].0, 1), (pairs()[0].1, 2), 64, b"");
    assert!(answers(&mut plane, &packet).is_empty());
    assert_eq!(plane.dropped("icmp-error/icmp-no-address"), 1);
}
