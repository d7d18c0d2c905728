//! What workers hold of the sets.

use super::memory::{Class, Memory, NONE};
use crate::packet::{Packet, VECTOR};
use crate::rule::IpVersion;
use fastpath::fib::{self, NO_ROUTE};
use std::sync::Arc;
use std::sync::atomic::{Ordering::Acquire, fence};

/// All sets as a worker sees them. It has to be online in their `Qsbr` and to announce its turns; a [`Class`] is good
/// until the end of the turn it was found in.
#[derive(Clone)]
pub struct View {
    v4: Arc<fib::View<u32>>,
    v6: Arc<fib::View<u128>>,
    memory: Arc<Memory>,
}

/// The classes of the addresses of a vector: source and target of each packet.
pub type Classes = [[Class; 2]; VECTOR];

impl View {
    pub(super) fn new(v4: Arc<fib::View<u32>>, v6: Arc<fib::View<u128>>, memory: Arc<Memory>) -> View {
        View { v4, v6, memory }
    }

    /// The memory of the classes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Finds what source and target of each packet are in.
    ///
    /// # Panics
    /// If there are more than [`VECTOR`] packets.
    pub fn resolve(&self, packets: &[Packet], classes: &mut Classes) {
        let mut ids = [NONE; 2 * VECTOR];
        let v4 = packets.iter().filter(|packet| packet.version == IpVersion::V4).count();
        if v4 > 0 {
            let mut addresses = [0u32; 2 * VECTOR];
            gather(packets, IpVersion::V4, &mut addresses, |end| end.v4_bits());
            self.v4.lookup_batch(&addresses[..2 * v4], &mut ids[..2 * v4]);
            self.scatter(packets, IpVersion::V4, &ids, classes);
        }
        if v4 < packets.len() {
            let v6 = packets.len() - v4;
            let mut addresses = [0u128; 2 * VECTOR];
            gather(packets, IpVersion::V6, &mut addresses, |end| end.v6_bits());
            self.v6.lookup_batch(&addresses[..2 * v6], &mut ids[..2 * v6]);
            self.scatter(packets, IpVersion::V6, &ids, classes);
        }
    }

    fn scatter(&self, packets: &[Packet], version: IpVersion, ids: &[u32; 2 * VECTOR], classes: &mut Classes) {
        // The table loads its default route without order; the words of its class are read after this.
        fence(Acquire);
        let mut ids = ids.as_chunks::<2>().0.iter();
        for (packet, classes) in packets.iter().zip(classes) {
            if packet.version == version
                && let Some(pair) = ids.next()
            {
                *classes = pair.map(|id| self.memory.class(if id == NO_ROUTE { NONE } else { id }));
            }
        }
    }
}

fn gather<K>(
    packets: &[Packet],
    version: IpVersion,
    addresses: &mut [K; 2 * VECTOR],
    key: impl Fn(&fastpath::meta::Endpoint) -> K,
) {
    let wanted = packets.iter().filter(|packet| packet.version == version);
    for (packet, pair) in wanted.zip(addresses.as_chunks_mut::<2>().0) {
        *pair = [key(&packet.source), key(&packet.target)];
    }
}
