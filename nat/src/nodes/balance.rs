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
use crate::tracking::{MASQUERADE, MOVED};
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::nodes::icmp_error::Complaint;
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
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
    affinity: Arc<Affinity>,
}

impl Balance {
    /// Of `services`, and of the addresses that stand for others, which are among the `rules`; who had which backend is in
    /// `affinity`, which all workers share.
    pub fn new(services: Reader<Services>, rules: Reader<Rules>, affinity: Arc<Affinity>) -> Self {
        Self {
            services,
            rules,
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
        batch.each(|mut packet| {
            packet.meta.reserved = 0;
            if packet.meta.flow != leg::NONE && stays(services, fixed, &mut packet) {
                return Ok(Next::Route);
            }
            match services.of(packet.meta) {
                Some((lead, pool)) => balance(lead, pool, affinity, now_s, packet.meta),
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

fn balance(lead: &Lead, pool: &Pool, affinity: &Affinity, now_s: u32, meta: &mut Meta) -> Result<Next, Drop> {
    let client = meta.source.address;
    if !lead.sources.is_empty() && !lead.sources.iter().any(|prefix| prefix.contains(&client)) {
        return Err(Drop::SourceRange);
    }
    let Some(backend) = choose(pool, affinity, now_s, meta) else {
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
    Ok(Next::Route)
}

fn choose<'a>(pool: &'a Pool, affinity: &Affinity, now_s: u32, meta: &Meta) -> Option<&'a Backend> {
    let key = Key::of(meta)?;
    if pool.affinity_s == 0 {
        return pool.choose(&key);
    }
    let client = &meta.source.address;
    let had = affinity.find(client, pool, now_s).and_then(|tag| pool.tagged(tag));
    let kept = had.filter(|backend| backend.member.weight > 0);
    let backend = kept.or_else(|| pool.choose(&key))?;
    affinity.note(client, pool, backend.tag, now_s);
    Some(backend)
}

#[cfg(test)]
#[path = "balance/tests.rs"]
mod tests;
