//! Routes for a whole vector at once.

use crate::batch::Batch;
use crate::fib::NO_ROUTE;
use crate::forwarding::{Vrfs, lookup};
use crate::meta::{Endpoint, Flags, Meta};
use crate::node::Node;
use crate::vector::BATCH_MAX;

/// Room for the questions and answers of one vector.
pub(super) struct Lookups {
    keys_v4: Box<[u32; BATCH_MAX]>,
    keys_v6: Box<[u128; BATCH_MAX]>,
    ids: Box<[u32; BATCH_MAX]>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            keys_v4: Box::new([0; BATCH_MAX]),
            keys_v6: Box::new([0; BATCH_MAX]),
            ids: Box::new([NO_ROUTE; BATCH_MAX]),
        }
    }
}

impl Lookups {
    /// The ids of the paths to the end `of` each packet, in its table. One table and family in a vector is the rule, and
    /// looked up together.
    #[inline(always)]
    pub fn ids<N: Node>(&mut self, vrfs: &Vrfs, batch: &mut Batch<'_, N>, of: impl Fn(&Meta) -> &Endpoint) -> &[u32] {
        let length = batch.len();
        let first = batch.packet(0).meta;
        let (vrf, family) = (first.vrf, first.flags.has(Flags::IPV4));
        let mut uniform = true;
        for (index, key) in self.keys_v4[..length].iter_mut().enumerate() {
            let meta = batch.packet(index).meta;
            *key = of(meta).v4_bits();
            uniform &= (meta.vrf == vrf) & (meta.flags.has(Flags::IPV4) == family);
        }
        match vrfs.get(usize::from(vrf.0)) {
            Some(table) if uniform && family => {
                table.v4.lookup_batch(&self.keys_v4[..length], &mut self.ids[..length]);
            }
            Some(table) if uniform => {
                for (index, key) in self.keys_v6[..length].iter_mut().enumerate() {
                    *key = of(batch.packet(index).meta).v6_bits();
                }
                table.v6.lookup_batch(&self.keys_v6[..length], &mut self.ids[..length]);
            }
            _ => {
                for (index, id) in self.ids[..length].iter_mut().enumerate() {
                    let meta = &*batch.packet(index).meta;
                    *id = lookup(vrfs, meta.vrf, of(meta), meta.flags.has(Flags::IPV4));
                }
            }
        }
        &self.ids[..length]
    }
}
