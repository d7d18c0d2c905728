//! ARP and neighbour discovery: answers, questions, and packets that wait for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use testbed::Plane;
use testbed::packets::*;

use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const BROADCAST: Mac = [0xff; 6];

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Two ports without known hosts.
fn strangers() -> Plane {
    Plane::new(&two_ports()).unwrap()
}

/// The questions among frames: who is asked for, from where, and to which link address.
fn questions(frames: &[Vec<u8>]) -> Vec<(IpAddr, IpAddr, Mac)> {
    let question = |frame: &Vec<u8>| {
        let to: Mac = frame[..6].try_into().unwrap();
        if frame[12..14] == [8, 6] {
            assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1], "no ARP request");
            assert_eq!(frame[22..28], frame[6..12], "the sender's link addresses differ");
            let word = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
            return Some((word(38).into(), word(28).into(), to));
        }
        let packet = open(frame);
        (packet.protocol == 58 && packet.icmp() == (135, 0)).then(|| {
            assert_eq!(packet.hop_limit, 255);
            assert_eq!(packet.payload[24..26], [1, 1], "the source link address is missing");
            assert_eq!(packet.payload[26..32], frame[6..12]);
            let about = Ipv6Addr::from(<[u8; 16]>::try_from(&packet.payload[8..24]).unwrap());
            (about.into(), packet.source, to)
        })
    };
    frames.iter().filter_map(question).collect()
}

/// The right host's answer to being asked for.
fn told(right: IpAddr) -> Vec<u8> {
    match right {
        IpAddr::V4(right) => arp(RIGHT_PORT, 2, (RIGHT, right), (RIGHT_PORT, v4("10.2.0.1"))),
        IpAddr::V6(about) => advertisement((RIGHT_PORT, link_local(RIGHT_PORT)), (RIGHT, right), about),
    }
}

#[test]
fn what_follows_a_question_is_not_in_the_answer() {
    let mut plane = strangers();
    let mut asks = arp(BROADCAST, 1, (LEFT, v4("10.1.0.2")), ([0; 6], v4("10.1.0.1")));
    asks.resize(1400, 0xa5);
    let [answers] = plane.exchange("left", &[asks], ["left"]);
    let expected = arp(LEFT, 2, (LEFT_PORT, v4("10.1.0.1")), (LEFT, v4("10.1.0.2")));
    assert_eq!(answers, [expected]);
}

#[test]
fn our_address_is_told_to_who_asks() {
    let mut plane = strangers();
    let asks = arp(BROADCAST, 1, (LEFT, v4("10.1.0.2")), ([0; 6], v4("10.1.0.1")));
    let [came] = plane.exchange("left", &[asks], ["left"]);
    assert_eq!(
        came,
        [arp(LEFT, 2, (LEFT_PORT, v4("10.1.0.1")), (LEFT, v4("10.1.0.2")))]
    );
    // Asked again at our own link address, as Linux confirms what it knows.
    let asks = arp(LEFT_PORT, 1, (LEFT, v4("10.1.0.2")), (LEFT_PORT, v4("10.1.0.1")));
    assert_eq!(plane.exchange("left", &[asks], ["left"])[0].len(), 1);
    assert_eq!(plane.dropped("arp/arp-not-for-us"), 0);
}

#[test]
fn somebody_elses_address_is_not_told() {
    let mut plane = strangers();
    let others = [v4("10.1.0.3"), v4("10.2.0.1")];
    let asks = others.map(|other| arp(BROADCAST, 1, (LEFT, v4("10.1.0.2")), ([0; 6], other)));
    assert_eq!(plane.exchange("left", &asks, ["left"]), [Vec::<Vec<u8>>::new()]);
    assert_eq!(plane.dropped("arp/arp-not-for-us"), 2);
    let ask = solicitation((LEFT, v6("fd00:1::2")), v6("fd00:1::9"));
    assert_eq!(plane.exchange("left", &[ask], ["left"]), [Vec::<Vec<u8>>::new()]);
    assert_eq!(plane.dropped("ndp/ndp-not-for-us"), 1);
}

