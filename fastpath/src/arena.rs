//! All packet memory of the process: frames, and one meta beside each.
#![allow(unsafe_code)]

use crate::memory::Mapping;
use crate::meta::Meta;
use crate::packet::Packet;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of a frame: what an aligned UMEM takes (Documentation/networking/af_xdp.rst).
pub const FRAME_SIZE: usize = 2048;
/// Bytes before a received packet, for headers to be added: the kernel's `XDP_PACKET_HEADROOM`.
pub const HEADROOM: u16 = 256;
/// Most bytes of a packet where a source puts it.
pub const PACKET_MAX: usize = FRAME_SIZE - HEADROOM as usize;

/// Names one frame of the arena. Lives in exactly one vector, ring or pool; only the engine moves it.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameIndex(pub(crate) u32);

/// Memory that frames can live in.
///
/// # Safety
/// `base` points to at least `frames() * FRAME_SIZE` bytes, readable, writable and touched by nobody else but through
/// the arena (or by the kernel, for the frames that were lent to it) for as long as the value lives.
pub unsafe trait FrameMemory: Send + Sync + 'static {
    /// The first byte of the first frame.
    fn base(&self) -> NonNull<u8>;
    /// How many frames there are.
    fn frames(&self) -> u32;
}

struct Plain {
    mapping: Mapping,
    frames: u32,
}

// SAFETY: the mapping is as long as `frames` say (see `Arena::new`) and private to this value.
unsafe impl FrameMemory for Plain {
    fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }
    fn frames(&self) -> u32 {
        self.frames
    }
}

/// All packet memory of the process, allocated once.
pub struct Arena {
    base: NonNull<u8>,
    metas: Mapping,
    count: u32,
    _memory: Box<dyn FrameMemory>,
}

// SAFETY: a frame and its meta are reached only through the one place that holds its index.
unsafe impl Send for Arena {}
// SAFETY: as above; indices are neither `Clone` nor made outside this file.
unsafe impl Sync for Arena {}

impl Arena {
    /// Memory of its own, for ports that need no UMEM.
    ///
    /// # Errors
    /// The kernel's, when the memory cannot be had.
    pub fn new(frames: u32) -> io::Result<(Arc<Self>, Vec<FrameIndex>)> {
        let mapping = Mapping::new(frames as usize * FRAME_SIZE)?;
        Self::over(Plain { mapping, frames })
    }

    /// Frames in `memory`, a UMEM for instance. Mints every index there will ever be.
    ///
    /// # Errors
    /// The kernel's, when the memory for the metas cannot be had.
    pub fn over(memory: impl FrameMemory) -> io::Result<(Arc<Self>, Vec<FrameIndex>)> {
        let count = memory.frames();
        let metas = Mapping::new(count as usize * size_of::<Meta>())?;
        let arena = Self {
            base: memory.base(),
            metas,
            count,
            _memory: Box::new(memory),
        };
        // The lowest index is taken first, so that a small load stays in few pages.
        Ok((Arc::new(arena), (0..count).rev().map(FrameIndex).collect()))
    }

    /// How many frames there are.
    pub fn frames(&self) -> u32 {
        self.count
    }

    /// Bytes of all frames and metas.
    pub fn bytes(&self) -> usize {
        self.count as usize * (FRAME_SIZE + size_of::<Meta>())
    }

    /// The packet in a frame.
    ///
    /// # Safety
    /// This arena minted `index`; the caller holds it and lends it to no one else while the packet lives.
    #[inline(always)]
    pub(crate) unsafe fn packet(&self, index: &FrameIndex) -> Packet<'_> {
        let at = index.0 as usize;
        debug_assert!(index.0 < self.count, "a frame of another arena");
        // SAFETY: the arena minted `index`, so both offsets are in bounds; whoever holds it has exclusive access.
        // A meta of zeroes is valid, and so is any later one.
        unsafe {
            Packet {
                meta: &mut *self.metas.base().cast::<Meta>().add(at).as_ptr(),
                frame: std::slice::from_raw_parts_mut(self.base.add(at * FRAME_SIZE).as_ptr(), FRAME_SIZE),
            }
        }
    }

    /// Asks the cache for the bytes of a frame where packets start. Its meta the source has just written.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: &FrameIndex) {
        let at = index.0 as usize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching is a hint and faults on no address; the offset lies in the mapping anyway.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.base.add(at * FRAME_SIZE + usize::from(HEADROOM)).as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_do_not_overlap() {
        let (arena, frames) = Arena::new(8).unwrap();
        for frame in &frames {
            // SAFETY: the test holds every frame and uses one packet at a time.
            let mut packet = unsafe { arena.packet(frame) };
            packet.fill(0, &[frame.0 as u8 + 1; FRAME_SIZE]).unwrap();
            packet.meta.hash = frame.0;
        }
        for frame in &frames {
            // SAFETY: as above.
            let mut packet = unsafe { arena.packet(frame) };
            assert_eq!(packet.meta.hash, frame.0);
            assert!(packet.data().iter().all(|byte| u32::from(*byte) == frame.0 + 1));
        }
    }

    #[test]
    fn a_packet_grows_into_its_headroom_and_no_further() {
        let (arena, frames) = Arena::new(1).unwrap();
        // SAFETY: the test holds the frame.
        let mut packet = unsafe { arena.packet(&frames[0]) };
        packet.fill(HEADROOM, b"payload").unwrap();
        packet.push(2).unwrap().copy_from_slice(b"a ");
        assert_eq!(packet.data(), b"a payload");
        packet.pull(2);
        packet.truncate(3);
        assert_eq!(packet.data(), b"pay");
        assert!(packet.push(HEADROOM + 1).is_err());
        assert_eq!(packet.data(), b"pay");
        assert_eq!(packet.move_to(10), Ok(true));
        assert_eq!(packet.data(), b"pay");
        assert!(packet.fill(HEADROOM, &[0; PACKET_MAX + 1]).is_err());
    }
}
