//! IPv4 (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header without options.
pub const HEADER: usize = 20;
/// In [`Header::fragment`]: do not fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// In [`Header::fragment`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// In [`Header::fragment`]: offset, in units of eight bytes.
pub const OFFSET: u16 = 0x1fff;

/// The header without options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (high four bits) and header length in words of four bytes.
    pub version_length: u8,
    /// DSCP (high six bits) and ECN.
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_length: U16,
    /// Same for all fragments of a packet.
    pub identification: U16,
    /// Flags and offset.
    pub fragment: U16,
    /// Hops left.
    pub hop_limit: u8,
    /// What follows.
    pub protocol: u8,
    /// Of the header.
    pub checksum: [u8; 2],
    /// Source.
    pub source: [u8; 4],
    /// Destination.
    pub target: [u8; 4],
}
const _: () = assert!(size_of::<Header>() == HEADER);

impl Header {
    /// Bytes of the header with options, as it says.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_length & 0x0f) * 4
    }

    /// A header of ours without options: no fragmentation, checksum set.
    pub fn new(source: [u8; 4], target: [u8; 4], protocol: u8, hop_limit: u8, payload: u16) -> Self {
        let mut header = Self {
            version_length: 0x45,
            traffic_class: 0,
            total_length: U16::new(HEADER as u16 + payload),
            identification: U16::ZERO,
            fragment: U16::new(DONT_FRAGMENT),
            hop_limit,
            protocol,
            checksum: [0; 2],
            source,
            target,
        };
        header.checksum = super::checksum::checksum(header.as_bytes());
        header
    }
}

/// What is wrong with a header's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOptions {
    /// A length runs past the header, or is too small.
    Malformed,
    /// The source wants to choose the route: refused (RFC 7126 section 4.3 and 4.4).
    SourceRoute,
}

/// Turns options that only the first piece of a packet carries into padding: those without the copied flag, bit 7 of the
/// kind (RFC 791 section 3.1). The options were checked.
pub fn clear_uncopied(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() {
        let length = match options[at] {
            0 | 1 => 1,
            _ => options.get(at + 1).map_or(1, |length| usize::from(*length).max(1)),
        };
        let end = options.len().min(at + length);
        if options[at] & 0x80 == 0 && options[at] != 0 {
            options[at..end].fill(1);
        }
        at = end;
    }
}

/// Checks the options of a header (RFC 791 section 3.1).
///
/// # Errors
/// What is wrong with them.
pub fn check_options(mut options: &[u8]) -> Result<(), BadOptions> {
    // Kinds without a length are the end and padding; loose and strict source route are 131 and 137.
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            (0, _) => return Ok(()),
            (1, rest) => rest,
            (131 | 137, _) => return Err(BadOptions::SourceRoute),
            (_, [length, ..]) if *length >= 2 => options.get(usize::from(*length)..).ok_or(BadOptions::Malformed)?,
            _ => return Err(BadOptions::Malformed),
        };
    }
    Ok(())
}
