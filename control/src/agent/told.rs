//! What the plane was told, so that it is told differences only.

use super::Told;
use super::index::ItemId;
use super::items::Endpoint;
use super::policies::Profile;
use super::rules::Named;
use crate::program::felix::{
    ActivePolicyUpdate, ActiveProfileUpdate, HostEndpointUpdate, Policy, PolicyId, ToDataplane, WorkloadEndpointUpdate,
};

impl Told {
    /// The policy is to be such, or not to be. Answers the sets that what it was has named.
    pub(super) fn tell_policy(
        &mut self,
        id: PolicyId,
        wanted: Option<(Policy, Named)>,
        news: &mut Vec<ToDataplane>,
        gone: &mut Vec<ToDataplane>,
    ) -> Vec<String> {
        let before = match wanted {
            Some((policy, named)) => {
                let before = self.policies.insert(id.clone(), (policy.clone(), named));
                if before.as_ref().is_none_or(|(before, _)| *before != policy) {
                    news.push(ToDataplane::ActivePolicyUpdate(ActivePolicyUpdate { id, policy }));
                }
                before
            }
            None => {
                let before = self.policies.remove(&id);
                if before.is_some() {
                    gone.push(ToDataplane::ActivePolicyRemove(id));
                }
                before
            }
        };
        before.map(|(_, named)| named.into_keys().collect()).unwrap_or_default()
    }

    /// The same of a profile.
    pub(super) fn tell_profile(
        &mut self,
        name: String,
        wanted: Option<Profile>,
        news: &mut Vec<ToDataplane>,
        gone: &mut Vec<ToDataplane>,
    ) -> Vec<String> {
        let before = match wanted {
            Some(profile) => {
                let before = self.profiles.insert(name.clone(), profile.clone());
                if before.as_ref() != Some(&profile) {
                    news.push(ToDataplane::ActiveProfileUpdate(ActiveProfileUpdate {
                        id: name,
                        inbound_rules: profile.inbound_rules,
                        outbound_rules: profile.outbound_rules,
                    }));
                }
                before
            }
            None => {
                let before = self.profiles.remove(&name);
                if before.is_some() {
                    gone.push(ToDataplane::ActiveProfileRemove(name));
                }
                before
            }
        };
        before
            .map(|before| before.named.into_keys().collect())
            .unwrap_or_default()
    }

    /// The endpoint is to be such, or not to be.
    pub(super) fn tell_endpoint(
        &mut self,
        item: ItemId,
        wanted: Option<Endpoint>,
        news: &mut Vec<ToDataplane>,
        gone: &mut Vec<ToDataplane>,
    ) {
        let before = match &wanted {
            Some(endpoint) => self.endpoints.insert(item, endpoint.clone()),
            None => self.endpoints.remove(&item),
        };
        if before == wanted {
            return;
        }
        let renamed = |before: &Endpoint| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.removal() != before.removal())
        };
        gone.extend(before.filter(renamed).map(|before| before.removal()));
        news.extend(wanted.map(Endpoint::update));
    }
}

impl Endpoint {
    fn update(self) -> ToDataplane {
        match self {
            Self::Workload(id, endpoint) => {
                ToDataplane::WorkloadEndpointUpdate(WorkloadEndpointUpdate { id, endpoint })
            }
            Self::Host(endpoint_id, endpoint) => {
                ToDataplane::HostEndpointUpdate(HostEndpointUpdate { endpoint_id, endpoint })
            }
        }
    }

    fn removal(&self) -> ToDataplane {
        match self {
            Self::Workload(id, _) => ToDataplane::WorkloadEndpointRemove(id.clone()),
            Self::Host(name, _) => ToDataplane::HostEndpointRemove(name.clone()),
        }
    }
}
