//! Options, extension headers and fragments on their way through, and the transport header found behind them.

use testbed::packets::*;

use crate::*;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// An extension header that says what comes next.
fn extension(kind: u8, next: u8) -> Vec<u8> {
    match kind {
        // An atomic fragment: all of the packet (RFC 6946).
        FRAGMENT => vec![next, 0, 0, 0, 0, 0, 0, 9],
        // Type 4, no segments left; sixteen bytes.
        ROUTING => [&[next, 1, 4, 0], [0; 12].as_slice()].concat(),
        AUTHENTICATION => [&[next, 4], [7; 22].as_slice()].concat(),
        // A padding option that fills the rest.
        _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
    }
}

/// An IPv6 packet with these extension headers before a UDP datagram.
fn chain(kinds: &[u8], ports: (u16, u16)) -> Vec<u8> {
    let (left, right) = pairs()[1];
    let following = kinds.iter().skip(1).copied().chain([17]);
    let mut payload: Vec<u8> = kinds
        .iter()
        .zip(following)
        .flat_map(|(kind, next)| extension(*kind, next))
        .collect();
    payload.extend(udp_datagram((left, ports.0), (right, ports.1), b"behind"));
    ip(left, right, kinds.first().copied().unwrap_or(17), 64, &payload)
}

/// Every subset of the recommended order of RFC 8200 section 4.1, and every order of three, for any order has to be
/// taken but for hop-by-hop options, which come first.
fn orders() -> Vec<Vec<u8>> {
    let recommended = [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION];
    let chosen = |bits: u32| {
        (0..6)
            .filter(move |at| bits >> at & 1 == 1)
            .map(|at| recommended[at as usize])
            .collect()
    };
    let mut orders: Vec<Vec<u8>> = (0..64).map(chosen).collect();
    let any = [DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION];
    for first in any {
        for second in any {
            for third in any {
                orders.push(vec![first, second, third]);
                orders.push(vec![HOP_BY_HOP, first, second, third]);
            }
        }
    }
    orders
}

#[test]
fn extension_headers_in_any_order_are_forwarded_and_the_transport_header_is_found() {
    let mut plane = plane();
    for (number, kinds) in orders().into_iter().enumerate() {
        let ports = (1000 + number as u16, 3000 + number as u16);
        let packet = chain(&kinds, ports);
        plane.views().trace_add(1, "").unwrap();
        let came = across(&mut plane, &packet);
        assert_eq!(came.len(), 1, "{kinds:?}: {:?}", plane.drops());
        let expected = [&packet[..7], &[63], &packet[8..]].concat();
        assert_eq!(came[0].packet, expected, "{kinds:?}");
        let story = plane.views().trace_show();
        let parse = story
            .iter()
            .flat_map(|packet| &packet.steps)
            .find(|step| step.node == "parse");
        let found = &parse.expect("the trace has `parse`").detail;
        let expected = format!("protocol 17, ports {} > {}", ports.0, ports.1);
        assert!(found.contains(&expected), "{kinds:?}: {found}");
        plane.views().trace_clear();
    }
}

#[test]
fn ipv4_options_are_forwarded_and_the_transport_header_is_found() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let plain = udp((left, 1000), (right, 2000), 64, b"behind");
    let sets: [&[u8]; 6] = [
        &[1],
        &[0, 9, 9, 9],
        &[148, 4, 0, 0],
        &[7, 7, 4, 0, 0, 0, 0],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1; 40],
    ];
    for options in sets {
        let packet = with_options(&plain, options);
        plane.views().trace_add(1, "udp").unwrap();
        let came = across(&mut plane, &packet);
        let mut expected = packet.clone();
        expected[8] = 63;
        fix_v4(&mut expected);
        assert_eq!(came[0].packet, expected, "{options:?}");
        let story = plane.views().trace_show();
        let found = &story[0].steps.iter().find(|step| step.node == "parse").unwrap().detail;
        assert!(found.contains("ports 1000 > 2000"), "{options:?}: {found}");
        plane.views().trace_clear();
    }
}

#[test]
fn fragments_are_forwarded_untouched() {
    let mut plane = plane();
    let (left, right) = pairs()[0];
    let whole = udp((left, 1000), (right, 2000), 64, &[3; 1000])[20..].to_vec();
    for (from, to, flags) in [(0, 504, 0x2000), (504, 1000, 0x2000), (1000, 1008, 0)] {
        let packet = with_fragment(ip(left, right, 17, 64, &whole[from..to]), flags, from as u16);
        let mut expected = packet.clone();
        expected[8] = 63;
        fix_v4(&mut expected);
        assert_eq!(across(&mut plane, &packet)[0].packet, expected);
    }
    let (left, right) = pairs()[1];
    for (from, to, more) in [(0, 504, 1), (504, 1000, 1), (1000, 1008, 0)] {
        let fields = (from as u16 | more).to_be_bytes();
        let head = [17, 0, fields[0], fields[1], 0, 0, 0, 9];
        let packet = ip(left, right, FRAGMENT, 64, &[&head, &whole[from..to]].concat());
        let expected = [&packet[..7], &[63], &packet[8..]].concat();
        assert_eq!(across(&mut plane, &packet)[0].packet, expected);
    }
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn fragments_to_us_are_dropped_by_name() {
    let mut plane = plane();
    for (left, _) in pairs() {
        let request = echo(left, own(left).0, 1, &[0; 100]);
        let packets = match left.is_ipv4() {
            true => [(0x2000, 0), (0x2000, 104)]
                .map(|(flags, offset)| with_fragment(ip(left, own(left).0, 1, 64, &request[20..124]), flags, offset)),
            false => [1u16, 105].map(|fields| {
                let head = [58, 0, (fields >> 8) as u8, fields as u8, 0, 0, 0, 9];
                ip(left, own(left).0, FRAGMENT, 64, &[&head, &request[40..144]].concat())
            }),
        };
        packets
            .iter()
            .for_each(|packet| assert!(answers(&mut plane, packet).is_empty()));
    }
    assert_eq!(plane.drops(), [("local/fragment-for-us".to_owned(), 4)].into());
}

#[test]
fn any_transport_protocol_is_forwarded() {
    let mut plane = plane();
    for (left, right) in pairs() {
        // Those that an extension header or a known transport header stands for are tested elsewhere.
        let known = [0, 1, 6, 17, 43, 44, 51, 58, 60, 132, 136];
        for protocol in (0..=255u8).filter(|protocol| !known.contains(protocol)) {
            let came = across(&mut plane, &ip(left, right, protocol, 64, b"1234"));
            assert_eq!(came.len(), 1, "protocol {protocol}: {:?}", plane.drops());
            assert_eq!(came[0].protocol, protocol);
        }
    }
}
