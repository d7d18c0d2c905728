//! Up to 256 frames on their way to one stage.

use crate::arena::FrameIndex;

/// Most packets one vector holds, and most one turn may inhale.
pub const BATCH_MAX: usize = 256;

/// Up to [`BATCH_MAX`] frames on their way to one stage.
pub struct Vector(pub(crate) Vec<FrameIndex>);

impl Default for Vector {
    fn default() -> Self {
        Self(Vec::with_capacity(BATCH_MAX))
    }
}

impl Vector {
    /// Packets held.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many more it takes.
    #[inline]
    pub fn room(&self) -> usize {
        BATCH_MAX - self.0.len()
    }

    /// Adds one frame. There must be room: all sources of a turn share one budget, so there is.
    #[inline]
    pub fn push(&mut self, frame: FrameIndex) {
        assert!(self.0.len() < BATCH_MAX, "a vector holds {BATCH_MAX} packets");
        self.0.push(frame);
    }

    /// Takes every frame out.
    pub fn drain(&mut self) -> impl Iterator<Item = FrameIndex> + '_ {
        self.0.drain(..)
    }

    /// Takes out the last frame.
    pub fn pop(&mut self) -> Option<FrameIndex> {
        self.0.pop()
    }

    /// The frames held.
    pub fn frames_mut(&mut self) -> &mut [FrameIndex] {
        &mut self.0
    }
}
