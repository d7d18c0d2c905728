//! From workers to control: handshake messages and notices, in bounded queues that nobody waits for.

use crate::session::{Ends, Notice};
use crossbeam_queue::ArrayQueue;
use fastpath::meta::PortId;
use std::sync::Arc;

/// Most handshake messages that wait. Each takes [`LETTER_MAX`] bytes and some.
pub const LETTERS: usize = 4096;
/// Most notices that wait. Workers repeat what was lost.
pub const NOTICES: usize = 4096;
/// Bytes of the longest handshake message, an initiation.
pub const LETTER_MAX: usize = 148;

/// A handshake message or cookie reply, as it came.
#[derive(Clone, Copy)]
pub struct Letter {
    /// The interface it is for.
    pub interface: PortId,
    /// The way it came.
    pub ends: Ends,
    bytes: [u8; LETTER_MAX],
    length: u8,
}

impl Letter {
    /// With a copy of `bytes`; none if there are more than [`LETTER_MAX`].
    pub fn new(interface: PortId, ends: Ends, bytes: &[u8]) -> Option<Self> {
        let mut copy = [0; LETTER_MAX];
        copy.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self {
            interface,
            ends,
            bytes: copy,
            length: bytes.len() as u8,
        })
    }

    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LETTERS} handshake messages wait already")]
pub struct Full;

struct Shared {
    letters: ArrayQueue<Letter>,
    notices: ArrayQueue<(PortId, Notice)>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A worker's end, and control's.
#[derive(Clone)]
pub struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// `wake` is called from worker threads when something was put; it must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            letters: ArrayQueue::new(LETTERS),
            notices: ArrayQueue::new(NOTICES),
            wake: Box::new(wake),
        }))
    }

    /// Worker: puts a handshake message. [`Self::wake`] is to follow, once a vector.
    ///
    /// # Errors
    /// [`Full`], and the message is lost; its sender sends another.
    pub fn put(&self, letter: Letter) -> Result<(), Full> {
        self.0.letters.push(letter).map_err(|_| Full)
    }

    /// Worker: tells what it saw, unless the queue is full: it will see it again.
    pub fn tell(&self, interface: PortId, notice: Notice) {
        if self.0.notices.push((interface, notice)).is_ok() {
            self.wake();
        }
    }

    /// Worker: has control look.
    pub fn wake(&self) {
        (self.0.wake)();
    }

    /// Control: the next handshake message.
    pub fn letter(&self) -> Option<Letter> {
        self.0.letters.pop()
    }

    /// Control: the next notice, and of which interface.
    pub fn notice(&self) -> Option<(PortId, Notice)> {
        self.0.notices.pop()
    }

    /// Control: how many handshake messages wait.
    pub fn backlog(&self) -> usize {
        self.0.letters.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_takes_nothing_and_loses_nothing() {
        let ends = Ends::to("192.0.2.1:1".parse().unwrap());
        let letter = |length: usize| Letter::new(PortId(3), ends, &[length as u8; 200][..length]);
        let mailbox = Mailbox::new(|| {});
        assert!(letter(LETTER_MAX + 1).is_none());
        let taken = (0..LETTERS + 10).filter(|_| mailbox.put(letter(LETTER_MAX).unwrap()).is_ok());
        assert_eq!((taken.count(), mailbox.backlog()), (LETTERS, LETTERS));
        assert_eq!(mailbox.letter().unwrap().bytes(), [LETTER_MAX as u8; LETTER_MAX]);
        mailbox.put(letter(7).unwrap()).unwrap();
        let last = std::iter::from_fn(|| mailbox.letter()).last().unwrap();
        assert_eq!((last.bytes().len(), last.interface), (7, PortId(3)));
    }
}
