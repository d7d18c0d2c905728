//! The one way resources change: plan, let the plane carry it out, commit.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Plane;
use crate::refusal::Refusal;
use crate::resource::Kind;
use crate::store::{Change, Plan, Planned, Request, Store};

/// What the user wants, and the plane that does it.
pub struct Intent {
    store: RwLock<Store>,
    /// Requests are carried out one after the other; who only reads does not wait for them.
    turn: Mutex<()>,
    /// Whether policy comes from Felix, and from nowhere else.
    driven: bool,
    plane: Arc<dyn Plane>,
}

/// What became of one resource of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The kind of the resource.
    pub kind: String,
    /// Its namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each of its resources, in its order.
    pub results: Vec<Applied>,
    /// What was not refused, but the user should know.
    pub warnings: Vec<String>,
}

impl Intent {
    /// An empty set of resources for `plane`.
    pub fn new(plane: Arc<dyn Plane>) -> Self {
        Self {
            store: RwLock::default(),
            turn: Mutex::default(),
            driven: false,
            plane,
        }
    }

    /// The same on a node of that name, where resources of other nodes may come, too.
    pub fn on_node(plane: Arc<dyn Plane>, name: impl Into<String>) -> Self {
        Self {
            store: RwLock::new(Store::on_node(name)),
            ..Self::new(plane)
        }
    }

    /// The same where Felix says the policy: resources of policy are refused.
    pub fn driven_by_felix(self) -> Self {
        Self { driven: true, ..self }
    }

    /// The plane itself.
    pub fn plane(&self) -> &Arc<dyn Plane> {
        &self.plane
    }

    /// The resources as they stand.
    pub fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries `request` out, wholly or not at all. Blocks while the plane works.
    pub fn carry_out(&self, request: Request) -> Result<Outcome, Refusal> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.store().plan(request)?;
        if self.driven {
            leave_to_felix(&plan)?;
        }
        if !plan.is_empty() {
            self.plane.apply(&plan)?;
            self.store.write().unwrap_or_else(PoisonError::into_inner).commit(&plan);
        }
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Outcome {
            results: plan.changes.into_iter().map(Applied::from).collect(),
            warnings: plan.warnings,
        })
    }
}

/// Two who say what policy there is would undo each other's.
fn leave_to_felix(plan: &Plan) -> Result<(), Refusal> {
    let is_policy = |planned: &&Planned| {
        matches!(
            planned.key.kind,
            Kind::Tier
                | Kind::NetworkPolicy
                | Kind::GlobalNetworkPolicy
                | Kind::StagedNetworkPolicy
                | Kind::StagedGlobalNetworkPolicy
                | Kind::StagedKubernetesNetworkPolicy
                | Kind::KubernetesNetworkPolicy
                | Kind::NetworkSet
                | Kind::GlobalNetworkSet
                | Kind::WorkloadEndpoint
                | Kind::HostEndpoint
                | Kind::Profile
                | Kind::Namespace
                | Kind::ServiceAccount
                | Kind::IpPool
        )
    };
    match plan.changes.iter().find(is_policy) {
        None => Ok(()),
        Some(planned) => Err(Refusal::of_document(
            &planned.origin,
            "policy comes from Felix here (`margay run --felix`); apply this to Calico instead",
        )),
    }
}

impl From<Planned> for Applied {
    fn from(planned: Planned) -> Self {
        let key = planned.key;
        Self {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace,
            name: key.name,
            change: planned.change,
        }
    }
}
