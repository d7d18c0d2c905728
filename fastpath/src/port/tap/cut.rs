//! Cutting what a host hands over in one piece into packets that fit a link: TCP segmentation, UDP segmentation, and
//! checksums left to the device.

use super::segment::{Layout, stored};
use super::vnet::{Bundle, VnetHeader};
use crate::arena::PACKET_MAX;
use crate::wire::checksum::Sum;

const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What a host hands over cannot be cut into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncuttable {
    /// It is no packet of the kind that its header says.
    #[error("the headers do not fit the packet")]
    Malformed,
    /// A frame is too small for it.
    #[error("larger than a frame of {PACKET_MAX} bytes")]
    TooLarge,
}

/// What is left to be cut of one packet of a host. The bytes stay elsewhere and must not change meanwhile.
#[derive(Debug)]
pub struct Cut {
    how: How,
    /// From here on is to be cut; 0 for a packet that is not a bundle.
    next: usize,
    /// End of the packet.
    end: usize,
}

#[derive(Debug)]
enum How {
    /// One packet; the checksum at the second offset is to be completed from the first on.
    Whole(Option<(usize, usize)>),
    /// Packets of this many bytes of payload; so many were cut already.
    Pieces { layout: Layout, size: usize, cut: u16 },
}

impl Cut {
    /// A packet as a TAP device gave it, all of it still to be cut.
    ///
    /// # Errors
    /// It is no packet of the kind that `header` says, or its pieces do not fit frames.
    pub fn new(header: &VnetHeader, packet: &[u8]) -> Result<Self, Uncuttable> {
        let start = usize::from(header.checksum_start);
        let (how, next, length) = match header.bundle {
            Bundle::None => {
                let field = start + usize::from(header.checksum_offset);
                if header.needs_checksum && field + 2 > packet.len() {
                    return Err(Uncuttable::Malformed);
                }
                let unfinished = header.needs_checksum.then_some((start, field));
                (How::Whole(unfinished), 0, packet.len())
            }
            bundle => {
                let size = usize::from(header.size);
                let layout = Layout::with_transport(packet, bundle != Bundle::Udp, start);
                let layout = layout.ok_or(Uncuttable::Malformed)?;
                let is_v4 = match bundle {
                    Bundle::Tcp4 => true,
                    Bundle::Tcp6 => false,
                    Bundle::Udp | Bundle::None => layout.is_v4,
                };
                if size == 0 || !header.needs_checksum || layout.is_v4 != is_v4 || layout.payload == packet.len() {
                    return Err(Uncuttable::Malformed);
                }
                let length = layout.payload + size.min(packet.len() - layout.payload);
                (How::Pieces { layout, size, cut: 0 }, layout.payload, length)
            }
        };
        if length > PACKET_MAX {
            return Err(Uncuttable::TooLarge);
        }
        let end = packet.len();
        Ok(Self { how, next, end })
    }

    /// Bytes of the next piece, at most [`PACKET_MAX`]; none when all is cut.
    pub fn length(&self) -> Option<usize> {
        let left = self.end - self.next;
        match &self.how {
            _ if left == 0 => None,
            How::Whole(_) => Some(left),
            How::Pieces { layout, size, .. } => Some(layout.payload + left.min(*size)),
        }
    }

    /// Writes the next piece, whose [`length`](Self::length) `piece` has. `packet` is what the cut was made of.
    pub fn write(&mut self, packet: &[u8], piece: &mut [u8]) {
        match &mut self.how {
            How::Whole(unfinished) => {
                piece.copy_from_slice(packet);
                if let Some((start, field)) = *unfinished {
                    complete(piece, start, field);
                }
                self.next = self.end;
            }
            How::Pieces { layout, size, cut } => {
                let payload = &packet[self.next..self.end.min(self.next + *size)];
                piece[..layout.payload].copy_from_slice(&packet[..layout.payload]);
                piece[layout.payload..].copy_from_slice(payload);
                let offset = self.next - layout.payload;
                self.next += payload.len();
                finish(layout, piece, offset, *cut, self.next == self.end);
                *cut = cut.wrapping_add(1);
            }
        }
    }
}

/// Has the headers of a piece, so far those of the bundle, tell of the piece, `offset` bytes into the payload.
fn finish(layout: &Layout, piece: &mut [u8], offset: usize, number: u16, is_last: bool) {
    if layout.is_tcp {
        let header = &mut piece[layout.transport..];
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let sequence = sequence.wrapping_add(offset as u32);
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !is_last {
            header[13] &= !(FIN | PUSH);
        }
        if number > 0 {
            // The sender reduced its window once (RFC 3168 section 6.1.2).
            header[13] &= !CWR;
        }
    }
    let identification = layout.identification(piece).wrapping_add(number);
    layout.write_identification(piece, identification);
    layout.write_length(piece, piece.len());
    layout.write_checksum(piece);
}

/// Completes a checksum whose field holds the sum of the pseudo header.
fn complete(packet: &mut [u8], start: usize, field: usize) {
    let sum = Sum::default().with(&packet[start..]).finish();
    // Only UDP has its checksum there.
    packet[field..field + 2].copy_from_slice(&stored(sum, field - start != 6));
}
