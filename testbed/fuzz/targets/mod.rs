//! What is fuzzed: each target takes any bytes, and panics where the program does not keep a promise.

mod filters;
mod graph;
mod http;
mod policies;
mod resources;
mod selectors;
mod text;
mod wireguard;

/// Takes inputs, one after the other, and checks at its end what it has kept between them.
pub type Run = Box<dyn FnMut(&[u8])>;

/// Something that takes any bytes.
pub struct Target {
    /// What its folders of corpus and regressions are called.
    pub name: &'static str,
    /// Sets it up.
    pub start: fn() -> Run,
}

/// The list of them.
pub const ALL: &[Target] = &[
    target("filters", filters::start),
    target("graph", graph::start),
    target("http", http::start),
    target("policies", policies::start),
    target("resources", resources::start),
    target("selectors", selectors::start),
    target("wireguard", wireguard::start),
];

const fn target(name: &'static str, start: fn() -> Run) -> Target {
    Target { name, start }
}
