//! Noise_IKpsk2, both roles (5.4.2, 5.4.3, 5.4.5): plain functions of keys and messages.
//!
//! What a peer may not say again (timestamps, indices, MACs) is judged elsewhere; here is only who it is.

pub(crate) mod noise;

use crate::message::{INITIATION, Initiation, Macs, RESPONSE, Response};
use noise::{Key, Symmetric, hash};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A moment as TAI64N: seconds and nanoseconds, big-endian, so later ones are greater.
pub type Timestamp = [u8; 12];

/// Who we are.
pub struct Identity {
    secret: StaticSecret,
    public: [u8; 32],
    /// Under which MACs of messages to us are made.
    pub(crate) mac1_key: [u8; 32],
    /// Under which cookies of ours are encrypted.
    pub(crate) cookie_key: [u8; 32],
}

impl Identity {
    /// Of a private key.
    pub fn new(private: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*private);
        let public = PublicKey::from(&secret).to_bytes();
        Self {
            secret,
            public,
            mac1_key: mac1_key(&public),
            cookie_key: cookie_key(&public),
        }
    }

    /// What others know us by.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }
}

/// A public key with which no secret can be agreed on: it is of low order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not one that WireGuard makes (a point of low order); check where it comes from")]
pub struct WeakKey;

/// What we know about a peer.
pub struct PeerKeys {
    public: [u8; 32],
    psk: Key,
    /// Diffie-Hellman of both static keys; it is the same in every handshake.
    shared: Key,
    /// As in [`Identity`], for messages to the peer.
    pub(crate) mac1_key: [u8; 32],
    /// As in [`Identity`], for cookies from the peer.
    pub(crate) cookie_key: [u8; 32],
}

impl PeerKeys {
    /// A peer by its public key; without a preshared key `psk` is zeros.
    ///
    /// # Errors
    /// [`WeakKey`]
    pub fn new(identity: &Identity, public: [u8; 32], psk: &[u8; 32]) -> Result<Self, WeakKey> {
        Ok(Self {
            public,
            psk: Zeroizing::new(*psk),
            shared: agree(&identity.secret, &public).ok_or(WeakKey)?,
            mac1_key: mac1_key(&public),
            cookie_key: cookie_key(&public),
        })
    }

    /// What the peer is known by.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Another preshared key; the next handshake needs it.
    pub fn set_psk(&mut self, psk: &[u8; 32]) {
        self.psk = Zeroizing::new(*psk);
    }
}

/// Keys of a session, ours for sending and theirs.
pub struct Keys {
    /// For what we send.
    pub send: Zeroizing<[u8; 32]>,
    /// For what we receive.
    pub receive: Zeroizing<[u8; 32]>,
}

/// We have asked and wait for the answer. Its secrets are wiped when it is dropped.
pub struct Initiating {
    ephemeral: StaticSecret,
    symmetric: Symmetric,
}

/// Asks `peer` for a session that we shall know as `sender`; `random` has to be secret and new. MACs are still zeros.
pub fn initiate(
    identity: &Identity,
    peer: &PeerKeys,
    random: &[u8; 32],
    sender: u32,
    timestamp: &Timestamp,
) -> (Initiation, Initiating) {
    let ephemeral = StaticSecret::from(*random);
    let mut symmetric = Symmetric::new(&peer.public);
    let mut message = Initiation {
        kind: INITIATION.into(),
        sender: sender.into(),
        ephemeral: PublicKey::from(&ephemeral).to_bytes(),
        encrypted_static: [0; 48],
        encrypted_timestamp: [0; 28],
        macs: Macs::default(),
    };
    symmetric.mix_key(&message.ephemeral);
    symmetric.mix_hash(&message.ephemeral);

    let secret = Zeroizing::new(ephemeral.diffie_hellman(&PublicKey::from(peer.public)).to_bytes());
    let key = symmetric.mix_key_for(&*secret);
    message.encrypted_static[..32].copy_from_slice(&identity.public);
    symmetric.seal(&key, &mut message.encrypted_static);

    let key = symmetric.mix_key_for(&*peer.shared);
    message.encrypted_timestamp[..12].copy_from_slice(timestamp);
    symmetric.seal(&key, &mut message.encrypted_timestamp);
    (message, Initiating { ephemeral, symmetric })
}

/// Somebody asks us and says who it is; not proven yet.
pub struct Introduced {
    public: [u8; 32],
    symmetric: Symmetric,
}

impl Introduced {
    /// Reads who sent `message`; `None` if it is not for us.
    pub fn new(identity: &Identity, message: &Initiation) -> Option<Self> {
        let mut symmetric = Symmetric::new(&identity.public);
        symmetric.mix_key(&message.ephemeral);
        symmetric.mix_hash(&message.ephemeral);
        let secret = agree(&identity.secret, &message.ephemeral)?;
        let key = symmetric.mix_key_for(&*secret);
        let public = symmetric.open(&key, &message.encrypted_static)?;
        Some(Self { public, symmetric })
    }

    /// Public key of who it claims to be.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Proves that `message` is from `peer`, and tells when it was made; `None` if it is not.
    pub fn prove(mut self, peer: &PeerKeys, message: &Initiation) -> Option<(Timestamp, Asked)> {
        if !bool::from(self.public.ct_eq(&peer.public)) {
            return None;
        }
        let key = self.symmetric.mix_key_for(&*peer.shared);
        let timestamp = self.symmetric.open(&key, &message.encrypted_timestamp)?;
        let asked = Asked {
            ephemeral: message.ephemeral,
            sender: message.sender.get(),
            symmetric: self.symmetric,
        };
        Some((timestamp, asked))
    }
}

