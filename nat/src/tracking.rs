//! What the nodes of flows have in common, and how a leg keeps where its packets go.

use crate::journal::Journal;
use crate::table::Table;
use fastpath::forwarding::{ADJACENCIES, LOCAL, NO_ADJACENCY, TUNNEL};
use fastpath::generation::{Generation, STALE};
use fastpath::meta::{Meta, PortId};
use fastpath::wire::{icmp, protocol};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The table of connections, and the number of the configuration that verdicts are made under.
#[derive(Clone)]
pub struct Tracking {
    /// Every connection.
    pub table: Arc<Table>,
    /// Advanced by control.
    pub generation: Generation,
    /// What becomes of connections.
    pub journal: Journal,
}

/// The generation that the vector under way is decided under, from `flows` to `admit` of the same worker and chain.
#[derive(Clone, Default)]
pub struct Decided(Arc<AtomicU32>);

impl Decided {
    pub(crate) fn set(&self, generation: u32) {
        self.0.store(generation, Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// A verdict that is not one yet: the first packet of a direction is decided like one whose verdict is stale.
pub(crate) const UNDECIDED: u32 = STALE;

/// In [`Meta::reserved`]: the source becomes an address of ours, or answers would not come back by us. Written by
/// `balance`, read by `admit`.
pub const MASQUERADE: u8 = 1;
/// In [`Meta::reserved`]: the connection the packet belongs to is to be made anew, for its backend has gone. Written by
/// `balance`, read by `admit`.
pub const MOVED: u8 = 2;
/// In [`Meta::reserved`]: the packet goes to its backend's node as it is, if a tunnel with neighbours leads there. Written by
/// `balance` and `admit`, read by `admit`.
pub const DIRECT: u8 = 4;

/// Where a leg's packets go, in the 24 bits that it has for that: an adjacency, or one of these.
const FOR_US: u32 = 0xff_ffff;
const INTO_TUNNEL: u32 = 0xfe_0000;
/// With an adjacency: the packets leave as they came.
const UNCHANGED: u32 = 0x80_0000;
const _: () = assert!(ADJACENCIES <= UNCHANGED as usize && (UNCHANGED as usize) + ADJACENCIES <= INTO_TUNNEL as usize);

/// What `route` found, as a leg keeps it.
#[inline(always)]
pub(crate) fn way_of(meta: &Meta) -> u32 {
    match meta.adjacency {
        LOCAL => FOR_US,
        TUNNEL => INTO_TUNNEL | u32::from(meta.egress.0),
        index if meta.reserved & DIRECT != 0 => index | UNCHANGED,
        index => index,
    }
}

/// Whether packets that go this way leave as they came.
pub(crate) fn is_unchanged(way: u32) -> bool {
    (UNCHANGED..INTO_TUNNEL).contains(&way)
}

/// Writes what a leg keeps as `route` would have.
#[inline(always)]
pub(crate) fn follow_way(meta: &mut Meta, way: u32) {
    meta.adjacency = way;
    if way >= UNCHANGED {
        follow_code(meta, way);
    }
}

#[cold]
fn follow_code(meta: &mut Meta, way: u32) {
    match way {
        FOR_US => meta.adjacency = LOCAL,
        way if way & !0xffff == INTO_TUNNEL => {
            meta.adjacency = TUNNEL;
            meta.egress = PortId(way as u16);
        }
        way if is_unchanged(way) => meta.adjacency = way & !UNCHANGED,
        _ => meta.adjacency = NO_ADJACENCY,
    }
}

/// Whether a packet speaks of another one, whose flow it belongs to.
#[inline(always)]
pub(crate) fn is_icmp_error(meta: &Meta) -> bool {
    let kind = (meta.target.port >> 8) as u8;
    match meta.protocol {
        protocol::ICMP => icmp::v4::is_error(kind),
        // RFC 4443 section 2.1: below 128.
        protocol::ICMPV6 => kind < icmp::v6::ECHO_REQUEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_keeps_every_way() {
        let ways = [
            (7, 0),
            (ADJACENCIES as u32 - 1, 0),
            (LOCAL, 0),
            (TUNNEL, 0),
            (TUNNEL, 65_535),
        ];
        let direct = [(7, 0), (ADJACENCIES as u32 - 1, 0)];
        let changed = ways.map(|way| (way, 0)).into_iter();
        for ((adjacency, port), reserved) in changed.chain(direct.map(|way| (way, DIRECT))) {
            let mut meta = Meta::default();
            (meta.adjacency, meta.egress, meta.reserved) = (adjacency, PortId(port), reserved);
            let way = way_of(&meta);
            assert_eq!(way >> 24, 0);
            let mut again = Meta::default();
            follow_way(&mut again, way);
            assert_eq!((again.adjacency, again.egress), (adjacency, PortId(port)));
            assert_eq!(is_unchanged(way), reserved == DIRECT);
        }
    }
}
