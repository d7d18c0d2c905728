//! Whether a packet came by a way that leads back to its source (RFC 2827, RFC 3704), for ports that ask.

use super::lookups::Lookups;
use crate::batch::Batch;
use crate::forwarding::{Forwarding, Path, Vrfs};
use crate::interfaces::{Interfaces, ReversePath as Rule};
use crate::labels;
use crate::meta::{Flags, Meta, PortId};
use crate::node::{Node, Turn};
use crate::publish::Reader;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Route = "route",
        Flows = "flows",
    }
    /// Why packets are dropped.
    pub enum Drop {
        WrongWay = "reverse-path": "Its port's rpf asks for a route to its source, strict: by that port; there is none (RFC 3704).",
    }
}

/// The node.
pub struct ReversePath {
    forwarding: Arc<Forwarding>,
    vrfs: Reader<Vrfs>,
    interfaces: Reader<Interfaces>,
    lookups: Lookups,
}

impl ReversePath {
    /// Asks as `interfaces` say for routes in `vrfs`, whose paths are in `forwarding`.
    pub fn new(forwarding: Arc<Forwarding>, vrfs: Reader<Vrfs>, interfaces: Reader<Interfaces>) -> Self {
        Self {
            forwarding,
            vrfs,
            interfaces,
            lookups: Lookups::default(),
        }
    }
}

impl Node for ReversePath {
    const NAME: &'static str = "reverse-path";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let (vrfs, interfaces, forwarding) = (self.vrfs.refresh(), self.interfaces.refresh(), &*self.forwarding);
        let mut ids = self.lookups.ids(vrfs, batch, |meta| &meta.source).iter();
        batch.each(|packet| {
            let meta = &*packet.meta;
            let path = ids.next().map_or(Path::None, |id| forwarding.path(*id));
            let path = forwarding.resolve(vrfs, path, &meta.source, meta.flags.has(Flags::IPV4));
            let rule = interfaces
                .get(meta.port)
                .map_or(Rule::Off, |interface| interface.reverse_path);
            if !is_welcome(forwarding, rule, path.unwrap_or(Path::None), meta) {
                return Err(Drop::WrongWay);
            }
            Ok(if meta.flags.has(Flags::TRACKED) {
                Next::Flows
            } else {
                Next::Route
            })
        });
    }
}

fn is_welcome(forwarding: &Forwarding, rule: Rule, path: Path, meta: &Meta) -> bool {
    // A link-local source is reached where it was heard, by no route (RFC 4291 section 2.5.6).
    let is_link_local = !meta.flags.has(Flags::IPV4) && meta.source.v6_bits() >> 118 == 0xfe80 >> 6;
    match rule {
        Rule::Off => true,
        _ if is_link_local => true,
        Rule::Strict => leads_by(forwarding, path, meta.port),
        Rule::Loose => matches!(
            path,
            Path::Adjacency(_) | Path::Group { .. } | Path::Glean(_) | Path::Tunnel(_)
        ),
    }
}

/// Whether a path leads out of a port: of several ways any (RFC 3704 section 2.3).
fn leads_by(forwarding: &Forwarding, path: Path, port: PortId) -> bool {
    let by = |index: u32| {
        forwarding
            .adjacency(index)
            .is_some_and(|adjacency| adjacency.port == port)
    };
    match path {
        Path::Adjacency(index) => by(index),
        Path::Group { first, count } => forwarding.slots(first, count).any(by),
        Path::Glean(way) | Path::Tunnel(way) => way == port,
        Path::None | Path::Local | Path::Drop | Path::Broadcast | Path::Table(_) => false,
    }
}