#[test]
fn who_checks_whether_our_address_is_free_is_told_and_not_believed() {
    let mut plane = strangers();
    let nobody = Ipv4Addr::UNSPECIFIED;
    let probe = arp(BROADCAST, 1, (LEFT, nobody), ([0; 6], v4("10.1.0.1")));
    let [came] = plane.exchange("left", &[probe], ["left"]);
    assert_eq!(came, [arp(LEFT, 2, (LEFT_PORT, v4("10.1.0.1")), (LEFT, nobody))]);
    let probe = solicitation((LEFT, Ipv6Addr::UNSPECIFIED), v6("fd00:1::1"));
    let [came] = plane.exchange("left", &[probe], ["left"]);
    let came = open(&came[0]);
    // To all nodes, and not as an answer to anybody (RFC 4861 section 7.2.4).
    assert_eq!((came.to, came.target), ([0x33, 0x33, 0, 0, 0, 1], address("ff02::1")));
    assert_eq!((came.icmp(), came.word(), came.hop_limit), ((136, 0), 0xa000_0000, 255));
    assert!(plane.views().neighbors().is_empty());
}

#[test]
fn each_of_our_ipv6_addresses_is_told_to_who_asks() {
    let mut plane = strangers();
    let IpAddr::V6(local) = link_local(LEFT_PORT) else {
        unreachable!()
    };
    for about in [v6("fd00:1::1"), local] {
        let group = solicitation((LEFT, v6("fd00:1::2")), about);
        // The same question to the address itself, as a neighbour is asked whether it is still there.
        let rest = [about.octets().as_slice(), &[1, 1], &LEFT].concat();
        let direct = icmp(address("fd00:1::2"), about.into(), 255, (135, 0), 0, &rest);
        let [came] = plane.exchange("left", &[group, frame(LEFT_PORT, LEFT, &direct)], ["left"]);
        assert_eq!(came.len(), 2);
        for came in open_all(&came) {
            assert_eq!((came.to, came.from), (LEFT, LEFT_PORT));
            assert_eq!((came.source, came.target), (about.into(), address("fd00:1::2")));
            assert_eq!((came.icmp(), came.word(), came.hop_limit), ((136, 0), 0xe000_0000, 255));
            let expected = [about.octets().as_slice(), &[2, 1], &LEFT_PORT].concat();
            assert_eq!(came.quote(), expected);
        }
    }
}

#[test]
fn packets_wait_for_a_neighbour_and_go_in_order() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        let packet = |number: u16| frame(LEFT_PORT, LEFT, &udp((left, 1000 + number), (right, 2000), 64, b"x"));
        let packets: Vec<Vec<u8>> = (0..20).map(packet).collect();
        let [asked] = plane.exchange("left", &packets, ["right"]);
        let (mac, source) = match right {
            IpAddr::V4(_) => (BROADCAST, own(right).1),
            IpAddr::V6(right) => (solicited_node(right).1, link_local(RIGHT_PORT)),
        };
        assert_eq!(questions(&asked), [(right, source, mac)]);
        assert_eq!(asked.len(), 1);
        // Sixteen wait; the rest is refused.
        assert_eq!(plane.dropped("hold/neighbour-queue-full"), 4);
        let [came] = plane.exchange("right", &[told(right)], ["right"]);
        let ports: Vec<u16> = open_all(&came)
            .iter()
            .map(|packet| u16::from_be_bytes([packet.payload[0], packet.payload[1]]))
            .collect();
        assert_eq!(ports, (1000..1016).collect::<Vec<u16>>());
        assert!(
            open_all(&came)
                .iter()
                .all(|packet| packet.to == RIGHT && packet.hop_limit == 63)
        );
        // Now it is known.
        assert_eq!(across(&mut plane, &udp((left, 1), (right, 2), 64, b"x")).len(), 1);
    }
}

