//! Packets from other threads of the process.

use crate::local::Local;
use crate::node::{Source, Turn};
use crate::ring::Consumer;
use crate::vector::Vector;

/// Packets that other workers want sent by a port whose queue is here. Leads to `port-out`.
pub struct Handoff(Vec<Consumer>);

impl Handoff {
    /// Receives from the rings of the other workers.
    pub fn new(rings: Vec<Consumer>) -> Self {
        Self(rings)
    }
}

impl Source for Handoff {
    const NAME: &'static str = "handoff";

    fn poll(&mut self, _: &Turn, _: &mut Local, room: usize, into: &mut Vector) {
        let before = into.len();
        for ring in &mut self.0 {
            ring.receive(room - (into.len() - before), into);
        }
    }
}

/// IP packets that control made, which are still to be routed: with room for an Ethernet header in front, and the meta
/// that [`Packet::originate`](crate::packet::Packet::originate) writes. Leads to a `route`.
pub struct Originate(Consumer);

impl Originate {
    /// Receives from control's ring.
    pub fn new(ring: Consumer) -> Self {
        Self(ring)
    }
}

impl Source for Originate {
    const NAME: &'static str = "originate";

    fn poll(&mut self, _: &Turn, _: &mut Local, room: usize, into: &mut Vector) {
        self.0.receive(room, into);
    }
}

/// Packets that control made, complete from the Ethernet header on. Leads to `port-out`.
pub struct Inject(Consumer);

impl Inject {
    /// Receives from control's ring.
    pub fn new(ring: Consumer) -> Self {
        Self(ring)
    }
}

impl Source for Inject {
    const NAME: &'static str = "inject";

    fn poll(&mut self, _: &Turn, _: &mut Local, room: usize, into: &mut Vector) {
        self.0.receive(room, into);
    }
}
