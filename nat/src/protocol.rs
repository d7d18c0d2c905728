//! What the protocols have in common: which packets open a connection, what others do to it, and where it stands.
//!
//! TCP and SCTP have a handshake and an end. Of every other protocol any packet opens, and an answer confirms.

use crate::leg::Mark;
use crate::table::Connection;
use crate::tcp::Segment;
use crate::{sctp, tcp};
use fastpath::wire::protocol;

/// What a packet of a known connection does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Same,
    /// Its direction has a new mark.
    Becomes(Mark),
    /// The connection was over and this packet opens another one of the same key (RFC 6191, RFC 9260 section 5.2).
    Reopens,
}

/// Where a connection stands, of any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not confirmed yet by both sides.
    Opening,
    /// Confirmed by both sides.
    Established,
    /// Both sides have said that they are done.
    Closing,
    /// One side has broken it off.
    Reset,
}

/// What the leg of a new connection's first packet starts with; `None` where the packet must not open one. `transport` is
/// the packet from its transport header on.
#[inline]
pub fn opens(protocol: u8, transport: &[u8]) -> Option<Mark> {
    match protocol {
        protocol::TCP => tcp::opens(&Segment::read(transport)?),
        protocol::SCTP => sctp::opens(&sctp::Packet::read(transport)?),
        _ => Some(Mark::default()),
    }
}

/// What a packet of a known connection does to it: of the leg it came by, `mine` is the mark, and `other` that of the
/// other leg. Later fragments have no transport header, and do nothing.
#[inline]
pub fn follow(protocol: u8, mine: Mark, other: impl FnOnce() -> Mark, transport: &[u8]) -> Outcome {
    let outcome = match protocol {
        protocol::TCP => Segment::read(transport).map(|segment| tcp::follow(mine, other, &segment)),
        protocol::SCTP => sctp::Packet::read(transport).map(|packet| sctp::follow(mine, other, &packet)),
        _ => None,
    };
    outcome.unwrap_or(Outcome::Same)
}

/// Where a connection stands. Protocols without a handshake are established by an answer.
pub fn phase(connection: &Connection<'_>) -> Phase {
    let [there, back] = connection.marks();
    match connection.protocol() {
        protocol::TCP => tcp::phase(there, back),
        protocol::SCTP => sctp::phase(there, back),
        _ if connection.is_answered() => Phase::Established,
        _ => Phase::Opening,
    }
}

/// Whether both sides have shown that they are there. Of TCP and SCTP that takes the whole handshake: a server answers
/// every SYN of a flood.
pub fn is_confirmed(connection: &Connection<'_>) -> bool {
    let [there, back] = connection.marks();
    match connection.protocol() {
        protocol::TCP => tcp::is_confirmed(there, back),
        protocol::SCTP => sctp::is_confirmed(there, back),
        _ => connection.is_answered(),
    }
}
