//! VLANs of a port's link (IEEE 802.1Q): ports of their own, whose packets come and go by the other's queues with a tag.
//!
//! The tag is taken off before the graph sees a packet and put on when it leaves, so that no node knows of it.

use crate::meta::PortId;
use crate::packet::{NoRoom, Packet};
use crate::port::QueueCounters;
use std::sync::Arc;

/// Ether type of a tag.
pub const TAG: u16 = 0x8100;
/// Ether type of an outer tag (IEEE 802.1ad).
pub const SERVICE_TAG: u16 = 0x88a8;
/// Bytes of a tag.
pub const TAG_BYTES: u16 = 4;
/// The number in the low bits of a tag's second half.
const ID: u16 = 0x0fff;
/// Bytes of the link addresses, which stand before the tag.
const ADDRESSES: usize = 12;

/// One VLAN.
pub struct Vlan {
    /// Its number on the link, 1 to 4,094.
    pub id: u16,
    /// The port that it is.
    pub port: PortId,
    /// The port of the link.
    pub trunk: PortId,
    /// Of one worker.
    pub counters: Arc<QueueCounters>,
}

/// The number in a frame's tag, if it has one. Zero is a priority without a VLAN.
#[inline]
pub fn id_of(frame: &[u8]) -> Option<u16> {
    let tag: &[u8; 4] = frame.get(ADDRESSES..)?.first_chunk()?;
    (tag[..2] == TAG.to_be_bytes()).then_some(u16::from_be_bytes([tag[2], tag[3]]) & ID)
}

/// Whether what follows a frame's first tag is another one.
pub fn is_stacked(frame: &[u8]) -> bool {
    let inner = frame
        .get(ADDRESSES + usize::from(TAG_BYTES)..)
        .and_then(|rest| rest.first_chunk());
    inner.is_some_and(|inner| matches!(u16::from_be_bytes(*inner), TAG | SERVICE_TAG))
}

/// Takes a tag off a frame that has one.
#[inline]
pub fn untag(packet: &mut Packet<'_>) {
    let data = packet.data();
    if data.len() < ADDRESSES + usize::from(TAG_BYTES) {
        return;
    }
    data.copy_within(..ADDRESSES, usize::from(TAG_BYTES));
    packet.pull(TAG_BYTES);
}

/// Puts a tag on a frame, of priority 0.
///
/// # Errors
/// The frame has no room in front; it is as it was.
#[inline]
pub fn tag(packet: &mut Packet<'_>, id: u16) -> Result<(), NoRoom> {
    packet.push(TAG_BYTES)?;
    let data = packet.data();
    let (tag, end) = (ADDRESSES, ADDRESSES + usize::from(TAG_BYTES));
    if data.len() < end {
        packet.pull(TAG_BYTES);
        return Err(NoRoom);
    }
    data.copy_within(usize::from(TAG_BYTES)..end, 0);
    data[tag..tag + 2].copy_from_slice(&TAG.to_be_bytes());
    data[tag + 2..end].copy_from_slice(&(id & ID).to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;

    /// Tags or untags a frame that starts `headroom` bytes into its memory; what it is then.
    fn edit(frame: &[u8], headroom: u16, edit: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
        let mut memory = vec![0xee; 512];
        let mut meta = Meta::default();
        let mut packet = Packet {
            meta: &mut meta,
            frame: &mut memory,
        };
        packet.fill(headroom, frame).unwrap();
        edit(&mut packet);
        packet.data().to_vec()
    }

    /// A frame of that many bytes, none like the next.
    fn frame(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 37 + length) as u8).collect()
    }

    #[test]
    fn a_tag_goes_between_addresses_and_type_and_comes_off_again() {
        for (length, id) in (14..200).zip((1..=4094).step_by(22)) {
            let frame = frame(length);
            let tagged = edit(&frame, 4, |packet| tag(packet, id).unwrap());
            let expected = [&frame[..12], &[0x81, 0, (id >> 8) as u8, id as u8], &frame[12..]].concat();
            assert_eq!(tagged, expected);
            assert_eq!(id_of(&tagged), Some(id));
            assert_eq!(edit(&tagged, 0, untag), frame);
        }
    }

    #[test]
    fn no_frame_is_too_short_and_a_full_one_stays_as_it_is() {
        for frame in (0..20).map(frame) {
            assert_eq!((id_of(&frame), is_stacked(&frame)), (None, false));
            edit(&frame, 0, untag);
            let as_before = edit(&frame, 3, |packet| assert_eq!(tag(packet, 1), Err(NoRoom)));
            assert_eq!(as_before, frame);
        }
    }

    #[test]
    fn a_second_tag_is_seen() {
        let once = edit(&frame(60), 8, |packet| tag(packet, 5).unwrap());
        assert!(!is_stacked(&once));
        assert!(is_stacked(&edit(&once, 8, |packet| tag(packet, 6).unwrap())));
    }
}
