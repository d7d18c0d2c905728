//! The memory all sockets receive into and transmit from.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use thiserror::Error;

/// Bytes of one frame. The kernel's aligned mode wants a power of two from 2,048 to the page size.
pub const FRAME_SIZE: usize = 2048;
/// Byte of the frame where received data starts: `XDP_PACKET_HEADROOM` of the kernel's include/uapi/linux/bpf.h.
pub const DATA_START: usize = 256;

const HUGE_PAGE: usize = 2 << 20;

// Frames never straddle a huge page, so rounding the region up to whole ones adds only whole frames.
const _: () = assert!(HUGE_PAGE.is_multiple_of(FRAME_SIZE) && FRAME_SIZE.is_power_of_two());

/// The pages behind the packet memory. With 4 KiB pages every packet costs address translations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MiB pages (`vm.nr_hugepages`).
    Huge,
    /// 2 MiB pages asked of the kernel with `MADV_HUGEPAGE`; it gives as many as it finds.
    Transparent,
    /// 4 KiB pages: none are reserved and transparent ones are off.
    Small,
}

/// The packet memory could not be had.
#[derive(Debug, Error)]
pub enum UmemError {
    /// No frames, or more than addresses allow.
    #[error("packet memory of {0} frames is not possible: ask for 1 to 16,777,216 frames")]
    FrameCount(u32),
    /// The kernel refused the mapping.
    #[error("{bytes} bytes of packet memory cannot be had ({source}): ask for fewer frames")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// All packet memory of the process: `frame_count` frames of [`FRAME_SIZE`] bytes, frame n at byte n * [`FRAME_SIZE`].
///
/// Every socket registers this same memory with the kernel, so a frame received on one port leaves by any other
/// without a copy. Cloning shares the memory; it lives until the last clone and the last socket are gone.
#[derive(Debug, Clone)]
pub struct Umem(Arc<Region>);

#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    bytes: usize,
    frame_count: u32,
    pages: Pages,
}

// SAFETY: the region is plain memory at a fixed address, valid until `drop`; sharing the handle shares no reference
// into it, and whoever dereferences `base` owes the exclusion its documentation asks for.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; no method writes to the region.
unsafe impl Sync for Region {}

impl Umem {
    /// Maps memory for `frame_count` frames, on huge pages when there are any; [`pages`](Self::pages) says which.
    pub fn new(frame_count: u32) -> Result<Umem, UmemError> {
        if frame_count == 0 || frame_count > 1 << 24 {
            return Err(UmemError::FrameCount(frame_count));
        }
        let bytes = (frame_count as usize * FRAME_SIZE).next_multiple_of(HUGE_PAGE);
        let (base, pages) = match map(bytes, libc::MAP_HUGETLB | libc::MAP_POPULATE) {
            Ok(base) => (base, Pages::Huge),
            Err(_) => map_transparent(bytes).map_err(|source| UmemError::Memory { bytes, source })?,
        };
        let region = Region {
            base,
            bytes,
            frame_count,
            pages,
        };
        // SAFETY: advice on exactly the mapping just made. A child never uses the frames, and without this a fork
        // would copy every pinned page.
        unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_DONTFORK) };
        Ok(Umem(Arc::new(region)))
    }

    /// First byte of frame 0.
    ///
    /// Whoever dereferences it must own the frame: not given to a [`Queue`](super::Queue), and no other reference.
    pub fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Number of frames.
    pub fn frame_count(&self) -> u32 {
        self.0.frame_count
    }

    /// Bytes mapped: the frames, rounded up to whole 2 MiB pages.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The pages behind the memory.
    pub fn pages(&self) -> Pages {
        self.0.pages
    }
}

// SAFETY: the region has `frame_count` frames from `base` on, and lives as long as this handle. Between the arena and
// the sockets a frame is passed by its index, which only one of them has.
unsafe impl crate::arena::FrameMemory for Umem {
    fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    fn frames(&self) -> u32 {
        self.0.frame_count
    }
}

const _: () = assert!(FRAME_SIZE == crate::arena::FRAME_SIZE && DATA_START == crate::arena::HEADROOM as usize);

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this is the mapping `map` made, and the last handle to it. The kernel pins what it still uses.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Maps `bytes` at a 2 MiB boundary, asks for transparent huge pages, and touches every page.
fn map_transparent(bytes: usize) -> io::Result<(NonNull<u8>, Pages)> {
    let spare = map(bytes + HUGE_PAGE, 0)?;
    let lead = spare.as_ptr().align_offset(HUGE_PAGE);
    // SAFETY: the mapping has `bytes + HUGE_PAGE` bytes and `lead` is less than HUGE_PAGE, so `base..base + bytes`
    // lies within it, and the two pieces unmapped are the rest of it, on page boundaries.
    unsafe {
        let base = spare.add(lead);
        if lead > 0 {
            libc::munmap(spare.as_ptr().cast(), lead);
        }
        libc::munmap(base.add(bytes).as_ptr().cast(), HUGE_PAGE - lead);
        let advised = libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) == 0;
        // The first touch decides the page's size, so it comes after the advice; workers then never fault.
        base.as_ptr().write_bytes(0, bytes);
        let pages = if advised && transparent_pages_on() {
            Pages::Transparent
        } else {
            Pages::Small
        };
        Ok((base, pages))
    }
}

/// Whether the kernel heeds `MADV_HUGEPAGE` (Documentation/admin-guide/mm/transhuge.rst).
fn transparent_pages_on() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|text| !text.contains("[never]"))
}

/// Maps `bytes` of private memory with the extra `flags`.
fn map(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    match NonNull::new(address.cast::<u8>()) {
        Some(base) if address != libc::MAP_FAILED => Ok(base),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_there_aligned_and_zero() {
        let umem = Umem::new(1025).unwrap();
        assert_eq!(umem.frame_count(), 1025);
        assert_eq!(umem.bytes(), 4 << 20);
        assert_eq!(umem.base().as_ptr() as usize % HUGE_PAGE, 0);
        // SAFETY: no socket has a frame, so the whole region is this test's.
        let bytes = unsafe { std::slice::from_raw_parts_mut(umem.base().as_ptr(), umem.bytes()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes.fill(1);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(Umem::new(0), Err(UmemError::FrameCount(0))));
        assert!(matches!(Umem::new(u32::MAX), Err(UmemError::FrameCount(u32::MAX))));
    }
}
