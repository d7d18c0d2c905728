//! MACs and cookies: handshakes cost their sender more than us (5.3, 5.4.4, 5.4.7).

mod limiter;

pub(crate) use limiter::Limiter;
pub use limiter::{BURST, PER_SECOND};

use crate::handshake::noise::{mac, open_x, seal_x};
use crate::handshake::{Identity, PeerKeys};
use crate::message::{COOKIE_REPLY, CookieReply, MACS, TAG};
use crate::timers::{COOKIE_LATENCY_NS, COOKIE_MAX_AGE_NS};
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What the MACs of a message prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    None,
    /// The sender knows our public key.
    Key,
    /// It also receives what is sent to its address.
    Address,
}

/// Checks MACs of messages to us, and makes cookies.
pub(crate) struct Checker {
    secret: Zeroizing<[u8; 32]>,
    made_ns: Option<u64>,
}

impl Checker {
    pub fn new() -> Self {
        Self {
            secret: Zeroizing::new([0; 32]),
            made_ns: None,
        }
    }

    /// What the last 32 bytes of an initiation or a response prove.
    pub fn check(&self, identity: &Identity, source: SocketAddr, message: &[u8], now_ns: u64) -> Proof {
        let Some((text, macs)) = message.split_last_chunk::<MACS>() else {
            return Proof::None;
        };
        let (mac1, mac2) = macs.split_at(16);
        if !bool::from(mac(&identity.mac1_key, &[text]).ct_eq(mac1)) {
            return Proof::None;
        }
        match self.fresh(now_ns) {
            true if bool::from(mac(&self.cookie(source), &[text, mac1]).ct_eq(mac2)) => Proof::Address,
            _ => Proof::Key,
        }
    }

    /// A cookie for the sender of `message`. `secret` is taken when ours is too old.
    pub fn reply(
        &mut self,
        identity: &Identity,
        (source, message): (SocketAddr, &[u8]),
        (secret, nonce): (&[u8; 32], [u8; 24]),
        now_ns: u64,
    ) -> Option<CookieReply> {
        if !self.fresh(now_ns) {
            *self.secret = *secret;
            self.made_ns = Some(now_ns);
        }
        let (_, sender) = message.split_first_chunk::<4>()?;
        let (_, macs) = message.split_last_chunk::<MACS>()?;
        let mut encrypted_cookie = [0; 16 + TAG];
        let (text, tag) = encrypted_cookie.split_at_mut(16);
        text.copy_from_slice(&self.cookie(source));
        tag.copy_from_slice(&seal_x(&identity.cookie_key, &nonce, &macs[..16], text));
        Some(CookieReply {
            kind: COOKIE_REPLY.into(),
            receiver: u32::from_le_bytes(*sender.first_chunk()?).into(),
            nonce,
            encrypted_cookie,
        })
    }

    fn fresh(&self, now_ns: u64) -> bool {
        self.made_ns
            .is_some_and(|made| now_ns.saturating_sub(made) < COOKIE_MAX_AGE_NS)
    }

    fn cookie(&self, source: SocketAddr) -> [u8; 16] {
        let port = source.port().to_be_bytes();
        match source.ip() {
            IpAddr::V4(address) => mac(&*self.secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&*self.secret, &[&address.octets(), &port]),
        }
    }
}

/// What we need for the MACs of messages to a peer.
#[derive(Default)]
pub(crate) struct Jar {
    /// The last cookie of the peer, and when it came.
    cookie: Option<([u8; 16], u64)>,
    /// Of the last message sent, until a cookie came for it.
    last_mac1: Option<[u8; 16]>,
}

impl Jar {
    /// Writes the MACs of `message`, an initiation or a response to `peer`.
    pub fn sign(&mut self, peer: &PeerKeys, message: &mut [u8], now_ns: u64) {
        let Some((text, macs)) = message.split_last_chunk_mut::<MACS>() else {
            return;
        };
        let mac1 = mac(&peer.mac1_key, &[text]);
        macs[..16].copy_from_slice(&mac1);
        self.last_mac1 = Some(mac1);
        let lasts_ns = COOKIE_MAX_AGE_NS - COOKIE_LATENCY_NS;
        match self.cookie {
            Some((cookie, since)) if now_ns.saturating_sub(since) < lasts_ns => {
                macs[16..].copy_from_slice(&mac(&cookie, &[text, &mac1]));
            }
            _ => self.cookie = None,
        }
    }

    /// Takes a cookie from `peer`; whether it is one, and for the last message that was sent.
    pub fn take(&mut self, peer: &PeerKeys, reply: &CookieReply, now_ns: u64) -> bool {
        let (Some(mac1), Some((text, tag))) = (self.last_mac1, reply.encrypted_cookie.split_last_chunk()) else {
            return false;
        };
        let mut cookie = [0; 16];
        cookie.copy_from_slice(text);
        let opened = open_x(&peer.cookie_key, &reply.nonce, &mac1, &mut cookie, tag);
        if opened {
            (self.cookie, self.last_mac1) = (Some((cookie, now_ns)), None);
        }
        opened
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn parties() -> (Identity, PeerKeys, SocketAddr) {
        let (us, them) = (Identity::new(&[1; 32]), Identity::new(&[2; 32]));
        let keys = PeerKeys::new(&them, *us.public(), &[0; 32]).unwrap();
        (us, keys, "192.0.2.1:51820".parse().unwrap())
    }

    #[test]
    fn a_cookie_proves_the_address_it_was_sent_to_until_it_is_old() {
        let (us, of_us, source) = parties();
        let (mut checker, mut jar, mut message) = (Checker::new(), Jar::default(), [7; 148]);
        jar.sign(&of_us, &mut message, 0);
        assert_eq!(checker.check(&us, source, &message, 0), Proof::Key);
        let reply = checker.reply(&us, (source, &message), (&[5; 32], [6; 24]), 0).unwrap();
        assert_eq!(reply.receiver.get(), u32::from_le_bytes([7; 4]));
        assert!(jar.take(&of_us, &reply, 0));
        assert!(!jar.take(&of_us, &reply, 0), "once a message");

        jar.sign(&of_us, &mut message, MINUTE);
        assert_eq!(checker.check(&us, source, &message, MINUTE), Proof::Address);
        let elsewhere = SocketAddr::new(source.ip(), 1);
        assert_eq!(checker.check(&us, elsewhere, &message, MINUTE), Proof::Key);
        assert_eq!(checker.check(&us, source, &message, 2 * MINUTE), Proof::Key);
        message[116..].fill(0);
        jar.sign(&of_us, &mut message, 2 * MINUTE);
        assert_eq!(message[132..], [0; 16], "the jar has thrown the old cookie away");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let (us, of_us, source) = parties();
        let (mut checker, mut jar, mut message) = (Checker::new(), Jar::default(), [7; 92]);
        jar.sign(&of_us, &mut message, 0);
        let reply = checker.reply(&us, (source, &message), (&[5; 32], [6; 24]), 0).unwrap();
        for bit in 0..76 * 8 {
            let mut flipped = message;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(checker.check(&us, source, &flipped, 0), Proof::None);
        }
        for bit in 0..32 * 8 {
            let mut flipped = reply.clone();
            flipped.encrypted_cookie[bit / 8] ^= 1 << (bit % 8);
            assert!(!jar.take(&of_us, &flipped, 0));
        }
        assert!(jar.take(&of_us, &reply, 0));
        assert_eq!(checker.check(&us, source, &message[..31], 0), Proof::None);
    }
}
