//! Services: a new connection to one goes to a backend of its own, and a known one to the backend it has. One to an address
//! that stands for another goes there.
//!
//! Only the meta changes: the packet's bytes stay as they came until they are rewritten.

use crate::affinity::Affinity;
use crate::fixed::Fixed;
use crate::key::Key;
use crate::leg;
use crate::service::{Backend, Lead, Pool, Services};
use crate::snat::Rules;
use crate::tracking::{DIRECT, MASQUERADE, MOVED};
use arrayvec::ArrayVec;
use fastpath::batch::Batch;
use fastpath::interfaces::Interfaces;
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::nodes::icmp_error::Complaint;
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
use fastpath::vector::BATCH_MAX;
use fastpath::wire::protocol;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Route = "route",
        NoEndpoints = "no-endpoints": "Sent to a service that has no backend now; the sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        SourceRange = "source-range": "The source is in none of the loadBalancerSourceRanges of the service.",
        NotHere = "no-local-endpoint": "The service's traffic policy is Local, and none of its backends is on this node.",
    }
}

/// The node.
pub struct Balance {
    services: Reader<Services>,
    rules: Reader<Rules>,
    interfaces: Reader<Interfaces>,
    affinity: Arc<Affinity>,
}

impl Balance {
    /// Of `services`, and of the addresses that stand for others, which are among the `rules`; `interfaces` tell which
    /// ports are tunnels. Who had which backend is in `affinity`, which all workers share.
    pub fn new(
        services: Reader<Services>,
        rules: Reader<Rules>,
        interfaces: Reader<Interfaces>,
        affinity: Arc<Affinity>,
    ) -> Self {
        Self {
            services,
            rules,
            interfaces,
            affinity,
        }
    }
}

impl Node for Balance {
    const NAME: &'static str = "balance";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let services = self.services.refresh();
        let fixed = &self.rules.refresh().fixed;
        let now_s = (turn.now_ns / 1_000_000_000) as u32;
        let affinity = &*self.affinity;
        let interfaces = self.interfaces.refresh();
        let found = find_all(services, batch);
        let mut found = found.iter();
        batch.each(|mut packet| {
            let mut found = found.next().copied().flatten();
            packet.meta.reserved = 0;
            if packet.meta.flow != leg::NONE {
                if stays(services, fixed, &mut packet) {
                    return Ok(Next::Route);
                }
                found = Found::of(services, packet.meta).map(|found| found.hashed(packet.meta));
            }
            match found {
                Some(found) => {
                    let own = found.lead.direct.and_then(|own| services.pool(own));
                    let own = own.filter(|_| interfaces.overlays.of_port(packet.meta.port).is_some());
                    balance(&found, own, affinity, now_s, packet.meta)
                }
                None => {
                    enter(fixed, packet.meta);
                    Ok(Next::Route)
                }
            }
        });
    }

    fn describe(seen: &Seen) -> String {
        format!("to {}, port {}", seen.meta.target.ip(), seen.meta.target.port)
    }
}

/// The service that a packet goes to.
#[derive(Clone, Copy)]
struct Found<'a> {
    lead: &'a Lead,
    pool: &'a Pool,
    /// What the choice of a backend follows from.
    hash: u64,
}

impl<'a> Found<'a> {
    fn of(services: &'a Services, meta: &Meta) -> Option<Self> {
        let (lead, pool) = services.of(meta)?;
        Some(Self { lead, pool, hash: 0 })
    }

    fn hashed(self, meta: &Meta) -> Self {
        // A service is of no protocol whose key would be another.
        let hash = self.pool.hash(&Key::of_plain(meta));
        Self { hash, ..self }
    }
}

/// The services that new connections go to: a short loop for each thing to look up, so that the cache misses of many
/// connections overlap.
fn find_all<'a>(services: &'a Services, batch: &mut Batch<'_, Balance>) -> ArrayVec<Option<Found<'a>>, BATCH_MAX> {
    let mut all = ArrayVec::new();
    if services.is_empty() {
        return all;
    }
    for place in 0..batch.len() {
        services.warm(batch.packet(place).meta);
    }
    for place in 0..batch.len() {
        let meta = &*batch.packet(place).meta;
        let is_new = meta.flow == leg::NONE;
        let found = is_new.then(|| Found::of(services, meta)).flatten();
        all.push(found.inspect(|found| found.pool.warm()));
    }
    for (place, found) in all.iter_mut().enumerate() {
        *found = found.map(|found| found.hashed(batch.packet(place).meta));
        found.inspect(|found| found.pool.warm_slot(found.hash));
    }
    for found in all.iter().flatten() {
        found.pool.warm_backend(found.hash);
    }
    all
}

