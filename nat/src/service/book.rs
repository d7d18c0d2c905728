//! Services as control keeps them, and changes them.

use super::pool::Kept;
use super::{CHUNK, Frontend, Lead, Member, PROTOCOLS, PoolId, Services};
use fastpath::meta::VrfId;
use fastpath::publish::{Publisher, Reader};
use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

/// All services, as control keeps them. What it changes, workers see once it is published.
pub struct Book {
    publisher: Publisher<Services>,
    services: Services,
    kept: BTreeMap<PoolId, Kept>,
    /// Pools to be frozen.
    changed: HashSet<PoolId>,
    free: Vec<PoolId>,
    lives: u64,
    dirty: bool,
}

impl Default for Book {
    fn default() -> Self {
        let services = Services::default();
        Self {
            publisher: Publisher::new(services.clone()),
            services,
            kept: BTreeMap::new(),
            changed: HashSet::new(),
            free: vec![],
            lives: 0,
            dirty: false,
        }
    }
}

impl Book {
    /// What one worker reads.
    pub fn reader(&self) -> Reader<Services> {
        self.publisher.reader()
    }

    /// What was last published.
    pub fn published(&self) -> impl Deref<Target = Services> + use<> {
        self.publisher.current()
    }

    /// Adds a pool that has nobody.
    pub fn add_pool(&mut self) -> PoolId {
        let next = PoolId(self.kept.last_key_value().map_or(0, |(id, _)| id.0 + 1));
        let id = self.free.pop().unwrap_or(next);
        self.lives += 1;
        self.kept.insert(id, Kept::new(self.lives));
        self.changed.insert(id);
        id
    }

    /// Makes a pool have these members, each endpoint once, and no others. A client stays with its backend for
    /// `affinity_s` seconds after its last new connection.
    pub fn set_pool(&mut self, id: PoolId, members: &[Member], affinity_s: u32) {
        if self.kept.get_mut(&id).is_some_and(|kept| kept.set(members, affinity_s)) {
            self.changed.insert(id);
        }
    }

    /// Removes a pool. Frontends that lead to it are nobody's from now on.
    pub fn remove_pool(&mut self, id: PoolId) {
        if self.kept.remove(&id).is_some() {
            self.changed.remove(&id);
            self.place(id, None);
            self.free.push(id);
        }
    }

    /// Says where a frontend leads.
    pub fn set_frontend(&mut self, frontend: Frontend, lead: Lead) {
        if self.services.fronts.insert(frontend, lead) {
            self.mark_node_port(&frontend);
        }
        self.dirty = true;
    }

    /// Removes a frontend.
    pub fn remove_frontend(&mut self, frontend: &Frontend) {
        self.dirty |= self.services.fronts.remove(frontend);
    }

    /// Says which addresses are the node's, mapped into IPv6 and in network order.
    pub fn set_addresses(&mut self, ours: HashSet<(VrfId, [u8; 16])>) {
        if *self.services.ours != ours {
            self.services.ours = Arc::new(ours);
            self.dirty = true;
        }
    }

    /// Shows workers everything as it is now. True if that is another than before.
    pub fn publish(&mut self) -> bool {
        for id in std::mem::take(&mut self.changed) {
            if let Some(kept) = self.kept.get_mut(&id) {
                let pool = Arc::new(kept.freeze());
                self.place(id, Some(pool));
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        if dirty {
            self.publisher.publish(self.services.clone());
        }
        dirty
    }

    /// Frees what no worker reads any more.
    pub fn reclaim(&mut self) {
        self.publisher.reclaim();
    }

    fn place(&mut self, id: PoolId, pool: Option<Arc<super::Pool>>) {
        let (chunk, place) = (id.0 as usize / CHUNK, id.0 as usize % CHUNK);
        let pools = &mut self.services.pools;
        while pools.len() <= chunk {
            pools.push(Arc::new([const { None }; CHUNK]));
        }
        Arc::make_mut(&mut pools[chunk])[place] = pool;
        self.dirty = true;
    }

    /// A mark stays when its frontends have gone: it costs a lookup and no more.
    fn mark_node_port(&mut self, frontend: &Frontend) {
        let place = PROTOCOLS.iter().position(|one| *one == frontend.protocol);
        if let Some(place) = place.filter(|_| frontend.is_node_port()) {
            let words = &mut Arc::make_mut(&mut self.services.node_ports)[place];
            words[usize::from(frontend.port / 64)] |= 1 << (frontend.port % 64);
        }
    }
}
