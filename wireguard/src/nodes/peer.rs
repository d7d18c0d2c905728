//! Cryptokey routing: which peer of a tunnel a packet is for, and whether it can go there now.

use super::mss;
use crate::interface::{Here, Interface, Interfaces};
use crate::mailbox::Mailbox;
use crate::peer::PeerId;
use crate::session::{Notice, Outbound};
use fastpath::batch::Batch;
use fastpath::forwarding::{NO_ADJACENCY, TUNNEL};
use fastpath::labels;
use fastpath::meta::{Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::nodes::adjacency::lower_hop_limit;
use fastpath::nodes::icmp_error::Complaint;
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
use fastpath::vector::BATCH_MAX;
use fastpath::wire::{ethernet, ipv4};

labels! {
    /// Where packets go.
    pub enum Next {
        Encrypt = "encrypt",
        Park = "no-session",
        Fragment = "fragment",
        Expired = "hop-limit-expired": "The hop limit ran out; the sender is told.",
        TooBig = "too-big": "Larger than the MTU of the tunnel and not to be fragmented; the sender is told.",
        NoPeer = "no-peer": "No peer of the tunnel is allowed the destination; the sender is told.",
        Unreachable = "peer-unreachable": "The peer has no endpoint, or has not answered for 90 seconds; the sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        NoInterface = "no-tunnel": "The tunnel it was routed into is being removed.",
        OwnTooBig = "own-too-big": "A packet of ours that is larger than the MTU of the tunnel.",
        OwnNoPeer = "own-no-peer": "A packet of ours to an address that no peer of the tunnel is allowed.",
        OwnUnreachable = "own-peer-unreachable": "A packet of ours to a peer that has no endpoint, or does not answer.",
    }
}

/// The node.
pub struct Peer {
    interfaces: Reader<Interfaces>,
    mailbox: Mailbox,
    owners: Box<[Option<PeerId>; BATCH_MAX]>,
}

impl Peer {
    /// For the tunnels of `interfaces`; who wants a session says so by `mailbox`.
    pub fn new(interfaces: Reader<Interfaces>, mailbox: Mailbox) -> Self {
        let owners = Box::new([None; BATCH_MAX]);
        Self {
            interfaces,
            mailbox,
            owners,
        }
    }
}

impl Node for Peer {
    const NAME: &'static str = "wg-peer";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let mut current = self.interfaces.refresh().current(turn.worker);
        // A short loop for each thing to look up, so that the cache misses of many peers overlap.
        for (place, found) in self.owners[..batch.len()].iter_mut().enumerate() {
            let meta = batch.packet(place).meta;
            *found = current.at(meta.egress).and_then(|here| owner(here.interface, meta));
        }
        let mut last = None;
        for (place, found) in self.owners[..batch.len()].iter().enumerate() {
            let changed = std::mem::replace(&mut last, *found) != *found;
            if let Some(peer) = found.filter(|_| changed)
                && let Some(here) = current.at(batch.packet(place).meta.egress)
                && let Some(session) = here.lookup.peer(peer).and_then(|outbound| outbound.session())
            {
                session.warm();
            }
        }
        let (mailbox, mut owners) = (&self.mailbox, self.owners.iter());
        batch.each(|mut packet| {
            let owner = owners.next().copied().flatten();
            let here = current.at(packet.meta.egress).ok_or(Drop::NoInterface)?;
            send(here, owner, (mailbox, turn.now_ns), &mut packet)
        });
    }

    fn describe(seen: &Seen) -> String {
        match seen.meta.adjacency {
            NO_ADJACENCY | TUNNEL => format!("{} has no peer of port {}", seen.meta.target.ip(), seen.meta.egress.0),
            peer => format!(
                "{} is of peer {peer} of port {}",
                seen.meta.target.ip(),
                seen.meta.egress.0
            ),
        }
    }
}

#[inline(always)]
fn send(
    here: &mut Here<'_>,
    owner: Option<PeerId>,
    (mailbox, now_ns): (&Mailbox, u64),
    packet: &mut Packet<'_>,
) -> Result<Next, Drop> {
    let Here { interface, lookup } = here;
    let (meta, data) = packet.split();
    let Some((peer, outbound)) = owner.and_then(|peer| Some((peer, lookup.peer(peer)?))) else {
        return complain(meta, Complaint::HostUnreachable, Next::NoPeer, Drop::OwnNoPeer);
    };
    let is_v4 = meta.flags.has(Flags::IPV4);
    // `parse` has seen an Ethernet and a whole IP header, and so do the nodes that make packets.
    let Some(head) = data.first_chunk_mut::<34>() else {
        return Err(Drop::NoInterface);
    };
    if meta.length() > interface.mtu + ethernet::HEADER as u16 {
        let may_cut = is_v4 && head[20] & (ipv4::DONT_FRAGMENT >> 8) as u8 == 0;
        return if may_cut {
            Ok(Next::Fragment)
        } else {
            complain(meta, Complaint::TooBig, Next::TooBig, Drop::OwnTooBig)
        };
    }
    if !outbound.session().is_some_and(|session| session.has_numbers(now_ns)) {
        return wait(interface, peer, outbound, mailbox, now_ns, meta);
    }
    if !meta.flags.has(Flags::OWN) && !lower_hop_limit(head, is_v4) {
        meta.complaint = Complaint::HopLimit as u8;
        return Ok(Next::Expired);
    }
    if interface.clamp_mss {
        mss::clamp(&mut data[ethernet::HEADER..], is_v4, interface.mtu);
    }
    meta.adjacency = peer.0;
    Ok(Next::Encrypt)
}

/// Whose the destination is.
#[inline(always)]
fn owner(interface: &Interface, meta: &Meta) -> Option<PeerId> {
    if meta.flags.has(Flags::IPV4) {
        interface.allowed.peer_v4(meta.target.v4_bits())
    } else {
        interface.allowed.peer_v6(meta.target.v6_bits())
    }
}

/// Without a session: asks for one, and keeps the packet as long as there is hope.
#[cold]
fn wait(
    interface: &Interface,
    peer: PeerId,
    outbound: &Outbound,
    mailbox: &Mailbox,
    now_ns: u64,
    meta: &mut Meta,
) -> Result<Next, Drop> {
    if outbound.activity.ask(now_ns) {
        mailbox.tell(interface.port, Notice::Wanted(peer));
    }
    if outbound.unreachable {
        return complain(
            meta,
            Complaint::HostUnreachable,
            Next::Unreachable,
            Drop::OwnUnreachable,
        );
    }
    meta.adjacency = peer.0;
    Ok(Next::Park)
}

#[cold]
fn complain(meta: &mut Meta, complaint: Complaint, next: Next, own: Drop) -> Result<Next, Drop> {
    if meta.flags.has(Flags::OWN) {
        return Err(own);
    }
    meta.complaint = complaint as u8;
    Ok(next)
}
