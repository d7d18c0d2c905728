//! No byte outside the buffers is touched: buffers end, or begin, at pages that cannot be accessed.
#![cfg(unix)]
#![allow(unsafe_code)]

use wireguard::aead::{Aead, Key, Open, Seal, TAG_LENGTH};

const PAGE: usize = 4096;
/// Packets of a batch.
const PACKETS: usize = 5;

/// One page between two that fault.
struct Guarded(*mut u8);

impl Guarded {
    fn new() -> Self {
        // SAFETY: a mapping of its own, at an address that nothing else has; then its first page and its last are closed.
        unsafe {
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            let pages = libc::mmap(std::ptr::null_mut(), 3 * PAGE, access, kind, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages, PAGE, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(pages.byte_add(2 * PAGE), PAGE, libc::PROT_NONE), 0);
            Self(pages.cast())
        }
    }

    /// So many bytes at either end of the page.
    fn bytes(&mut self, length: usize, at_end: bool) -> &mut [u8] {
        // SAFETY: the page in the middle is readable and writable while the mapping is there, and borrowed as `self` is.
        let page = unsafe { std::slice::from_raw_parts_mut(self.0.add(PAGE), PAGE) };
        if at_end {
            &mut page[PAGE - length..]
        } else {
            &mut page[..length]
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow is left.
        unsafe { libc::munmap(self.0.cast(), 3 * PAGE) };
    }
}

#[test]
fn nothing_outside_the_buffers() {
    let mut pages: [[Guarded; PACKETS]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| Guarded::new()));
    let key = Key::from([7; 32]);
    for (aead, length) in Aead::all()
        .into_iter()
        .flat_map(|aead| (0..=700).map(move |length| (aead, length)))
    {
        for at_end in [false, true] {
            for count in [1, PACKETS] {
                let [texts, sealed, opened] = &mut pages;
                for text in texts.iter_mut() {
                    text.bytes(length, at_end).fill(length as u8);
                }
                let pairs = texts.iter_mut().zip(sealed.iter_mut()).take(count);
                let mut jobs: Vec<_> = pairs
                    .map(|(text, sealed)| {
                        let sealed = sealed.bytes(length + TAG_LENGTH, at_end);
                        Seal::new(&key, 5, text.bytes(length, at_end), sealed).unwrap()
                    })
                    .collect();
                aead.seal(&mut jobs);
                let pairs = sealed.iter_mut().zip(opened.iter_mut()).take(count);
                let mut jobs: Vec<_> = pairs
                    .map(|(sealed, opened)| {
                        let sealed = sealed.bytes(length + TAG_LENGTH, at_end);
                        Open::new(&key, 5, sealed, opened.bytes(length, at_end)).unwrap()
                    })
                    .collect();
                aead.open(&mut jobs);
                assert!(jobs.iter().all(Open::opened), "{} of {length} bytes", aead.name());
                let opened = opened.iter_mut().take(count);
                assert!(
                    opened
                        .zip(texts.iter_mut())
                        .all(|(a, b)| a.bytes(length, at_end) == b.bytes(length, at_end))
                );
                in_place(aead, &mut texts[..count], (length, at_end));
            }
        }
    }
}

/// Seals and opens so many zeros where they stand.
fn in_place(aead: Aead, places: &mut [Guarded], (length, at_end): (usize, bool)) {
    let key = Key::from([8; 32]);
    let mut places: Vec<_> = places
        .iter_mut()
        .map(|place| place.bytes(length + TAG_LENGTH, at_end))
        .collect();
    places.iter_mut().for_each(|place| place.fill(0));
    let jobs = places.iter_mut().map(|place| Seal::in_place(&key, 6, place).unwrap());
    aead.seal(&mut jobs.collect::<Vec<_>>());
    let jobs = places.iter_mut().map(|place| Open::in_place(&key, 6, place).unwrap());
    let mut jobs: Vec<_> = jobs.collect();
    aead.open(&mut jobs);
    assert!(jobs.iter().all(Open::opened), "{} of {length} bytes", aead.name());
    assert!(places.iter().all(|place| place[..length].iter().all(|byte| *byte == 0)));
}
