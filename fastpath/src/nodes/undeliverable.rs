//! The end of what we sent ourselves and could not deliver: no error is sent about an error.

use crate::batch::Batch;
use crate::labels;
use crate::node::{Never, Node, Turn};

labels! {
    /// Why packets are dropped.
    pub enum Drop {
        Own = "own-undeliverable": "An answer of ours that cannot be delivered.",
    }
}

/// The node.
#[derive(Default)]
pub struct Undeliverable;

impl Node for Undeliverable {
    const NAME: &'static str = "undeliverable";
    type Next = Never;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|_| Err(Drop::Own));
    }
}
