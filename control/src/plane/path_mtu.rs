//! What is known of the ways outside of tunnels: how much at once they take, for a time.
//!
//! Whoever knows two ends of a tunnel can claim that the way between them is narrow, so such a claim has no effect below
//! what Linux believes, and none for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fastpath::meta::PortId;

use super::State;
use crate::resource::PortSpec;

/// How long it is believed (RFC 1191 section 6.3, and Linux's `mtu_expires`).
const BELIEVED_NS: u64 = 600_000_000_000;
/// No IPv4 link is believed to take less: Linux's `min_pmtu`.
const LEAST_V4: u16 = 552;
/// No IPv6 link takes less (RFC 8200 section 5).
const LEAST_V6: u16 = 1280;

/// The neighbours behind tunnels whose way is narrower than the tunnel's MTU, and until when that is believed.
pub(super) type PathMtus = BTreeMap<(PortId, IpAddr), Believed>;

/// What is believed of a way.
#[derive(Clone, Copy)]
pub(super) struct Believed {
    /// Bytes of what is inside.
    mtu: u16,
    until_ns: u64,
}

/// How much of what is inside passes where so much passes outside.
fn inside(spec: &PortSpec, outside: u16) -> u16 {
    let least = if spec.local.is_some_and(|local| local.is_ipv6()) {
        LEAST_V6
    } else {
        LEAST_V4
    };
    outside.max(least) - spec.overhead()
}

impl State {
    /// A router says that to the other end of a tunnel there is a link of this MTU.
    pub(super) fn hear_path_mtu(&mut self, id: PortId, remote: IpAddr, outside: u16) {
        let Some(port) = self.ports.get(id) else { return };
        let (spec, interfaces) = (&port.spec, self.interfaces.current());
        let Some(overlay) = interfaces.overlays.of_port(id) else {
            return;
        };
        let mtu = inside(spec, outside);
        if mtu >= spec.mtu {
            return;
        }
        let until_ns = self.manual_ns.unwrap_or_else(|| self.clock.now_ns()) + BELIEVED_NS;
        let behind = self
            .rib
            .neighbours_by(id)
            .filter(|address| overlay.remote_of(*address) == Some(remote));
        for address in behind.collect::<Vec<_>>() {
            let known = self.path_mtus.get(&(id, address)).map(|known| known.mtu);
            // A wider one than what is believed is an old message: the way is tried again when its time is over.
            if known.is_some_and(|known| known <= mtu) {
                continue;
            }
            tracing::info!(
                "{}: the way to {remote} takes {mtu} bytes at once, not {}",
                port.name,
                spec.mtu
            );
            self.path_mtus.insert((id, address), Believed { mtu, until_ns });
            self.rib.set_path_mtu(id, address, Some(mtu));
        }
    }

    /// Forgets what has been believed long enough.
    pub(super) fn forget_path_mtus(&mut self) {
        let now_ns = self.now_ns();
        self.drop_path_mtus(|_, believed| believed.until_ns <= now_ns);
    }

    /// Forgets the ways of a port that goes.
    pub(super) fn forget_ways(&mut self, port: PortId) {
        self.drop_path_mtus(|of, _| of == port);
    }

    fn drop_path_mtus(&mut self, is_over: impl Fn(PortId, &Believed) -> bool) {
        let rib = &mut self.rib;
        self.path_mtus.retain(|(port, address), believed| {
            let stays = !is_over(*port, believed);
            if !stays {
                rib.set_path_mtu(*port, *address, None);
            }
            stays
        });
    }
}
