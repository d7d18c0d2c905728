//! Packet traces: what workers recorded, told as stories.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fastpath::builder::StageInfo;
use fastpath::trace::{Fate, Filter, Tracer, Visit, Visits};
use fastpath::worker::Command;

use super::State;
use crate::api::TRACE_MAX;
use crate::refusal::Refusal;
use crate::show::trace::{TraceStep, TracedPacket};

/// Most packets kept.
const STORIES_MAX: usize = 10_000;

struct Story {
    start_cycles: u64,
    packet: TracedPacket,
}

/// The trace that is armed, and the stories so far.
#[derive(Default)]
pub(super) struct Trace {
    visits: Visits,
    remaining: Arc<AtomicU32>,
    began_ns: Option<u64>,
    stories: Vec<Story>,
    /// The story of the packet in a frame that has not ended yet.
    open: HashMap<u32, usize>,
}

impl State {
    pub(super) fn trace_add(&mut self, count: u32, expression: &str) -> Result<(), Refusal> {
        if count == 0 || count > TRACE_MAX {
            return Err(Refusal::new(format!(
                "cannot trace {count} packets; expected 1 to {TRACE_MAX}"
            )));
        }
        // One program for each worker, for it is not shared.
        let mut filters = vec![];
        for _ in &self.workers.handles {
            filters.push(filter(expression)?);
        }
        self.collect_trace();
        let now_ns = self.now_ns();
        self.trace.began_ns.get_or_insert(now_ns);
        self.trace.remaining = Arc::new(AtomicU32::new(count));
        let (remaining, visits) = (self.trace.remaining.clone(), self.trace.visits.clone());
        self.workers.ask_all(|| {
            let filter = filters.pop().flatten();
            Command::Trace(Some(Tracer::new(remaining.clone(), filter, visits.clone())))
        });
        Ok(())
    }

    pub(super) fn trace_show(&mut self) -> Vec<TracedPacket> {
        self.collect_trace();
        self.trace.stories.iter().map(|story| story.packet.clone()).collect()
    }

    pub(super) fn trace_clear(&mut self) {
        self.workers.ask_all(|| Command::Trace(None));
        self.trace.remaining.store(0, Ordering::Relaxed);
        while self.trace.visits.next().is_some() {}
        self.trace = Trace::default();
    }

    fn collect_trace(&mut self) {
        let mut visits: Vec<Visit> = std::iter::from_fn(|| self.trace.visits.next()).collect();
        visits.sort_by_key(|visit| (visit.at_ns, visit.cycles));
        let Some(stages) = self.workers.handles.first().map(|handle| handle.stages.clone()) else {
            return;
        };
        let ns_per_cycle = self.start.ns_per_cycle();
        for visit in visits {
            let port = self.ports.name_of(visit.seen.meta.port);
            self.trace.add(&stages, &visit, port, ns_per_cycle);
        }
    }
}

impl Trace {
    fn add(&mut self, stages: &[StageInfo], visit: &Visit, port: String, ns_per_cycle: f64) {
        let Some(stage) = stages.get(usize::from(visit.stage)) else {
            return;
        };
        let open = self.open.get(&visit.frame).copied();
        let at = match (visit.fate, open) {
            // A packet that waited, or changed workers, goes on with its story.
            (Fate::Entered, Some(at)) if stage.name != "port-in" => at,
            (Fate::Entered, _) => {
                if self.stories.len() == STORIES_MAX {
                    return;
                }
                self.stories.push(Story::begin(
                    visit,
                    port,
                    self.stories.len(),
                    self.began_ns.unwrap_or_default(),
                ));
                self.stories.len() - 1
            }
            (_, Some(at)) => at,
            (_, None) => return,
        };
        self.open.insert(visit.frame, at);
        let waits = ["hold", "port-out"].contains(&stage.name.as_str());
        if matches!(visit.fate, Fate::Dropped(_)) || (visit.fate == Fate::Taken && !waits) {
            self.open.remove(&visit.frame);
        }
        self.stories[at].step(stage, visit, ns_per_cycle);
    }
}

impl Story {
    fn begin(visit: &Visit, port: String, number: usize, began_ns: u64) -> Self {
        let packet = TracedPacket {
            number: number as u64 + 1,
            at: visit.at_ns.saturating_sub(began_ns),
            port,
            length: u32::from(visit.seen.length),
            steps: vec![],
        };
        Self {
            start_cycles: visit.cycles,
            packet,
        }
    }

    fn step(&mut self, stage: &StageInfo, visit: &Visit, ns_per_cycle: f64) {
        let decision = match visit.fate {
            Fate::Entered => "in".to_owned(),
            Fate::Taken => "out".to_owned(),
            Fate::Edge(edge) => stage.edges.get(usize::from(edge)).map_or("", |edge| edge.0).to_owned(),
            Fate::Dropped(reason) => {
                let reason = stage.drops.get(usize::from(reason)).or(stage.drops.last());
                reason.map_or_else(String::new, |(name, sentence)| format!("dropped: {name}: {sentence}"))
            }
        };
        // Within a turn the clock stands still; the time-stamp counters of all cores go together.
        let at_ns = (visit.cycles.saturating_sub(self.start_cycles) as f64 * ns_per_cycle) as u64;
        let detail = (stage.describe)(&visit.seen);
        self.packet.steps.push(TraceStep {
            node: stage.name.clone(),
            at_ns,
            decision,
            detail,
        });
    }
}

/// Compiles a pcap-filter expression.
pub(super) fn filter(expression: &str) -> Result<Option<Filter>, Refusal> {
    if expression.trim().is_empty() {
        return Ok(None);
    }
    let refuse = |error: pcap::Error| Refusal::new(format!("cannot read the filter `{expression}`: {error}"));
    let capture = pcap::Capture::dead(pcap::Linktype::ETHERNET).map_err(refuse)?;
    let program = capture.compile(expression, true).map_err(refuse)?;
    Ok(Some(Box::new(move |packet| program.filter(packet))))
}
