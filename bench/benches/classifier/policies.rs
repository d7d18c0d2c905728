//! Sets and policies in the manner of Kubernetes, through the whole classifier.

use super::rules::packet_of;
use super::{PACKETS, RUNS, TABLE, capacity, cycles};
use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use classifier::classify::Judgement;
use classifier::compiler::Compiler;
use classifier::lookup::hash::Multipliers;
use classifier::packet::{Packet, VECTOR};
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, Policy, PolicyId, Tier};
use classifier::rule::{Action, IpVersion, Ports, Rule, SetId};
use classifier::sets::{Change, Class, Kind, Member, Sets};
use fastpath::meta::Endpoint;
use fastpath::qsbr::Qsbr;
use ipnet::{IpNet, Ipv4Net};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Members of the large set.
const MEMBERS: u64 = 100_000;
/// Sets a policy names.
const SETS: usize = 100;

/// The address of a pod.
fn pod(number: u64) -> u32 {
    0x0a00_0000 | (number as u32).wrapping_mul(0x9e37_79b1) >> 12
}

fn host(address: u32) -> Member {
    Member::Network(IpNet::V4(Ipv4Net::new_assert(address.into(), 32)))
}

fn member(set: SetId, address: u32, present: bool) -> Change {
    Change {
        set,
        member: host(address),
        present,
    }
}

fn compiler() -> (Compiler, Arc<Qsbr>) {
    let qsbr = Arc::new(Qsbr::new(1));
    let compiler = Compiler::with_multipliers(capacity(), qsbr.clone(), Multipliers::fixed(1)).expect("memory");
    (compiler, qsbr)
}

/// An address that is looked up in sets, and a member that comes or goes.
pub fn sets() {
    for size in [10, MEMBERS] {
        let qsbr = Arc::new(Qsbr::new(1));
        let mut sets = Sets::new(capacity(), qsbr).expect("memory");
        let large = sets.create(Kind::Networks).expect("a name");
        let start = Instant::now();
        let members: Vec<Change> = (0..size).map(|number| member(large, pod(number), true)).collect();
        sets.apply(&members).expect("room");
        let loaded = start.elapsed().as_secs_f64() * 1e6 / size as f64;
        let other: Vec<SetId> = (1..SETS)
            .map(|_| sets.create(Kind::Networks).expect("a name"))
            .collect();
        let mut rng = Rng(3);
        for set in other {
            let some: Vec<Change> = (0..500).map(|_| member(set, pod(rng.below(MEMBERS)), true)).collect();
            sets.apply(&some).expect("room");
        }
        let name = format!("a set of {size} and 99 of 500");
        let view = sets.view();
        let packets: Vec<Packet> = (0..PACKETS).map(|_| between_pods(&mut rng)).collect();
        let mut classes = [[Class::default(); 2]; VECTOR];
        let found = cycles(2 * PACKETS, || {
            for packets in packets.chunks(VECTOR) {
                view.resolve(packets, &mut classes);
                black_box(&classes);
            }
        });
        record(TABLE, &name, "cycles an address", found);
        record(TABLE, &name, "us a member to load", Spread::of([loaded]));
        let mut numbers = (0..).map(|i: u64| pod(i * 7919 % size));
        let changed = cycles(2 * 512, || {
            for address in numbers.by_ref().take(512) {
                for present in [false, true] {
                    sets.apply(&[member(large, address, present)]).expect("room");
                }
            }
        });
        record(TABLE, &name, "cycles a member that comes or goes", changed);
        record(TABLE, &name, "KiB", Spread::of([sets.used_bytes() as f64 / 1024.0]));
    }
}

fn between_pods(rng: &mut Rng) -> Packet {
    let mut end = |port| Endpoint::v4(pod(rng.below(MEMBERS)).to_be_bytes(), port);
    Packet {
        source: end(40_000),
        target: end(80),
        protocol: 6,
        version: IpVersion::V4,
        chain: ChainId(1),
    }
}

/// Rules of a protocol and mostly a port, from a set (7 of 10) or a network.
fn rules(count: usize, sets: &[SetId], rng: &mut Rng) -> Vec<Rule> {
    let spread = (count as u64 / 16).clamp(1, 400);
    let one = |_| {
        let mut rule = Rule::all(if rng.below(4) == 0 { Action::Deny } else { Action::Allow });
        rule.protocol = Some([6, 6, 6, 17][rng.below(4) as usize]);
        if rng.below(10) < 9 {
            let port = [53, 80, 443, 8080, 9090, 5432, 3306, 6379][rng.below(8) as usize];
            rule.target.ports = vec![Ports::one(port + rng.below(spread) as u16)];
        }
        if rng.below(10) < 7 {
            rule.source.sets = vec![sets[rng.below(sets.len() as u64) as usize]];
        } else {
            let length = 16 + rng.below(13) as u8;
            let network = Ipv4Net::new_assert(pod(rng.below(MEMBERS)).into(), length).trunc();
            rule.source.networks = vec![IpNet::V4(network)];
        }
        rule
    };
    (0..count).map(one).collect()
}

fn with_sets(compiler: &mut Compiler, count: usize, rng: &mut Rng) -> Vec<SetId> {
    let sets: Vec<SetId> = (0..count)
        .map(|_| compiler.create_set(Kind::Networks).expect("a name"))
        .collect();
    for set in &sets {
        let some: Vec<Change> = (0..200).map(|_| member(*set, pod(rng.below(MEMBERS)), true)).collect();
        compiler.change_members(&some).expect("room");
    }
    sets
}

