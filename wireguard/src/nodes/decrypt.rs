//! Opens packets where they stand, and lets those go on that their sender may send.
//!
//! All packets of a vector are opened in one call. Handshake messages go to control, as copies.

use super::mss;
use crate::aead::{Aead, Key, Open};
use crate::interface::{Current, Here, Interfaces};
use crate::mailbox::{Letter, Mailbox};
use crate::message::{Message, TAG, TRANSPORT_HEADER, parse};
use crate::outer::UDP_HEADER;
use crate::session::{Ends, Notice, Refused};
use arrayvec::ArrayVec;
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, PortId};
use fastpath::node::{Node, Turn};
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
use fastpath::vector::BATCH_MAX;
use fastpath::wire::{ecn, ethernet, ipv4, ipv6};
use std::net::SocketAddr;

labels! {
    /// Where packets go.
    pub enum Next {
        Inner = "decrypted",
        Consumed = "handshake-or-keepalive",
    }
    /// Why packets are dropped.
    pub enum Drop {
        NoInterface = "no-tunnel": "The tunnel that listens on its port is being removed.",
        Malformed = "not-wireguard": "Neither type nor length of a WireGuard message.",
        MailboxFull = "handshakes-full": "Too many handshake messages wait for control already.",
        NoSession = "no-such-session": "No session has the index in the packet: it has ended, or was of an earlier start.",
        Expired = "session-expired": "Its session is older than 180 seconds.",
        Replayed = "replayed": "A packet with its number came before, or its number is too far behind.",
        NotAuthentic = "not-authentic": "Its tag is wrong: it was changed on the way, or is not of the peer.",
        NotIp = "inner-not-ip": "What was inside is not an IP packet.",
        ForeignSource = "foreign-source": "The peer is not allowed the source address inside.",
        Congestion = "ecn-not-capable": "Marked for congestion outside, but those inside would not understand (RFC 6040 section 4.2).",
        NoRoom = "no-room": "The frame has no room for an Ethernet header.",
    }
}

/// The node.
pub struct Decrypt {
    interfaces: Reader<Interfaces>,
    mailbox: Mailbox,
    aead: Aead,
}

impl Decrypt {
    /// For the tunnels of `interfaces`; handshake messages and notices go to `mailbox`.
    pub fn new(interfaces: Reader<Interfaces>, mailbox: Mailbox) -> Self {
        Self {
            interfaces,
            mailbox,
            aead: Aead::best(),
        }
    }
}

/// A packet to be opened.
struct Job {
    /// Its place in the vector.
    place: u16,
    /// Which of the keys.
    key: u16,
    port: PortId,
    /// Index of its session.
    local: u32,
    counter: u64,
    /// The congestion mark outside.
    mark: u8,
    opened: bool,
}

/// Keys, each for packets in a row of one session.
type Keys = ArrayVec<(PortId, u32, Key), BATCH_MAX>;
type Jobs = ArrayVec<Job, BATCH_MAX>;

impl Node for Decrypt {
    const NAME: &'static str = "wg-decrypt";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let (mut keys, mut jobs) = (Keys::new(), Jobs::new());
        let mut current = self.interfaces.refresh().current(turn.worker);
        let mut letters = false;
        for place in 0..batch.len() {
            match sort(&self.mailbox, &mut batch.packet(place), place as u16, &mut jobs) {
                Ok(Sorted::Packet) => {}
                Ok(Sorted::Letter) => {
                    letters = true;
                    batch.decide(place, Ok(Next::Consumed));
                }
                Err(reason) => batch.decide(place, Err(reason)),
            }
        }
        if letters {
            self.mailbox.wake();
        }
        // A short loop for each thing to look up, so that the cache misses of many sessions overlap.
        retain(batch, &mut jobs, |job| check(&mut current, job, turn.now_ns));
        retain(batch, &mut jobs, |job| take_key(&mut current, job, &mut keys));
        open(self.aead, batch, &keys, &mut jobs);
        let mut arrivals = Arrivals::new(&self.mailbox, turn.now_ns);
        for job in &jobs {
            let place = usize::from(job.place);
            let fate = match current.at(job.port) {
                Some(here) => arrivals.deliver(here, job, &mut batch.packet(place)),
                None => Err(Drop::NoInterface),
            };
            batch.decide(place, fate);
        }
        arrivals.count(&mut current);
    }

    fn describe(seen: &Seen) -> String {
        match seen.meta.network_offset {
            0 => String::new(),
            _ => format!("port {}, {} bytes", seen.meta.port.0, seen.length),
        }
    }
}

enum Sorted {
    /// To be opened.
    Packet,
    /// Control has it.
    Letter,
}