#[test]
fn packets_for_many_neighbours_wait_within_a_bound() {
    let mut plane = strangers();
    let mut sent = 0;
    for host in 2..=200u8 {
        for number in 0..8 {
            let to = IpAddr::from([10, 2, 0, host]);
            plane.send(
                "left",
                &frame(LEFT_PORT, LEFT, &udp((pairs()[0].0, number), (to, 9), 64, b"")),
            );
            sent += 1;
        }
    }
    plane.settle();
    assert_eq!(plane.dropped("hold/waiting-room-full"), sent - 1024);
    assert_eq!(questions(&plane.take("right")).len(), 128);
    // What waits ends with the neighbours' failing, and room is free again.
    plane.advance(4 * SECOND);
    assert_eq!(plane.dropped("adjacency/host-unreachable"), 1024);
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_the_sender_is_told() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        plane.apply(&hosts_on_the_left()).unwrap();
        let packet = udp((left, 1000), (right, 2000), 64, b"anybody?");
        assert!(answers(&mut plane, &packet).is_empty());
        let mut asked = vec![];
        for _ in 0..4 {
            asked.push(questions(&plane.take("right")).len());
            plane.advance(SECOND);
        }
        assert_eq!(asked, [1, 1, 1, 0]);
        let told = packets(&plane.take("left"));
        assert_eq!(told.len(), 1, "{:?}", plane.drops());
        assert_eq!(told[0].icmp(), if left.is_ipv4() { (3, 1) } else { (1, 3) });
        assert_eq!(told[0].quote(), packet);
        assert_eq!((told[0].source, told[0].target), (own(left).0, left));
    }
}

fn hosts_on_the_left() -> String {
    neighbor("left4", "left", "10.1.0.2", LEFT) + &neighbor("left6", "left", "fd00:1::2", LEFT)
}

#[test]
fn a_failed_neighbour_is_tried_again() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        plane.apply(&hosts_on_the_left()).unwrap();
        let packet = udp((left, 1000), (right, 2000), 64, b"anybody?");
        answers(&mut plane, &packet);
        plane.advance(3 * SECOND);
        plane.take("left");
        // Just failed: the sender is told at once, and nobody is asked.
        assert_eq!(answers(&mut plane, &packet).len(), 1);
        plane.take("right");
        plane.advance(SECOND);
        assert!(answers(&mut plane, &packet).is_empty());
        assert_eq!(questions(&plane.take("right")).len(), 1);
        let [came] = plane.exchange("right", &[told(right)], ["right"]);
        assert_eq!(open_all(&came).len(), 1);
    }
}

#[test]
fn who_asks_for_us_need_not_be_asked() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        let asks = match right {
            IpAddr::V4(right) => arp(BROADCAST, 1, (RIGHT, right), ([0; 6], v4("10.2.0.1"))),
            IpAddr::V6(right) => solicitation((RIGHT, right), v6("fd00:2::1")),
        };
        plane.exchange("right", &[asks], ["right"]);
        let came = across(&mut plane, &udp((left, 1), (right, 2), 64, b""));
        assert_eq!(came.len(), 1);
        assert_eq!(came[0].to, RIGHT);
    }
}

#[test]
fn an_answer_nobody_asked_for_is_not_believed() {
    for (_, right) in pairs() {
        let mut plane = strangers();
        plane.exchange("right", &[told(right)], ["right"]);
        assert!(plane.views().neighbors().is_empty());
    }
}

#[test]
fn who_claims_our_address_or_one_beyond_the_link_is_not_believed() {
    let mut plane = strangers();
    let ours = arp(BROADCAST, 1, (LEFT, v4("10.1.0.1")), ([0; 6], v4("10.1.0.1")));
    let beyond = arp(BROADCAST, 1, (LEFT, v4("10.2.0.2")), ([0; 6], v4("10.1.0.1")));
    let group = arp(
        BROADCAST,
        1,
        ([3, 0, 0, 0, 0, 1], v4("10.1.0.7")),
        ([0; 6], v4("10.1.0.1")),
    );
    let ours_v6 = solicitation((LEFT, v6("fd00:1::1")), v6("fd00:1::1"));
    let beyond_v6 = solicitation((LEFT, v6("fd00:2::2")), v6("fd00:1::1"));
    plane.exchange("left", &[ours, beyond, group, ours_v6, beyond_v6], ["left"]);
    assert!(plane.views().neighbors().is_empty());
    assert_eq!(plane.dropped("arp/arp-conflict"), 1);
    assert_eq!(plane.dropped("ndp/ndp-conflict"), 1);
    assert_eq!(plane.dropped("arp/arp-malformed"), 1);
}

