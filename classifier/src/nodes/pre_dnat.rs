//! Policy before services are translated: it sees where packets were sent, as their bytes say.

use super::questions::{Questions, length, packet};
use crate::classify::{Cause, Classifier, Verdict};
use crate::packet::Packet;
use crate::report::{Reporter, Reports};
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, PortId};
use fastpath::node::{Node, Turn};
use fastpath::packet::Packet as Bytes;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next { On = "on" }
    /// Why packets are dropped.
    pub enum Drop {
        Denied = "denied": "A rule of a pre-DNAT policy denies it.",
        PolicyNotThere = "policy-not-there": "A pre-DNAT policy that applies to it is not there, or names a set that is not.",
    }
}

/// The node.
pub struct PreDnat {
    classifier: Classifier,
    questions: Questions,
    reporter: Reporter,
}

impl PreDnat {
    /// By the policies of `classifier`.
    pub fn new(classifier: Classifier) -> PreDnat {
        PreDnat {
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

impl Node for PreDnat {
    const NAME: &'static str = "pre-dnat";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let mut vector = self.classifier.vector();
        let endpoints = vector.endpoints();
        let questions = &mut self.questions;
        questions.clear();
        self.reporter.begin();
        let mut places = 0..;
        batch.each(|mut here| {
            let place = places.next().unwrap_or_default();
            let port: PortId = here.meta.port;
            // An answer was not sent to a service.
            if !here.meta.flags.has(Flags::REPLY)
                && endpoints
                    .get(port)
                    .is_some_and(|endpoint| endpoint.before_services.is_some())
            {
                let asked = as_sent(&mut here);
                if let Some(chain) = endpoints.before_services(port, &asked) {
                    questions.ask(place, &asked, length(here.meta), chain);
                }
            }
            Ok(Next::On)
        });
        if questions.is_empty() {
            return;
        }
        for (place, chain, judgement) in questions.answers(&mut vector, turn.now_ns) {
            if judgement.decision.verdict == Verdict::Deny {
                self.reporter.denied(batch.packet(place).meta, chain, judgement);
            }
            match (judgement.decision.verdict, judgement.decision.cause) {
                (Verdict::Undecided | Verdict::Allow, _) => {}
                (Verdict::Deny, Cause::Unfinished { .. } | Cause::NoChain) => {
                    batch.decide(place, Err(Drop::PolicyNotThere));
                }
                (Verdict::Deny, _) => batch.decide(place, Err(Drop::Denied)),
            }
        }
    }
}

/// The packet with the destination that its bytes have: its meta may know already what a service translates it to.
fn as_sent(here: &mut Bytes<'_>) -> Packet {
    let mut asked = packet(here.meta);
    let (is_v4, transport) = (
        here.meta.flags.has(Flags::IPV4),
        usize::from(here.meta.transport_offset),
    );
    let port = asked.target.port;
    let bytes = here.network();
    let sent = match is_v4 {
        true => bytes
            .get(16..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|address| Endpoint::v4(*address, port)),
        false => bytes
            .get(24..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|address| Endpoint {
                address: *address,
                port,
            }),
    };
    if let Some(sent) = sent {
        asked.target = sent;
    }
    if asked.has_ports()
        && let Some([high, low]) = bytes.get(transport + 2..).and_then(|bytes| bytes.first_chunk())
    {
        asked.target.port = u16::from_be_bytes([*high, *low]);
    }
    asked
}
