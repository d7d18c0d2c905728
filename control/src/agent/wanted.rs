//! What the plane should know of one policy, profile or endpoint, as things stand.

use std::collections::BTreeMap;

use super::index::{ItemId, SelectorId};
use super::items::Endpoint;
use super::policies::{self, Compiled, Stage, by_order};
use super::rules::Named;
use super::{Agent, Uses};
use crate::program::felix::{self, PolicyId, TierInfo};
use crate::resource::calico::TierSpec;

/// The policies of a tier that select an endpoint, in order.
struct Selecting<'a> {
    tier: &'a str,
    spec: &'a TierSpec,
    policies: Vec<&'a Compiled>,
}

impl Agent {
    /// A policy that an endpoint has, with the sets it names.
    pub(super) fn policy_wanted(&self, id: &PolicyId) -> Option<(felix::Policy, Named)> {
        let policy = self.policies.get(id)?;
        self.tiers.get(&policy.compiled.policy.tier)?.spec.as_ref()?;
        let is_endpoint = |item: &ItemId| self.items.get(item).is_some_and(|item| item.endpoint.is_some());
        let needed = self.index.selects(policy.selector).iter().any(is_endpoint);
        needed.then(|| (policy.compiled.policy.clone(), policy.compiled.named.clone()))
    }

    /// A profile that an endpoint has.
    pub(super) fn profile_wanted(&self, name: &str) -> Option<policies::Profile> {
        let profile = self.profiles.get(name)?;
        let is_endpoint = |item: &ItemId| self.items.get(item).is_some_and(|item| item.endpoint.is_some());
        profile.users.iter().any(is_endpoint).then(|| profile.rules.clone())?
    }

    /// An endpoint with its tiers.
    pub(super) fn endpoint_wanted(&self, item: ItemId) -> Option<Endpoint> {
        let mut endpoint = self.items.get(&item)?.endpoint.clone()?;
        let selecting = self.selecting(item);
        let at = |is: fn(Stage) -> bool| tier_infos(&selecting, is);
        let is_normal = |stage| matches!(stage, Stage::Normal { .. });
        match &mut endpoint {
            Endpoint::Workload(_, workload) => workload.tiers = at(is_normal),
            Endpoint::Host(_, host) => {
                host.tiers = at(is_normal);
                host.untracked_tiers = at(|stage| stage == Stage::Untracked);
                host.pre_dnat_tiers = at(|stage| stage == Stage::PreDnat);
                host.forward_tiers = at(|stage| stage == Stage::Normal { forward: true });
            }
        }
        Some(endpoint)
    }

    fn selecting(&self, item: ItemId) -> Vec<Selecting<'_>> {
        let policies_of = |selector: &SelectorId| self.uses.get(selector).map(|uses: &Uses| &uses.policies);
        let ids = self.index.selected_by(item).iter().filter_map(policies_of).flatten();
        let mut by_tier: BTreeMap<&str, Vec<&Compiled>> = BTreeMap::new();
        for policy in ids.filter_map(|id| self.policies.get(id)) {
            by_tier
                .entry(&policy.compiled.policy.tier)
                .or_default()
                .push(&policy.compiled);
        }
        let mut selecting: Vec<_> = by_tier
            .into_iter()
            .filter_map(|(tier, mut policies)| {
                let spec = self.tiers.get(tier)?.spec.as_ref()?;
                policies.sort_by(|one, other| one.before(other));
                Some(Selecting { tier, spec, policies })
            })
            .collect();
        // They are sorted by name already.
        selecting.sort_by(|one, other| by_order(one.spec.order, other.spec.order));
        selecting
    }
}

/// The tiers of one stage; a tier without a policy in it is none.
fn tier_infos(selecting: &[Selecting<'_>], is: fn(Stage) -> bool) -> Vec<TierInfo> {
    let infos = selecting.iter().map(|of| {
        let policies = || of.policies.iter().filter(|policy| is(policy.stage));
        let ids = |applies: fn(&Compiled) -> bool| {
            let those = policies().filter(move |policy| applies(policy));
            those.map(|policy| policy.id.clone()).collect::<Vec<_>>()
        };
        TierInfo {
            name: of.tier.to_owned(),
            ingress_policies: ids(|policy| policy.ingress),
            egress_policies: ids(|policy| policy.egress),
            default_action: of.spec.default_action.name().to_owned(),
        }
    });
    infos
        .filter(|info| !info.ingress_policies.is_empty() || !info.egress_policies.is_empty())
        .collect()
}
