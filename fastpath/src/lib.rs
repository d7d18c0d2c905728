//! The engine.

pub mod fib;
pub mod qsbr;
pub(crate) mod sync;
