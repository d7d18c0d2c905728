//! For whom a port answers on its link beside itself (RFC 1027, RFC 4389).

use crate::forwarding::{Forwarding, Path, Vrfs, lookup};
use crate::interfaces::{Interface, Proxy, shares_prefix};
use crate::meta::{Endpoint, PortId};
use crate::publish::Reader;
use std::net::IpAddr;
use std::sync::Arc;

/// Tells where addresses are.
pub struct Ways {
    forwarding: Arc<Forwarding>,
    vrfs: Reader<Vrfs>,
}

impl Ways {
    /// Looks up in `vrfs`, whose paths are in `forwarding`.
    pub fn new(forwarding: Arc<Forwarding>, vrfs: Reader<Vrfs>) -> Self {
        Self { forwarding, vrfs }
    }

    /// Whether a port answers for an address that is not its own. For one that is on its link, never.
    pub(super) fn answers_for(&mut self, (port, interface): (PortId, &Interface), address: IpAddr) -> bool {
        let listed = match &interface.proxy {
            Proxy::Nobody => return false,
            Proxy::Routed => None,
            Proxy::Prefixes(prefixes) => Some(prefixes.iter().any(|net| shares_prefix(net.0, address, net.1))),
        };
        if listed == Some(false) {
            return false;
        }
        match (listed, self.way(interface, address)) {
            (_, Way::By(way)) => way != port,
            (_, Way::Us) => true,
            (listed, Way::Nowhere) => listed.is_some(),
        }
    }

    fn way(&mut self, interface: &Interface, address: IpAddr) -> Way {
        let vrfs = self.vrfs.refresh();
        let (end, is_v4) = match address {
            IpAddr::V4(address) => (Endpoint::v4(address.octets(), 0), true),
            IpAddr::V6(address) => (
                Endpoint {
                    address: address.octets(),
                    port: 0,
                },
                false,
            ),
        };
        let path = self.forwarding.path(lookup(vrfs, interface.vrf, &end, is_v4));
        let by = |index: u32| self.forwarding.adjacency(index).map(|adjacency| adjacency.port);
        let port = match self.forwarding.resolve(vrfs, path, &end, is_v4) {
            Ok(Path::Adjacency(index)) => by(index),
            Ok(Path::Group { first, count }) => by(self.forwarding.choose(first, count, 0)),
            Ok(Path::Glean(port) | Path::Tunnel(port)) => Some(port),
            Ok(Path::Local) => return Way::Us,
            Ok(Path::None | Path::Drop | Path::Broadcast | Path::Table(_)) | Err(_) => None,
        };
        port.map_or(Way::Nowhere, Way::By)
    }
}

/// Where an address is.
enum Way {
    By(PortId),
    Us,
    Nowhere,
}
