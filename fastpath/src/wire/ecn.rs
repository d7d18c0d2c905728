//! Congestion marks across tunnels (RFC 6040, normal mode).

use super::checksum::replace_word;

/// The two bits of a traffic class that are the mark.
const MASK: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The congestion mark of an IP packet.
#[inline(always)]
pub fn of(packet: &[u8], is_v4: bool) -> u8 {
    let byte = packet.get(1).copied().unwrap_or_default();
    MASK & if is_v4 { byte } else { byte >> 4 }
}

/// The mark of a packet that arrived with these (RFC 6040 section 4.2, figure 4). None: it has to be dropped, for there
/// was congestion, and its ends would not understand the mark.
#[inline(always)]
pub fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// Writes the mark of an IP packet with a whole header.
pub fn set(packet: &mut [u8], is_v4: bool, mark: u8) {
    if is_v4 {
        let old = u16::from_be_bytes([packet[0], packet[1]]);
        packet[1] = packet[1] & !MASK | mark;
        let new = u16::from_be_bytes([packet[0], packet[1]]);
        let sum = replace_word([packet[10], packet[11]], old, new);
        packet[10..12].copy_from_slice(&sum);
    } else {
        packet[1] = packet[1] & !(MASK << 4) | mark << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;

    #[test]
    fn the_table_of_the_rfc() {
        // Rows: what is inside; columns: Not-ECT, ECT(0), ECT(1), CE outside.
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        for (inner, row) in [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ] {
            assert_eq!(outer.map(|outer| decapsulated(inner, outer)), row, "{inner} inside");
        }
    }

    #[test]
    fn a_mark_is_written_where_it_is_read() {
        for mark in 0..4 {
            let mut v4 = [0x45, 0xfc, 0, 20, 1, 2, 3, 4, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            let sum = checksum::checksum(&v4);
            v4[10..12].copy_from_slice(&sum);
            set(&mut v4, true, mark);
            assert!(checksum::is_valid(&v4) && of(&v4, true) == mark && v4[1] >> 2 == 0x3f);
            let mut v6 = [0x6f, 0xff, 0xff];
            set(&mut v6, false, mark);
            assert_eq!((v6, of(&v6, false)), ([0x6f, 0xcf | mark << 4, 0xff], mark));
        }
    }
}
