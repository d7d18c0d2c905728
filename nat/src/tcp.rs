//! TCP as seen from the middle: which segments open a connection, and which close it.
//!
//! States follow from what each side has validly sent (RFC 9293 section 3.3.2, seen from outside; RFC 5382 section 5).
//! A side is a [`Mark`] of its direction's leg: what it sent, the end of its sequence numbers, and the largest window it
//! granted. A segment far from the end, as one that an attacker makes up, neither opens nor closes anything
//! (RFC 5961 section 3, from the middle). What is out of place is only not believed; whether to let it pass is the
//! receiver's business, or policy's.

use crate::leg::Mark;
use crate::protocol::{Outcome, Phase};

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;
/// Both, of each side: the handshake is complete.
const OPEN: u16 = SYN | ACK;
const SCALE_SHIFT: u32 = 4;
const REACH_SHIFT: u32 = 8;
/// No window scale option (the largest scale is 14: RFC 7323 section 2.3).
const NO_SCALE: u16 = 15;
const SCALE_MAX: u8 = 14;

/// Only a side that is never heard has this reach: it takes 30 bits to write the largest window.
const UNHEARD_REACH: u16 = 31 << REACH_SHIFT;
/// The side of a server that answers past us: it is taken to do what the client believes that it did. It completes the
/// handshake and is done as soon as the client is.
pub const UNHEARD: Mark = Mark {
    bits: SYN | ACK | FIN | UNHEARD_REACH,
    number: 0,
};

/// What a segment may be from the end of its side to be believed without a look at the window that the other granted.
const NEAR: u32 = 1 << 16;
/// Data of a first segment (RFC 7413), which the other side may acknowledge or not.
const FAST_OPEN_MAX: u32 = 1460;

/// What it takes to know of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// As in the header.
    pub sequence: u32,
    /// As in the header; of no meaning without the flag.
    pub acknowledgment: u32,
    /// As in the header, not scaled.
    pub window: u16,
    /// As in the header: see [`flag`].
    pub flags: u8,
    /// Bytes of data.
    pub length: u16,
    /// Of the window scale option, where there is one. Only read where SYN is set.
    pub scale: Option<u8>,
}

/// Bits of [`Segment::flags`] (RFC 9293 section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Sequence numbers begin here.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgment number means something.
    pub const ACK: u8 = 16;
}

impl Segment {
    /// Reads a transport header and what follows, up to the end of the IP packet; `None` where it is no TCP header.
    #[inline(always)]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<20>()?;
        let options_end = usize::from(head[12] >> 4) * 4;
        let options = bytes.get(20..options_end)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some(Self {
            sequence: word(4),
            acknowledgment: word(8),
            window: u16::from_be_bytes([head[14], head[15]]),
            flags: head[13],
            length: (bytes.len() - options_end) as u16,
            scale: if head[13] & flag::SYN != 0 {
                scale(options)
            } else {
                None
            },
        })
    }

    #[inline(always)]
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The first sequence number behind it.
    #[inline(always)]
    fn end(&self) -> u32 {
        let controls = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        self.sequence.wrapping_add(u32::from(self.length) + controls)
    }
}

/// The window scale option (RFC 7323 section 2.2).
fn scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match *options {
            [3, 3, shift, ..] => return Some(shift.min(SCALE_MAX)),
            [0, ..] | [] => return None,
            [1, ref rest @ ..] => options = rest,
            [_, length, ..] if length >= 2 => options = options.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

/// The mark of the side that opens a connection with this segment; `None` where it does not open one: packets from
/// mid-stream and odd combinations of flags.
#[inline]
pub fn opens(segment: &Segment) -> Option<Mark> {
    let only_syn = segment.flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST) == flag::SYN;
    only_syn.then(|| begin(segment))
}

/// What a segment of one side does. `mine` is its own mark; the other side's is asked for only when it matters, as it
/// stands in another line.
#[inline]
pub fn follow(mine: Mark, other: impl FnOnce() -> Mark, segment: &Segment) -> Outcome {
    let plain = !segment.has(flag::SYN | flag::FIN | flag::RST);
    if plain && mine.bits & (OPEN | FIN | RST) == OPEN {
        let end = segment.end();
        let (before, after) = (
            segment.sequence.wrapping_sub(mine.number),
            end.wrapping_sub(mine.number),
        );
        // What continues the stream, or repeats a part of it.
        let continues = after <= NEAR && (before == 0 || before > NEAR.wrapping_neg());
        if continues || after > NEAR.wrapping_neg() {
            let next = Mark {
                bits: reach(mine.bits, segment),
                number: if continues { end } else { mine.number },
            };
            return if next == mine {
                Outcome::Same
            } else {
                Outcome::Becomes(next)
            };
        }
    }
    unusual(mine, other(), segment)
}

/// Where a connection stands.
pub fn phase(there: Mark, back: Mark) -> Phase {
    let (all, any) = (there.bits & back.bits, there.bits | back.bits);
    match () {
        () if any & RST != 0 => Phase::Reset,
        () if all & FIN != 0 => Phase::Closing,
        () if all & OPEN == OPEN => Phase::Established,
        () => Phase::Opening,
    }
}

/// Whether both sides have ever completed the handshake.
pub fn is_confirmed(there: Mark, back: Mark) -> bool {
    there.bits & back.bits & OPEN == OPEN
}

