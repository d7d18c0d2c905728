//! An interface on the control side: handshakes, peers and timers. Bytes and time in, [`Action`]s and wake-ups out.

mod indices;

pub(crate) use indices::Indices;

use crate::cookie::{Checker, Limiter, Proof};
use crate::handshake::{Identity, Introduced, PeerKeys, WeakKey};
use crate::message::{self, CookieReply, Initiation, Message};
use crate::peer::{Context, Peer, PeerId};
use crate::session::{Ends, Notice, Outbound, Slots, Tables};
use crate::sync::Arc;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

/// Handshake messages that wait: with so many, senders have to prove their address first.
pub const BUSY_BACKLOG: usize = 256;
/// How long they have to go on doing so.
const BUSY_FOR_NS: u64 = 1_000_000_000;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, in nanoseconds from any start.
    pub ns: u64,
    /// Since 1970. May be set back and forth.
    pub wall: Duration,
}

/// Where keys come from.
pub trait Random: Send {
    /// Fills `bytes` with what nobody can foretell.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The operating system's random numbers.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("Linux has had getrandom(2), which does not fail, since 3.17");
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes as one UDP datagram.
    Send {
        /// This way; where it has no address of ours, control chooses one.
        ends: Ends,
        /// A whole message.
        bytes: Vec<u8>,
    },
    /// The peer has a new session: packets that wait can go.
    Established(PeerId),
    /// The peer does not answer, or has no endpoint: packets that wait are to be dropped.
    Unreachable(PeerId),
}

pub(crate) type Actions = VecDeque<Action>;

/// Why a handshake message was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither type nor length fit.
    #[error("not a WireGuard message: its type and length do not fit")]
    Malformed,
    /// A packet, which is for workers.
    #[error("a transport message, which has no business here")]
    Transport,
    /// Made without knowing our public key.
    #[error("its first MAC is wrong: it is meant for another key")]
    WrongMac,
    /// We are busy; a cookie was sent.
    #[error("under load: a cookie was sent")]
    Cookie,
    /// We are busy, and there were many from this source.
    #[error(
        "under load: more than {} handshakes a second from one source",
        crate::cookie::PER_SECOND
    )]
    TooMany,
    /// Whoever sent it is no peer.
    #[error("its sender is not a peer")]
    Stranger,
    /// It does not decrypt.
    #[error("it is not authentic")]
    NotAuthentic,
    /// Its timestamp is not later than that of an earlier one.
    #[error("its timestamp is not new")]
    Replayed,
    /// It follows another one of this peer too closely.
    #[error("it follows another one too closely")]
    TooSoon,
    /// It answers nothing that was asked.
    #[error("it answers nothing that was asked")]
    NotAsked,
    /// All indices are in use.
    #[error("there are no indices left")]
    Full,
}

/// Why a peer was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// See [`WeakKey`].
    #[error(transparent)]
    WeakKey(#[from] WeakKey),
    /// The interface's own key.
    #[error("the public key is the interface's own; give the peer's")]
    Own,
    /// There is one already.
    #[error("there is a peer with this public key already; change that one, or remove it first")]
    Twice,
    /// Too many peers.
    #[error("there are as many peers as the interface was made for; make it for more")]
    Full,
}

/// A peer to be.
pub struct PeerConfig {
    /// What it is known by.
    pub public_key: [u8; 32],
    /// Zeros if there is none.
    pub preshared_key: Zeroizing<[u8; 32]>,
    /// Where to send to, until it shows up elsewhere.
    pub endpoint: Option<SocketAddr>,
    /// How often to send at least, in seconds; 0 for off.
    pub persistent_keepalive_s: u16,
}

/// What there is to say of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is known by.
    pub public_key: [u8; 32],
    /// Where we send to.
    pub endpoint: Option<SocketAddr>,
    /// When the last session came into use, since 1970.
    pub last_handshake: Option<Duration>,
    /// Messages of all kinds, keepalives and handshakes included.
    pub sent_packets: u64,
    /// On the wire, in bytes.
    pub sent_bytes: u64,
    /// As `sent_packets`.
    pub received_packets: u64,
    /// On the wire, in bytes.
    pub received_bytes: u64,
}

/// An interface: one private key, and peers.
pub struct Tunnel {
    identity: Identity,
    peers: Vec<Option<Box<Peer>>>,
    by_key: HashMap<[u8; 32], PeerId>,
    indices: Indices,
    outbounds: Arc<Slots<Outbound>>,
    random: Box<dyn Random>,
    checker: Checker,
    limiter: Limiter,
    busy_until_ns: u64,
    wakes: BTreeSet<(u64, PeerId)>,
    actions: Actions,
}

