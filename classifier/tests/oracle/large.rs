//! Policies large enough for hash tables, and their changes.

use crate::naive::Naive;
use crate::world::endpoint;
use classifier::classify::Judgement;
use classifier::compiler::Compiler;
use classifier::lookup::Way;
use classifier::lookup::hash::Multipliers;
use classifier::packet::{Packet, VECTOR};
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, Policy, Tier};
use classifier::rule::{Action, End, IpVersion, Ports, Rule, SetId};
use classifier::sets::{Capacity, Change, Kind, Member};
use fastpath::qsbr::Qsbr;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const SETS: usize = 400;

/// Numbers that look random (xorshift64*), the same every time.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }

    fn one_in(&mut self, parts: u64) -> bool {
        self.below(parts) == 0
    }

    fn address(&mut self) -> IpAddr {
        match self.one_in(2) {
            true => Ipv4Addr::from(0x0a00_0000 | self.below(1 << 14) as u32).into(),
            false => Ipv6Addr::from(
                0x2001_0db8 << 96 | u128::from(self.below(1 << 7)) << 64 | u128::from(self.below(1 << 7)),
            )
            .into(),
        }
    }

    fn network(&mut self) -> IpNet {
        let address = self.address();
        let lengths: &[u8] = if address.is_ipv4() {
            &[18, 20, 24, 26, 28, 30, 32]
        } else {
            &[57, 60, 64, 122, 128]
        };
        IpNet::new(address, lengths[self.below(lengths.len() as u64) as usize])
            .unwrap()
            .trunc()
    }

    fn ports(&mut self) -> Vec<Ports> {
        let first = [80, 443, 53, 8080][self.below(4) as usize] + self.below(40) as u16;
        match self.below(4) {
            0 => vec![],
            1 => vec![Ports {
                first,
                last: first + 100,
            }],
            _ => vec![Ports::one(first)],
        }
    }

    fn end(&mut self, sets: &[SetId]) -> End {
        let mut end = End::default();
        match self.below(5) {
            0 | 1 => end.sets = vec![sets[self.below(sets.len() as u64) as usize]],
            2 | 3 => end.networks = (0..1 + self.below(2)).map(|_| self.network()).collect(),
            _ => {}
        }
        if self.one_in(12) {
            end.not_sets = vec![sets[self.below(sets.len() as u64) as usize]];
        }
        if self.one_in(12) {
            end.not_networks = vec![self.network()];
        }
        end
    }

    pub fn rule(&mut self, sets: &[SetId]) -> Rule {
        let mut rule = Rule::all(
            [Action::Allow, Action::Deny, Action::Pass, Action::Log][self.below(16).saturating_sub(12) as usize],
        );
        rule.protocol = [Some(6), Some(17), Some(6), None][self.below(4) as usize];
        rule.source = self.end(sets);
        rule.target = self.end(sets);
        if rule.protocol.is_some() {
            rule.target.ports = self.ports();
        }
        rule
    }

    fn packet(&mut self, chain: ChainId) -> Packet {
        let source = self.address();
        let target = std::iter::repeat_with(|| self.address())
            .find(|target| target.is_ipv4() == source.is_ipv4())
            .unwrap();
        let port = [80, 443, 53, 8080][self.below(4) as usize] + self.below(60) as u16;
        Packet {
            source: endpoint(source, 1024 + self.below(100) as u16),
            target: endpoint(target, port),
            protocol: [6, 6, 17, 132][self.below(4) as usize],
            version: if source.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 },
            chain,
        }
    }
}

/// A policy of `rules` rules, changed a few rules at a time, then as a whole.
pub fn run(rules: usize, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let qsbr = Arc::new(Qsbr::new(1));
    let capacity = Capacity {
        prefix_bytes: 64 << 20,
        class_bytes: 64 << 20,
    };
    let mut compiler = Compiler::with_multipliers(capacity, qsbr.clone(), Multipliers::fixed(seed)).unwrap();
    let mut naive = Naive::default();
    let sets: Vec<SetId> = (0..SETS)
        .map(|_| compiler.create_set(Kind::Networks).unwrap())
        .collect();
    for set in &sets {
        naive.sets.insert(*set, Default::default());
        let members = (0..numbers.below(12)).map(|_| numbers.network());
        let changes: Vec<Change> = members
            .map(|network| Change {
                set: *set,
                member: Member::Network(network),
                present: true,
            })
            .collect();
        compiler.change_members(&changes).unwrap();
        changes.iter().for_each(|change| naive.change(change));
    }
    let id = compiler.reserve_policy();
    let chain = Chain {
        direction: Direction::Ingress,
        tiers: vec![Tier {
            policies: vec![Placed {
                policy: id,
                staged: false,
            }],
            default: DefaultAction::Deny,
        }],
        last: Last::Profiles(vec![]),
    };
    let chain_id = compiler.chain(&chain);
    let mut policy = Policy {
        ingress: (0..rules).map(|_| numbers.rule(&sets)).collect(),
        egress: vec![],
    };
    for round in 0..9 {
        match round {
            0 => {}
            // Few in a row: these are put in place, and others move.
            1 | 5 => drop(policy.ingress.splice(rules / 3..rules / 3 + 2, [numbers.rule(&sets)])),
            2 | 6 => drop(
                policy
                    .ingress
                    .splice(rules / 2..rules / 2, [(); 2].map(|()| numbers.rule(&sets))),
            ),
            3 => policy.ingress[rules / 2] = numbers.rule(&sets),
            4 => policy.ingress.extend((0..rules).map(|_| numbers.rule(&sets))),
            _ => (0..1 + rules / 20).for_each(|_| {
                let at = numbers.below(policy.ingress.len() as u64) as usize;
                policy.ingress[at] = numbers.rule(&sets);
            }),
        }
        compiler.set_policy(id, policy.clone());
        naive.policies.insert(id, policy.clone());
        compiler.publish();
        let packets: Vec<Packet> = (0..VECTOR - round).map(|_| numbers.packet(chain_id)).collect();
        check(&compiler, &naive, &qsbr, &chain, &packets);
    }
}

fn check(compiler: &Compiler, naive: &Naive, qsbr: &Qsbr, chain: &Chain, packets: &[Packet]) {
    let wanted: Vec<_> = packets
        .iter()
        .enumerate()
        .map(|(i, packet)| naive.judge(i as u8, packet, chain))
        .collect();
    for way in Way::all() {
        let mut classifier = compiler.classifier_with(way);
        let mut judgements = vec![Judgement::NO_CHAIN; packets.len()];
        qsbr.online(0);
        let logs = classifier.classify(packets, &mut judgements);
        for (i, (judgement, logged)) in wanted.iter().enumerate() {
            assert_eq!(judgements[i], *judgement, "{way:?}: {:?}", packets[i]);
            assert!(
                logs.iter().filter(|entry| usize::from(entry.packet) == i).eq(logged),
                "{way:?}"
            );
        }
        qsbr.offline(0);
    }
}
