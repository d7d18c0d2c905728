//! Writes down what was decided: a new connection goes into the table, with a source of ours where a rule says so; a stale
//! verdict is renewed.

use crate::journal::Pen;
use crate::key::Key;
use crate::leg::{LegId, Mark, NONE, Start, Verdict};
use crate::protocol::opens;
use crate::snat::{Connecting, Pool, Rules};
use crate::table::{New, Refused, Writer};
use crate::tcp;
use crate::time::Tick;
use crate::tracking::{DIRECT, Decided, MASQUERADE, MOVED, Tracking, UNDECIDED, is_icmp_error, is_unchanged, way_of};
use fastpath::batch::Batch;
use fastpath::forwarding::{Forwarding, LinkState};
use fastpath::interfaces::Interfaces;
use fastpath::labels;
use fastpath::meta::{Endpoint, Flags, Meta, PortId, VrfId};
use fastpath::node::{Node, Turn};
use fastpath::packet::Packet;
use fastpath::publish::Reader;
use fastpath::trace::Seen;
use fastpath::wire::protocol;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

labels! {
    /// Where packets go.
    pub enum Next { Rewrite = "rewrite" }
    /// Why packets are dropped.
    pub enum Drop {
        Full = "flow-table-full": "The flow table is full of established connections; give it more with --flows.",
        Crowded = "flow-table-crowded": "Too many connections share this one's place in the flow table.",
        PortsExhausted = "ports-exhausted": "No port is free at the address that this connection is to come from, towards where it goes.",
        Ambiguous = "ambiguous-answers": "Its answers could not be told from those of another connection.",
        NoConnection = "no-connection": "It does not open a connection.",
        NoAddress = "no-address": "The port it leaves by has no address to come from.",
        NotDirect = "no-direct-way": "Its service answers clients directly, and no tunnel leads to the node of its backend any more.",
        Leaving = "connection-leaving": "Its connection is to be made anew, and too many others wait to be forgotten.",
    }
}

/// Connections made together: the memory of each is asked for while those before it are made. Of 16, 32, 64 and 256 this
/// is the best.
const GROUP: usize = 32;

/// The node.
pub struct Admit {
    tracking: Tracking,
    decided: Decided,
    writer: Writer,
    pen: Pen,
    rules: Reader<Rules>,
    interfaces: Reader<Interfaces>,
    forwarding: Arc<Forwarding>,
    group: Group,
}

/// Connections about to be made.
struct Group {
    /// Which packets open them.
    places: Vec<usize>,
    news: Vec<New>,
    made: Vec<Result<LegId, Refused>>,
}

impl Admit {
    /// Decisions are of the generation that `decided` tells.
    pub fn new(
        tracking: Tracking,
        decided: Decided,
        rules: Reader<Rules>,
        interfaces: Reader<Interfaces>,
        forwarding: Arc<Forwarding>,
    ) -> Self {
        let pen = tracking.journal.pen();
        Self {
            tracking,
            decided,
            writer: Writer::new(),
            pen,
            rules,
            interfaces,
            forwarding,
            group: Group {
                places: Vec::with_capacity(GROUP),
                news: Vec::with_capacity(GROUP),
                made: Vec::with_capacity(GROUP),
            },
        }
    }
}

impl Node for Admit {
    const NAME: &'static str = "admit";
    type Next = Next;
    type Drop = Drop;

    fn process(&mut self, turn: &Turn, batch: &mut Batch<'_, Self>) {
        let now = Tick::from_ns(turn.now_ns);
        self.pen.reclaim(&self.tracking.table, &mut self.writer, now);
        let mut moment = Moment {
            tracking: &self.tracking,
            writer: &mut self.writer,
            rules: self.rules.refresh(),
            interfaces: self.interfaces.refresh(),
            forwarding: &self.forwarding,
            generation: self.decided.get(),
            pen: &self.pen,
            now,
        };
        for from in (0..batch.len()).step_by(GROUP) {
            let places = from..(from + GROUP).min(batch.len());
            moment.admit(&mut self.group, batch, places);
        }
    }

    fn describe(seen: &Seen) -> String {
        format!("leg {}", seen.meta.flow)
    }
}

/// What is the same for all packets of a vector.
struct Moment<'a> {
    tracking: &'a Tracking,
    writer: &'a mut Writer,
    pen: &'a Pen,
    rules: &'a Rules,
    interfaces: &'a Interfaces,
    forwarding: &'a Forwarding,
    generation: u32,
    now: Tick,
}

