//! What one worker has for itself: free frames, the queues it owns, ways to the other workers, the waiting rooms.

use crate::arena::FrameIndex;
use crate::held::{Held, NextHop, TunnelPeer};
use crate::meta::PortId;
use crate::nodes::fragment::Pieces;
use crate::pool::Frames;
use crate::port::{Queue, QueueCounters};
use crate::qos::{self, Exceeded, Limiter};
use crate::ring::Producer;
use crate::vector::{BATCH_MAX, Vector};
use crate::vlan::{self, Vlan};
use crate::worker::Waker;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most fragments in [`Local::gathered`].
pub const GATHERED_MAX: usize = 1024;

/// One worker's belongings. Sources and sinks work with them; nodes never see them.
pub struct Local {
    /// Free frames.
    pub frames: Frames,
    /// Ports.
    pub queues: Queues,
    /// Packets that wait for a neighbour.
    pub held: Held<NextHop>,
    /// Packets that wait for a session of a tunnel.
    pub parked: Held<TunnelPeer>,
    /// Pieces of packets that were cut.
    pub pieces: Pieces,
    /// Fragments that came in, on their way to who knows their ports.
    pub gathered: VecDeque<FrameIndex>,
}

/// How a worker sends through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It does not exist, or is down.
    Nowhere,
    /// By an own queue.
    Here(usize),
    /// By the queue of another worker.
    Handoff(u16),
    /// As a VLAN, by its number among those known, over the port of its link.
    Vlan(u16),
    /// As much as a limit allows, by its number among those known.
    Limited(u16),
}

struct Attached {
    port: PortId,
    queue: Box<dyn Queue>,
    counters: Arc<QueueCounters>,
    up: bool,
    outbox: Vec<FrameIndex>,
    /// VLANs of its link: their numbers, and where they are in [`Queues::vlans`].
    vlans: Vec<(u16, usize)>,
}

/// The way to another worker.
struct Neighbour {
    producer: Producer,
    waker: Arc<Waker>,
    outbox: Vec<FrameIndex>,
}

/// How much may leave by a port.
struct Limited {
    port: PortId,
    limiter: Arc<Limiter>,
    /// How it leaves. Another worker's queue is limited by that worker.
    way: Way,
}

/// The queues a worker owns, and how it reaches the ports of others.
#[derive(Default)]
pub struct Queues {
    attached: Vec<Attached>,
    ways: Vec<Way>,
    vlans: Vec<Vlan>,
    limits: Vec<Limited>,
    now_ns: u64,
    neighbours: Vec<Option<Neighbour>>,
    turn: usize,
}

impl Queues {
    /// Adds a ring to another worker.
    pub(crate) fn connect(&mut self, worker: u16, producer: Producer, waker: Arc<Waker>) {
        let at = usize::from(worker);
        if self.neighbours.len() <= at {
            self.neighbours.resize_with(at + 1, || None);
        }
        self.neighbours[at] = Some(Neighbour {
            producer,
            waker,
            outbox: Vec::with_capacity(BATCH_MAX),
        });
    }

    /// Takes over a queue; packets to its port leave by it from now on.
    pub(crate) fn attach(&mut self, port: PortId, queue: Box<dyn Queue>, counters: Arc<QueueCounters>) {
        self.attached.push(Attached {
            port,
            queue,
            counters,
            up: true,
            outbox: Vec::with_capacity(BATCH_MAX),
            vlans: vec![],
        });
        self.set_way(port, Way::Here(self.attached.len() - 1));
        self.find_vlans();
    }

    /// Lets go of every queue of a port.
    pub(crate) fn detach(&mut self, port: PortId) -> Vec<Box<dyn Queue>> {
        let (gone, kept): (Vec<_>, Vec<_>) = self.attached.drain(..).partition(|attached| attached.port == port);
        self.attached = kept;
        self.set_way(port, Way::Nowhere);
        self.vlans.retain(|vlan| vlan.port != port);
        self.find_ways();
        self.find_vlans();
        gone.into_iter().map(|attached| attached.queue).collect()
    }

    /// Has a VLAN's packets come and go by the port of its link.
    pub(crate) fn join(&mut self, vlan: Vlan) {
        self.vlans.retain(|known| known.port != vlan.port);
        self.vlans.push(vlan);
        self.find_vlans();
    }

    /// The ways to VLANs, and what the ports of their links have to look for.
    fn find_vlans(&mut self) {
        for at in 0..self.vlans.len() {
            self.set_way(self.vlans[at].port, Way::Vlan(at as u16));
        }
        for attached in &mut self.attached {
            let known = self.vlans.iter().enumerate();
            let own = known.filter(|(_, vlan)| vlan.trunk == attached.port);
            attached.vlans = own.map(|(at, vlan)| (vlan.id, at)).collect();
            attached.vlans.sort_unstable();
        }
    }

