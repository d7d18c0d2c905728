//! AF_XDP against the running kernel: veth pairs in network namespaces of their own. Needs root; without it every
//! test says so and does nothing.
#![allow(unsafe_code)]

mod net;

use std::ffi::CString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastpath::port::xdp::{
    Attached, DATA_START, Device, FRAME_SIZE, Link, Mode, OpenError, Options, Queue, Umem, ZeroCopy,
};
use libxdp_sys as sys;
use net::{Net, ip};

const FRAMES: u32 = 4096;
/// Frames a port holds to receive into.
const FILL: usize = 1024;
/// More than anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names the device to the copy of the test that is to be killed.
const VICTIM: &str = "XDP_TEST_VICTIM";

/// A port with one queue, its ring full of frames to receive into.
struct Port {
    device: Device,
    queue: Queue,
}

fn memory() -> (Umem, Vec<u32>) {
    (Umem::new(FRAMES).unwrap(), (0..FRAMES).collect())
}

fn open(umem: &Umem, pool: &mut Vec<u32>, options: &Options) -> Port {
    let (device, mut queues) = Device::open(umem, options).unwrap();
    let mut queue = queues.pop().unwrap();
    assert_eq!(queue.fill(pool.split_off(pool.len() - FILL)), FILL);
    Port { device, queue }
}

/// Moves packets from one port to the other where they lie; the number of them.
fn forward(from: &mut Port, to: &mut Port, pool: &mut Vec<u32>) -> usize {
    let room = to.queue.transmit_room().min(256);
    let count = from.queue.receive(room, |frame, offset, length| {
        assert!(to.queue.transmit(frame, offset, length))
    });
    assert_eq!(to.queue.flush(), Link::Up);
    to.queue.completed(usize::MAX, |frame| pool.push(frame));
    let to_receive_into = from.queue.held() - from.queue.outstanding();
    let missing = FILL.saturating_sub(to_receive_into).min(pool.len());
    assert_eq!(from.queue.fill(pool.split_off(pool.len() - missing)), missing);
    count
}

/// Pings through the two ports and expects every answer.
fn ping_through(net: &Net, left: &mut Port, right: &mut Port, pool: &mut Vec<u32>) {
    let mut ping = net.ping(20);
    let mut count = 0;
    let start = Instant::now();
    while ping.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "ping does not end");
        count += forward(left, right, pool) + forward(right, left, pool);
    }
    let text = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains(" 20 received"), "{text}");
    assert!(count >= 40, "{count} packets passed");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// poll(2)'s `revents` of the queue's socket, without waiting.
