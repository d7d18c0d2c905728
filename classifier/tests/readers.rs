//! Changes under readers: every packet is judged by what was in force before a change or after it, never by a mixture.

use classifier::classify::{Judgement, Verdict};
use classifier::compiler::Compiler;
use classifier::packet::Packet;
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, Policy, PolicyId, Tier};
use classifier::rule::{Action, End, IpVersion, Ports, Rule, SetId};
use classifier::sets::{Capacity, Change, Kind, Member};
use fastpath::meta::Endpoint;
use fastpath::qsbr::Qsbr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

const WORKERS: usize = 2;

fn compiler() -> (Compiler, Arc<Qsbr>) {
    let qsbr = Arc::new(Qsbr::new(WORKERS));
    let capacity = Capacity {
        prefix_bytes: 16 << 20,
        class_bytes: 16 << 20,
    };
    (Compiler::new(capacity, qsbr.clone()).unwrap(), qsbr)
}

fn chain(tiers: &[&[PolicyId]]) -> Chain {
    let placed = |policies: &[PolicyId]| {
        let placed = |policy: &PolicyId| Placed {
            policy: *policy,
            staged: false,
        };
        policies.iter().map(placed).collect()
    };
    let tier = |policies: &&[PolicyId]| Tier {
        policies: placed(policies),
        default: DefaultAction::Deny,
    };
    Chain {
        direction: Direction::Ingress,
        tiers: tiers.iter().map(tier).collect(),
        last: Last::Profiles(vec![]),
    }
}

fn packet(source: u8, port: u16, chain: ChainId) -> Packet {
    Packet {
        source: Endpoint::v4([10, 0, 0, source], 40_000),
        target: Endpoint::v4([10, 0, 1, 1], port),
        protocol: 6,
        version: IpVersion::V4,
        chain,
    }
}

fn from(set: SetId, action: Action) -> Rule {
    Rule {
        source: End {
            sets: vec![set],
            ..End::default()
        },
        ..Rule::all(action)
    }
}

fn to(port: u16, action: Action) -> Rule {
    Rule {
        protocol: Some(6),
        target: End {
            ports: vec![Ports::one(port)],
            ..End::default()
        },
        ..Rule::all(action)
    }
}

/// Workers judge `packets` and let `seen` check each vector, while `change` is called until they have seen enough.
fn under_readers(
    compiler: &mut Compiler,
    qsbr: &Arc<Qsbr>,
    packets: &[Packet],
    seen: impl Fn(&[Judgement]) + Sync,
    mut change: impl FnMut(&mut Compiler, usize),
) {
    let (stop, vectors) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let mut workers = vec![];
        for worker in 0..WORKERS {
            let mut classifier = compiler.classifier();
            let (stop, vectors, seen) = (&stop, &vectors, &seen);
            workers.push(scope.spawn(move || {
                let mut judgements = vec![Judgement::NO_CHAIN; packets.len()];
                qsbr.online(worker);
                while !stop.load(Relaxed) {
                    classifier.classify(packets, &mut judgements);
                    seen(&judgements);
                    qsbr.turn(worker);
                    vectors.fetch_add(1, Relaxed);
                }
                qsbr.offline(worker);
            }));
        }
        let limit = Instant::now() + Duration::from_secs(20);
        let mut round = 0;
        let failed = |workers: &[thread::ScopedJoinHandle<()>]| workers.iter().any(|worker| worker.is_finished());
        while (round < 4000 || vectors.load(Relaxed) < 2000) && Instant::now() < limit && !failed(&workers) {
            change(compiler, round);
            compiler.reclaim();
            round += 1;
        }
        stop.store(true, Relaxed);
        for worker in workers {
            worker.join().expect("a worker saw a mixture");
        }
        assert!(
            round >= 100 && vectors.load(Relaxed) >= 100,
            "too little happened to show anything"
        );
    });
}

#[test]
fn a_policy_is_the_old_one_or_the_new_one() {
    let (mut compiler, qsbr) = compiler();
    let policy = compiler.reserve_policy();
    // In each version one half of the ports is allowed; a mixture would allow both or neither.
    let version = |even: bool| Policy {
        ingress: (0..200)
            .map(|port| {
                to(
                    port,
                    if (port % 2 == 0) == even {
                        Action::Allow
                    } else {
                        Action::Deny
                    },
                )
            })
            .collect(),
        egress: vec![],
    };
    compiler.set_policy(policy, version(true));
    let chain = compiler.chain(&chain(&[&[policy]]));
    compiler.publish();
    let packets: Vec<Packet> = (0..200).map(|port| packet(1, port, chain)).collect();
    let seen = |judgements: &[Judgement]| {
        let even = judgements[0].decision.verdict == Verdict::Allow;
        for (port, judgement) in judgements.iter().enumerate() {
            assert_eq!(judgement.decision.verdict == Verdict::Allow, (port % 2 == 0) == even);
        }
    };
    under_readers(&mut compiler, &qsbr, &packets, seen, |compiler, round| {
        compiler.set_policy(policy, version(round % 2 == 1));
        compiler.publish();
    });
}

