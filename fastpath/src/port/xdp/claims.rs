//! What a port takes of what its device receives, where the kernel is to have the rest (`punt: kernel`).
//!
//! The program is `claims.bpf.c`; here are its map of claims, in the words of those who claim, and its loader. The map
//! changes in place under packets; a packet is the plane's or the kernel's by the longest claim that fits it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::offset_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use libxdp_sys as sys;

use super::program::{Program, check};

/// The program, as clang made it.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/claims.bpf.o"));

/// Some of the packets that a device receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// Those to a prefix, and the questions for who has an address of it (ARP, neighbour solicitations).
    Prefix {
        /// An address of it.
        address: IpAddr,
        /// Its length in bits.
        length: u8,
    },
    /// Those to ports of an address, and the ICMP errors about what was sent from them. The identifiers of ICMP echo are
    /// ports, too: a claim of theirs takes echo replies.
    Ports {
        /// The address.
        address: IpAddr,
        /// The IP protocol: TCP, UDP, UDP-Lite, SCTP, ICMP or ICMPv6. IP in IPv4 has the one port 0.
        protocol: u8,
        /// The first of them.
        first: u16,
        /// How many of a port's leading bits are the same for all of them: 16 for a single one.
        bits: u8,
    },
}

impl Claim {
    /// A prefix.
    pub fn prefix(address: IpAddr, length: u8) -> Claim {
        Claim::Prefix { address, length }
    }

    /// One port of an address.
    pub fn port(address: IpAddr, protocol: u8, port: u16) -> Claim {
        Claim::Ports {
            address,
            protocol,
            first: port,
            bits: 16,
        }
    }

    /// A range of ports of an address, both ends included, in the fewest claims: at most 30.
    pub fn ports(address: IpAddr, protocol: u8, first: u16, last: u16) -> Vec<Claim> {
        let (mut next, end) = (u32::from(first), u32::from(last) + 1);
        let mut claims = vec![];
        while next < end {
            // The largest block that starts here is aligned to its size and ends within the range.
            let aligned = next.trailing_zeros().min(16);
            let size = aligned.min((end - next).ilog2());
            claims.push(Claim::Ports {
                address,
                protocol,
                first: next as u16,
                bits: 16 - size as u8,
            });
            next += 1 << size;
        }
        claims
    }

    fn key(&self) -> Key {
        let (address, bits) = match self {
            Claim::Prefix { address, length } => (address, mapped_length(address, *length)),
            Claim::Ports { address, bits, .. } => (address, 128 + 8 + u32::from(*bits)),
        };
        let (protocol, port) = match self {
            Claim::Prefix { .. } => (0, 0),
            Claim::Ports { protocol, first, .. } => (*protocol, *first),
        };
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => *v6,
        };
        Key {
            length: bits,
            address: address.octets(),
            protocol,
            port: port.to_be_bytes(),
        }
    }
}

fn mapped_length(address: &IpAddr, length: u8) -> u32 {
    u32::from(length) + if address.is_ipv4() { 96 } else { 0 }
}

/// `struct claim` of the program.
#[repr(C, packed)]
struct Key {
    length: u32,
    address: [u8; 16],
    protocol: u8,
    port: [u8; 2],
}

const _: () = assert!(size_of::<Key>() == 23 && offset_of!(Key, port) == 21);

/// What a device's program takes. Cheap to change: one system call a claim, none of the packets on their way is held up.
#[derive(Debug)]
pub struct Claims(OwnedFd);

impl Claims {
    /// Has these packets be the plane's (`take`) or, within a larger claim, the kernel's.
    ///
    /// # Errors
    /// The kernel's, such as when there are a million claims already.
    pub fn set(&self, claim: &Claim, take: bool) -> io::Result<()> {
        let (key, value) = (claim.key(), u32::from(take));
        let (key, value) = ((&raw const key).cast(), (&raw const value).cast());
        // SAFETY: key and value are live and as large as the map's.
        check(unsafe { sys::bpf_map_update_elem(self.0.as_raw_fd(), key, value, 0) })
    }

    /// Says nothing about these packets any more: a shorter claim decides, or they are the kernel's.
    ///
    /// # Errors
    /// The kernel's, such as when there is no such claim.
    pub fn clear(&self, claim: &Claim) -> io::Result<()> {
        let key = claim.key();
        // SAFETY: the key is live and as large as the map's.
        check(unsafe { sys::bpf_map_delete_elem(self.0.as_raw_fd(), (&raw const key).cast()) })
    }
}

/// Loads the program with a map for `queues` sockets and no claim.
pub(super) fn load(queues: u32) -> io::Result<(Program, Claims)> {
    // SAFETY: the object is live for the call, as long as said, and there are no options.
    let object = unsafe { sys::bpf_object__open_mem(OBJECT.as_ptr().cast(), OBJECT.len(), ptr::null()) };
    if object.is_null() {
        return Err(io::Error::last_os_error());
    }
    let object = Object(object);
    // SAFETY: the object is open, and the names end in zero; the map is sized before it is made.
    check(unsafe {
        let sockets = sys::bpf_object__find_map_by_name(object.0, c"margay_sockets".as_ptr());
        sys::bpf_map__set_max_entries(sockets, queues)
    })?;
    // SAFETY: the object is open.
    check(unsafe { sys::bpf_object__load(object.0) })?;
    // SAFETY: the object is loaded, and the name ends in zero.
    let program = unsafe {
        let program = sys::bpf_object__find_program_by_name(object.0, c"margay_xdp".as_ptr());
        sys::bpf_program__fd(program)
    };
    let (sockets, claims) = (object.map(c"margay_sockets"), object.map(c"claims"));
    Ok((Program::of(keep(program)?, keep(sockets)?), Claims(keep(claims)?)))
}

/// An object of libbpf's, closed at the end with the descriptors it opened.
struct Object(*mut sys::bpf_object);

impl Object {
    fn map(&self, name: &CStr) -> RawFd {
        // SAFETY: the object is open, and the name ends in zero.
        unsafe { sys::bpf_object__find_map_fd_by_name(self.0, name.as_ptr()) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it was opened, and nothing else closes it.
        unsafe { sys::bpf_object__close(self.0) }
    }
}

/// A descriptor of our own for one of libbpf's, or libbpf's negative error.
fn keep(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(-descriptor));
    }
    // SAFETY: the object that owns it is open until after this.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_covered_once_and_nothing_else_is() {
        let address = IpAddr::from([192, 0, 2, 1]);
        for (first, last) in [
            (1024, 65535),
            (0, 65535),
            (7, 7),
            (1, 65534),
            (30000, 32767),
            (61000, 65535),
        ] {
            let claims = Claim::ports(address, 17, first, last);
            assert!(claims.len() <= 30, "{}", claims.len());
            let mut covered = vec![0; 1 << 16];
            for claim in &claims {
                let Claim::Ports { first, bits, .. } = *claim else {
                    unreachable!()
                };
                let (from, count) = (usize::from(first), 1 << (16 - bits));
                covered[from..from + count].iter_mut().for_each(|times| *times += 1);
            }
            let wanted = |port: usize| u8::from((usize::from(first)..=usize::from(last)).contains(&port));
            assert!(covered.iter().enumerate().all(|(port, times)| *times == wanted(port)));
        }
    }

    #[test]
    fn a_longer_claim_has_a_longer_key() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let lengths = [
            Claim::prefix(address, 24),
            Claim::prefix(address, 32),
            Claim::ports(address, 6, 1024, 2047)[0],
            Claim::port(address, 6, 80),
        ];
        assert_eq!(lengths.map(|claim| claim.key().length), [120, 128, 142, 152]);
    }
}
