//! The engine.

pub mod fib;
pub mod port;
pub mod qsbr;
pub(crate) mod sync;
