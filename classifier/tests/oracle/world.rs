//! Random worlds: sets, policies, chains and packets, small enough that they meet.

use crate::naive::Naive;
use classifier::classify::{Cause, Decision, Judgement, Verdict};
use classifier::compiler::Compiler;
use classifier::lookup::Way;
use classifier::lookup::hash::Multipliers;
use classifier::packet::Packet;
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, Policy, PolicyId, Tier};
use classifier::rule::{Action, End, Icmp, IpVersion, Ports, Rule, SetId};
use classifier::sets::{Capacity, Change, Kind, Member};
use fastpath::meta::Endpoint;
use fastpath::qsbr::Qsbr;
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub const NETWORK_SETS: usize = 6;
pub const PORT_SETS: usize = 3;
pub const POLICIES: usize = 7;
/// One that is never there.
const ABSENT: usize = POLICIES;

/// Names of sets in the rules of a strategy: those of networks, those of ports, and one that is missing.
const MISSING: u32 = 99;
const PORTS_FROM: u32 = 50;

/// What a world starts with. Sets are named by place, policies too.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: Vec<(u32, Member)>,
    /// Sets made before each one that is used, so that bitmaps get wide.
    pub gap: usize,
    pub policies: Vec<Policy>,
    pub chains: Vec<Chain>,
}

/// What happens to it later.
#[derive(Clone, Debug)]
pub enum Step {
    Members(Vec<(u32, Member, bool)>),
    Policy(usize, Policy),
    /// One rule is another.
    Rule(usize, prop::sample::Index, Box<Rule>),
    /// One rule comes between others, and goes where there are many.
    Insert(usize, prop::sample::Index, Box<Rule>),
    RemovePolicy(usize),
    RemoveSet(u32),
}

/// The product and the oracle, told the same.
pub struct World {
    pub compiler: Compiler,
    pub naive: Naive,
    pub sets: Vec<SetId>,
    pub policies: Vec<PolicyId>,
    pub chains: Vec<(ChainId, Chain)>,
    pub qsbr: Arc<Qsbr>,
}

