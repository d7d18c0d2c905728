//! Neither keys nor keystream are left on the stack: after a call, the stack below the caller is searched for them.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;
use std::hint::black_box;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wireguard::aead::{Aead, Key, Open, Seal, TAG_LENGTH};
use zeroize::zeroize_stack;

/// Bytes searched: more than any path here uses.
const SEARCHED: usize = 64 << 10;
/// Words that a search looks for, on the heap, so that they do not find themselves.
type Words = Vec<u32>;

/// Counts words of the stack, below this function's caller, that are among the secrets.
#[inline(never)]
fn left(secrets: &Words) -> usize {
    let mut found = 0;
    for offset in (0..SEARCHED).step_by(4) {
        let word: u32;
        // SAFETY: the memory below the stack pointer belongs to the thread's stack, which is far larger than what is
        // searched and has been written to that depth; it is only read, as by a debugger.
        unsafe {
            let at = offset as u64;
            asm!("mov {at}, rsp", "sub {at}, {offset}", "mov {word:e}, dword ptr [{at}]",
                at = out(reg) _, offset = in(reg) at, word = out(reg) word, options(nostack, readonly));
        }
        // No word of the secrets is zero, nor likely to be there by chance.
        found += usize::from(secrets.contains(&word));
    }
    found
}

/// Leaves the secrets on the stack, to see that they are found there.
#[inline(never)]
fn careless(secrets: &Words) {
    let mut copy = [0u32; 64];
    copy.copy_from_slice(&secrets[..64]);
    black_box(&copy);
}

/// The words of the key, and of the blocks 1 and later of its keystream.
fn secrets(key: &[u8; 32], counter: u64) -> Words {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut stream = vec![0; 1420];
    let ring = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let tag = ring.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut stream);
    assert!(tag.is_ok());
    let bytes = key.iter().chain(&stream).copied().collect::<Vec<_>>();
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect()
}

#[test]
fn the_search_finds_what_is_left() {
    let key = Box::new(std::array::from_fn(|i| (i * 37 + 11) as u8));
    let secrets = secrets(&key, 77);
    zeroize_stack::<SEARCHED>();
    assert_eq!(left(&secrets), 0, "before");
    careless(&secrets);
    assert!(left(&secrets) > 32);
}

#[test]
fn no_secret_is_left_on_the_stack() {
    let bytes: Box<[u8; 32]> = Box::new(std::array::from_fn(|i| (i * 37 + 11) as u8));
    let (key, counter) = (Box::new(Key::from(*bytes)), 77);
    let secrets = secrets(&bytes, counter);
    for aead in Aead::all() {
        for (count, length) in [(1, 64), (1, 1420), (3, 64), (9, 64), (9, 1420), (64, 100), (64, 1420)] {
            // The text is not zeros, so that the ciphertext is not the keystream.
            let texts = vec![vec![0x5a; length]; count];
            let mut sealed = vec![vec![0; length + TAG_LENGTH]; count];
            let mut opened = texts.clone();
            let pairs = texts.iter().zip(&mut sealed);
            let mut jobs: Vec<_> = pairs
                .map(|(from, to)| Seal::new(&key, counter, from, to).unwrap())
                .collect();
            zeroize_stack::<SEARCHED>();
            aead.seal(&mut jobs);
            assert_eq!(left(&secrets), 0, "{} seals {count} of {length} bytes", aead.name());
            let pairs = sealed.iter().zip(&mut opened);
            let mut jobs: Vec<_> = pairs
                .map(|(from, to)| Open::new(&key, counter, from, to).unwrap())
                .collect();
            zeroize_stack::<SEARCHED>();
            aead.open(&mut jobs);
            assert_eq!(left(&secrets), 0, "{} opens {count} of {length} bytes", aead.name());
            assert!(jobs.iter().all(Open::opened));

            let jobs = sealed
                .iter_mut()
                .map(|place| Open::in_place(&key, counter, place).unwrap());
            let mut jobs: Vec<_> = jobs.collect();
            zeroize_stack::<SEARCHED>();
            aead.open(&mut jobs);
            assert_eq!(
                left(&secrets),
                0,
                "{} opens {count} of {length} bytes in place",
                aead.name()
            );
            let jobs = sealed
                .iter_mut()
                .map(|place| Seal::in_place(&key, counter, place).unwrap());
            let mut jobs: Vec<_> = jobs.collect();
            zeroize_stack::<SEARCHED>();
            aead.seal(&mut jobs);
            assert_eq!(
                left(&secrets),
                0,
                "{} seals {count} of {length} bytes in place",
                aead.name()
            );
        }
    }
}
