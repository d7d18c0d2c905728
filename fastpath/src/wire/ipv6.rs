//! IPv6 (RFC 8200) and the walk over its extension headers.

use super::protocol;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Least MTU of a link (RFC 8200 section 5).
pub const MINIMUM_MTU: u16 = 1280;
/// Most extension headers walked: more is nobody's honest packet (RFC 8504 section 5.3).
const EXTENSIONS_MAX: usize = 8;

/// The fixed header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (four bits), traffic class (eight) and flow label (twenty).
    pub version_class_label: U32,
    /// Bytes after this header.
    pub payload_length: U16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source.
    pub source: [u8; 16],
    /// Destination.
    pub target: [u8; 16],
}
const _: () = assert!(size_of::<Header>() == HEADER);

impl Header {
    /// A header of ours.
    pub fn new(source: [u8; 16], target: [u8; 16], next_header: u8, hop_limit: u8, payload: u16) -> Self {
        Self {
            version_class_label: U32::new(6 << 28),
            payload_length: U16::new(payload),
            next_header,
            hop_limit,
            source,
            target,
        }
    }
}

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The transport protocol, or [`protocol::NONE`].
    pub protocol: u8,
    /// Bytes from the IPv6 header to the transport header.
    pub offset: u8,
    /// Bytes from the IPv6 header to the field that names the transport protocol.
    pub named_at: u8,
    /// Whether a fragment header says that this is not the first fragment: there is no transport header then.
    pub later_fragment: bool,
    /// Whether there was a fragment header of a packet in several pieces.
    pub fragment: bool,
}

/// What is wrong with a chain of extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChain {
    /// A header runs past the packet.
    Truncated,
    /// Too many headers, or more than 255 bytes of them.
    TooLong,
    /// Hop-by-hop options stand elsewhere than first (RFC 8200 section 4.1).
    Misplaced,
    /// A routing header of type 0 (RFC 5095).
    SourceRoute,
    /// A fragment of no length, of a length it cannot have, or past 65,535 bytes (RFC 8200 section 4.5).
    Fragment,
}

/// Walks from the fixed header to the transport header. `packet` is from the IPv6 header to the payload's end.
///
/// # Errors
/// What is wrong with the chain.
pub fn walk(packet: &[u8], first: u8) -> Result<Transport, BadChain> {
    let mut found = Transport {
        protocol: first,
        offset: HEADER as u8,
        named_at: 6,
        later_fragment: false,
        fragment: false,
    };
    for position in 0..=EXTENSIONS_MAX {
        let at = usize::from(found.offset);
        let length = match found.protocol {
            protocol::HOP_BY_HOP if position > 0 => return Err(BadChain::Misplaced),
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS | protocol::ROUTING => {
                let head = packet.get(at..at + 8).ok_or(BadChain::Truncated)?;
                if found.protocol == protocol::ROUTING && head[2] == 0 && head[3] != 0 {
                    return Err(BadChain::SourceRoute);
                }
                (usize::from(head[1]) + 1) * 8
            }
            protocol::AUTHENTICATION => {
                let head = packet.get(at..at + 8).ok_or(BadChain::Truncated)?;
                (usize::from(head[1]) + 2) * 4
            }
            protocol::FRAGMENT => {
                let head = packet.get(at..at + 8).ok_or(BadChain::Truncated)?;
                check_fragment(head, packet.len() - at - 8, &mut found)?;
                8
            }
            _ => return Ok(found),
        };
        let head = packet.get(at..at + length).ok_or(BadChain::Truncated)?;
        found.protocol = head[0];
        found.named_at = found.offset;
        found.offset = u8::try_from(at + length).map_err(|_| BadChain::TooLong)?;
        if found.later_fragment {
            return Ok(found);
        }
    }
    Err(BadChain::TooLong)
}

fn check_fragment(head: &[u8], payload: usize, found: &mut Transport) -> Result<(), BadChain> {
    let offset_flags = u16::from_be_bytes([head[2], head[3]]);
    let (offset, more) = (usize::from(offset_flags & !7), offset_flags & 1 != 0);
    let odd = more && !payload.is_multiple_of(8);
    if payload == 0 || odd || offset + payload > usize::from(u16::MAX) {
        return Err(BadChain::Fragment);
    }
    found.fragment = more || offset != 0;
    found.later_fragment = offset != 0;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chain: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(chain);
        packet
    }

    #[test]
    fn the_transport_header_is_found_behind_a_chain() {
        let mut chain = vec![protocol::ROUTING, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop
        chain.extend([
            protocol::DESTINATION_OPTIONS,
            1,
            4,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]); // routing
        chain.extend([protocol::AUTHENTICATION, 0, 1, 4, 0, 0, 0, 0]);
        chain.extend([protocol::TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication counts words of four
        chain.extend([0; 20]);
        let found = walk(&packet(&chain), protocol::HOP_BY_HOP).unwrap();
        let expected = Transport {
            protocol: protocol::TCP,
            offset: 40 + 44,
            named_at: 40 + 32,
            later_fragment: false,
            fragment: false,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_later_fragment_has_no_transport_header() {
        let first = [protocol::UDP, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
        let found = walk(&packet(&first), protocol::FRAGMENT).unwrap();
        assert!(found.fragment && !found.later_fragment);
        // A later fragment's first bytes are payload, whatever they look like.
        let later = [protocol::HOP_BY_HOP, 0, 0, 8, 0, 0, 0, 9, 0, 255, 1, 1];
        let found = walk(&packet(&later), protocol::FRAGMENT).unwrap();
        assert!(found.fragment && found.later_fragment && found.offset == 48);
    }

    #[test]
    fn bad_chains_are_named() {
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let twice = [options(protocol::HOP_BY_HOP), options(protocol::TCP)].concat();
        assert_eq!(walk(&packet(&twice), protocol::HOP_BY_HOP), Err(BadChain::Misplaced));
        let endless: Vec<u8> = (0..12).flat_map(|_| options(protocol::DESTINATION_OPTIONS)).collect();
        assert_eq!(
            walk(&packet(&endless), protocol::DESTINATION_OPTIONS),
            Err(BadChain::TooLong)
        );
        assert_eq!(
            walk(&packet(&[6, 9, 0, 0, 0, 0, 0, 0]), protocol::HOP_BY_HOP),
            Err(BadChain::Truncated)
        );
        assert_eq!(walk(&packet(&[6, 0]), protocol::ROUTING), Err(BadChain::Truncated));
        let type_0 = [6, 2, 0, 1, 0, 0, 0, 0];
        assert_eq!(walk(&packet(&type_0), protocol::ROUTING), Err(BadChain::SourceRoute));
        let odd = [protocol::UDP, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3];
        assert_eq!(walk(&packet(&odd), protocol::FRAGMENT), Err(BadChain::Fragment));
        let beyond = [protocol::UDP, 0, 0xff, 0xf8, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(walk(&packet(&beyond), protocol::FRAGMENT), Err(BadChain::Fragment));
    }
}
