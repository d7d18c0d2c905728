//! The rules of a policy in one direction, compiled.

use crate::expand::{Expanded, expand};
use crate::guard::Guard;
use crate::lookup::hash::Multipliers;
use crate::lookup::select::Plan;
use crate::lookup::sets::Membership;
use crate::lookup::{Hits, Lookup, Way};
use crate::packet::{Columns, Packet, VECTOR};
use crate::pattern::{Pattern, Rank};
use crate::rule::{Action, IpVersion, Rule};
use crate::sets::Memory;

/// Patterns a ruleset may have for one IP version: as many as slots can name blocks, and then some.
const PATTERNS_MAX: usize = 1 << 22;
/// If more than one rule in so many is another, all are placed anew.
const FEW: usize = 8;
/// Tables are chosen anew when so many rules are other ones, or half of all, if that is more.
const STALE: usize = 64;

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct Ruleset {
    actions: Box<[Action]>,
    pub(crate) v4: Part<1>,
    pub(crate) v6: Part<4>,
    unfinished: Option<Unfinished>,
    /// Rules that were put in others' places since its tables were chosen.
    edits: usize,
}

/// Why a ruleset cannot decide. It denies what comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// A rule names a set that is not there, or is of the other kind.
    #[error("rule {rule} names a set that is not there: create it first")]
    MissingSet {
        /// The first such rule, counted from 0.
        rule: usize,
    },
    /// Too much for one policy.
    #[error("its rules are more than {PATTERNS_MAX} patterns: make it several policies, or use sets")]
    TooMany,
}

/// Rules in a row that become other ones. Those behind them keep their ranks.
pub(crate) struct Splice<'a> {
    /// The place of the first.
    pub first: usize,
    pub gone: &'a [Rule],
    pub come: &'a [Rule],
}

impl<'a> Splice<'a> {
    /// What makes `new` of `old`.
    pub fn between(old: &'a [Rule], new: &'a [Rule]) -> Splice<'a> {
        let first = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[first..], &new[first..]);
        let behind = old
            .iter()
            .rev()
            .zip(new.iter().rev())
            .take_while(|(old, new)| old == new)
            .count();
        Splice {
            first,
            gone: &old[..old.len() - behind],
            come: &new[..new.len() - behind],
        }
    }
}

/// What is compiled for one IP version.
#[derive(Clone, Debug)]
pub(crate) struct Part<const W: usize> {
    /// Rules that decide.
    lookup: Lookup<W>,
    plan: Plan,
    /// Rules that log and go on.
    logs: Lookup<W>,
    /// By rule; none at all if no rule has one.
    guards: Vec<Option<Box<Guard>>>,
    rules: u32,
}

impl Ruleset {
    /// Compiles rules. `missing` says whether a rule names a set that is not there.
    pub fn compile(rules: &[Rule], missing: impl Fn(&Rule) -> bool, multipliers: Multipliers) -> Ruleset {
        let plan = |_: usize| None;
        Ruleset::build(rules, missing, multipliers, (plan, plan))
    }

    /// Compiles `new` where this was compiled of `old`: only what changed, if that is little.
    pub fn recompile(
        &self,
        old: &[Rule],
        new: &[Rule],
        missing: impl Fn(&Rule) -> bool,
        multipliers: Multipliers,
    ) -> Ruleset {
        let stale = self.edits > STALE.max(old.len() / 2);
        let change = Splice::between(old, new);
        let few = change.gone.len().max(change.come.len()) <= old.len() / FEW;
        if few && !stale && self.unfinished.is_none() && !change.come.iter().any(&missing) {
            let mut next = self.clone();
            next.edits += change.come.len().max(change.gone.len());
            next.actions = new.iter().map(|rule| rule.action).collect();
            next.v4.splice(&change, IpVersion::V4);
            next.v6.splice(&change, IpVersion::V6);
            if next.v4.fits() && next.v6.fits() {
                return next;
            }
        }
        let v4 = |patterns| Some(self.v4.plan.clone()).filter(|plan| !stale && plan.serves(patterns));
        let v6 = |patterns| Some(self.v6.plan.clone()).filter(|plan| !stale && plan.serves(patterns));
        let mut next = Ruleset::build(new, missing, multipliers, (v4, v6));
        next.edits = if stale { 0 } else { self.edits + 1 };
        next
    }

    /// Why it denies everything, if it does.
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.unfinished
    }

    /// What the rule at `place`, counted from 0, does.
    pub fn action(&self, place: u32) -> Action {
        self.actions.get(place as usize).copied().unwrap_or(Action::Deny)
    }

    /// Bytes of its tables.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    fn build(
        rules: &[Rule],
        missing: impl Fn(&Rule) -> bool,
        multipliers: Multipliers,
        plans: (impl Fn(usize) -> Option<Plan>, impl Fn(usize) -> Option<Plan>),
    ) -> Ruleset {
        let unfinished = match rules.iter().position(missing) {
            Some(rule) => Err(Unfinished::MissingSet { rule }),
            None => Ok(()),
        };
        let parts = unfinished.and_then(|()| {
            let v4 = Part::build(rules, IpVersion::V4, multipliers, plans.0)?;
            Ok((v4, Part::build(rules, IpVersion::V6, multipliers, plans.1)?))
        });
        let (parts, unfinished) = match parts {
            Ok(parts) => (parts, None),
            Err(why) => ((Part::empty(multipliers), Part::empty(multipliers)), Some(why)),
        };
        Ruleset {
            actions: rules.iter().map(|rule| rule.action).collect(),
            v4: parts.0,
            v6: parts.1,
            unfinished,
            edits: 0,
        }
    }
}