    /// Has packets to a port leave by its queues here, or go nowhere while its link is down.
    pub(crate) fn set_up(&mut self, port: PortId, up: bool) {
        let own = self.attached.iter_mut().filter(|attached| attached.port == port);
        own.for_each(|attached| attached.up = up);
        self.find_ways();
    }

    /// The ways to the ports whose queues are here.
    fn find_ways(&mut self) {
        for (slot, attached) in self.attached.iter().enumerate() {
            let way = if attached.up { Way::Here(slot) } else { Way::Nowhere };
            let limits = &mut self.limits;
            self.ways[attached.port.index()] = limited(limits, attached.port, way);
        }
    }

    /// Says how to reach a port that this worker has no queue of.
    pub(crate) fn set_way(&mut self, port: PortId, way: Way) {
        if self.ways.len() <= port.index() {
            self.ways.resize(port.index() + 1, Way::Nowhere);
        }
        self.ways[port.index()] = limited(&mut self.limits, port, way);
    }

    /// Has no more leave by a port than this allows.
    pub(crate) fn limit(&mut self, port: PortId, limiter: Option<Arc<Limiter>>) {
        let known: Vec<_> = self.limits.drain(..).collect();
        // Their numbers change.
        for Limited { port, way, .. } in &known {
            self.ways[port.index()] = *way;
        }
        let way = self.way(port);
        let kept = known.into_iter().filter(|limited| limited.port != port);
        let new = limiter.map(|limiter| Limited { port, limiter, way });
        self.limits = kept.chain(new).collect();
        for at in 0..self.limits.len() {
            let Limited { port, way, .. } = self.limits[at];
            self.set_way(port, way);
        }
    }

    /// What time it is in this turn.
    pub(crate) fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Whether a queue of the port is here.
    pub(crate) fn owns(&self, port: PortId) -> bool {
        self.attached.iter().any(|attached| attached.port == port)
    }

    /// How packets to the port leave.
    #[inline]
    pub fn way(&self, port: PortId) -> Way {
        self.ways.get(port.index()).copied().unwrap_or(Way::Nowhere)
    }

