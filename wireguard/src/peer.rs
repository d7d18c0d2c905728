//! One peer on the control side: its keys, its handshake under way, its sessions and its deadlines.

use crate::cookie::Jar;
use crate::handshake::{Asked, Identity, Initiating, Keys, PeerKeys, Timestamp, initiate};
use crate::message::{CookieReply, Initiation, Response};
use crate::session::{Activity, Confirmed, Ends, Outbound, Parties, Session, Slots, Triple, single};
use crate::sync::Arc;
use crate::timers::*;
use crate::tunnel::{Action, Actions, Indices, Now, Random, Refusal};
use std::time::Duration;
use zerocopy::IntoBytes;

/// A peer's number: its place in the tables of workers, and its id in [`allowed_ips`](crate::allowed_ips). Below 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What a peer's methods need from its tunnel.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub identity: &'a Identity,
    pub random: &'a mut dyn Random,
    pub indices: &'a mut Indices,
    pub outbounds: &'a Slots<Outbound>,
    pub actions: &'a mut Actions,
}

impl Context<'_> {
    fn secret<const N: usize>(&mut self) -> zeroize::Zeroizing<[u8; N]> {
        let mut secret = zeroize::Zeroizing::new([0; N]);
        self.random.fill(&mut *secret);
        secret
    }

    fn retire(&mut self, outdated: impl IntoIterator<Item = Option<Arc<Session>>>) {
        for session in outdated.into_iter().flatten() {
            session.erase();
            self.indices.give_back(session.local());
        }
    }
}

/// A peer.
pub(crate) struct Peer {
    id: PeerId,
    pub keys: PeerKeys,
    /// As workers know it.
    unreachable: bool,
    pub activity: Arc<Activity>,
    pub timers: Timers,
    /// When the tunnel looks at the timers next.
    pub wake_ns: Option<u64>,
    pub keyed_at: Option<Duration>,
    jar: Jar,
    /// Our index, and what we need to read the answer.
    asking: Option<(u32, Box<Initiating>)>,
    sessions: Triple,
    /// The greatest timestamp we have sent, and have received (5.1).
    told: Timestamp,
    heard: Option<(Timestamp, u64)>,
}

impl Peer {
    pub fn new(id: PeerId, keys: PeerKeys, ends: Option<Ends>) -> Self {
        let activity = Arc::<Activity>::default();
        activity.way().change(|_| ends);
        Self {
            id,
            keys,
            unreachable: false,
            activity,
            timers: Timers::default(),
            wake_ns: None,
            keyed_at: None,
            jar: Jar::default(),
            asking: None,
            sessions: Triple::default(),
            told: [0; 12],
            heard: None,
        }
    }

    /// Lets workers see the current session.
    pub fn publish(&self, context: &mut Context) {
        // A confirmed one that is still there is a spare, which the peer does not use.
        let next = self.sessions.next.as_ref().filter(|next| !next.is_confirmed());
        let outbound = Outbound {
            current: self.sessions.current.clone(),
            next: next.cloned(),
            unreachable: self.unreachable,
            activity: self.activity.clone(),
        };
        context.outbounds.set(self.id.0 as usize, Some(Arc::new(outbound)));
    }

    /// Packets to the peer may wait again, or need not.
    fn set_unreachable(&mut self, unreachable: bool, context: &mut Context) {
        if self.unreachable != unreachable {
            self.unreachable = unreachable;
            self.publish(context);
        }
        if unreachable {
            context.actions.push_back(Action::Unreachable(self.id));
        }
    }

    /// Somebody has packets for the peer, and no good session to send them under.
    pub fn want(&mut self, context: &mut Context) {
        let current = self.sessions.current.as_ref();
        let stale_notice = current.is_some_and(|session| session.fresh(context.now.ns));
        if !stale_notice {
            self.timers.wanted(context.now.ns);
            self.ask(context);
        }
    }

    /// Sends an initiation, unless it is too early, or there is nowhere to send it to.
    pub fn ask(&mut self, context: &mut Context) {
        let now = context.now;
        let Some(ends) = self.activity.way().get() else {
            return self.set_unreachable(true, context);
        };
        if !self.timers.may_ask(now.ns) {
            return;
        }
        self.forget_question(context);
        let Some(index) = context.indices.take(self.id, context.random) else {
            return self.set_unreachable(true, context);
        };
        self.told = later(timestamp(now.wall), &self.told);
        let secret = context.secret();
        let (mut message, asking) = initiate(context.identity, &self.keys, &secret, index, &self.told);
        self.asking = Some((index, Box::new(asking)));
        self.jar.sign(&self.keys, message.as_mut_bytes(), now.ns);
        self.timers.asked(now.ns, u64::from_ne_bytes(*context.secret::<8>()));
        self.send(ends, message.as_bytes(), context);
        self.set_unreachable(false, context);
    }

