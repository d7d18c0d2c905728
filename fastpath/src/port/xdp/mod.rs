//! AF_XDP: the driver for existing network devices.
//!
//! [`Umem`] is the memory, [`Device`] an attached device, [`Queue`] one queue's socket, which its worker owns. This
//! layer names frames by number and knows nothing of packets, vectors and pools.
//!
//! # One memory, registered once a socket
//! The kernel knows two ways to let sockets share memory. With `XDP_SHARED_UMEM` a socket joins the first one's
//! registration, but then it inherits zero copy or copy from it, so a NIC's zero copy and a veth exclude each other,
//! and nobody can join any more once the first socket's device is gone (`EBADF`). Here each socket registers the same
//! memory for itself instead. Any frame still leaves by any port without a copy, each port gets what its driver
//! offers, and ports come and go in any order. It costs eight bytes a page in the kernel per socket; without
//! `CAP_IPC_LOCK`, each registration counts towards `RLIMIT_MEMLOCK`. xsk-rs maps the memory of a
//! registration itself and transmits from one fixed offset only, so this drives its lower half, libxdp-sys.
//!
//! # What a socket shows when its device changes
//! Seen on Linux 6.18 with veth, native and generic; `fastpath/tests/xdp` holds it against the running kernel.
//!
//! | the device is | [`Queue::link`] | [`Queue::flush`] | packets |
//! | --- | --- | --- | --- |
//! | set down | [`Link::Down`] | the same if anything is pending | none arrive; pending ones wait |
//! | set up again | [`Link::Up`] | [`Link::Up`] | arrive and leave again: program and sockets stayed |
//! | without carrier (veth: the peer is down) | [`Link::Up`] | [`Link::Up`] | pending ones are dropped and complete |
//! | deleted | [`Link::Gone`] | the same if anything is pending | never again |
//! | created again under its name | as deleted | as deleted | it is another device: [`Device::open`] it |
//!
//! poll(2) shows none of this (`xsk_poll` in net/xdp/xsk.c reports no errors), so a port that only sleeps on its socket
//! has to be told by whoever watches the links, or to ask [`Queue::link`] now and then.
//!
//! A queue whose socket was just closed stays busy for some milliseconds; [`Device::open`] waits for it. Frames the
//! kernel had are not completed when the device goes; [`Queue::close`] returns them.

mod claims;
mod device;
pub(in crate::port) mod interface;
mod program;
mod queue;
mod ring;
mod socket;
mod umem;

pub use claims::{Claim, Claims};
pub use device::{Device, DeviceState, MAX_MTU, Mode, OpenError, Options, ZeroCopy};
pub use program::Attached;
pub use queue::{Link, Queue, Statistics};
pub use umem::{DATA_START, FRAME_SIZE, Pages, Umem, UmemError};
