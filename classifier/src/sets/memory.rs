//! The memory of classes, as readers see it: words of a fixed capacity, changed only where no reader looks.
//!
//! A class is a run of lines of 16 words: the number of words in its bitmap, the number of its (set, protocol, port)
//! entries, the bitmap, the entries in order, two words each. It is named by its first line. Every access masks the
//! word's number, so a reader that breaks the turn protocol gets a wrong answer, never a wild load.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use zerocopy::FromZeros;

/// Words in a line: one cache line.
pub(crate) const LINE: usize = 16;
/// Words in front of the bitmap.
pub(super) const HEADER: usize = 2;
/// The class of an address that is in no set.
pub(super) const NONE: u32 = 0;

/// What an address is in: the place of a bitmap and its words. Valid until the end of the turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Class {
    /// The bitmap's first word.
    pub(crate) base: u32,
    /// Words it has. Sets behind it do not hold the address.
    pub(crate) words: u32,
}

/// The words of all classes: a power of two of them, and a line behind, so that a line may be read from any word.
pub struct Memory {
    words: Box<[AtomicU32]>,
    mask: usize,
}

impl Memory {
    /// At least `lines` lines of zeros, backed by the kernel as they are used.
    pub(super) fn new(lines: usize) -> io::Result<Memory> {
        let mask = (lines * LINE).next_power_of_two() - 1;
        let words = <[AtomicU32]>::new_box_zeroed_with_elems(mask + 1 + LINE)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "no memory for the sets of policies"))?;
        Ok(Memory { words, mask })
    }

    /// Lines there are.
    pub(super) fn lines(&self) -> usize {
        (self.mask + 1) / LINE
    }

    /// The class at `line`.
    #[inline(always)]
    pub(super) fn class(&self, line: u32) -> Class {
        let at = line as usize * LINE;
        Class {
            base: ((at + HEADER) & self.mask) as u32,
            words: self.word(at),
        }
    }

    /// Whether the bitmap of `class` has `set`; set 0 is in every one.
    #[inline(always)]
    pub fn has(&self, class: Class, set: u32) -> bool {
        set / 32 < class.words && self.word((class.base + set / 32) as usize) >> (set % 32) & 1 != 0
    }

    /// Word `index` of the bitmap of `class`, 0 behind its end.
    #[inline(always)]
    pub fn bitmap(&self, class: Class, index: u32) -> u32 {
        if index < class.words {
            self.word((class.base + index) as usize)
        } else {
            0
        }
    }

    /// Whether the address of `class` is in `set` together with `protocol` and `port`.
    pub fn has_port(&self, class: Class, set: u32, protocol: u8, port: u16) -> bool {
        let entries = self.word((class.base as usize).wrapping_sub(1));
        let first = (class.base + class.words) as usize;
        let wanted = u64::from(set) << 32 | u64::from(port_word(protocol, port));
        let (mut low, mut high) = (0, entries as usize);
        while low < high {
            let middle = (low + high) / 2;
            let at = first + 2 * middle;
            let entry = u64::from(self.word(at)) << 32 | u64::from(self.word(at + 1));
            match entry.cmp(&wanted) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }

    /// The first of all words, and what a word's number is masked with; behind every one are 15 more.
    #[inline(always)]
    pub(crate) fn words(&self) -> (*const AtomicU32, u32) {
        (self.words.as_ptr(), self.mask as u32)
    }

    /// Writes the words of a class that no reader can see yet.
    pub(super) fn write(&self, line: u32, words: impl Iterator<Item = u32>) {
        let first = line as usize * LINE;
        for (at, value) in words.enumerate() {
            self.words[first + at].store(value, Relaxed);
        }
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        self.words[at & self.mask].load(Relaxed)
    }
}

/// Protocol and port as one word.
pub(super) fn port_word(protocol: u8, port: u16) -> u32 {
    u32::from(protocol) << 16 | u32::from(port)
}
