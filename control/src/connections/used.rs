//! What backends and addresses of source NAT have of the connections there are.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use fastpath::meta::Endpoint;
use nat::leg::Leg;
use nat::service::{PoolId, Services};

use super::Connections;
use crate::show::services::BackendStateView;

/// Backends listed at most, so that what reads them stays small: a cluster can have a million.
pub const LISTED_MAX: usize = 10_000;
/// Pairs of an address and a protocol told of at most.
const ADDRESSES_MAX: usize = 1024;

/// The services, and their backends.
#[derive(Clone, Default)]
pub struct Served {
    /// As workers have them.
    pub services: Services,
    /// Up to [`LISTED_MAX`], by service.
    pub backends: Vec<ServedBackend>,
    /// How many more there are.
    pub unlisted: u64,
}

/// A backend of one port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedBackend {
    /// Namespace and name of the service.
    pub service: (String, String),
    /// Its type, as in `show services`.
    pub service_type: &'static str,
    /// The port of the service and its protocol, such as `80/TCP`.
    pub port: String,
    /// Whether it is one of this node's alone, as traffic policy `Local` has them.
    pub local: bool,
    /// Its address and port.
    pub address: String,
    /// What it gets.
    pub state: BackendStateView,
    /// Connections that it was chosen for since it came.
    pub connections: u64,
    /// The pool that it is in.
    pub pool: PoolId,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// What of the table is whose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Of backends that have any.
    pub backends: HashMap<(PoolId, Endpoint), Carried>,
    /// Of addresses that connections come from instead of their own, by IP protocol.
    pub addresses: BTreeMap<(IpAddr, u8), Translated>,
}

/// Connections, and what they carried both ways so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// How many there are.
    pub connections: u64,
    /// Their packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Connections that come from an address of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// How many there are.
    pub connections: u64,
    /// Different ports that they have there: one serves many that go to different places.
    pub ports: u32,
    seen: Vec<u64>,
}

impl Translated {
    fn count(&mut self, port: u16) {
        self.seen.resize((1 << 16) / 64, 0);
        let (word, bit) = (&mut self.seen[usize::from(port / 64)], 1 << (port % 64));
        self.ports += u32::from(*word & bit == 0);
        *word |= bit;
        self.connections += 1;
    }
}

impl Connections {
    /// What of the table is whose now. Reads every connection there is, beside the workers.
    pub fn used(&self, services: &Services) -> Used {
        let mut used = Used::default();
        // Numbers are given from below: whoever has seen as many as there are need not look at the rest of the table.
        for connection in self.table.connections_from(0).take(self.table.len() as usize) {
            let [there, back] = connection.keys();
            if there.target() != back.source()
                && let Some((lead, _)) = services.find(there.vrf(), &there.target(), there.protocol())
            {
                let legs = [connection.there(), connection.back()];
                let both = |of: fn(&Leg) -> u64| legs.into_iter().map(of).sum::<u64>();
                let carried = used.backends.entry((lead.pool, back.source())).or_default();
                carried.connections += 1;
                carried.packets += both(Leg::packets);
                carried.bytes += both(Leg::bytes);
            }
            let source = back.target();
            let key = (source.ip(), there.protocol());
            let has_room = used.addresses.len() < ADDRESSES_MAX || used.addresses.contains_key(&key);
            if source.address != there.source().address && has_room {
                used.addresses.entry(key).or_default().count(source.port);
            }
        }
        used
    }

    /// Connections that had to make room for others since the start.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}
