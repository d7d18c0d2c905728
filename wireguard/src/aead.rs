//! ChaCha20-Poly1305 (RFC 8439) for whole vectors of transport packets, each with a key, counter and length of its own.
//!
//! A packet's nonce is WireGuard's: four zero bytes, then its counter in little-endian order; there is no additional
//! data. Text and sealed form are different buffers, so that the result can stand at another offset of another frame for
//! nothing, or the same ([`Seal::in_place`], [`Open::in_place`]); a call takes both kinds side by side. [`Aead::best`]
//! chooses by the processor, once:
//!
//! * `avx512` (with IFMA and VBMI2: Ice Lake, Zen 4 and later): 16 ChaCha20 blocks and 8 Poly1305 sums abreast;
//! * `avx2`: 8 blocks and 4 sums abreast, for three short packets and more: with long ones ring is as fast;
//! * `ring`, a packet at a time, elsewhere, and on the others where most lanes would be empty.
//!
//! Nothing branches on, or indexes by, a secret; `constant_time.rs` checks that where valgrind can. Keys and keystream
//! in named buffers are wiped when these go out of scope, and what the compiler spilled to the stack after each call;
//! vector registers are left to the next packet.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(all(test, target_arch = "x86_64"))]
mod constant_time;
mod portable;
#[cfg(all(test, target_arch = "x86_64"))]
mod vectors;

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use batch::Secrets;
use zeroize::{Zeroize, ZeroizeOnDrop, zeroize_stack};

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;
/// Bytes that a sealed packet is longer than its text.
pub const TAG_LENGTH: usize = 16;
/// The longest text, in bytes: more than an IP packet can have.
pub const MAX_TEXT: usize = 1 << 16;
/// Packets that share their lanes. A call takes any number, and works through it in batches of so many.
pub const BATCH: usize = 64;

/// Bytes of stack wiped after a call: more than the functions behind it use at their deepest, as `tests/aead_wipe.rs`
/// sees. (Optimised they take 4 KiB, their callers' named secrets not counted.)
const STACK: usize = if cfg!(debug_assertions) { 32 << 10 } else { 6 << 10 };

/// A secret key. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_LENGTH]);

impl From<[u8; KEY_LENGTH]> for Key {
    fn from(bytes: [u8; KEY_LENGTH]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Why buffers do not fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The text is longer than [`MAX_TEXT`].
    #[error("a text of {0} bytes is too long to seal: give at most {MAX_TEXT}")]
    TooLong(usize),
    /// The sealed form has no room for a tag.
    #[error("{0} bytes are no sealed packet, nor room for one: it has at least the {TAG_LENGTH} of the tag")]
    NoTag(usize),
    /// The target is not as long as the result.
    #[error("the result has {result} bytes and its target {target}: give a target of just that length")]
    Target {
        /// Bytes of the result.
        result: usize,
        /// Bytes of the target given for it.
        target: usize,
    },
}

/// What both directions know of a packet.
#[derive(Clone, Copy)]
struct Head<'a> {
    key: &'a [u8; KEY_LENGTH],
    counter: u64,
    /// Bytes of the text.
    length: usize,
}

impl<'a> Head<'a> {
    fn new(key: &'a Key, counter: u64, length: usize) -> Result<Self, LengthError> {
        if length > MAX_TEXT {
            return Err(LengthError::TooLong(length));
        }
        let key = &key.0;
        Ok(Self { key, counter, length })
    }
}

/// A packet to seal.
pub struct Seal<'a> {
    head: Head<'a>,
    /// None if the text is where the ciphertext will be.
    text: Option<&'a [u8]>,
    ciphertext: &'a mut [u8],
    tag: &'a mut [u8; TAG_LENGTH],
}

impl<'a> Seal<'a> {
    /// Seals `text` into `sealed`, which is [`TAG_LENGTH`] longer. No other text may ever be sealed under the same key
    /// and counter.
    ///
    /// # Errors
    /// [`LengthError`] when `text` is longer than [`MAX_TEXT`], or `sealed` has another length.
    pub fn new(key: &'a Key, counter: u64, text: &'a [u8], sealed: &'a mut [u8]) -> Result<Self, LengthError> {
        let (head, target) = (Head::new(key, counter, text.len())?, sealed.len());
        match sealed.split_last_chunk_mut() {
            Some((ciphertext, tag)) if ciphertext.len() == text.len() => Ok(Self {
                head,
                text: Some(text),
                ciphertext,
                tag,
            }),
            _ => Err(LengthError::Target {
                result: text.len() + TAG_LENGTH,
                target,
            }),
        }
    }

    /// Seals `buffer` where it stands: the text, and room for the tag in its last [`TAG_LENGTH`] bytes. No other text may
    /// ever be sealed under the same key and counter.
    ///
    /// # Errors
    /// [`LengthError`] when `buffer` is shorter than a tag, or the text longer than [`MAX_TEXT`].
    pub fn in_place(key: &'a Key, counter: u64, buffer: &'a mut [u8]) -> Result<Self, LengthError> {
        let room = buffer.len();
        let (ciphertext, tag) = buffer.split_last_chunk_mut().ok_or(LengthError::NoTag(room))?;
        Ok(Self {
            head: Head::new(key, counter, ciphertext.len())?,
            text: None,
            ciphertext,
            tag,
        })
    }
}