/// Sends a packet to the address that its own stands for, if it stands for one.
fn enter(fixed: &Fixed, meta: &mut Meta) {
    let inside = fixed.target(meta.vrf, meta.target);
    if inside != meta.target {
        meta.target = inside;
        if inside.address == meta.source.address {
            meta.reserved |= MASQUERADE;
        }
    }
}

/// Whether a packet of a known connection goes where its connection did. Else its meta is that of a new one.
fn stays(services: &Services, fixed: &Fixed, packet: &mut Packet<'_>) -> bool {
    // The other end of TCP and SCTP knows what was said; that of UDP may be anybody who can answer.
    let is_movable = packet.meta.protocol == protocol::UDP && !packet.meta.flags.has(Flags::LATER_FRAGMENT);
    let is_answer = packet.meta.flags.has(Flags::REPLY);
    if !is_movable || is_answer {
        return true;
    }
    let Some(written) = written_target(packet) else {
        return true;
    };
    let meta = &mut *packet.meta;
    let is_served = match services.find(meta.vrf, &written, meta.protocol) {
        Some((_, pool)) => pool.at(&meta.target).is_some(),
        None => fixed.target(meta.vrf, written) == meta.target,
    };
    if !is_served {
        meta.target = written;
        meta.reserved = MOVED;
    }
    is_served
}

/// Where the packet's bytes say that it goes.
fn written_target(packet: &mut Packet<'_>) -> Option<Endpoint> {
    let (is_v4, transport) = (packet.meta.flags.has(Flags::IPV4), packet.meta.transport_offset);
    let network = packet.network();
    let port = network.get(usize::from(transport) + 2..)?.first_chunk()?;
    let port = u16::from_be_bytes(*port);
    Some(if is_v4 {
        Endpoint::v4(*network.get(16..)?.first_chunk()?, port)
    } else {
        Endpoint {
            address: *network.get(24..)?.first_chunk()?,
            port,
        }
    })
}

/// `own` are the backends of this node, where it is another one that has chosen this node for the packet.
fn balance(
    found: &Found<'_>,
    own: Option<&Pool>,
    affinity: &Affinity,
    now_s: u32,
    meta: &mut Meta,
) -> Result<Next, Drop> {
    let lead = found.lead;
    let client = meta.source.address;
    if !lead.sources.is_empty() && !lead.sources.iter().any(|prefix| prefix.contains(&client)) {
        return Err(Drop::SourceRange);
    }
    let chosen = choose(found, affinity, now_s, &client).map(|backend| (found.pool, backend));
    // The other node knows the same backends, but for those that just came or went.
    let nearer = own.filter(|_| chosen.is_none_or(|(_, backend)| backend.member.remote));
    let nearer = nearer.and_then(|pool| {
        let found = Found { pool, ..*found }.hashed(meta);
        Some((pool, choose(&found, affinity, now_s, &client)?))
    });
    let Some((pool, backend)) = nearer.or(chosen) else {
        if lead.silent {
            return Err(Drop::NotHere);
        }
        meta.complaint = Complaint::PortClosed as u8;
        return Ok(Next::NoEndpoints);
    };
    pool.count(backend);
    let member = &backend.member;
    meta.target = member.endpoint;
    let is_own_client = client == member.endpoint.address;
    if is_own_client || lead.masquerade && member.remote {
        meta.reserved |= MASQUERADE;
    }
    // What came from another node goes no further as it is: two that disagree would pass it to and fro.
    if lead.direct.is_some() && member.remote && own.is_none() && meta.protocol != protocol::SCTP {
        meta.reserved |= DIRECT;
    }
    Ok(Next::Route)
}

fn choose<'a>(found: &Found<'a>, affinity: &Affinity, now_s: u32, client: &[u8; 16]) -> Option<&'a Backend> {
    let Found { pool, hash, .. } = *found;
    if pool.affinity_s == 0 {
        return pool.chosen(hash);
    }
    let had = affinity.find(client, pool, now_s).and_then(|tag| pool.tagged(tag));
    let kept = had.filter(|backend| backend.member.weight > 0);
    let backend = kept.or_else(|| pool.chosen(hash))?;
    affinity.note(client, pool, backend.tag, now_s);
    Some(backend)
}

#[cfg(test)]
#[path = "balance/tests.rs"]
mod tests;
