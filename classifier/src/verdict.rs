//! What is said about a packet, and why.

use crate::program::PolicyId;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may go on.
    Allow,
    /// It is dropped.
    Deny,
    /// Policy that may leave packets to others did: [`Last::Undecided`](crate::program::Last).
    Undecided,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A rule of a policy.
    Rule {
        /// The tier's place in the chain.
        tier: u16,
        /// The policy.
        policy: PolicyId,
        /// The rule's place, counted from 0.
        rule: u32,
    },
    /// No policy of a tier, whose default action is to deny.
    EndOfTier {
        /// The tier's place in the chain.
        tier: u16,
    },
    /// A rule of a profile.
    Profile {
        /// The profile.
        policy: PolicyId,
        /// The rule's place, counted from 0.
        rule: u32,
    },
    /// Nothing: the chain ends so.
    EndOfChain,
    /// A policy or profile that is not there, or names a set that is not.
    Unfinished {
        /// The policy.
        policy: PolicyId,
    },
    /// There is no such chain.
    NoChain,
}

/// A verdict and what it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
}

impl Decision {
    /// Denied, since nothing is known of the chain.
    pub const NO_CHAIN: Decision = Decision {
        verdict: Verdict::Deny,
        cause: Cause::NoChain,
    };
}

/// All there is to say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// What is in force.
    pub decision: Decision,
    /// What would be, if staged policies were in force, too; nothing where the chain has none.
    pub pending: Option<Decision>,
}

impl Judgement {
    /// Denied, since nothing is known of the chain.
    pub const NO_CHAIN: Judgement = Judgement {
        decision: Decision::NO_CHAIN,
        pending: None,
    };
}

/// A rule that logs matched a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The packet's place in the vector.
    pub packet: u8,
    /// The tier's place in the chain; none for a profile.
    pub tier: Option<u16>,
    /// The policy or profile.
    pub policy: PolicyId,
    /// The rule's place, counted from 0.
    pub rule: u32,
}

/// A policy left a packet to the next tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The tier's place in the chain.
    pub tier: u16,
    /// The policy.
    pub policy: PolicyId,
    /// The rule's place, counted from 0.
    pub rule: u32,
    /// As if nothing were staged.
    pub pending: bool,
}
