//! What workers hold of the policies: a snapshot of compiled policies, and the chains that name them.

use crate::endpoints::Endpoints;
use crate::rule::Rule;
use crate::ruleset::Ruleset;
use crate::tally::Places;
use std::sync::Arc;

/// Names a policy or a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub u32);

/// Names a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// A policy or profile as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// For packets to the endpoint.
    pub ingress: Vec<Rule>,
    /// For packets from it.
    pub egress: Vec<Rule>,
}

/// Which way packets go, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

/// What happens to packets that no policy of a tier decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DefaultAction {
    /// They are denied, if the tier has a policy that is not staged.
    #[default]
    Deny,
    /// They go to the next tier.
    Pass,
}

/// A policy's place in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The policy.
    pub policy: PolicyId,
    /// It never decides, but is evaluated beside those that do.
    pub staged: bool,
}

/// Policies in order, those that apply in the chain's direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// In order.
    pub policies: Vec<Placed>,
    /// For what none of them decides.
    pub default: DefaultAction,
}

/// What happens to packets that no tier decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Last {
    /// These profiles decide, in order; then packets are denied. Normal policy of workloads and hosts.
    Profiles(Vec<PolicyId>),
    /// They are allowed. Policy of hosts for what they forward.
    Allow,
    /// Nothing is decided. Untracked and pre-DNAT policy of hosts, whose tiers have [`DefaultAction::Pass`].
    Undecided,
}

/// All that packets of an endpoint in one direction have to pass. Endpoints whose chains are equal share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Whether the policies' ingress or egress rules are meant.
    pub direction: Direction,
    /// In order.
    pub tiers: Vec<Tier>,
    /// Behind the tiers.
    pub last: Last,
}

/// A compiled policy.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub ingress: Arc<Ruleset>,
    pub egress: Arc<Ruleset>,
    /// Where its rules are counted.
    pub places: Places,
}

impl Compiled {
    pub fn rules(&self, direction: Direction) -> &Ruleset {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// A tier to be walked.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Its place in the chain as written.
    pub tier: u16,
    pub policies: Box<[Placed]>,
    pub default: DefaultAction,
}

/// A compiled chain.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub direction: Direction,
    /// What decides.
    pub enforced: Box<[Step]>,
    /// What would decide if nothing were staged; nothing where nothing is.
    pub pending: Option<Box<[Step]>>,
    pub last: Last,
}

impl Steps {
    pub fn of(chain: &Chain) -> Steps {
        let steps = |staged: bool| {
            let step = |(tier, written): (usize, &Tier)| {
                let in_force = |placed: &&Placed| staged || !placed.staged;
                Step {
                    tier: tier as u16,
                    policies: written.policies.iter().filter(in_force).copied().collect(),
                    default: written.default,
                }
            };
            // A tier without policies is no tier: its default action applies to nothing.
            let steps = chain.tiers.iter().enumerate().map(step);
            steps.filter(|step| !step.policies.is_empty()).collect()
        };
        let any_staged = chain
            .tiers
            .iter()
            .flat_map(|tier| &tier.policies)
            .any(|placed| placed.staged);
        Steps {
            direction: chain.direction,
            enforced: steps(false),
            pending: any_staged.then(|| steps(true)),
            last: chain.last.clone(),
        }
    }
}

/// Everything in force. A worker sees one program for a whole vector.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(crate) policies: Slots<Compiled>,
    pub(crate) chains: Slots<Steps>,
    pub(crate) endpoints: Endpoints,
}

/// Values by number. A copy shares what is not changed, so that a change costs what it changes, not what there is.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    pages: Vec<Arc<[Option<Arc<T>>; PAGE]>>,
}

/// Values that are copied together.
const PAGE: usize = 64;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { pages: vec![] }
    }
}

impl<T> Slots<T> {
    pub fn get(&self, number: u32) -> Option<&T> {
        self.pages.get(number as usize / PAGE)?[number as usize % PAGE].as_deref()
    }

    pub fn set(&mut self, number: u32, value: Option<Arc<T>>) {
        let page = number as usize / PAGE;
        while self.pages.len() <= page {
            self.pages.push(Arc::new([const { None }; PAGE]));
        }
        Arc::make_mut(&mut self.pages[page])[number as usize % PAGE] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_was_changed_later() {
        let mut slots = Slots::default();
        slots.set(200, Some(Arc::new(1)));
        let before = slots.clone();
        slots.set(200, Some(Arc::new(2)));
        slots.set(3, None);
        assert_eq!(
            [before.get(200), slots.get(200), slots.get(3), slots.get(5000)],
            [Some(&1), Some(&2), None, None]
        );
        assert!(
            Arc::ptr_eq(&before.pages[1], &slots.pages[1]),
            "pages that did not change are shared"
        );
    }

    #[test]
    fn a_tier_of_staged_policies_only_is_no_tier() {
        let placed = |policy, staged| Placed {
            policy: PolicyId(policy),
            staged,
        };
        let tier = |policies| Tier {
            policies,
            default: DefaultAction::Deny,
        };
        let steps = Steps::of(&Chain {
            direction: Direction::Egress,
            tiers: vec![tier(vec![placed(1, true)]), tier(vec![placed(2, false)]), tier(vec![])],
            last: Last::Allow,
        });
        assert_eq!(steps.enforced.len(), 1);
        assert_eq!(steps.enforced[0].tier, 1);
        assert_eq!(steps.pending.map(|steps| steps.len()), Some(2));
    }
}
