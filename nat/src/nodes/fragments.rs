//! Fragments on their way to `flows`: they leave the graph at `gather`, get the ports of their datagram, and come back
//! by `gathered`. First ones come a vector before those behind them, which then find the connection that it made.

use crate::fragments::{Datagram, Fate, Fragment, Fragments, Ports, Why};
use crate::time::Tick;
use fastpath::arena::FrameIndex;
use fastpath::batch::{Batch, Delivery};
use fastpath::labels;
use fastpath::local::{GATHERED_MAX, Local};
use fastpath::meta::{Flags, Meta};
use fastpath::node::{Node, Sink, Source, Turn};
use fastpath::pool::Frames;
use fastpath::vector::Vector;
use fastpath::wire::{ipv4, ipv6, protocol};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use zerocopy::FromBytes;

/// Datagrams under way that a worker knows; four fragments of each may wait for the first one.
const DATAGRAMS: usize = 256;
/// Places looked at in one turn for what has waited too long.
const VISITS: usize = 32;

labels! {
    /// Why fragments may not come in.
    pub enum GatherDrop {
        Full = "fragments-full": "More fragments than a worker takes in at once.",
    }
    /// Where packets go.
    pub enum Next { Flows = "flows" }
    /// Why fragments are dropped.
    pub enum Drop {
        Overlap = "fragment-overlap": "It, or one before it, overlaps another fragment of its datagram (RFC 5722).",
        Repeated = "fragment-repeated": "It repeats what passed already.",
        Scattered = "fragment-scattered": "Its datagram came in too many separate pieces.",
        Crowded = "fragment-crowded": "As many as may wait for the first fragment of its datagram wait already.",
        NoFirst = "fragment-no-first": "The first fragment of its datagram did not come in time.",
        Forgotten = "fragment-forgotten": "So many datagrams came in fragments that its own was forgotten.",
    }
}

impl From<Why> for Drop {
    fn from(why: Why) -> Self {
        match why {
            Why::Overlap => Drop::Overlap,
            Why::Repeated => Drop::Repeated,
            Why::Scattered => Drop::Scattered,
            Why::Crowded => Drop::Crowded,
            Why::NoFirst => Drop::NoFirst,
            Why::Forgotten => Drop::Forgotten,
        }
    }
}

/// By [`Meta::reserved`], which is 0 for what goes on.
const DROPS: [Drop; 6] = [
    Drop::Overlap,
    Drop::Repeated,
    Drop::Scattered,
    Drop::Crowded,
    Drop::NoFirst,
    Drop::Forgotten,
];

/// The sink that fragments leave by.
#[derive(Default)]
pub struct Gather;

impl Sink for Gather {
    const NAME: &'static str = "gather";
    type Drop = GatherDrop;

    fn accept(&mut self, _: &Turn, local: &mut Local, delivery: &mut Delivery<'_, Self>) {
        delivery.each(
            |_| (),
            |frame, ()| {
                if local.gathered.len() == GATHERED_MAX {
                    return Err((frame, GatherDrop::Full));
                }
                local.gathered.push_back(frame);
                Ok(())
            },
        );
    }
}

/// The source that they come back by.
pub struct Gathered {
    fragments: Fragments<FrameIndex>,
    out: Out,
}

/// What is to come back.
struct Out {
    /// With the next vector.
    now: VecDeque<FrameIndex>,
    /// With the one after: behind first fragments.
    then: VecDeque<FrameIndex>,
}

impl Default for Gathered {
    fn default() -> Self {
        let random = RandomState::new();
        let room = || VecDeque::with_capacity(GATHERED_MAX + 4 * DATAGRAMS);
        Self {
            fragments: Fragments::new(DATAGRAMS, [random.hash_one(0), random.hash_one(1)]),
            out: Out {
                now: room(),
                then: room(),
            },
        }
    }
}

impl Source for Gathered {
    const NAME: &'static str = "gathered";

