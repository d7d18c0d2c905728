//! Bad packets, and the name each is dropped by.

use testbed::packets::*;

use crate::{HOST, OURS, a};

const BROADCAST: Mac = [0xff; 6];

/// A right packet of IPv4 and one of IPv6, each across the plane.
pub(crate) fn v4() -> Vec<u8> {
    udp((a("10.1.0.2"), 1000), (a("10.2.0.2"), 2000), 64, b"0123456789abcdef")
}

pub(crate) fn v6() -> Vec<u8> {
    udp((a("fd00:1::2"), 1000), (a("fd00:2::2"), 2000), 64, b"0123456789abcdef")
}

/// An IPv6 packet with this next header and what follows.
pub(crate) fn chain(next: u8, rest: &[u8]) -> Vec<u8> {
    ip(a("fd00:1::2"), a("fd00:2::2"), next, 64, rest)
}

/// `packet` with some bytes set, in a frame to us; `fix` sets the IPv4 header checksum afterwards.
fn patched(mut packet: Vec<u8>, at: usize, bytes: &[u8], fix: bool) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    if fix {
        fix_v4(&mut packet);
    }
    framed(&packet)
}

pub(crate) fn framed(packet: &[u8]) -> Vec<u8> {
    frame(OURS, HOST, packet)
}

/// What it is, how it is dropped, and the bytes.
pub(crate) type Case = (&'static str, &'static str, Vec<u8>);

fn from_to(from: &str, to: &str) -> Vec<u8> {
    framed(&udp((a(from), 1), (a(to), 2), 64, b"x"))
}

fn v4_options(options: &[u8]) -> Vec<u8> {
    framed(&with_options(&v4(), options))
}

fn piece(payload: &[u8], flags: u16, offset: u16) -> Vec<u8> {
    framed(&with_fragment(
        ip(a("10.1.0.2"), a("10.2.0.2"), 17, 64, payload),
        flags,
        offset,
    ))
}

fn short(protocol: u8, length: usize) -> Vec<u8> {
    framed(&ip(a("10.1.0.2"), a("10.2.0.2"), protocol, 64, &vec![0; length]))
}

/// An IPv6 packet in a frame, as [`chain`].
fn bad(next: u8, rest: &[u8]) -> Vec<u8> {
    framed(&chain(next, rest))
}

/// Eight bytes of options that say what comes next.
pub(crate) fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

