//! The thread that serves the tunnels, and how its messages leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use fastpath::clock::Clock;
use fastpath::forwarding::Forwarding;
use fastpath::pool::Frames;
use fastpath::ring::Producer;
use fastpath::worker::Waker;
use wireguard::mailbox::Mailbox;
use wireguard::outer::{HANDSHAKE_CLASS, datagram};

use super::{Outgoing, Tunnels, announce, moment};
use crate::plane::{Shared, State, TICK};

/// First byte of a transport message, which a keepalive is.
const TRANSPORT: u8 = 4;

/// Messages into frames, and frames to a worker. The frames and the ring are its own, so that it waits for nobody.
pub(in crate::plane) struct Post {
    frames: Frames,
    ring: Producer,
    worker: Arc<Waker>,
    identification: u16,
}

impl Post {
    pub fn new(frames: Frames, ring: Producer, worker: Arc<Waker>) -> Self {
        Self {
            frames,
            ring,
            worker,
            identification: 0,
        }
    }

    /// Sends messages whose addresses are known; the others are counted, as what finds no room.
    fn send(&mut self, tunnels: &Tunnels, outgoing: Vec<Outgoing>) {
        let mut ready = vec![];
        for message in outgoing {
            let Some(mut frame) = self.frames.take() else {
                tunnels.lost(&message, "no-frame", "no frame was free for a message of ours");
                continue;
            };
            self.identification = self.identification.wrapping_add(1);
            let class = match message.bytes.first() {
                Some(&TRANSPORT) => 0,
                _ => HANDSHAKE_CLASS,
            };
            let way = (message.ends, message.port);
            let mut packet = self.frames.packet(&mut frame);
            if datagram(
                &mut packet,
                (message.tunnel, message.vrf),
                way,
                (&message.bytes, class),
                self.identification,
            ) {
                ready.push(frame);
            } else {
                self.frames.give(frame);
                tunnels.lost(
                    &message,
                    "no-source",
                    "we have no address to reach the peer's endpoint from",
                );
            }
        }
        if ready.is_empty() {
            return;
        }
        self.ring.send(&mut ready);
        self.worker.wake();
        // Whoever waits for these asks again.
        ready.into_iter().for_each(|frame| self.frames.give(frame));
    }
}

/// What the thread stands on.
pub(in crate::plane) struct Ground {
    pub tunnels: Tunnels,
    pub mailbox: Mailbox,
    pub clock: Clock,
    pub forwarding: Arc<Forwarding>,
    pub wakers: Vec<Arc<Waker>>,
    pub post: Post,
}

impl Ground {
    /// Starts the thread. It ends when the plane stops and it is unparked.
    pub fn start(mut self, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("wireguard".to_owned()).spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                let wait = self.turn(&shared);
                std::thread::park_timeout(wait);
            }
        })
    }

    /// Serves the tunnels once; how long to wait for news at most.
    fn turn(&mut self, shared: &Shared) -> Duration {
        let now = moment(self.clock.now_ns(), false);
        let mut chores = self.tunnels.serve(&self.mailbox, now);
        if chores.outgoing.iter().any(|message| message.ends.local.is_none()) {
            choose_sources(&shared.lock(), &mut chores.outgoing);
        }
        self.post.send(&self.tunnels, chores.outgoing);
        if chores.announce {
            announce(&self.forwarding, || self.wakers.iter().for_each(|waker| waker.wake()));
        }
        let next_ns = chores.wake_ns.map_or(u64::MAX, |at| at.saturating_sub(now.ns));
        TICK.min(Duration::from_nanos(next_ns))
    }
}

impl State {
    /// The same without a thread, for simulated time.
    pub(in crate::plane) fn serve_tunnels(&mut self) {
        let Some(mut post) = self.post.take() else { return };
        let now = self.moment();
        let mut chores = self.tunnels.serve(&self.mailbox, now);
        choose_sources(self, &mut chores.outgoing);
        post.send(&self.tunnels, chores.outgoing);
        if chores.announce {
            announce(&self.forwarding, || self.workers.wake());
        }
        self.post = Some(post);
    }
}

/// Where a peer has not yet spoken to an address of ours, routes choose one.
fn choose_sources(state: &State, outgoing: &mut [Outgoing]) {
    for message in outgoing.iter_mut().filter(|message| message.ends.local.is_none()) {
        message.ends.local = state.source_towards(message.vrf, message.ends.remote.ip());
    }
}
