//! Control.

pub mod links;