impl<const W: usize> Part<W> {
    fn empty(multipliers: Multipliers) -> Part<W> {
        Part {
            lookup: Lookup::build(&[], multipliers),
            plan: Plan::default(),
            logs: Lookup::build(&[], multipliers),
            guards: vec![],
            rules: 0,
        }
    }

    fn build(
        rules: &[Rule],
        version: IpVersion,
        multipliers: Multipliers,
        plan: impl Fn(usize) -> Option<Plan>,
    ) -> Result<Part<W>, Unfinished> {
        let mut part = Part::empty(multipliers);
        part.rules = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        if rules.len() > PATTERNS_MAX {
            return Err(Unfinished::TooMany);
        }
        let (mut deciding, mut logging) = (vec![], vec![]);
        for (place, rule) in rules.iter().enumerate() {
            let Expanded { patterns, guard } = expand(rule, version, part.rank(place));
            match rule.action {
                Action::Log => logging.extend(patterns),
                _ => deciding.extend(patterns),
            }
            part.guard(place, guard);
            if deciding.len() + logging.len() > PATTERNS_MAX {
                return Err(Unfinished::TooMany);
            }
        }
        part.plan = plan(deciding.len()).unwrap_or_else(|| Plan::best(&deciding, multipliers));
        part.lookup = Lookup::build_with(&deciding, &part.plan, multipliers);
        part.logs = Lookup::build(&logging, multipliers);
        Ok(part)
    }

    /// Finds the deciding rule of each row; [`place`](Part::place) says which that is.
    pub fn find(
        &self,
        way: Way,
        columns: &Columns<W>,
        packets: &[Packet],
        memory: &Memory,
        best: &mut [Rank; VECTOR],
        hits: &mut Hits,
    ) {
        let guard = |rank: Rank, row: usize| {
            let packet = &packets[usize::from(columns.packet[row])];
            self.guard_holds(rank, || (packet, columns.classes(row)), memory)
        };
        self.lookup.find(way, columns, memory, &guard, best, hits);
    }

    /// Whether some rule logs.
    pub fn has_logs(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Visits the rules that log one row before the rule of rank `decided`, in no order. A rule may come twice.
    pub fn each_log(
        &self,
        columns: &Columns<W>,
        row: usize,
        packets: &[Packet],
        memory: &Memory,
        decided: Rank,
        mut visit: impl FnMut(u32),
    ) {
        let packet = &packets[usize::from(columns.packet[row])];
        let classes = columns.classes(row);
        let sets = classes.map(|class| Membership::Of(memory, class));
        self.logs.each(&columns.key(row), &sets, |rank| {
            let holds = !rank.is_guarded() || self.guard_holds(rank, || (packet, classes), memory);
            if rank.order() > decided.order() && holds {
                visit(self.rules - rank.order());
            }
        });
    }

    /// The place of a rule, counted from 0; nothing for no rule.
    #[inline(always)]
    pub fn place(&self, rank: Rank) -> Option<u32> {
        match rank.order() {
            0 => None,
            order => Some(self.rules - order),
        }
    }

    fn rank(&self, place: usize) -> Rank {
        Rank::of(self.rules - place as u32)
    }

    fn guard_holds<'a>(
        &self,
        rank: Rank,
        row: impl FnOnce() -> (&'a Packet, [crate::sets::Class; 2]),
        memory: &Memory,
    ) -> bool {
        let place = (self.rules - rank.order()) as usize;
        match self.guards.get(place) {
            Some(Some(guard)) => {
                let (packet, classes) = row();
                guard.holds(packet, classes, memory)
            }
            _ => true,
        }
    }

    fn guard(&mut self, place: usize, guard: Option<Guard>) {
        if guard.is_some() && self.guards.len() <= place {
            self.guards.resize(place + 1, None);
        }
        if let Some(slot) = self.guards.get_mut(place) {
            *slot = guard.map(Box::new);
        }
    }

    /// Puts rules in others' places.
    fn splice(&mut self, change: &Splice<'_>, version: IpVersion) {
        for (i, rule) in change.gone.iter().enumerate() {
            let Expanded { patterns, .. } = expand(rule, version, self.rank(change.first + i));
            let lookup = self.lookup_of(rule.action);
            patterns.iter().for_each(|pattern: &Pattern<W>| {
                lookup.remove(pattern);
            });
        }
        let before = self.rank(change.first);
        let rules = self.rules as usize + change.come.len() - change.gone.len();
        if rules != self.rules as usize {
            let by = rules as i64 - i64::from(self.rules);
            self.lookup.shift(before, by);
            self.logs.shift(before, by);
            self.rules = rules as u32;
        }
        if self.guards.len() > change.first {
            let end = self.guards.len().min(change.first + change.gone.len());
            let none = std::iter::repeat_n(None, change.come.len());
            self.guards.splice(change.first..end, none);
        }
        for (i, rule) in change.come.iter().enumerate() {
            let Expanded { patterns, guard } = expand(rule, version, self.rank(change.first + i));
            let lookup = self.lookup_of(rule.action);
            patterns.iter().for_each(|pattern| lookup.insert(pattern));
            self.guard(change.first + i, guard);
        }
    }

    fn lookup_of(&mut self, action: Action) -> &mut Lookup<W> {
        match action {
            Action::Log => &mut self.logs,
            _ => &mut self.lookup,
        }
    }

    /// Whether patterns that came one by one are not too many for the plan.
    fn fits(&self) -> bool {
        let patterns = self.lookup.len();
        self.plan.serves(patterns) && patterns + self.logs.len() <= PATTERNS_MAX
    }

    fn bytes(&self) -> usize {
        let guards = self.guards.iter().flatten().count() * size_of::<Guard>() + self.guards.len() * 8;
        self.lookup.bytes() + self.logs.bytes() + guards
    }
}
