//! The reserved address range that nodes live in, and the only unsafe code of `fib`.
//!
//! The range never moves, so readers keep its base address. It is a power of two of lines: every access masks the line
//! number, which costs nothing (a slot's child bit has to be masked off anyway) and makes every access land inside the
//! mapping whatever was read before. A reader that breaks the turn protocol gets a wrong answer, never a wild load.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes in a line, the unit that nodes are made of: one cache line.
pub(super) const LINE: usize = 64;
/// The most bytes a region can have: the index of a word, root arrays included, has to fit 32 bits.
pub(super) const REGION_MAX: usize = 1 << 33;

const WORDS: u32 = (LINE / 4) as u32;
/// Words in front of a node's first run.
const HEADER_WORDS: u32 = 9;
const HUGE_PAGE: usize = 2 << 20;
/// Mapped behind the last line: an access may start in any line and reach as far as a root array does.
const OVERHANG: usize = 512 << 10;

const _: () = assert!(4 << 16 < OVERHANG && (REGION_MAX + OVERHANG) / 4 <= u32::MAX as usize);

/// What the kernel backs the memory of routes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Pages of the usual size.
    Small,
    /// Huge pages where the kernel has them (`MADV_HUGEPAGE`, asked before first touch); a hint, never an error.
    Huge,
}

/// Zeroed memory that the kernel backs as it is touched.
pub(super) struct Region {
    map: *mut libc::c_void,
    map_bytes: usize,
    base: *mut u8,
    /// Lines - 1.
    mask: u32,
}

// SAFETY: the mapping belongs to this value until it is dropped, and is only ever reached as atomics.
unsafe impl Send for Region {}
// SAFETY: as above; atomics may be shared.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves at least `bytes` (at most `REGION_MAX`) of address space.
    pub fn reserve(bytes: usize, pages: Pages) -> io::Result<Region> {
        let bytes = bytes.clamp(LINE, REGION_MAX).next_power_of_two();
        let map_bytes = bytes + OVERHANG + HUGE_PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory in use.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let padding = (map as usize).wrapping_neg() & (HUGE_PAGE - 1);
        // SAFETY: the padding is below HUGE_PAGE, so bytes + OVERHANG remain inside the mapping from here.
        let base = unsafe { map.cast::<u8>().add(padding) };
        if pages == Pages::Huge {
            // SAFETY: the range is inside the mapping made above. Refusal is fine: it is advice.
            unsafe { libc::madvise(base.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Region {
            map,
            map_bytes,
            base,
            mask: (bytes / LINE - 1) as u32,
        })
    }

    /// The memory as plain values that stay in registers across a loop.
    #[inline(always)]
    pub fn memory(&self) -> Memory<'_> {
        Memory {
            base: self.base,
            mask: self.mask,
            region: PhantomData,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; a `Memory` borrows the region, so none is left.
        unsafe { libc::munmap(self.map, self.map_bytes) };
    }
}

/// Access to the lines of one region.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    base: *const u8,
    mask: u32,
    region: PhantomData<&'a Region>,
}

/// Where a word is, counted in words from the base. Made only by [`Memory`], and used with the region it came from.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

impl<'a> Memory<'a> {
    /// The node header's bitmap: bit s says that slot s differs from slot s - 1.
    #[inline(always)]
    pub fn bitmap(self, line: u32) -> &'a [AtomicU64; 4] {
        // SAFETY: a masked line is inside the mapping, aligned to 64, zeroed or written as atomics, and lives as 'a.
        unsafe { &*self.line(line).cast() }
    }

    /// The node header's counts of runs before each word of the bitmap.
    #[inline(always)]
    pub fn ranks(self, line: u32) -> &'a [AtomicU8; 4] {
        // SAFETY: as `bitmap`; bytes 32 to 36 are in the same line.
        unsafe { &*self.line(line).add(32).cast() }
    }

    /// Where the word is that slot `slot` of the node at `line` has.
    #[inline(always)]
    pub fn slot(self, line: u32, slot: u8) -> Place {
        let group = usize::from(slot >> 6);
        let bits = self.bitmap(line)[group].load(Relaxed);
        let before = u32::from(self.ranks(line)[group].load(Relaxed));
        // Bit 0 of the bitmap is always set, so at least one is counted: that is run 0.
        let counted = before + (bits << (!slot & 63)).count_ones();
        Place((line & self.mask) * WORDS + HEADER_WORDS - 1 + counted)
    }

    /// The words of the node's runs; those behind the node's last one are not its own.
    #[inline(always)]
    pub fn runs(self, line: u32) -> &'a [AtomicU32; 256] {
        // SAFETY: as `bitmap`; 1,060 bytes from the start of any line are inside the overhang.
        unsafe { &*self.line(line).add(4 * HEADER_WORDS as usize).cast() }
    }

    /// Where run `run` of the node at `line` is.
    #[inline(always)]
    pub fn run(self, line: u32, run: u8) -> Place {
        Place((line & self.mask) * WORDS + HEADER_WORDS + u32::from(run))
    }

    /// Where word `index` of the array at `line` is.
    #[inline(always)]
    pub fn entry(self, line: u32, index: u16) -> Place {
        Place((line & self.mask) * WORDS + u32::from(index))
    }

    /// The word at `place`.
    #[inline(always)]
    pub fn word(self, place: Place) -> &'a AtomicU32 {
        // SAFETY: a place is at most 65,535 words behind the start of a line of this region, so inside the overhang.
        unsafe { &*self.base.cast::<AtomicU32>().add(place.0 as usize) }
    }

    /// Asks for the cache line of `place`.
    #[inline(always)]
    pub fn prefetch(self, place: Place) {
        prefetch(self.base.wrapping_add(place.0 as usize * 4));
    }

    /// Asks for the line `line`.
    #[inline(always)]
    pub fn prefetch_line(self, line: u32) {
        prefetch(self.line(line));
    }

    #[inline(always)]
    fn line(self, line: u32) -> *const u8 {
        self.base.wrapping_add((line & self.mask) as usize * LINE)
    }
}

/// Asks for the cache line at `address`, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing but caches and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_line_number_lands_inside() {
        let region = Region::reserve(1 << 20, Pages::Small).unwrap();
        let memory = region.memory();
        for line in [0, 16_383, 16_384, u32::MAX] {
            assert_eq!(memory.word(memory.entry(line, u16::MAX)).load(Relaxed), 0);
            assert_eq!(memory.word(memory.run(line, u8::MAX)).load(Relaxed), 0);
            assert_eq!(memory.bitmap(line)[3].load(Relaxed), 0);
        }
        memory.word(memory.entry(16_384, 3)).store(7, Relaxed);
        assert_eq!(memory.word(memory.entry(0, 3)).load(Relaxed), 7);
    }

    #[test]
    fn more_than_can_be_reserved_is_an_error_or_clamped() {
        let region = Region::reserve(usize::MAX, Pages::Huge);
        // Refused where address space is limited, else as much as can be named.
        assert!(region.is_err() || region.is_ok_and(|region| region.mask as usize + 1 == REGION_MAX / LINE));
    }
}
