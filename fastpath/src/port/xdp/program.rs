//! The XDP program that hands a device's packets to the sockets: map, program, link.
//!
//! ```text
//! return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
//! ```
//! A packet of a queue without a socket goes on to the kernel. The program is attached by a BPF link, so the kernel
//! takes it off when the process ends, however it ends. Loaded by hand rather than by libxdp, whose dispatcher needs
//! a BPF file system and outlives a killed process.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libxdp_sys as sys;

/// The program's name, by which a later start knows it as ours.
const NAME: &CStr = c"margay_xdp";
/// libxdp's default program for AF_XDP sockets; left behind by whatever used libxdp and was killed.
const LIBXDP_NAME: &str = "xsk_def_prog";

// Modes of attachment, linux/if_link.h.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;

/// Where in the kernel the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// In the driver, before the kernel makes a packet of its own (`XDP_FLAGS_DRV_MODE`).
    Native,
    /// In the kernel's stack, with any driver (`XDP_FLAGS_SKB_MODE`).
    Generic,
}

impl std::fmt::Display for Attached {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// A program of somebody else's on the device.
#[derive(Debug)]
pub(super) struct Foreign {
    pub name: String,
    pub id: u32,
    /// The mode's name to `ip link set dev DEVICE ... off`.
    pub mode: &'static str,
}

/// The loaded program and its map of sockets by queue.
#[derive(Debug)]
pub(super) struct Program {
    program: OwnedFd,
    sockets: OwnedFd,
}

impl Program {
    /// A program that somebody else loaded, and its map of sockets.
    pub fn of(program: OwnedFd, sockets: OwnedFd) -> Program {
        Program { program, sockets }
    }

    /// Loads the program with a map for `queues` sockets.
    pub fn load(queues: u32) -> io::Result<Program> {
        // SAFETY: the name ends in zero; no options.
        let sockets = descriptor(unsafe {
            sys::bpf_map_create(
                sys::bpf_map_type_BPF_MAP_TYPE_XSKMAP,
                c"margay_sockets".as_ptr(),
                4,
                4,
                queues,
                ptr::null(),
            )
        })?;
        let code = instructions(sockets.as_raw_fd());
        // SAFETY: names end in zero and `code` is as long as said; no options.
        let program = descriptor(unsafe {
            sys::bpf_prog_load(
                sys::bpf_prog_type_BPF_PROG_TYPE_XDP,
                NAME.as_ptr(),
                c"Apache-2.0".as_ptr(),
                code.as_ptr(),
                code.len(),
                ptr::null_mut(),
            )
        })?;
        Ok(Program { program, sockets })
    }

    /// Has the packets of queue `queue` go to `socket`. Closing the socket takes it out again.
    pub fn serve(&self, queue: u32, socket: RawFd) -> io::Result<()> {
        let (key, value) = ((&raw const queue).cast(), (&raw const socket).cast());
        // SAFETY: key and value are live and four bytes each, as the map was made.
        check(unsafe { sys::bpf_map_update_elem(self.sockets.as_raw_fd(), key, value, 0) })
    }

    /// Attaches to the device; dropping the link, or the end of the process, detaches.
    pub fn attach(&self, device: u32, mode: Attached) -> io::Result<OwnedFd> {
        // SAFETY: a plain C structure of integers and null pointers.
        let mut options: sys::bpf_link_create_opts = unsafe { mem::zeroed() };
        options.sz = size_of_val(&options);
        options.flags = flags(mode);
        // SAFETY: the program is loaded, and the options say their size.
        descriptor(unsafe {
            sys::bpf_link_create(
                self.program.as_raw_fd(),
                device as i32,
                sys::bpf_attach_type_BPF_XDP,
                &options,
            )
        })
    }
}

/// Removes what a killed predecessor left on the device; what is somebody else's stays and is returned.
///
/// Only to be called with sockets bound to the device: that they could be bound shows that nobody alive uses the
/// leftover program.
pub(super) fn remove_stale(device: u32) -> io::Result<Option<Foreign>> {
    // SAFETY: a plain C structure of integers.
    let mut found: sys::bpf_xdp_query_opts = unsafe { mem::zeroed() };
    found.sz = size_of_val(&found);
    // SAFETY: the options say their size.
    check(unsafe { sys::bpf_xdp_query(device as i32, 0, &mut found) })?;
    for (id, flag, mode) in [
        (found.drv_prog_id, XDP_FLAGS_DRV_MODE, "xdpdrv"),
        (found.skb_prog_id, XDP_FLAGS_SKB_MODE, "xdpgeneric"),
        (found.hw_prog_id, XDP_FLAGS_HW_MODE, "xdpoffload"),
    ] {
        if id == 0 {
            continue;
        }
        let name = program_name(id)?;
        let ours = name == LIBXDP_NAME || name.as_bytes() == NAME.to_bytes();
        // SAFETY: no options. The kernel refuses a program that a living process attached by a link.
        if !ours || check(unsafe { sys::bpf_xdp_detach(device as i32, flag, ptr::null()) }).is_err() {
            return Ok(Some(Foreign { name, id, mode }));
        }
    }
    Ok(None)
}

/// The five instructions, the second of them two slots long.
fn instructions(map: RawFd) -> [sys::bpf_insn; 6] {
    let redirect_map = sys::bpf_func_id_BPF_FUNC_redirect_map as i32;
    let queue_index = mem::offset_of!(sys::xdp_md, rx_queue_index) as i16;
    [
        // r2 = ctx->rx_queue_index
        instruction(sys::BPF_LDX | sys::BPF_MEM | sys::BPF_W, 2, 1, queue_index, 0),
        // r1 = the map of this descriptor
        instruction(
            sys::BPF_LD | sys::BPF_DW | sys::BPF_IMM,
            1,
            sys::BPF_PSEUDO_MAP_FD as u8,
            0,
            map,
        ),
        instruction(0, 0, 0, 0, 0),
        // r3 = what to do without a socket
        instruction(
            sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K,
            3,
            0,
            0,
            sys::xdp_action_XDP_PASS as i32,
        ),
        instruction(sys::BPF_JMP | sys::BPF_CALL, 0, 0, 0, redirect_map),
        instruction(sys::BPF_JMP | sys::BPF_EXIT, 0, 0, 0, 0),
    ]
}

fn instruction(code: u32, to: u8, from: u8, off: i16, imm: i32) -> sys::bpf_insn {
    let registers = sys::bpf_insn::new_bitfield_1(to, from);
    sys::bpf_insn {
        code: code as u8,
        _bitfield_align_1: [],
        _bitfield_1: registers,
        off,
        imm,
    }
}

fn program_name(id: u32) -> io::Result<String> {
    // SAFETY: a plain system call.
    let program = descriptor(unsafe { sys::bpf_prog_get_fd_by_id(id) })?;
    let mut info = MaybeUninit::<sys::bpf_prog_info>::zeroed();
    let mut length = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes into a live structure of that size, which asks for no arrays.
    check(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), info.as_mut_ptr(), &mut length) })?;
    // SAFETY: integers and bytes only, for which zeroes are a value.
    let name = unsafe { info.assume_init() }.name;
    Ok(name
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| *byte as u8 as char)
        .collect())
}

fn flags(mode: Attached) -> u32 {
    match mode {
        Attached::Native => XDP_FLAGS_DRV_MODE,
        Attached::Generic => XDP_FLAGS_SKB_MODE,
    }
}

fn descriptor(result: libc::c_int) -> io::Result<OwnedFd> {
    check(result)?;
    // SAFETY: libbpf returns a new descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// libbpf returns the negated error number.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(())
    }
}