impl World {
    pub fn new(plan: &Plan) -> World {
        let qsbr = Arc::new(Qsbr::new(1));
        let capacity = Capacity {
            prefix_bytes: 8 << 20,
            class_bytes: 8 << 20,
        };
        let compiler = Compiler::with_multipliers(capacity, qsbr.clone(), Multipliers::fixed(7)).unwrap();
        let mut world = World {
            compiler,
            naive: Naive::default(),
            sets: vec![],
            policies: vec![],
            chains: vec![],
            qsbr,
        };
        for place in 0..NETWORK_SETS + PORT_SETS {
            let kind = if place < NETWORK_SETS {
                Kind::Networks
            } else {
                Kind::Ports
            };
            (0..plan.gap).for_each(|_| assert!(world.compiler.create_set(kind).is_ok()));
            let set = world.compiler.create_set(kind).unwrap();
            world.naive.sets.insert(set, Default::default());
            world.sets.push(set);
        }
        world.policies = (0..=POLICIES).map(|_| world.compiler.reserve_policy()).collect();
        let members: Vec<_> = plan.members.iter().map(|(set, member)| (*set, *member, true)).collect();
        world.step(&Step::Members(members));
        for (place, policy) in plan.policies.iter().enumerate() {
            world.step(&Step::Policy(place, policy.clone()));
        }
        for chain in &plan.chains {
            let chain = world.named_chain(chain);
            world.chains.push((world.compiler.chain(&chain), chain));
        }
        world.compiler.publish();
        world
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Members(members) => {
                let changes = members.iter().map(|(set, member, present)| Change {
                    set: self.set(*set),
                    member: *member,
                    present: *present,
                });
                let there = changes.filter(|change| self.naive.sets.contains_key(&change.set));
                let changes: Vec<Change> = there.collect();
                self.compiler.change_members(&changes).unwrap();
                changes.iter().for_each(|change| self.naive.change(change));
            }
            Step::Policy(place, policy) => {
                let policy = self.named_policy(policy);
                self.set_policy(*place, policy);
            }
            Step::Rule(place, at, rule) => {
                let Some(mut policy) = self.naive.policies.get(&self.policies[*place]).cloned() else {
                    return;
                };
                let rule = self.named_rule(rule);
                for rules in [&mut policy.ingress, &mut policy.egress] {
                    if !rules.is_empty() {
                        let at = at.index(rules.len());
                        rules[at] = rule.clone();
                    }
                }
                self.set_policy(*place, policy);
            }
            Step::Insert(place, at, rule) => {
                let Some(mut policy) = self.naive.policies.get(&self.policies[*place]).cloned() else {
                    return;
                };
                let rule = self.named_rule(rule);
                for rules in [&mut policy.ingress, &mut policy.egress] {
                    let at = at.index(rules.len() + 1);
                    rules.insert(at, rule.clone());
                    if rules.len() > 8 {
                        rules.remove(8 - at);
                    }
                }
                self.set_policy(*place, policy);
            }
            Step::RemovePolicy(place) => {
                self.compiler.remove_policy(self.policies[*place]);
                self.naive.policies.remove(&self.policies[*place]);
            }
            Step::RemoveSet(set) => {
                let set = self.set(*set);
                if self.naive.sets.remove(&set).is_some() {
                    self.compiler.remove_set(set);
                }
            }
        }
        self.compiler.publish();
        self.compiler.reclaim();
    }

    /// Judges packets in every way this processor has, and as the oracle does.
    pub fn check(&self, packets: &[Packet]) {
        let wanted: Vec<_> = packets
            .iter()
            .enumerate()
            .map(|(i, packet)| self.naive(i, packet))
            .collect();
        for way in Way::all() {
            let mut classifier = self.compiler.classifier_with(way);
            let mut judgements = vec![Judgement::NO_CHAIN; packets.len()];
            self.qsbr.online(0);
            let logs = classifier.classify(packets, &mut judgements).to_vec();
            self.qsbr.offline(0);
            for (i, (judgement, logged)) in wanted.iter().enumerate() {
                assert_eq!(judgements[i], *judgement, "{way:?}: packet {:?}", packets[i]);
                let of_packet: Vec<_> = logs
                    .iter()
                    .filter(|entry| usize::from(entry.packet) == i)
                    .copied()
                    .collect();
                assert_eq!(of_packet, *logged, "{way:?}: logs of packet {:?}", packets[i]);
            }
        }
    }

    fn naive(&self, number: usize, packet: &Packet) -> (Judgement, Vec<classifier::classify::Logged>) {
        match self.chains.iter().find(|(id, _)| *id == packet.chain) {
            Some((_, chain)) => self.naive.judge(number as u8, packet, chain),
            None => {
                let decision = Decision {
                    verdict: Verdict::Deny,
                    cause: Cause::NoChain,
                };
                (
                    Judgement {
                        decision,
                        pending: None,
                    },
                    vec![],
                )
            }
        }
    }

    fn set_policy(&mut self, place: usize, policy: Policy) {
        self.compiler.set_policy(self.policies[place], policy.clone());
        self.naive.policies.insert(self.policies[place], policy);
    }

    fn set(&self, place: u32) -> SetId {
        match place {
            MISSING => SetId::MISSING,
            place if place >= PORTS_FROM => self.sets[NETWORK_SETS + (place - PORTS_FROM) as usize],
            place => self.sets[place as usize],
        }
    }

    fn named_rule(&self, rule: &Rule) -> Rule {
        let mut rule = rule.clone();
        let ends = [&mut rule.source, &mut rule.target].into_iter();
        let lists = ends.flat_map(|end| {
            [
                &mut end.sets,
                &mut end.not_sets,
                &mut end.named_ports,
                &mut end.not_named_ports,
            ]
        });
        for list in lists.chain([&mut rule.services]) {
            list.iter_mut().for_each(|set| *set = self.set(set.0));
        }
        rule
    }

    fn named_policy(&self, policy: &Policy) -> Policy {
        Policy {
            ingress: policy.ingress.iter().map(|rule| self.named_rule(rule)).collect(),
            egress: policy.egress.iter().map(|rule| self.named_rule(rule)).collect(),
        }
    }

    fn named_chain(&self, chain: &Chain) -> Chain {
        let mut chain = chain.clone();
        let named = |policy: &mut PolicyId| *policy = self.policies[policy.0 as usize];
        let placed = chain.tiers.iter_mut().flat_map(|tier| &mut tier.policies);
        placed.for_each(|placed| named(&mut placed.policy));
        if let Last::Profiles(profiles) = &mut chain.last {
            profiles.iter_mut().for_each(named);
        }
        chain
    }
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let set = prop_oneof![0..NETWORK_SETS as u32, PORTS_FROM..PORTS_FROM + PORT_SETS as u32];
    let member = set.prop_flat_map(|set| (Just(set), member(set)));
    let policies = vec(policy(0..8), POLICIES);
    (
        vec(member, 0..50),
        select(vec![0usize, 9, 60]),
        policies,
        vec(chain(), 1..5),
    )
        .prop_map(|(members, gap, policies, chains)| Plan {
            members,
            gap,
            policies,
            chains,
        })
}