/// Tells packets from handshake messages. A packet is cut down to what is sealed.
#[inline(always)]
fn sort(mailbox: &Mailbox, packet: &mut Packet<'_>, place: u16, jobs: &mut Jobs) -> Result<Sorted, Drop> {
    let port = packet.meta.egress;
    let front = usize::from(packet.meta.network_offset) + usize::from(packet.meta.transport_offset);
    let is_v4 = packet.meta.flags.has(Flags::IPV4);
    let mark = ecn::of(packet.network(), is_v4);
    let (meta, data) = packet.split();
    let message = data.get(front..).and_then(datagram).ok_or(Drop::Malformed)?;
    let (header, sealed) = match parse(message).map_err(|_| Drop::Malformed)? {
        Message::Transport(header, sealed) => (header, sealed.len() as u16),
        _ => {
            let letter = Letter::new(port, ends(&meta.source, &meta.target), message).ok_or(Drop::Malformed)?;
            return mailbox
                .put(letter)
                .map(|()| Sorted::Letter)
                .map_err(|_| Drop::MailboxFull);
        }
    };
    jobs.push(Job {
        place,
        key: 0,
        port,
        local: header.receiver.get(),
        counter: header.counter.get(),
        mark,
        opened: false,
    });
    packet.pull((front + UDP_HEADER + TRANSPORT_HEADER) as u16);
    packet.truncate(sealed);
    Ok(Sorted::Packet)
}

/// Keeps the packets that a look at them lets pass, and drops the others.
#[inline(always)]
fn retain(batch: &mut Batch<'_, Decrypt>, jobs: &mut Jobs, mut look: impl FnMut(&mut Job) -> Result<(), Drop>) {
    jobs.retain(|job| {
        let looked = look(job);
        if let Err(reason) = looked {
            batch.decide(usize::from(job.place), Err(reason));
        }
        looked.is_ok()
    });
}

/// Whether there is a session, and the packet is worth opening.
#[inline(always)]
fn check(current: &mut Current<'_>, job: &Job, now_ns: u64) -> Result<(), Drop> {
    let here = current.at(job.port).ok_or(Drop::NoInterface)?;
    let session = here.lookup.session(job.local).ok_or(Drop::NoSession)?;
    session.check(job.counter, now_ns).map_err(refused)
}

/// Finds the key; packets in a row share one.
#[inline(always)]
fn take_key(current: &mut Current<'_>, job: &mut Job, keys: &mut Keys) -> Result<(), Drop> {
    let known = keys
        .last()
        .is_some_and(|(port, local, _)| (*port, *local) == (job.port, job.local));
    if !known {
        let here = current.at(job.port).ok_or(Drop::NoInterface)?;
        let session = here.lookup.kept_session(job.local).ok_or(Drop::NoSession)?;
        let key = session.receive_key().ok_or(Drop::NoSession)?;
        keys.push((job.port, job.local, Key::from(*key)));
        session.activity().warm();
    }
    job.key = keys.len() as u16 - 1;
    Ok(())
}

/// The payload of a UDP datagram, as long as its header says.
#[inline(always)]
fn datagram(udp: &[u8]) -> Option<&[u8]> {
    let (header, payload) = udp.split_first_chunk::<UDP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    payload.get(..length.checked_sub(UDP_HEADER)?)
}

fn ends(source: &Endpoint, target: &Endpoint) -> Ends {
    Ends {
        remote: SocketAddr::new(source.ip(), source.port),
        local: Some(target.ip()),
    }
}

fn refused(refused: Refused) -> Drop {
    match refused {
        Refused::Expired => Drop::Expired,
        Refused::Replay(_) => Drop::Replayed,
    }
}

/// Opens every packet that is authentic.
fn open(aead: Aead, batch: &mut Batch<'_, Decrypt>, keys: &Keys, jobs: &mut Jobs) {
    let mut opens = ArrayVec::<Open<'_>, BATCH_MAX>::new();
    let mut opened = ArrayVec::<u16, BATCH_MAX>::new();
    let mut waiting = jobs.iter().enumerate().peekable();
    for (place, packet) in batch.packets().enumerate() {
        if let Some((number, job)) = waiting.next_if(|(_, job)| usize::from(job.place) == place)
            // At least a tag, and no frame is longer than what can be sealed.
            && let Ok(open) = Open::in_place(&keys[usize::from(job.key)].2, job.counter, packet.into_data())
        {
            opens.push(open);
            opened.push(number as u16);
        }
    }
    aead.open(&mut opens);
    for (open, number) in opens.iter().zip(&opened) {
        jobs[usize::from(*number)].opened = open.opened();
    }
}

/// What is known of packets in a row of one session that came one way.
struct Known {
    port: PortId,
    local: u32,
    source: Endpoint,
    target: Endpoint,
    ends: Ends,
    /// Whether it is another than the one to the peer, as far as we know.
    moved: bool,
    packets: u64,
    bytes: u64,
}

/// Authentic packets, as they are told to their sessions.
struct Arrivals<'a> {
    mailbox: &'a Mailbox,
    now_ns: u64,
    known: Option<Known>,
    told: Option<Notice>,
}

impl<'a> Arrivals<'a> {
    fn new(mailbox: &'a Mailbox, now_ns: u64) -> Self {
        Self {
            mailbox,
            now_ns,
            known: None,
            told: None,
        }
    }