fn chain(policies: &[PolicyId]) -> Chain {
    let placed = policies.iter().map(|policy| Placed {
        policy: *policy,
        staged: false,
    });
    Chain {
        direction: Direction::Ingress,
        tiers: vec![Tier {
            policies: placed.collect(),
            default: DefaultAction::Deny,
        }],
        last: Last::Profiles(vec![]),
    }
}

fn ingress(rules: Vec<Rule>) -> Policy {
    Policy {
        ingress: rules,
        egress: vec![],
    }
}

/// Packets through the whole classifier: one policy of so many rules, and chains of small ones.
pub fn packets() {
    for sets in [SETS, 10 * SETS] {
        for count in [1, 8, 50, 1_000, 10_000] {
            let (mut compiler, qsbr) = compiler();
            let mut rng = Rng(5);
            let sets = with_sets(&mut compiler, sets, &mut rng);
            let rules = rules(count, &sets, &mut rng);
            let policy = compiler.reserve_policy();
            compiler.set_policy(policy, ingress(rules.clone()));
            let chain = compiler.chain(&chain(&[policy]));
            compiler.publish();
            let packets: Vec<Packet> = (0..PACKETS).map(|_| towards(&rules, chain, &mut rng)).collect();
            let name = format!("a policy of {count} rules, {} sets", sets.len());
            record(
                TABLE,
                &name,
                "cycles a packet, sets resolved",
                judge(&compiler, &qsbr, &packets),
            );
        }
    }
    let (mut compiler, qsbr) = compiler();
    let mut rng = Rng(6);
    let sets = with_sets(&mut compiler, SETS, &mut rng);
    let mut packets = vec![];
    for _ in 0..200 {
        let all = rules(10, &sets, &mut rng);
        let policies: Vec<PolicyId> = all
            .chunks(2)
            .map(|rules| {
                let policy = compiler.reserve_policy();
                compiler.set_policy(policy, ingress(rules.to_vec()));
                policy
            })
            .collect();
        let chain = compiler.chain(&chain(&policies));
        packets.extend((0..PACKETS / 200).map(|_| towards(&all, chain, &mut rng)));
    }
    compiler.publish();
    packets.truncate(packets.len() / VECTOR * VECTOR);
    let name = "200 chains of 5 policies of 2 rules";
    record(
        TABLE,
        name,
        "cycles a packet, one chain a vector",
        judge(&compiler, &qsbr, &packets),
    );
    let step = packets.len() / VECTOR;
    let mixed: Vec<Packet> = (0..packets.len())
        .map(|i| packets[i % VECTOR * step + i / VECTOR])
        .collect();
    record(TABLE, name, "cycles a packet, mixed", judge(&compiler, &qsbr, &mixed));
}

fn towards(rules: &[Rule], chain: ChainId, rng: &mut Rng) -> Packet {
    let rule = &rules[rng.below(rules.len() as u64) as usize];
    let mut packet = packet_of(rule, rng);
    if rule.source.networks.is_empty() {
        packet.source = Endpoint::v4(pod(rng.below(MEMBERS)).to_be_bytes(), 40_000);
    }
    packet.target = Endpoint::v4(pod(rng.below(MEMBERS)).to_be_bytes(), packet.target.port);
    packet.chain = chain;
    packet
}

fn judge(compiler: &Compiler, qsbr: &Qsbr, packets: &[Packet]) -> Spread {
    let mut classifier = compiler.classifier();
    let mut judgements = [Judgement::NO_CHAIN; VECTOR];
    qsbr.online(0);
    let spread = cycles(packets.len(), || {
        for packets in packets.chunks_exact(VECTOR) {
            classifier.classify(packets, &mut judgements);
            black_box(&judgements);
            qsbr.turn(0);
        }
    });
    qsbr.offline(0);
    spread
}

/// What a change costs control, published.
pub fn changes() {
    let (mut compiler, _) = compiler();
    let mut rng = Rng(7);
    let sets = with_sets(&mut compiler, SETS, &mut rng);
    let start = Instant::now();
    for _ in 0..10_000 {
        let policy = compiler.reserve_policy();
        compiler.set_policy(policy, ingress(rules(3, &sets, &mut rng)));
        compiler.chain(&chain(&[policy]));
    }
    compiler.publish();
    let loaded = start.elapsed().as_secs_f64() * 1e3;
    record(
        TABLE,
        "10,000 policies of 3 rules, 10,000 chains",
        "ms to load",
        Spread::of([loaded]),
    );
    for count in [3, 1_000, 10_000] {
        let mut rules_now = rules(count, &sets, &mut rng);
        let policy = compiler.reserve_policy();
        compiler.set_policy(policy, ingress(rules_now.clone()));
        let name = format!("a policy of {count} rules among 10,000 others");
        let mut change = |what: &str, edit: &mut dyn FnMut(&mut Vec<Rule>)| {
            let took = (0..RUNS * 3).map(|_| {
                edit(&mut rules_now);
                let new = ingress(rules_now.clone());
                let start = Instant::now();
                compiler.set_policy(policy, new);
                compiler.publish();
                compiler.reclaim();
                start.elapsed().as_secs_f64() * 1e6
            });
            record(TABLE, &name, what, Spread::of(took));
        };
        let mut other = rules(1000, &sets, &mut rng).into_iter().cycle();
        let mut rng = Rng(8);
        change("us until one rule that changes is published", &mut |rules| {
            let at = rng.below(rules.len() as u64) as usize;
            rules[at] = other.next().expect("it goes round");
        });
        let mut here = false;
        change("us until one rule that comes or goes is published", &mut |rules| {
            here = !here;
            match here {
                true => rules.insert(count / 2, Rule::all(Action::Log)),
                false => drop(rules.remove(count / 2)),
            }
        });
    }
}
