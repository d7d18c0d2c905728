//! Tells what is the host's from what is the plane's, where both are on a link.

use super::{Drop, Next, Receiver, parse};
use crate::meta::Flags;
use crate::packet::Packet;
use crate::punt::Crossing;

/// As `parse`, for a port that shares its link.
#[cold]
#[inline(never)]
pub(super) fn divide(receiver: &Receiver<'_>, packet: Packet<'_>) -> Result<Next, Drop> {
    let Crossing::Host(punt) = receiver.crossing else {
        return Ok(Next::Punt);
    };
    let Packet { meta, frame } = packet;
    match parse(receiver, Packet { meta, frame }) {
        Ok(next @ (Next::Arp | Next::Ndp)) => Ok(next),
        Ok(_) if punt.is_for_host(&mut Packet { meta, frame }) => Ok(Next::Punt),
        // What is nothing to us may be something to the host: routing protocols, discovery, DHCP, and VLANs of its own.
        Err(Drop::UnknownEtherType | Drop::Multicast | Drop::LinkBroadcast) => Ok(Next::Punt),
        Err(Drop::VlanUnknown | Drop::VlanStack) => Ok(Next::Punt),
        Err(Drop::MartianSource) if meta.flags.has(Flags::TO_MANY) => Ok(Next::Punt),
        known => known,
    }
}