pub fn step() -> impl Strategy<Value = Step> {
    let set = prop_oneof![0..NETWORK_SETS as u32, PORTS_FROM..PORTS_FROM + PORT_SETS as u32];
    let change = set.clone().prop_flat_map(|set| (Just(set), member(set), any::<bool>()));
    prop_oneof![
        8 => vec(change, 1..12).prop_map(Step::Members),
        3 => (0..POLICIES, policy(0..8)).prop_map(|(place, policy)| Step::Policy(place, policy)),
        8 => (0..POLICIES, any::<prop::sample::Index>(), rule()).prop_map(|(place, at, rule)| Step::Rule(place, at, Box::new(rule))),
        4 => (0..POLICIES, any::<prop::sample::Index>(), rule()).prop_map(|(place, at, rule)| Step::Insert(place, at, Box::new(rule))),
        1 => (0..POLICIES).prop_map(Step::RemovePolicy),
        1 => set.prop_map(Step::RemoveSet),
    ]
}

pub fn policy(rules: std::ops::Range<usize>) -> impl Strategy<Value = Policy> {
    (vec(rule(), rules.clone()), vec(rule(), rules)).prop_map(|(ingress, egress)| Policy { ingress, egress })
}

pub fn chain() -> impl Strategy<Value = Chain> {
    let placed = (0..=ABSENT as u32, weighted(0.25, Just(()))).prop_map(|(policy, staged)| Placed {
        policy: PolicyId(if policy == ABSENT as u32 && staged.is_none() {
            0
        } else {
            policy
        }),
        staged: staged.is_some(),
    });
    let default = prop_oneof![Just(DefaultAction::Deny), Just(DefaultAction::Pass)];
    let tier = (vec(placed, 0..4), default).prop_map(|(policies, default)| Tier { policies, default });
    let profiles = vec((0..POLICIES as u32).prop_map(PolicyId), 0..3).prop_map(Last::Profiles);
    let last = prop_oneof![3 => profiles, 1 => Just(Last::Allow), 1 => Just(Last::Undecided)];
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    (direction, vec(tier, 0..4), last).prop_map(|(direction, tiers, last)| Chain { direction, tiers, last })
}

pub fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        4 => Just(Action::Allow),
        4 => Just(Action::Deny),
        2 => Just(Action::Pass),
        2 => Just(Action::Log),
    ];
    let version = weighted(0.1, select(IpVersion::ALL.to_vec()));
    let icmp = || (select(vec![0u8, 3, 8, 128]), weighted(0.5, 0u8..3)).prop_map(|(kind, code)| Icmp { kind, code });
    let services = vec(port_set(), 0..2);
    (
        (action, version, weighted(0.4, protocol()), weighted(0.1, protocol())),
        (weighted(0.08, icmp()), weighted(0.08, icmp())),
        (end(), end(), weighted(0.1, services)),
    )
        .prop_map(
            |((action, ip_version, protocol, not_protocol), (icmp, not_icmp), ends)| {
                let (source, target, services) = ends;
                Rule {
                    action,
                    ip_version,
                    protocol,
                    not_protocol,
                    icmp,
                    not_icmp,
                    source,
                    target,
                    services: services.unwrap_or_default(),
                }
            },
        )
}

