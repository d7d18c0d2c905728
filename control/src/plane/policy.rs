//! Policy in the plane: messages put into force, and who is behind its ports.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use classifier::sets::Capacity;
use fastpath::meta::{PortId, VrfId};
use fastpath::qsbr::Qsbr;

use super::views::Views;
use super::{DataPlane, ManualPlane, State};
use crate::agent::Agent;
use crate::program::felix::ToDataplane;
use crate::program::policy::{Enforcement, PortInfo, Question};
use crate::program::services::Place;
use crate::refusal::Refusal;
use crate::show::explain::ExplainView;
use crate::show::policies::{PolicyView, view};
use crate::store::Plan;

/// Bytes for the prefixes of sets; only what is used is taken.
const PREFIX_BYTES: usize = 1 << 30;
/// Bytes for the combinations of sets that addresses are in.
const CLASS_BYTES: usize = 1 << 28;

pub(super) fn enforcement(qsbr: Arc<Qsbr>) -> io::Result<Enforcement> {
    let capacity = Capacity {
        prefix_bytes: PREFIX_BYTES,
        class_bytes: CLASS_BYTES,
    };
    let mut enforcement = Enforcement::new(capacity, qsbr)?;
    // Our own agent has said all it knows, which is nothing, before the first resource.
    enforcement.receive(ToDataplane::InSync);
    Ok(enforcement)
}

/// Our own agent, on a node of that name.
pub(super) fn agent(place: &Place) -> Agent {
    match place.named {
        true => Agent::of_node(&place.node),
        false => Agent::default(),
    }
}

impl State {
    /// Puts into force what follows from changed resources.
    pub(super) fn tell_resources(&mut self, plan: &Plan) {
        self.flow_logs.learn(plan);
        let messages = self.agent.apply(plan);
        self.policy.expect(self.agent.has_endpoints());
        self.tell(messages);
    }

    /// Takes messages, and puts what follows from all of them into force at once.
    pub(super) fn tell(&mut self, messages: Vec<ToDataplane>) {
        self.policy.set_now_ns(self.now_ns());
        let mut pools_changed = false;
        for message in messages {
            pools_changed |= self.flows.receive_pool(&message);
            self.flows.static_nat.receive(&message);
            self.marking.receive(&message);
            self.policy.receive(message);
        }
        if pools_changed {
            self.publish_flows();
        }
        self.place_static_nat();
        if self.policy.publish() {
            // From the first endpoint on, packets are tracked; what was decided before is stale.
            self.track();
            self.flows.tracking.generation.advance();
        }
        self.enforce_limits();
        self.enforce_marks();
        for warning in self.policy.take_warnings() {
            tracing::warn!("{warning}");
        }
    }

    /// Tells policy of the ports as they are now. What follows from that is in force when this returns; verdicts made
    /// before are the caller's to make stale.
    pub(super) fn describe_ports(&mut self) {
        let mut ports: BTreeMap<PortId, PortInfo> = BTreeMap::new();
        for port in self.ports.iter() {
            let names_device = port.spec.driver.is_network_device() || port.spec.driver.is_overlay();
            let info = PortInfo {
                name: port.name.clone(),
                device: names_device.then(|| port.spec.device_name()),
                addresses: port.spec.addresses.iter().map(|net| net.addr()).collect(),
            };
            ports.insert(port.id, info);
        }
        for gone in self
            .policy
            .ports()
            .filter(|port| !ports.contains_key(port))
            .collect::<Vec<_>>()
        {
            self.policy.set_port(gone, None);
        }
        for (port, info) in ports {
            self.policy.set_port(port, Some(info));
        }
        self.policy.publish();
    }
}

impl Views<'_> {
    /// See [`Plane::policies`](crate::api::Plane::policies).
    pub fn policies(&self) -> Vec<PolicyView> {
        let now_ns = self.0.now_ns();
        self.0.policy.policies().iter().map(|info| view(info, now_ns)).collect()
    }

    /// See [`Plane::explain`](crate::api::Plane::explain).
    ///
    /// # Errors
    /// It is not clear who is meant.
    pub fn explain(&mut self, question: &Question) -> Result<ExplainView, Refusal> {
        let State { policy, rib, .. } = &mut *self.0;
        let route = |address| rib.egress(VrfId(0), address);
        policy
            .explain(question, &route)
            .map(ExplainView::from)
            .map_err(Refusal::new)
    }
}

impl DataPlane {
    /// Somebody else says what policy there is: from now on what nobody described is closed.
    pub fn expect_policy(&self) {
        let mut state = self.shared.lock();
        state.policy.expect_always();
        state.tell(vec![]);
    }

    /// Takes messages, and puts what follows from all of them into force at once: workers judge a packet by all of it,
    /// or by nothing of it.
    pub fn tell(&self, messages: Vec<ToDataplane>) {
        self.shared.lock().tell(messages);
    }
}

impl ManualPlane {
    /// As [`DataPlane::tell`].
    pub fn tell(&mut self, messages: Vec<ToDataplane>) {
        self.state.tell(messages);
    }
}
