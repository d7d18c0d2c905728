//! Intent in, snapshots out: what the user writes, the socket it comes through, and the program `margay`.

pub mod agent;
pub mod api;
pub mod capture;
pub mod cli;
pub mod connections;
pub mod felix;
pub mod flow_logs;
pub mod intent;
pub mod kernel_routes;
pub mod keys;
pub mod links;
pub mod metrics;
pub mod plane;
pub mod program;
pub mod recommend;
pub mod refusal;
pub mod resource;
pub mod run;
pub mod server;
pub mod show;
pub mod store;
pub mod takeover;
pub mod wiring;
