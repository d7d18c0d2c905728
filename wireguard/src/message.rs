//! The four messages, byte for byte (5.4.2, 5.4.3, 5.4.6, 5.4.7).

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of a message: its type, and three zeros (read as one number, as its makers do).
pub const INITIATION: u32 = 1;
/// See [`INITIATION`].
pub const RESPONSE: u32 = 2;
/// See [`INITIATION`].
pub const COOKIE_REPLY: u32 = 3;
/// See [`INITIATION`].
pub const TRANSPORT: u32 = 4;

/// Bytes of the authentication tag behind everything that is encrypted.
pub const TAG: usize = 16;
/// Bytes of both MACs at the end of an initiation and a response.
pub const MACS: usize = size_of::<Macs>();
/// Bytes in front of an encrypted packet.
pub const TRANSPORT_HEADER: usize = size_of::<TransportHeader>();
/// Packets are padded to a multiple of this before they are encrypted (5.4.6), so that lengths tell less.
pub const PADDING: usize = 16;

/// First message: the initiator says who it is.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Initiation {
    /// [`INITIATION`].
    pub kind: U32,
    /// By which the initiator finds its session.
    pub sender: U32,
    /// Public key made for this handshake.
    pub ephemeral: [u8; 32],
    /// Public key of the initiator.
    pub encrypted_static: [u8; 32 + TAG],
    /// When, as TAI64N.
    pub encrypted_timestamp: [u8; 12 + TAG],
    /// Proof of knowing whom it is for, and of owning the address.
    pub macs: Macs,
}

/// Second message: the responder agrees.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Response {
    /// [`RESPONSE`].
    pub kind: U32,
    /// By which the responder finds its session.
    pub sender: U32,
    /// The initiator's index.
    pub receiver: U32,
    /// Public key made for this handshake.
    pub ephemeral: [u8; 32],
    /// The tag of an empty text.
    pub encrypted_nothing: [u8; TAG],
    /// As in [`Initiation`].
    pub macs: Macs,
}

/// End of the first two messages (5.4.4).
#[derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Macs {
    /// Under the receiver's public key: the sender knows whom it talks to.
    pub mac1: [u8; 16],
    /// Under a cookie that was sent to the sender's address; zeros when it has none.
    pub mac2: [u8; 16],
}

/// Answer of a busy receiver: prove that the address is yours, then ask again.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CookieReply {
    /// [`COOKIE_REPLY`].
    pub kind: U32,
    /// Index of the sender of the message this answers.
    pub receiver: U32,
    /// Random.
    pub nonce: [u8; 24],
    /// The cookie.
    pub encrypted_cookie: [u8; 16 + TAG],
}

/// In front of each encrypted packet; its tag stands behind.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TransportHeader {
    /// [`TRANSPORT`].
    pub kind: U32,
    /// The receiver's index.
    pub receiver: U32,
    /// Number of this packet in its session.
    pub counter: U64,
}

// The sizes of the whitepaper's figures.
const _: () = assert!(size_of::<Initiation>() == 148 && size_of::<Response>() == 92);
const _: () = assert!(size_of::<CookieReply>() == 64 && TRANSPORT_HEADER == 16);

/// A message, told apart by type and length.
#[derive(Debug)]
pub enum Message<'a> {
    /// See [`Initiation`].
    Initiation(&'a Initiation),
    /// See [`Response`].
    Response(&'a Response),
    /// See [`CookieReply`].
    CookieReply(&'a CookieReply),
    /// Header, and the encrypted packet with its tag (16 bytes and more).
    Transport(&'a TransportHeader, &'a [u8]),
}

/// Neither type nor length of a message that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard message: its type and length do not fit")]
pub struct Malformed;

/// Tells what `bytes` are.
///
/// # Errors
/// [`Malformed`] if they are no message.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let (kind, _) = U32::ref_from_prefix(bytes).map_err(|_| Malformed)?;
    match kind.get() {
        INITIATION => exactly(bytes).map(Message::Initiation),
        RESPONSE => exactly(bytes).map(Message::Response),
        COOKIE_REPLY => exactly(bytes).map(Message::CookieReply),
        TRANSPORT => match TransportHeader::ref_from_prefix(bytes) {
            Ok((header, rest)) if rest.len() >= TAG => Ok(Message::Transport(header, rest)),
            _ => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}

fn exactly<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Result<&T, Malformed> {
    T::ref_from_bytes(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_length_is_a_message() {
        for (kind, length) in [(INITIATION, 148), (RESPONSE, 92), (COOKIE_REPLY, 64)] {
            let mut bytes = [0; 200];
            bytes[0] = kind as u8;
            let fits: Vec<usize> = (0..200).filter(|&n| parse(&bytes[..n]).is_ok()).collect();
            assert_eq!(fits, [length]);
        }
        let mut bytes = [0; 64];
        bytes[0] = TRANSPORT as u8;
        let first = (0..64).find(|&n| parse(&bytes[..n]).is_ok());
        assert_eq!(first, Some(32), "a header and a tag");
        let Ok(Message::Transport(_, rest)) = parse(&bytes) else {
            panic!("a packet")
        };
        assert_eq!(rest.len(), 48);
    }

    #[test]
    fn other_types_and_reserved_bits_are_refused() {
        for kind in (0..=u8::MAX).filter(|kind| !(1..=4).contains(kind)) {
            let mut bytes = [0; 148];
            bytes[0] = kind;
            assert!(parse(&bytes).is_err());
        }
        let mut bytes = [0; 148];
        bytes[0] = 1;
        assert!(parse(&bytes).is_ok());
        bytes[3] = 1;
        assert!(parse(&bytes).is_err());
    }
}
