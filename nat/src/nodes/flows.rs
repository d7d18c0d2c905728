//! Finds the connection of each packet, a vector at a time.

use crate::journal::Pen;
use crate::key::Key;
use crate::leg::{LegId, NONE};
use crate::protocol::{Outcome, follow, opens};
use crate::quote::Quote;
use crate::table::{Asker, Scratch, Table, Writer};
use crate::time::Tick;
use crate::tracking::{Decided, Tracking, follow_way, is_icmp_error};
use fastpath::batch::Batch;
use fastpath::labels;
use fastpath::meta::{Flags, Meta};
use fastpath::node::{Node, Turn};
use fastpath::packet::Packet;
use fastpath::trace::Seen;
use fastpath::vector::BATCH_MAX;
use fastpath::wire::{icmp, protocol};

labels! {
    /// Where packets go.
    pub enum Next {
        Known = "known",
        Decide = "decide",
        Fragment = "fragment",
        Untracked = "untracked",
        PathMtu = "path-mtu",
    }
    /// Why packets are dropped.
    pub enum Drop {
        NoConnection = "no-connection": "It belongs to no connection, and does not open one: TCP or SCTP from mid-stream.",
        Unrelated = "unrelated-error": "An ICMP error about a packet that belongs to no connection.",
        Fragment = "fragment-unknown": "A fragment behind the first of a datagram that made no connection.",
        Leaving = "connection-leaving": "Its connection has ended, and too many others wait to be forgotten.",
    }
}

/// The node.
pub struct Flows {
    tracking: Tracking,
    decided: Decided,
    writer: Writer,
    pen: Pen,
    scratch: Box<Scratch>,
    keys: Box<[Key; BATCH_MAX]>,
}

impl Flows {
    /// Tells by `decided` what generation is current.
    pub fn new(tracking: Tracking, decided: Decided) -> Self {
        let pen = tracking.journal.pen();
        Self {
            tracking,
            decided,
            writer: Writer::new(),
            pen,
            scratch: Box::default(),
            keys: Box::new([Key::default(); BATCH_MAX]),
        }
    }
}

impl Node for Flows {
    const NAME: &'static str = "flows";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let generation = self.tracking.generation.current();
        self.decided.set(generation);
        let table = &*self.tracking.table;
        self.pen.reclaim(table, &mut self.writer, Tick::from_ns(turn.now_ns));
        let now = Moment {
            table,
            generation,
            now: Tick::from_ns(turn.now_ns),
        };
        let (count, keys, writer) = (batch.len(), &mut self.keys, &mut self.writer);
        let asking = Asking {
            now,
            batch,
            keys,
            writer,
        };
        table.answer(&mut self.scratch, count, asking);
    }

    fn describe(seen: &Seen) -> String {
        match seen.meta.flow {
            NONE => "a new connection".to_owned(),
            leg => format!("leg {leg}"),
        }
    }
}

/// A vector whose connections are looked for.
struct Asking<'a, 'b> {
    now: Moment<'a>,
    batch: &'a mut Batch<'b, Flows>,
    keys: &'a mut [Key; BATCH_MAX],
    writer: &'a mut Writer,
}

impl Asker for Asking<'_, '_> {
    #[inline(always)]
    fn ask(&mut self, place: usize) {
        let packet = self.batch.packet(place);
        if is_usual(packet.meta) {
            self.keys[place] = Key::of_plain(packet.meta);
        } else {
            self.keys[place] = key_of(packet);
        }
    }

    #[inline(always)]
    fn key(&self, place: usize) -> &Key {
        &self.keys[place]
    }

    #[inline(always)]
    fn answer(&mut self, place: usize, leg: LegId) {
        let packet = self.batch.packet(place);
        let fate = match leg {
            NONE => self.now.unknown(packet),
            leg => self.now.known(self.writer, packet, leg),
        };
        self.batch.decide(place, fate);
    }
}

#[inline(always)]
fn is_usual(meta: &Meta) -> bool {
    meta.flags.has(Flags::TRACKED) && !meta.flags.has(Flags::FRAGMENT) && Key::is_plain(meta)
}

/// The key a packet is found by; one that nobody has where it has none.
#[inline(never)]
fn key_of(mut packet: Packet<'_>) -> Key {
    let meta = &*packet.meta;
    if !meta.flags.has(Flags::TRACKED) || meta.flags.has(Flags::FRAGMENT) {
        return Key::default();
    }
    Key::of(meta).unwrap_or_else(|| key_of_quote(&mut packet))
}