    /// Lets an opened packet go on, with an Ethernet header in front, if it may.
    #[inline(always)]
    fn deliver(&mut self, here: &mut Here<'_>, job: &Job, packet: &mut Packet<'_>) -> Result<Next, Drop> {
        if !job.opened {
            return Err(Drop::NotAuthentic);
        }
        let sealed = packet.meta.length();
        let length = sealed - TAG as u16;
        packet.truncate(length);
        let same = |known: &Known| {
            let meta = &packet.meta;
            known.local == job.local
                && known.port == job.port
                && known.source == meta.source
                && known.target == meta.target
        };
        if !self.known.as_ref().is_some_and(same) {
            self.begin(here, job, packet);
        }
        let session = here.lookup.kept_session(job.local).ok_or(Drop::NoSession)?;
        let known = self.known.as_mut().ok_or(Drop::NoSession)?;
        session.admit(job.counter, length > 0, self.now_ns).map_err(refused)?;
        known.packets += 1;
        known.bytes += u64::from(TRANSPORT_HEADER as u16 + sealed);
        if std::mem::take(&mut known.moved) {
            session.activity().way().follow(known.ends);
        }
        if session.has_news(self.now_ns) {
            tell(self.mailbox, &mut self.told, job.port, session.notices(self.now_ns));
        }
        if length == 0 {
            return Ok(Next::Consumed);
        }
        let is_v4 = family(packet.data()).ok_or(Drop::NotIp)?;
        if owner(here, packet.data(), is_v4) != Some(session.peer()) {
            return Err(Drop::ForeignSource);
        }
        unwrap(here, job, packet, is_v4)
    }

    #[inline(never)]
    fn begin(&mut self, here: &mut Here<'_>, job: &Job, packet: &Packet<'_>) {
        if let Some(known) = self.known.take().filter(|known| known.port == job.port) {
            settle(here, &known);
        }
        let session = here.lookup.kept_session(job.local);
        let (source, target) = (packet.meta.source, packet.meta.target);
        let ends = ends(&source, &target);
        self.known = Some(Known {
            port: job.port,
            local: job.local,
            source,
            target,
            ends,
            moved: session.is_some_and(|session| session.moved(ends)),
            packets: 0,
            bytes: 0,
        });
    }

    /// Counts what is not yet counted.
    fn count(&mut self, current: &mut Current<'_>) {
        if let Some(known) = self.known.take()
            && let Some(here) = current.at(known.port)
        {
            settle(here, &known);
        }
    }
}

/// Tells control, but not the same for every packet of a vector.
#[cold]
fn tell(mailbox: &Mailbox, told: &mut Option<Notice>, port: PortId, notices: [Option<Notice>; 2]) {
    for notice in notices.into_iter().flatten() {
        if told.replace(notice) != Some(notice) {
            mailbox.tell(port, notice);
        }
    }
}

fn settle(here: &Here<'_>, known: &Known) {
    if let Some(session) = here.lookup.kept_session(known.local) {
        session.activity().count_received(known.packets, known.bytes);
    }
}

/// Whether it is an IP packet that is not longer than what was sealed, and IPv4.
#[inline(always)]
fn family(packet: &[u8]) -> Option<bool> {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet.first()? >> 4 {
        4 if packet.len() >= ipv4::HEADER => (ipv4::HEADER..=packet.len()).contains(&word(2)).then_some(true),
        6 if packet.len() >= ipv6::HEADER => (ipv6::HEADER + word(4) <= packet.len()).then_some(false),
        _ => None,
    }
}

/// Whose the source is.
#[inline(always)]
fn owner(here: &Here<'_>, packet: &[u8], is_v4: bool) -> Option<crate::peer::PeerId> {
    let allowed = &here.interface.allowed;
    if is_v4 {
        allowed.peer_v4(u32::from_be_bytes(*packet[12..].first_chunk()?))
    } else {
        allowed.peer_v6(u128::from_be_bytes(*packet[8..].first_chunk()?))
    }
}

/// Makes it a packet that came in by the tunnel's port.
#[inline(always)]
fn unwrap(here: &Here<'_>, job: &Job, packet: &mut Packet<'_>, is_v4: bool) -> Result<Next, Drop> {
    let data = packet.data();
    let inner = ecn::of(data, is_v4);
    let mark = ecn::decapsulated(inner, job.mark).ok_or(Drop::Congestion)?;
    if mark != inner {
        ecn::set(data, is_v4, mark);
    }
    if here.interface.clamp_mss {
        mss::clamp(data, is_v4, here.interface.mtu);
    }
    let link = packet.push(ethernet::HEADER as u16).map_err(|_| Drop::NoRoom)?;
    let ether_type = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    link.fill(0);
    link[12..].copy_from_slice(&ether_type.to_be_bytes());
    let meta = &mut *packet.meta;
    meta.port = job.port;
    meta.flags = Flags::TRACED.when(meta.flags.has(Flags::TRACED));
    Ok(Next::Inner)
}
