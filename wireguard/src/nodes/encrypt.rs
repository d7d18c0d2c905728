//! Seals packets where they stand and wraps them for the way to their peers.
//!
//! The packet stays in its place; headers are put in front and the tag behind. Packets of one peer that follow each
//! other share a key and take their numbers together, in order; all of a vector are sealed in one call.

use crate::aead::{Aead, Key, Seal};
use crate::interface::{Here, Interfaces};
use crate::mailbox::Mailbox;
use crate::message::{PADDING, TAG, TRANSPORT, TRANSPORT_HEADER, TransportHeader};
use crate::outer::Outer;
use crate::peer::PeerId;
use arrayvec::ArrayVec;
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::{Flags, PortId};
use fastpath::node::{Node, Turn};
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
use fastpath::vector::BATCH_MAX;
use fastpath::wire::ecn;
use std::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

labels! {
    /// Where packets go.
    pub enum Next { Send = "send" }
    /// Why packets are dropped.
    pub enum Drop {
        NoInterface = "no-tunnel": "The tunnel it was routed into is being removed.",
        NoSession = "session-ended": "The session with its peer ended while it was on its way.",
        NoSource = "no-outer-address": "It is not known which address of ours the peer is to be spoken to from.",
        NoRoom = "no-room": "The frame has no room for the tunnel's headers.",
    }
}

/// The node.
pub struct Encrypt {
    interfaces: Reader<Interfaces>,
    mailbox: Mailbox,
    aead: Aead,
    identification: u16,
}

impl Encrypt {
    /// For the tunnels of `interfaces`; who wants a session says so by `mailbox`.
    pub fn new(interfaces: Reader<Interfaces>, mailbox: Mailbox) -> Self {
        Self {
            interfaces,
            mailbox,
            aead: Aead::best(),
            identification: 0,
        }
    }
}

/// What packets in a row to one peer have in common.
struct Run {
    key: Key,
    outer: Outer,
    remote: u32,
    mtu: u16,
}

/// A packet to be sealed.
struct Job {
    /// Its place in the vector.
    place: u16,
    /// Its run.
    run: u16,
    counter: u64,
    /// The congestion mark inside.
    mark: u8,
}

impl Node for Encrypt {
    const NAME: &'static str = "wg-encrypt";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let mut runs = ArrayVec::<Run, BATCH_MAX>::new();
        let mut jobs = ArrayVec::<Job, BATCH_MAX>::new();
        let mut current = self.interfaces.refresh().current(turn.worker);
        let mut at = 0;
        while at < batch.len() {
            let (port, peer, end) = run(batch, at);
            let places = at..end;
            at = end;
            let begun = current
                .at(port)
                .ok_or(Drop::NoInterface)
                .and_then(|here| begin(here, peer, places.len() as u64, turn.now_ns));
            match begun {
                Ok((run, first)) => {
                    runs.push(run);
                    let run = runs.len() - 1;
                    let bytes = prepare_all(batch, places.clone(), (&runs[run], run as u16), first, &mut jobs);
                    if let Some(here) = current.at(port) {
                        settle(here, &self.mailbox, peer, (places.len() as u64, bytes), turn.now_ns);
                    }
                }
                Err(reason) => places.for_each(|place| batch.decide(place, Err(reason))),
            }
        }
        let sealed = seal(self.aead, batch, &runs, &jobs);
        for job in &jobs {
            self.identification = self.identification.wrapping_add(1);
            let place = usize::from(job.place);
            let outer = &runs[usize::from(job.run)].outer;
            let wrapped = outer.wrap(&mut batch.packet(place), job.mark, self.identification);
            let fate = wrapped.map(|()| Next::Send).map_err(|_| Drop::NoRoom);
            batch.decide(place, if sealed { fate } else { Err(Drop::NoRoom) });
        }
    }

    fn describe(seen: &Seen) -> String {
        let start = usize::from(seen.meta.network_offset) + usize::from(seen.meta.transport_offset) + 8;
        let header = seen
            .bytes()
            .get(start..)
            .and_then(|bytes| TransportHeader::read_from_prefix(bytes).ok());
        header.map_or_else(String::new, |(header, _)| {
            format!(
                "peer {} at {}, its session {:08x}, number {}",
                seen.meta.adjacency,
                seen.meta.target.ip(),
                header.receiver.get(),
                header.counter.get()
            )
        })
    }
}

/// The port and peer of the packet at `first`, and the end of the packets in a row that have the same.
fn run(batch: &mut Batch<'_, Encrypt>, first: usize) -> (PortId, PeerId, usize) {
    let of = |batch: &mut Batch<'_, Encrypt>, place: usize| {
        let meta = batch.packet(place).meta;
        (meta.egress, meta.adjacency)
    };
    let (port, peer) = of(batch, first);
    let length = batch.len();
    let end = (first + 1..length)
        .find(|place| of(batch, *place) != (port, peer))
        .unwrap_or(length);
    (port, PeerId(peer), end)
}

