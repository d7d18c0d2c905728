//! Attaching to a network device, and leaving it as it was found.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use thiserror::Error;

use super::claims::{self, Claims};
use super::interface::Interface;
use super::program::{self, Attached, Foreign, Program};
use super::queue::Queue;
use super::socket::Bind;
use super::umem::{DATA_START, FRAME_SIZE, Umem};

const ETHERNET_HEADER: usize = 14;
/// Largest MTU in bytes whose packets fit a frame with their Ethernet header, behind the headroom.
pub const MAX_MTU: u32 = (FRAME_SIZE - DATA_START - ETHERNET_HEADER) as u32;

/// Which device to open, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of an existing network device in the calling thread's network namespace.
    pub device: String,
    /// Where the XDP program is to run.
    pub mode: Mode,
    /// Whether the driver is to read and write the frames itself.
    pub zero_copy: ZeroCopy,
    /// Sockets to open: queues 0 to `queues` - 1. Packets the device puts on other queues go to the kernel.
    pub queues: u32,
    /// Entries of each of a socket's four rings, a power of two.
    pub ring_size: u32,
    /// Take only the packets that [`Device::claims`] say; all others are the kernel's. Otherwise all are taken.
    pub claimed_only: bool,
}

impl Options {
    /// One queue of `device`, 2,048 entries a ring, and the best its driver offers.
    pub fn new(device: impl Into<String>) -> Options {
        Options {
            device: device.into(),
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            queues: 1,
            ring_size: 2048,
            claimed_only: false,
        }
    }
}

/// Where the XDP program is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, or in the kernel's stack when the driver refuses.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// Whether the driver is to read and write the frames itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where it can.
    Auto,
    /// Or the port fails.
    Always,
    /// Not even where it can.
    Never,
}

/// Why a device could not be opened. Nothing of the attempt is left on the device.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such device.
    #[error("there is no network device `{0}` here: `ip link` lists those there are")]
    NoDevice(String),
    /// Not Ethernet.
    #[error("device `{device}` is not Ethernet (kind {kind} of linux/if_arp.h): AF_XDP ports need Ethernet frames")]
    NotEthernet {
        /// The device.
        device: String,
        /// Its `ARPHRD_*`.
        kind: u16,
    },
    /// No queue asked for, or more than there are.
    #[error(
        "device `{device}` has {available} queues, not {asked}: set queues to 1 to {available}, or give it more with `ethtool -L {device}`"
    )]
    Queues {
        /// The device.
        device: String,
        /// Queues asked for.
        asked: u32,
        /// Queues in use.
        available: u32,
    },
    /// Packets would not fit frames.
    #[error(
        "device `{device}` has an MTU of {mtu}, more than the {MAX_MTU} that fit a frame: `ip link set dev {device} mtu {MAX_MTU}`"
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// Rings of an impossible size.
    #[error("a ring of {0} entries is not possible: use a power of two from 64 to 32768")]
    RingSize(u32),
    /// The kernel has no AF_XDP.
    #[error("this kernel has no AF_XDP sockets: use Linux 5.11 or later with CONFIG_XDP_SOCKETS")]
    NoAfXdp,
    /// A capability is missing.
    #[error("opening device `{device}` is not permitted: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF")]
    NotPermitted {
        /// The device.
        device: String,
    },
    /// The locked-memory limit, see the module's documentation.
    #[error(
        "packet memory for device `{device}` exceeds the locked-memory limit: raise it with `ulimit -l unlimited`, or give CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// The device.
        device: String,
    },
    /// Another AF_XDP socket has the queue.
    #[error("queue {queue} of device `{device}` is in use by another AF_XDP socket: stop the process that has it")]
    InUse {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// Zero copy was demanded and the driver has none.
    #[error("device `{device}` does not do zero copy: set zeroCopy to auto or false")]
    NoZeroCopy {
        /// The device.
        device: String,
    },
    /// Another XDP program is attached.
    #[error(
        "device `{device}` already runs the XDP program `{name}` (id {id}): stop the process it belongs to, or remove it with `ip link set dev {device} {mode} off`"
    )]
    ForeignProgram {
        /// The device.
        device: String,
        /// The program's name.
        name: String,
        /// The program's id, as `bpftool prog` shows it.
        id: u32,
        /// The word `ip link` wants.
        mode: &'static str,
    },
    /// The driver refused the program.
    #[error("the driver of device `{device}` refuses the XDP program ({source}): set mode to generic, or see `dmesg`")]
    NoNative {
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
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

/// An attached device. Dropping it detaches the program and sets the device down again if it was down before; the end
/// of the process detaches, too. Its queues live on without packets until they are closed.
#[derive(Debug)]
pub struct Device {
    interface: Interface,
    attached: Attached,
    zero_copy: bool,
    mac: [u8; 6],
    mtu: u32,
    device_queues: Option<u32>,
    was_up: bool,
    claims: Option<Claims>,
    // Held for what dropping them undoes.
    link: Option<OwnedFd>,
    _multicast: Option<OwnedFd>,
}

/// How a device is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// Set up by the administrator.
    pub up: bool,
    /// Able to pass packets: up, with a carrier.
    pub running: bool,
    /// Its MTU in bytes, without the Ethernet header.
    pub mtu: u32,
}