fn poll(queue: &Queue) -> i16 {
    let mut entry = libc::pollfd {
        fd: queue.descriptor(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live entry.
    assert!(unsafe { libc::poll(&mut entry, 1, 0) } >= 0);
    entry.revents
}

/// Queues a frame of 60 bytes of no protocol, at byte `offset` of a frame from the pool.
fn transmit(umem: &Umem, queue: &mut Queue, pool: &mut Vec<u32>, offset: usize) {
    let frame = pool.pop().unwrap();
    let mut packet = [0xff_u8; 60];
    packet[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    let start = frame as usize * FRAME_SIZE + offset;
    // SAFETY: the frame is the test's own, and 60 bytes from `offset` lie within it.
    unsafe {
        umem.base()
            .as_ptr()
            .add(start)
            .copy_from_nonoverlapping(packet.as_ptr(), packet.len())
    };
    assert!(queue.transmit(frame, offset as u16, 60));
}

fn every_frame(mut frames: Vec<u32>) {
    frames.sort_unstable();
    assert!(frames.into_iter().eq(0..FRAMES));
}

#[test]
fn packets_cross_in_place_and_every_frame_returns() {
    for (mode, wanted) in [(Mode::Native, Attached::Native), (Mode::Generic, Attached::Generic)] {
        let Some(net) = Net::new() else { return };
        let (umem, mut pool) = memory();
        let options = |device| Options {
            mode,
            ..Options::new(device)
        };
        let mut left = open(&umem, &mut pool, &options("left"));
        let mut right = open(&umem, &mut pool, &options("right"));
        assert_eq!((left.device.attached(), left.device.mtu()), (wanted, 1500));
        assert!(!left.device.zero_copy());
        let mac = left.device.mac().map(|byte| format!("{byte:02x}")).join(":");
        assert!(net.middle("link show dev left").contains(&mac));
        ping_through(&net, &mut left, &mut right, &mut pool);

        let Port { device, queue } = left;
        drop(device);
        // A program that another test starts holds a copy of every descriptor between fork and exec.
        wait_until("the program is gone", || !net.has_program("left"));
        assert!(net.has_program("right"));
        pool.extend(queue.close());
        pool.extend(right.queue.close());
        every_frame(pool);
    }
}

#[test]
fn packets_leave_from_any_offset() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    let mut left = open(&umem, &mut pool, &Options::new("left"));
    let before = net.received();
    for offset in [0, 101, DATA_START, FRAME_SIZE - 60] {
        transmit(&umem, &mut left.queue, &mut pool, offset);
    }
    assert_eq!(left.queue.flush(), Link::Up);
    wait_until("all are sent", || {
        left.queue.completed(8, |frame| pool.push(frame));
        left.queue.outstanding() == 0
    });
    wait_until("all have arrived", || net.received() == before + 4);
    assert_eq!(left.queue.statistics().unwrap().transmit_invalid, 0);
    pool.extend(left.queue.close());
    every_frame(pool);
}

#[test]
fn a_whole_vector_goes_with_one_flush() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    let mut left = open(&umem, &mut pool, &Options::new("left"));
    let before = net.received();
    for _ in 0..256 {
        transmit(&umem, &mut left.queue, &mut pool, DATA_START);
    }
    assert_eq!(left.queue.outstanding(), 256);
    assert_eq!(left.queue.flush(), Link::Up);
    assert_eq!(left.queue.pending(), 0);
    wait_until("all have arrived", || net.received() == before + 256);
}

#[test]
fn a_device_may_go_down_and_up() {
    let Some(net) = Net::new() else { return };
    for mode in [Mode::Native, Mode::Generic] {
        let (umem, mut pool) = memory();
        let mut left = open(
            &umem,
            &mut pool,
            &Options {
                mode,
                ..Options::new("left")
            },
        );
        let mut right = open(
            &umem,
            &mut pool,
            &Options {
                mode,
                ..Options::new("right")
            },
        );
        ping_through(&net, &mut left, &mut right, &mut pool);

        assert_eq!(left.queue.link(), Link::Up);
        net.middle("link set left down");
        assert_eq!((left.queue.link(), left.queue.flush()), (Link::Down, Link::Up));
        transmit(&umem, &mut left.queue, &mut pool, DATA_START);
        assert_eq!(left.queue.flush(), Link::Down);
        assert_eq!(left.queue.pending(), 1);
        assert_eq!(poll(&left.queue), 0);
        assert!(net.has_program("left"));

        net.middle("link set left up");
        assert_eq!(left.queue.flush(), Link::Up);
        assert_eq!(left.queue.pending(), 0);
        ping_through(&net, &mut left, &mut right, &mut pool);
        pool.extend(left.queue.close());
        pool.extend(right.queue.close());
        every_frame(pool);
    }
}

#[test]
fn without_a_carrier_packets_are_dropped_and_their_frames_return() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    let mut left = open(&umem, &mut pool, &Options::new("left"));
    ip(&format!("-n {} link set eth down", net.part("a")));
    for _ in 0..100 {
        transmit(&umem, &mut left.queue, &mut pool, DATA_START);
    }
    wait_until("all are dropped", || {
        assert_eq!(left.queue.flush(), Link::Up);
        left.queue.completed(usize::MAX, |frame| pool.push(frame));
        left.queue.outstanding() == 0
    });
    assert_eq!((left.queue.link(), poll(&left.queue)), (Link::Up, 0));
    pool.extend(left.queue.close());
    every_frame(pool);
}

#[test]
fn a_device_may_go_away_and_come_back() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    // The first of all sockets is the one that goes: the others must not depend on it.
    let mut left = open(&umem, &mut pool, &Options::new("left"));
    let mut right = open(&umem, &mut pool, &Options::new("right"));
    ping_through(&net, &mut left, &mut right, &mut pool);

    let old_index = left.device.ifindex();
    net.middle("link delete left");
    assert_eq!(left.queue.link(), Link::Gone);
    assert_eq!((left.queue.flush(), poll(&left.queue)), (Link::Up, 0));
    transmit(&umem, &mut left.queue, &mut pool, DATA_START);
    assert_eq!(left.queue.flush(), Link::Gone);
    let Port { device, queue } = left;
    drop(device);
    pool.extend(queue.close());
    assert_eq!(pool.len() + right.queue.held(), FRAMES as usize);
    assert!(matches!(Device::open(&umem, &Options::new("left")), Err(OpenError::NoDevice(name)) if name == "left"));

    net.pair("left", "a", "10.0.0.1/24", 1);
    let mut left = open(&umem, &mut pool, &Options::new("left"));
    assert_ne!(left.device.ifindex(), old_index);
    ping_through(&net, &mut left, &mut right, &mut pool);
    pool.extend(left.queue.close());
    pool.extend(right.queue.close());
    every_frame(pool);
}

