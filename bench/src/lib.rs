//! Bench.

pub mod routes;
