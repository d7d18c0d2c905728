//! Other addresses and ports in a packet, and the checksums that cover them (RFC 1624, RFC 3022 section 4).

pub(crate) mod plain;

use crate::quote::Quote;
use fastpath::meta::{Endpoint, Flags, Meta};
use fastpath::wire::checksum::Sum;
use fastpath::wire::{icmp, ipv4, ipv6, ndp, protocol};

/// Where an IP header has its checksum (IPv4) and its addresses.
const V4_CHECKSUM: usize = 10;
const V4_ADDRESSES: usize = 12;
const V6_ADDRESSES: usize = 8;

/// The packet is too short for what it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// What was replaced in a packet, for the checksums over it: a sum of the complements of the old words and of the new.
#[derive(Clone, Copy, Default)]
struct Change(u64);

impl Change {
    /// Writes `new` over the bytes at the start of `bytes`.
    #[inline(always)]
    fn write<const N: usize>(&mut self, bytes: &mut [u8], new: &[u8; N]) -> Result<(), Short> {
        let old = bytes.first_chunk_mut::<N>().ok_or(Short)?;
        // Pairs of words at once: what is carried between them is folded in the end (RFC 1071 section 2 (B)).
        let (pairs, last) = old.as_chunks::<4>();
        let (new_pairs, new_last) = new.as_chunks::<4>();
        for (old, new) in pairs.iter().zip(new_pairs) {
            self.0 += u64::from(!u32::from_ne_bytes(*old)) + u64::from(u32::from_ne_bytes(*new));
        }
        if let ([a, b], [c, d]) = (last, new_last) {
            self.0 += u64::from(!u16::from_ne_bytes([*a, *b])) + u64::from(u16::from_ne_bytes([*c, *d]));
        }
        *old = *new;
        Ok(())
    }

    /// Brings a checksum up to date (RFC 1624 equation 3).
    #[inline(always)]
    fn fix(self, stored: &mut [u8; 2]) {
        let mut sum = self.0 + u64::from(!u16::from_ne_bytes(*stored));
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        *stored = (!(sum as u16)).to_ne_bytes();
    }
}

/// Where the transport header of a protocol has its checksum, and whether that covers the addresses, too.
#[inline(always)]
fn transport_checksum(transport: u8) -> Option<(usize, bool)> {
    match transport {
        protocol::TCP => Some((16, true)),
        protocol::UDP | protocol::UDP_LITE => Some((6, true)),
        protocol::ICMP => Some((2, false)),
        protocol::ICMPV6 => Some((2, true)),
        _ => None,
    }
}

/// Which headers a packet has, and where. Read from its meta before that is written to: a copy of a whole meta just
/// written in parts waits for the stores, which was a third of what a translation costs.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub transport: usize,
    pub protocol: u8,
    pub is_v4: bool,
    /// Without a transport header.
    pub is_later: bool,
}

impl Layout {
    /// As `parse` found it.
    #[inline(always)]
    pub fn of(meta: &Meta) -> Self {
        Self {
            transport: usize::from(meta.transport_offset),
            protocol: meta.protocol,
            is_v4: meta.flags.has(Flags::IPV4),
            is_later: meta.flags.has(Flags::LATER_FRAGMENT),
        }
    }

    /// The same, without what it has behind IP.
    pub fn plain(self) -> Self {
        Self {
            protocol: protocol::NONE,
            ..self
        }
    }
}

/// A packet from its IP header on, as far as it is there.
struct Headers<'a> {
    bytes: &'a mut [u8],
    layout: Layout,
}

