//! Judging packets: a worker's end of the policies.

use crate::endpoints::Endpoints;
use crate::lookup::{Hits, Way};
use crate::packet::{Columns, Key, Packet, VECTOR};
use crate::pattern::Rank;
use crate::program::{Compiled, DefaultAction, Direction, Last, Placed, PolicyId, Program, Step, Steps};
use crate::rule::{Action, IpVersion};
use crate::ruleset::{Part, Ruleset};
use crate::sets::{Class, Memory, View};
use crate::tally::Tally;
use fastpath::publish::Reader;
use std::sync::Arc;

pub use crate::verdict::{Cause, Decision, Judgement, Logged, Passed, Verdict};

/// Log entries that one vector may make.
const LOGS_MAX: usize = 4 * VECTOR;

/// Judges packets for one worker, which has to be online in the `Qsbr` of the sets and to announce its turns.
pub struct Classifier {
    program: Reader<Program>,
    sets: View,
    way: Way,
    tally: Option<Arc<Tally>>,
    scratch: Box<Scratch>,
}

/// Memory that is used again for every vector.
struct Scratch {
    classes: [[Class; 2]; VECTOR],
    order: [Place; VECTOR],
    v4: Rows<1>,
    v6: Rows<4>,
    wide: Wide,
    logs: Vec<Logged>,
    logs_lost: u64,
}

/// A packet's chain and version, and its place in the vector.
type Place = (u32, IpVersion, u8);

/// The packets of one IP version under way.
#[derive(Default)]
struct Rows<const W: usize> {
    /// Not decided yet.
    open: Columns<W>,
    /// Passed to the next tier.
    passed: Columns<W>,
}

/// What lookups write.
struct Wide {
    best: [Rank; VECTOR],
    hits: Hits,
}

impl Classifier {
    pub(crate) fn new(program: Reader<Program>, sets: View, way: Way, tally: Option<Arc<Tally>>) -> Classifier {
        let scratch = Scratch {
            classes: [[Class::default(); 2]; VECTOR],
            order: [(0, IpVersion::V4, 0); VECTOR],
            v4: Rows::default(),
            v6: Rows::default(),
            wide: Wide {
                best: [Rank::NONE; VECTOR],
                hits: Hits::new(),
            },
            logs: Vec::with_capacity(LOGS_MAX),
            logs_lost: 0,
        };
        Classifier {
            program,
            sets,
            way,
            tally,
            scratch: Box::new(scratch),
        }
    }

    /// All that is in force now, for one vector: one program, however often it is asked.
    pub fn vector(&mut self) -> Vector<'_> {
        // First the program, then the sets: what the program names is there.
        let program = self.program.refresh();
        Vector {
            program,
            sets: &self.sets,
            way: self.way,
            tally: self.tally.as_deref(),
            scratch: &mut self.scratch,
        }
    }

    /// Judges packets, as [`Vector::classify`].
    ///
    /// # Panics
    /// As it.
    pub fn classify(&mut self, packets: &[Packet], judgements: &mut [Judgement]) -> &[Logged] {
        self.vector().judge(packets, judgements, None, None)
    }

    /// Log entries there was no room for.
    pub fn logs_lost(&self) -> u64 {
        self.scratch.logs_lost
    }
}

/// What one vector of packets is judged by.
pub struct Vector<'a> {
    program: &'a Program,
    sets: &'a View,
    way: Way,
    tally: Option<&'a Tally>,
    scratch: &'a mut Scratch,
}

impl<'a> Vector<'a> {
    /// Who is behind the ports.
    pub fn endpoints(&self) -> &'a Endpoints {
        &self.program.endpoints
    }

    /// Judges packets: `judgements[i]` becomes that of `packets[i]`. Returns what rules logged, in the order in which each
    /// packet met them.
    ///
    /// # Panics
    /// If there are more than [`VECTOR`] packets, or not as many judgements.
    pub fn classify(&mut self, packets: &[Packet], judgements: &mut [Judgement]) -> &[Logged] {
        self.again().judge(packets, judgements, None, None)
    }

    /// Judges packets as [`classify`](Self::classify), and counts them for the rules that they meet: `lengths[i]` bytes
    /// for `packets[i]`, seen at `now_ns`.
    ///
    /// # Panics
    /// As it.
    pub fn count(
        &mut self,
        packets: &[Packet],
        lengths: &[u16],
        now_ns: u64,
        judgements: &mut [Judgement],
    ) -> &[Logged] {
        let counting = self.tally.map(|tally| Counting { tally, lengths, now_ns });
        self.again().judge(packets, judgements, None, counting)
    }

    /// Judges one packet, and says in order which policies left it to the next tier on its way.
    pub fn explain(&mut self, packet: &Packet) -> (Judgement, Vec<Passed>) {
        let (mut judgement, mut passed) = ([Judgement::NO_CHAIN], vec![]);
        self.again()
            .judge(std::slice::from_ref(packet), &mut judgement, Some(&mut passed), None);
        (judgement[0], passed)
    }

    fn again(&mut self) -> Vector<'_> {
        Vector {
            scratch: &mut *self.scratch,
            ..*self
        }
    }

    fn judge(
        self,
        packets: &[Packet],
        judgements: &mut [Judgement],
        mut passed: Option<&mut Vec<Passed>>,
        counting: Option<Counting<'_>>,
    ) -> &'a [Logged] {
        assert!(packets.len() <= VECTOR && packets.len() == judgements.len());
        let (program, scratch) = (self.program, self.scratch);
        scratch.logs.clear();
        self.sets.resolve(packets, &mut scratch.classes);
        judgements.fill(Judgement::NO_CHAIN);
        let order = grouped(packets, &mut scratch.order);
        for group in order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (chain, version, _) = group[0];
            let Some(steps) = program.chains.get(chain) else {
                continue;
            };
            let mut walk = Walk {
                program,
                packets,
                classes: &scratch.classes,
                memory: self.sets.memory(),
                way: self.way,
                wide: &mut scratch.wide,
                logs: &mut scratch.logs,
                logs_lost: &mut scratch.logs_lost,
                passed: passed.as_deref_mut(),
                counting,
            };
            match version {
                IpVersion::V4 => walk.judge(steps, group, &mut scratch.v4, |rules| &rules.v4, judgements),
                IpVersion::V6 => walk.judge(steps, group, &mut scratch.v6, |rules| &rules.v6, judgements),
            }
        }
        &scratch.logs
    }
}

