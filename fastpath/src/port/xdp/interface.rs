//! A network device as the kernel knows it: flags, MTU, address, queues.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The ethtool command that asks for the number of channels (`ETHTOOL_GCHANNELS`, linux/ethtool.h).
const GET_CHANNELS: u32 = 0x3c;

/// A device of the network namespace it was looked up in, whichever namespace the caller is in later.
#[derive(Debug)]
pub(in crate::port) struct Interface {
    pub name: CString,
    pub index: u32,
    control: OwnedFd,
}

/// `struct ethtool_channels`, linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

impl Interface {
    /// Looks up `name` in the calling thread's network namespace; `None` if there is no such device.
    pub fn find(name: &str) -> io::Result<Option<Interface>> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        if name.as_bytes().is_empty() || name.as_bytes().len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let control = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let mut interface = Interface {
            name,
            index: 0,
            control,
        };
        match interface.index_now() {
            Ok(index) => interface.index = index,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(interface))
    }

    /// Largest packet without its Ethernet header, in bytes.
    pub fn mtu(&self) -> io::Result<u32> {
        let request = self.ask(libc::SIOCGIFMTU, |_| ())?;
        // SAFETY: the kernel answers this request with an integer.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Sets the largest packet, in bytes without its Ethernet header.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let mtu = mtu as libc::c_int;
        self.ask(libc::SIOCSIFMTU, |request| request.ifr_ifru.ifru_mtu = mtu)?;
        Ok(())
    }

    /// The device's kind (`ARPHRD_*`) and Ethernet address.
    pub fn hardware_address(&self) -> io::Result<(u16, [u8; 6])> {
        let request = self.ask(libc::SIOCGIFHWADDR, |_| ())?;
        // SAFETY: the kernel answers this request with a hardware address.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        Ok((
            address.sa_family,
            std::array::from_fn(|byte| address.sa_data[byte] as u8),
        ))
    }

    /// Whether it is set up (`IFF_UP`), with a carrier or without.
    pub fn is_up(&self) -> io::Result<bool> {
        Ok(self.flags()? & libc::IFF_UP as i16 != 0)
    }

    /// Whether it can pass packets: up, with a carrier (`IFF_RUNNING`).
    pub fn is_running(&self) -> io::Result<bool> {
        Ok(self.flags()? & libc::IFF_RUNNING as i16 != 0)
    }

    /// Sets it up or down; the device's other flags stay.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        let up_flag = libc::IFF_UP as i16;
        let flags = self.flags()?;
        let flags = if up { flags | up_flag } else { flags & !up_flag };
        self.ask(libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags)?;
        Ok(())
    }

    /// Whether the name still means the device it meant at the look-up.
    pub fn is_same_device(&self) -> bool {
        self.index_now().is_ok_and(|index| index == self.index)
    }

    /// Receive queues in use; `None` if the driver does not say.
    pub fn receive_queues(&self) -> io::Result<Option<u32>> {
        let mut channels = Channels {
            command: GET_CHANNELS,
            ..Channels::default()
        };
        let data = (&raw mut channels).cast();
        match self.ask(libc::SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = data) {
            Ok(_) => Ok(Some(channels.receive + channels.combined)),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets all multicast through the device's filter until the descriptor is closed.
    pub fn receive_all_multicast(&self) -> io::Result<OwnedFd> {
        // Protocol 0: the socket itself receives nothing.
        let socket = socket(libc::AF_PACKET, libc::SOCK_RAW)?;
        let request = libc::packet_mreq {
            mr_ifindex: self.index as libc::c_int,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        let length = size_of_val(&request) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of a live structure.
        let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const request).cast(), length) };
        if result == 0 {
            Ok(socket)
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn flags(&self) -> io::Result<i16> {
        let request = self.ask(libc::SIOCGIFFLAGS, |_| ())?;
        // SAFETY: the kernel answers this request with the flags.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn index_now(&self) -> io::Result<u32> {
        let request = self.ask(libc::SIOCGIFINDEX, |_| ())?;
        // SAFETY: the kernel answers this request with the index.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    fn ask(&self, request: libc::Ioctl, prepare: impl FnOnce(&mut libc::ifreq)) -> io::Result<libc::ifreq> {
        // SAFETY: a plain C structure of integers and a pointer, for which zeroes are a value.
        let mut exchange: libc::ifreq = unsafe { mem::zeroed() };
        for (into, byte) in exchange.ifr_name.iter_mut().zip(self.name.as_bytes()) {
            *into = *byte as libc::c_char;
        }
        prepare(&mut exchange);
        // SAFETY: every request used here reads and writes an `ifreq`, and through its data pointer at most the live
        // `Channels` that `receive_queues` put there.
        match unsafe { libc::ioctl(self.control.as_raw_fd(), request, &raw mut exchange) } {
            0.. => Ok(exchange),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    match unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) } {
        // SAFETY: the descriptor is new and nobody else's.
        descriptor @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
