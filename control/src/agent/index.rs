//! Which selectors select which labels, kept as both change.
//!
//! A selector stands under a label it cannot do without, so that a change of labels is held against those selectors only
//! whose label is there, and a new selector against those items only that have it.

use std::collections::{HashMap, HashSet};

use super::selector::{Expression, Labels};

/// Something with labels.
pub(super) type ItemId = u32;
/// A selector.
pub(super) type SelectorId = u32;

/// A selector that began or ceased to select an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) selector: SelectorId,
    pub(super) selects: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    items: HashMap<ItemId, Item>,
    selectors: HashMap<SelectorId, Entry>,
    items_under: HashMap<Guard, HashSet<ItemId>>,
    selectors_under: HashMap<Guard, HashSet<SelectorId>>,
    /// Selectors that can select what has no label at all.
    unguarded: HashSet<SelectorId>,
    nobody: HashSet<u32>,
}

#[derive(Debug, Default)]
struct Item {
    labels: Labels,
    selected_by: HashSet<SelectorId>,
}

#[derive(Debug)]
struct Entry {
    expression: Expression,
    guards: Option<Vec<Guard>>,
    selects: HashSet<ItemId>,
}

/// A label that has to be there, or has to be there with this value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Guard {
    Key(String),
    Pair(String, String),
}

impl Index {
    /// The labels of `item` are these now. Answers what that turned.
    pub(super) fn set_labels(&mut self, item: ItemId, labels: Labels) -> Vec<Turned> {
        let Item {
            labels: old,
            selected_by,
        } = self.items.remove(&item).unwrap_or_default();
        if old != labels {
            guards_of(&old).for_each(|guard| leave(&mut self.items_under, &guard, item));
            for guard in guards_of(&labels) {
                self.items_under.entry(guard).or_default().insert(item);
            }
        }
        let mut candidates = self.unguarded.clone();
        for guard in guards_of(&labels) {
            candidates.extend(self.selectors_under.get(&guard).into_iter().flatten());
        }
        let mut now: HashSet<SelectorId> = HashSet::with_capacity(selected_by.len());
        now.extend(candidates.into_iter().filter(|selector| {
            let entry = self.selectors.get(selector);
            entry.is_some_and(|entry| entry.expression.selects(&labels))
        }));
        let ended = selected_by.difference(&now).map(|selector| (*selector, false));
        let begun = now.difference(&selected_by).map(|selector| (*selector, true));
        let turned: Vec<_> = ended
            .chain(begun)
            .map(|(selector, selects)| Turned { selector, selects })
            .collect();
        self.turn(item, &turned);
        self.items.insert(
            item,
            Item {
                labels,
                selected_by: now,
            },
        );
        turned
    }

    /// There is no such item any more. Answers what that turned.
    pub(super) fn remove_item(&mut self, item: ItemId) -> Vec<Turned> {
        let Item { labels, selected_by } = self.items.remove(&item).unwrap_or_default();
        guards_of(&labels).for_each(|guard| leave(&mut self.items_under, &guard, item));
        let ended = selected_by.into_iter();
        let turned: Vec<_> = ended
            .map(|selector| Turned {
                selector,
                selects: false,
            })
            .collect();
        self.turn(item, &turned);
        turned
    }

    /// A new selector of this number.
    pub(super) fn add_selector(&mut self, selector: SelectorId, expression: Expression) {
        let guards = self.guards(&expression);
        let candidates: HashSet<ItemId> = match &guards {
            None => self.items.keys().copied().collect(),
            Some(guards) => guards.iter().flat_map(|guard| self.under(guard)).copied().collect(),
        };
        let mut selects = HashSet::new();
        for candidate in candidates {
            let Some(item) = self.items.get_mut(&candidate) else {
                continue;
            };
            if expression.selects(&item.labels) {
                item.selected_by.insert(selector);
                selects.insert(candidate);
            }
        }
        for guard in guards.iter().flatten() {
            self.selectors_under.entry(guard.clone()).or_default().insert(selector);
        }
        if guards.is_none() {
            self.unguarded.insert(selector);
        }
        let entry = Entry {
            expression,
            guards,
            selects,
        };
        self.selectors.insert(selector, entry);
    }

    /// There is no such selector any more.
    pub(super) fn remove_selector(&mut self, selector: SelectorId) {
        let Some(Entry { guards, selects, .. }) = self.selectors.remove(&selector) else {
            return;
        };
        for item in selects {
            if let Some(item) = self.items.get_mut(&item) {
                item.selected_by.remove(&selector);
            }
        }
        for guard in guards.iter().flatten() {
            leave(&mut self.selectors_under, guard, selector);
        }
        self.unguarded.remove(&selector);
    }

    /// What a selector selects.
    pub(super) fn selects(&self, selector: SelectorId) -> &HashSet<ItemId> {
        self.selectors
            .get(&selector)
            .map_or(&self.nobody, |entry| &entry.selects)
    }

    /// What selects an item.
    pub(super) fn selected_by(&self, item: ItemId) -> &HashSet<SelectorId> {
        self.items.get(&item).map_or(&self.nobody, |item| &item.selected_by)
    }

    fn turn(&mut self, item: ItemId, turned: &[Turned]) {
        for Turned { selector, selects } in turned {
            if let Some(entry) = self.selectors.get_mut(selector) {
                match selects {
                    true => entry.selects.insert(item),
                    false => entry.selects.remove(&item),
                };
            }
        }
    }

    fn under(&self, guard: &Guard) -> &HashSet<ItemId> {
        self.items_under.get(guard).unwrap_or(&self.nobody)
    }

    /// Labels one of which is on whatever the expression selects, or nothing where there are none such. Of several
    /// choices the one that the fewest items have.
    fn guards(&self, expression: &Expression) -> Option<Vec<Guard>> {
        let key = |key: &String| Some(vec![Guard::Key(key.clone())]);
        match expression {
            Expression::Equal(key, value) => Some(vec![Guard::Pair(key.clone(), value.clone())]),
            Expression::In(key, values) => {
                let pairs = values.iter().map(|value| Guard::Pair(key.clone(), value.clone()));
                Some(pairs.collect())
            }
            Expression::Has(of)
            | Expression::Contains(of, _)
            | Expression::StartsWith(of, _)
            | Expression::EndsWith(of, _) => key(of),
            Expression::And(all) => {
                let choices = all.iter().filter_map(|inner| self.guards(inner));
                choices.min_by_key(|guards| guards.iter().map(|guard| self.under(guard).len()).sum::<usize>())
            }
            Expression::Or(any) => {
                let all: Option<Vec<_>> = any.iter().map(|inner| self.guards(inner)).collect();
                all.map(|all| all.concat())
            }
            Expression::All
            | Expression::Global
            | Expression::NotEqual(..)
            | Expression::NotIn(..)
            | Expression::Not(_) => None,
        }
    }
}

fn guards_of(labels: &Labels) -> impl Iterator<Item = Guard> {
    labels.iter().flat_map(|(key, value)| {
        let pair = Guard::Pair(key.clone(), value.clone());
        [Guard::Key(key.clone()), pair]
    })
}

fn leave(under: &mut HashMap<Guard, HashSet<u32>>, guard: &Guard, id: u32) {
    if let Some(ids) = under.get_mut(guard) {
        ids.remove(&id);
        if ids.is_empty() {
            under.remove(guard);
        }
    }
}
