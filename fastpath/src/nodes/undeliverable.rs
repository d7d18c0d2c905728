//! Ends: of what we sent ourselves and could not deliver, for no error is sent about an error; and of what makes no
//! sense inside a tunnel.

use crate::batch::Batch;
use crate::labels;
use crate::node::{Never, Node, Turn};

labels! {
    /// Why packets are dropped.
    pub enum Drop {
        Own = "own-undeliverable": "An answer of ours that cannot be delivered.",
    }
    /// Why packets are dropped.
    pub enum Nesting {
        Nested = "nested-tunnel": "A tunnel inside a tunnel: we wrap and unwrap once.",
    }
    /// Why packets are dropped.
    pub enum Linkless {
        NoLink = "no-link": "Address resolution, router or neighbour discovery in a tunnel, which is no link.",
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

/// The end of a tunnel in a tunnel.
#[derive(Default)]
pub struct NestedTunnel;

impl Node for NestedTunnel {
    const NAME: &'static str = "nested-tunnel";
    type Next = Never;
    type Drop = Nesting;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|_| Err(Nesting::Nested));
    }
}

/// The end of what only makes sense on a link, in a tunnel.
#[derive(Default)]
pub struct NoLink;

impl Node for NoLink {
    const NAME: &'static str = "no-link";
    type Next = Never;
    type Drop = Linkless;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|_| Err(Linkless::NoLink));
    }
}
