//! Packets from the ports of this worker.

use crate::local::Local;
use crate::node::{Source, Turn};
use crate::vector::Vector;

/// The source.
#[derive(Default)]
pub struct PortIn;

impl Source for PortIn {
    const NAME: &'static str = "port-in";

    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        local.queues.receive(&mut local.frames, room, into);
    }
}
