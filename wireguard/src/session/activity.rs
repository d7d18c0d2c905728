//! What workers stamp as packets of a peer pass, and control reads.

use super::Way;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::timers::REKEY_TIMEOUT_NS;

/// Stamps of the last packet are this coarse, so that they are written seldom: they share a cache line.
const COARSE_NS: u64 = 50_000_000;

/// One peer's packets, over all its sessions and workers. Moments in nanoseconds; 0 stands for never.
#[derive(Debug)]
pub struct Activity {
    last_sent_ns: AtomicU64,
    last_received_ns: AtomicU64,
    unanswered_since_ns: AtomicU64,
    owed_since_ns: AtomicU64,
    asked_ns: AtomicU64,
    sent: Traffic,
    received: Traffic,
    way: Way,
}

/// Packets and bytes one way.
#[derive(Debug)]
struct Traffic {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Activity {
    /// Something authentic was sent: an IP packet (`data`), a keepalive or a handshake message.
    #[inline]
    pub fn sent(&self, now_ns: u64, data: bool) {
        stamp(&self.last_sent_ns, now_ns);
        clear(&self.owed_since_ns);
        if data {
            begin(&self.unanswered_since_ns, now_ns);
        }
    }

    /// Something authentic was received.
    #[inline]
    pub fn received(&self, now_ns: u64, data: bool) {
        stamp(&self.last_received_ns, now_ns);
        clear(&self.unanswered_since_ns);
        if data {
            begin(&self.owed_since_ns, now_ns);
        }
    }

    /// Whether control is to be asked for a new session: no more often than it could answer.
    #[inline]
    pub fn ask(&self, now_ns: u64) -> bool {
        let (asked, now_ns) = (self.asked_ns.load(Relaxed), now_ns.max(1));
        let may = asked == 0 || now_ns.saturating_sub(asked) >= REKEY_TIMEOUT_NS;
        // One worker of several that come here together.
        may && self.asked_ns.compare_exchange(asked, now_ns, Relaxed, Relaxed).is_ok()
    }

    /// Where it was last heard from, and where it is spoken to.
    #[inline]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Has the cache fetch what a packet will need, while there is other work to do.
    #[inline(always)]
    pub fn warm(&self) {
        std::hint::black_box(self.last_sent_ns.load(Relaxed) ^ self.received.bytes.load(Relaxed));
        self.way.warm();
    }

    /// Counts messages sent and their bytes. Locked instructions: to be called with the sum of a run of packets.
    #[inline]
    pub fn count_sent(&self, packets: u64, bytes: u64) {
        self.sent.add(packets, bytes);
    }

    /// Counts messages received, likewise.
    #[inline]
    pub fn count_received(&self, packets: u64, bytes: u64) {
        self.received.add(packets, bytes);
    }

    /// Messages sent, and their bytes.
    pub fn sent_total(&self) -> (u64, u64) {
        self.sent.read()
    }

    /// Messages received, and their bytes.
    pub fn received_total(&self) -> (u64, u64) {
        self.received.read()
    }

    /// Since when IP packets were sent and nothing came back.
    pub fn unanswered_since_ns(&self) -> Option<u64> {
        some(&self.unanswered_since_ns)
    }

    /// Since when IP packets were received and nothing was sent back.
    pub fn owed_since_ns(&self) -> Option<u64> {
        some(&self.owed_since_ns)
    }

    /// When the last packet passed, either way; 0 for never.
    pub fn last_packet_ns(&self) -> u64 {
        self.last_sent_ns.load(Relaxed).max(self.last_received_ns.load(Relaxed))
    }

    pub(crate) fn forget_unanswered(&self) {
        clear(&self.unanswered_since_ns);
    }

    pub(crate) fn forget_owed(&self) {
        clear(&self.owed_since_ns);
    }

    /// Workers shall not ask for a session now.
    pub(crate) fn asked(&self, now_ns: u64) {
        self.asked_ns.store(now_ns.max(1), Relaxed);
    }

    pub(crate) fn may_ask_again(&self) {
        clear(&self.asked_ns);
    }
}

impl Default for Activity {
    fn default() -> Self {
        let never = || AtomicU64::new(0);
        Self {
            last_sent_ns: never(),
            last_received_ns: never(),
            unanswered_since_ns: never(),
            owed_since_ns: never(),
            asked_ns: never(),
            sent: Traffic::new(never(), never()),
            received: Traffic::new(never(), never()),
            way: Way::default(),
        }
    }
}

impl Traffic {
    fn new(packets: AtomicU64, bytes: AtomicU64) -> Self {
        Self { packets, bytes }
    }

    #[inline]
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

// Each writes only what differs: a store makes the line travel between cores, a load does not.

fn stamp(moment: &AtomicU64, now_ns: u64) {
    if now_ns.saturating_sub(moment.load(Relaxed)) >= COARSE_NS {
        moment.store(now_ns, Relaxed);
    }
}

fn begin(moment: &AtomicU64, now_ns: u64) {
    if moment.load(Relaxed) == 0 {
        moment.store(now_ns.max(1), Relaxed);
    }
}

fn clear(moment: &AtomicU64) {
    if moment.load(Relaxed) != 0 {
        moment.store(0, Relaxed);
    }
}

fn some(moment: &AtomicU64) -> Option<u64> {
    Some(moment.load(Relaxed)).filter(|&moment| moment > 0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn control_is_asked_once_in_the_time_it_needs() {
        let activity = Activity::default();
        assert!(activity.ask(0) && !activity.ask(1));
        assert!(!activity.ask(REKEY_TIMEOUT_NS) && activity.ask(REKEY_TIMEOUT_NS + 1));
        activity.may_ask_again();
        assert!(activity.ask(REKEY_TIMEOUT_NS + 2));
    }

    #[test]
    fn packets_and_bytes_add_up() {
        let activity = Activity::default();
        activity.count_sent(1, 3);
        activity.count_sent(2, 4);
        activity.count_received(1, 5);
        assert_eq!((activity.sent_total(), activity.received_total()), ((3, 7), (1, 5)));
    }
}
