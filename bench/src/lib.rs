//! How fast: traffic and routes for the benchmarks, and the report.

pub mod chart;
pub mod machine;
pub mod report;
pub mod rig;
pub mod routes;
pub mod spread;
pub mod traffic;
pub mod tunnel;

/// As in `margay`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