#[test]
fn the_device_is_left_as_it_was_found() {
    let Some(net) = Net::new() else { return };
    let (umem, _) = memory();
    net.middle("link set left down");
    let (device, queues) = Device::open(&umem, &Options::new("left")).unwrap();
    let shown = net.middle("-d link show dev left");
    assert!(
        shown.contains(",UP") && shown.contains("allmulti 1") && shown.contains("margay_xdp"),
        "{shown}"
    );
    drop((device, queues));
    let shown = net.middle("-d link show dev left");
    assert!(
        !shown.contains(",UP") && shown.contains("allmulti 0") && !shown.contains("margay_xdp"),
        "{shown}"
    );

    net.middle("link set left up");
    drop(Device::open(&umem, &Options::new("left")).unwrap());
    assert!(net.middle("link show dev left").contains(",UP"));
}

#[test]
fn statistics_count_what_found_no_frame() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    let (_device, mut queues) = Device::open(&umem, &Options::new("left")).unwrap();
    let queue = &mut queues[0];
    assert_eq!(queue.statistics().unwrap().fill_ring_empty, 0);
    // Requests for an address nobody answers.
    let mut ping = net.ping(3);
    wait_until("a packet finds no frame", || {
        queue.statistics().unwrap().fill_ring_empty > 0
    });
    assert_eq!(queue.receive(256, |_, _, _| ()), 0);
    queue.fill(pool.drain(..16));
    let mut packets = Vec::new();
    wait_until("a packet finds a frame", || {
        queue.receive(256, |frame, offset, length| packets.push((frame, offset, length))) > 0
    });
    let (frame, offset, length) = packets[0];
    assert!(
        frame < 16 && usize::from(offset) == DATA_START && length == 42,
        "{packets:?} is no ARP request"
    );
    ping.wait().unwrap();
}

#[test]
fn every_queue_has_its_socket() {
    let Some(net) = Net::new() else { return };
    let (umem, mut pool) = memory();
    net.middle("link delete left");
    net.pair("left", "a", "10.0.0.1/24", 2);
    let both = Options {
        queues: 2,
        ..Options::new("left")
    };
    let (device, mut queues) = Device::open(&umem, &both).unwrap();
    assert_eq!((device.device_queues(), queues.len()), (Some(2), 2));
    for queue in &mut queues {
        assert_eq!(queue.fill(pool.drain(..512)), 512);
    }
    // Of so many flows, some take the one queue and some the other.
    ip(&format!(
        "-n {} neighbor add 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth",
        net.part("a")
    ));
    net.enter("a");
    for _ in 0..64 {
        std::net::UdpSocket::bind("10.0.0.1:0")
            .unwrap()
            .send_to(b"flow", "10.0.0.2:9")
            .unwrap();
    }
    let mut counts = [0, 0];
    wait_until("all have arrived, by both queues", || {
        for (queue, count) in queues.iter_mut().zip(&mut counts) {
            *count += queue.receive(256, |frame, _, _| pool.push(frame));
        }
        counts[0] + counts[1] == 64 && !counts.contains(&0)
    });
    pool.extend(queues.into_iter().flat_map(Queue::close));
    every_frame(pool);
}

#[test]
fn a_stale_program_goes_and_a_foreign_one_stays() {
    let Some(net) = Net::new() else { return };
    let (umem, _) = memory();
    for (name, stale) in [("xsk_def_prog", true), ("margay_xdp", true), ("watchdog", false)] {
        for (flag, word, mode) in [(1 << 2, "xdpdrv", Mode::Auto), (1 << 1, "xdpgeneric", Mode::Generic)] {
            attach_forever(&net, name, flag);
            match Device::open(
                &umem,
                &Options {
                    mode,
                    ..Options::new("left")
                },
            ) {
                Ok(_) => assert!(stale, "{name} was removed"),
                Err(error) => {
                    let sentence = error.to_string();
                    assert!(!stale && sentence.contains("`watchdog`"), "{sentence}");
                    assert!(
                        sentence.contains(&format!("`ip link set dev left {word} off`")),
                        "{sentence}"
                    );
                    net.middle(&format!("link set dev left {word} off"));
                }
            }
            wait_until("the program is gone", || !net.has_program("left"));
        }
    }
}

