//! What a graph needs of connections.

use std::sync::Arc;

use control::wiring;
use fastpath::generation::Generation;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use nat::snat::Rules;
use nat::table::{Shape, Table};
use nat::timeouts::Timeouts;
use nat::tracking::Tracking;

/// A table, and who gets another source.
pub struct Connections {
    /// The table.
    pub tracking: Tracking,
    /// Nobody, until they are published.
    pub rules: Publisher<Rules>,
}

impl Connections {
    /// Room for `connections` of one worker.
    pub fn new(connections: u32, generation: &Generation, qsbr: &Arc<Qsbr>) -> Self {
        let shape = Shape {
            connections,
            writers: wiring::FLOW_WRITERS,
            seed: 1,
        };
        let table = Table::new(&shape, qsbr.clone()).expect("memory for connections");
        Self {
            tracking: Tracking {
                table: Arc::new(table),
                generation: generation.clone(),
            },
            rules: Publisher::new(Rules::default()),
        }
    }

    /// For the product's own wiring.
    pub fn wiring(&self) -> wiring::Flows<'_> {
        wiring::Flows {
            tracking: &self.tracking,
            timeouts: Timeouts::default(),
            rules: &self.rules,
        }
    }
}
