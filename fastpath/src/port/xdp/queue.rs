//! One queue of a device as its worker sees it: frames in, frames out.

use std::io;
use std::os::fd::RawFd;

use libxdp_sys::xdp_desc;

use super::socket::{Bind, Rings, Socket};
use super::umem::{FRAME_SIZE, Umem};

/// System calls one [`Queue::flush`] makes at most: enough for a vector of 256 at 32 packets each, twice.
const MAX_KICKS: usize = 16;
/// An Ethernet header: the least there is to transmit.
const MIN_LENGTH: u16 = 14;

/// One queue's socket. It belongs to one worker: no locks, and no allocation after creation but in
/// [`close`](Self::close).
///
/// Frames are numbers below [`Umem::frame_count`]. A frame handed in by [`fill`](Self::fill) or
/// [`transmit`](Self::transmit) is the kernel's, not to be touched, until [`receive`](Self::receive),
/// [`completed`](Self::completed) or `close` names it again.
#[derive(Debug)]
pub struct Queue {
    // Points into mappings of `socket`, which live as long as this.
    rings: Rings,
    socket: Socket,
    held: FrameSet,
    outstanding: usize,
    zero_copy: bool,
}

/// How the device is, as the kernel last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Link {
    /// It works. What is still [`pending`](Queue::pending) goes with the next flush.
    Up,
    /// The device is down (`ENETDOWN`). What is pending waits and goes out when it is up again.
    Down,
    /// The device is gone (`ENXIO`). Nothing moves on this socket ever again: close it.
    Gone,
}

/// The socket's counters, in packets or descriptors since it was opened (`struct xdp_statistics`, linux/if_xdp.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Dropped on receipt for other reasons, such as a packet that does not fit a frame.
    pub receive_dropped: u64,
    /// Dropped on receipt: the receive ring was full, the worker too slow.
    pub receive_ring_full: u64,
    /// Dropped on receipt: the fill ring held no frame.
    pub fill_ring_empty: u64,
    /// Fill descriptors the kernel refused.
    pub fill_invalid: u64,
    /// Transmit descriptors the kernel refused.
    pub transmit_invalid: u64,
    /// Times the kernel looked for a packet to send and found none.
    pub transmit_ring_empty: u64,
}

impl Queue {
    /// Binds to queue `queue` of `device`, in the network namespace of the calling thread.
    pub(super) fn open(
        umem: &Umem,
        device: &std::ffi::CStr,
        queue: u32,
        ring_size: u32,
        bind: Bind,
    ) -> io::Result<Queue> {
        let (socket, rings) = Socket::open(umem, device, queue, ring_size, bind)?;
        let zero_copy = socket.zero_copy()?;
        Ok(Queue {
            rings,
            socket,
            held: FrameSet::new(umem.frame_count()),
            outstanding: 0,
            zero_copy,
        })
    }

    /// Gives at most `room` received packets to `each`: frame, byte of the frame where the packet starts, its length
    /// in bytes. The number of them; their frames are the caller's again.
    pub fn receive(&mut self, room: usize, mut each: impl FnMut(u32, u16, u16)) -> usize {
        let mut count = 0;
        self.rings.receive.drain(room, |descriptor| {
            let (frame, offset) = frame_and_offset(descriptor.addr);
            // A frame that was never given, or a length beyond it, would be a kernel's bug; it must not become ours.
            let fits = usize::from(offset) + descriptor.len as usize <= FRAME_SIZE;
            if fits && self.held.remove(frame) {
                each(frame, offset, descriptor.len as u16);
                count += 1;
            }
        });
        count
    }

    /// How many frames [`fill`](Self::fill) would take now.
    pub fn fill_room(&mut self) -> usize {
        self.rings.fill.room(u32::MAX) as usize
    }