impl<'a> Moment<'a> {
    fn admit(&mut self, group: &mut Group, batch: &mut Batch<'_, Admit>, places: Range<usize>) {
        let Group {
            places: opened,
            news,
            made,
        } = group;
        opened.clear();
        news.clear();
        made.clear();
        for place in places {
            match self.plan(&mut batch.packet(place)) {
                Ok(Some(new)) => {
                    opened.push(place);
                    news.push(new);
                }
                Ok(None) => batch.decide(place, Ok(Next::Rewrite)),
                Err(reason) => batch.decide(place, Err(reason)),
            }
        }
        let table = &*self.tracking.table;
        table.insert_batch(self.writer, news, self.now, |_, fate| made.push(fate));
        for ((place, new), made) in opened.iter().zip(news).zip(made) {
            let fate = self.begin(&mut batch.packet(*place), new, *made);
            batch.decide(*place, fate);
        }
    }

    /// The connection that a packet opens; none where it belongs to one.
    #[inline(always)]
    fn plan(&mut self, packet: &mut Packet<'_>) -> Result<Option<New>, Drop> {
        if packet.meta.flow != NONE {
            if packet.meta.reserved & MOVED == 0 {
                return self.renew(packet.meta).map(|()| None);
            }
            self.end(packet.meta)?;
        }
        self.opening(packet).map(Some)
    }

    fn renew(&self, meta: &mut Meta) -> Result<(), Drop> {
        let leg = self.tracking.table.leg(meta.flow);
        if is_unchanged(leg.verdict().adjacency) {
            if !self.is_wrapped(meta) {
                return Err(Drop::NotDirect);
            }
            meta.reserved = DIRECT;
        }
        // An error goes where its connection does, and says nothing about it.
        if !is_icmp_error(meta) {
            leg.renew(Verdict {
                adjacency: way_of(meta),
                generation: self.generation,
            });
        }
        Ok(())
    }

    /// Whether a packet goes to a neighbour behind a tunnel.
    fn is_wrapped(&self, meta: &Meta) -> bool {
        let neighbour = self.forwarding.adjacency(meta.adjacency);
        neighbour.is_some_and(|neighbour| neighbour.state() == LinkState::Wrapped)
    }

    /// Ends a connection that is to be made anew.
    fn end(&mut self, meta: &mut Meta) -> Result<(), Drop> {
        if !self.tracking.table.remove(self.writer, meta.flow) {
            return Err(Drop::Leaving);
        }
        meta.flow = NONE;
        Ok(())
    }

    /// With the first source that is to be tried.
    #[inline(always)]
    fn opening(&self, packet: &mut Packet<'_>) -> Result<New, Drop> {
        if packet.meta.reserved & DIRECT != 0 {
            // Where no tunnel leads, the answers are to come back by us.
            let other = if self.is_wrapped(packet.meta) {
                MASQUERADE
            } else {
                DIRECT
            };
            packet.meta.reserved &= !other;
        }
        let meta = *packet.meta;
        let offset = usize::from(meta.transport_offset);
        let bytes = packet.network();
        let mark = opens(meta.protocol, bytes.get(offset..).unwrap_or_default()).ok_or(Drop::NoConnection)?;
        let mut came = meta;
        came.target = written_target(bytes, &meta);
        let there = Key::of(&came).ok_or(Drop::NoConnection)?;
        let source = match self.pool(&meta)? {
            None => meta.source,
            Some(pool) => self.sources(&meta, pool).next().ok_or(Drop::PortsExhausted)?,
        };
        let starts = [
            Start {
                adjacency: way_of(&meta),
                generation: self.generation,
                mark,
            },
            Start {
                generation: UNDECIDED,
                mark: match meta.protocol {
                    protocol::TCP if meta.reserved & DIRECT != 0 => tcp::UNHEARD,
                    _ => Mark::default(),
                },
                ..Start::default()
            },
        ];
        Ok(New {
            keys: [there, self.answers(&meta, source)?],
            starts,
        })
    }

    #[inline(always)]
    fn begin(&mut self, packet: &mut Packet<'_>, new: &New, made: Result<LegId, Refused>) -> Result<Next, Drop> {
        let leg = match self.made(made)? {
            Some(leg) => leg,
            None => self.other_source(packet.meta, new)?,
        };
        let length = packet.network().len() as u32;
        self.tracking.table.leg(leg).count(length, self.now);
        packet.meta.flow = leg;
        Ok(Next::Rewrite)
    }

    /// The leg, or none if the answers to this source belong to another connection.
    #[inline(always)]
    fn made(&self, made: Result<LegId, Refused>) -> Result<Option<LegId>, Drop> {
        match made {
            Ok(leg) => {
                self.pen.begins(&self.tracking.table.connection(leg), self.now);
                Ok(Some(leg))
            }
            // One of this vector was faster, or one of another worker.
            Err(Refused::Exists(leg)) => Ok(Some(leg)),
            Err(Refused::ReverseTaken(_)) => Ok(None),
            Err(Refused::Full) => Err(Drop::Full),
            Err(Refused::Crowded) => Err(Drop::Crowded),
        }
    }

