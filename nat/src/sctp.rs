//! SCTP as seen from the middle: verification tags tell real packets from made-up ones (RFC 9260 section 8.5).
//!
//! A side's [`Mark`] holds the tag that it chose, which the packets of the other side carry. Only a chunk that comes first
//! in its packet is looked at, as those that open and close an association do (RFC 9260 section 6.10). An association is
//! opened by INIT only: further paths of a multi-homed one, which begin with a HEARTBEAT, are not followed.

use crate::leg::Mark;
use crate::protocol::{Outcome, Phase};

const INIT: u16 = 1;
const COOKIE: u16 = 2;
const SHUTDOWN: u16 = 4;
const ABORT: u16 = 8;
const OPEN: u16 = INIT | COOKIE;

/// Chunk types (RFC 9260 section 3.2).
mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The flag of a chunk whose packet carries its own side's tag instead of the other's.
const T: u8 = 1;

/// What it takes to know of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Verification tag.
    pub tag: u32,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Its flags.
    pub flags: u8,
    /// Of INIT and INIT ACK: the tag that the sender chose; else 0.
    pub initiate_tag: u32,
}

impl Packet {
    /// Reads a transport header and what follows; `None` where it is too short for a chunk.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<16>()?;
        let chunk = head[12];
        let initiate_tag = match chunk {
            chunk::INIT | chunk::INIT_ACK => u32::from_be_bytes(*bytes.get(16..)?.first_chunk()?),
            _ => 0,
        };
        Some(Self {
            tag: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            chunk,
            flags: head[13],
            initiate_tag,
        })
    }
}

/// The mark of the side that opens an association with this packet, if it does.
pub fn opens(packet: &Packet) -> Option<Mark> {
    // RFC 9260 section 8.5.1: an INIT has a tag of 0 and offers another one.
    let is_init = packet.chunk == chunk::INIT && packet.tag == 0 && packet.initiate_tag != 0;
    is_init.then_some(Mark {
        bits: INIT,
        number: packet.initiate_tag,
    })
}

/// What a packet of one side does.
pub fn follow(mine: Mark, other: impl FnOnce() -> Mark, packet: &Packet) -> Outcome {
    if packet.chunk == 0 || packet.chunk > chunk::SHUTDOWN_COMPLETE {
        return Outcome::Same;
    }
    let other = other();
    if let Some(new) = opens(packet) {
        return match phase(mine, other) {
            Phase::Closing | Phase::Reset => Outcome::Reopens,
            Phase::Opening if new != mine && mine.bits & COOKIE == 0 => Outcome::Becomes(new),
            _ => Outcome::Same,
        };
    }
    let reflected = packet.flags & T != 0 && matches!(packet.chunk, chunk::ABORT | chunk::SHUTDOWN_COMPLETE);
    let (side, begun) = if reflected {
        (mine, mine.bits)
    } else {
        (other, other.bits)
    };
    if begun & INIT == 0 || packet.tag != side.number {
        return Outcome::Same;
    }
    let next = match packet.chunk {
        chunk::INIT_ACK if packet.initiate_tag != 0 && mine.bits & COOKIE == 0 => Mark {
            bits: mine.bits | INIT,
            number: packet.initiate_tag,
        },
        chunk::COOKIE_ECHO => with(mine, COOKIE),
        chunk::COOKIE_ACK if other.bits & COOKIE != 0 => with(mine, COOKIE),
        chunk::SHUTDOWN | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE => with(mine, SHUTDOWN),
        chunk::ABORT => with(mine, ABORT),
        _ => mine,
    };
    if next == mine {
        Outcome::Same
    } else {
        Outcome::Becomes(next)
    }
}

/// Where an association stands.
pub fn phase(there: Mark, back: Mark) -> Phase {
    let (all, any) = (there.bits & back.bits, there.bits | back.bits);
    match () {
        () if any & ABORT != 0 => Phase::Reset,
        () if all & SHUTDOWN != 0 => Phase::Closing,
        () if all & OPEN == OPEN => Phase::Established,
        () => Phase::Opening,
    }
}