/// A run of `count` packets, and the number of the first.
fn begin(here: &mut Here<'_>, peer: PeerId, count: u64, now_ns: u64) -> Result<(Run, u64), Drop> {
    let (interface, outbound) = (here.interface, here.lookup.peer(peer).ok_or(Drop::NoSession)?);
    let (session, ends) = outbound.session().zip(outbound.ends()).ok_or(Drop::NoSession)?;
    let outer = Outer::new((interface.port, interface.vrf), ends, interface.listen_port).ok_or(Drop::NoSource)?;
    let numbers = session.take(count, now_ns).ok_or(Drop::NoSession)?;
    let key = session.send_key().ok_or(Drop::NoSession)?;
    let run = Run {
        key: Key::from(*key),
        outer,
        remote: session.remote(),
        mtu: interface.mtu,
    };
    Ok((run, numbers.start))
}

/// Makes messages of the packets of a run, all but their seal. How many bytes there are.
fn prepare_all(
    batch: &mut Batch<'_, Encrypt>,
    places: Range<usize>,
    (run, number): (&Run, u16),
    first: u64,
    jobs: &mut ArrayVec<Job, BATCH_MAX>,
) -> u64 {
    let mut bytes = 0;
    for (place, counter) in places.zip(first..) {
        let mut packet = batch.packet(place);
        match prepare(&mut packet, run, counter) {
            Some(mark) => {
                bytes += u64::from(packet.meta.length());
                jobs.push(Job {
                    place: place as u16,
                    run: number,
                    counter,
                    mark,
                });
            }
            None => batch.decide(place, Err(Drop::NoRoom)),
        }
    }
    bytes
}

/// Puts the header in front of a packet, padding and room for the tag behind; its congestion mark, or none if the frame
/// is too small.
#[inline(always)]
fn prepare(packet: &mut Packet<'_>, run: &Run, counter: u64) -> Option<u8> {
    packet.pull(u16::from(packet.meta.network_offset));
    let is_v4 = packet.meta.flags.has(Flags::IPV4);
    // DSCP stays inside: outside every packet is best effort, as with Linux, for it would tell more than the length does.
    let mark = ecn::of(packet.data(), is_v4);
    let padding = padding(packet.meta.length(), run.mtu);
    let tail = packet.extend(padding + TAG as u16).ok()?;
    tail[..usize::from(padding)].fill(0);
    let header = TransportHeader {
        kind: TRANSPORT.into(),
        receiver: run.remote.into(),
        counter: counter.into(),
    };
    packet
        .push(TRANSPORT_HEADER as u16)
        .ok()?
        .copy_from_slice(header.as_bytes());
    Some(mark)
}

/// Zeros behind a packet, so that its length tells less; but never beyond the MTU (5.4.6; Linux,
/// drivers/net/wireguard/send.c, calculate_skb_padding).
#[inline(always)]
fn padding(length: u16, mtu: u16) -> u16 {
    length.next_multiple_of(PADDING as u16).min(mtu).saturating_sub(length)
}

/// Seals every packet; if one could not be, nothing may leave.
fn seal(aead: Aead, batch: &mut Batch<'_, Encrypt>, runs: &[Run], jobs: &[Job]) -> bool {
    let mut seals = ArrayVec::<Seal<'_>, BATCH_MAX>::new();
    let mut waiting = jobs.iter().peekable();
    for (place, packet) in batch.packets().enumerate() {
        if let Some(job) = waiting.next_if(|job| usize::from(job.place) == place) {
            let text = &mut packet.into_data()[TRANSPORT_HEADER..];
            // There is a tag's room behind every text, and no frame is longer than what can be sealed.
            seals.extend(Seal::in_place(&runs[usize::from(job.run)].key, job.counter, text));
        }
    }
    aead.seal(&mut seals);
    seals.len() == jobs.len()
}

/// Tells the session what is sent under it.
fn settle(here: &mut Here<'_>, mailbox: &Mailbox, peer: PeerId, (packets, bytes): (u64, u64), now_ns: u64) {
    let port = here.interface.port;
    if let Some(session) = here.lookup.peer(peer).and_then(|outbound| outbound.session()) {
        session.activity().count_sent(packets, bytes);
        if let Some(notice) = session.sent(now_ns, true) {
            mailbox.tell(port, notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_as_linux_has_it() {
        let padded = |length| length + padding(length, 1420);
        assert_eq!(
            [0, 1, 16, 17, 1408, 1409, 1419, 1420].map(padded),
            [0, 16, 16, 32, 1408, 1420, 1420, 1420]
        );
        assert_eq!(padding(1421, 1420), 0, "not cut, whatever came to be longer");
    }
}
