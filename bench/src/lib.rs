//! How fast: traffic and routes for the benchmarks, and the report.

pub mod routes;
