//! One AF_XDP socket with its four rings, made and unmade by libxdp.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use libxdp_sys as sys;

use super::ring::{Consumer, Layout, Producer};
use super::umem::{FRAME_SIZE, Umem};

/// The most packets one transmit system call may send in copy mode; kernel 6.17 and later, 32 before
/// (`XDP_MAX_TX_SKB_BUDGET` in include/uapi/linux/if_xdp.h).
const MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// What to ask of the driver when binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    /// Zero copy where the driver offers it.
    Either,
    Copy,
    ZeroCopy,
}

/// A bound socket. Dropping it closes it, and the kernel lets go of all its frames.
#[derive(Debug)]
pub(super) struct Socket {
    registration: NonNull<sys::xsk_umem>,
    socket: NonNull<sys::xsk_socket>,
    // libxdp keeps pointers to these until the socket is deleted.
    _rings: Box<RawRings>,
    _memory: Umem,
}

// SAFETY: libxdp ties nothing to the creating thread, and the pointers are this socket's alone.
unsafe impl Send for Socket {}

/// The rings of a socket. They point into mappings of the [`Socket`] they came with and must not outlive it.
#[derive(Debug)]
pub(super) struct Rings {
    pub fill: Producer<u64>,
    pub receive: Consumer<sys::xdp_desc>,
    pub transmit: Producer<sys::xdp_desc>,
    pub completion: Consumer<u64>,
}

// SAFETY: the rings are memory shared with the kernel; one thread at a time uses them through `&mut`.
unsafe impl Send for Rings {}

#[derive(Debug)]
struct RawRings {
    fill: MaybeUninit<sys::xsk_ring_prod>,
    receive: MaybeUninit<sys::xsk_ring_cons>,
    transmit: MaybeUninit<sys::xsk_ring_prod>,
    completion: MaybeUninit<sys::xsk_ring_cons>,
}

impl Socket {
    /// Registers `memory` anew and binds to queue `queue` of `device`, each ring with `ring_size` entries.
    pub fn open(memory: &Umem, device: &CStr, queue: u32, ring_size: u32, bind: Bind) -> io::Result<(Socket, Rings)> {
        // Boxed for a fixed address: libxdp keeps pointers into it.
        let mut rings = Box::new(RawRings {
            fill: MaybeUninit::zeroed(),
            receive: MaybeUninit::zeroed(),
            transmit: MaybeUninit::zeroed(),
            completion: MaybeUninit::zeroed(),
        });
        let registration = register(memory, &mut rings, ring_size)?;
        match bind_socket(registration, device, queue, &mut rings, ring_size, bind) {
            Ok(socket) => {
                let socket = Socket {
                    registration,
                    socket,
                    _rings: rings,
                    _memory: memory.clone(),
                };
                let rings = socket.rings();
                socket.raise_transmit_budget(ring_size);
                Ok((socket, rings))
            }
            Err(error) => {
                // SAFETY: no socket uses the registration, and it is not used again.
                unsafe { sys::xsk_umem__delete(registration.as_ptr()) };
                Err(error)
            }
        }
    }

    /// The descriptor, for poll(2) and the XSKMAP.
    pub fn descriptor(&self) -> RawFd {
        // SAFETY: the socket lives until `drop`.
        unsafe { sys::xsk_socket__fd(self.socket.as_ptr()) }
    }

