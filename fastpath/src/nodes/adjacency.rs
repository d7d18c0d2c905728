//! The last look at a packet: hop limit, MTU, link addresses.

use crate::batch::Batch;
use crate::forwarding::{Adjacency as Neighbour, Forwarding, LinkState};
use crate::labels;
use crate::meta::Flags;
use crate::node::{Node, Turn};
use crate::nodes::icmp_error::Complaint;
use crate::packet::Packet;
use crate::trace::Seen;
use crate::wire::{ethernet, ipv4};
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next {
        Transmit = "transmit",
        Wrap = "wrap",
        Hold = "unresolved",
        Fragment = "fragment",
        Expired = "hop-limit-expired": "The hop limit ran out; the sender is told.",
        TooBig = "too-big": "Larger than the MTU of the way and not to be fragmented; the sender is told.",
        HostUnreachable = "host-unreachable": "The next hop did not answer for its link address; the sender is told.",
    }
    /// Why packets are dropped.
    pub enum Drop {
        NoAdjacency = "no-adjacency": "Its route was withdrawn while it was on its way.",
        OwnUnreachable = "own-host-unreachable": "An answer of ours whose next hop does not answer.",
        OwnTooBig = "own-too-big": "An answer of ours that is larger than the MTU of the way.",
    }
}

/// The node.
pub struct Adjacency {
    forwarding: Arc<Forwarding>,
}

impl Adjacency {
    /// Finds neighbours in `forwarding`.
    pub fn new(forwarding: Arc<Forwarding>) -> Self {
        Self { forwarding }
    }
}

impl Node for Adjacency {
    const NAME: &'static str = "adjacency";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        let forwarding = &*self.forwarding;
        batch.each(|mut packet| {
            let neighbour = forwarding.towards(packet.meta.adjacency).ok_or(Drop::NoAdjacency)?;
            match neighbour.state() {
                LinkState::Complete => send(&mut packet, &neighbour, Next::Transmit),
                LinkState::Wrapped => send(&mut packet, &neighbour, Next::Wrap),
                LinkState::Incomplete => Ok(Next::Hold),
                LinkState::Failed if packet.meta.flags.has(Flags::OWN) => Err(Drop::OwnUnreachable),
                LinkState::Failed => {
                    packet.meta.complaint = Complaint::HostUnreachable as u8;
                    Ok(Next::HostUnreachable)
                }
            }
        });
    }

    fn describe(seen: &Seen) -> String {
        format!("adjacency {}", seen.meta.adjacency)
    }
}

#[inline(always)]
fn send(packet: &mut Packet<'_>, neighbour: &Neighbour, next: Next) -> Result<Next, Drop> {
    let (meta, data) = packet.split();
    let is_v4 = meta.flags.has(Flags::IPV4);
    // `parse` has seen an Ethernet and a whole IP header, and so do the nodes that answer.
    let Some(head) = data.first_chunk_mut::<34>() else {
        return Err(Drop::NoAdjacency);
    };
    if meta.data_length > neighbour.mtu() + ethernet::HEADER as u16 {
        let may_cut = is_v4 && head[20] & (ipv4::DONT_FRAGMENT >> 8) as u8 == 0;
        return too_big(packet, may_cut);
    }
    if !meta.flags.has(Flags::OWN) && !lower_hop_limit(head, is_v4) {
        meta.complaint = Complaint::HopLimit as u8;
        return Ok(Next::Expired);
    }
    if let Some(link) = head.first_chunk_mut() {
        neighbour.write(link);
    }
    meta.egress = neighbour.port;
    Ok(next)
}

/// Takes one off the hop limit and adjusts the IPv4 checksum (RFC 1812 section 5.3.1, RFC 1624); false: none is left.
/// `head` is from the Ethernet header on.
#[inline(always)]
pub fn lower_hop_limit(head: &mut [u8; 34], is_v4: bool) -> bool {
    if !is_v4 {
        let hops = &mut head[21];
        return if *hops > 1 {
            *hops -= 1;
            true
        } else {
            false
        };
    }
    if head[22] <= 1 {
        return false;
    }
    head[22] -= 1;
    // The hop limit is the high byte of its word: 0x100 less, added to the complement, so that zero stays one zero (equation 3).
    let sum = u32::from(!u16::from_be_bytes([head[24], head[25]])) + u32::from(!0x100u16);
    let folded = !((sum + (sum >> 16)) as u16);
    head[24..26].copy_from_slice(&folded.to_be_bytes());
    true
}

#[cold]
fn too_big(packet: &mut Packet<'_>, may_cut: bool) -> Result<Next, Drop> {
    if may_cut {
        return Ok(Next::Fragment);
    }
    if packet.meta.flags.has(Flags::OWN) {
        return Err(Drop::OwnTooBig);
    }
    packet.meta.complaint = Complaint::TooBig as u8;
    Ok(Next::TooBig)
}

#[cfg(test)]
mod tests {
    use super::lower_hop_limit;
    use crate::wire::checksum::checksum;

    #[test]
    fn a_lowered_header_has_the_checksum_it_would_be_given() {
        for identification in 0..=u16::MAX {
            let mut head = [0; 34];
            (head[14], head[22], head[23]) = (0x45, 64, 89);
            head[18..20].copy_from_slice(&identification.to_be_bytes());
            for hops in [64, 63] {
                let sum = checksum(&head[14..34]);
                head[24..26].copy_from_slice(&sum);
                assert_eq!(head[22], hops);
                assert!(lower_hop_limit(&mut head, true));
                let lowered = [std::mem::take(&mut head[24]), std::mem::take(&mut head[25])];
                assert_eq!(lowered, checksum(&head[14..34]), "{identification}");
            }
        }
    }
}
