//! When things have to happen (6): constants of the whitepaper, and the deadlines of one peer.

use crate::session::Activity;

const SECOND_NS: u64 = 1_000_000_000;

/// Packets after which a session is renewed.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Packets a session can send; the whitepaper's 2^64 - 2^13 - 1.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age at which its initiator renews a session.
pub const REKEY_AFTER_TIME_NS: u64 = 120 * SECOND_NS;
/// Age from which a session is not used any more.
pub const REJECT_AFTER_TIME_NS: u64 = 180 * SECOND_NS;
/// How long to go on asking for a session.
pub const REKEY_ATTEMPT_TIME_NS: u64 = 90 * SECOND_NS;
/// Between two initiations.
pub const REKEY_TIMEOUT_NS: u64 = 5 * SECOND_NS;
/// At most this is added to it, so that two sides that ask at the same time do not go on doing so.
pub const JITTER_MAX_NS: u64 = SECOND_NS / 3;
/// A peer whose packets got no answer in this time gets an empty one.
pub const KEEPALIVE_TIMEOUT_NS: u64 = 10 * SECOND_NS;
/// Keys are wiped this long after the last handshake.
pub const ERASE_AFTER_NS: u64 = 3 * REJECT_AFTER_TIME_NS;
/// Age at which a cookie's secret is changed.
pub const COOKIE_MAX_AGE_NS: u64 = 120 * SECOND_NS;
/// A cookie is not used so shortly before it becomes too old.
pub const COOKIE_LATENCY_NS: u64 = 5 * SECOND_NS;
/// Shortest time between two initiations of a peer that are answered: 50 a second.
pub const INITIATION_GAP_NS: u64 = SECOND_NS / 50;

/// What a deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask for a session again.
    Retry,
    /// Stop asking, nobody answers.
    GiveUp,
    /// Ask for a session: the peer is silent.
    Handshake,
    /// Send an empty packet.
    Keepalive,
    /// Wipe all keys.
    Erase,
}

/// The deadlines of one peer. Those that follow from packets are read from what workers stamp into its [`Activity`].
#[derive(Debug, Default)]
pub struct Timers {
    /// When to ask again; none if nothing was asked.
    retry_ns: Option<u64>,
    /// Since when we ask in vain.
    asking_since_ns: u64,
    asked_ns: Option<u64>,
    jitter_ns: u64,
    erase_ns: Option<u64>,
    /// 0 if off.
    persistent_ns: u64,
    kept_alive_ns: u64,
}

impl Timers {
    /// Whether an initiation may be sent: not so shortly after another.
    pub fn may_ask(&self, now_ns: u64) -> bool {
        self.asked_ns
            .is_none_or(|asked| now_ns.saturating_sub(asked) >= REKEY_TIMEOUT_NS)
    }

    /// Somebody wants a session. Asking goes on for its whole time from here.
    pub fn wanted(&mut self, now_ns: u64) {
        self.asking_since_ns = now_ns;
        if let (None, Some(asked)) = (self.retry_ns, self.asked_ns) {
            self.retry_ns = Some(asked + REKEY_TIMEOUT_NS);
        }
    }

    /// An initiation was sent; `random` spreads the next one.
    pub fn asked(&mut self, now_ns: u64, random: u64) {
        self.asked_ns = Some(now_ns);
        self.jitter_ns = random % JITTER_MAX_NS;
        self.retry_ns = Some(now_ns + REKEY_TIMEOUT_NS + self.jitter_ns);
    }

    /// The answer came.
    pub fn answered(&mut self) {
        self.retry_ns = None;
    }

    /// There are new keys.
    pub fn keyed(&mut self, now_ns: u64) {
        self.erase_ns = Some(now_ns + ERASE_AFTER_NS);
    }

    /// Sets how often to send at least, in nanoseconds; 0 for never.
    pub fn set_persistent(&mut self, every_ns: u64, now_ns: u64) {
        (self.persistent_ns, self.kept_alive_ns) = (every_ns, now_ns);
    }

    /// Whether an initiation is under way.
    pub fn asking(&self) -> bool {
        self.retry_ns.is_some()
    }

