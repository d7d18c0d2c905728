//! Takes changes in, and notes what they may change outside.

use super::index::{ItemId, SelectorId};
use super::items::Item;
use super::policies::{self, ALLOW_ALL, Compiled};
use super::selector::{Expression, Labels};
use super::sets::Definition;
use super::{Agent, Policy, Uses};
use crate::program::felix::PolicyId;
use crate::resource::calico::{DEFAULT_TIER, TierSpec};
use crate::resource::{Key, Resource};

impl Agent {
    pub(super) fn set_tier(&mut self, name: &str, resource: Option<&Resource>) {
        let spec = match resource {
            Some(Resource::Tier(object)) => Some(object.body.spec.clone()),
            // This one is always there.
            _ if name == DEFAULT_TIER => Some(TierSpec::DEFAULT),
            _ => None,
        };
        let tier = self.tiers.entry(name.to_owned()).or_default();
        tier.spec = spec;
        let policies: Vec<_> = tier.policies.iter().cloned().collect();
        for id in policies {
            if let Some(policy) = self.policies.get(&id) {
                let selector = policy.selector;
                self.note_endpoints(selector);
            }
            self.changed.policies.insert(id);
        }
        self.forget_tier(name);
    }

    pub(super) fn set_policy(&mut self, old: Option<PolicyId>, new: Option<Compiled>) {
        let stays = |id: &PolicyId| new.as_ref().is_some_and(|new| new.id == *id);
        let removed = old.filter(|id| !stays(id));
        removed.into_iter().for_each(|id| self.remove_policy(&id));
        let Some(new) = new else { return };
        self.changed.policies.insert(new.id.clone());
        if let Some(known) = self.policies.get_mut(&new.id)
            && known.compiled.stands_as(&new)
        {
            known.compiled = new;
            return;
        }
        let id = new.id.clone();
        self.remove_policy(&id);
        let selector = self.intern(&new.selector);
        self.uses.entry(selector).or_default().policies.insert(id.clone());
        let tier = self.tiers.entry(new.policy.tier.clone()).or_default();
        tier.policies.insert(id.clone());
        self.policies.insert(
            id,
            Policy {
                compiled: new,
                selector,
            },
        );
        self.note_endpoints(selector);
    }

    fn remove_policy(&mut self, id: &PolicyId) {
        let Some(Policy { compiled, selector }) = self.policies.remove(id) else {
            return;
        };
        self.changed.policies.insert(id.clone());
        self.note_endpoints(selector);
        if let Some(uses) = self.uses.get_mut(&selector) {
            uses.policies.remove(id);
        }
        self.forget_selector(selector, &compiled.selector);
        if let Some(tier) = self.tiers.get_mut(&compiled.policy.tier) {
            tier.policies.remove(id);
        }
        self.forget_tier(&compiled.policy.tier);
    }

    /// What a profile means and the labels it gives; nothing if it is gone.
    pub(super) fn set_profile(&mut self, name: String, new: Option<(policies::Profile, Labels)>) {
        let (rules, labels) = match new {
            Some((rules, labels)) => (Some(rules), labels),
            None if name == ALLOW_ALL => (Some(policies::allow_all()), Labels::new()),
            None => (None, Labels::new()),
        };
        let profile = self.profiles.entry(name.clone()).or_default();
        profile.rules = rules;
        let relabelled = profile.labels != labels;
        profile.labels = labels;
        let users: Vec<_> = profile.users.iter().copied().filter(|_| relabelled).collect();
        for user in users {
            self.relabel(user);
        }
        self.changed.profiles.insert(name.clone());
        self.forget_profile(&name);
    }

    pub(super) fn set_item(&mut self, key: &Key, new: Option<Item>) {
        let id = self.item_id(key);
        let old = self.items.remove(&id);
        if let Some(old) = &old {
            self.move_members(id, old, false);
            for name in &old.profiles {
                if let Some(profile) = self.profiles.get_mut(name) {
                    profile.users.remove(&id);
                }
                self.changed.profiles.insert(name.clone());
                self.forget_profile(name);
            }
        }
        let is_endpoint = |item: &Option<Item>| item.as_ref().is_some_and(|item| item.endpoint.is_some());
        let endpoint = is_endpoint(&old) || is_endpoint(&new);
        // What stays selected counts, too, where an item turns from a remote endpoint to one here.
        let turned_endpoint = is_endpoint(&old) != is_endpoint(&new);
        if endpoint {
            self.changed.items.insert(id);
        }
        match new {
            Some(new) => self.place(id, new, endpoint),
            None => {
                let turned = self.index.remove_item(id);
                self.note_policies(turned.iter().map(|turned| turned.selector).collect());
                self.numbers.items.remove(key);
            }
        }
        if turned_endpoint {
            let selected_by = self.index.selected_by(id).iter().copied().collect();
            self.note_policies(selected_by);
        }
    }

