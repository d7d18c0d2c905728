//! Policy between two ends: whoever sent the packet has to be allowed to, and whoever gets it has to want it.
//!
//! A packet that answers is judged as the one that opened the connection: with both ends exchanged.

use super::questions::{Questions, length, packet};
use crate::classify::{Cause, Classifier, Verdict};
use crate::endpoints::{Barred, Passage, Side};
use crate::packet::{Packet, VECTOR};
use crate::report::{Reporter, Reports};
use crate::rule::IpVersion;
use fastpath::batch::Batch;
use fastpath::forwarding::{Forwarding, LOCAL, TUNNEL};
use fastpath::labels;
use fastpath::meta::{Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::nodes::icmp_error::Complaint;
use fastpath::trace::Seen;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Allowed = "allowed",
        Rejected = "rejected": "Policy denies it, and its sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Denied = "denied": "A rule of a policy or profile denies it.",
        EndOfTier = "no-policy-allows": "Policies of a tier apply to an end of it, and none of them allows it.",
        NoProfile = "no-profile-allows": "No policy applies to an end of it, and no profile allows it.",
        PolicyNotThere = "policy-not-there": "A policy that applies to it is not there, or names a set that is not.",
        EndpointDown = "endpoint-down": "The workload at one end of it is administratively down.",
        Undescribed = "undescribed-interface": "Nobody said who is behind the port that it came from or goes to.",
        ToHost = "workload-to-host": "Sent by a workload to this host, which DefaultEndpointToHostAction drops.",
        Encapsulated = "workload-tunnel": "A workload sent VXLAN or IP within IP, which it may not.",
        Nowhere = "nowhere": "It is not known where it goes; please report it.",
    }
}

impl From<Barred> for Drop {
    fn from(barred: Barred) -> Drop {
        match barred {
            Barred::Undescribed => Drop::Undescribed,
            Barred::Down => Drop::EndpointDown,
            Barred::ToHost => Drop::ToHost,
            Barred::Encapsulated => Drop::Encapsulated,
        }
    }
}

impl From<Cause> for Drop {
    fn from(cause: Cause) -> Drop {
        match cause {
            Cause::Rule { .. } | Cause::Profile { .. } => Drop::Denied,
            Cause::EndOfTier { .. } => Drop::EndOfTier,
            Cause::EndOfChain => Drop::NoProfile,
            Cause::Unfinished { .. } | Cause::NoChain => Drop::PolicyNotThere,
        }
    }
}

/// The node.
pub struct Classify {
    forwarding: Arc<Forwarding>,
    classifier: Classifier,
    /// What is still before each packet.
    passages: Box<[Passage; VECTOR]>,
    asked: Box<[Packet; VECTOR]>,
    questions: Questions,
    reporter: Reporter,
}

impl Classify {
    /// By the policies of `classifier`; where packets go is said by adjacencies of `forwarding`.
    pub fn new(classifier: Classifier, forwarding: Arc<Forwarding>) -> Classify {
        Classify {
            forwarding,
            classifier,
            passages: Box::new([Passage::default(); VECTOR]),
            asked: Box::new([packet(&Meta::default()); VECTOR]),
            questions: Questions::new(),
            reporter: Reporter::new(None),
        }
    }

    /// It tells control what it judges.
    pub fn reporting(mut self, reports: Arc<Reports>) -> Self {
        self.reporter = Reporter::new(Some(reports));
        self
    }
}

impl Node for Classify {
    const NAME: &'static str = "classify";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let mut vector = self.classifier.vector();
        let endpoints = vector.endpoints();
        let reporter = &mut self.reporter;
        reporter.begin();
        let mut places = self.passages.iter_mut().zip(self.asked.iter_mut()).enumerate();
        batch.each(|here| {
            let Some((place, (passage, asked))) = places.next() else {
                return Err(Drop::Nowhere);
            };
            *passage = Passage::default();
            let (from, to) = ends(&self.forwarding, here.meta).ok_or(Drop::Nowhere)?;
            *asked = opening(here.meta);
            reporter.draft(place, here.meta, asked);
            *passage = endpoints.passage(from, to, asked).inspect_err(|barred| {
                reporter.barred(place, *barred);
            })?;
            Ok(Next::Allowed)
        });
        // Most packets meet two chains, none more than a few.
        for met in 0.. {
            self.questions.clear();
            for place in 0..batch.len() {
                if let Some(Some(chain)) = self.passages[place].get(met) {
                    let length = length(batch.packet(place).meta);
                    self.questions.ask(place, &self.asked[place], length, *chain);
                }
            }
            if self.questions.is_empty() {
                return reporter.end(batch.len());
            }
            for (place, chain, judgement) in self.questions.answers(&mut vector, turn.now_ns) {
                reporter.met(place, met, chain, judgement);
                if judgement.decision.verdict != Verdict::Deny {
                    continue;
                }
                self.passages[place] = Passage::default();
                let fate = match endpoints.settings().reject {
                    true => Ok(Next::Rejected),
                    false => Err(judgement.decision.cause.into()),
                };
                if fate.is_ok() {
                    batch.packet(place).meta.complaint = Complaint::Prohibited as u8;
                }
                batch.decide(place, fate);
            }
        }
    }

    fn describe(seen: &Seen) -> String {
        let meta = &seen.meta;
        let reply = if meta.flags.has(Flags::REPLY) {
            ", an answer"
        } else {
            ""
        };
        let to = match meta.adjacency {
            LOCAL => "this host".to_owned(),
            TUNNEL => format!("port {}", meta.egress.0),
            index => format!("adjacency {index}"),
        };
        format!("from port {} to {to}{reply}", meta.port.0)
    }
}

/// Where the connection of a packet was opened, and where to.
#[inline(always)]
fn ends(forwarding: &Forwarding, meta: &Meta) -> Option<(Side, Side)> {
    let here = Side::Port(meta.port);
    let there = match meta.adjacency {
        LOCAL => Side::Host,
        TUNNEL => Side::Port(meta.egress),
        index => Side::Port(forwarding.adjacency(index)?.port),
    };
    Some(match meta.flags.has(Flags::REPLY) {
        false => (here, there),
        true => (there, here),
    })
}

/// The packet that opened the connection, as far as rules see it.
#[inline(always)]
fn opening(meta: &Meta) -> Packet {
    let here = packet(meta);
    if !meta.flags.has(Flags::REPLY) {
        return here;
    }
    let mut opening = Packet {
        source: here.target,
        target: here.source,
        ..here
    };
    if here.is_icmp() {
        (opening.source.port, opening.target.port) = (here.source.port, request(here.version, here.target.port));
    }
    opening
}

/// Type and code of the request to a kind of answer (RFC 792, RFC 4443 section 4).
fn request(version: IpVersion, answer: u16) -> u16 {
    let kind = match (version, answer >> 8) {
        (IpVersion::V4, 0) => 8,
        (IpVersion::V4, 14) => 13,
        (IpVersion::V4, 16) => 15,
        (IpVersion::V4, 18) => 17,
        (IpVersion::V6, 129) => 128,
        (_, kind) => kind,
    };
    kind << 8 | answer & 0xff
}
