//! What there is to reach: a loop between two AF_XDP sockets that does nothing but write link addresses.

use super::sender::link_address;
use fastpath::arena::{Arena, FrameIndex};
use fastpath::pool::{Frames, Pool};
use fastpath::port::Queue;
use fastpath::port::socket::SocketQueue;
use fastpath::port::xdp::{Device, Options, Umem};
use fastpath::vector::Vector;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What makes the benchmark the loop: it runs itself in the router's namespace with this, the device to receive from, the
/// one to send to, and whom to.
pub const FLAG: &str = "--bare-loop";
/// What it says once packets pass.
pub const READY: &str = "ready";
/// Longest it runs, should nobody end it.
const LIMIT: Duration = Duration::from_secs(90);
/// Frames of the loop, and of them those the kernel receives into.
const FRAMES: u32 = 8192;
const FILL: usize = 2048;

/// Passes packets from one device to the other until it is killed.
pub fn run(from: &str, to: &str, mac: &str) -> ExitCode {
    match pass(from, to, mac) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bare loop: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn pass(from: &str, to: &str, mac: &str) -> Result<(), String> {
    let mac = link_address(mac)?;
    let umem = Umem::new(FRAMES).map_err(|error| error.to_string())?;
    let (arena, free) = Arena::over(umem.clone()).map_err(|error| error.to_string())?;
    let mut frames = Pool::new(arena, free).frames();
    let (_from, mut input) = open(&umem, from)?;
    let (_to, mut output) = open(&umem, to)?;
    println!("{READY}");
    let start = Instant::now();
    let mut vector = Vector::default();
    let mut burst: Vec<FrameIndex> = Vec::new();
    while start.elapsed() < LIMIT {
        input.receive(&mut frames, vector.room(), &mut vector);
        burst.extend(vector.drain());
        for frame in &mut burst {
            let data = frames.packet(frame).into_data();
            if let Some(target) = data.first_chunk_mut() {
                *target = mac;
            }
        }
        output.transmit(&mut frames, &mut burst);
        output.flush(&mut frames);
        give_back(&mut frames, &mut burst);
    }
    Ok(())
}

fn open(umem: &Umem, device: &str) -> Result<(Device, SocketQueue), String> {
    let (device, sockets) = Device::open(umem, &Options::new(device)).map_err(|error| error.to_string())?;
    let socket = sockets.into_iter().next().ok_or("the device has no queue")?;
    Ok((device, SocketQueue::new(socket, FILL)))
}

/// What did not fit into the ring is lost.
fn give_back(frames: &mut Frames, burst: &mut Vec<FrameIndex>) {
    burst.drain(..).for_each(|frame| frames.give(frame));
}