/// Attaches a program that passes everything to `left` the old way, by netlink: it stays until it is removed.
fn attach_forever(net: &Net, name: &str, flags: u32) {
    let name = CString::new(name).unwrap();
    let (kind, license) = (sys::bpf_prog_type_BPF_PROG_TYPE_XDP, c"Apache-2.0");
    let registers = sys::bpf_insn::new_bitfield_1(0, 0);
    let instruction = |code, imm| sys::bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: registers,
        off: 0,
        imm,
    };
    // r0 = XDP_PASS; exit
    let code = [instruction(0xb7, 2), instruction(0x95, 0)];
    // SAFETY: a plain look-up; the name ends in zero.
    let device = unsafe { libc::if_nametoindex(c"left".as_ptr()) } as i32;
    // SAFETY: names end in zero, the program is as long as said, no options; the descriptor is closed once.
    unsafe {
        let program = sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            license.as_ptr(),
            code.as_ptr(),
            2,
            std::ptr::null_mut(),
        );
        assert!(program >= 0);
        assert_eq!(sys::bpf_xdp_attach(device, program, flags, std::ptr::null()), 0);
        libc::close(program);
    }
    assert!(net.has_program("left"));
}

#[test]
fn a_killed_process_leaves_no_program() {
    if let Ok(device) = std::env::var(VICTIM) {
        let _held = Device::open(&memory().0, &Options::new(device)).unwrap();
        std::thread::sleep(PATIENCE * 2);
        return;
    }
    let Some(net) = Net::new() else { return };
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_program"])
        .env(VICTIM, "left")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the program is attached", || net.has_program("left"));
    let (umem, _) = memory();
    let in_use = Device::open(&umem, &Options::new("left")).unwrap_err().to_string();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(in_use.contains("in use by another"), "{in_use}");
    wait_until("the program is gone", || !net.has_program("left"));
    wait_until("the device can be opened", || {
        Device::open(&umem, &Options::new("left")).is_ok()
    });
}

#[test]
fn what_cannot_be_opened_gets_its_sentence() {
    let Some(net) = Net::new() else { return };
    let (umem, _) = memory();
    let sentence = |options: Options| Device::open(&umem, &options).unwrap_err().to_string();
    let left = || Options::new("left");
    assert!(sentence(Options::new("nowhere")).contains("no network device `nowhere`"));
    assert!(sentence(Options::new("a-name-that-is-too-long")).contains("no network device"));
    assert!(sentence(Options { queues: 2, ..left() }).contains("has 1 queues, not 2"));
    assert!(sentence(Options { queues: 0, ..left() }).contains("has 1 queues, not 0"));
    assert!(
        sentence(Options {
            ring_size: 1000,
            ..left()
        })
        .contains("power of two")
    );
    assert!(
        sentence(Options {
            zero_copy: ZeroCopy::Always,
            ..left()
        })
        .contains("does not do zero copy")
    );
    net.middle("tuntap add dev tunnel mode tun");
    assert!(sentence(Options::new("tunnel")).contains("not Ethernet"));
    net.middle("link set left mtu 9000");
    assert!(sentence(left()).contains("ip link set dev left mtu 1778"));
    wait_until("the program is gone", || !net.has_program("left"));
}

#[test]
fn auto_falls_back_to_generic() {
    let Some(net) = Net::new() else { return };
    let (umem, _) = memory();
    // The loopback driver has no XDP of its own.
    net.middle("link set lo mtu 1500");
    let loopback = Options::new("lo");
    let (device, queues) = Device::open(&umem, &loopback).unwrap();
    assert_eq!(device.attached(), Attached::Generic);
    drop((device, queues));
    let native = Device::open(
        &umem,
        &Options {
            mode: Mode::Native,
            ..loopback
        },
    )
    .unwrap_err();
    assert!(native.to_string().contains("refuses the XDP program"), "{native}");
}