impl Headers<'_> {
    /// Gives the packet other ends. What a quote has cut off is not missed.
    #[inline(always)]
    fn translate(&mut self, source: &Endpoint, target: &Endpoint) -> Result<(), Short> {
        let mut addresses = Change::default();
        if self.layout.is_v4 {
            let mut both = [0; 8];
            both[..4].copy_from_slice(&source.address[12..]);
            both[4..].copy_from_slice(&target.address[12..]);
            addresses.write(self.bytes.get_mut(V4_ADDRESSES..).ok_or(Short)?, &both)?;
            let stored = self
                .bytes
                .get_mut(V4_CHECKSUM..)
                .and_then(|bytes| bytes.first_chunk_mut());
            addresses.fix(stored.ok_or(Short)?);
        } else {
            let mut both = [0; 32];
            both[..16].copy_from_slice(&source.address);
            both[16..].copy_from_slice(&target.address);
            addresses.write(self.bytes.get_mut(V6_ADDRESSES..).ok_or(Short)?, &both)?;
        }
        if self.layout.is_later {
            return Ok(());
        }
        self.translate_transport(addresses, source.port, target.port)
    }

    #[inline(always)]
    fn translate_transport(&mut self, addresses: Change, source: u16, target: u16) -> Result<(), Short> {
        let transport = self.bytes.get_mut(self.layout.transport..).unwrap_or_default();
        let mut ports = Change::default();
        match self.layout.protocol {
            protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP => {
                let both = u32::from(source) << 16 | u32::from(target);
                ports.write(transport, &both.to_be_bytes())?;
            }
            // The identifier of an echo.
            protocol::ICMP | protocol::ICMPV6 => {
                ports.write(transport.get_mut(4..).ok_or(Short)?, &source.to_be_bytes())?;
            }
            _ => return Ok(()),
        }
        let Some((at, covers_addresses)) = transport_checksum(self.layout.protocol) else {
            return Ok(());
        };
        let Some(stored) = transport.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut::<2>()) else {
            return Ok(());
        };
        // RFC 768: none was made. Where one is made, zero is written as its complement.
        if self.layout.protocol == protocol::UDP && self.layout.is_v4 && *stored == [0; 2] {
            return Ok(());
        }
        if covers_addresses {
            ports.0 += addresses.0;
        }
        ports.fix(stored);
        if self.layout.protocol == protocol::UDP && *stored == [0; 2] {
            *stored = [0xff; 2];
        }
        Ok(())
    }
}

/// Gives a packet, from its IP header on, the ends that its meta has then, too. SCTP's checksum covers its ports and
/// nothing of IP: where they change it is made anew by [`renew_sctp`].
#[inline(always)]
pub(crate) fn packet(bytes: &mut [u8], layout: Layout, source: &Endpoint, target: &Endpoint) -> Result<(), Short> {
    Headers { bytes, layout }.translate(source, target)
}

/// Makes the checksum of an SCTP packet, from its common header on (RFC 9260 section 6.8 and appendix A). A packet whose
/// checksum was wrong keeps a wrong one.
#[cold]
pub(crate) fn renew_sctp(transport: &mut [u8], was: impl FnOnce(&mut [u8])) {
    let sum = |bytes: &mut [u8]| {
        let mut stored = [0; 4];
        if let Some(field) = bytes.get_mut(8..12) {
            stored.copy_from_slice(field);
            field.fill(0);
        }
        let sum = crc32c::crc32c(bytes);
        if let Some(field) = bytes.get_mut(8..12) {
            field.copy_from_slice(&stored);
        }
        (u32::from_le_bytes(stored), sum)
    };
    let (stored, right) = sum(transport);
    was(transport);
    let (_, new) = sum(transport);
    if let Some(field) = transport.get_mut(8..12) {
        field.copy_from_slice(&(new ^ stored ^ right).to_le_bytes());
    }
}

/// Gives an ICMP error, from its IP header on, other ends, and the packet that it quotes the ends that its sender knows
/// (RFC 5508 section 4.2). False, and unchanged, where the error's own checksum is wrong.
#[cold]
pub(crate) fn error(
    network: &mut [u8],
    meta: &Meta,
    (source, target): (&Endpoint, &Endpoint),
    (quoted_source, quoted_target): (&Endpoint, &Endpoint),
) -> Result<bool, Short> {
    let quote = Quote::read(network, meta).ok_or(Short)?;
    let offset = usize::from(meta.transport_offset);
    let message = network.get_mut(offset..).ok_or(Short)?;
    if message_checksum(meta, &meta.source, &meta.target, message) != [0; 2] {
        return Ok(false);
    }
    let mut quoted = Headers {
        bytes: message.get_mut(icmp::HEADER..).ok_or(Short)?,
        layout: Layout {
            transport: quote.transport,
            protocol: quote.protocol,
            is_v4: quote.is_v4,
            is_later: false,
        },
    };
    quoted.translate(quoted_source, quoted_target)?;
    // The addresses outside, without what a message of ICMP has in the place of ports.
    packet(network, Layout::of(meta).plain(), source, target)?;
    let message = network.get_mut(offset..).ok_or(Short)?;
    message.get_mut(2..4).ok_or(Short)?.fill(0);
    let sum = message_checksum(meta, source, target, message);
    message.get_mut(2..4).ok_or(Short)?.copy_from_slice(&sum);
    Ok(true)
}

fn message_checksum(meta: &Meta, source: &Endpoint, target: &Endpoint, message: &[u8]) -> [u8; 2] {
    match meta.flags.has(Flags::IPV4) {
        true => Sum::default().with(message).finish(),
        false => ndp::checksum(source.address, target.address, message),
    }
}

const _: () = assert!(ipv4::HEADER == V4_ADDRESSES + 8 && ipv6::HEADER == V6_ADDRESSES + 32);
