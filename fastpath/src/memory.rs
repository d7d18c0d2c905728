//! Large blocks of zeroed memory, on huge pages where they can be had.
#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};

/// Bytes of a huge page on the machines this runs on.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes that the kernel is asked for at a time: it answers signals only in between.
#[cfg(not(miri))]
const POPULATE: usize = 32 * HUGE_PAGE;

/// An anonymous mapping, zeroed, aligned to [`HUGE_PAGE`], and given back when dropped.
pub struct Mapping {
    map: NonNull<u8>,
    map_length: usize,
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is only an address range; whoever reads or writes through it answers for that.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `length` bytes. Miri has no huge pages; its memory comes from the allocator.
    ///
    /// # Errors
    /// The allocator's.
    #[cfg(miri)]
    pub fn new(length: usize) -> io::Result<Self> {
        let layout = std::alloc::Layout::from_size_align(length.max(1), 4096).map_err(io::Error::other)?;
        // SAFETY: the layout has a size.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            map: base,
            map_length: layout.size(),
            base,
            length,
        })
    }

    /// Reserves `length` bytes, which the kernel backs as they are touched, with huge pages if it has them.
    ///
    /// # Errors
    /// The kernel's, when the address space cannot be had.
    #[cfg(not(miri))]
    pub fn new(length: usize) -> io::Result<Self> {
        let map_length = length.max(1).next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the padding is less than the HUGE_PAGE bytes mapped beyond `length`.
        let base = unsafe { map.add(map.addr().get().wrapping_neg() & (HUGE_PAGE - 1)) };
        // SAFETY: the range lies within the mapping; the call is advice and may fail without harm.
        unsafe { libc::madvise(base.as_ptr().cast(), length, libc::MADV_HUGEPAGE) };
        Ok(Self {
            map,
            map_length,
            base,
            length,
        })
    }

    /// Has the kernel back all of it now, so that no worker waits for a page (Linux 5.14, `MADV_POPULATE_WRITE`). Takes a
    /// second for some gigabytes; contents stay. Where it cannot be, pages come as they are touched.
    pub fn populate(&self) {
        #[cfg(not(miri))]
        for offset in (0..self.length).step_by(POPULATE) {
            let length = POPULATE.min(self.length - offset);
            // SAFETY: the range lies within the mapping, and the call changes no byte of it.
            let done = unsafe {
                let from = self.base.as_ptr().add(offset);
                libc::madvise(from.cast(), length, libc::MADV_POPULATE_WRITE)
            };
            if done != 0 {
                return;
            }
        }
    }

    /// The first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Usable bytes from [`Self::base`].
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(miri)]
        if let Ok(layout) = std::alloc::Layout::from_size_align(self.map_length, 4096) {
            // SAFETY: allocated with this layout; nobody uses it any more.
            return unsafe { std::alloc::dealloc(self.map.as_ptr(), layout) };
        }
        // SAFETY: the mapping is ours, and its users borrow it, so none is left.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_length) };
    }
}
