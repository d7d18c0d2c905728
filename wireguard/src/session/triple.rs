//! The sessions of one peer: the one before, the one in use, and the one the peer has not confirmed yet (6.3).

use super::Session;
use crate::sync::Arc;

/// Up to three sessions. Packets are received under all of them, and sent under `current`. Those that the methods return
/// are no longer needed: they are to be wiped.
#[derive(Default)]
pub struct Triple {
    /// For packets that are still under way.
    pub previous: Option<Arc<Session>>,
    /// In use.
    pub current: Option<Arc<Session>>,
    /// We have answered, and wait for the first packet under it.
    pub next: Option<Arc<Session>>,
}

impl Triple {
    /// We have asked, and the answer came: in use at once.
    pub(crate) fn initiated(&mut self, session: Arc<Session>) -> Option<Arc<Session>> {
        // `next` stays: the peer may have asked at the same time, and use what we answered.
        let current = self.current.replace(session);
        std::mem::replace(&mut self.previous, current)
    }

    /// The peer has asked, and we have answered: in use once we see that the peer has the answer.
    pub(crate) fn answered(&mut self, session: Arc<Session>) -> Option<Arc<Session>> {
        self.next.replace(session)
    }

    /// The peer uses the session with this index of ours; `None` if it is not `next`. `lead`: when both asked at the
    /// same time, there are two new sessions; both sides shall use ours.
    pub(crate) fn confirmed(&mut self, local: u32, lead: bool) -> Option<Confirmed> {
        let next = self.next.take_if(|next| next.local() == local)?;
        next.confirm();
        let crossed = |current: &Arc<Session>| current.initiator && current.born_ns >= next.born_ns;
        if lead && self.current.as_ref().is_some_and(crossed) {
            self.next = Some(next);
            return Some(Confirmed::Spare);
        }
        let current = self.current.replace(next);
        Some(Confirmed::Current(std::mem::replace(&mut self.previous, current)))
    }

    /// All of them.
    pub(crate) fn clear(&mut self) -> [Option<Arc<Session>>; 3] {
        [self.previous.take(), self.current.take(), self.next.take()]
    }
}

/// What became of a session that the peer has confirmed.
pub(crate) enum Confirmed {
    /// It is in use now, instead of another; one is no longer needed.
    Current(Option<Arc<Session>>),
    /// The peer will use the other one. Until it does, packets come under this one.
    Spare,
}
