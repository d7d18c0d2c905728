//! The set of resources as the user wrote them, and what a request would make of it.
//!
//! A request becomes a [`Plan`] against the set as it stands, or a refusal; only a plan the plane carried out is
//! committed. So nothing is ever half applied.

mod allowed;
mod check;
mod shared;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use allowed::Allowed;

use crate::refusal::Refusal;
use crate::resource::{Document, Key, Kind, Named, Resource};

/// What a user asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// These resources exist and are as written.
    Apply(Vec<Document>),
    /// These resources do not exist.
    Delete(Vec<Named>),
}

/// What a request does to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It did not exist.
    Created,
    /// It existed and was different.
    Configured,
    /// It existed and was the same.
    Unchanged,
    /// It does not exist any more.
    Deleted,
}

impl Change {
    /// The word the command line prints.
    pub fn word(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Configured => "configured",
            Change::Unchanged => "unchanged",
            Change::Deleted => "deleted",
        }
    }
}

/// One resource of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Which resource.
    pub key: Key,
    /// The document that asked for it, for sentences.
    pub origin: String,
    /// What happens to it.
    pub change: Change,
    /// The resource as it is.
    pub before: Option<Arc<Resource>>,
    /// The resource as it will be.
    pub after: Option<Arc<Resource>>,
}

/// What a request would do, in the order of its documents. The resulting set is known to be sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Every resource the request names, also those it leaves as they are.
    pub changes: Vec<Planned>,
    /// What was not refused, but the user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the plan leaves everything as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.iter().all(|planned| planned.change == Change::Unchanged)
    }

    /// Whether it names resources of our own (ports, routes and what belongs to them), not only of Calico and Kubernetes.
    pub fn is_of_ours(&self) -> bool {
        let ours = |planned: &Planned| planned.key.kind.api_version() == Kind::Port.api_version();
        self.changes.iter().any(ours)
    }

    /// The resources of one kind that really change.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Planned> {
        self.changes
            .iter()
            .filter(move |planned| planned.key.kind == kind && planned.change != Change::Unchanged)
    }
}

/// The resources as written.
#[derive(Debug, Default)]
pub struct Store {
    resources: BTreeMap<Key, Arc<Resource>>,
    /// Who has what only one can have, so that a plan costs what it changes and not what the store holds.
    claims: HashMap<Box<str>, Arc<Resource>>,
    allowed: Allowed,
    /// The name of this node, where nodes have names.
    node: Option<String>,
}

impl Store {
    /// No resources yet, on a node of that name.
    pub fn on_node(name: impl Into<String>) -> Self {
        Self {
            node: Some(name.into()),
            ..Self::default()
        }
    }

    /// What `request` would do, or why it cannot be done. What documents name outside of themselves, files and host
    /// names, is read now.
    pub fn plan(&self, request: Request) -> Result<Plan, Refusal> {
        let mut warnings = vec![];
        let changes = match request {
            Request::Apply(documents) => documents
                .into_iter()
                .map(|document| self.plan_apply(document, &mut warnings))
                .collect::<Result<_, _>>()?,
            Request::Delete(named) => named
                .into_iter()
                .map(|named| self.plan_delete(named))
                .collect::<Result<_, _>>()?,
        };
        let mut plan = Plan { changes, warnings };
        check::check(self, &plan)?;
        plan.warnings.extend(self.allowed.warnings(self, &plan));
        plan.warnings.extend(shared::warnings(self, &plan));
        Ok(plan)
    }

    /// Makes the set what `plan` says. The plan has to be made against the set as it stands.
    pub fn commit(&mut self, plan: &Plan) {
        self.allowed.commit(plan);
        let before = plan.changes.iter().filter_map(|planned| planned.before.as_ref());
        for claim in before.flat_map(|resource| resource.claims()) {
            self.claims.remove(claim.what.as_str());
        }
        for Planned { key, after, .. } in &plan.changes {
            match after {
                Some(resource) => {
                    let claims = resource.claims().into_iter();
                    self.claims
                        .extend(claims.map(|claim| (claim.what.into(), resource.clone())));
                    self.resources.insert(key.clone(), resource.clone());
                }
                None => {
                    self.resources.remove(key);
                }
            }
        }
    }

    /// The resource of a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    /// All resources, by kind, namespace and name.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Resource>)> {
        self.resources.iter()
    }

    /// The resources of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<Resource>)> {
        self.resources
            .range(Key::cluster(kind, "")..)
            .take_while(move |(key, _)| key.kind == kind)
    }

    fn plan_apply(
        &self,
        Document { origin, mut resource }: Document,
        warnings: &mut Vec<String>,
    ) -> Result<Planned, Refusal> {
        let told = resource
            .load()
            .map_err(|invalid| Refusal::of_field(&origin, &invalid.field, invalid.reason))?;
        warnings.extend(told.into_iter().map(|warning| format!("{origin}: {warning}")));
        let key = resource.key();
        let before = self.resources.get(&key).cloned();
        let change = match &before {
            None => Change::Created,
            Some(before) if **before == resource => Change::Unchanged,
            Some(_) => Change::Configured,
        };
        let planned = Planned {
            key,
            origin,
            change,
            before,
            after: Some(Arc::new(resource)),
        };
        Ok(planned.reclaim(&self.allowed))
    }

    fn plan_delete(&self, Named { origin, key }: Named) -> Result<Planned, Refusal> {
        match self.resources.get(&key).cloned() {
            Some(before) => Ok(Planned {
                key,
                origin,
                change: Change::Deleted,
                before: Some(before),
                after: None,
            }),
            None => Err(Refusal::of_document(
                &origin,
                format_args!("{key} does not exist, so it cannot be deleted"),
            )),
        }
    }
}
