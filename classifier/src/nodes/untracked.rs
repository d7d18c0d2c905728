//! What stands before connections are tracked: where workloads may send from, and policy that wants no connections.
//!
//! Policy here sees every packet as it came. What it allows goes on without a connection, both ways; what it does not
//! decide is tracked like everything else.

use super::questions::{Questions, length, packet, version};
use crate::classify::{Cause, Classifier, Verdict};
use crate::endpoints::Sender;
use crate::report::{Reporter, Reports};
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::Flags;
use fastpath::node::{Node, Turn};
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Track = "track",
        Untracked = "untracked",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Spoofed = "spoofed-source": "A workload sent it from an address that is not its own.",
        Denied = "denied": "A rule of an untracked policy denies it.",
        PolicyNotThere = "policy-not-there": "An untracked policy that applies to it is not there, or names a set that is not.",
    }
}

/// The node.
pub struct Untracked {
    classifier: Classifier,
    questions: Questions,
    reporter: Reporter,
}

impl Untracked {
    /// By the policies of `classifier`.
    pub fn new(classifier: Classifier) -> Untracked {
        Untracked {
            classifier,
            questions: Questions::new(),
            reporter: Reporter::new(None),
        }
    }

    /// It tells control what it denies.
    pub fn reporting(mut self, reports: Arc<Reports>) -> Self {
        self.reporter = Reporter::new(Some(reports));
        self
    }
}

impl Node for Untracked {
    const NAME: &'static str = "untracked";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let mut vector = self.classifier.vector();
        let endpoints = vector.endpoints();
        let questions = &mut self.questions;
        questions.clear();
        self.reporter.begin();
        let mut places = 0..;
        let mut sender: Option<Sender<'_>> = None;
        batch.each(|here| {
            let place = places.next().unwrap_or_default();
            let sender = match sender {
                Some(known) if known.port == here.meta.port => known,
                _ => *sender.insert(endpoints.sender(here.meta.port)),
            };
            if sender.is_free() {
                return Ok(Next::Track);
            }
            if !sender.may_send_from(&here.meta.source, version(here.meta)) {
                return Err(Drop::Spoofed);
            }
            // Later fragments go the way of the first, which is known where fragments are put together.
            if sender.has_untracked() && !here.meta.flags.has(Flags::LATER_FRAGMENT) {
                let asked = packet(here.meta);
                if let Some(chain) = sender.untracked(&asked) {
                    questions.ask(place, &asked, length(here.meta), chain);
                }
            }
            Ok(Next::Track)
        });
        if questions.is_empty() {
            return;
        }
        for (place, chain, judgement) in questions.answers(&mut vector, turn.now_ns) {
            if judgement.decision.verdict == Verdict::Deny {
                self.reporter.denied(batch.packet(place).meta, chain, judgement);
            }
            match (judgement.decision.verdict, judgement.decision.cause) {
                (Verdict::Undecided, _) => {}
                (Verdict::Allow, _) => {
                    batch.packet(place).meta.flags.clear(Flags::TRACKED);
                    batch.decide(place, Ok(Next::Untracked));
                }
                (Verdict::Deny, Cause::Unfinished { .. } | Cause::NoChain) => {
                    batch.decide(place, Err(Drop::PolicyNotThere));
                }
                (Verdict::Deny, _) => batch.decide(place, Err(Drop::Denied)),
            }
        }
    }
}
