//! What is alike, added up: by both ends, port, protocol and what decided.

use std::collections::HashMap;
use std::sync::Arc;

use super::{EndKind, FlowLog, LogEnd, LogVerdict};
use crate::connections::protocol_name;

/// Different flows that are told apart at a time; the rest is one more.
pub(super) const AGGREGATES_MAX: usize = 1 << 14;

/// Of what there was no room for.
const REST: u32 = 0;

/// What makes flows alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub source: Arc<LogEnd>,
    pub target: Arc<LogEnd>,
    pub protocol: u8,
    /// Port, or type and code of ICMP.
    pub port: u16,
    pub verdict: Arc<LogVerdict>,
    pub pending: Option<Arc<LogVerdict>>,
}

/// What is added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub started: u64,
    pub completed: u64,
    /// Packets and bytes there, packets and bytes back.
    pub carried: [u64; 4],
}

struct Aggregate {
    key: Key,
    sums: Sums,
    /// Connections that still count for it.
    users: usize,
}

/// All of them.
pub(super) struct Aggregates {
    list: Vec<Option<Aggregate>>,
    by_key: HashMap<Key, u32>,
    free: Vec<u32>,
    max: usize,
}

impl Default for Aggregates {
    fn default() -> Self {
        Self::new(AGGREGATES_MAX)
    }
}

impl Aggregates {
    /// None, and room for `max`.
    pub fn new(max: usize) -> Self {
        let anybody = Arc::new(LogEnd {
            kind: EndKind::Other,
            name: None,
            address: None,
        });
        let rest = Key {
            source: anybody.clone(),
            target: anybody,
            protocol: 0,
            port: 0,
            verdict: Arc::default(),
            pending: None,
        };
        Self {
            list: vec![Some(Aggregate::of(rest))],
            by_key: HashMap::new(),
            free: vec![],
            max,
        }
    }

    /// The number of what is alike in this way, for as long as it has users or sums.
    pub fn number(&mut self, key: Key) -> u32 {
        if let Some(number) = self.by_key.get(&key) {
            return *number;
        }
        let aggregate = Some(Aggregate::of(key.clone()));
        let number = match self.free.pop() {
            Some(number) => {
                self.list[number as usize] = aggregate;
                number
            }
            None if self.list.len() > self.max => return REST,
            None => {
                self.list.push(aggregate);
                self.list.len() as u32 - 1
            }
        };
        self.by_key.insert(key, number);
        number
    }

    pub fn sums(&mut self, number: u32) -> Option<&mut Sums> {
        let aggregate = self.list.get_mut(number as usize)?.as_mut()?;
        Some(&mut aggregate.sums)
    }

    /// A connection counts for it from now on.
    pub fn join(&mut self, number: u32) {
        if let Some(Some(aggregate)) = self.list.get_mut(number as usize) {
            aggregate.users += 1;
        }
    }

    /// A connection does no more.
    pub fn leave(&mut self, number: u32) {
        if let Some(Some(aggregate)) = self.list.get_mut(number as usize) {
            aggregate.users = aggregate.users.saturating_sub(1);
        }
    }

    /// What was added up since the last time.
    pub fn close(&mut self, start_ms: u64, end_ms: u64) -> Vec<FlowLog> {
        let mut logs = vec![];
        for (number, slot) in self.list.iter_mut().enumerate() {
            let Some(aggregate) = slot else { continue };
            let sums = std::mem::take(&mut aggregate.sums);
            if sums != Sums::default() {
                logs.push(aggregate.key.log(&sums, start_ms, end_ms));
            }
            if aggregate.users == 0 && number as u32 != REST {
                self.by_key.remove(&aggregate.key);
                *slot = None;
                self.free.push(number as u32);
            }
        }
        logs
    }
}

impl Aggregate {
    fn of(key: Key) -> Self {
        Self {
            key,
            sums: Sums::default(),
            users: 0,
        }
    }
}

impl Key {
    fn log(&self, sums: &Sums, start_ms: u64, end_ms: u64) -> FlowLog {
        let is_icmp = matches!(self.protocol, 1 | 58);
        let [kind, code] = self.port.to_be_bytes();
        let [packets, bytes, reply_packets, reply_bytes] = sums.carried;
        FlowLog {
            start_ms,
            end_ms,
            source: (*self.source).clone(),
            target: (*self.target).clone(),
            protocol: protocol_name(self.protocol),
            port: matches!(self.protocol, 6 | 17 | 132 | 136).then_some(self.port),
            icmp: is_icmp.then(|| format!("{kind}/{code}")),
            verdict: (*self.verdict).clone(),
            pending: self.pending.as_deref().cloned(),
            started: sums.started,
            completed: sums.completed,
            packets,
            bytes,
            reply_packets,
            reply_bytes,
        }
    }
}