/// Of an error, the key of the packets that go the way it goes: against the one that it quotes.
#[cold]
fn key_of_quote(packet: &mut Packet<'_>) -> Key {
    let meta = *packet.meta;
    // Of an error in fragments, the later ones quote nothing that could be told from data.
    let is_whole = is_icmp_error(&meta) && !meta.flags.has(Flags::LATER_FRAGMENT);
    let quote = is_whole.then(|| Quote::read(packet.network(), &meta)).flatten();
    quote.map_or(Key::default(), |quote| quote.key(meta.vrf).reversed())
}

/// What is the same for all packets of a vector.
struct Moment<'a> {
    table: &'a Table,
    generation: u32,
    now: Tick,
}

impl Moment<'_> {
    #[inline(always)]
    fn known(&self, writer: &mut Writer, mut packet: Packet<'_>, leg: LegId) -> Result<Next, Drop> {
        let table = self.table;
        match packet.meta.protocol {
            protocol::TCP | protocol::SCTP => match self.followed(&mut packet, leg) {
                Outcome::Same => {}
                Outcome::Becomes(mark) => table.set_mark(leg, mark),
                Outcome::Reopens => return self.reopen(writer, packet.meta, leg),
            },
            _ if is_icmp_error(packet.meta) => return self.related(packet.meta, leg),
            _ => {}
        }
        let length = u32::from(packet.meta.length().saturating_sub(packet.meta.network_offset.into()));
        let verdict = table.leg(leg).count(length, self.now);
        packet.meta.flow = leg;
        if verdict.generation == self.generation {
            follow_way(packet.meta, verdict.adjacency);
            return Ok(Next::Known);
        }
        self.stale(packet.meta, leg);
        Ok(Next::Decide)
    }

    /// What a packet does to a connection that has a handshake and an end.
    #[inline(always)]
    fn followed(&self, packet: &mut Packet<'_>, leg: LegId) -> Outcome {
        let (offset, protocol) = (usize::from(packet.meta.transport_offset), packet.meta.protocol);
        let is_later = packet.meta.flags.has(Flags::LATER_FRAGMENT);
        let header = packet.network().get(offset..).filter(|_| !is_later);
        let (mine, other) = (self.table.mark(leg), || self.table.mark(leg ^ 1));
        follow(protocol, mine, other, header.unwrap_or_default())
    }

    /// Has a packet of a known connection decided anew, towards where it really goes.
    #[cold]
    fn stale(&self, meta: &mut Meta, leg: LegId) {
        (meta.flow, meta.reserved) = (leg, 0);
        let other = self.table.leg(leg ^ 1).key();
        if leg & 1 == 1 {
            meta.flags.set(Flags::REPLY);
            // Back to the table where the connection was opened: its addresses may mean somebody else in this one.
            meta.vrf = other.vrf();
        }
        let target = other.source();
        meta.target.address = target.address;
        if !matches!(meta.protocol, 1 | 58) {
            meta.target.port = target.port;
        }
    }

    /// An error about a packet of a connection is not counted, and holds nothing open.
    #[cold]
    fn related(&self, meta: &mut Meta, leg: LegId) -> Result<Next, Drop> {
        let verdict = self.table.leg(leg).verdict();
        meta.flow = leg;
        if verdict.generation == self.generation {
            follow_way(meta, verdict.adjacency);
            return Ok(Next::Known);
        }
        self.stale(meta, leg);
        Ok(Next::Decide)
    }

    /// The connection was over, and this packet opens another with the same ends.
    #[cold]
    fn reopen(&self, writer: &mut Writer, meta: &mut Meta, leg: LegId) -> Result<Next, Drop> {
        if !self.table.remove(writer, leg) {
            return Err(Drop::Leaving);
        }
        (meta.flow, meta.reserved) = (NONE, 0);
        Ok(Next::Decide)
    }

    #[cold]
    fn unknown(&self, mut packet: Packet<'_>) -> Result<Next, Drop> {
        let meta = *packet.meta;
        (packet.meta.flow, packet.meta.reserved) = (NONE, 0);
        if !meta.flags.has(Flags::TRACKED) {
            return Ok(Next::Untracked);
        }
        if meta.flags.has(Flags::FRAGMENT) {
            return Ok(Next::Fragment);
        }
        if meta.flags.has(Flags::LATER_FRAGMENT) {
            return Err(Drop::Fragment);
        }
        if is_icmp_error(&meta) {
            let [kind, code] = meta.target.port.to_be_bytes();
            // It may be about a packet of ours, around one of a connection.
            let is_path_mtu = icmp::is_path_mtu(kind, code, meta.flags.has(Flags::IPV4));
            return if is_path_mtu {
                Ok(Next::PathMtu)
            } else {
                Err(Drop::Unrelated)
            };
        }
        let offset = usize::from(meta.transport_offset);
        let transport = packet.network().get(offset..).unwrap_or_default();
        match opens(meta.protocol, transport) {
            Some(_) => Ok(Next::Decide),
            None => Err(Drop::NoConnection),
        }
    }
}