fn link() -> Vec<Case> {
    vec![
        ("nothing at all", "parse/runt", vec![]),
        ("one byte", "parse/runt", vec![2]),
        ("half an Ethernet header", "parse/runt", framed(&v4())[..13].to_vec()),
        (
            "somebody else's link address",
            "parse/not-our-mac",
            frame([2, 0, 0, 0, 0, 0xff], HOST, &v4()),
        ),
        (
            "no known type",
            "parse/unknown-ether-type",
            ethernet(OURS, HOST, 0x88cc, &[0; 46]),
        ),
        (
            "an IEEE 802.3 length",
            "parse/unknown-ether-type",
            ethernet(OURS, HOST, 46, &[0; 46]),
        ),
        (
            "one host's address in a broadcast frame",
            "parse/link-broadcast",
            frame(BROADCAST, HOST, &v4()),
        ),
        ("a VLAN of nobody", "parse/vlan-unknown", tagged(&framed(&v4()))),
        ("two VLANs", "parse/vlan-stack", tagged(&tagged(&framed(&v4())))),
    ]
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

fn ipv4_header() -> Vec<Case> {
    vec![
        (
            "no IPv4 header",
            "parse/ip-truncated",
            ethernet(OURS, HOST, 0x0800, &[]),
        ),
        (
            "19 bytes of IPv4",
            "parse/ip-truncated",
            ethernet(OURS, HOST, 0x0800, &v4()[..19]),
        ),
        ("cut in its payload", "parse/ip-truncated", framed(&v4()[..40])),
        (
            "a total length beyond the frame",
            "parse/ip-truncated",
            patched(v4(), 2, &[0xff, 0xff], true),
        ),
        (
            "a total length below the header",
            "parse/ipv4-header-length",
            patched(v4(), 2, &[0, 19], true),
        ),
        (
            "a total length of nothing",
            "parse/ipv4-header-length",
            patched(v4(), 2, &[0, 0], true),
        ),
        (
            "version 6 said to be 4",
            "parse/ip-version",
            ethernet(OURS, HOST, 0x0800, &v6()),
        ),
        ("version 0", "parse/ip-version", ethernet(OURS, HOST, 0x0800, &[0; 40])),
        (
            "a header of 16 bytes",
            "parse/ipv4-header-length",
            patched(v4(), 0, &[0x44], false),
        ),
        (
            "a header beyond the packet",
            "parse/ipv4-header-length",
            patched(v4(), 0, &[0x4f], false),
        ),
        (
            "a wrong checksum",
            "parse/ipv4-checksum",
            patched(v4(), 10, &[1, 2], false),
        ),
        (
            "one bit of the source flipped",
            "parse/ipv4-checksum",
            patched(v4(), 12, &[11], false),
        ),
    ]
}

fn ipv4_options_and_fragments() -> Vec<Case> {
    vec![
        (
            "an option beyond the header",
            "parse/ipv4-options",
            v4_options(&[7, 40, 4]),
        ),
        (
            "an option of length 0",
            "parse/ipv4-options",
            v4_options(&[68, 0, 5, 0]),
        ),
        (
            "an option of length 1",
            "parse/ipv4-options",
            v4_options(&[148, 1, 0, 0]),
        ),
        (
            "an option without a length",
            "parse/ipv4-options",
            v4_options(&[1, 1, 1, 7]),
        ),
        (
            "loose source route",
            "parse/source-route",
            v4_options(&[131, 7, 4, 10, 2, 0, 2]),
        ),
        (
            "strict source route",
            "parse/source-route",
            v4_options(&[137, 7, 4, 10, 2, 0, 2]),
        ),
        ("an empty fragment", "parse/bad-fragment", piece(&[], 0x2000, 800)),
        (
            "a middle fragment of odd length",
            "parse/bad-fragment",
            piece(&[0; 17], 0x2000, 800),
        ),
        (
            "a fragment past 65,535",
            "parse/bad-fragment",
            piece(&[0; 64], 0, 65_528),
        ),
        (
            "a second fragment within the UDP header",
            "parse/bad-fragment",
            piece(&[0; 3], 0x2000, 0),
        ),
    ]
}

fn ipv4_addresses() -> Vec<Case> {
    vec![
        (
            "from loopback",
            "parse/martian-source",
            from_to("127.0.0.1", "10.2.0.2"),
        ),
        ("from nobody", "parse/martian-source", from_to("0.0.0.0", "10.2.0.2")),
        ("from a group", "parse/martian-source", from_to("224.0.0.1", "10.2.0.2")),
        (
            "from all",
            "parse/martian-source",
            from_to("255.255.255.255", "10.2.0.2"),
        ),
        ("from class E", "parse/martian-source", from_to("250.1.1.1", "10.2.0.2")),
        (
            "to loopback",
            "parse/martian-destination",
            from_to("10.1.0.2", "127.0.0.1"),
        ),
        ("to nobody", "parse/martian-destination", from_to("10.1.0.2", "0.0.0.0")),
        (
            "to class E",
            "parse/martian-destination",
            from_to("10.1.0.2", "250.1.1.1"),
        ),
        ("to a group", "parse/multicast", from_to("10.1.0.2", "239.1.1.1")),
        ("to all", "parse/multicast", from_to("10.1.0.2", "255.255.255.255")),
        ("7 bytes of UDP", "parse/transport-truncated", short(17, 7)),
        ("19 bytes of TCP", "parse/transport-truncated", short(6, 19)),
        ("11 bytes of SCTP", "parse/transport-truncated", short(132, 11)),
        ("7 bytes of ICMP", "parse/transport-truncated", short(1, 7)),
        ("nothing of UDP", "parse/transport-truncated", short(17, 0)),
    ]
}

fn ipv6_header() -> Vec<Case> {
    vec![
        (
            "no IPv6 header",
            "parse/ip-truncated",
            ethernet(OURS, HOST, 0x86dd, &[]),
        ),
        (
            "39 bytes of IPv6",
            "parse/ip-truncated",
            ethernet(OURS, HOST, 0x86dd, &v6()[..39]),
        ),
        (
            "a payload length beyond the frame",
            "parse/ip-truncated",
            patched(v6(), 4, &[0xff, 0xff], false),
        ),
        (
            "version 4 said to be 6",
            "parse/ip-version",
            ethernet(OURS, HOST, 0x86dd, &[&v4()[..], &[0; 20]].concat()),
        ),
    ]
}

fn ipv6_addresses() -> Vec<Case> {
    vec![
        ("from a group", "parse/martian-source", from_to("ff02::1", "fd00:2::2")),
        ("from loopback", "parse/martian-source", from_to("::1", "fd00:2::2")),
        ("from nobody", "parse/martian-source", from_to("::", "fd00:2::2")),
        (
            "from a mapped address",
            "parse/martian-source",
            from_to("::ffff:10.1.0.2", "fd00:2::2"),
        ),
        ("to loopback", "parse/martian-destination", from_to("fd00:1::2", "::1")),
        ("to nobody", "parse/martian-destination", from_to("fd00:1::2", "::")),
        (
            "to a mapped address",
            "parse/martian-destination",
            from_to("fd00:1::2", "::ffff:10.2.0.2"),
        ),
        ("to a group", "parse/multicast", from_to("fd00:1::2", "ff05::1")),
    ]
}

fn ipv6_chains() -> Vec<Case> {
    vec![
        (
            "hop-by-hop options twice",
            "parse/extension-chain",
            bad(0, &[options(0), options(59)].concat()),
        ),
        (
            "hop-by-hop options in the middle",
            "parse/extension-chain",
            bad(60, &[options(0), options(59)].concat()),
        ),
        (
            "twenty headers",
            "parse/extension-chain",
            bad(60, &[options(60); 20].concat()),
        ),
        (
            "300 bytes of headers",
            "parse/extension-chain",
            bad(60, &[&[59, 37][..], &[0; 302]].concat()),
        ),
        (
            "half an extension header",
            "parse/extension-truncated",
            bad(60, &[59, 0, 1]),
        ),
        (
            "an extension header beyond the packet",
            "parse/extension-truncated",
            bad(60, &[59, 9, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "an authentication header beyond the packet",
            "parse/extension-truncated",
            bad(51, &[59, 9, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "a routing header of type 0",
            "parse/source-route",
            bad(43, &[59, 0, 0, 1, 0, 0, 0, 0]),
        ),
    ]
}

fn ipv6_fragments() -> Vec<Case> {
    vec![
        (
            "an empty fragment",
            "parse/bad-fragment",
            bad(44, &[17, 0, 0, 9, 0, 0, 0, 1]),
        ),
        (
            "a middle fragment of odd length",
            "parse/bad-fragment",
            bad(44, &[17, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3]),
        ),
        (
            "a fragment past 65,535",
            "parse/bad-fragment",
            bad(44, &[&[17, 0, 0xff, 0xf8, 0, 0, 0, 1][..], &[0; 16]].concat()),
        ),
        ("7 bytes of UDP", "parse/transport-truncated", bad(17, &[0; 7])),
        (
            "5 bytes of ICMPv6 behind options",
            "parse/transport-truncated",
            bad(60, &[&options(58)[..], &[0; 5]].concat()),
        ),
    ]
}

fn resolution() -> Vec<Case> {
    let asker = (HOST, "10.1.0.2".parse().unwrap());
    let us = ([0; 6], "10.1.0.1".parse().unwrap());
    let request = arp(BROADCAST, 1, asker, us);
    let spoiled = |at: usize, byte: u8| {
        let mut request = request.clone();
        request[at] = byte;
        request
    };
    vec![
        ("half an ARP message", "arp/arp-malformed", request[..30].to_vec()),
        ("ARP about another medium", "arp/arp-malformed", spoiled(15, 6)),
        ("ARP about another protocol", "arp/arp-malformed", spoiled(16, 9)),
        ("ARP of another address length", "arp/arp-malformed", spoiled(18, 8)),
        ("ARP from a group's link address", "arp/arp-malformed", spoiled(22, 3)),
        ("ARP for somebody else", "arp/arp-not-for-us", spoiled(41, 99)),
        ("ARP from our own address", "arp/arp-conflict", spoiled(31, 1)),
    ]
}

fn discovery() -> Vec<Case> {
    let host = a("fd00:1::2");
    let ask = |rest: &[u8], kind, code| framed(&icmp(host, a("fd00:1::1"), 255, (kind, code), 0, rest));
    let about = "fd00:1::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let with = |option: &[u8]| [&about, option].concat();
    let mut wrong_sum = solicitation((HOST, "fd00:1::2".parse().unwrap()), about.into());
    *wrong_sum.last_mut().unwrap() ^= 1;
    vec![
        (
            "a solicitation without its target",
            "ndp/ndp-malformed",
            ask(&[1; 8], 135, 0),
        ),
        ("a solicitation of code 1", "ndp/ndp-malformed", ask(&with(&[]), 135, 1)),
        ("a solicitation with a wrong checksum", "ndp/ndp-malformed", wrong_sum),
        (
            "an advertisement without a link address",
            "ndp/ndp-malformed",
            ask(&about, 136, 0),
        ),
        (
            "a solicitation for somebody else",
            "ndp/ndp-not-for-us",
            ask(&[9; 16], 135, 0),
        ),
        (
            "an advertisement of our own address",
            "ndp/ndp-conflict",
            ask(&with(&[2, 1, 2, 0, 0, 0, 0, 9]), 136, 0),
        ),
        (
            "a solicitation from a group's link address",
            "ndp/ndp-conflict",
            ask(&with(&[1, 1, 3, 0, 0, 0, 0, 9]), 135, 0),
        ),
        ("a router advertisement", "ndp/ndp-ignored", ask(&[0; 16], 134, 0)),
        ("a redirect", "ndp/ndp-ignored", ask(&[0; 40], 137, 0)),
    ]
}

fn to_us() -> Vec<Case> {
    let host = a("fd00:1::2");
    let mut echo_sum = echo(a("10.1.0.2"), a("10.1.0.1"), 1, b"x");
    *echo_sum.last_mut().unwrap() ^= 1;
    let piece = with_fragment(ip(a("10.1.0.2"), a("10.1.0.1"), 17, 64, &[0; 64]), 0x2000, 0);
    vec![
        (
            "an echo request with a wrong checksum",
            "local/icmp-checksum",
            framed(&echo_sum),
        ),
        (
            "a timestamp request",
            "local/icmp-ignored",
            framed(&icmp(a("10.1.0.2"), a("10.1.0.1"), 64, (13, 0), 0, &[0; 12])),
        ),
        (
            "an echo reply nobody asked for",
            "local/icmp-ignored",
            framed(&icmp(host, a("fd00:1::1"), 64, (129, 0), 0, &[])),
        ),
        (
            "a solicitation from beyond the link",
            "local/icmp-ignored",
            framed(&icmp(host, a("fd00:1::1"), 64, (135, 0), 0, &[0; 16])),
        ),
        ("a fragment for us", "local/fragment-for-us", framed(&piece)),
        (
            "an error about an error",
            "icmp-error/icmp-not-allowed",
            framed(&icmp(a("10.1.0.2"), a("10.2.0.2"), 1, (3, 1), 0, &[0; 28])),
        ),
        (
            "to a hole",
            "route/drop-route",
            framed(&udp((a("10.1.0.2"), 1), (a("20.0.0.1"), 2), 64, b"")),
        ),
        (
            "to all of a subnet",
            "route/directed-broadcast",
            framed(&udp((a("10.1.0.2"), 1), (a("10.2.0.255"), 2), 64, b"")),
        ),
        (
            "from a link-local address",
            "route/link-local",
            framed(&udp((link_local(HOST), 1), (a("fd00:2::2"), 2), 64, b"")),
        ),
        (
            "refused from us to us",
            "parse/own-source",
            framed(&udp((a("10.1.0.1"), 1), (a("10.1.0.1"), 2), 64, b"")),
        ),
        (
            "echo to a sender without a way back",
            "route/own/own-no-route",
            framed(&echo(a("77.1.1.1"), a("10.1.0.1"), 1, b"")),
        ),
    ]
}

/// All bad packets.
pub(crate) fn cases() -> Vec<Case> {
    let ipv4 = [ipv4_header(), ipv4_options_and_fragments(), ipv4_addresses()];
    let ipv6 = [ipv6_header(), ipv6_addresses(), ipv6_chains(), ipv6_fragments()];
    [
        vec![link()],
        ipv4.to_vec(),
        ipv6.to_vec(),
        vec![resolution(), discovery(), to_us()],
    ]
    .concat()
    .concat()
}
