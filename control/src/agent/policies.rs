//! Policies and profiles, each for itself: the rules of its messages, whom it is for, and where it stands.

use std::cmp::Ordering;

use super::items::{account_labels, namespace_labels};
use super::kubernetes;
use super::rules::{self, ACCOUNT, Named, OF_ACCOUNT};
use super::selector::{Expression, Labels, NAMESPACE, Selector};
use crate::program::felix::{self, PolicyId};
use crate::resource::calico::{PolicySpec, ProfileSpec, StagedAction};
use crate::resource::{Metadata, Resource};

/// The profile that is there without being written, which allows everything.
pub(super) const ALLOW_ALL: &str = "projectcalico-default-allow";

/// What a policy means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compiled {
    pub(super) id: PolicyId,
    pub(super) order: Option<f64>,
    /// The endpoints it is for.
    pub(super) selector: Expression,
    pub(super) ingress: bool,
    pub(super) egress: bool,
    pub(super) stage: Stage,
    pub(super) policy: felix::Policy,
    pub(super) named: Named,
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Untracked,
    PreDnat,
    Normal {
        /// Also for what a host forwards.
        forward: bool,
    },
}

/// What a profile means.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    pub(super) inbound_rules: Vec<felix::Rule>,
    pub(super) outbound_rules: Vec<felix::Rule>,
    pub(super) named: Named,
}

impl Compiled {
    /// Whether endpoints see no difference between the two but in their rules.
    pub(super) fn stands_as(&self, other: &Self) -> bool {
        let place = |of: &Self| (of.order.map(f64::to_bits), of.ingress, of.egress, of.stage);
        place(self) == place(other) && self.policy.tier == other.policy.tier && self.selector == other.selector
    }

    /// Policies of a tier in the order they are asked: those without an order last, then by name.
    pub(super) fn before(&self, other: &Self) -> Ordering {
        by_order(self.order, other.order).then_with(|| self.id.cmp(&other.id))
    }
}

/// The lowest first, and none last.
pub(super) fn by_order(one: Option<f64>, other: Option<f64>) -> Ordering {
    let number = |order: Option<f64>| order.unwrap_or(f64::INFINITY);
    number(one).total_cmp(&number(other))
}

/// What a policy means, if the resource is one that stands for itself.
pub(super) fn compile(resource: &Resource) -> Option<Compiled> {
    let kind = resource.kind().name();
    match resource {
        Resource::NetworkPolicy(object) => Some(calico(&object.metadata, kind, &object.body.spec)),
        Resource::GlobalNetworkPolicy(object) => Some(calico(&object.metadata, kind, &object.body.spec)),
        Resource::StagedNetworkPolicy(object) => staged(&object.metadata, kind, &object.body.spec),
        Resource::StagedGlobalNetworkPolicy(object) => staged(&object.metadata, kind, &object.body.spec),
        Resource::KubernetesNetworkPolicy(object) => {
            // Felix's name for it; its own is that of Calico's kind.
            let kind = "KubernetesNetworkPolicy";
            Some(kubernetes::compile(
                &object.metadata.name,
                namespace(&object.metadata),
                kind,
                &object.body.spec,
            ))
        }
        Resource::StagedKubernetesNetworkPolicy(object) => {
            let spec = &object.body.spec;
            let is_set = spec.staged_action.unwrap_or_default() == StagedAction::Set;
            let (name, namespace) = (&object.metadata.name, namespace(&object.metadata));
            is_set.then(|| kubernetes::compile(name, namespace, kind, &spec.policy()))
        }
        _ => None,
    }
}

/// What the profile is called that a resource makes, if it makes one.
pub(super) fn profile_name(resource: &Resource) -> Option<String> {
    let Metadata { name, namespace, .. } = resource.metadata();
    match resource {
        Resource::Profile(_) => Some(name.clone()),
        Resource::Namespace(_) => Some(format!("kns.{name}")),
        Resource::ServiceAccount(_) => Some(format!("ksa.{}.{name}", namespace.as_deref().unwrap_or_default())),
        _ => None,
    }
}

/// What that profile means, and the labels that everything with it has.
pub(super) fn profile_of(resource: &Resource) -> Option<(Profile, Labels)> {
    match resource {
        Resource::Profile(object) => {
            let ProfileSpec {
                ingress,
                egress,
                labels_to_apply,
            } = &object.body.spec;
            let mut named = Named::new();
            let profile = Profile {
                inbound_rules: rules::rules(ingress, None, &mut named),
                outbound_rules: rules::rules(egress, None, &mut named),
                named,
            };
            Some((profile, labels_to_apply.clone()))
        }
        Resource::Namespace(object) => Some((allow_all(), namespace_labels(&object.metadata))),
        Resource::ServiceAccount(object) => Some((Profile::default(), account_labels(&object.metadata))),
        _ => None,
    }
}

/// A profile that allows all, both ways.
pub(super) fn allow_all() -> Profile {
    let allow = || felix::Rule {
        action: "allow".to_owned(),
        ..felix::Rule::default()
    };
    Profile {
        inbound_rules: vec![allow()],
        outbound_rules: vec![allow()],
        named: Named::new(),
    }
}

/// A staged policy that proposes something else than itself says nothing of packets.
fn staged(metadata: &Metadata, kind: &str, spec: &PolicySpec) -> Option<Compiled> {
    let is_set = spec.staged_action.unwrap_or_default() == StagedAction::Set;
    is_set.then(|| calico(metadata, kind, spec))
}

fn calico(metadata: &Metadata, kind: &str, spec: &PolicySpec) -> Compiled {
    let namespace = metadata.namespace.as_deref();
    let mut named = Named::new();
    let policy = felix::Policy {
        inbound_rules: rules::rules(&spec.ingress, namespace, &mut named),
        outbound_rules: rules::rules(&spec.egress, namespace, &mut named),
        untracked: spec.do_not_track,
        pre_dnat: spec.pre_dnat,
        tier: spec.tier().to_owned(),
    };
    let (ingress, egress) = spec.directions();
    Compiled {
        id: PolicyId {
            name: metadata.name.clone(),
            namespace: namespace.unwrap_or_default().to_owned(),
            kind: kind.to_owned(),
        },
        order: spec.order,
        selector: selector(spec, namespace),
        ingress,
        egress,
        stage: match (spec.do_not_track, spec.pre_dnat) {
            (true, _) => Stage::Untracked,
            (_, true) => Stage::PreDnat,
            _ => Stage::Normal {
                forward: spec.apply_on_forward,
            },
        },
        policy,
        named,
    }
}

fn selector(spec: &PolicySpec, namespace: Option<&str>) -> Expression {
    let within = namespace.map(|namespace| Expression::Equal(NAMESPACE.to_owned(), namespace.to_owned()));
    let labels = spec.selector.as_ref().map(|selector| selector.expression().clone());
    let namespaces = spec
        .namespace_selector
        .as_ref()
        .map(Selector::expression)
        .map(rules::in_namespaces);
    let accounts = spec.service_account_selector.as_ref().map(|selector| {
        let any = Expression::Has(ACCOUNT.to_owned());
        selector.expression().prefixed(OF_ACCOUNT, &any)
    });
    let parts = within.into_iter().chain(labels).chain(namespaces).chain(accounts);
    Expression::all_of(parts)
}

fn namespace(metadata: &Metadata) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}