    fn place(&mut self, id: ItemId, item: Item, endpoint: bool) {
        for name in &item.profiles {
            self.profiles.entry(name.clone()).or_default().users.insert(id);
            self.changed.profiles.insert(name.clone());
        }
        let turned = self.index.set_labels(id, self.labels(&item));
        if endpoint {
            self.note_policies(turned.iter().map(|turned| turned.selector).collect());
        }
        self.move_members(id, &item, true);
        self.items.insert(id, item);
    }

    fn relabel(&mut self, id: ItemId) {
        let Some(item) = self.items.remove(&id) else { return };
        self.move_members(id, &item, false);
        let endpoint = item.endpoint.is_some();
        if endpoint {
            self.changed.items.insert(id);
        }
        self.place(id, item, endpoint);
    }

    /// Its own labels, and those of its profiles that it has not itself; of two profiles the first one's.
    fn labels(&self, item: &Item) -> Labels {
        let mut labels = item.labels.clone();
        let profiles = item.profiles.iter().filter_map(|name| self.profiles.get(name));
        for (key, value) in profiles.flat_map(|profile| &profile.labels) {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        labels
    }

    /// What an item brings to sets comes or goes.
    fn move_members(&mut self, id: ItemId, item: &Item, come: bool) {
        let uses = self
            .index
            .selected_by(id)
            .iter()
            .filter_map(|selector| self.uses.get(selector));
        for set in uses.flat_map(|uses| &uses.sets) {
            let members = self.sets.definition(set).map(|definition| item.members(definition));
            self.sets.change(set, members.unwrap_or_default(), come);
        }
    }

    /// Rules need one more time a set.
    pub(super) fn acquire(&mut self, id: &str, definition: &Definition) {
        if !self.sets.acquire(id, definition) {
            return;
        }
        match definition {
            Definition::Selector(expression) | Definition::NamedPort(expression, ..) => {
                let selector = self.intern(expression);
                self.uses.entry(selector).or_default().sets.insert(id.to_owned());
                for item in self
                    .index
                    .selects(selector)
                    .iter()
                    .filter_map(|item| self.items.get(item))
                {
                    self.sets.change(id, item.members(definition), true);
                }
            }
            Definition::Service(service, part) => self.fill_service(id, service, *part),
        }
    }

    /// Rules need one time less a set.
    pub(super) fn release(&mut self, id: &str) {
        let Some(Definition::Selector(expression) | Definition::NamedPort(expression, ..)) = self.sets.release(id)
        else {
            return;
        };
        if let Some(selector) = self.selectors.get(&expression).copied() {
            if let Some(uses) = self.uses.get_mut(&selector) {
                uses.sets.remove(id);
            }
            self.forget_selector(selector, &expression);
        }
    }

    fn note_endpoints(&mut self, selector: SelectorId) {
        let selected = self.index.selects(selector).iter();
        let endpoints = selected.filter(|id| self.items.get(id).is_some_and(|item| item.endpoint.is_some()));
        self.changed.items.extend(endpoints);
    }

    fn note_policies(&mut self, selectors: Vec<SelectorId>) {
        let uses = selectors.iter().filter_map(|selector| self.uses.get(selector));
        self.changed
            .policies
            .extend(uses.flat_map(|uses| uses.policies.iter().cloned()));
    }

    fn item_id(&mut self, key: &Key) -> ItemId {
        if let Some(id) = self.numbers.items.get(key) {
            return *id;
        }
        let id = self.numbers.next_item;
        self.numbers.next_item = id.wrapping_add(1);
        self.numbers.items.insert(key.clone(), id);
        id
    }

    fn intern(&mut self, expression: &Expression) -> SelectorId {
        if let Some(id) = self.selectors.get(expression) {
            return *id;
        }
        let id = self.numbers.next_selector;
        self.numbers.next_selector = id.wrapping_add(1);
        self.selectors.insert(expression.clone(), id);
        self.index.add_selector(id, expression.clone());
        id
    }

    fn forget_selector(&mut self, selector: SelectorId, expression: &Expression) {
        let unused = |uses: &Uses| uses.policies.is_empty() && uses.sets.is_empty();
        if self.uses.get(&selector).is_none_or(unused) {
            self.uses.remove(&selector);
            self.selectors.remove(expression);
            self.index.remove_selector(selector);
        }
    }

    fn forget_tier(&mut self, name: &str) {
        let unused = |tier: &super::Tier| tier.spec.is_none() && tier.policies.is_empty();
        if self.tiers.get(name).is_some_and(unused) {
            self.tiers.remove(name);
        }
    }

    fn forget_profile(&mut self, name: &str) {
        let unused = |profile: &super::Profile| profile.rules.is_none() && profile.users.is_empty();
        if self.profiles.get(name).is_some_and(unused) {
            self.profiles.remove(name);
        }
    }
}