    /// Answers an initiation that is known to be the peer's.
    ///
    /// # Errors
    /// [`Refusal`], and nothing has changed.
    pub fn answer(
        &mut self,
        (timestamp, asked): (Timestamp, Asked),
        ends: Ends,
        context: &mut Context,
    ) -> Result<(), Refusal> {
        let now_ns = context.now.ns;
        if let Some((heard, at_ns)) = self.heard {
            if timestamp <= heard {
                return Err(Refusal::Replayed);
            }
            if now_ns.saturating_sub(at_ns) < INITIATION_GAP_NS {
                return Err(Refusal::TooSoon);
            }
        }
        let index = context.indices.take(self.id, context.random).ok_or(Refusal::Full)?;
        let (remote, secret) = (asked.sender(), context.secret());
        let Some((mut message, keys)) = asked.respond(&self.keys, &secret, index) else {
            context.indices.give_back(index);
            return Err(Refusal::NotAuthentic);
        };
        self.heard = Some((timestamp, now_ns));
        let session = self.begin(&keys, (index, remote), false, context);
        let outdated = self.sessions.answered(session);
        context.retire([outdated]);
        self.received(size_of::<Initiation>(), ends, now_ns);
        self.publish(context);
        self.set_unreachable(false, context);
        self.jar.sign(&self.keys, message.as_mut_bytes(), now_ns);
        self.send(ends, message.as_bytes(), context);
        Ok(())
    }

    /// Reads the answer to our initiation.
    ///
    /// # Errors
    /// [`Refusal`], and nothing has changed.
    pub fn finish(&mut self, message: &Response, ends: Ends, context: &mut Context) -> Result<(), Refusal> {
        let asking = self.asking.take_if(|(index, _)| *index == message.receiver.get());
        let (index, asking) = asking.ok_or(Refusal::NotAsked)?;
        let Some(keys) = asking.finish(context.identity, &self.keys, message) else {
            self.asking = Some((index, asking));
            return Err(Refusal::NotAuthentic);
        };
        let session = self.begin(&keys, (index, message.sender.get()), true, context);
        let outdated = self.sessions.initiated(session);
        context.retire([outdated]);
        self.timers.answered();
        self.received(size_of::<Response>(), ends, context.now.ns);
        self.use_current(context);
        // The first packet under the new session lets the responder use it too (6.1).
        self.keep_alive(context);
        Ok(())
    }

    /// Takes a cookie for our next message.
    pub fn take_cookie(&mut self, reply: &CookieReply, now_ns: u64) -> Result<(), Refusal> {
        let taken = self.jar.take(&self.keys, reply, now_ns);
        taken.then_some(()).ok_or(Refusal::NotAuthentic)
    }

