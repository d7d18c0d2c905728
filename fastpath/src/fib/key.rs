//! Addresses as lookup keys.

use std::fmt::Debug;

/// An address in host order: `u32` for IPv4, `u128` for IPv6.
pub trait Key: Copy + Eq + Ord + Default + Debug + Send + Sync + 'static {
    /// Bits in an address.
    const BITS: u32;

    /// The first 16 bits.
    fn first_16(self) -> u16;

    /// The 8 bits that start at bit `depth`, a multiple of 8 below `BITS`.
    fn byte(self, depth: u32) -> u8;

    /// The address with all but its first `length` bits cleared; `length` is at most `BITS`.
    fn masked(self, length: u32) -> Self;

    /// A well-mixed hash of the prefix `self/length`.
    fn hash(self, length: u32) -> u64;
}

impl Key for u32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn first_16(self) -> u16 {
        (self >> 16) as u16
    }

    #[inline(always)]
    fn byte(self, depth: u32) -> u8 {
        (self >> (24 - depth)) as u8
    }

    #[inline]
    fn masked(self, length: u32) -> Self {
        self & u32::MAX.checked_shl(32 - length).unwrap_or(0)
    }

    #[inline]
    fn hash(self, length: u32) -> u64 {
        fold(u64::from(self) << 8 | u64::from(length), MULTIPLIER)
    }
}

impl Key for u128 {
    const BITS: u32 = 128;

    #[inline(always)]
    fn first_16(self) -> u16 {
        (self >> 112) as u16
    }

    #[inline(always)]
    fn byte(self, depth: u32) -> u8 {
        // On a little-endian machine this is one byte load, where a shift of 128 bits is several instructions.
        self.to_le_bytes()[15 - (depth / 8) as usize]
    }

    #[inline]
    fn masked(self, length: u32) -> Self {
        self & u128::MAX.checked_shl(128 - length).unwrap_or(0)
    }

    #[inline]
    fn hash(self, length: u32) -> u64 {
        let high = fold((self >> 64) as u64 ^ u64::from(length), MULTIPLIER);
        fold(high ^ self as u64, MULTIPLIER | 0x100)
    }
}

/// 2^64 divided by the golden ratio, as in Fibonacci hashing (Knuth, volume 3, 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_masks_follow_network_order() {
        let v4 = u32::from_be_bytes([10, 1, 2, 3]);
        assert_eq!(v4.first_16(), 0x0a01);
        assert_eq!([0, 8, 16, 24].map(|depth| v4.byte(depth)), [10, 1, 2, 3]);
        assert_eq!([v4.masked(0), v4.masked(15), v4.masked(32)], [0, 0x0a00_0000, v4]);

        let octets: [u8; 16] = std::array::from_fn(|i| i as u8 + 1);
        let v6 = u128::from_be_bytes(octets);
        assert_eq!(v6.first_16(), 0x0102);
        assert_eq!(std::array::from_fn::<u8, 16, _>(|i| v6.byte(8 * i as u32)), octets);
        assert_eq!([v6.masked(0), v6.masked(16), v6.masked(128)], [0, 0x0102 << 112, v6]);
    }
}
