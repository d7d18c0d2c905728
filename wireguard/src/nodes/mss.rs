//! TCP segments that fit through the tunnel: the largest that an end offers to take (RFC 9293 section 3.7.1) is lowered to
//! what a packet of the tunnel's MTU carries, for ends that never hear that their packets are too big.

use fastpath::wire::checksum::replace_word;
use fastpath::wire::{ipv4, ipv6, protocol};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
const SYN: u8 = 2;
/// Kinds of options: the end of them, one byte of padding, the largest segment.
const END: u8 = 0;
const PADDING: u8 = 1;
const LARGEST_SEGMENT: u8 = 2;

/// Lowers the offer in an IP packet that opens a connection to what fits into `mtu`; others stay as they are. The packet
/// need not have been checked.
pub fn clamp(packet: &mut [u8], is_v4: bool, mtu: u16) {
    let Some((offset, header)) = tcp_at(packet, is_v4) else {
        return;
    };
    let limit = mtu.saturating_sub((header + TCP_HEADER) as u16);
    let Some(segment) = packet.get_mut(offset..).filter(|segment| segment.len() >= TCP_HEADER) else {
        return;
    };
    if segment[13] & SYN != 0 {
        lower(segment, limit);
    }
}

/// Where the TCP header is, and how long the IP header would be without options.
fn tcp_at(packet: &[u8], is_v4: bool) -> Option<(usize, usize)> {
    if is_v4 {
        let first = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & ipv4::OFFSET == 0;
        let offset = usize::from(packet[0] & 0x0f) * 4;
        return (first && *packet.get(9)? == protocol::TCP).then_some((offset, ipv4::HEADER));
    }
    let found = ipv6::walk(packet, *packet.get(6)?).ok()?;
    let tcp = found.protocol == protocol::TCP && !found.later_fragment;
    tcp.then_some((usize::from(found.offset), ipv6::HEADER))
}

fn lower(segment: &mut [u8], limit: u16) {
    let end = segment.len().min(usize::from(segment[12] >> 4) * 4);
    let mut at = TCP_HEADER;
    while at < end {
        let length = match (segment[at], segment.get(at + 1)) {
            (END, _) | (_, None) => return,
            (PADDING, _) => 1,
            (LARGEST_SEGMENT, Some(4)) if at + 4 <= end => return write(segment, at + 2, limit),
            (_, Some(length)) if *length >= 2 => usize::from(*length),
            _ => return,
        };
        at += length;
    }
}

fn write(segment: &mut [u8], at: usize, limit: u16) {
    let offered = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if offered <= limit {
        return;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    // A word that straddles two of the sum's counts with its bytes swapped (RFC 1071 section 2 (B)).
    let word = |value: u16| {
        if at.is_multiple_of(2) {
            value
        } else {
            value.swap_bytes()
        }
    };
    let sum = replace_word([segment[16], segment[17]], word(offered), word(limit));
    segment[16..18].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastpath::wire::checksum::checksum;

    /// A segment with these flags and options behind an IP header, its checksum as if the pseudo-header were zeros.
    fn packet(is_v4: bool, flags: u8, options: &[u8]) -> (Vec<u8>, usize) {
        let mut segment = vec![0; TCP_HEADER];
        segment.extend_from_slice(options);
        (segment[12], segment[13]) = ((segment.len() as u8 / 4) << 4, flags);
        let sum = checksum(&segment);
        segment[16..18].copy_from_slice(&sum);
        let (mut ip, at) = if is_v4 {
            (vec![0x45; 20], 9)
        } else {
            (vec![0x60; 40], 6)
        };
        ip[6..8].fill(0);
        ip[at] = protocol::TCP;
        let header = ip.len();
        ip.extend(segment);
        (ip, header)
    }

    #[test]
    fn the_offer_of_an_opening_segment_is_lowered_wherever_it_stands() {
        for (is_v4, limit) in [(true, 1380u16), (false, 1360)] {
            for padding in 0..8 {
                let mut options = [vec![PADDING; padding], vec![LARGEST_SEGMENT, 4, 0x05, 0xb4]].concat();
                options.resize(12, END);
                let (mut syn, header) = packet(is_v4, SYN | 0x10, &options);
                clamp(&mut syn, is_v4, 1420);
                let at = header + TCP_HEADER + padding + 2;
                assert_eq!(syn[at..at + 2], limit.to_be_bytes());
                assert_eq!(checksum(&syn[header..]), [0, 0], "{padding}");
                let (before, _) = (syn.clone(), clamp(&mut syn, is_v4, 1500));
                assert_eq!(syn, before, "it is never raised");
            }
        }
    }

    #[test]
    fn nothing_else_is_touched_however_it_is_cut() {
        let offer = [LARGEST_SEGMENT, 4, 0x05, 0xb4];
        for (flags, options) in [
            (0x10, &offer[..]),
            (SYN, &[END, 0, 0, 0, 2, 4, 5, 0xb4]),
            (SYN, &[LARGEST_SEGMENT, 3, 5, 0xb4]),
            (SYN, &[9, 0, 2, 4]),
            (SYN, &[9, 255, 2, 4]),
            (SYN, &[]),
        ] {
            for is_v4 in [true, false] {
                let (whole, _) = packet(is_v4, flags, options);
                for length in 0..=whole.len() {
                    let mut cut = whole[..length].to_vec();
                    clamp(&mut cut, is_v4, 1280);
                    assert_eq!(cut, whole[..length]);
                }
            }
        }
    }
}
