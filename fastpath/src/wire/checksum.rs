//! The Internet checksum (RFC 1071) and its incremental change (RFC 1624).

/// A sum of 16-bit words, not yet folded or complemented. Words are taken as they stand in memory: the ones' complement
/// sum does not mind the byte order as long as the result is stored the same way (RFC 1071 section 2 (B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one is the first half of a word.
    pub fn with(self, bytes: &[u8]) -> Self {
        let mut sum = u128::from(self.0);
        let words = bytes.chunks_exact(8);
        let mut rest = [0; 8];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        for word in words {
            sum += u128::from(u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        }
        sum += u128::from(u64::from_ne_bytes(rest));
        let folded = (sum as u64 as u128) + (sum >> 64);
        Self((folded as u64).wrapping_add((folded >> 64) as u64))
    }

    /// The checksum, as it is stored (in memory order).
    #[inline(always)]
    pub fn finish(self) -> [u8; 2] {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        (!(sum as u16)).to_ne_bytes()
    }
}

/// The checksum of `bytes`, as it is stored.
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    Sum::default().with(bytes).finish()
}

/// Whether bytes that contain their checksum sum up to it.
pub fn is_valid(bytes: &[u8]) -> bool {
    checksum(bytes) == [0, 0]
}

/// Adjusts a stored checksum for a word that changed from `old` to `new`: RFC 1624 equation 3.
#[inline(always)]
pub fn replace_word(stored: [u8; 2], old: u16, new: u16) -> [u8; 2] {
    let sum = u32::from(!u16::from_be_bytes(stored)) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 4.1, as written there.
    fn naive(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn equals_the_rfc_for_every_length() {
        let bytes: Vec<u8> = (0..1500u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for length in 0..bytes.len() {
            assert_eq!(checksum(&bytes[..length]), naive(&bytes[..length]), "{length}");
        }
        assert_eq!(checksum(&[0xff; 64]), naive(&[0xff; 64]));
        assert_eq!(checksum(&[0; 64]), [0xff, 0xff]);
    }

    #[test]
    fn a_changed_word_equals_a_new_sum() {
        let mut bytes = [
            0x45, 0, 0, 84, 0x12, 0x34, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        for old in [0u16, 1, 0x00ff, 0xff00, 0xfffe, 0xffff, 0x8000] {
            for new in [0u16, 1, 0x00ff, 0xff00, 0xfffe, 0xffff, 0x7fff] {
                bytes[8..10].copy_from_slice(&old.to_be_bytes());
                let before = checksum(&bytes);
                bytes[8..10].copy_from_slice(&new.to_be_bytes());
                assert_eq!(replace_word(before, old, new), checksum(&bytes), "{old:x} {new:x}");
            }
        }
    }
}
