//! Frames of Felix's protocol: a length in bytes (64 bits, little-endian), then that many bytes.

/// The longest message that is taken: a set of a million members has some 20 MiB.
pub const MESSAGE_MAX: u64 = 64 << 20;
/// Bytes of the length.
const HEAD: usize = 8;

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nobody sends that much; more likely these are no frames.
    #[error("a message is announced with {0} bytes, and {MESSAGE_MAX} are the most; is it Felix that speaks?")]
    TooLong(u64),
    /// It ended within a message.
    #[error("the stream ended within a message: {0} bytes of it came")]
    Truncated(usize),
}

/// A stream of bytes, cut into messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Frames {
    /// What has come is added here, at the end.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..std::mem::take(&mut self.at));
        &mut self.bytes
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// It is longer than [`MESSAGE_MAX`].
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.bytes[self.at..];
        let Some(head) = rest.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u64::from_le_bytes(*head);
        if length > MESSAGE_MAX {
            return Err(FrameError::TooLong(length));
        }
        let end = HEAD + length as usize;
        let message = rest.get(HEAD..end);
        self.at += message.map_or(0, |_| end);
        Ok(message)
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// A message had begun.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(FrameError::Truncated(left)),
        }
    }
}

/// A message as a frame, put behind others.
pub fn put(frames: &mut Vec<u8>, message: &impl prost::Message) {
    frames.extend((message.encoded_len() as u64).to_le_bytes());
    frames.extend(message.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u64).to_le_bytes(), message].concat()
    }

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let stream = [frame(b"one"), frame(b""), frame(b"three")].concat();
        for cut in 1..=stream.len() {
            let (mut frames, mut messages) = (Frames::default(), vec![]);
            for piece in stream.chunks(cut) {
                frames.bytes().extend(piece);
                while let Some(message) = frames.next_message().unwrap() {
                    messages.push(message.to_vec());
                }
            }
            assert_eq!(messages, [&b"one"[..], b"", b"three"], "pieces of {cut}");
            assert_eq!(frames.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_too_long_or_ends_early_is_said() {
        let mut frames = Frames::default();
        frames.bytes().extend((MESSAGE_MAX + 1).to_le_bytes());
        assert_eq!(frames.next_message(), Err(FrameError::TooLong(MESSAGE_MAX + 1)));
        let mut frames = Frames::default();
        frames.bytes().extend(&frame(b"whole")[..10]);
        assert_eq!(frames.next_message(), Ok(None));
        assert_eq!(frames.finish(), Err(FrameError::Truncated(10)));
    }
}
