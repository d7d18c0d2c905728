//! Where packets that waited enter the graph again: those that were on their way to a flow begin anew, for what was known
//! of them then may not be true now; the others are routed.

use crate::batch::Batch;
use crate::labels;
use crate::meta::Flags;
use crate::node::{Never, Node, Turn};

labels! {
    /// Where packets go.
    pub enum Next {
        Parse = "parse",
        Route = "route",
    }
}

/// The node.
#[derive(Default)]
pub struct Resume;

impl Node for Resume {
    const NAME: &'static str = "resume";
    type Next = Next;
    type Drop = Never;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|packet| {
            if packet.meta.flags.has(Flags::TRACKED) {
                packet.meta.flags = Flags::TRACED.when(packet.meta.flags.has(Flags::TRACED));
                Ok(Next::Parse)
            } else {
                Ok(Next::Route)
            }
        });
    }
}