impl Tunnel {
    /// For at most `peers_max` peers (2^24). Tables for all of them are made now, about 300 bytes a peer.
    pub fn new(private_key: &[u8; 32], peers_max: usize, random: Box<dyn Random>) -> Self {
        let peers_max = peers_max.clamp(1, 1 << 24);
        Self {
            identity: Identity::new(private_key),
            peers: (0..peers_max).map(|_| None).collect(),
            by_key: HashMap::new(),
            indices: Indices::new(peers_max),
            outbounds: Arc::new(Slots::new(peers_max)),
            random,
            checker: Checker::new(),
            limiter: Limiter::default(),
            busy_until_ns: 0,
            wakes: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// What peers know us by.
    pub fn public_key(&self) -> &[u8; 32] {
        self.identity.public()
    }

    /// What workers look up in.
    pub fn tables(&self) -> Tables {
        Tables {
            sessions: self.indices.sessions.clone(),
            peers: self.outbounds.clone(),
        }
    }

    /// Adds a peer.
    ///
    /// # Errors
    /// [`NotAdded`], and nothing has changed.
    pub fn add(&mut self, config: &PeerConfig, now: Now) -> Result<PeerId, NotAdded> {
        if config.public_key == *self.identity.public() {
            return Err(NotAdded::Own);
        }
        if self.by_key.contains_key(&config.public_key) {
            return Err(NotAdded::Twice);
        }
        let keys = PeerKeys::new(&self.identity, config.public_key, &config.preshared_key)?;
        let place = self.peers.iter().position(Option::is_none).ok_or(NotAdded::Full)?;
        let id = PeerId(place as u32);
        self.peers[place] = Some(Box::new(Peer::new(id, keys, config.endpoint.map(Ends::to))));
        self.by_key.insert(config.public_key, id);
        self.with(id, now, |peer, context| peer.publish(context));
        self.set_persistent_keepalive(id, config.persistent_keepalive_s, now);
        Ok(id)
    }

    /// Removes a peer, and wipes its keys.
    pub fn remove(&mut self, id: PeerId, now: Now) {
        self.with(id, now, |peer, context| peer.erase(context));
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.by_key.remove(peer.keys.public());
        self.outbounds.set(id.0 as usize, None);
        peer.wake_ns.map(|at| self.wakes.remove(&(at, id)));
    }

    /// Another preshared key, from the next handshake on.
    pub fn set_preshared_key(&mut self, id: PeerId, key: &[u8; 32], now: Now) {
        self.with(id, now, |peer, _| peer.keys.set_psk(key));
    }

    /// Another endpoint, in place. Without an address of ours the one used so far stays, if it is of the family.
    pub fn set_endpoint(&mut self, id: PeerId, ends: Ends, now: Now) {
        self.with(id, now, |peer, _| {
            let fits = |local: &IpAddr| local.is_ipv4() == ends.remote.is_ipv4();
            peer.activity
                .way()
                .change(|used| Some(ends.from(used.and_then(|used| used.local).filter(fits))));
        });
    }

    /// Has `choose` say, of the way to each peer, which address of ours it begins at: addresses come and go.
    pub fn choose_sources(&mut self, mut choose: impl FnMut(Ends) -> Option<IpAddr>, now: Now) {
        for place in 0..self.peers.len() as u32 {
            self.with(PeerId(place), now, |peer, _| {
                peer.activity.way().change(|ends| {
                    ends.map(|ends| Ends {
                        local: choose(ends),
                        ..ends
                    })
                });
            });
        }
    }

    /// How often to send at least; 0 for off. The first time is now.
    pub fn set_persistent_keepalive(&mut self, id: PeerId, every_s: u16, now: Now) {
        self.with(id, now, |peer, context| {
            peer.timers.set_persistent(u64::from(every_s) * 1_000_000_000, now.ns);
            if every_s > 0 {
                peer.keep_alive(context);
            }
        });
    }

    /// What there is to say of a peer.
    pub fn status(&self, id: PeerId) -> Option<Status> {
        let peer = self.peers.get(id.0 as usize)?.as_ref()?;
        let (sent_packets, sent_bytes) = peer.activity.sent_total();
        let (received_packets, received_bytes) = peer.activity.received_total();
        Some(Status {
            public_key: *peer.keys.public(),
            endpoint: peer.activity.way().get().map(|ends| ends.remote),
            last_handshake: peer.keyed_at,
            sent_packets,
            sent_bytes,
            received_packets,
            received_bytes,
        })
    }

    /// Takes a handshake message that came this way; `backlog` more are waiting.
    ///
    /// # Errors
    /// [`Refusal`], and nothing has changed.
    pub fn receive(&mut self, bytes: &[u8], ends: Ends, backlog: usize, now: Now) -> Result<(), Refusal> {
        match message::parse(bytes).map_err(|_| Refusal::Malformed)? {
            Message::Transport(..) => Err(Refusal::Transport),
            Message::CookieReply(reply) => {
                let id = self.indices.owner(reply.receiver.get()).ok_or(Refusal::NotAsked)?;
                self.with(id, now, |peer, _| peer.take_cookie(reply, now.ns))
                    .unwrap_or(Err(Refusal::NotAsked))
            }
            Message::Initiation(message) => {
                self.guard(bytes, ends, backlog, now)?;
                self.answer(message, ends, now)
            }
            Message::Response(message) => {
                self.guard(bytes, ends, backlog, now)?;
                let id = self.indices.owner(message.receiver.get()).ok_or(Refusal::NotAsked)?;
                self.with(id, now, |peer, context| peer.finish(message, ends, context))
                    .unwrap_or(Err(Refusal::NotAsked))
            }
        }
    }

    /// Takes what a worker saw.
    pub fn notice(&mut self, notice: Notice, now: Now) {
        match notice {
            Notice::Wanted(id) => self.with(id, now, |peer, context| peer.want(context)),
            Notice::Confirmed(local) => self
                .indices
                .owner(local)
                .and_then(|id| self.with(id, now, |peer, context| peer.confirm(local, context))),
        };
    }

    /// When to [`wake`](Self::wake) it; nothing is to be done before.
    pub fn next_wake(&self) -> Option<u64> {
        self.wakes.first().map(|&(at, _)| at)
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Now) {
        // Each peer once: one whose next deadline has come meanwhile is woken again at once.
        let due: Vec<PeerId> = self
            .wakes
            .iter()
            .take_while(|(at, _)| *at <= now.ns)
            .map(|&(_, id)| id)
            .collect();
        for id in due {
            self.with(id, now, |peer, context| peer.wake(context));
        }
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Lets pass who knows our key and, when we are busy, owns the address and does not come too often.
    fn guard(&mut self, bytes: &[u8], ends: Ends, backlog: usize, now: Now) -> Result<(), Refusal> {
        let source = ends.remote;
        if backlog >= BUSY_BACKLOG {
            self.busy_until_ns = now.ns.saturating_add(BUSY_FOR_NS);
        }
        match self.checker.check(&self.identity, source, bytes, now.ns) {
            Proof::None => Err(Refusal::WrongMac),
            _ if now.ns >= self.busy_until_ns => Ok(()),
            Proof::Address if self.limiter.allow(source.ip(), now.ns) => Ok(()),
            Proof::Address => Err(Refusal::TooMany),
            Proof::Key => {
                let (mut secret, mut nonce) = (Zeroizing::new([0; 32]), [0; 24]);
                self.random.fill(&mut *secret);
                self.random.fill(&mut nonce);
                let reply = self
                    .checker
                    .reply(&self.identity, (source, bytes), (&secret, nonce), now.ns);
                let send = |reply: CookieReply| Action::Send {
                    ends,
                    bytes: reply.as_bytes().to_vec(),
                };
                self.actions.extend(reply.map(send));
                Err(Refusal::Cookie)
            }
        }
    }

    fn answer(&mut self, message: &Initiation, ends: Ends, now: Now) -> Result<(), Refusal> {
        let introduced = Introduced::new(&self.identity, message).ok_or(Refusal::NotAuthentic)?;
        let id = *self.by_key.get(introduced.public()).ok_or(Refusal::Stranger)?;
        self.with(id, now, |peer, context| {
            let proven = introduced.prove(&peer.keys, message).ok_or(Refusal::NotAuthentic)?;
            peer.answer(proven, ends, context)
        })
        .unwrap_or(Err(Refusal::Stranger))
    }

    /// Does something with a peer, and then plans its next wake-up.
    fn with<R>(&mut self, id: PeerId, now: Now, work: impl FnOnce(&mut Peer, &mut Context) -> R) -> Option<R> {
        let peer = self.peers.get_mut(id.0 as usize)?.as_mut()?;
        let mut context = Context {
            now,
            identity: &self.identity,
            random: &mut *self.random,
            indices: &mut self.indices,
            outbounds: &self.outbounds,
            actions: &mut self.actions,
        };
        let result = work(peer, &mut context);
        let next = peer.next_wake(now.ns);
        if next != peer.wake_ns {
            let last = std::mem::replace(&mut peer.wake_ns, next);
            last.map(|at| self.wakes.remove(&(at, id)));
            next.map(|at| self.wakes.insert((at, id)));
        }
        Some(result)
    }
}