    /// Makes a connection with the first of the other sources that leaves its answers unmistakable.
    #[cold]
    fn other_source(&mut self, meta: &Meta, new: &New) -> Result<LegId, Drop> {
        let pool = self.pool(meta)?.ok_or(Drop::Ambiguous)?;
        for source in self.sources(meta, pool).skip(1) {
            let new = New {
                keys: [new.keys[0], self.answers(meta, source)?],
                ..*new
            };
            let made = self.tracking.table.insert(self.writer, &new, self.now);
            if let Some(leg) = self.made(made)? {
                return Ok(leg);
            }
        }
        Err(Drop::PortsExhausted)
    }

    /// The key of the answers to a source.
    #[inline(always)]
    fn answers(&self, meta: &Meta, source: Endpoint) -> Result<Key, Drop> {
        let mut translated = *meta;
        (translated.source, translated.vrf) = (source, self.answers_vrf(meta));
        Ok(Key::of(&translated).ok_or(Drop::NoConnection)?.reversed())
    }

    /// The sources to try in a pool, in their order.
    #[inline(always)]
    fn sources(&self, meta: &Meta, pool: Pool) -> impl Iterator<Item = Endpoint> + use<'a> {
        let (interfaces, vrf, protocol) = (self.interfaces, self.answers_vrf(meta), meta.protocol);
        // A tunnel of ours may speak with that very port to the same end.
        let listens = move |port| protocol == protocol::UDP && interfaces.listener(vrf, port).is_some();
        let (pool, own) = if has_ports(protocol) {
            (pool, meta.source.port)
        } else {
            (pool.portless(), 0)
        };
        let ports = pool.candidates(own, meta.hash).filter(move |port| !listens(*port));
        ports.map(move |port| endpoint(pool.address, port))
    }

    /// Where the source is to be taken from; none where it stays.
    fn pool(&self, meta: &Meta) -> Result<Option<Pool>, Drop> {
        let masquerade = meta.reserved & MASQUERADE != 0;
        if meta.reserved & DIRECT != 0 || self.rules.is_empty() && !masquerade {
            return Ok(None);
        }
        let Some(out_port) = self.out_port(meta) else {
            return Ok(None);
        };
        let (source, target) = (meta.source.ip(), meta.target.ip());
        let fixed = self.rules.fixed.source(meta.vrf, source, target);
        if let Some(address) = fixed.filter(|_| !masquerade || source == target) {
            return Ok(Some(Pool::alone(address)));
        }
        let own = || self.interfaces.source_for(out_port, self.answers_vrf(meta), target);
        let pool = if masquerade {
            own().map(Pool::whole)
        } else {
            let connecting = Connecting {
                vrf: meta.vrf,
                source,
                target,
                out_port,
            };
            match self.rules.find(&connecting) {
                Some(rule) => rule.pool(source, own),
                None => return Ok(None),
            }
        };
        let pool = pool.ok_or(Drop::NoAddress)?;
        let shared = self
            .interfaces
            .get(out_port)
            .is_some_and(|port| port.shared && port.has(pool.address));
        let ours = shared.then(|| pool.shared(is_echo(meta.protocol)));
        Ok(Some(ours.unwrap_or(pool)))
    }

    /// The table of routes that the answers come in by: that of the port where the packet leaves.
    fn answers_vrf(&self, meta: &Meta) -> VrfId {
        let out_port = self.out_port(meta).and_then(|port| self.interfaces.get(port));
        out_port.map_or(meta.vrf, |interface| interface.vrf)
    }

    /// Where a packet leaves; none if it is for us.
    fn out_port(&self, meta: &Meta) -> Option<PortId> {
        match self.forwarding.adjacency(meta.adjacency) {
            Some(adjacency) => Some(adjacency.port),
            None => (meta.adjacency == fastpath::forwarding::TUNNEL).then_some(meta.egress),
        }
    }
}

fn is_echo(transport: u8) -> bool {
    matches!(transport, protocol::ICMP | protocol::ICMPV6)
}

fn has_ports(transport: u8) -> bool {
    matches!(
        transport,
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::ICMP | protocol::ICMPV6
    )
}

fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    match address {
        IpAddr::V4(address) => Endpoint::v4(address.octets(), port),
        IpAddr::V6(address) => Endpoint {
            address: address.octets(),
            port,
        },
    }
}

/// Where the packet's bytes say that it goes. Its port, or what stands for that, is where `parse` found it.
fn written_target(network: &[u8], meta: &Meta) -> Endpoint {
    let is_v4 = meta.flags.has(Flags::IPV4);
    let offset = usize::from(meta.transport_offset);
    let port = match meta.protocol {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP => network
            .get(offset + 2..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |port| u16::from_be_bytes(*port)),
        _ => meta.target.port,
    };
    let v4 = || Some(Endpoint::v4(*network.get(16..)?.first_chunk()?, port));
    let v6 = || {
        let address = *network.get(24..)?.first_chunk()?;
        Some(Endpoint { address, port })
    };
    // `parse` has seen a whole IP header.
    if is_v4 { v4() } else { v6() }.unwrap_or(meta.target)
}
