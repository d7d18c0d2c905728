//! What workers need to encrypt and decrypt: sessions, and where they find them.
//!
//! To send to a peer, a worker looks up its [`Outbound`], takes numbers ([`Session::take`]) and the key, encrypts, and
//! says what it sent ([`Session::sent`]). To receive, it looks the session up by the index in the packet, drops what
//! [`Session::check`] refuses, decrypts, and only then asks [`Session::received`] whether the packet may go on. Both
//! return [`Notice`]s, which go to [`Tunnel::notice`](crate::tunnel::Tunnel::notice). [`single`] does it for one packet.

mod activity;
mod counter;
mod secret;
pub mod single;
mod slots;
mod triple;
mod way;

pub use activity::Activity;
pub use counter::Counter;
pub use secret::Secret;
pub use slots::{Slots, View};
pub(crate) use triple::Confirmed;
pub use triple::Triple;
pub use way::Way;

use crate::handshake::Keys;
use crate::peer::PeerId;
use crate::replay::{Replay, Window};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::timers::*;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use zeroize::Zeroizing;

/// Keys of 180 seconds at most, shared by all workers.
pub struct Session {
    peer: PeerId,
    local: u32,
    remote: u32,
    initiator: bool,
    born_ns: u64,
    send: Secret,
    receive: Secret,
    counter: Counter,
    window: Window,
    /// Control knows that the peer has the keys.
    confirmed: AtomicBool,
    /// A worker has seen that the peer has the keys. Before that, nobody sends under them.
    proven: AtomicBool,
    activity: Arc<Activity>,
}

/// Both ends of the way to a peer, as the network between sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where the peer is.
    pub remote: SocketAddr,
    /// The address of ours that its last authentic message came to, and from which we answer. None before there was
    /// one, unless control has chosen an address.
    pub local: Option<IpAddr>,
}

impl Ends {
    /// The way to an endpoint that was written down.
    pub fn to(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }

    /// The same, from `local` unless an address is known already.
    pub fn from(self, local: Option<IpAddr>) -> Self {
        Self {
            local: self.local.or(local),
            ..self
        }
    }
}

/// How to reach a peer.
pub struct Outbound {
    /// In use; none until a handshake is done.
    pub(crate) current: Option<Arc<Session>>,
    /// What we answered the peer's latest question with, until control has heard that it uses it.
    pub(crate) next: Option<Arc<Session>>,
    /// Whether it was asked for a session in vain, or there is nowhere to ask: its packets are not worth keeping.
    pub unreachable: bool,
    /// Of this peer; where its packets go is there, too. With a session there is always a way.
    pub activity: Arc<Activity>,
}

impl Outbound {
    /// Where its packets go.
    #[inline]
    pub fn ends(&self) -> Option<Ends> {
        self.activity.way().get()
    }

    /// The session to send under. A peer that starts anew has forgotten the one in use: the next one serves from its first
    /// packet on, before control has heard.
    #[inline]
    pub fn session(&self) -> Option<&Arc<Session>> {
        let next = self.next.as_ref().filter(|next| next.proven.load(Relaxed));
        next.or(self.current.as_ref())
    }
}

/// What control has to know of what a worker saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A session is wanted, for the first time or because the old one is used up.
    Wanted(PeerId),
    /// The first packet under the new session with this index of ours arrived.
    Confirmed(u32),
}

/// An authentic packet, to be told to its session.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// From its header.
    pub counter: u64,
    /// Whether it carries an IP packet, that is, whether it is not empty.
    pub data: bool,
    /// The way it came.
    pub ends: Ends,
}

/// Who a session is between.
pub(crate) struct Parties {
    pub peer: PeerId,
    pub local: u32,
    pub remote: u32,
    pub initiator: bool,
}

impl Session {
    pub(crate) fn new(parties: Parties, keys: &Keys, born_ns: u64, activity: Arc<Activity>) -> Self {
        Self {
            peer: parties.peer,
            local: parties.local,
            remote: parties.remote,
            initiator: parties.initiator,
            born_ns,
            send: Secret::new(&keys.send),
            receive: Secret::new(&keys.receive),
            counter: Counter::new(0),
            window: Window::new(),
            confirmed: AtomicBool::new(parties.initiator),
            proven: AtomicBool::new(parties.initiator),
            activity,
        }
    }

    /// Whose session it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Our index: what stands in packets to us.
    pub fn local(&self) -> u32 {
        self.local
    }

    /// The peer's index: what stands in packets we send.
    pub fn remote(&self) -> u32 {
        self.remote
    }

    /// When it was agreed on.
    pub fn born_ns(&self) -> u64 {
        self.born_ns
    }

    /// Packets sent.
    pub fn packets_sent(&self) -> u64 {
        self.counter.taken()
    }

