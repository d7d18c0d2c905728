//! One packet at a time, with a portable cipher: for keepalives, and to see how the parts go together.

use super::{Arrival, Ends, Lookup, Notice, Refused, Session};
use crate::handshake::noise;
use crate::message::{Message, PADDING, TAG, TRANSPORT, TRANSPORT_HEADER, TransportHeader, parse};
use zerocopy::IntoBytes;

/// A message with `packet` in it (empty: a keepalive), and a notice for control; `None` when the session has ended.
pub fn seal(session: &Session, packet: &[u8], now_ns: u64) -> Option<(Vec<u8>, Option<Notice>)> {
    let counter = session.take(1, now_ns)?.start;
    let key = session.send_key()?;
    let header = TransportHeader {
        kind: TRANSPORT.into(),
        receiver: session.remote().into(),
        counter: counter.into(),
    };
    let mut message = header.as_bytes().to_vec();
    message.extend_from_slice(packet);
    message.resize(TRANSPORT_HEADER + packet.len().next_multiple_of(PADDING), 0);
    let tag = noise::seal(&key, counter, &[], &mut message[TRANSPORT_HEADER..]);
    message.extend_from_slice(&tag);
    session.activity().count_sent(1, message.len() as u64);
    let notice = session.sent(now_ns, !packet.is_empty());
    Some((message, notice))
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// Not a transport message.
    #[error("not a transport message")]
    Malformed,
    /// There is no such session, or no more.
    #[error("there is no session with the packet's index")]
    NoSession,
    /// See [`Refused`].
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The tag is wrong.
    #[error("the packet is not authentic")]
    NotAuthentic,
}

/// What was in a message.
#[derive(Debug)]
pub struct Opened {
    /// The packet with its padding; empty for a keepalive. Its source still has to be one of the peer's addresses.
    pub packet: Vec<u8>,
    /// Who sent it.
    pub peer: crate::peer::PeerId,
    /// For control.
    pub notices: [Option<Notice>; 2],
}

/// Opens the message that came this way.
///
/// # Errors
/// [`Unopened`], and nothing has changed.
pub fn open(lookup: &mut Lookup, message: &[u8], ends: Ends, now_ns: u64) -> Result<Opened, Unopened> {
    let Ok(Message::Transport(header, sealed)) = parse(message) else {
        return Err(Unopened::Malformed);
    };
    let counter = header.counter.get();
    let session = lookup
        .session(header.receiver.get())
        .ok_or(Unopened::NoSession)?
        .clone();
    session.check(counter, now_ns)?;
    let key = session.receive_key().ok_or(Unopened::NoSession)?;
    let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Unopened::Malformed)?;
    let mut packet = text.to_vec();
    if !noise::open(&key, counter, &[], &mut packet, tag) {
        return Err(Unopened::NotAuthentic);
    }
    let arrival = Arrival {
        counter,
        data: !packet.is_empty(),
        ends,
    };
    let notices = session.received(&arrival, now_ns)?;
    session.activity().count_received(1, message.len() as u64);
    Ok(Opened {
        packet,
        peer: session.peer(),
        notices,
    })
}
