//! What a stage of the graph is: nodes decide, sources bring frames, sinks take them.

use crate::batch::{Batch, Delivery};
use crate::local::Local;
use crate::pool::Frames;
use crate::trace::Seen;
use crate::vector::Vector;

/// A closed set of names: a node's edges, or its reasons to drop.
pub trait Label: Copy + 'static {
    /// The names, in order of index.
    const NAMES: &'static [&'static str];
    /// What each means, for people. Empty for an edge that is not worth a word in `show drops`.
    const SENTENCES: &'static [&'static str];
    /// Position in [`Self::NAMES`]; below 127.
    fn index(self) -> u8;
}

/// Declares enums of [`Label`]s: a name each, and a sentence where packets are lost or answered with an error.
#[macro_export]
macro_rules! labels {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$vmeta:meta])* $variant:ident = $text:literal $(: $sentence:literal)?),+ $(,)?
    })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $vis enum $name { $($(#[$vmeta])* #[doc = concat!("`", $text, "`", $(": ", $sentence)?)] $variant),+ }

        impl $crate::node::Label for $name {
            const NAMES: &'static [&'static str] = &[$($text),+];
            const SENTENCES: &'static [&'static str] = &[$(concat!($($sentence)?)),+];
            #[inline(always)]
            fn index(self) -> u8 { self as u8 }
        }
        const _: () = assert!(<$name as $crate::node::Label>::NAMES.len() < 127);
    )+};
}

/// For a node that never drops or a sink that takes everything: it has no values.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

impl Label for Never {
    const NAMES: &'static [&'static str] = &[];
    const SENTENCES: &'static [&'static str] = &[];
    fn index(self) -> u8 {
        match self {}
    }
}

/// What is the same for every packet of a turn. Nodes never read a clock.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Nanoseconds since the plane started.
    pub now_ns: u64,
    /// The worker running this turn.
    pub worker: u16,
}

/// Decides the fate of packets. Owns no frame, so it can neither leak nor duplicate one.
pub trait Node: Send + Sized + 'static {
    /// Shown in counters, traces and the graph; unique with its instance suffix.
    const NAME: &'static str;
    /// Where packets may go.
    type Next: Label;
    /// Why packets may be dropped.
    type Drop: Label;

    /// Decides every packet of the batch. Undecided packets are a bug and stop a debug build.
    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>);

    /// What it found about a packet, for a trace; runs on the control thread on a copy made after the decision.
    fn describe(seen: &Seen) -> String {
        let _ = seen;
        String::new()
    }
}

/// Brings frames into the graph: receive rings, a handoff ring, packets made by control.
pub trait Source: Send + 'static {
    /// Shown in counters, traces and the graph.
    const NAME: &'static str;

    /// Adds at most `room` frames to `into`, without waiting.
    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector);

    /// Gives up every frame that it keeps, when the worker ends.
    fn close(&mut self, frames: &mut Frames) {
        let _ = frames;
    }
}

/// Takes frames out of the graph: transmit rings, a handoff ring, a waiting room.
pub trait Sink: Sized + Send + 'static {
    /// Shown in counters, traces and the graph.
    const NAME: &'static str;
    /// Why packets may be refused.
    type Drop: Label;

    /// Takes every frame of the delivery, or refuses it for a reason. What it leaves is dropped as undecided.
    fn accept(&mut self, turn: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>);

    /// What it did with a packet, for a trace; as [`Node::describe`].
    fn describe(seen: &Seen) -> String {
        let _ = seen;
        String::new()
    }
}
