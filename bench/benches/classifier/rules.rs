//! ClassBench's rule files, or rules like theirs, and packets drawn from rules.

use bench::routes::Rng;
use classifier::packet::Packet;
use classifier::program::ChainId;
use classifier::rule::{Action, IpVersion, Ports, Rule};
use fastpath::meta::Endpoint;
use ipnet::{IpNet, Ipv4Net};
use std::path::Path;

const FILES: [&str; 6] = ["acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"];

/// Sets of rules with their names: those of the directory `CLASSBENCH`, and generated ones, 100,000 at the most.
pub fn files() -> Vec<(String, Vec<Rule>)> {
    let mut all = vec![];
    match std::env::var_os("CLASSBENCH") {
        Some(directory) => {
            for name in FILES {
                match std::fs::read_to_string(Path::new(&directory).join(name)) {
                    Ok(text) => all.push((name.to_owned(), text.lines().filter_map(parse).collect())),
                    Err(error) => eprintln!("skipped {name}: {error}"),
                }
            }
        }
        None => eprintln!("skipped ClassBench's files: CLASSBENCH names no directory that has them"),
    }
    for count in [1_000, 10_000, 100_000] {
        all.push((format!("generated {count}"), generated(count)));
    }
    all
}

/// `@176.19.181.33/32  90.145.23.162/32  0 : 65535  1550 : 1550  0x06/0xFF  0x0000/0x0200`, by tabs. Flags are left out.
fn parse(line: &str) -> Option<Rule> {
    let mut fields = line.trim().strip_prefix('@')?.split('\t');
    let network = |text: &str| {
        text.trim()
            .parse::<Ipv4Net>()
            .ok()
            .map(|network| IpNet::V4(network.trunc()))
    };
    let ports = |text: &str| {
        let (first, last) = text.split_once(':')?;
        let ports = Ports {
            first: first.trim().parse().ok()?,
            last: last.trim().parse().ok()?,
        };
        Some(if ports == Ports::ALL { vec![] } else { vec![ports] })
    };
    let mut rule = Rule::all(Action::Allow);
    rule.source.networks = vec![network(fields.next()?)?];
    rule.target.networks = vec![network(fields.next()?)?];
    rule.source.ports = ports(fields.next()?)?;
    rule.target.ports = ports(fields.next()?)?;
    let (protocol, mask) = fields.next()?.split_once('/')?;
    let protocol = u8::from_str_radix(protocol.strip_prefix("0x")?, 16).ok()?;
    rule.protocol = (mask == "0xFF").then_some(protocol);
    Some(rule)
}

/// Rules between some hundred networks, like an access list.
fn generated(count: usize) -> Vec<Rule> {
    let mut rng = Rng(4);
    let networks: Vec<u32> = (0..200).map(|_| rng.bits() as u32 & 0xffff_0000).collect();
    let one = |_| {
        let network = |rng: &mut Rng| {
            let length = [0, 16, 20, 24, 28, 32, 32, 32][rng.below(8) as usize];
            let address = networks[rng.below(200) as usize] | rng.below(1 << 16) as u32;
            IpNet::V4(Ipv4Net::new_assert(address.into(), length).trunc())
        };
        let mut rule = Rule::all(Action::Allow);
        rule.source.networks = vec![network(&mut rng)];
        rule.target.networks = vec![network(&mut rng)];
        rule.protocol = Some([6, 6, 6, 17][rng.below(4) as usize]);
        let port = rng.below(2_000) as u16;
        rule.target.ports = match rng.below(5) {
            0 => vec![],
            1 => vec![Ports {
                first: port,
                last: port + 1_000,
            }],
            _ => vec![Ports::one(port)],
        };
        rule
    };
    (0..count).map(one).collect()
}

/// Packets, each from a rule drawn at random.
pub fn trace(rules: &[Rule], count: usize, rng: &mut Rng) -> Vec<Packet> {
    (0..count)
        .map(|_| packet_of(&rules[rng.below(rules.len() as u64) as usize], rng))
        .collect()
}

/// An IPv4 packet that `rule` matches, sets apart.
pub fn packet_of(rule: &Rule, rng: &mut Rng) -> Packet {
    let address = |rng: &mut Rng, networks: &[IpNet]| match networks.first() {
        Some(IpNet::V4(network)) => network.network().to_bits() | rng.bits() as u32 & network.hostmask().to_bits(),
        _ => rng.bits() as u32,
    };
    let port = |rng: &mut Rng, ports: &[Ports]| {
        let ports = ports.first().copied().unwrap_or(Ports::ALL);
        ports.first + rng.below(u64::from(ports.last - ports.first) + 1) as u16
    };
    let source = address(rng, &rule.source.networks);
    let target = address(rng, &rule.target.networks);
    Packet {
        source: Endpoint::v4(source.to_be_bytes(), port(rng, &rule.source.ports)),
        target: Endpoint::v4(target.to_be_bytes(), port(rng, &rule.target.ports)),
        protocol: rule.protocol.unwrap_or_else(|| [6, 17][rng.below(2) as usize]),
        version: IpVersion::V4,
        chain: ChainId::default(),
    }
}