    /// Receives from all queues in turn, at most `room` packets, and notes the port in each meta.
    pub(crate) fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        let count = self.attached.len();
        let mut left = room;
        for step in 0..count {
            let attached = &mut self.attached[(self.turn + step) % count];
            let before = into.len();
            attached.queue.receive(frames, left, into);
            let received = &mut into.frames_mut()[before..];
            if received.is_empty() {
                continue;
            }
            let mut bytes = 0;
            for frame in received.iter_mut() {
                let packet = frames.packet(frame);
                packet.meta.port = attached.port;
                packet.meta.flags = Default::default();
                bytes += u64::from(packet.meta.data_length);
            }
            attached.counters.rx_packets.add(received.len() as u64);
            attached.counters.rx_bytes.add(bytes);
            if !attached.vlans.is_empty() {
                untag(&attached.vlans, &self.vlans, frames, received);
            }
            left -= received.len();
        }
        // Another one comes first next time, so that a full queue does not starve the others.
        self.turn = self.turn.wrapping_add(1);
    }

    /// Puts a frame where [`Self::send`] finds it, or gives it back: there is no way to the port.
    #[inline]
    pub(crate) fn stage(
        &mut self,
        frames: &mut Frames,
        port: PortId,
        frame: FrameIndex,
    ) -> Result<(), (FrameIndex, Refused)> {
        match self.way(port) {
            Way::Here(slot) => self.attached[slot].outbox.push(frame),
            Way::Handoff(worker) => match self.neighbours.get_mut(usize::from(worker)) {
                Some(Some(neighbour)) => neighbour.outbox.push(frame),
                _ => return Err((frame, Refused::Down)),
            },
            Way::Vlan(at) => return self.stage_tagged(frames, usize::from(at), frame),
            Way::Limited(at) => return self.stage_limited(frames, usize::from(at), frame),
            Way::Nowhere => return Err((frame, Refused::Down)),
        }
        Ok(())
    }

    #[inline(never)]
    fn stage_limited(
        &mut self,
        frames: &mut Frames,
        at: usize,
        mut frame: FrameIndex,
    ) -> Result<(), (FrameIndex, Refused)> {
        let limited = &self.limits[at];
        let mut packet = frames.packet(&mut frame);
        let passed = match qos::is_of_link(packet.data()) {
            true => Ok(()),
            false => limited.limiter.pass(self.now_ns, packet.meta.data_length),
        };
        match (passed, limited.way) {
            (Err(exceeded), _) => Err((frame, Refused::Limited(exceeded))),
            (Ok(()), Way::Here(slot)) => {
                self.attached[slot].outbox.push(frame);
                Ok(())
            }
            (Ok(()), Way::Vlan(at)) => self.stage_tagged(frames, usize::from(at), frame),
            // No other way is limited.
            (Ok(()), _) => Err((frame, Refused::Down)),
        }
    }

    #[inline(never)]
    fn stage_tagged(
        &mut self,
        frames: &mut Frames,
        at: usize,
        mut frame: FrameIndex,
    ) -> Result<(), (FrameIndex, Refused)> {
        let vlan = &self.vlans[at];
        let mut packet = frames.packet(&mut frame);
        let bytes = u64::from(packet.meta.data_length);
        if vlan::tag(&mut packet, vlan.id).is_err() {
            return Err((frame, Refused::NoRoom));
        }
        let trunk = vlan.trunk;
        // The worker that owns its queue sends it by this.
        packet.meta.egress = trunk;
        vlan.counters.tx_packets.add(1);
        vlan.counters.tx_bytes.add(bytes);
        match self.way(trunk) {
            // A VLAN has no VLANs.
            Way::Vlan(_) => Err((frame, Refused::Down)),
            _ => self.stage(frames, trunk, frame),
        }
    }

    /// Sends what was staged; what does not fit goes to `refuse`.
    pub(crate) fn send(&mut self, frames: &mut Frames, mut refuse: impl FnMut(FrameIndex, Refused)) {
        for attached in self.attached.iter_mut().filter(|attached| !attached.outbox.is_empty()) {
            let offered = attached.outbox.len() as u64;
            let lengths = |outbox: &mut [FrameIndex], frames: &mut Frames| -> u64 {
                outbox
                    .iter_mut()
                    .map(|frame| u64::from(frames.packet(frame).meta.data_length))
                    .sum()
            };
            let offered_bytes = lengths(&mut attached.outbox, frames);
            attached.queue.transmit(frames, &mut attached.outbox);
            let left_bytes = lengths(&mut attached.outbox, frames);
            let left = attached.outbox.len() as u64;
            attached.counters.tx_packets.add(offered - left);
            attached.counters.tx_bytes.add(offered_bytes - left_bytes);
            attached.counters.tx_full.add(left);
            attached
                .outbox
                .drain(..)
                .for_each(|frame| refuse(frame, Refused::TransmitFull));
        }
        for neighbour in self
            .neighbours
            .iter_mut()
            .flatten()
            .filter(|neighbour| !neighbour.outbox.is_empty())
        {
            neighbour.producer.send(&mut neighbour.outbox);
            neighbour.waker.wake();
            neighbour
                .outbox
                .drain(..)
                .for_each(|frame| refuse(frame, Refused::HandoffFull));
        }
    }

    /// Ends a turn.
    pub(crate) fn flush(&mut self, frames: &mut Frames) {
        self.attached
            .iter_mut()
            .for_each(|attached| attached.queue.flush(frames));
    }

    /// Brings the sockets' own counters up to date.
    pub(crate) fn sample(&self) {
        self.attached
            .iter()
            .for_each(|attached| attached.queue.sample(&attached.counters));
    }

    /// The queues, to sleep on.
    pub(crate) fn each(&self) -> impl Iterator<Item = &dyn Queue> {
        self.attached.iter().map(|attached| &*attached.queue)
    }
}

/// Gives what comes with the tag of a VLAN to its port. Other tags are left to `parse`.
fn untag(known: &[(u16, usize)], vlans: &[Vlan], frames: &mut Frames, received: &mut [FrameIndex]) {
    for frame in received {
        let mut packet = frames.packet(frame);
        let Some(id) = vlan::id_of(packet.data()) else { continue };
        let Ok(found) = known.binary_search_by_key(&id, |known| known.0) else {
            continue;
        };
        let vlan = &vlans[known[found].1];
        vlan::untag(&mut packet);
        packet.meta.port = vlan.port;
        vlan.counters.rx_packets.add(1);
        vlan.counters.rx_bytes.add(u64::from(packet.meta.data_length));
    }
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Down,
    NoRoom,
    TransmitFull,
    HandoffFull,
    Limited(Exceeded),
}

/// How packets to a port leave, as its limit allows; and the limit remembers how that is.
fn limited(limits: &mut [Limited], port: PortId, way: Way) -> Way {
    match limits.iter_mut().enumerate().find(|(_, limited)| limited.port == port) {
        None => way,
        Some((at, limited)) => {
            limited.way = way;
            match way {
                Way::Here(_) | Way::Vlan(_) => Way::Limited(at as u16),
                way => way,
            }
        }
    }
}
