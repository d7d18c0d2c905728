//! The standard library's atomics, or loom's where a model checks them.
#[cfg(loom)]
pub(crate) use loom::{hint::spin_loop, sync::atomic};
#[cfg(not(loom))]
pub(crate) use std::{hint::spin_loop, sync::atomic};