    /// The peer has used the session that we answered with.
    pub fn confirm(&mut self, local: u32, context: &mut Context) {
        let lead = context.identity.public() > self.keys.public();
        let Some(confirmed) = self.sessions.confirmed(local, lead) else {
            return;
        };
        // Whatever we asked meanwhile has this answer.
        self.timers.answered();
        self.forget_question(context);
        match confirmed {
            Confirmed::Current(outdated) => {
                context.retire([outdated]);
                self.use_current(context);
            }
            Confirmed::Spare => self.publish(context),
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, context: &mut Context) {
        while let Some(due) = self.timers.due(&self.activity, context.now.ns) {
            match due {
                Due::Retry => self.ask(context),
                Due::Handshake => {
                    self.timers.wanted(context.now.ns);
                    self.ask(context);
                }
                Due::GiveUp => {
                    self.forget_question(context);
                    self.activity.forget_unanswered();
                    // What waited comes back now, and shall not ask at once again.
                    self.activity.asked(context.now.ns);
                    self.set_unreachable(true, context);
                }
                Due::Keepalive => self.keep_alive(context),
                Due::Erase => self.erase(context),
            }
        }
    }

    /// Sends an empty packet; without a session, asks for one.
    pub fn keep_alive(&mut self, context: &mut Context) {
        let current = self.sessions.current.clone();
        let sealed = current.and_then(|session| single::seal(&session, &[], context.now.ns));
        match (sealed, self.activity.way().get()) {
            (Some((bytes, notice)), Some(ends)) => {
                context.actions.push_back(Action::Send { ends, bytes });
                if notice.is_some() {
                    self.want(context);
                }
            }
            _ => self.want(context),
        }
    }

    /// Wipes every key of every session.
    pub fn erase(&mut self, context: &mut Context) {
        let sessions = self.sessions.clear();
        context.retire(sessions);
        self.forget_question(context);
        self.publish(context);
    }

    /// When to wake it next.
    pub fn next_wake(&self, now_ns: u64) -> Option<u64> {
        self.timers.next(&self.activity, now_ns)
    }

    fn begin(
        &mut self,
        keys: &Keys,
        (local, remote): (u32, u32),
        initiator: bool,
        context: &mut Context,
    ) -> Arc<Session> {
        let parties = Parties {
            peer: self.id,
            local,
            remote,
            initiator,
        };
        let session = Arc::new(Session::new(parties, keys, context.now.ns, self.activity.clone()));
        context.indices.install(&session);
        self.timers.keyed(context.now.ns);
        session
    }

    fn use_current(&mut self, context: &mut Context) {
        self.keyed_at = Some(context.now.wall);
        self.activity.may_ask_again();
        self.unreachable = false;
        self.publish(context);
        context.actions.push_back(Action::Established(self.id));
    }

    fn forget_question(&mut self, context: &mut Context) {
        if let Some((index, _)) = self.asking.take() {
            context.indices.give_back(index);
        }
    }

    fn received(&self, bytes: usize, ends: Ends, now_ns: u64) {
        self.activity.way().change(|_| Some(ends));
        self.activity.received(now_ns, false);
        self.activity.count_received(1, bytes as u64);
    }

    fn send(&self, ends: Ends, message: &[u8], context: &mut Context) {
        self.activity.sent(context.now.ns, false);
        self.activity.count_sent(1, message.len() as u64);
        let bytes = message.to_vec();
        context.actions.push_back(Action::Send { ends, bytes });
    }
}

/// Nanoseconds are cut to 2^24, so that a timestamp tells little of our clock (as Linux does).
const GRAIN_NS: u32 = 1 << 24;

/// TAI64N of a time since 1970, less leap seconds, as all implementations have it.
fn timestamp(wall: Duration) -> Timestamp {
    let seconds = 0x4000_0000_0000_000a_u64.wrapping_add(wall.as_secs());
    let nanoseconds = wall.subsec_nanos() & !(GRAIN_NS - 1);
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
    bytes
}

/// `wanted`, or one grain after `last` should the clock have been set back: the peer takes only later ones (5.1).
fn later(wanted: Timestamp, last: &Timestamp) -> Timestamp {
    if wanted > *last {
        return wanted;
    }
    let (seconds, nanoseconds) = last.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let (mut seconds, mut nanoseconds) = (number(seconds), number(nanoseconds));
    nanoseconds += u64::from(GRAIN_NS);
    if nanoseconds >= 1_000_000_000 {
        (seconds, nanoseconds) = (seconds.wrapping_add(1), 0);
    }
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&(nanoseconds as u32).to_be_bytes());
    bytes
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_tai64n_and_only_grow() {
        let now = timestamp(Duration::new(1, GRAIN_NS + 5));
        assert_eq!(now, [0x40, 0, 0, 0, 0, 0, 0, 0x0b, 1, 0, 0, 0]);
        let mut last = later(timestamp(Duration::from_secs(100)), &now);
        assert_eq!(last, timestamp(Duration::from_secs(100)));
        for _ in 0..200 {
            let next = later(now, &last);
            assert!(next > last);
            last = next;
        }
        assert!(last < timestamp(Duration::from_secs(104)), "a grain each");
    }

    #[test]
    fn a_peer_is_small() {
        let slots = crate::tunnel::Indices::new(1).sessions.capacity();
        let session = size_of::<Session>() + 16;
        let tables = slots * 48 + size_of::<Outbound>() + 16;
        let bytes = size_of::<Peer>() + size_of::<Activity>() + size_of::<Initiating>() + 3 * session + tables;
        println!("{bytes} bytes: a session {session}, the peer {}", size_of::<Peer>());
        assert!(bytes < 16 << 10, "{bytes} bytes");
    }
}