#[test]
fn policies_that_change_together_are_seen_together() {
    let (mut compiler, qsbr) = compiler();
    let policies = [compiler.reserve_policy(), compiler.reserve_policy()];
    let version = |action| Policy {
        ingress: vec![Rule::all(action)],
        egress: vec![],
    };
    // Either the first passes and the second allows, or the first denies and the second would deny.
    compiler.set_policy(policies[0], version(Action::Pass));
    compiler.set_policy(policies[1], version(Action::Allow));
    let chain = compiler.chain(&chain(&[&policies[..1], &policies[1..]]));
    compiler.publish();
    let packets = [packet(1, 80, chain)];
    let [first, second] = policies;
    let seen = |judgements: &[Judgement]| match judgements[0].decision.cause {
        classifier::classify::Cause::Rule { policy, .. } => {
            let wanted = if policy == second {
                Verdict::Allow
            } else {
                Verdict::Deny
            };
            assert_eq!(judgements[0].decision.verdict, wanted);
        }
        cause => panic!("{cause:?}"),
    };
    under_readers(&mut compiler, &qsbr, &packets, seen, |compiler, round| {
        let (one, two) = if round % 2 == 0 {
            (Action::Deny, Action::Deny)
        } else {
            (Action::Pass, Action::Allow)
        };
        // The worse order: if these were seen one by one, the first one's pass would meet the second one's deny.
        compiler.set_policy(first, version(one));
        compiler.set_policy(second, version(two));
        compiler.publish();
    });
}

#[test]
fn an_address_that_moves_between_sets_is_in_exactly_one() {
    let (mut compiler, qsbr) = compiler();
    let sets = [(); 2].map(|()| compiler.create_set(Kind::Networks).unwrap());
    let policy = compiler.reserve_policy();
    // Denied where it is in both or in none.
    let both = Rule {
        source: End {
            sets: sets.to_vec(),
            ..End::default()
        },
        ..Rule::all(Action::Deny)
    };
    let rules = vec![both, from(sets[0], Action::Allow), from(sets[1], Action::Allow)];
    compiler.set_policy(
        policy,
        Policy {
            ingress: rules,
            egress: vec![],
        },
    );
    let change = |address: u8, set: usize, present| Change {
        set: sets[set],
        member: Member::Network(format!("10.0.0.{address}/32").parse().unwrap()),
        present,
    };
    let first: Vec<Change> = (0..100).map(|address| change(address, 0, true)).collect();
    compiler.change_members(&first).unwrap();
    let chain = compiler.chain(&chain(&[&[policy]]));
    compiler.publish();
    let packets: Vec<Packet> = (0..100).map(|source| packet(source, 80, chain)).collect();
    let seen = |judgements: &[Judgement]| {
        for judgement in judgements {
            assert_eq!(judgement.decision.verdict, Verdict::Allow, "{judgement:?}");
        }
    };
    under_readers(&mut compiler, &qsbr, &packets, seen, |compiler, round| {
        let (address, from) = ((round % 100) as u8, round / 100 % 2);
        let moves = [change(address, from, false), change(address, 1 - from, true)];
        compiler.change_members(&moves).unwrap();
    });
}

#[test]
fn a_removed_set_takes_its_policies_with_it_and_its_name_is_safe_to_give_again() {
    let (mut compiler, qsbr) = compiler();
    let policy = compiler.reserve_policy();
    let member = |set, address: u8| Change {
        set,
        member: Member::Network(format!("10.0.0.{address}/32").parse().unwrap()),
        present: true,
    };
    let chain = compiler.chain(&chain(&[&[policy]]));
    let packets: Vec<Packet> = (0..64).map(|source| packet(source, 80, chain)).collect();
    let mut set = compiler.create_set(Kind::Networks).unwrap();
    let all = |set| (0..64).map(|address| member(set, address)).collect::<Vec<_>>();
    compiler.change_members(&all(set)).unwrap();
    let allow = |set| Policy {
        ingress: vec![
            Rule {
                source: End {
                    not_sets: vec![set],
                    ..End::default()
                },
                ..Rule::all(Action::Allow)
            },
            Rule::all(Action::Deny),
        ],
        egress: vec![],
    };
    compiler.set_policy(policy, allow(set));
    compiler.publish();
    // All are members, so none is allowed: not even while the set goes, and another gets its name.
    let seen = |judgements: &[Judgement]| {
        assert!(
            judgements
                .iter()
                .all(|judgement| judgement.decision.verdict == Verdict::Deny)
        );
    };
    under_readers(&mut compiler, &qsbr, &packets, seen, |compiler, round| {
        match round % 3 {
            0 => {
                compiler.remove_set(set);
                compiler.publish();
            }
            1 => {
                set = compiler.create_set(Kind::Networks).unwrap();
                compiler.change_members(&all(set)).unwrap();
            }
            _ => {
                compiler.set_policy(policy, allow(set));
                compiler.publish();
            }
        }
    });
    assert!(set.0 < 4096, "names are given again: {set:?}");
}