#[test]
fn a_neighbour_that_moves_is_followed_and_a_permanent_one_is_not() {
    let moved: Mac = [2, 0, 0, 0, 0, 0x77];
    for (left, right) in pairs() {
        let asks = match right {
            IpAddr::V4(right) => arp(BROADCAST, 1, (moved, right), ([0; 6], v4("10.2.0.1"))),
            IpAddr::V6(right) => solicitation((moved, right), v6("fd00:2::1")),
        };
        let packet = udp((left, 1), (right, 2), 64, b"");
        let mut learning = strangers();
        across(&mut learning, &packet);
        learning.exchange("right", &[told(right)], ["right"]);
        learning.exchange("right", std::slice::from_ref(&asks), ["right"]);
        assert_eq!(across(&mut learning, &packet)[0].to, moved);
        let mut permanent = plane();
        permanent.exchange("right", &[asks], ["right"]);
        assert_eq!(across(&mut permanent, &packet)[0].to, RIGHT);
    }
}

#[test]
fn a_known_neighbour_is_asked_again_where_it_was_and_forgotten_when_silent() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        across(&mut plane, &udp((left, 1), (right, 2), 64, b""));
        plane.exchange("right", &[told(right)], ["right"]);
        plane.advance(30 * SECOND);
        let asked = questions(&plane.take("right"));
        assert_eq!(
            asked
                .iter()
                .map(|question| (question.0, question.2))
                .collect::<Vec<_>>(),
            [(right, RIGHT)]
        );
        plane.exchange("right", &[told(right)], ["right"]);
        across(&mut plane, &udp((left, 1), (right, 2), 64, b""));
        plane.advance(29 * SECOND);
        assert_eq!(plane.take("right"), Vec::<Vec<u8>>::new(), "it has just answered");
        plane.advance(5 * SECOND);
        assert_eq!(questions(&plane.take("right")).len(), 3);
        assert!(plane.views().neighbors().is_empty());
    }
}

#[test]
fn a_neighbour_that_nothing_is_sent_to_is_left_alone_and_asked_when_it_is_used_again() {
    for (left, right) in pairs() {
        let mut plane = strangers();
        let packet = udp((left, 1), (right, 2), 64, b"");
        across(&mut plane, &packet);
        plane.exchange("right", &[told(right)], ["right"]);
        plane.advance(30 * SECOND);
        assert_eq!(
            questions(&plane.take("right")).len(),
            1,
            "a packet went there since it was known"
        );
        plane.exchange("right", &[told(right)], ["right"]);
        plane.advance(100 * SECOND);
        assert_eq!(plane.take("right"), Vec::<Vec<u8>>::new(), "nothing went there");
        assert_eq!(across(&mut plane, &packet)[0].to, RIGHT);
        plane.advance(5 * SECOND);
        assert_eq!(
            questions(&plane.take("right")).first().map(|asked| asked.2),
            Some(RIGHT)
        );
        plane.exchange("right", &[told(right)], ["right"]);
        plane.advance(400 * SECOND);
        assert!(plane.views().neighbors().is_empty());
        assert_eq!(questions(&plane.take("right")), []);
    }
}

#[test]
fn who_announces_that_he_moved_is_followed_if_he_is_known() {
    let moved: Mac = [2, 0, 0, 0, 0, 0x77];
    let announce = |right: IpAddr| match right {
        IpAddr::V4(right) => [1, 2]
            .map(|operation| arp(BROADCAST, operation, (moved, right), ([0; 6], right)))
            .to_vec(),
        IpAddr::V6(about) => {
            let all = ([0x33, 0x33, 0, 0, 0, 1], address("ff02::1"));
            vec![advertisement(all, (moved, right), about)]
        }
    };
    for (left, right) in pairs() {
        for announcement in announce(right) {
            let mut plane = strangers();
            plane.exchange("right", std::slice::from_ref(&announcement), ["right"]);
            assert!(plane.views().neighbors().is_empty(), "nobody knew him");
            let packet = udp((left, 1), (right, 2), 64, b"");
            across(&mut plane, &packet);
            plane.exchange("right", &[told(right)], ["right"]);
            assert_eq!(across(&mut plane, &packet)[0].to, RIGHT);
            plane.exchange("right", &[announcement], ["right"]);
            assert_eq!(across(&mut plane, &packet)[0].to, moved);
        }
    }
}