impl Device {
    /// Opens the device: sockets, program, up. Call it in the network namespace of the device.
    pub fn open(umem: &Umem, options: &Options) -> Result<(Device, Vec<Queue>), OpenError> {
        if !options.ring_size.is_power_of_two() || !(64..=32768).contains(&options.ring_size) {
            return Err(OpenError::RingSize(options.ring_size));
        }
        let name = &options.device;
        let kernel = |what| move |source| refused(what, name, source);
        let interface = Interface::find(name).map_err(kernel("look up"))?;
        let interface = interface.ok_or_else(|| OpenError::NoDevice(name.clone()))?;
        let (mac, mtu, device_queues) = fitting(&interface, options)?;
        let mut queues = bind_all(umem, &interface, options, preferred_bind(options))?;
        if let Some(Foreign { name, id, mode }) = program::remove_stale(interface.index).map_err(kernel("look at"))? {
            return Err(OpenError::ForeignProgram {
                device: options.device.clone(),
                name,
                id,
                mode,
            });
        }
        let (program, claims) = load(options).map_err(kernel("load the XDP program for"))?;
        let (link, attached) = attach(&program, &interface, options)?;
        if attached == Attached::Generic && queues.iter().any(Queue::zero_copy) {
            // The stack's program sees nothing of what a driver hands over by itself.
            queues.into_iter().for_each(|queue| drop(queue.close()));
            queues = bind_all(umem, &interface, options, Bind::Copy)?;
        }
        for (number, queue) in (0..).zip(&queues) {
            program
                .serve(number, queue.descriptor())
                .map_err(kernel("hand packets over from"))?;
        }
        // The kernel listens to the groups of those addresses that are its own.
        let multicast = (!options.claimed_only)
            .then(|| interface.receive_all_multicast())
            .transpose()
            .map_err(kernel("receive multicast from"))?;
        let was_up = interface.is_up().map_err(kernel("look at"))?;
        if !was_up {
            interface.set_up(true).map_err(kernel("set up"))?;
        }
        let zero_copy = queues.iter().all(Queue::zero_copy);
        let link = Some(link);
        let device = Device {
            interface,
            attached,
            zero_copy,
            mac,
            mtu,
            device_queues,
            was_up,
            claims,
            link,
            _multicast: multicast,
        };
        Ok((device, queues))
    }

    /// Which packets are taken, where not all are.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Where the program runs.
    pub fn attached(&self) -> Attached {
        self.attached
    }

