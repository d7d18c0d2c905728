//! What becomes of connections, as lines of JSON: a thread takes what workers tell, and gives each who follows what its
//! filter matches. There is no thread while nobody follows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastpath::meta::VrfId;
use nat::journal::{Event, Journal, Reason};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Filter, view};
use crate::refusal::Refusal;
use crate::show::flows::{FlowEnd, FlowEvent, FlowEventView};

/// How often the thread looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Who may follow at a time.
const FOLLOWERS: usize = 16;
/// Pieces of lines that wait for one of them, and how large a piece is at least before the next begins: 16 MiB.
const WAITING: usize = 64;
const PIECE: usize = 256 << 10;

/// Those who follow.
pub(super) struct Followers {
    journal: Journal,
    list: Mutex<Vec<Follower>>,
    cut_off: AtomicU64,
}

struct Follower {
    filter: Filter,
    vrfs: HashMap<VrfId, String>,
    sender: Sender<Vec<u8>>,
    cut_off: Arc<AtomicBool>,
    lines: Vec<u8>,
}

/// How those who follow fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// So many follow.
    pub followers: u64,
    /// So many read too slowly and were cut off, since the start.
    pub cut_off: u64,
    /// Events that workers could not put down, for nobody took those before, since the start.
    pub lost: u64,
}

/// Lines as they come.
pub struct Following {
    receiver: Receiver<Vec<u8>>,
    cut_off: Arc<AtomicBool>,
}

impl Following {
    /// The next lines, whole ones; nothing after the last.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        match self.receiver.recv().await {
            Some(lines) => Some(lines),
            // Once.
            None => self.cut_off.swap(false, Relaxed).then(|| line(&FlowEvent::CutOff)),
        }
    }
}

impl Followers {
    /// Nobody yet.
    pub fn new(journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            journal,
            list: Mutex::default(),
            cut_off: AtomicU64::new(0),
        })
    }

    /// One more.
    pub fn follow(self: &Arc<Self>, filter: Filter, vrfs: HashMap<VrfId, String>) -> Result<Following, Refusal> {
        let mut list = self.lock();
        list.retain(|follower| !follower.sender.is_closed());
        if list.len() >= FOLLOWERS {
            let sentence = format!("{FOLLOWERS} clients follow connections already; end one of them");
            return Err(Refusal::new(sentence));
        }
        if list.is_empty() {
            let all = self.clone();
            let thread = std::thread::Builder::new().name("flow-events".to_owned());
            let failed = |error| Refusal::new(format!("cannot start a thread: {error}; try again"));
            thread.spawn(move || all.serve()).map_err(failed)?;
            self.journal.set_read(true);
        }
        let (sender, receiver) = channel(WAITING);
        let cut_off = Arc::new(AtomicBool::new(false));
        list.push(Follower {
            filter,
            vrfs,
            sender,
            cut_off: cut_off.clone(),
            lines: vec![],
        });
        Ok(Following { receiver, cut_off })
    }

    /// See [`Followed`].
    pub fn counts(&self) -> Followed {
        Followed {
            followers: self.lock().len() as u64,
            cut_off: self.cut_off.load(Relaxed),
            lost: self.journal.lost(),
        }
    }

    /// Until nobody follows any more.
    fn serve(&self) {
        let mut lost = self.journal.lost();
        loop {
            std::thread::sleep(PAUSE);
            let mut list = self.lock();
            let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time_ms = time_ms.as_millis() as u64;
            self.journal.read(|event| {
                for follower in list.iter_mut() {
                    follower.tell(&event, time_ms);
                }
            });
            let before = std::mem::replace(&mut lost, self.journal.lost());
            let missed = lost - before;
            list.retain_mut(|follower| self.give(follower, missed));
            if list.is_empty() {
                self.journal.set_read(false);
                return;
            }
        }
    }

    /// Hands over what there is; no, if it went or reads too slowly.
    fn give(&self, follower: &mut Follower, missed: u64) -> bool {
        if missed > 0 {
            follower.lines.extend(line(&FlowEvent::Lost { events: missed }));
        }
        follower.hand_over();
        let is_slow = follower.cut_off.load(Relaxed);
        self.cut_off.fetch_add(is_slow.into(), Relaxed);
        !is_slow && !follower.sender.is_closed()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Follower>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    fn tell(&mut self, event: &Event, time_ms: u64) {
        if self.cut_off.load(Relaxed) || !self.filter.matches(&event.keys, &self.vrfs) {
            return;
        }
        let view = FlowEventView {
            time_ms,
            reason: event.end.map(end_of),
            flow: view(event, &self.vrfs),
        };
        let told = match event.end {
            None => FlowEvent::Create(view),
            Some(_) => FlowEvent::End(view),
        };
        self.lines.extend(line(&told));
        if self.lines.len() >= PIECE {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            let is_full = self.sender.try_send(lines).is_err() && !self.sender.is_closed();
            if is_full {
                self.cut_off.store(true, Relaxed);
            }
        }
    }
}

fn end_of(reason: Reason) -> FlowEnd {
    match reason {
        Reason::Closed => FlowEnd::Closed,
        Reason::Timeout => FlowEnd::Timeout,
        Reason::Evicted => FlowEnd::Evicted,
        Reason::Replaced => FlowEnd::Replaced,
        Reason::Deleted => FlowEnd::Deleted,
    }
}

fn line(event: &FlowEvent) -> Vec<u8> {
    // Texts and numbers are always written.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}