/// Whether both sides have ever completed the handshake.
pub fn is_confirmed(there: Mark, back: Mark) -> bool {
    there.bits & back.bits & OPEN == OPEN
}

fn with(mark: Mark, bits: u16) -> Mark {
    Mark {
        bits: mark.bits | bits,
        ..mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(tag: u32, chunk: u8, initiate_tag: u32) -> Packet {
        Packet {
            tag,
            chunk,
            flags: 0,
            initiate_tag,
        }
    }

    /// Both sides, followed as two legs are.
    #[derive(Default)]
    struct Path([Mark; 2]);

    impl Path {
        fn see(&mut self, side: usize, packet: Packet) -> Outcome {
            let outcome = follow(self.0[side], || self.0[1 - side], &packet);
            if let Outcome::Becomes(mark) = outcome {
                self.0[side] = mark;
            }
            outcome
        }

        fn phase(&self) -> Phase {
            phase(self.0[0], self.0[1])
        }

        fn established() -> Self {
            let mut path = Self([opens(&packet(0, chunk::INIT, 11)).unwrap(), Mark::default()]);
            path.see(1, packet(11, chunk::INIT_ACK, 22));
            path.see(0, packet(22, chunk::COOKIE_ECHO, 0));
            assert_eq!(path.phase(), Phase::Opening);
            path.see(1, packet(11, chunk::COOKIE_ACK, 0));
            assert_eq!(path.phase(), Phase::Established);
            path
        }
    }

    #[test]
    fn an_association_lives_and_ends() {
        let mut path = Path::established();
        path.see(0, packet(22, chunk::SHUTDOWN, 0));
        assert_eq!(path.phase(), Phase::Established);
        path.see(1, packet(11, chunk::SHUTDOWN_ACK, 0));
        assert_eq!(path.phase(), Phase::Closing);
        assert_eq!(path.see(0, packet(0, chunk::INIT, 33)), Outcome::Reopens);
        assert!(is_confirmed(path.0[0], path.0[1]));
    }

    #[test]
    fn what_has_a_wrong_tag_does_nothing() {
        let mut path = Path::established();
        for chunk in [chunk::ABORT, chunk::SHUTDOWN, chunk::INIT_ACK, chunk::COOKIE_ACK] {
            assert_eq!(path.see(0, packet(11, chunk, 5)), Outcome::Same, "{chunk}");
        }
        assert_eq!(
            path.see(0, packet(0, chunk::INIT, 5)),
            Outcome::Same,
            "no restart by anybody"
        );
        assert_eq!(
            path.see(0, packet(22, chunk::ABORT, 0)),
            Outcome::Becomes(with(path.0[0], ABORT))
        );
        assert_eq!(path.phase(), Phase::Reset);
    }

    #[test]
    fn an_abort_may_reflect_the_tag_of_its_own_side() {
        let mut path = Path::established();
        let abort = |tag| Packet {
            flags: T,
            ..packet(tag, chunk::ABORT, 0)
        };
        assert_eq!(path.see(1, abort(11)), Outcome::Same);
        path.see(1, abort(22));
        assert_eq!(path.phase(), Phase::Reset);
    }

    #[test]
    fn only_an_init_opens() {
        assert_eq!(opens(&packet(1, chunk::INIT, 5)), None);
        assert_eq!(opens(&packet(0, chunk::INIT, 0)), None);
        assert_eq!(opens(&packet(0, chunk::COOKIE_ECHO, 5)), None);
        let mut bytes = [0; 20];
        bytes[12] = chunk::INIT;
        bytes[19] = 7;
        assert_eq!(opens(&Packet::read(&bytes).unwrap()).map(|mark| mark.number), Some(7));
        assert_eq!(Packet::read(&bytes[..19]), None);
        assert_eq!(Packet::read(&bytes[..15]), None);
    }
}