    /// Gives frames to the kernel to receive into, as many as there is room for, and wakes the driver if it waits for
    /// them. The number taken; the iterator is not advanced beyond them.
    ///
    /// Panics on a frame that does not exist or is the kernel's already.
    pub fn fill(&mut self, frames: impl IntoIterator<Item = u32>) -> usize {
        let room = self.fill_room();
        let mut count = 0;
        for frame in frames.into_iter().take(room) {
            self.held.insert(frame);
            self.rings.fill.push(u64::from(frame) * FRAME_SIZE as u64);
            count += 1;
        }
        if count > 0 {
            self.rings.fill.publish();
        }
        if self.rings.fill.needs_wakeup() {
            // Down or gone shows on the transmit side and to whoever watches the links; here it only means no packets.
            let _ = self.socket.wake_receive();
        }
        count
    }

    /// How many packets [`transmit`](Self::transmit) would take now.
    pub fn transmit_room(&mut self) -> usize {
        self.rings.transmit.room(u32::MAX) as usize
    }

    /// Queues the packet of `length` bytes at byte `offset` of `frame`; [`flush`](Self::flush) sends it. False when
    /// the ring is full, and the frame stays the caller's.
    ///
    /// Panics on a packet shorter than an Ethernet header or beyond its frame (the kernel would skip its descriptor
    /// without ever completing it), and on a frame that does not exist or is the kernel's already.
    #[must_use]
    pub fn transmit(&mut self, frame: u32, offset: u16, length: u16) -> bool {
        let end = usize::from(offset) + usize::from(length);
        assert!(
            length >= MIN_LENGTH && end <= FRAME_SIZE,
            "{length} bytes at {offset} are no packet"
        );
        if self.rings.transmit.room(1) == 0 {
            return false;
        }
        self.held.insert(frame);
        let addr = u64::from(frame) * FRAME_SIZE as u64 + u64::from(offset);
        self.outstanding += 1;
        self.rings.transmit.push(xdp_desc {
            addr,
            len: u32::from(length),
            options: 0,
        })
    }

    /// Sends what is queued: shows it to the kernel and, where it waits for that, asks it to transmit for as long as
    /// it makes progress. Call it every turn while anything is [`pending`](Self::pending).
    pub fn flush(&mut self) -> Link {
        self.rings.transmit.publish();
        let mut pending = self.rings.transmit.pending();
        for _ in 0..MAX_KICKS {
            if pending == 0 || !self.rings.transmit.needs_wakeup() {
                break;
            }
            let asked = self.socket.wake_transmit();
            let left = self.rings.transmit.pending();
            let link = Link::from(asked);
            // The other errors all mean "again": EAGAIN is a spent budget or a full send buffer, EBUSY a packet the
            // device dropped or a busy queue, ENOBUFS no memory now. Another call pays if this one got somewhere.
            if link != Link::Up || left == pending {
                return link;
            }
            pending = left;
        }
        Link::Up
    }

    /// How the device is; a system call. For a port with nothing to send, since poll(2) tells nothing of it.
    pub fn link(&self) -> Link {
        // A request to receive reports the device's state before anything else, and changes nothing.
        Link::from(self.socket.wake_receive())
    }

    /// Packets queued that the kernel has not taken yet.
    pub fn pending(&mut self) -> usize {
        self.rings.transmit.pending() as usize
    }

    /// Packets queued that are not yet [`completed`](Self::completed).
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Gives the frames of at most `room` transmitted packets to `each`. The number of them; they are the caller's
    /// again.
    pub fn completed(&mut self, room: usize, mut each: impl FnMut(u32)) -> usize {
        let mut count = 0;
        self.rings.completion.drain(room, |address| {
            let (frame, _) = frame_and_offset(address);
            if self.held.remove(frame) {
                each(frame);
                count += 1;
            }
        });
        self.outstanding -= count;
        count
    }

    /// The descriptor, borrowed; see [`Self::descriptor`].
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The descriptor, for poll(2): `POLLIN` when packets wait. A device that is down or gone shows nothing.
    pub fn descriptor(&self) -> RawFd {
        self.socket.descriptor()
    }

    /// Whether the driver reads and writes the frames itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Frames the kernel has.
    pub fn held(&self) -> usize {
        self.held.count
    }