fn end() -> impl Strategy<Value = End> {
    let list = |chance, network| weighted(chance, vec(network, 1..4)).prop_map(Option::unwrap_or_default);
    let sets = |chance| weighted(chance, vec(network_set(), 1..3)).prop_map(Option::unwrap_or_default);
    let ports = |chance| weighted(chance, vec(ports(), 1..4)).prop_map(Option::unwrap_or_default);
    let named = |chance| weighted(chance, vec(port_set(), 1..3)).prop_map(Option::unwrap_or_default);
    (
        (list(0.2, network()), list(0.08, network()), sets(0.2), sets(0.08)),
        (ports(0.12), named(0.08), ports(0.06), named(0.05)),
    )
        .prop_map(
            |((networks, not_networks, sets, not_sets), (ports, named_ports, not_ports, not_named_ports))| End {
                networks,
                not_networks,
                sets,
                not_sets,
                ports,
                named_ports,
                not_ports,
                not_named_ports,
            },
        )
}

fn network_set() -> impl Strategy<Value = SetId> {
    prop_oneof![300 => 0..NETWORK_SETS as u32, 1 => Just(MISSING)].prop_map(SetId)
}

fn port_set() -> impl Strategy<Value = SetId> {
    (PORTS_FROM..PORTS_FROM + PORT_SETS as u32).prop_map(SetId)
}

fn member(set: u32) -> BoxedStrategy<Member> {
    if set < PORTS_FROM {
        return network().prop_map(|network| Member::Network(network.trunc())).boxed();
    }
    (address(), select(vec![6u8, 17, 132]), port())
        .prop_map(|(address, protocol, port)| Member::Port {
            address,
            protocol,
            port,
        })
        .boxed()
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), any::<prop::sample::Index>()).prop_map(|(address, at)| {
        let lengths: &[u8] = match address {
            IpAddr::V4(_) => &[0, 8, 22, 24, 29, 31, 32, 32],
            IpAddr::V6(_) => &[0, 32, 48, 63, 64, 96, 125, 128, 128],
        };
        IpNet::new(address, *at.get(lengths)).unwrap()
    })
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (select(vec![10u8, 192]), 0u8..4, 0u8..10).prop_map(|(a, c, d)| Ipv4Addr::new(a, 0, c, d).into());
    let v6 = (select(vec![0x2001u16, 0xfd00]), 0u16..3, 0u16..10)
        .prop_map(|(a, c, d)| Ipv6Addr::new(a, 0xdb8, 0, c, 0, 0, 0, d).into());
    prop_oneof![v4, v6]
}

fn protocol() -> impl Strategy<Value = u8> {
    select(vec![6u8, 6, 17, 1, 58, 132, 136, 47, 0, 255])
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![0u16, 1, 53, 80, 443, 8080, 65_535])
}

fn ports() -> impl Strategy<Value = Ports> {
    (port(), port()).prop_map(|(a, b)| Ports {
        first: a.min(b),
        last: if a % 2 == 0 { a.min(b) } else { a.max(b) },
    })
}

/// Packets of one IP version each, to chains that are there, but for a few.
pub fn packets(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(Packet, usize)>> {
    let end = || (address(), port());
    let icmp = (select(vec![0u8, 3, 8, 128]), 0u8..3).prop_map(|(kind, code)| u16::from(kind) << 8 | u16::from(code));
    let packet = (end(), end(), protocol(), icmp, 0..6usize).prop_map(|(source, target, protocol, icmp, chain)| {
        let (version, target_address) = match (source.0, target.0) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (IpVersion::V4, target.0),
            (IpAddr::V6(_), IpAddr::V6(_)) => (IpVersion::V6, target.0),
            (IpAddr::V4(_), IpAddr::V6(other)) => {
                let [.., c, d] = other.octets();
                (IpVersion::V4, Ipv4Addr::new(10, 0, c, d).into())
            }
            (IpAddr::V6(_), IpAddr::V4(other)) => {
                let [.., c, d] = other.octets().map(u16::from);
                (IpVersion::V6, Ipv6Addr::new(0x2001, 0xdb8, 0, c, 0, 0, 0, d).into())
            }
        };
        let (source_port, target_port) = match protocol {
            1 | 58 => (source.1, icmp),
            6 | 17 | 132 | 136 => (source.1, target.1),
            _ => (0, 0),
        };
        let packet = Packet {
            source: endpoint(source.0, source_port),
            target: endpoint(target_address, target_port),
            protocol,
            version,
            chain: ChainId(0),
        };
        (packet, chain)
    });
    vec(packet, count)
}

pub fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    match address {
        IpAddr::V4(address) => Endpoint::v4(address.octets(), port),
        IpAddr::V6(address) => Endpoint {
            address: address.octets(),
            port,
        },
    }
}