    /// When to look again. Workers tell nobody of their stamps; but what a stamp asks for lies at least
    /// [`KEEPALIVE_TIMEOUT_NS`] ahead, so to look that often is to miss nothing.
    pub fn next(&self, activity: &Activity, now_ns: u64) -> Option<u64> {
        let look = self.erase_ns.map(|_| now_ns + KEEPALIVE_TIMEOUT_NS);
        [
            look,
            self.retry_ns,
            self.erase_ns,
            self.silent(activity),
            owed(activity),
            self.persistent(activity),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// One thing that is due, which then is so no more. To be asked until there is none.
    pub fn due(&mut self, activity: &Activity, now_ns: u64) -> Option<Due> {
        let is_due = |deadline: Option<u64>| deadline.is_some_and(|deadline| deadline <= now_ns);
        if is_due(self.erase_ns) {
            self.erase_ns = None;
            return Some(Due::Erase);
        }
        if is_due(self.retry_ns) {
            self.retry_ns = None;
            let in_vain = now_ns.saturating_sub(self.asking_since_ns) >= REKEY_ATTEMPT_TIME_NS;
            return Some(if in_vain { Due::GiveUp } else { Due::Retry });
        }
        if is_due(self.silent(activity)) {
            activity.forget_unanswered();
            return Some(Due::Handshake);
        }
        if is_due(owed(activity)) || is_due(self.persistent(activity)) {
            activity.forget_owed();
            self.kept_alive_ns = now_ns;
            return Some(Due::Keepalive);
        }
        None
    }

    fn silent(&self, activity: &Activity) -> Option<u64> {
        let since = activity.unanswered_since_ns()?;
        Some(since + KEEPALIVE_TIMEOUT_NS + REKEY_TIMEOUT_NS + self.jitter_ns)
    }

    fn persistent(&self, activity: &Activity) -> Option<u64> {
        let last = activity.last_packet_ns().max(self.kept_alive_ns);
        (self.persistent_ns > 0 && !self.asking()).then_some(last + self.persistent_ns)
    }
}

fn owed(activity: &Activity) -> Option<u64> {
    Some(activity.owed_since_ns()? + KEEPALIVE_TIMEOUT_NS)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Everything that falls due until `end`, with its second; time jumps from wake-up to wake-up.
    fn run(timers: &mut Timers, activity: &Activity, from: u64, end: u64) -> Vec<(u64, Due)> {
        let (mut now, mut found) = (from, Vec::new());
        while let Some(next) = timers.next(activity, now).filter(|&next| next <= end) {
            now = next.max(now);
            while let Some(due) = timers.due(activity, now) {
                found.push((now / SECOND_NS, due));
                if due == Due::Retry {
                    timers.asked(now, 0);
                }
            }
        }
        found
    }

    #[test]
    fn asks_for_ninety_seconds_and_gives_up() {
        let (mut timers, activity) = (Timers::default(), Activity::default());
        timers.wanted(SECOND_NS);
        timers.asked(SECOND_NS, 0);
        let found = run(&mut timers, &activity, SECOND_NS, 1000 * SECOND_NS);
        assert_eq!(found.len(), 18);
        assert_eq!((found[0], found[17]), ((6, Due::Retry), (91, Due::GiveUp)));
    }

    #[test]
    fn a_wish_that_comes_too_early_is_kept() {
        let (mut timers, activity) = (Timers::default(), Activity::default());
        timers.asked(SECOND_NS, 0);
        timers.answered();
        timers.wanted(3 * SECOND_NS);
        assert!(!timers.may_ask(3 * SECOND_NS) && timers.may_ask(6 * SECOND_NS));
        assert_eq!(timers.next(&activity, 3 * SECOND_NS), Some(6 * SECOND_NS));
    }

    #[test]
    fn packets_without_an_answer() {
        let (mut timers, activity) = (Timers::default(), Activity::default());
        timers.keyed(SECOND_NS);
        activity.received(20 * SECOND_NS, true);
        activity.sent(31 * SECOND_NS, true);
        activity.sent(32 * SECOND_NS, true);
        let found = run(&mut timers, &activity, 21 * SECOND_NS, 100 * SECOND_NS);
        assert_eq!(found, [(46, Due::Handshake)], "the packet of second 31 answered");
        activity.received(100 * SECOND_NS, true);
        let found = run(&mut timers, &activity, 100 * SECOND_NS, 600 * SECOND_NS);
        assert_eq!(found, [(110, Due::Keepalive), (541, Due::Erase)]);
    }

    #[test]
    fn persistent_keepalives_follow_the_last_packet() {
        let (mut timers, activity) = (Timers::default(), Activity::default());
        timers.set_persistent(25 * SECOND_NS, SECOND_NS);
        activity.sent(10 * SECOND_NS, false);
        let found = run(&mut timers, &activity, SECOND_NS, 61 * SECOND_NS);
        assert_eq!(found, [(35, Due::Keepalive), (60, Due::Keepalive)]);
        timers.set_persistent(0, 61 * SECOND_NS);
        assert_eq!(timers.next(&activity, 61 * SECOND_NS), None);
    }
}
