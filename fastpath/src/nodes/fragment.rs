//! Cuts IPv4 packets that are larger than the MTU of their way, if they allow it (RFC 791 section 3.2,
//! RFC 1812 section 5.2.6). The pieces enter the graph again at `route`.

use crate::arena::{FrameIndex, HEADROOM};
use crate::batch::Delivery;
use crate::forwarding::Forwarding;
use crate::interfaces::Interfaces;
use crate::labels;
use crate::local::Local;
use crate::meta::{Flags, Meta};
use crate::node::{Sink, Source, Turn};
use crate::pool::Frames;
use crate::publish::Reader;
use crate::vector::Vector;
use crate::wire::{checksum, ipv4};
use std::collections::VecDeque;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Most pieces that wait for the next turns.
pub const PIECES_MAX: usize = 1024;

labels! {
    /// Why packets are not cut.
    pub enum Drop {
        Full = "fragment-full": "Too many pieces wait already, or no frame is free.",
        Mtu = "fragment-mtu": "The MTU of the way leaves no room for a piece.",
    }
}

/// A worker's pieces on their way back into the graph.
pub type Pieces = VecDeque<FrameIndex>;

/// The sink.
pub struct Fragment {
    forwarding: Arc<Forwarding>,
    interfaces: Reader<Interfaces>,
}

impl Fragment {
    /// Cuts to the MTUs in `forwarding`, and to those of tunnels in `interfaces`.
    pub fn new(forwarding: Arc<Forwarding>, interfaces: Reader<Interfaces>) -> Self {
        Self { forwarding, interfaces }
    }
}

impl Sink for Fragment {
    const NAME: &'static str = "fragment";
    type Drop = Drop;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        let (frames, pieces) = (&mut local.frames, &mut local.pieces);
        let (forwarding, interfaces) = (&self.forwarding, self.interfaces.refresh());
        delivery.each(
            |packet| interfaces.mtu(forwarding, packet.meta),
            |frame, mtu| cut(frames, pieces, frame, mtu),
        );
    }
}

/// Puts the pieces of one packet into `pieces`, all or none.
fn cut(frames: &mut Frames, pieces: &mut Pieces, mut frame: FrameIndex, mtu: u16) -> Result<(), (FrameIndex, Drop)> {
    let mut packet = frames.packet(&mut frame);
    let meta = *packet.meta;
    let (link, header_length) = (usize::from(meta.network_offset), usize::from(meta.transport_offset));
    let mut whole = [0; crate::arena::FRAME_SIZE];
    let length = packet.data().len();
    whole[..length].copy_from_slice(packet.data());
    let payload = &whole[link + header_length..length];
    let step = usize::from(mtu).saturating_sub(header_length) & !7;
    let Ok((header, _)) = ipv4::Header::read_from_prefix(&whole[link..]) else {
        return Err((frame, Drop::Mtu));
    };
    if step == 0 {
        return Err((frame, Drop::Mtu));
    }
    let count = payload.len().div_ceil(step);
    if pieces.len() + count > PIECES_MAX {
        return Err((frame, Drop::Full));
    }
    let before = pieces.len();
    for (index, piece) in payload.chunks(step).enumerate() {
        let Some(mut target) = frames.take() else {
            pieces.drain(before..).for_each(|piece| frames.give(piece));
            return Err((frame, Drop::Full));
        };
        let head = &whole[..link + header_length];
        write_piece(
            frames,
            &mut target,
            &meta,
            head,
            &header,
            piece,
            index * step,
            index + 1 < count,
        );
        pieces.push_back(target);
    }
    frames.give(frame);
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn write_piece(
    frames: &mut Frames,
    target: &mut FrameIndex,
    meta: &Meta,
    head: &[u8],
    original: &ipv4::Header,
    payload: &[u8],
    offset: usize,
    more: bool,
) {
    let mut packet = frames.packet(target);
    let mut bytes = [0; crate::arena::FRAME_SIZE];
    bytes[..head.len()].copy_from_slice(head);
    bytes[head.len()..][..payload.len()].copy_from_slice(payload);
    let link = usize::from(meta.network_offset);
    let length = head.len() + payload.len();
    let mut header = *original;
    let old = original.fragment.get();
    // What was a fragment already goes on where it began, and its last piece is the last only if it was.
    let flags = (old & ipv4::MORE_FRAGMENTS) | if more { ipv4::MORE_FRAGMENTS } else { 0 };
    header.fragment = (flags | ((old & ipv4::OFFSET) + (offset / 8) as u16)).into();
    header.total_length = ((length - link) as u16).into();
    header.checksum = [0; 2];
    bytes[link..][..ipv4::HEADER].copy_from_slice(header.as_bytes());
    if offset != 0 {
        ipv4::clear_uncopied(&mut bytes[link + ipv4::HEADER..head.len()]);
    }
    let sum = checksum::checksum(&bytes[link..head.len()]);
    bytes[link + 10..link + 12].copy_from_slice(&sum);
    *packet.meta = *meta;
    if header.fragment.get() & ipv4::OFFSET != 0 {
        packet.meta.flags.set(Flags::LATER_FRAGMENT);
    }
    // A piece is shorter than the frame it was cut from.
    let _ = packet.fill(HEADROOM, &bytes[..length]);
}

/// Brings the pieces back into the graph.
#[derive(Default)]
pub struct Recut;

impl Source for Recut {
    const NAME: &'static str = "fragments";

    fn poll(&mut self, _: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        for piece in local.pieces.drain(..room.min(local.pieces.len())) {
            into.push(piece);
        }
    }
}