    /// The kernel's counters; a system call.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let counters = self.socket.statistics()?;
        Ok(Statistics {
            receive_dropped: counters.rx_dropped,
            receive_ring_full: counters.rx_ring_full,
            fill_ring_empty: counters.rx_fill_ring_empty_descs,
            fill_invalid: counters.rx_invalid_descs,
            transmit_invalid: counters.tx_invalid_descs,
            transmit_ring_empty: counters.tx_ring_empty_descs,
        })
    }

    /// Closes the socket and gives back every frame the kernel had: to receive into, received and not yet taken,
    /// queued, on their way out.
    ///
    /// After closing, the kernel writes to no frame in copy mode; a device that sends straight from the frames
    /// (`IFF_TX_SKB_NO_LINEAR`, such as virtio-net) may still read those on their way out, so packets written over them
    /// at once can be sent in their place. In zero-copy mode the driver is told by a work item
    /// shortly after (`xp_release_deferred` in net/xdp/xsk_buff_pool.c), so this waits a tenth of a second for it.
    pub fn close(self) -> Vec<u32> {
        drop(self.socket);
        if self.zero_copy {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.held.iter().collect()
    }
}

impl From<io::Result<()>> for Link {
    /// What the answer to a wake-up says of the device (`xsk_check_common` in net/xdp/xsk.c).
    fn from(answer: io::Result<()>) -> Link {
        match answer.map_err(|error| error.raw_os_error()) {
            Err(Some(libc::ENETDOWN)) => Link::Down,
            Err(Some(libc::ENXIO)) => Link::Gone,
            _ => Link::Up,
        }
    }
}

/// Splits an address of the packet memory.
fn frame_and_offset(address: u64) -> (u32, u16) {
    // An address beyond all frames becomes a frame that is in no set.
    let frame = u32::try_from(address / FRAME_SIZE as u64).unwrap_or(u32::MAX);
    (frame, (address % FRAME_SIZE as u64) as u16)
}

/// The frames the kernel has, as a bitmap.
#[derive(Debug)]
struct FrameSet {
    words: Box<[u64]>,
    limit: u32,
    count: usize,
}

impl FrameSet {
    fn new(limit: u32) -> FrameSet {
        FrameSet {
            words: vec![0; limit.div_ceil(64) as usize].into(),
            limit,
            count: 0,
        }
    }

    fn insert(&mut self, frame: u32) {
        assert!(frame < self.limit, "frame {frame} does not exist");
        let word = &mut self.words[frame as usize / 64];
        let bit = 1 << (frame % 64);
        assert!(*word & bit == 0, "frame {frame} is the kernel's already");
        *word |= bit;
        self.count += 1;
    }

    /// Whether the frame was there.
    fn remove(&mut self, frame: u32) -> bool {
        let bit = 1 << (frame % 64);
        let Some(word) = self.words.get_mut(frame as usize / 64).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.count -= 1;
        true
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.limit).filter(|frame| self.words[*frame as usize / 64] & (1 << (frame % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_set_remembers_what_the_kernel_has() {
        let mut set = FrameSet::new(130);
        for frame in [0, 63, 64, 129] {
            set.insert(frame);
        }
        assert!(set.remove(63));
        assert!(!set.remove(63));
        assert!(!set.remove(1));
        assert!(!set.remove(130));
        assert!(!set.remove(u32::MAX));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert_eq!(set.count, 3);
    }

    #[test]
    #[should_panic(expected = "already")]
    fn a_frame_given_twice_is_a_bug() {
        let mut set = FrameSet::new(64);
        set.insert(5);
        set.insert(5);
    }

    #[test]
    #[should_panic(expected = "does not exist")]
    fn a_frame_that_does_not_exist_is_a_bug() {
        FrameSet::new(65).insert(65);
    }

    #[test]
    fn addresses_name_frame_and_offset() {
        assert_eq!(frame_and_offset(0), (0, 0));
        assert_eq!(frame_and_offset(3 * 2048 + 256), (3, 256));
        assert_eq!(frame_and_offset(u64::MAX), (u32::MAX, 2047));
    }
}