    fn poll(&mut self, turn: &Turn, local: &mut Local, room: usize, into: &mut Vector) {
        let Self { fragments, out } = self;
        let ready = out.now.len().min(room);
        out.now.drain(..ready).for_each(|frame| into.push(frame));
        if out.now.is_empty() {
            std::mem::swap(&mut out.now, &mut out.then);
        }
        if local.gathered.is_empty() && fragments.held() == 0 {
            return;
        }
        let now = Tick::from_ns(turn.now_ns);
        let Local { frames, gathered, .. } = local;
        while out.now.len() + out.then.len() < GATHERED_MAX {
            let Some(mut frame) = gathered.pop_front() else { break };
            let mut packet = frames.packet(&mut frame);
            let meta = *packet.meta;
            let (datagram, fragment) = read(packet.network(), &meta).unwrap_or_default();
            fragments.take(&datagram, &fragment, frame, now, |frame, fate| {
                out.put(frames, frame, fate);
            });
        }
        fragments.expire(now, VISITS, |frame, fate| out.put(frames, frame, fate));
    }

    fn close(&mut self, frames: &mut Frames) {
        let Out { now, then } = &mut self.out;
        now.drain(..).chain(then.drain(..)).for_each(|frame| frames.give(frame));
        self.fragments.clear(|frame| frames.give(frame));
    }
}

impl Out {
    fn put(&mut self, frames: &mut Frames, mut frame: FrameIndex, fate: Fate) {
        let meta = frames.packet(&mut frame).meta;
        let is_later = meta.flags.has(Flags::LATER_FRAGMENT);
        match fate {
            Fate::Pass(ports) => {
                meta.flags.clear(Flags::FRAGMENT);
                (meta.source.port, meta.target.port) = ports;
                meta.reserved = 0;
            }
            Fate::Drop(why) => meta.reserved = 1 + Drop::from(why) as u8,
        }
        if is_later {
            self.then.push_back(frame);
        } else {
            self.now.push_back(frame);
        }
    }
}

/// The node that drops by name what cannot go on.
#[derive(Default)]
pub struct FragmentPorts;

impl Node for FragmentPorts {
    const NAME: &'static str = "fragment-ports";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|packet| match usize::from(packet.meta.reserved).checked_sub(1) {
            None => Ok(Next::Flows),
            Some(why) => Err(DROPS.get(why).copied().unwrap_or(Drop::Overlap)),
        });
    }
}

/// Whose fragment a packet is, and which; of a packet from its IP header on that `parse` found to be one.
fn read(network: &[u8], meta: &Meta) -> Option<(Datagram, Fragment)> {
    let ports = (meta.source.port, meta.target.port);
    if meta.flags.has(Flags::IPV4) {
        return read_v4(network, meta, ports);
    }
    read_v6(network, meta, ports)
}

fn read_v4(network: &[u8], meta: &Meta, ports: Ports) -> Option<(Datagram, Fragment)> {
    let (header, _) = ipv4::Header::ref_from_prefix(network).ok()?;
    let identification = u32::from(header.identification.get());
    let datagram = Datagram::new(
        &meta.source,
        &meta.target,
        identification,
        meta.protocol,
        meta.vrf,
        Flags::IPV4,
    );
    let field = header.fragment.get();
    let fragment = Fragment {
        offset: (field & ipv4::OFFSET) * 8,
        length: (network.len() - header.header_length().min(network.len())) as u16,
        more: field & ipv4::MORE_FRAGMENTS != 0,
        ports,
    };
    Some((datagram, fragment))
}

fn read_v6(network: &[u8], meta: &Meta, ports: Ports) -> Option<(Datagram, Fragment)> {
    let (mut next, mut at) = (*network.get(6)?, ipv6::HEADER);
    while next != protocol::FRAGMENT {
        let head = network.get(at..at + 2)?;
        let length = match next {
            protocol::AUTHENTICATION => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        (next, at) = (head[0], at + length);
    }
    let head: &[u8; 8] = network.get(at..)?.first_chunk()?;
    let identification = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let datagram = Datagram::new(
        &meta.source,
        &meta.target,
        identification,
        0,
        meta.vrf,
        Flags::default(),
    );
    let field = u16::from_be_bytes([head[2], head[3]]);
    let fragment = Fragment {
        offset: field & !7,
        length: (network.len() - at - head.len()) as u16,
        more: field & 1 != 0,
        ports,
    };
    Some((datagram, fragment))
}