/// The packets' places, those of one chain and version in a row.
fn grouped<'a>(packets: &[Packet], order: &'a mut [Place; VECTOR]) -> &'a [Place] {
    let order = &mut order[..packets.len()];
    for (number, (place, packet)) in order.iter_mut().zip(packets).enumerate() {
        *place = (packet.chain.0, packet.version, number as u8);
    }
    let group = |place: &Place| (place.0, place.1 == IpVersion::V6);
    if !order.is_sorted_by_key(group) {
        order.sort_unstable_by_key(|place| (group(place), place.2));
    }
    order
}

/// One walk of packets along a chain.
struct Walk<'a> {
    program: &'a Program,
    packets: &'a [Packet],
    classes: &'a [[Class; 2]; VECTOR],
    memory: &'a Memory,
    way: Way,
    wide: &'a mut Wide,
    logs: &'a mut Vec<Logged>,
    logs_lost: &'a mut u64,
    passed: Option<&'a mut Vec<Passed>>,
    counting: Option<Counting<'a>>,
}

/// How the packets of a vector are counted.
#[derive(Clone, Copy)]
struct Counting<'a> {
    tally: &'a Tally,
    lengths: &'a [u16],
    now_ns: u64,
}

impl Counting<'_> {
    fn add(&self, compiled: &Compiled, direction: Direction, rule: u32, packet: u8) {
        let length = self.lengths.get(usize::from(packet)).copied().unwrap_or_default();
        let place = compiled.places.get(direction, rule);
        self.tally.add(place, 1, length.into(), self.now_ns);
    }
}

/// Where in the chain a policy is met.
#[derive(Clone, Copy)]
enum Met {
    /// In a tier; rules that log are heeded.
    Tier(u16),
    /// As if nothing were staged, where logs would be false.
    Pending { tier: u16, staged: bool },
    /// As a profile; the second time without logs.
    Profile { logs: bool },
}

impl Met {
    /// The tier, and whether it is as if nothing were staged.
    fn tier(self) -> Option<(u16, bool)> {
        match self {
            Met::Tier(tier) => Some((tier, false)),
            Met::Pending { tier, .. } => Some((tier, true)),
            Met::Profile { .. } => None,
        }
    }

    /// Whether its rules are counted: each once for a packet, so staged ones where they are in force.
    fn counts(self) -> bool {
        match self {
            Met::Tier(_) => true,
            Met::Pending { staged, .. } => staged,
            Met::Profile { logs } => logs,
        }
    }
}

