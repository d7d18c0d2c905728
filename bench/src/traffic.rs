//! Traffic: the same packets in every run, given to a worker by a queue that costs little and loses nothing.

use fastpath::arena::{FrameIndex, HEADROOM};
use fastpath::pool::Frames;
use fastpath::port::Queue;
use fastpath::vector::Vector;
use std::net::IpAddr;

/// Bytes of a frame without its check sequence: the packets of "64-byte" benchmarks, which the wire makes 64.
/// An IPv6 packet with a UDP header is 62 bytes long, so of IPv6 it is 62.
pub const LEAST_FRAME: usize = 60;

/// Different packets a queue sends, over and over: more flows than a cache could learn by heart.
pub const PACKETS: usize = 1 << 16;

const UDP: u8 = 17;

/// A UDP packet in a frame from Ethernet on, with the IPv4 checksum right and the UDP checksum absent (IPv4) or
/// arbitrary (IPv6; routers do not look).
///
/// # Panics
/// If the addresses are of two families.
pub fn udp(to_mac: [u8; 6], source: (IpAddr, u16), target: (IpAddr, u16)) -> Vec<u8> {
    udp_of(LEAST_FRAME, to_mac, source, target)
}

/// The same, of a frame of `frame_length` bytes; of IPv6 always of 62.
///
/// # Panics
/// As [`udp`], and for a frame too short for its headers.
pub fn udp_of(frame_length: usize, to_mac: [u8; 6], source: (IpAddr, u16), target: (IpAddr, u16)) -> Vec<u8> {
    let mut frame = [to_mac.as_slice(), &[2, 0, 0, 0, 0, 9]].concat();
    let payload = match (source.0, target.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (frame_length - 14) as u16;
            let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0].to_vec();
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header.extend([from.octets(), to.octets()].concat());
            let sum: u32 = header
                .chunks(2)
                .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
                .sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
            frame_length - 14 - 20
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, UDP, 64]);
            frame.extend([from.octets(), to.octets()].concat());
            8
        }
        _ => panic!("a packet has addresses of one family"),
    };
    frame.extend(
        [
            source.1.to_be_bytes(),
            target.1.to_be_bytes(),
            (payload as u16).to_be_bytes(),
            [0, 0],
        ]
        .concat(),
    );
    frame.resize(frame.len() + payload - 8, 0);
    frame
}

/// A receive queue that never runs dry, with at most `size` packets a turn.
pub struct Generator {
    packets: Vec<Vec<u8>>,
    next: usize,
    size: usize,
}

impl Generator {
    /// Sends `packets` in order, again and again.
    pub fn new(packets: Vec<Vec<u8>>, size: usize) -> Self {
        Self { packets, next: 0, size }
    }
}

impl Queue for Generator {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room.min(self.size) {
            let Some(mut frame) = frames.take() else { return };
            let packet = &self.packets[self.next];
            self.next = (self.next + 1) % self.packets.len();
            // They are all short enough.
            let _ = frames.packet(&mut frame).fill(HEADROOM, packet);
            into.push(frame);
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        from.drain(..).for_each(|frame| frames.give(frame));
    }

    fn close(self: Box<Self>, _: &mut Frames) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastpath::wire::checksum;

    #[test]
    fn packets_are_well_formed() {
        let v4 = udp(
            [2; 6],
            ("10.0.0.1".parse().unwrap(), 1),
            ("10.0.0.2".parse().unwrap(), 2),
        );
        assert_eq!(v4.len(), LEAST_FRAME);
        assert!(checksum::is_valid(&v4[14..34]));
        let v6 = udp([2; 6], ("fd00::1".parse().unwrap(), 1), ("fd00::2".parse().unwrap(), 2));
        assert_eq!(v6.len(), 62);
    }
}
