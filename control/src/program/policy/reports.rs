//! What workers report, by name.

use classifier::classify::{Cause, Decision, Verdict as Judged};
use classifier::compiler::Counter;
use classifier::program::{ChainId, Direction};
use classifier::report::{Fate, Stage, Stages};

use super::Enforcement;
use super::explain::{because, sentence};
use crate::flow_logs::{DecidedPath, Deciders, LogPolicy, LogVerdict};

impl Deciders for Enforcement {
    fn version(&mut self) -> u64 {
        self.publications
    }

    fn name(&mut self, stages: &Stages, fate: Fate) -> DecidedPath {
        let stages: Vec<_> = stages.iter().flatten().collect();
        let named = |of: &dyn Fn(&Stage) -> Decision| {
            stages
                .iter()
                .map(|stage| self.policy(stage.chain, of(stage)))
                .collect::<Vec<_>>()
        };
        let reason = match fate {
            Fate::Barred(barred) => Some(sentence(barred).to_owned()),
            Fate::Allowed | Fate::Denied => None,
        };
        let action = |denied: bool| if denied { "deny" } else { "allow" }.to_owned();
        let verdict = LogVerdict {
            action: action(fate != Fate::Allowed),
            policies: named(&|stage| stage.judgement.decision),
            reason,
        };
        let pending = stages.iter().any(|stage| stage.judgement.pending.is_some()).then(|| {
            let would = |stage: &classifier::report::Stage| stage.judgement.pending.unwrap_or(stage.judgement.decision);
            LogVerdict {
                action: action(stages.iter().any(|stage| would(stage).verdict == Judged::Deny)),
                policies: named(&would),
                reason: None,
            }
        });
        let counters = stages
            .iter()
            .filter_map(|stage| self.counter(stage.chain, stage.judgement.decision.cause))
            .collect();
        DecidedPath {
            verdict,
            pending,
            counters,
        }
    }

    fn credit(&mut self, carried: &[(Counter, u64, u64)]) {
        for (counter, packets, bytes) in carried {
            self.compiler.credit(*counter, *packets, *bytes);
        }
    }
}

impl Enforcement {
    fn policy(&self, chain: ChainId, decision: Decision) -> LogPolicy {
        let (tier, rule, _) = because(decision.cause);
        let direction = match self.compiler.direction(chain) {
            Some(Direction::Egress) => "egress",
            _ => "ingress",
        };
        let policy = rule.and_then(|(policy, _)| self.book.name(policy));
        LogPolicy {
            direction: direction.to_owned(),
            tier: tier.and_then(|tier| self.ports.tier(chain, tier)).map(str::to_owned),
            policy: policy.map(ToString::to_string),
            rule: rule.map(|(_, rule)| rule).filter(|rule| *rule != u32::MAX),
            action: match decision.verdict {
                Judged::Allow => "allow",
                Judged::Deny => "deny",
                Judged::Undecided => "pass",
            }
            .to_owned(),
        }
    }

    fn counter(&self, chain: ChainId, cause: Cause) -> Option<Counter> {
        let (Cause::Rule { policy, rule, .. } | Cause::Profile { policy, rule }) = cause else {
            return None;
        };
        self.compiler.counter(policy, self.compiler.direction(chain)?, rule)
    }
}
