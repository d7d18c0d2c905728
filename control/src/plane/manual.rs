//! A plane whose time its user makes.

use std::sync::Arc;

use ::wireguard::mailbox::Mailbox;
use fastpath::events::Events;
use fastpath::meta::PortId;
use fastpath::pool::Pool;
use fastpath::port::memory::MemoryEnd;
use fastpath::worker::ManualWorker;

use super::{PlaneOptions, StartError, State, Wakes, views};
use crate::refusal::Refusal;
use crate::store::Plan;

/// The same plane without threads and clock: the caller turns the workers and says what time it is. For captures, tests
/// and benchmarks.
pub struct ManualPlane {
    pub(super) state: State,
    workers: Vec<ManualWorker>,
}

impl ManualPlane {
    /// Sets a plane up at time zero.
    ///
    /// # Errors
    /// Memory that cannot be had.
    pub fn new(options: &PlaneOptions) -> Result<Self, StartError> {
        let wakes = Wakes {
            events: Events::new(|| {}),
            mailbox: Mailbox::new(|| {}),
        };
        let (state, workers) = State::new(options, wakes, true)?;
        Ok(Self { state, workers })
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// Why it cannot be done; nothing has changed then.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Refusal> {
        self.state.apply(plan)
    }

    /// One turn of every worker and of control at this time, which must not go back. Packets carried.
    pub fn turn(&mut self, now_ns: u64) -> usize {
        self.state.manual_ns = Some(now_ns);
        let carried = self.workers.iter_mut().map(|worker| worker.turn(now_ns)).sum();
        self.state.look_after();
        self.state.serve_tunnels();
        self.state.log_flows();
        carried
    }

    /// The other end of a port of driver `memory`.
    pub fn memory_end(&self, port: &str) -> Option<MemoryEnd> {
        self.state.ports.memory_end(port)
    }

    /// The frames, to be counted when the plane has gone.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.state.pool
    }

    /// The number of a port.
    pub fn port_id(&self, port: &str) -> Option<PortId> {
        self.state.ports.id(port)
    }

    /// A worker, to be turned alone.
    pub fn worker(&mut self, number: usize) -> Option<&mut ManualWorker> {
        self.workers.get_mut(number)
    }

    /// The views of the plane, as the socket gives them.
    pub fn views(&mut self) -> views::Views<'_> {
        views::Views(&mut self.state)
    }
}
