//! What control hears of packets that were judged: a report of each, in a bounded queue, never waited for.

use crate::classify::{Judgement, Verdict};
use crate::endpoints::{Barred, CHAINS_MAX};
use crate::nodes::questions::{length, packet};
use crate::packet::{Packet, VECTOR};
use crate::program::ChainId;
use crossbeam_queue::ArrayQueue;
use fastpath::meta::{Flags, Meta, VrfId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Reports that wait for control in one queue: of 50 ms, at 300,000 new connections a second.
const CAPACITY: usize = 1 << 14;

/// What one chain said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// The chain.
    pub chain: ChainId,
    /// What it said.
    pub judgement: Judgement,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It may go.
    Allowed,
    /// A chain denied it: the last of its stages.
    Denied,
    /// No chain was asked.
    Barred(Barred),
}

/// The chains that a packet met, in their order, without gaps.
pub type Stages = [Option<Stage>; CHAINS_MAX];

/// A packet that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// As rules saw it: an answer with both ends exchanged, the target behind its service.
    pub packet: Packet,
    /// The table of routes that it came in by.
    pub vrf: VrfId,
    /// Whether it answers.
    pub is_reply: bool,
    /// Its bytes from the IP header on.
    pub length: u16,
    /// The chains that it met.
    pub stages: Stages,
    /// What became of it.
    pub fate: Fate,
}

/// A queue of reports, of which a worker has one end and control the other.
pub struct Reports {
    queue: ArrayQueue<Report>,
    wanted: AtomicBool,
    lost: AtomicU64,
}

impl Default for Reports {
    fn default() -> Reports {
        Reports {
            queue: ArrayQueue::new(CAPACITY),
            wanted: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }
}

impl Reports {
    /// Whether anybody listens. Nobody does at first.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// The next report, for control.
    pub fn next(&self) -> Option<Report> {
        self.queue.pop()
    }

    /// Reports for which there was no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn tell(&self, report: &Report) {
        if self.queue.push(*report).is_err() {
            // One worker writes here.
            self.lost.store(self.lost.load(Relaxed) + 1, Relaxed);
        }
    }
}

/// A node's reports of the vector under way.
pub(crate) struct Reporter {
    reports: Option<Arc<Reports>>,
    /// By place in the vector; none where nothing is to be told.
    drafts: Box<[Option<Report>; VECTOR]>,
    is_on: bool,
}

impl Reporter {
    pub fn new(reports: Option<Arc<Reports>>) -> Reporter {
        Reporter {
            reports,
            drafts: Box::new([None; VECTOR]),
            is_on: false,
        }
    }

    /// Another vector begins.
    pub fn begin(&mut self) {
        self.is_on = self
            .reports
            .as_ref()
            .is_some_and(|reports| reports.wanted.load(Relaxed));
    }

    /// The packet at a place is to be judged as `asked`.
    #[inline(always)]
    pub fn draft(&mut self, place: usize, meta: &Meta, asked: &Packet) {
        if self.is_on {
            self.drafts[place] = Some(Report {
                packet: *asked,
                vrf: meta.vrf,
                is_reply: meta.flags.has(Flags::REPLY),
                length: length(meta),
                stages: Stages::default(),
                fate: Fate::Allowed,
            });
        }
    }

    pub fn barred(&mut self, place: usize, barred: Barred) {
        if let Some(report) = &mut self.drafts[place] {
            report.fate = Fate::Barred(barred);
        }
    }

    /// What the chain that it met after so many others said.
    #[inline(always)]
    pub fn met(&mut self, place: usize, met: usize, chain: ChainId, judgement: &Judgement) {
        if let (true, Some(report)) = (self.is_on, &mut self.drafts[place]) {
            report.stages[met] = Some(Stage {
                chain,
                judgement: *judgement,
            });
            if judgement.decision.verdict == Verdict::Deny {
                report.fate = Fate::Denied;
            }
        }
    }

    /// The vector of so many packets is over.
    pub fn end(&mut self, packets: usize) {
        if let (true, Some(reports)) = (self.is_on, &self.reports) {
            for report in self.drafts[..packets].iter_mut().filter_map(Option::take) {
                reports.tell(&report);
            }
        }
    }

    /// A packet that another kind of policy denied.
    pub fn denied(&self, meta: &Meta, chain: ChainId, judgement: &Judgement) {
        let Some(reports) = self.reports.as_ref().filter(|_| self.is_on) else {
            return;
        };
        let mut stages = Stages::default();
        stages[0] = Some(Stage {
            chain,
            judgement: *judgement,
        });
        reports.tell(&Report {
            packet: packet(meta),
            vrf: meta.vrf,
            is_reply: false,
            length: length(meta),
            stages,
            fate: Fate::Denied,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_unless_wanted_and_what_does_not_fit_is_counted() {
        let reports = Arc::new(Reports::default());
        let mut reporter = Reporter::new(Some(reports.clone()));
        let meta = Meta::default();
        let mut tell = |times: usize| {
            for _ in 0..times {
                reporter.begin();
                reporter.draft(0, &meta, &packet(&meta));
                reporter.barred(0, Barred::Down);
                reporter.end(1);
            }
        };
        tell(1);
        assert_eq!((reports.next(), reports.lost()), (None, 0));
        reports.set_wanted(true);
        tell(CAPACITY + 2);
        assert_eq!(reports.lost(), 2);
        assert_eq!(
            reports.next().map(|report| report.fate),
            Some(Fate::Barred(Barred::Down))
        );
    }
}
