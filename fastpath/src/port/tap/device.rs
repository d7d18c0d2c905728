//! Making a TAP device, in this network namespace or another.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::port::xdp::DeviceState;
use crate::port::xdp::interface::Interface;

/// Where TAP devices are made.
const CONTROL: &str = "/dev/net/tun";

/// Which device to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, which no device has yet.
    pub device: String,
    /// The network namespace to make it in, such as `/run/netns/pod`; the calling thread's if there is none.
    pub namespace: Option<PathBuf>,
    /// Its queues, 1 to 256 (`MAX_TAP_QUEUES` of the kernel's drivers/net/tun.c).
    pub queues: u16,
    /// Its MTU in bytes, without the Ethernet header.
    pub mtu: u32,
}

/// Why a device could not be made. Nothing of the attempt is left.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The kernel has no TUN/TAP driver.
    #[error("{CONTROL} cannot be opened ({0}): load the driver with `modprobe tun`, and give a container the device")]
    NoDriver(io::Error),
    /// There is no such namespace.
    #[error("there is no network namespace {}: `ip netns list` shows those there are", .0.display())]
    NoNamespace(PathBuf),
    /// It is there, but cannot be entered.
    #[error("cannot enter network namespace {}: {source}", path.display())]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device has the name.
    #[error(
        "there is a device `{0}` already: a port of driver tap makes its own, so choose another name or remove that one"
    )]
    Taken(String),
    /// A capability is missing.
    #[error("making device `{0}` is not permitted: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NotPermitted(String),
    /// Anything else the kernel refused.
    #[error("cannot {what} device `{device}`: {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TAP device as control sees it. It is there for as long as one of its queues' descriptors is open.
#[derive(Debug)]
pub struct Device {
    interface: Interface,
    namespace: Option<Namespace>,
    udp: bool,
}

#[derive(Debug)]
struct Namespace {
    path: PathBuf,
    /// Device and inode number of the file, which name the namespace itself.
    identity: (u64, u64),
}

/// Runs `work` in a network namespace, in a thread of its own; in the caller's without one.
///
/// # Errors
/// The namespace cannot be entered, or `work`'s own.
pub fn within<T: Send, E: Send + From<OpenError>>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let enter = || -> Result<(), OpenError> {
        let Some(path) = namespace else { return Ok(()) };
        let file = File::open(path).map_err(|error| missing(path, error))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| missing(path, error.into()))
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter().map_err(E::from).and_then(|()| work()));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Device {
    /// Makes the device, down and without addresses, and opens its queues. Call it [`within`] its namespace.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &Options) -> Result<(Device, Vec<OwnedFd>), OpenError> {
        let name = &options.device;
        let namespace = match &options.namespace {
            Some(path) => Some(Namespace {
                identity: identity(path).map_err(|error| missing(path, error))?,
                path: path.clone(),
            }),
            None => None,
        };
        let mut queues = vec![];
        for number in 0..options.queues {
            queues.push(open_queue(name, options.queues > 1, number == 0)?);
        }
        let kernel = |what| move |source| refused(what, name, source);
        let interface = Interface::find(name).map_err(kernel("look up"))?;
        let interface = interface.ok_or_else(|| refused("look up", name, io::ErrorKind::NotFound.into()))?;
        let udp = match queues.first() {
            Some(queue) => offload(queue).map_err(kernel("set the offloads of"))?,
            None => false,
        };
        interface.set_mtu(options.mtu).map_err(kernel("set the MTU of"))?;
        let device = Device {
            interface,
            namespace,
            udp,
        };
        Ok((device, queues))
    }

    /// Whether the kernel takes bundles of UDP datagrams.
    pub fn joins_udp(&self) -> bool {
        self.udp
    }

    /// The kernel's number for the device, in its namespace.
    pub fn ifindex(&self) -> u32 {
        self.interface.index
    }

    /// Sets it up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&self) -> io::Result<()> {
        self.interface.set_up(true)
    }

    /// Changes its MTU.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        self.interface.set_mtu(mtu)
    }

    /// Whether its namespace is still there under its name. A namespace whose name is gone lives on while a device of ours
    /// is in it, out of reach.
    pub fn is_reachable(&self) -> bool {
        let namespace = self.namespace.as_ref();
        namespace.is_none_or(|namespace| identity(&namespace.path).is_ok_and(|now| now == namespace.identity))
    }

    /// Whether its name still means this device.
    pub fn is_there(&self) -> bool {
        self.interface.is_same_device()
    }

    /// How it is now; three system calls.
    ///
    /// # Errors
    /// The kernel's, such as when it is gone.
    pub fn state(&self) -> io::Result<DeviceState> {
        Ok(DeviceState {
            up: self.interface.is_up()?,
            running: self.interface.is_running()?,
            mtu: self.interface.mtu()?,
        })
    }
}

/// Opens one queue; the first makes the device.
fn open_queue(name: &str, one_of_several: bool, first: bool) -> Result<OwnedFd, OpenError> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CONTROL)
        .map_err(OpenError::NoDriver)?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if one_of_several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if first {
        // A device that is there is not ours to use, be it of the same kind.
        flags |= libc::IFF_TUN_EXCL;
    }
    // SAFETY: a plain C structure of integers and a pointer, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.as_bytes())
    {
        *into = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as u16 as i16;
    // SAFETY: the request reads and writes a live `ifreq`.
    match unsafe { libc::ioctl(control.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0.. => Ok(control.into()),
        _ => Err(refused("make", name, io::Error::last_os_error())),
    }
}

/// Has the kernel leave checksums and segmentation to us, and take joined packets; whether of UDP, too (Linux 6.2).
fn offload(queue: &OwnedFd) -> io::Result<bool> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let set = |offloads: libc::c_uint| {
        // SAFETY: the request takes a number, no pointer.
        match unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match set(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
        Ok(()) => Ok(true),
        Err(_) => set(tcp).map(|()| false),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

fn missing(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NoNamespace(path.to_owned()),
        _ => OpenError::Namespace {
            path: path.to_owned(),
            source: error,
        },
    }
}

fn refused(what: &'static str, device: &str, source: io::Error) -> OpenError {
    let name = device.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted(name),
        // EINVAL: a device of another kind has the name (tun_set_iff in the kernel's drivers/net/tun.c).
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) if what == "make" => OpenError::Taken(name),
        _ => OpenError::Kernel {
            what,
            device: name,
            source,
        },
    }
}