/// A peer has asked us.
pub struct Asked {
    ephemeral: [u8; 32],
    sender: u32,
    symmetric: Symmetric,
}

impl Asked {
    /// The peer's index.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Agrees to a session that we shall know as `sender`; `random` has to be secret and new. MACs are still zeros.
    /// `None` if the peer's keys are of low order, which honest ones are not.
    pub fn respond(mut self, peer: &PeerKeys, random: &[u8; 32], sender: u32) -> Option<(Response, Keys)> {
        let ephemeral = StaticSecret::from(*random);
        let mut message = Response {
            kind: RESPONSE.into(),
            sender: sender.into(),
            receiver: self.sender.into(),
            ephemeral: PublicKey::from(&ephemeral).to_bytes(),
            encrypted_nothing: [0; 16],
            macs: Macs::default(),
        };
        self.symmetric.mix_key(&message.ephemeral);
        self.symmetric.mix_hash(&message.ephemeral);
        self.symmetric.mix_key(&*agree(&ephemeral, &self.ephemeral)?);
        self.symmetric.mix_key(&*agree(&ephemeral, &peer.public)?);
        let key = self.symmetric.mix_psk(&peer.psk);
        self.symmetric.seal(&key, &mut message.encrypted_nothing);
        let [receive, send] = self.symmetric.split();
        Some((message, Keys { send, receive }))
    }
}

impl Initiating {
    /// Reads the answer; `None` if `peer` did not make it for what we asked.
    pub fn finish(&self, identity: &Identity, peer: &PeerKeys, message: &Response) -> Option<Keys> {
        let mut symmetric = self.symmetric.clone();
        symmetric.mix_key(&message.ephemeral);
        symmetric.mix_hash(&message.ephemeral);
        symmetric.mix_key(&*agree(&self.ephemeral, &message.ephemeral)?);
        symmetric.mix_key(&*agree(&identity.secret, &message.ephemeral)?);
        let key = symmetric.mix_psk(&peer.psk);
        let [] = symmetric.open(&key, &message.encrypted_nothing)?;
        let [send, receive] = symmetric.split();
        Some(Keys { send, receive })
    }
}

/// Diffie-Hellman; `None` if the result does not depend on our secret (RFC 7748, 6.1).
fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Option<Key> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

fn mac1_key(public: &[u8; 32]) -> [u8; 32] {
    hash(&[b"mac1----", public])
}

fn cookie_key(public: &[u8; 32]) -> [u8; 32] {
    hash(&[b"cookie--", public])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pair(psk: [u8; 32], other_psk: [u8; 32]) -> ([Identity; 2], [PeerKeys; 2]) {
        let ids = [Identity::new(&[1; 32]), Identity::new(&[2; 32])];
        let of_responder = PeerKeys::new(&ids[0], ids[1].public, &psk).unwrap();
        let of_initiator = PeerKeys::new(&ids[1], ids[0].public, &other_psk).unwrap();
        (ids, [of_responder, of_initiator])
    }

    #[test]
    fn both_sides_come_to_the_same_keys() {
        let ([alice, bob], [of_bob, of_alice]) = pair([9; 32], [9; 32]);
        let (question, waiting) = initiate(&alice, &of_bob, &[3; 32], 77, &[5; 12]);
        let introduced = Introduced::new(&bob, &question).unwrap();
        assert_eq!(introduced.public(), alice.public());
        let (timestamp, asked) = introduced.prove(&of_alice, &question).unwrap();
        assert_eq!((timestamp, asked.sender()), ([5; 12], 77));
        let (answer, theirs) = asked.respond(&of_alice, &[4; 32], 88).unwrap();
        assert_eq!((answer.sender.get(), answer.receiver.get()), (88, 77));
        let ours = waiting.finish(&alice, &of_bob, &answer).unwrap();
        assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send));
        assert_ne!(ours.send, ours.receive);
    }

    #[test]
    fn another_preshared_key_is_noticed_by_the_initiator() {
        let ([alice, bob], [of_bob, of_alice]) = pair([9; 32], [8; 32]);
        let (question, waiting) = initiate(&alice, &of_bob, &[3; 32], 77, &[5; 12]);
        let (_, asked) = Introduced::new(&bob, &question)
            .unwrap()
            .prove(&of_alice, &question)
            .unwrap();
        let (answer, _) = asked.respond(&of_alice, &[4; 32], 88).unwrap();
        assert!(waiting.finish(&alice, &of_bob, &answer).is_none());
    }

    #[test]
    fn a_stranger_is_not_taken_for_a_peer() {
        let ([alice, bob], [of_bob, _]) = pair([0; 32], [0; 32]);
        let (question, _) = initiate(&alice, &of_bob, &[3; 32], 1, &[0; 12]);
        let mallory = PeerKeys::new(&bob, *Identity::new(&[6; 32]).public(), &[0; 32]).unwrap();
        let introduced = Introduced::new(&bob, &question).unwrap();
        assert!(introduced.prove(&mallory, &question).is_none());
        assert!(Introduced::new(&alice, &question).is_none(), "not for this one");
    }

    #[test]
    fn points_of_low_order_are_refused() {
        let (alice, mut one) = (Identity::new(&[1; 32]), [0; 32]);
        assert_eq!(PeerKeys::new(&alice, one, &[0; 32]).err(), Some(WeakKey));
        one[0] = 1;
        assert_eq!(PeerKeys::new(&alice, one, &[0; 32]).err(), Some(WeakKey));
    }
}
