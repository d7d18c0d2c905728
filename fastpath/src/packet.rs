//! One packet, as a node sees it: its meta and its bytes.

use crate::meta::{Endpoint, Flags, Meta, VrfId};
use crate::wire::ethernet;

/// One packet.
pub struct Packet<'a> {
    /// What is known about it.
    pub meta: &'a mut Meta,
    pub(crate) frame: &'a mut [u8],
}

/// The frame has no room for what should be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame has no room left")]
pub struct NoRoom;

impl<'a> Packet<'a> {
    /// The packet's bytes, for as long as its frame is lent.
    #[inline(always)]
    pub fn into_data(self) -> &'a mut [u8] {
        let start = usize::from(self.meta.data_offset);
        &mut self.frame[start..][..usize::from(self.meta.data_length)]
    }

    /// The packet's bytes.
    #[inline(always)]
    pub fn data(&mut self) -> &mut [u8] {
        let start = usize::from(self.meta.data_offset);
        &mut self.frame[start..][..usize::from(self.meta.data_length)]
    }

    /// The packet's bytes beside its meta, for a node that reads one while it writes the other.
    #[inline(always)]
    pub fn split(&mut self) -> (&mut Meta, &mut [u8]) {
        let start = usize::from(self.meta.data_offset);
        let length = usize::from(self.meta.data_length);
        (self.meta, &mut self.frame[start..][..length])
    }

    /// Bytes from the network header on. Empty if the meta is not yet written.
    #[inline(always)]
    pub fn network(&mut self) -> &mut [u8] {
        let offset = usize::from(self.meta.network_offset);
        self.data().get_mut(offset..).unwrap_or_default()
    }

    /// Grows the packet at its front and returns the new bytes, whose content is arbitrary.
    ///
    /// # Errors
    /// The headroom is used up; the packet is as it was.
    #[inline]
    pub fn push(&mut self, length: u16) -> Result<&mut [u8], NoRoom> {
        let start = self.meta.data_offset.checked_sub(length).ok_or(NoRoom)?;
        self.meta.data_offset = start;
        self.meta.data_length += length;
        Ok(&mut self.frame[usize::from(start)..][..usize::from(length)])
    }

    /// Grows the packet at its end and returns the new bytes, whose content is arbitrary.
    ///
    /// # Errors
    /// The frame ends before; the packet is as it was.
    #[inline]
    pub fn extend(&mut self, length: u16) -> Result<&mut [u8], NoRoom> {
        let end = usize::from(self.meta.data_offset) + usize::from(self.meta.data_length);
        let new = self.frame.get_mut(end..end + usize::from(length)).ok_or(NoRoom)?;
        self.meta.data_length += length;
        Ok(new)
    }

    /// Cuts up to `length` bytes off the front.
    #[inline]
    pub fn pull(&mut self, length: u16) {
        let length = length.min(self.meta.data_length);
        self.meta.data_offset += length;
        self.meta.data_length -= length;
    }

    /// Shortens the packet to `length` bytes; a shorter one stays as it is.
    #[inline(always)]
    pub fn truncate(&mut self, length: u16) {
        self.meta.data_length = self.meta.data_length.min(length);
    }

    /// Makes the packet a copy of `bytes`, starting `headroom` bytes into the frame.
    ///
    /// # Errors
    /// The frame is too small; the packet is as it was.
    pub fn fill(&mut self, headroom: u16, bytes: &[u8]) -> Result<(), NoRoom> {
        let start = usize::from(headroom);
        let room = self.frame.get_mut(start..).ok_or(NoRoom)?;
        room.get_mut(..bytes.len()).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.meta.data_offset = headroom;
        self.meta.data_length = u16::try_from(bytes.len()).map_err(|_| NoRoom)?;
        Ok(())
    }

    /// Writes the meta of a packet of ours that is to be routed: no error is sent about it, and its hop limit stays.
    /// Its bytes are an Ethernet header yet to be written, but for the type, and a whole IP packet without options. The
    /// flow hash, the receiving port and whether it is traced are left as they are.
    #[inline]
    pub fn originate(&mut self, vrf: VrfId, protocol: u8, source: Endpoint, target: Endpoint, is_v4: bool) {
        let meta = &mut *self.meta;
        meta.flags = Flags::OWN
            .and(Flags::IPV4.when(is_v4))
            .and(Flags::TRACED.when(meta.flags.has(Flags::TRACED)));
        (meta.source, meta.target, meta.protocol, meta.vrf) = (source, target, protocol, vrf);
        meta.flow = u32::MAX;
        meta.network_offset = ethernet::HEADER as u8;
        meta.transport_offset = if is_v4 { 20 } else { 40 };
    }

    /// Moves the packet so that it starts `headroom` bytes into the frame; whether it had to be moved.
    ///
    /// # Errors
    /// It would not fit there; the packet is as it was.
    pub fn move_to(&mut self, headroom: u16) -> Result<bool, NoRoom> {
        let (from, to) = (usize::from(self.meta.data_offset), usize::from(headroom));
        if from == to {
            return Ok(false);
        }
        let length = usize::from(self.meta.data_length);
        if to + length > self.frame.len() {
            return Err(NoRoom);
        }
        self.frame.copy_within(from..from + length, to);
        self.meta.data_offset = headroom;
        Ok(true)
    }
}