/// A packet to open.
pub struct Open<'a> {
    head: Head<'a>,
    /// None if it is where the text will be.
    ciphertext: Option<&'a [u8]>,
    tag: &'a [u8; TAG_LENGTH],
    text: &'a mut [u8],
    opened: bool,
}

impl<'a> Open<'a> {
    /// Opens `sealed` into `text`, which is [`TAG_LENGTH`] shorter.
    ///
    /// # Errors
    /// [`LengthError`] when `sealed` is shorter than a tag or longer than any packet that is sealed here, or `text` has
    /// another length.
    pub fn new(key: &'a Key, counter: u64, sealed: &'a [u8], text: &'a mut [u8]) -> Result<Self, LengthError> {
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(LengthError::NoTag(sealed.len()))?;
        let head = Head::new(key, counter, ciphertext.len())?;
        if text.len() != head.length {
            return Err(LengthError::Target {
                result: head.length,
                target: text.len(),
            });
        }
        Ok(Self {
            head,
            ciphertext: Some(ciphertext),
            tag,
            text,
            opened: false,
        })
    }

    /// Opens `buffer`, a ciphertext and its tag, where it stands: the text takes the ciphertext's place, and the tag
    /// stays. If the packet is not authentic, zeros take that place, as with [`new`](Self::new).
    ///
    /// # Errors
    /// [`LengthError`] when `buffer` is shorter than a tag or longer than any packet that is sealed here.
    pub fn in_place(key: &'a Key, counter: u64, buffer: &'a mut [u8]) -> Result<Self, LengthError> {
        let length = buffer.len();
        let (text, tag) = buffer.split_last_chunk_mut().ok_or(LengthError::NoTag(length))?;
        Ok(Self {
            head: Head::new(key, counter, text.len())?,
            ciphertext: None,
            tag,
            text,
            opened: false,
        })
    }

    fn ciphertext(&self) -> &[u8] {
        self.ciphertext.unwrap_or(self.text)
    }

    /// Whether the packet was authentic and its text is there. If not, the target holds zeros; before
    /// [`Aead::open`], what it held.
    #[must_use]
    pub fn opened(&self) -> bool {
        self.opened
    }
}

/// A way to do the work that this processor is capable of.
#[derive(Clone, Copy, Debug)]
pub struct Aead(Way);

#[derive(Clone, Copy, Debug)]
enum Way {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Ring,
}

impl Aead {
    /// The fastest way there is here. The processor is asked once.
    pub fn best() -> Self {
        static BEST: OnceLock<Aead> = OnceLock::new();
        *BEST.get_or_init(|| Self::all()[0])
    }

    /// Every way there is here, the fastest first.
    pub fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = [
            avx512::Avx512::detect().map(Way::Avx512),
            avx2::Avx2::detect().map(Way::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let wide: [Option<Way>; 0] = [];
        wide.into_iter().flatten().chain([Way::Ring]).map(Self).collect()
    }

    /// What it is called: `avx512`, `avx2` or `ring`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Way::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(_) => "avx2",
            Way::Ring => "ring",
        }
    }

    /// Seals every packet: writes ciphertext and tag to its target.
    pub fn seal(self, packets: &mut [Seal<'_>]) {
        self.seal_all(packets);
        zeroize_stack::<STACK>();
    }

    #[inline(always)]
    fn seal_all(self, packets: &mut [Seal<'_>]) {
        // Wiped where it stands: to move it would leave a copy.
        #[cfg(target_arch = "x86_64")]
        let mut secrets = None;
        for packets in packets.chunks_mut(BATCH) {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Way::Avx512(lanes) if avx512::pays(packets.iter().map(|packet| packet.head.length)) => {
                    batch::seal(lanes, secrets.get_or_insert_with(Secrets::new), packets);
                }
                #[cfg(target_arch = "x86_64")]
                Way::Avx2(lanes) if avx2::pays(packets.iter().map(|packet| packet.head.length)) => {
                    batch::seal(lanes, secrets.get_or_insert_with(Secrets::new), packets);
                }
                _ => packets.iter_mut().for_each(portable::seal),
            }
        }
    }

    /// Opens every packet that is authentic, as [`Open::opened`] then says. A tag is compared before any plaintext is
    /// written; only ring, which does both at once, lends the target to plaintext until the call returns.
    pub fn open(self, packets: &mut [Open<'_>]) {
        self.open_all(packets);
        zeroize_stack::<STACK>();
    }

    #[inline(always)]
    fn open_all(self, packets: &mut [Open<'_>]) {
        // Wiped where it stands: to move it would leave a copy.
        #[cfg(target_arch = "x86_64")]
        let mut secrets = None;
        for packets in packets.chunks_mut(BATCH) {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Way::Avx512(lanes) if avx512::pays(packets.iter().map(|packet| packet.head.length)) => {
                    batch::open(lanes, secrets.get_or_insert_with(Secrets::new), packets);
                }
                #[cfg(target_arch = "x86_64")]
                Way::Avx2(lanes) if avx2::pays(packets.iter().map(|packet| packet.head.length)) => {
                    batch::open(lanes, secrets.get_or_insert_with(Secrets::new), packets);
                }
                _ => packets.iter_mut().for_each(portable::open),
            }
        }
    }
}
