//! The classifier against a naive evaluator of Calico's semantics, in every way that this processor can look up.
//!
//! `ORACLE_CASES` sets the number of worlds (96 without it), each of some thousand judgements.

mod large;
mod naive;
mod world;

use classifier::packet::Packet;
use classifier::program::ChainId;
use proptest::prelude::*;
use world::{Plan, Step, World};

fn config(part: u32) -> ProptestConfig {
    let cases = std::env::var("ORACLE_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(96) / part,
        max_shrink_iters: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn judges_as_the_rules_say(
        plan in world::plan(),
        steps in prop::collection::vec(world::step(), 0..8),
        packets in world::packets(1..257),
    ) {
        run(&plan, &steps, &packets);
    }
}

/// `ORACLE_CASES` makes these more, too.
#[test]
fn judges_by_tables_as_the_rules_say() {
    let rounds = u64::from(config(96).cases.max(1));
    for seed in 0..rounds {
        for rules in [15, 17, 40, 64, 65, 130, 400] {
            large::run(rules, seed);
        }
    }
}

fn run(plan: &Plan, steps: &[Step], packets: &[(Packet, usize)]) {
    let mut world = World::new(plan);
    let packets: Vec<Packet> = packets
        .iter()
        .map(|(packet, chain)| Packet {
            chain: world.chains.get(*chain % 5).map_or(ChainId(0), |(id, _)| *id),
            ..*packet
        })
        .collect();
    world.check(&packets);
    for step in steps {
        world.step(step);
        world.check(&packets);
    }
}