    /// The descriptor, borrowed.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the socket lives, and that is borrowed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.descriptor()) }
    }

    /// Whether the driver reads and writes the frames itself (`XDP_OPTIONS_ZEROCOPY`).
    pub fn zero_copy(&self) -> io::Result<bool> {
        let options: sys::xdp_options = self.option(libc::XDP_OPTIONS)?;
        Ok(options.flags & sys::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// The kernel's own counters of this socket.
    pub fn statistics(&self) -> io::Result<sys::xdp_statistics> {
        self.option(libc::XDP_STATISTICS)
    }

    /// Asks the kernel to take what the transmit ring holds.
    pub fn wake_transmit(&self) -> io::Result<()> {
        // SAFETY: an empty message; the kernel reads no memory of ours.
        check(unsafe { libc::sendto(self.descriptor(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) })
    }

    /// Asks the driver to look at the fill ring.
    pub fn wake_receive(&self) -> io::Result<()> {
        let (nowhere, nobody) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: an empty buffer; the kernel writes no memory of ours.
        check(unsafe {
            libc::recvfrom(
                self.descriptor(),
                nowhere,
                0,
                libc::MSG_DONTWAIT,
                nobody,
                ptr::null_mut(),
            )
        })
    }

    fn rings(&self) -> Rings {
        // SAFETY: libxdp filled in all four when it made the socket. Their pointers stay valid until `drop`, and
        // this is called once, so each ring has one user.
        unsafe {
            Rings {
                fill: Producer::new(producer_layout(self._rings.fill.assume_init_ref())),
                receive: Consumer::new(consumer_layout(self._rings.receive.assume_init_ref())),
                transmit: Producer::new(producer_layout(self._rings.transmit.assume_init_ref())),
                completion: Consumer::new(consumer_layout(self._rings.completion.assume_init_ref())),
            }
        }
    }

    /// Lets a system call send a whole vector, and the send buffer hold a full ring, where the kernel allows; without
    /// it packets go in more calls, so a refusal is no error.
    fn raise_transmit_budget(&self, ring_size: u32) {
        let _ = self.set_option(libc::SOL_XDP, MAX_TX_SKB_BUDGET, ring_size.min(256));
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, ring_size * 4096);
    }

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
        let length = size_of::<u32>() as libc::socklen_t;
        // SAFETY: the kernel reads four bytes of a live value.
        let result = unsafe { libc::setsockopt(self.descriptor(), level, name, ptr::from_ref(&value).cast(), length) };
        check(result as isize)
    }

    fn option<T: Copy>(&self, name: libc::c_int) -> io::Result<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut length = size_of::<T>() as libc::socklen_t;
        let into = value.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `length` bytes into a live buffer of that size.
        check(unsafe { libc::getsockopt(self.descriptor(), libc::SOL_XDP, name, into, &mut length) } as isize)?;
        // SAFETY: used with the kernel's plain structures of integers only, for which zeroes are a value.
        Ok(unsafe { value.assume_init() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: both are live and deleted here only, socket first; the boxed rings they point to drop afterwards.
        // The descriptor is the registration's, so the second call closes it.
        unsafe {
            sys::xsk_socket__delete(self.socket.as_ptr());
            sys::xsk_umem__delete(self.registration.as_ptr());
        }
    }
}

fn register(memory: &Umem, rings: &mut RawRings, ring_size: u32) -> io::Result<NonNull<sys::xsk_umem>> {
    let config = sys::xsk_umem_config {
        fill_size: ring_size,
        comp_size: ring_size,
        frame_size: FRAME_SIZE as u32,
        frame_headroom: 0,
        flags: 0,
    };
    let mut registration = ptr::null_mut();
    // SAFETY: `memory` covers the bytes named and outlives the socket, which holds a clone; the rings are boxed.
    let result = unsafe {
        sys::xsk_umem__create(
            &mut registration,
            memory.base().as_ptr().cast(),
            u64::from(memory.frame_count()) * FRAME_SIZE as u64,
            rings.fill.as_mut_ptr(),
            rings.completion.as_mut_ptr(),
            &config,
        )
    };
    created(result, registration)
}

fn bind_socket(
    registration: NonNull<sys::xsk_umem>,
    device: &CStr,
    queue: u32,
    rings: &mut RawRings,
    ring_size: u32,
    bind: Bind,
) -> io::Result<NonNull<sys::xsk_socket>> {
    let copy_flag = match bind {
        Bind::Either => 0,
        Bind::Copy => sys::XDP_COPY,
        Bind::ZeroCopy => sys::XDP_ZEROCOPY,
    };
    let config = sys::xsk_socket_config {
        rx_size: ring_size,
        tx_size: ring_size,
        __bindgen_anon_1: sys::xsk_socket_config__bindgen_ty_1 {
            libxdp_flags: sys::XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
        },
        xdp_flags: 0,
        bind_flags: (copy_flag | sys::XDP_USE_NEED_WAKEUP) as u16,
    };
    let mut socket = ptr::null_mut();
    // SAFETY: the registration is live and has no other socket, the name ends in zero, the rings are boxed.
    let result = unsafe {
        sys::xsk_socket__create(
            &mut socket,
            device.as_ptr(),
            queue,
            registration.as_ptr(),
            rings.receive.as_mut_ptr(),
            rings.transmit.as_mut_ptr(),
            &config,
        )
    };
    created(result, socket)
}

fn created<T>(result: libc::c_int, pointer: *mut T) -> io::Result<NonNull<T>> {
    match NonNull::new(pointer) {
        Some(pointer) if result == 0 => Ok(pointer),
        _ => Err(io::Error::from_raw_os_error(-result)),
    }
}

fn check(result: isize) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// # Safety
/// The ring must be mapped.
unsafe fn producer_layout<T>(ring: &sys::xsk_ring_prod) -> Layout<T> {
    // SAFETY: the pointers of a mapped ring are not null, and positions and flags are aligned 32-bit words.
    unsafe {
        Layout {
            producer: NonNull::new_unchecked(ring.producer.cast()),
            consumer: NonNull::new_unchecked(ring.consumer.cast()),
            flags: NonNull::new_unchecked(ring.flags.cast()),
            entries: NonNull::new_unchecked(ring.ring.cast()),
            size: ring.size,
        }
    }
}

/// # Safety
/// The ring must be mapped.
unsafe fn consumer_layout<T>(ring: &sys::xsk_ring_cons) -> Layout<T> {
    // SAFETY: as in `producer_layout`.
    unsafe {
        Layout {
            producer: NonNull::new_unchecked(ring.producer.cast()),
            consumer: NonNull::new_unchecked(ring.consumer.cast()),
            flags: NonNull::new_unchecked(ring.flags.cast()),
            entries: NonNull::new_unchecked(ring.ring.cast()),
            size: ring.size,
        }
    }
}