impl Walk<'_> {
    fn judge<const W: usize>(
        &mut self,
        steps: &Steps,
        group: &[Place],
        rows: &mut Rows<W>,
        part: impl Fn(&Ruleset) -> &Part<W>,
        judgements: &mut [Judgement],
    ) {
        self.fill(group, rows);
        let enforced = |tier, _| Met::Tier(tier);
        self.tiers(&steps.enforced, enforced, steps, rows, &part, |packet, decision| {
            judgements[usize::from(packet)].decision = decision;
        });
        if let Some(pending) = &steps.pending {
            self.fill(group, rows);
            let staged = |tier, staged| Met::Pending { tier, staged };
            self.tiers(pending, staged, steps, rows, &part, |packet, decision| {
                judgements[usize::from(packet)].pending = Some(decision);
            });
        }
    }

    fn fill<const W: usize>(&self, group: &[Place], rows: &mut Rows<W>) {
        rows.open.clear();
        for (_, _, number) in group {
            let number = usize::from(*number);
            let key = Key::new(&self.packets[number]);
            rows.open.push(number as u8, &key, self.classes[number]);
        }
    }

    /// Leads the open rows through tiers and whatever comes last; `decide` hears of each.
    fn tiers<const W: usize>(
        &mut self,
        tiers: &[Step],
        met: impl Fn(u16, bool) -> Met,
        steps: &Steps,
        rows: &mut Rows<W>,
        part: &impl Fn(&Ruleset) -> &Part<W>,
        mut decide: impl FnMut(u8, Decision),
    ) {
        for step in tiers {
            rows.passed.clear();
            for Placed { policy, staged } in &step.policies {
                let met = met(step.tier, *staged);
                self.policy(*policy, met, steps.direction, rows, part, &mut decide);
            }
            if step.default == DefaultAction::Deny {
                end(rows, Verdict::Deny, Cause::EndOfTier { tier: step.tier }, &mut decide);
            }
            for row in 0..rows.passed.len() {
                let (key, classes) = (rows.passed.key(row), rows.passed.classes(row));
                rows.open.push(rows.passed.packet[row], &key, classes);
            }
        }
        let verdict = match &steps.last {
            Last::Profiles(profiles) => {
                let logs = matches!(met(0, false), Met::Tier(_));
                for profile in profiles {
                    self.policy(
                        *profile,
                        Met::Profile { logs },
                        steps.direction,
                        rows,
                        part,
                        &mut decide,
                    );
                }
                Verdict::Deny
            }
            Last::Allow => Verdict::Allow,
            Last::Undecided => Verdict::Undecided,
        };
        end(rows, verdict, Cause::EndOfChain, &mut decide);
    }

    /// Lets one policy decide what it can of the open rows.
    fn policy<const W: usize>(
        &mut self,
        policy: PolicyId,
        met: Met,
        direction: Direction,
        rows: &mut Rows<W>,
        part: &impl Fn(&Ruleset) -> &Part<W>,
        decide: &mut impl FnMut(u8, Decision),
    ) {
        if rows.open.is_empty() {
            return;
        }
        let program = self.program;
        let finished = |compiled: &&Compiled| compiled.rules(direction).unfinished().is_none();
        let Some(compiled) = program.policies.get(policy.0).filter(finished) else {
            return end(rows, Verdict::Deny, Cause::Unfinished { policy }, decide);
        };
        let rules = compiled.rules(direction);
        let counting = self.counting.filter(|_| met.counts());
        let part = part(rules);
        part.find(
            self.way,
            &rows.open,
            self.packets,
            self.memory,
            &mut self.wide.best,
            &mut self.wide.hits,
        );
        self.log(part, policy, met, &rows.open, |rule, packet| {
            if let Some(counting) = counting {
                counting.add(compiled, direction, rule, packet);
            }
        });
        let mut left = 0;
        for row in 0..rows.open.len() {
            let Some(rule) = part.place(self.wide.best[row]) else {
                rows.open.shift(row, left);
                left += 1;
                continue;
            };
            if let Some(counting) = counting {
                counting.add(compiled, direction, rule, rows.open.packet[row]);
            }
            let action = rules.action(rule);
            let cause = match met {
                Met::Tier(tier) | Met::Pending { tier, .. } => Cause::Rule { tier, policy, rule },
                Met::Profile { .. } => Cause::Profile { policy, rule },
            };
            if let (Action::Pass, Some((tier, pending))) = (action, met.tier()) {
                if let Some(passed) = &mut self.passed {
                    passed.push(Passed {
                        tier,
                        policy,
                        rule,
                        pending,
                    });
                }
                let (key, classes) = (rows.open.key(row), rows.open.classes(row));
                rows.passed.push(rows.open.packet[row], &key, classes);
                continue;
            }
            let verdict = if action == Action::Allow {
                Verdict::Allow
            } else {
                Verdict::Deny
            };
            decide(rows.open.packet[row], Decision { verdict, cause });
        }
        rows.open.truncate(left);
    }

    /// Notes the rules that log, up to the one that decided.
    fn log<const W: usize>(
        &mut self,
        part: &Part<W>,
        policy: PolicyId,
        met: Met,
        open: &Columns<W>,
        count: impl Fn(u32, u8),
    ) {
        let tier = match met {
            Met::Tier(tier) => Some(tier),
            Met::Profile { logs: true } => None,
            _ => return,
        };
        if !part.has_logs() {
            return;
        }
        for row in 0..open.len() {
            let first = self.logs.len();
            part.each_log(open, row, self.packets, self.memory, self.wide.best[row], |rule| {
                let entry = Logged {
                    packet: open.packet[row],
                    tier,
                    policy,
                    rule,
                };
                if self.logs[first..].contains(&entry) {
                    return;
                }
                match self.logs.len() < LOGS_MAX {
                    true => {
                        count(rule, entry.packet);
                        self.logs.push(entry);
                    }
                    false => *self.logs_lost += 1,
                }
            });
            self.logs[first..].sort_unstable_by_key(|entry| entry.rule);
        }
    }
}

/// Decides all open rows.
fn end<const W: usize>(rows: &mut Rows<W>, verdict: Verdict, cause: Cause, decide: &mut impl FnMut(u8, Decision)) {
    for packet in &rows.open.packet[..rows.open.len()] {
        decide(*packet, Decision { verdict, cause });
    }
    rows.open.clear();
}
