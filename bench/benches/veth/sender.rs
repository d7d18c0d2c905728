//! Sends 60-byte UDP packets, as fast as one core can or at a rate: over AF_XDP, the cheapest way into a device there is.

use bench::traffic::udp;
use fastpath::arena::{Arena, HEADROOM};
use fastpath::pool::Pool;
use fastpath::port::Queue;
use fastpath::port::socket::SocketQueue;
use fastpath::port::xdp::{Device, Mode, Options, Umem};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What makes the benchmark the sender: it runs itself in a host's namespace with this, a device, whom to send to, and
/// how many packets a second.
pub const FLAG: &str = "--send";
/// Longest it sends, should nobody end it.
const LIMIT: Duration = Duration::from_secs(60);
/// Packets a system call.
const BURST: usize = 64;

/// Sends through `device` to `mac` until it is killed, `rate` packets a second or as many as go.
pub fn run(device: &str, mac: &str, rate: &str) -> ExitCode {
    match send(device, mac, rate.parse().unwrap_or(f64::INFINITY)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("sender: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn send(device: &str, mac: &str, rate: f64) -> Result<(), String> {
    let packet = udp(link_address(mac)?, ([10, 1, 0, 2].into(), 1024), (BEYOND.into(), 4096));
    let umem = Umem::new(4096).map_err(|error| error.to_string())?;
    let (arena, free) = Arena::over(umem.clone()).map_err(|error| error.to_string())?;
    let mut frames = Pool::new(arena, free).frames();
    let options = Options {
        mode: Mode::Generic,
        ..Options::new(device)
    };
    let (_device, sockets) = Device::open(&umem, &options).map_err(|error| error.to_string())?;
    let mut queues = sockets.into_iter().map(|socket| SocketQueue::new(socket, 0));
    let mut queue = queues.next().ok_or("the device has no queue")?;
    let start = Instant::now();
    let mut burst = Vec::with_capacity(BURST);
    let mut sent = 0;
    while start.elapsed() < LIMIT {
        while burst.len() < BURST {
            let Some(mut frame) = frames.take() else { break };
            // It is short enough for any frame.
            let _ = frames.packet(&mut frame).fill(HEADROOM, &packet);
            burst.push(frame);
        }
        let ready = burst.len();
        queue.transmit(&mut frames, &mut burst);
        queue.flush(&mut frames);
        sent += ready - burst.len();
        while start.elapsed().as_secs_f64() < sent as f64 / rate {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// Six bytes, as `ip` writes them.
pub fn link_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes.try_into().map_err(|_| format!("`{text}` is no link address"))
}

const BEYOND: [u8; 4] = [10, 20, 0, 1];
