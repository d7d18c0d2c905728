//! Longest-prefix match: from a destination to an adjacency.

use super::lookups::Lookups;
use crate::batch::Batch;
use crate::forwarding::{Forwarding, LOCAL, NO_ADJACENCY, Path, TUNNEL, Vrfs, lookup_around};
use crate::labels;
use crate::meta::{Flags, Meta};
use crate::node::{Node, Turn};
use crate::nodes::icmp_error::Complaint;
use crate::publish::Reader;
use crate::trace::Seen;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Forward = "forward",
        Local = "for-us",
        Hold = "unknown-neighbour",
        Tunnel = "tunnel",
        Unreachable = "no-route": "There is no route to the destination; its sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        Blackhole = "drop-route": "The route to the destination says drop.",
        Broadcast = "directed-broadcast": "Sent to all hosts of a subnet, which is not forwarded (RFC 2644).",
        LinkLocal = "link-local": "A link-local address does not leave its link (RFC 4291 section 2.5.6).",
        TableLoop = "table-loop": "Its routes lead from one table to the next too many times, or in a circle.",
        OwnUnreachable = "own-no-route": "An answer of ours to an address that there is no route to.",
    }
}

/// The node.
pub struct Route {
    forwarding: Arc<Forwarding>,
    vrfs: Reader<Vrfs>,
    lookups: Lookups,
}

impl Route {
    /// Looks up in `vrfs`, whose paths are in `forwarding`.
    pub fn new(forwarding: Arc<Forwarding>, vrfs: Reader<Vrfs>) -> Self {
        Self {
            forwarding,
            vrfs,
            lookups: Lookups::default(),
        }
    }
}

impl Node for Route {
    const NAME: &'static str = "route";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let vrfs = self.vrfs.refresh();
        let mut ids = self.lookups.ids(vrfs, batch, |meta| &meta.target).iter();
        batch.each(|packet| {
            let path = ids.next().map_or(Path::None, |id| self.forwarding.path(*id));
            follow(&self.forwarding, vrfs, path, packet.meta)
        });
    }

    fn describe(seen: &Seen) -> String {
        match seen.meta.adjacency {
            NO_ADJACENCY | LOCAL | TUNNEL => format!("{} in table {}", seen.meta.target.ip(), seen.meta.vrf.0),
            index => format!(
                "{} in table {} to adjacency {index}",
                seen.meta.target.ip(),
                seen.meta.vrf.0
            ),
        }
    }
}

#[inline(always)]
fn follow(forwarding: &Forwarding, vrfs: &Vrfs, path: Path, meta: &mut Meta) -> Result<Next, Drop> {
    let next = match path {
        Path::Local => {
            meta.adjacency = LOCAL;
            return Ok(Next::Local);
        }
        Path::Adjacency(index) => {
            meta.adjacency = index;
            Next::Forward
        }
        Path::Tunnel(port) if !meta.is_sealed_by(port) => {
            (meta.egress, meta.adjacency) = (port, TUNNEL);
            Next::Tunnel
        }
        _ => return follow_rarely(forwarding, vrfs, path, meta),
    };
    if is_link_local(meta) {
        return Err(Drop::LinkLocal);
    }
    Ok(next)
}

#[inline(never)]
fn follow_rarely(forwarding: &Forwarding, vrfs: &Vrfs, path: Path, meta: &mut Meta) -> Result<Next, Drop> {
    meta.adjacency = NO_ADJACENCY;
    // The packet stays one of the table it came in by: its connection is known by that, and its errors go back there.
    let path = forwarding
        .resolve(vrfs, path, &meta.target, meta.flags.has(Flags::IPV4))
        .map_err(|_| Drop::TableLoop)?;
    let path = around_tunnel(forwarding, vrfs, path, meta);
    if !matches!(path, Path::Local) && is_link_local(meta) {
        return Err(Drop::LinkLocal);
    }
    match path {
        Path::Adjacency(index) => {
            meta.adjacency = index;
            Ok(Next::Forward)
        }
        Path::Group { first, count } => {
            meta.adjacency = forwarding.choose(first, count, meta.hash);
            Ok(Next::Forward)
        }
        Path::Local => {
            meta.adjacency = LOCAL;
            Ok(Next::Local)
        }
        Path::Glean(port) => {
            meta.egress = port;
            Ok(Next::Hold)
        }
        Path::Tunnel(port) => {
            meta.egress = port;
            meta.adjacency = TUNNEL;
            Ok(Next::Tunnel)
        }
        Path::Drop => Err(Drop::Blackhole),
        Path::Broadcast => Err(Drop::Broadcast),
        Path::Table(_) | Path::None if meta.flags.has(Flags::OWN) => Err(Drop::OwnUnreachable),
        Path::Table(_) | Path::None => {
            meta.complaint = Complaint::NoRoute as u8;
            Ok(Next::Unreachable)
        }
    }
}

/// Where a packet goes instead that would go into the tunnel it came out of: what is sealed follows the best route that
/// leads into no tunnel. Without one it stays on its path, and is dropped there as nested.
fn around_tunnel(forwarding: &Forwarding, vrfs: &Vrfs, path: Path, meta: &Meta) -> Path {
    if !matches!(path, Path::Tunnel(port) if meta.is_sealed_by(port)) {
        return path;
    }
    let is_v4 = meta.flags.has(Flags::IPV4);
    let found = forwarding.path(lookup_around(vrfs, meta.vrf, &meta.target, is_v4));
    match forwarding.resolve(vrfs, found, &meta.target, is_v4) {
        Ok(Path::None | Path::Tunnel(_)) | Err(_) => path,
        Ok(other) => other,
    }
}

/// Whether a packet has a link-local IPv6 address, fe80::/10, at either end. IPv4's 169.254/16 is left to routes.
#[inline(always)]
fn is_link_local(meta: &Meta) -> bool {
    let link_local = |address: &[u8; 16]| u16::from_be_bytes([address[0], address[1]]) >> 6 == 0xfe80 >> 6;
    !meta.flags.has(Flags::IPV4) && (link_local(&meta.source.address) | link_local(&meta.target.address))
}
