//! Random bytes and changed packets, millions of them: nothing stops, leaks or grows, and each is accounted for.

use std::time::Duration;

use testbed::packets::*;

use crate::table::{cases, chain, framed, options, v4, v6};
use crate::{HOST, OURS, a, plane};

/// A small generator of numbers (xorshift): the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// What mutations start from: good packets of every kind, and the bad ones.
fn seeds() -> Vec<Vec<u8>> {
    let (host4, host6) = (a("10.1.0.2"), a("fd00:1::2"));
    let mut seeds: Vec<Vec<u8>> = cases().into_iter().map(|case| case.2).collect();
    let packets = [
        v4(),
        v6(),
        tcp((host4, 1), (a("10.2.0.2"), 80), 64),
        tcp((host6, 1), (a("fd00:2::2"), 80), 1),
        echo(host4, a("10.1.0.1"), 1, b"ping"),
        echo(host6, a("fd00:2::1"), 1, b"ping"),
        udp((host4, 1), (a("10.2.0.2"), 2), 64, &[1; 1450]),
        udp((host6, 1), (a("fd00:2::2"), 2), 64, &[1; 1400]),
        udp((host4, 1), (a("10.2.0.77"), 2), 64, b"held"),
        udp((host6, 1), (a("2001:db8::7"), 2), 64, b"ecmp"),
        udp((host4, 1), (a("10.1.0.1"), 2), 64, b"closed"),
        with_options(&v4(), &[148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0]),
        with_fragment(v4(), 0x2000, 64),
        chain(
            0,
            &[&options(60)[..], &options(43), &options(44), &options(17), &[0; 24]].concat(),
        ),
    ];
    seeds.extend(packets.iter().map(|packet| framed(packet)));
    seeds.push(advertisement(
        (OURS, link_local(OURS)),
        (HOST, host6),
        "fd00:1::2".parse().unwrap(),
    ));
    seeds
}

/// One to four changes: flipped bits, interesting bytes, cuts, growth, parts of another packet; half of the IPv4 packets
/// get a right header checksum again.
fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.truncate(at),
            3 => bytes.extend((0..random.below(64)).map(|byte| byte as u8)),
            4 => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend(&other[random.below(other.len())..]);
            }
            _ if bytes.len() > 54 => bytes[14 + random.below(40)] = random.next() as u8,
            _ => {}
        }
    }
    let has_header = bytes.len() >= 34 && bytes[12..14] == [8, 0];
    if has_header && random.below(2) == 0 && bytes.len() - 14 >= usize::from(bytes[14] & 15) * 4 && bytes[14] & 15 >= 3
    {
        fix_v4(&mut bytes[14..]);
    }
    bytes
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends `rounds` times 256 packets, and checks that all are accounted for. The plane itself checks, when it goes, that
/// every stage passed on what it got and that every frame is back.
fn storm(seed: u64, rounds: u64, mut make: impl FnMut(&mut Random) -> Vec<u8>) {
    let (mut plane, mut random) = (plane(), Random(seed));
    let (mut sent, mut came, mut settled_kib) = (0, 0, 0);
    for round in 0..rounds {
        for _ in 0..256 {
            let port = if random.below(8) == 0 { "right" } else { "left" };
            plane.send(port, &make(&mut random));
            sent += 1;
        }
        plane.set_time(Duration::from_millis(10 * round));
        plane.settle();
        came += plane.take("left").len() + plane.take("right").len();
        if round == rounds / 4 {
            settled_kib = resident_kib();
        }
    }
    // Held packets get their answer in time: their neighbours fail.
    plane.advance(Duration::from_secs(10));
    came += plane.take("left").len() + plane.take("right").len();
    let ports = plane.views().ports();
    let sums = |of: fn(&control::show::ports::PortView) -> u64| ports.iter().map(of).sum::<u64>();
    let (received, transmitted) = (sums(|port| port.rx_packets), sums(|port| port.tx_packets));
    // What is larger than a frame is lost on the cable.
    assert!(received <= sent && received >= sent * 9 / 10, "{received} of {sent}");
    assert_eq!(received, plane.packets("port-in"));
    assert_eq!(transmitted, came as u64);
    assert_eq!(transmitted, plane.packets("port-out"), "{:?}", plane.drops());
    // In = out + dropped + consumed; `hold` and `fragment` bring back what they take, or more pieces of it.
    let came_in = ["port-in", "inject", "handoff", "released", "fragments"].map(|name| plane.packets(name));
    let gone = ["port-out", "consumed", "hold", "fragment"].map(|name| plane.packets(name));
    let ends = ["no-route", "closed", "hop-limit-expired", "too-big", "host-unreachable"];
    let sinks = ["hold/", "fragment/", "port-out/"];
    let dropped: u64 = plane
        .drops()
        .iter()
        .filter(|(name, _)| {
            !ends
                .iter()
                .any(|end| name.ends_with(&format!("/{end}")) && !name.contains("own-"))
        })
        .filter(|(name, _)| !sinks.iter().any(|sink| name.starts_with(sink)))
        .map(|(_, packets)| packets)
        .sum();
    assert_eq!(came_in.iter().sum::<u64>(), gone.iter().sum::<u64>() + dropped);
    let grown = resident_kib().saturating_sub(settled_kib);
    assert!(grown < 64 << 10, "memory grew by {grown} KiB");
}

#[test]
fn random_bytes_do_no_harm() {
    storm(0x9e37_79b9_7f4a_7c15, 4000, |random| {
        let length = random.below(120);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        // Most would end as somebody else's: let them in.
        if random.below(8) != 0 && length >= 15 {
            bytes[..6].copy_from_slice(&OURS);
            let kinds = [(8, 0, 0x45), (0x86, 0xdd, 0x60), (8, 6, 0), (8, 0, 0x46)];
            (bytes[12], bytes[13], bytes[14]) = kinds[random.below(4)];
        }
        bytes
    });
}

#[test]
fn changed_packets_do_no_harm() {
    let seeds = seeds();
    storm(0xd1b5_4a32_d192_ed03, 6000, |random| mutate(random, &seeds));
}

#[test]
fn other_changed_packets_do_no_harm() {
    let seeds = seeds();
    storm(0x2545_f491_4f6c_dd1d, 6000, |random| mutate(random, &seeds));
}