    /// Stamps and counts of its peer.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Whether packets may still be sent and received: younger than REJECT_AFTER_TIME.
    #[inline]
    pub fn alive(&self, now_ns: u64) -> bool {
        self.age(now_ns) < REJECT_AFTER_TIME_NS
    }

    /// Has the cache fetch what sending will need, while there is other work to do.
    #[inline(always)]
    pub fn warm(&self) {
        std::hint::black_box(self.send.is_erased());
        self.activity.warm();
    }

    /// Whether [`take`](Self::take) would give a number now.
    #[inline]
    pub fn has_numbers(&self, now_ns: u64) -> bool {
        self.alive(now_ns) && self.counter.taken() < REJECT_AFTER_MESSAGES
    }

    /// Numbers for `count` packets to send, one nonce each; `None` when the session is used up.
    #[inline]
    pub fn take(&self, count: u64, now_ns: u64) -> Option<Range<u64>> {
        self.alive(now_ns).then(|| self.counter.take(count)).flatten()
    }

    /// Key to encrypt with, until it is wiped.
    #[inline]
    pub fn send_key(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.send.read()
    }

    /// Key to decrypt with, until it is wiped.
    #[inline]
    pub fn receive_key(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.receive.read()
    }

    /// Something was sent under this session, an IP packet (`data`) or a keepalive.
    #[inline]
    pub fn sent(&self, now_ns: u64, data: bool) -> Option<Notice> {
        self.activity.sent(now_ns, data);
        let worn = self.counter.taken() > REKEY_AFTER_MESSAGES;
        let aged = self.initiator && self.age(now_ns) >= REKEY_AFTER_TIME_NS;
        self.want(worn || aged, now_ns)
    }

    /// Whether it is worth decrypting the packet with this number.
    ///
    /// # Errors
    /// As [`received`](Self::received) would say.
    #[inline]
    pub fn check(&self, counter: u64, now_ns: u64) -> Result<(), Refused> {
        if !self.alive(now_ns) {
            return Err(Refused::Expired);
        }
        Ok(self.window.check(counter)?)
    }

    /// An authentic packet came. `Ok` if it may go on: it does so once.
    ///
    /// # Errors
    /// [`Refused`]
    #[inline]
    pub fn received(&self, arrival: &Arrival, now_ns: u64) -> Result<[Option<Notice>; 2], Refused> {
        self.admit(arrival.counter, arrival.data, now_ns)?;
        if self.moved(arrival.ends) {
            self.activity.way().follow(arrival.ends);
        }
        Ok(self.notices(now_ns))
    }

    /// The first half of [`received`](Self::received), which every packet needs.
    ///
    /// # Errors
    /// [`Refused`]
    #[inline]
    pub fn admit(&self, counter: u64, data: bool, now_ns: u64) -> Result<(), Refused> {
        if !self.alive(now_ns) {
            return Err(Refused::Expired);
        }
        self.window.accept(counter)?;
        self.activity.received(now_ns, data);
        Ok(())
    }

    /// Whether a packet that came this way came another way than the one we send by. Once one is admitted,
    /// [`Way::follow`] is to be called.
    #[inline]
    pub fn moved(&self, ends: Ends) -> bool {
        self.activity.way().get() != Some(ends)
    }

    /// Whether [`notices`](Self::notices) are worth asking for.
    #[inline]
    pub fn has_news(&self, now_ns: u64) -> bool {
        !self.confirmed.load(Relaxed) || self.ends_soon(now_ns)
    }

    /// The second half of [`received`](Self::received): what control has to know of an admitted packet.
    #[cold]
    pub fn notices(&self, now_ns: u64) -> [Option<Notice>; 2] {
        [self.want(self.ends_soon(now_ns), now_ns), self.news()]
    }

    /// In time for a handshake before the session ends, should we have nothing to send (6.2).
    fn ends_soon(&self, now_ns: u64) -> bool {
        let last_moment_ns = REJECT_AFTER_TIME_NS - KEEPALIVE_TIMEOUT_NS - REKEY_TIMEOUT_NS;
        self.initiator && self.age(now_ns) >= last_moment_ns
    }

    fn news(&self) -> Option<Notice> {
        if self.confirmed.load(Relaxed) {
            return None;
        }
        self.proven.store(true, Relaxed);
        // By every packet until control has heard: a full queue may have lost the first.
        Some(Notice::Confirmed(self.local))
    }

    fn want(&self, condition: bool, now_ns: u64) -> Option<Notice> {
        (condition && self.activity.ask(now_ns)).then_some(Notice::Wanted(self.peer))
    }