    /// Whether the driver reads and writes the frames itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The Ethernet address at opening.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The MTU as it is now, in bytes without the Ethernet header; that at opening once the device is gone.
    pub fn mtu(&self) -> u32 {
        self.interface.mtu().unwrap_or(self.mtu)
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

    /// The kernel's number for the device; a device created again under the same name has another.
    pub fn ifindex(&self) -> u32 {
        self.interface.index
    }

    /// Receive queues the device has, if its driver says. With fewer opened, the kernel gets the others' packets.
    pub fn device_queues(&self) -> Option<u32> {
        self.device_queues
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The program first: a driver may restart the device for it.
        drop(self.link.take());
        if !self.was_up && self.interface.is_same_device() {
            // A device that went away has nothing to restore, and there is nobody to tell about anything else.
            let _ = self.interface.set_up(false);
        }
    }
}

/// The program that the options ask for.
fn load(options: &Options) -> io::Result<(Program, Option<Claims>)> {
    if options.claimed_only {
        return claims::load(options.queues).map(|(program, claims)| (program, Some(claims)));
    }
    Ok((Program::load(options.queues)?, None))
}

/// Address, MTU and queues of a device that can be a port.
fn fitting(interface: &Interface, options: &Options) -> Result<([u8; 6], u32, Option<u32>), OpenError> {
    let look = |source| refused("look at", &options.device, source);
    let device = options.device.clone();
    let (kind, mac) = interface.hardware_address().map_err(look)?;
    if kind != libc::ARPHRD_ETHER && kind != libc::ARPHRD_LOOPBACK {
        return Err(OpenError::NotEthernet { device, kind });
    }
    let mtu = interface.mtu().map_err(look)?;
    if mtu > MAX_MTU {
        return Err(OpenError::Mtu { device, mtu });
    }
    let queues = interface.receive_queues().map_err(look)?;
    let available = queues.unwrap_or(options.queues.max(1));
    if options.queues == 0 || options.queues > available {
        return Err(OpenError::Queues {
            device,
            asked: options.queues,
            available,
        });
    }
    Ok((mac, mtu, queues))
}

/// Generic mode copies by nature; otherwise as asked.
fn preferred_bind(options: &Options) -> Bind {
    match (options.mode, options.zero_copy) {
        (_, ZeroCopy::Always) => Bind::ZeroCopy,
        (Mode::Generic, _) | (_, ZeroCopy::Never) => Bind::Copy,
        (_, ZeroCopy::Auto) => Bind::Either,
    }
}

fn bind_all(umem: &Umem, interface: &Interface, options: &Options, bind: Bind) -> Result<Vec<Queue>, OpenError> {
    let open = |queue| {
        let device = options.device.clone();
        let bind_once = || Queue::open(umem, &interface.name, queue, options.ring_size, bind);
        while_busy(bind_once).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => OpenError::InUse { device, queue },
            Some(libc::EOPNOTSUPP) if bind == Bind::ZeroCopy => OpenError::NoZeroCopy { device },
            Some(libc::EINVAL) if queue > 0 => OpenError::Queues {
                device,
                asked: options.queues,
                available: queue,
            },
            Some(libc::ENOBUFS) => OpenError::LockedMemory { device },
            _ => refused("open a socket on", &options.device, source),
        })
    };
    (0..options.queues).map(open).collect()
}

/// Tries for a quarter of a second while the kernel says `EBUSY`: it takes a closed socket off its queue a little
/// later, in a work item (`xp_put_pool` in net/xdp/xsk_buff_pool.c).
fn while_busy<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..50 {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
    attempt()
}

/// Attaches the program as the options ask; in `Auto`, generically when the driver refuses.
fn attach(program: &Program, interface: &Interface, options: &Options) -> Result<(OwnedFd, Attached), OpenError> {
    let attach = |mode| program.attach(interface.index, mode).map(|link| (link, mode));
    let generic = |source| refused("attach the XDP program to", &options.device, source);
    if options.mode == Mode::Generic {
        return attach(Attached::Generic).map_err(generic);
    }
    match attach(Attached::Native) {
        Ok(attached) => Ok(attached),
        Err(_) if options.mode == Mode::Auto && options.zero_copy != ZeroCopy::Always => {
            attach(Attached::Generic).map_err(generic)
        }
        Err(source) => Err(OpenError::NoNative {
            device: options.device.clone(),
            source,
        }),
    }
}

/// The sentence for what the kernel said, whatever was tried.
fn refused(what: &'static str, device: &str, source: io::Error) -> OpenError {
    let device = device.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { device },
        Some(libc::EAFNOSUPPORT) => OpenError::NoAfXdp,
        Some(libc::ENODEV) => OpenError::NoDevice(device),
        _ => OpenError::Kernel { what, device, source },
    }
}
