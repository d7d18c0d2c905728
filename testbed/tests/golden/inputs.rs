//! What comes in, by folder and port.

use std::net::{IpAddr, Ipv4Addr};

use testbed::packets::*;

const LEFT: Mac = [2, 0, 0, 0, 0, 0xa];
const RIGHT: Mac = [2, 0, 0, 0, 0, 0xb];

type Inputs = (&'static str, Vec<(&'static str, Vec<Vec<u8>>)>);

/// The folders whose input is made here.
pub(crate) fn all() -> Vec<Inputs> {
    vec![
        ("forward", vec![("left", forward()), ("right", back())]),
        ("traceroute", vec![("left", traceroute())]),
        ("too-big", vec![("left", too_big())]),
        ("echo", vec![("left", pings())]),
        ("headers", vec![("left", headers())]),
        ("neighbours", vec![("left", neighbours())]),
    ]
}

fn a(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A host on the left, one on the right, our address on the left and on the right; of each family.
fn families() -> [[IpAddr; 4]; 2] {
    [
        ["10.1.0.2", "10.2.0.2", "10.1.0.1", "10.2.0.1"].map(a),
        ["fd00:1::2", "fd00:2::2", "fd00:1::1", "fd00:2::1"].map(a),
    ]
}

fn left(packet: &[u8]) -> Vec<u8> {
    frame(port_mac(1), LEFT, packet)
}

fn forward() -> Vec<Vec<u8>> {
    let all = families().map(|[from, to, ..]| {
        [
            left(&udp((from, 1000), (to, 2000), 64, b"")),
            left(&udp((from, 1001), (to, 2000), 255, &[0x5a; 512])),
            left(&tcp((from, 1002), (to, 80), 64)),
            left(&echo(from, to, 1, b"through")),
        ]
    });
    all.concat()
}

fn back() -> Vec<Vec<u8>> {
    families()
        .map(|[to, from, ..]| frame(port_mac(2), RIGHT, &udp((from, 2000), (to, 1000), 2, b"back")))
        .to_vec()
}

fn traceroute() -> Vec<Vec<u8>> {
    let all = families().map(|[from, to, ..]| {
        [1, 2, 3].map(|hops| left(&udp((from, 40_000), (to, 33_433 + u16::from(hops)), hops, b"SUPERMAN")))
    });
    all.concat()
}

fn too_big() -> Vec<Vec<u8>> {
    let [v4, v6] = families().map(|[from, to, ..]| udp((from, 1000), (to, 2000), 64, &[0x42; 1400]));
    let whole = with_fragment(v4.clone(), 0x4000, 0);
    [v4, whole, v6].map(|packet| left(&packet)).to_vec()
}

fn pings() -> Vec<Vec<u8>> {
    let mut frames = families()
        .map(|[from, _, near, far]| [near, far].map(|to| left(&echo(from, to, 7, b"are you there?"))))
        .concat();
    frames.push(left(&echo(
        link_local(LEFT),
        link_local(port_mac(1)),
        8,
        b"and on the link?",
    )));
    let [[v4, _, near4, _], [v6, _, near6, _]] = families();
    frames.extend(
        [
            udp((v4, 1), (near4, 7), 64, b"closed"),
            udp((v6, 1), (near6, 7), 64, b"closed"),
        ]
        .map(|packet| left(&packet)),
    );
    frames
}

fn headers() -> Vec<Vec<u8>> {
    let [[from4, to4, ..], [from6, to6, ..]] = families();
    let plain = udp((from4, 1000), (to4, 2000), 64, &[1; 32]);
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let datagram = udp_datagram((from6, 1000), (to6, 2000), b"behind");
    let routing = [&[44, 1, 4, 0], [0; 12].as_slice()].concat();
    let chain = [
        &options(60),
        options(43).as_slice(),
        &routing,
        &[17, 0, 0, 0, 0, 0, 0, 9],
        &datagram,
    ]
    .concat();
    [
        with_options(&plain, &[148, 4, 0, 0]),
        with_options(&plain, &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        with_options(&plain, &[131, 7, 4, 10, 2, 0, 2]),
        with_fragment(ip(from4, to4, 17, 64, &plain[20..44]), 0x2000, 0),
        with_fragment(ip(from4, to4, 17, 64, &plain[44..]), 0, 24),
        ip(from6, to6, 0, 64, &chain),
        ip(
            from6,
            to6,
            44,
            64,
            &[&[17, 0, 0, 1, 0, 0, 0, 9], &datagram[..8]].concat(),
        ),
        ip(
            from6,
            to6,
            44,
            64,
            &[&[17, 0, 0, 8, 0, 0, 0, 9], &datagram[8..]].concat(),
        ),
    ]
    .map(|packet| left(&packet))
    .to_vec()
}

/// Who asks is answered and known; a packet to nobody is asked for three times, and its sender told.
fn neighbours() -> Vec<Vec<u8>> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let us = ([0; 6], v4("10.1.0.1"));
    let [[from4, to4, ..], [from6, to6, ..]] = families();
    vec![
        arp([0xff; 6], 1, (LEFT, v4("10.1.0.2")), us),
        arp([0xff; 6], 1, (LEFT, v4("0.0.0.0")), us),
        arp([0xff; 6], 1, (LEFT, v4("10.1.0.2")), ([0; 6], v4("10.1.0.99"))),
        solicitation((LEFT, "fd00:1::2".parse().unwrap()), "fd00:1::1".parse().unwrap()),
        solicitation((LEFT, "::".parse().unwrap()), "fd00:1::1".parse().unwrap()),
        left(&udp((from4, 1000), (to4, 2000), 64, b"nobody")),
        left(&udp((from6, 1000), (to6, 2000), 64, b"nobody")),
    ]
}