/// Left and right with room for 64 Ki hosts each, and a third port.
fn wide() -> Plane {
    let left = port("left", "10.1.0.1/16, \"fd00:1::1/64\"", "") + &port("right", "10.2.0.1/16, \"fd00:2::1/64\"", "");
    let known = neighbor("left4", "left", "10.1.0.2", LEFT) + &neighbor("left6", "left", "fd00:1::2", LEFT);
    Plane::new(&(left + &port("third", "10.3.0.1/24", "") + &known)).unwrap()
}

/// One of the 64 Ki hosts on the right, of the family of `like`.
fn on_the_right(like: IpAddr, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match like {
        IpAddr::V4(_) => [10, 2, high, low].into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, number).into(),
    }
}

/// Asks for our address on the right.
fn asks_for_us(host: IpAddr, mac: Mac) -> Vec<u8> {
    match host {
        IpAddr::V4(host) => arp(BROADCAST, 1, (mac, host), ([0; 6], v4("10.2.0.1"))),
        IpAddr::V6(host) => solicitation((mac, host), v6("fd00:2::1")),
    }
}

/// Who is behind `third` is found out while `flood` goes on, and traffic to who is known passes.
fn others_go_on(plane: &mut Plane) {
    let third = Ipv4Addr::new(10, 3, 0, 2);
    let packet = frame(
        LEFT_PORT,
        LEFT,
        &udp((address("10.1.0.2"), 1), (third.into(), 2), 64, b""),
    );
    let [asked] = plane.exchange("left", std::slice::from_ref(&packet), ["third"]);
    assert_eq!(questions(&asked).len(), 1);
    let told = arp(port_mac(3), 2, (RIGHT, third), (port_mac(3), v4("10.3.0.1")));
    let [came] = plane.exchange("third", &[told], ["third"]);
    assert_eq!(came.len(), 1);
    assert_eq!(plane.exchange("left", &[packet], ["third"])[0].len(), 1);
}

#[test]
fn a_scan_of_64_ki_addresses_leaves_other_neighbours_be() {
    for (from, _) in pairs() {
        let mut plane = wide();
        for number in 0..=u16::MAX {
            let to = on_the_right(from, number);
            plane.send("left", &frame(LEFT_PORT, LEFT, &udp((from, 1), (to, 2), 64, b"")));
            if number % 4096 == 4095 {
                plane.settle();
                plane.take("right");
            }
        }
        let incomplete = plane.views().neighbors().len();
        assert!((1000..=1024 + 2).contains(&incomplete), "{incomplete} neighbours");
        // The waiting room is full of who will never get anywhere; as they fail there is room again.
        plane.advance(5 * SECOND);
        others_go_on(&mut plane);
        plane.advance(10 * SECOND);
        assert_eq!(plane.views().neighbors().len(), 3);
    }
}

#[test]
fn a_flood_of_64_ki_askers_leaves_other_neighbours_be() {
    for (left, _) in pairs() {
        let mut plane = wide();
        for number in 2..=u16::MAX {
            let [high, low] = number.to_be_bytes();
            plane.send(
                "right",
                &asks_for_us(on_the_right(left, number), [2, 9, 9, 9, high, low]),
            );
            if number % 4096 == 4095 {
                plane.settle();
                plane.take("right");
            }
        }
        plane.settle();
        let known = plane.views().neighbors().len();
        assert!((4000..=4096 + 2).contains(&known), "{known} neighbours");
        others_go_on(&mut plane);
        // Nothing was sent to them: none is asked, and all are forgotten.
        plane.take("right");
        plane.advance(60 * SECOND);
        assert_eq!(questions(&plane.take("right")), []);
        plane.advance(400 * SECOND);
        assert_eq!(plane.views().neighbors().len(), 2);
    }
}