#[cold]
fn unusual(mine: Mark, other: Mark, segment: &Segment) -> Outcome {
    let next = match (segment.has(flag::SYN), segment.has(flag::RST)) {
        (true, true) => return Outcome::Same,
        (true, false) if segment.has(flag::FIN) => return Outcome::Same,
        (true, false) if !segment.has(flag::ACK) && is_over(mine, other) => return Outcome::Reopens,
        (true, false) => acknowledge(synchronise(mine, other, segment), other, segment),
        (false, true) => reset(mine, other, segment),
        (false, false) => proceed(mine, other, segment),
    };
    if next == mine {
        Outcome::Same
    } else {
        Outcome::Becomes(next)
    }
}

fn is_over(mine: Mark, other: Mark) -> bool {
    matches!(phase(mine, other), Phase::Closing | Phase::Reset)
}

/// A side as its first segment leaves it.
fn begin(segment: &Segment) -> Mark {
    let scale = segment.scale.map_or(NO_SCALE, u16::from);
    let mark = Mark {
        bits: SYN | scale << SCALE_SHIFT,
        number: segment.end(),
    };
    Mark {
        bits: reach(mark.bits, segment),
        ..mark
    }
}

/// A SYN, or a SYN with an acknowledgment.
fn synchronise(mine: Mark, other: Mark, segment: &Segment) -> Mark {
    let answers = segment.has(flag::ACK);
    // What acknowledges nothing that was sent is made up, or of an old connection (RFC 9293 section 3.10.7.3).
    if answers && !(other.bits & SYN != 0 && meets(segment.acknowledgment, other.number)) {
        return mine;
    }
    // Begun anew by a host that forgot, or for the first time; simultaneous open comes here, too (RFC 5382, REQ-2).
    if mine.bits & SYN == 0 || mine.bits & ACK == 0 && (other.bits & ACK == 0 || is_unheard(other)) {
        return begin(segment);
    }
    mine
}

/// A reset is believed if its receiver can have been waiting for it (RFC 9293 section 3.10.7).
fn reset(mine: Mark, other: Mark, segment: &Segment) -> Mark {
    let is_due = if mine.bits & SYN == 0 {
        // Refused: it has to acknowledge the SYN.
        segment.has(flag::ACK) && meets(segment.acknowledgment, other.number)
    } else if is_unheard(other) {
        // What the server granted is not known.
        segment.sequence.wrapping_sub(mine.number).wrapping_add(NEAR) <= 2 * NEAR
    } else {
        is_in_window(mine, other, segment)
    };
    Mark {
        bits: if is_due { mine.bits | RST } else { mine.bits },
        ..mine
    }
}

/// Data, acknowledgments and the end.
fn proceed(mine: Mark, other: Mark, segment: &Segment) -> Mark {
    if mine.bits & SYN == 0 || !is_in_window(mine, other, segment) {
        return mine;
    }
    let mine = acknowledge(mine, other, segment);
    let ahead = segment.end().wrapping_sub(mine.number).cast_signed();
    let fin = if segment.has(flag::FIN) { FIN } else { 0 };
    // Who goes on sending was not reset, whatever somebody said (RFC 7857 section 2.2).
    let bits = reach(mine.bits & !RST | fin, segment);
    Mark {
        bits,
        number: mine.number.wrapping_add(ahead.max(0).cast_unsigned()),
    }
}

/// Marks the side that acknowledged the other's SYN; from then on both know whether windows are scaled.
fn acknowledge(mine: Mark, other: Mark, segment: &Segment) -> Mark {
    let both_began = mine.bits & other.bits & SYN != 0;
    let news = both_began && mine.bits & ACK == 0 && segment.has(flag::ACK);
    if !news || !is_unheard(other) && !meets(segment.acknowledgment, other.number) {
        return mine;
    }
    let scale_bits = NO_SCALE << SCALE_SHIFT;
    let unscaled = other.bits & scale_bits == scale_bits;
    Mark {
        bits: (if unscaled { mine.bits | scale_bits } else { mine.bits }) | ACK,
        ..mine
    }
}

fn is_unheard(side: Mark) -> bool {
    side.bits & UNHEARD_REACH == UNHEARD_REACH
}

/// Whether an acknowledgment is of a SYN whose side ends at `end`.
fn meets(acknowledgment: u32, end: u32) -> bool {
    end.wrapping_sub(acknowledgment) <= FAST_OPEN_MAX
}

/// Whether a segment lies within a window of the end of its side, before it or behind it.
fn is_in_window(mine: Mark, other: Mark, segment: &Segment) -> bool {
    let window = 1i32 << (other.bits >> REACH_SHIFT & 31).min(30);
    let distance = |sequence: u32| sequence.wrapping_sub(mine.number).cast_signed();
    let (from, to) = (distance(segment.sequence), distance(segment.end()));
    from >= -window && from <= to && to <= window
}

/// The bits of a side with the window of one more segment: kept as the power of two that holds the largest.
#[inline(always)]
fn reach(bits: u16, segment: &Segment) -> u16 {
    let scale = match bits >> SCALE_SHIFT & 15 {
        NO_SCALE => 0,
        _ if segment.has(flag::SYN) => 0,
        scale => scale,
    };
    let window = u32::from(segment.window) << scale;
    let new = (u32::BITS - window.leading_zeros()) as u16;
    let old = bits >> REACH_SHIFT & 31;
    bits & !(31 << REACH_SHIFT) | old.max(new) << REACH_SHIFT
}

#[cfg(test)]
#[path = "tcp/tests.rs"]
mod tests;
