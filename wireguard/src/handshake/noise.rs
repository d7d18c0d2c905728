//! The functions and the running state of Noise (5.4; Noise Protocol Framework, revision 34, section 5.2).

use crate::message::TAG;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use hmac::SimpleHmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key that is wiped when it is dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// What both sides agree on while they talk: the chaining key and the hash of all that was said.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Symmetric {
    chain: [u8; 32],
    hash: [u8; 32],
}

impl Symmetric {
    /// Before the first message to whoever has the static key `responder`.
    pub fn new(responder: &[u8; 32]) -> Self {
        let chain = hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]);
        let start = hash(&[&chain, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
        Self {
            chain,
            hash: hash(&[&start, responder]),
        }
    }

    /// Something both have seen.
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// Something only they know, or may know.
    pub fn mix_key(&mut self, input: &[u8]) {
        let [chain] = derive(&self.chain, input);
        self.chain = *chain;
    }

    /// The same, and a key for what comes next.
    pub fn mix_key_for(&mut self, input: &[u8]) -> Key {
        let [chain, key] = derive(&self.chain, input);
        self.chain = *chain;
        key
    }

    /// The key shared beforehand, and a key for what comes next.
    pub fn mix_psk(&mut self, psk: &[u8; 32]) -> Key {
        let [chain, mixed, key] = derive(&self.chain, psk);
        self.chain = *chain;
        self.mix_hash(&*mixed);
        key
    }

    /// Encrypts in place; `data` ends with room for the tag.
    pub fn seal(&mut self, key: &Key, data: &mut [u8]) {
        let (text, tag) = data.split_at_mut(data.len() - TAG);
        tag.copy_from_slice(&seal(key, 0, &self.hash, text));
        self.mix_hash(data);
    }

    /// The inverse of [`seal`](Self::seal): the text, or `None` if it is not authentic.
    pub fn open<const SEALED: usize, const TEXT: usize>(
        &mut self,
        key: &Key,
        data: &[u8; SEALED],
    ) -> Option<[u8; TEXT]> {
        const { assert!(SEALED == TEXT + TAG) };
        let (mut text, mut tag) = ([0; TEXT], [0; TAG]);
        text.copy_from_slice(&data[..TEXT]);
        tag.copy_from_slice(&data[TEXT..]);
        open(key, 0, &self.hash, &mut text, &tag).then_some(())?;
        self.mix_hash(data);
        Some(text)
    }

    /// The keys of the session: the initiator's for sending, and the responder's.
    pub fn split(&self) -> [Key; 2] {
        derive(&self.chain, &[])
    }
}

/// BLAKE2s of the parts, one behind the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    parts.iter().for_each(|part| state.update(part));
    state.finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output, of the parts one behind the other; keys have 16 or 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    type Keyed = Blake2sMac<blake2::digest::consts::U16>;
    let mut state = <Keyed as KeyInit>::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 bytes");
    parts.iter().for_each(|part| Mac::update(&mut state, part));
    state.finalize().into_bytes().into()
}

/// HKDF with HMAC-BLAKE2s (RFC 5869), as many keys as asked for.
fn derive<const N: usize>(chain: &[u8; 32], input: &[u8]) -> [Key; N] {
    let secret = Zeroizing::new(hmac(chain, &[input]));
    let mut last = Zeroizing::new([0; 32]);
    let mut count = 0;
    std::array::from_fn(|_| {
        let before: &[u8] = if count == 0 { &[] } else { &*last };
        count += 1;
        *last = hmac(&secret, &[before, &[count]]);
        last.clone()
    })
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut state = <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| Mac::update(&mut state, part));
    state.finalize().into_bytes().into()
}

/// ChaCha20-Poly1305 in place (RFC 8439), with WireGuard's nonce: 32 zero bits and the counter. Returns the tag.
pub(crate) fn seal(key: &[u8; 32], counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let cipher = ChaCha20Poly1305::new(key.into());
    let tag = cipher.encrypt_inout_detached(&nonce(counter).into(), associated, text.into());
    tag.expect("shorter than 256 GiB").into()
}

/// The inverse of [`seal`]: whether the tag is right; if not, `text` is not to be used.
#[must_use]
pub(crate) fn open(key: &[u8; 32], counter: u64, associated: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
    let cipher = ChaCha20Poly1305::new(key.into());
    let opened = cipher.decrypt_inout_detached(&nonce(counter).into(), associated, text.into(), tag.into());
    opened.is_ok()
}

/// XChaCha20-Poly1305 in place, for cookies. Returns the tag.
pub(crate) fn seal_x(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let cipher = XChaCha20Poly1305::new(key.into());
    let tag = cipher.encrypt_inout_detached(nonce.into(), associated, text.into());
    tag.expect("shorter than 256 GiB").into()
}

/// The inverse of [`seal_x`].
#[must_use]
pub(crate) fn open_x(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher
        .decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
        .is_ok()
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn blake2s_is_that_of_rfc_7693() {
        let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hex(&hash(&[b"a", b"bc"])), expected, "appendix B");
    }

    #[test]
    fn hkdf_is_chained_hmac() {
        let [one, two, three] = derive::<3>(&[7; 32], b"input");
        let secret = hmac(&[7; 32], &[b"input"]);
        assert_eq!(*one, hmac(&secret, &[&[1]]));
        assert_eq!(*two, hmac(&secret, &[&*one, &[2]]));
        assert_eq!(*three, hmac(&secret, &[&*two, &[3]]));
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_history_only() {
        let (mut alice, mut bob) = (Symmetric::new(&[1; 32]), Symmetric::new(&[1; 32]));
        let mut data = [0; 5 + TAG];
        data[..5].copy_from_slice(b"hello");
        let key = alice.mix_key_for(b"secret");
        alice.seal(&key, &mut data);
        let key = bob.mix_key_for(b"secret");
        assert_eq!(Symmetric::new(&[2; 32]).open::<21, 5>(&key, &data), None);
        assert_eq!(bob.open::<21, 5>(&key, &data).as_ref(), Some(b"hello"));
        assert_eq!((alice.chain, alice.hash), (bob.chain, bob.hash));
    }
}