    fn age(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.born_ns)
    }

    /// Whether there is no need of another session soon.
    pub(crate) fn fresh(&self, now_ns: u64) -> bool {
        self.age(now_ns) < REKEY_AFTER_TIME_NS && self.counter.taken() <= REKEY_AFTER_MESSAGES
    }

    pub(crate) fn confirm(&self) {
        self.confirmed.store(true, Relaxed);
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    pub(crate) fn erase(&self) {
        self.send.erase();
        self.receive.erase();
    }

    #[cfg(test)]
    pub(crate) fn with_counter(mut self, first: u64) -> Self {
        self.counter = Counter::new(first);
        self
    }
}

/// Why an authentic packet may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session has ended.
    #[error("the session is older than 180 seconds")]
    Expired,
    /// See [`Replay`].
    #[error(transparent)]
    Replay(#[from] Replay),
}

/// The tables that control writes and workers read.
#[derive(Clone)]
pub struct Tables {
    pub(crate) sessions: Arc<Slots<Session>>,
    pub(crate) peers: Arc<Slots<Outbound>>,
}

/// One worker's view of both tables.
pub struct Lookup {
    sessions: View<Session>,
    peers: View<Outbound>,
}

impl Lookup {
    /// A view for one worker.
    pub fn new(tables: &Tables) -> Self {
        Self {
            sessions: View::new(tables.sessions.clone()),
            peers: View::new(tables.peers.clone()),
        }
    }

    /// The session with this index of ours.
    #[inline]
    pub fn session(&mut self, local: u32) -> Option<&Arc<Session>> {
        // The lower bits of an index are its place; the upper ones are random, so that old indices are told apart.
        let place = local as usize % self.sessions.capacity();
        self.sessions.get(place).filter(|session| session.local == local)
    }

    /// The session with this index of ours, as it was when last looked up.
    #[inline]
    pub fn kept_session(&self, local: u32) -> Option<&Arc<Session>> {
        let place = local as usize % self.sessions.capacity();
        self.sessions.kept(place).filter(|session| session.local == local)
    }

    /// How to reach a peer.
    #[inline]
    pub fn peer(&mut self, peer: PeerId) -> Option<&Arc<Outbound>> {
        self.peers.get(peer.0 as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn session(initiator: bool) -> Session {
        let keys = Keys {
            send: Zeroizing::new([1; 32]),
            receive: Zeroizing::new([2; 32]),
        };
        let parties = Parties {
            peer: PeerId(3),
            local: 7,
            remote: 8,
            initiator,
        };
        Session::new(parties, &keys, 0, Arc::default())
    }

    #[test]
    fn wants_another_when_it_is_old_or_worn() {
        let wanted = Some(Notice::Wanted(PeerId(3)));
        assert_eq!(session(true).sent(REKEY_AFTER_TIME_NS - 1, true), None);
        assert_eq!(session(true).sent(REKEY_AFTER_TIME_NS, true), wanted);
        assert_eq!(
            session(false).sent(REKEY_AFTER_TIME_NS, true),
            None,
            "the initiator does"
        );
        let worn = |first| session(false).with_counter(first);
        assert_eq!(worn(REKEY_AFTER_MESSAGES).sent(1, true), None);
        assert_eq!(worn(REKEY_AFTER_MESSAGES + 1).sent(1, true), wanted);
        assert!(worn(REJECT_AFTER_MESSAGES).take(1, 1).is_none());
    }

    #[test]
    fn ends_after_its_time() {
        let ends = Ends::to("192.0.2.1:1".parse().unwrap());
        let arrival = Arrival {
            counter: 0,
            data: true,
            ends,
        };
        let session = session(true);
        let last = REJECT_AFTER_TIME_NS - 1;
        assert!(session.take(1, last).is_some() && session.take(1, last + 1).is_none());
        assert_eq!(session.received(&arrival, last + 1), Err(Refused::Expired));
        let notices = session.received(&arrival, last).unwrap();
        assert_eq!(notices, [Some(Notice::Wanted(PeerId(3))), None]);
        assert_eq!(session.received(&arrival, last), Err(Refused::Replay(Replay::Seen)));
    }

    #[test]
    fn follows_where_packets_come_from() {
        let here = Ends {
            remote: "192.0.2.1:1".parse().unwrap(),
            local: Some("192.0.2.9".parse().unwrap()),
        };
        let there = Ends {
            local: Some("192.0.2.8".parse().unwrap()),
            ..here
        };
        let arrival = |counter, ends| Arrival {
            counter,
            data: false,
            ends,
        };
        let session = session(false);
        assert!(session.moved(here));
        let confirmed = Some(Notice::Confirmed(7));
        assert_eq!(session.received(&arrival(0, here), 1), Ok([None, confirmed]));
        assert!(!session.moved(here) && session.moved(there));
        session.confirm();
        assert_eq!(session.received(&arrival(1, there), 1), Ok([None, None]));
        assert_eq!(session.activity().way().get(), Some(there));
        // What was heard already moves nobody.
        assert!(session.received(&arrival(0, here), 1).is_err());
        assert_eq!(session.activity().way().get(), Some(there));
    }
}
