//! Backends and what they have, for who counts.

use super::{Balancing, Running, address_text, endpoint, service};
use crate::connections::{LISTED_MAX, Served, ServedBackend};

impl Balancing {
    /// All services, and the backends of as many as are listed.
    pub fn served(&self) -> Served {
        let services = self.book.published().clone();
        let mut served = Served {
            services,
            ..Served::default()
        };
        let kind = |name| {
            self.services
                .get(name)
                .and_then(|resource| Some(service(resource)?.spec.kind.name()))
        };
        // Sorted, so that the same ones are listed each time.
        let balanced = self.services.keys();
        let balanced = balanced.filter_map(|name| Some((name, kind(name)?, self.running.get(name)?)));
        let host_ports = self
            .host_ports
            .iter()
            .map(|(name, running)| (name, "HostPort", running));
        for (name, service_type, running) in balanced.chain(host_ports) {
            running.list(&mut served, name, service_type);
        }
        served
    }
}

impl Running {
    fn list(&self, served: &mut Served, name: &super::Name, service_type: &'static str) {
        for (pool_name, backends) in &self.balanced.pools {
            let Some(id) = self.pools.get(pool_name) else { continue };
            let room = LISTED_MAX.saturating_sub(served.backends.len());
            served.unlisted += backends.len().saturating_sub(room) as u64;
            let services = &served.services;
            let pool = services.pool(*id);
            let listed = backends.iter().take(room).map(|((address, port), backend)| {
                let endpoint = endpoint(*address, *port);
                let known = pool.and_then(|pool| Some((pool, pool.at(&endpoint)?)));
                ServedBackend {
                    service: name.clone(),
                    service_type,
                    port: format!("{}/{}", pool_name.port.0, pool_name.port.1.name()),
                    local: pool_name.local,
                    address: address_text(*address, *port),
                    state: backend.state.into(),
                    connections: known.map_or(0, |(pool, backend)| pool.connections(backend)),
                    pool: *id,
                    endpoint,
                }
            });
            let listed: Vec<_> = listed.collect();
            served.backends.extend(listed);
        }
    }
}
