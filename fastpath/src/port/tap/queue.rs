//! A queue of a TAP device, read and written by one worker.

use super::cut::Cut;
use super::join::{JOINED_MAX, Joint};
use super::vnet::{VNET_HEADER, VnetHeader};
use crate::arena::{FrameIndex, HEADROOM};
use crate::pool::Frames;
use crate::port::{Queue, QueueCounters};
use crate::vector::{BATCH_MAX, Vector};
use rustix::io::{Errno, read, writev};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Room for what a host hands over at once: an IP packet of 64 KiB behind an Ethernet header with tags, and a byte more,
/// so that what was cut short by the kernel shows.
const PIECE_MAX: usize = VNET_HEADER + 14 + 8 + 65_536 + 1;
/// Flows whose packets are joined at the same time.
const FLOWS: usize = 8;

/// A queue of a TAP device.
pub struct TapQueue {
    descriptor: OwnedFd,
    /// Whether the kernel takes bundles of UDP datagrams.
    udp: bool,
    /// What the host handed over last, its header first; `cut` is what is left of it.
    piece: Box<[u8]>,
    piece_length: usize,
    cut: Option<Cut>,
    bundles: Vec<Bundle>,
    /// Without packets; there are always enough for all flows.
    spare: Vec<Vec<FrameIndex>>,
    /// Packets that found no room, while the others are written.
    left: Vec<FrameIndex>,
    /// The device is gone: nothing to read, and nothing to sleep on.
    gone: bool,
    lost: Lost,
}

/// Packets of one flow, in order, to be written as one.
struct Bundle {
    hash: u32,
    joint: Joint,
    frames: Vec<FrameIndex>,
}

/// Packets lost here, by reason.
#[derive(Default)]
struct Lost {
    uncuttable: u64,
    no_frame: u64,
    not_taken: u64,
}

impl TapQueue {
    /// Takes over a descriptor of a TAP device that does not block and has virtio-net headers of ten bytes. With `udp`
    /// the kernel takes bundles of UDP datagrams.
    pub fn new(descriptor: OwnedFd, udp: bool) -> Self {
        Self {
            descriptor,
            udp,
            piece: vec![0; PIECE_MAX].into_boxed_slice(),
            piece_length: 0,
            cut: None,
            bundles: Vec::with_capacity(FLOWS),
            spare: (0..=FLOWS).map(|_| Vec::with_capacity(JOINED_MAX)).collect(),
            left: Vec::with_capacity(2 * BATCH_MAX),
            gone: false,
            lost: Lost::default(),
        }
    }

    /// Reads the next piece; whether there was one.
    fn read(&mut self) -> bool {
        match read(&self.descriptor, &mut *self.piece) {
            Ok(length) => self.piece_length = length,
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(_) => {
                self.gone = true;
                return false;
            }
        }
        let cut = match self.piece[..self.piece_length].split_first_chunk() {
            Some((header, packet)) if self.piece_length < PIECE_MAX => {
                VnetHeader::read(header).and_then(|header| Cut::new(&header, packet).ok())
            }
            _ => None,
        };
        self.lost.uncuttable += u64::from(cut.is_none());
        self.cut = cut;
        true
    }

    /// The next packet of the last piece.
    fn cut(&mut self, frames: &mut Frames) -> Option<FrameIndex> {
        let cut = self.cut.as_mut()?;
        let Some(length) = cut.length() else {
            self.cut = None;
            return None;
        };
        let Some(mut frame) = frames.take() else {
            // The rest of a piece is no use to its receiver without this.
            self.lost.no_frame += 1;
            self.cut = None;
            return None;
        };
        let mut packet = frames.packet(&mut frame);
        // At most PACKET_MAX bytes, so they fit behind the headroom.
        (packet.meta.data_offset, packet.meta.data_length) = (HEADROOM, length as u16);
        cut.write(&self.piece[VNET_HEADER..self.piece_length], packet.data());
        Some(frame)
    }

