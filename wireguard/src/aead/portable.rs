//! A packet at a time, by ring.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::{Head, Open, Seal};

#[inline(never)] // its stack has to be below that of its caller, to be wiped
pub(super) fn seal(packet: &mut Seal<'_>) {
    if let Some(text) = packet.text {
        packet.ciphertext.copy_from_slice(text);
    }
    let (key, nonce) = prepare(&packet.head);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet.ciphertext);
    packet
        .tag
        .copy_from_slice(tag.expect("ring takes texts of 256 GiB").as_ref());
}

/// The target is wiped if the packet is not authentic.
#[inline(never)] // as above
pub(super) fn open(packet: &mut Open<'_>) {
    if let Some(ciphertext) = packet.ciphertext {
        packet.text.copy_from_slice(ciphertext);
    }
    let (key, nonce) = prepare(&packet.head);
    let tag = Tag::from(*packet.tag);
    let text = key.open_in_place_separate_tag(nonce, Aad::empty(), tag, packet.text, 0..);
    packet.opened = text.is_ok();
    if !packet.opened {
        packet.text.fill(0);
    }
}

fn prepare(head: &Head<'_>) -> (LessSafeKey, Nonce) {
    let key = UnboundKey::new(&CHACHA20_POLY1305, head.key).expect("the key is 32 bytes long");
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&head.counter.to_le_bytes());
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
}
