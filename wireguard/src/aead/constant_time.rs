//! Whether anything branches on, or indexes by, a secret: keys and texts are marked undefined for valgrind's memcheck,
//! which then complains of each branch and address that depends on them. The test runs itself under valgrind, which
//! (3.19) knows AVX2 and not AVX-512; what decides for both, `batch.rs`, is the same code.
#![allow(unsafe_code)]

use std::arch::asm;
use std::hint::black_box;
use std::process::{Command, Output};

use super::{Aead, Key, Open, Seal, TAG_LENGTH};

/// Client requests: valgrind's `valgrind.h` and `memcheck.h`.
const RUNNING_ON_VALGRIND: u64 = 0x1001;
const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;

/// Valgrind's answer, or 0 where there is none.
fn request(number: u64, address: *mut u8, length: usize) -> u64 {
    let arguments = [number, address as u64, length as u64, 0, 0, 0];
    let mut answer = 0;
    // SAFETY: without valgrind the four rotations add up to 128 bits, and the exchange is of a register with itself.
    // With it, the request says something of the bytes, which the caller may write.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") &raw const arguments, inout("rdx") answer, inout("rdi") 0u64 => _,
        );
    }
    answer
}

fn under_valgrind() -> bool {
    request(RUNNING_ON_VALGRIND, std::ptr::null_mut(), 0) > 0
}

fn mark_secret<T: ?Sized>(value: &mut T) {
    request(MAKE_MEM_UNDEFINED, std::ptr::from_mut(value).cast(), size_of_val(value));
}

/// Says that a value may be branched on. It is written, as far as the compiler can tell, so that no copy is used instead.
fn mark_public<T: ?Sized>(value: &mut T) {
    request(MAKE_MEM_DEFINED, std::ptr::from_mut(value).cast(), size_of_val(value));
}

/// The verdicts, as those that may be branched on.
pub(super) fn public(mut verdicts: u64) -> u64 {
    mark_public(&mut verdicts);
    verdicts
}

/// Runs a test of this file under valgrind; `None` where that is not installed.
fn run(test: &str) -> Option<Output> {
    let output = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=99", "--max-stackframe=4000000"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1", test])
        .output();
    match output {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("skipped: {test} needs valgrind");
            None
        }
    }
}

#[test]
fn no_branch_or_address_depends_on_a_secret() {
    if under_valgrind() {
        return secret_packets();
    }
    if let Some(output) = run("aead::constant_time::no_branch_or_address_depends_on_a_secret") {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(said.contains("under valgrind: avx2"), "{said}");
    }
}

/// The instrument itself: a branch on a secret is found.
#[test]
fn a_branch_on_a_secret_is_seen() {
    if under_valgrind() {
        let mut secret = [1u8; 16];
        mark_secret(&mut secret);
        if black_box(&secret)[3] == 7 {
            eprintln!("a secret");
        }
    } else if let Some(output) = run("aead::constant_time::a_branch_on_a_secret_is_seen") {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(99), "{said}");
        assert!(said.contains("depends on uninitialised value"), "{said}");
    }
}

/// Seals and opens packets of secret keys and texts, among them a forgery; lengths, counters and verdicts are public.
fn secret_packets() {
    let lengths = [
        0, 1, 15, 16, 63, 64, 65, 100, 128, 300, 512, 700, 1420, 40, 80, 2000, 31,
    ];
    for aead in Aead::all().into_iter().filter(|aead| aead.name() != "ring") {
        eprintln!("under valgrind: {}", aead.name());
        for count in [4, 5, 8, lengths.len()] {
            let mut key = Key([9; 32]);
            let mut texts: Vec<Vec<u8>> = lengths[..count].iter().map(|length| vec![3; *length]).collect();
            let mut sealed: Vec<_> = texts.iter().map(|text| vec![0; text.len() + TAG_LENGTH]).collect();
            mark_secret(&mut key.0);
            texts.iter_mut().for_each(|text| mark_secret(&mut text[..]));
            let mut places: Vec<_> = texts
                .iter()
                .map(|text| [&text[..], &[0; TAG_LENGTH]].concat())
                .collect();
            let pairs = texts.iter().zip(&mut sealed);
            let apart = pairs.map(|(text, sealed)| Seal::new(&key, 1, text, sealed).unwrap());
            let mut jobs: Vec<_> = apart
                .chain(places.iter_mut().map(|place| Seal::in_place(&key, 1, place).unwrap()))
                .collect();
            aead.seal(&mut jobs);
            for sealed in sealed.iter_mut().chain(&mut places) {
                mark_public(&mut sealed[..]);
            }
            assert_eq!(places, sealed);
            sealed[2][0] ^= 1;
            places[2][0] ^= 1;
            let pairs = texts.iter_mut().zip(&sealed);
            let apart = pairs.map(|(text, sealed)| Open::new(&key, 1, sealed, text).unwrap());
            let mut jobs: Vec<_> = apart
                .chain(places.iter_mut().map(|place| Open::in_place(&key, 1, place).unwrap()))
                .collect();
            aead.open(&mut jobs);
            let opened: Vec<bool> = jobs.iter().map(Open::opened).collect();
            assert_eq!(opened, (0..2 * count).map(|i| i % count != 2).collect::<Vec<_>>());
        }
    }
}