    /// Joins a packet to its bundle, or starts one. What could not be written goes to `left`.
    fn add(&mut self, frames: &mut Frames, mut frame: FrameIndex, left: &mut Vec<FrameIndex>) {
        let packet = frames.packet(&mut frame);
        let hash = packet.meta.hash;
        let bytes = &*packet.into_data();
        let joint = Joint::start(bytes, self.udp);
        if let Some(at) = self.bundles.iter().position(|bundle| bundle.hash == hash) {
            let bundle = &mut self.bundles[at];
            if let Some(joint) = &joint
                && let Some(first) = bundle.frames.first_mut()
                && bundle.joint.join(frames.packet(first).into_data(), bytes, joint)
            {
                bundle.frames.push(frame);
                return;
            }
            // It comes behind them.
            let bundle = self.bundles.remove(at);
            self.write(frames, bundle, left);
        }
        let mut members = self.spare.pop().unwrap_or_default();
        members.push(frame);
        let Some(joint) = joint else {
            return self.write_one(frames, members, left);
        };
        if self.bundles.len() == FLOWS {
            let oldest = self.bundles.remove(0);
            self.write(frames, oldest, left);
        }
        self.bundles.push(Bundle {
            hash,
            joint,
            frames: members,
        });
    }

    fn write_one(&mut self, frames: &mut Frames, mut members: Vec<FrameIndex>, left: &mut Vec<FrameIndex>) {
        let header = VnetHeader::default().bytes();
        if let Some(frame) = members.first_mut() {
            let parts = [IoSlice::new(&header), IoSlice::new(frames.packet(frame).into_data())];
            let written = writev(&self.descriptor, &parts);
            self.written(frames, written, members, left);
        }
    }

    fn write(&mut self, frames: &mut Frames, bundle: Bundle, left: &mut Vec<FrameIndex>) {
        let Bundle {
            joint,
            frames: mut members,
            ..
        } = bundle;
        let Some((first, rest)) = members.split_first_mut() else {
            return;
        };
        let first = frames.packet(first).into_data();
        let header = joint.finish(first).bytes();
        let mut parts = [IoSlice::new(&[]); JOINED_MAX + 1];
        (parts[0], parts[1]) = (IoSlice::new(&header), IoSlice::new(first));
        for (part, frame) in parts[2..].iter_mut().zip(rest) {
            *part = IoSlice::new(&frames.packet(frame).into_data()[joint.payload()..]);
        }
        let written = writev(&self.descriptor, &parts[..=joint.count()]);
        self.written(frames, written, members, left);
    }

    /// Gives the frames back that were written or never will be; a packet that found no room goes to `left`.
    fn written(
        &mut self,
        frames: &mut Frames,
        written: Result<usize, Errno>,
        mut members: Vec<FrameIndex>,
        left: &mut Vec<FrameIndex>,
    ) {
        match written {
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => left.append(&mut members),
            Err(_) => self.lost.not_taken += members.len() as u64,
            Ok(_) => {}
        }
        members.drain(..).for_each(|frame| frames.give(frame));
        self.spare.push(members);
    }
}

impl Queue for TapQueue {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        let mut received = 0;
        while received < room {
            match self.cut(frames) {
                Some(frame) => {
                    into.push(frame);
                    received += 1;
                }
                None if self.gone || !self.read() => return,
                None => {}
            }
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        let mut left = std::mem::take(&mut self.left);
        for frame in from.drain(..) {
            self.add(frames, frame, &mut left);
        }
        while let Some(bundle) = self.bundles.pop() {
            self.write(frames, bundle, &mut left);
        }
        from.append(&mut left);
        self.left = left;
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then(|| self.descriptor.as_fd())
    }

    fn busy(&self) -> bool {
        self.cut.is_some()
    }

    fn sample(&self, counters: &QueueCounters) {
        counters.socket_dropped.set(self.lost.uncuttable);
        counters.socket_fill_empty.set(self.lost.no_frame);
        counters.socket_tx_invalid.set(self.lost.not_taken);
    }

    fn close(self: Box<Self>, _: &mut Frames) {
        // Packets are written in the turn they come in; none is left here.
    }
}
