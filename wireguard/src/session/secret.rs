//! A key that workers read and control wipes, whoever still holds the session.

use crate::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use zeroize::Zeroizing;

/// 32 bytes, until they are [erased](Secret::erase).
pub struct Secret {
    words: [AtomicU64; 4],
    erased: AtomicBool,
}

impl Secret {
    /// Takes a copy of `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        let (words, _) = key.as_chunks::<8>();
        Self {
            words: std::array::from_fn(|i| AtomicU64::new(u64::from_ne_bytes(words[i]))),
            erased: AtomicBool::new(false),
        }
    }

    /// The whole key, or `None` once it is being erased.
    #[inline]
    pub fn read(&self) -> Option<Zeroizing<[u8; 32]>> {
        let mut key = Zeroizing::new([0; 32]);
        for (bytes, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(&self.words) {
            *bytes = word.load(Relaxed).to_ne_bytes();
        }
        // Whoever read a wiped word sees what was stored before it was wiped (a sequence lock that closes once).
        fence(Acquire);
        (!self.erased.load(Relaxed)).then_some(key)
    }

    /// Whether it has been wiped.
    #[inline]
    pub fn is_erased(&self) -> bool {
        self.erased.load(Relaxed)
    }

    /// Wipes the key.
    pub fn erase(&self) {
        self.erased.store(true, Relaxed);
        fence(Release);
        // Atomic stores are not optimised away, unlike plain ones to memory that is about to be freed.
        self.words.iter().for_each(|word| word.store(0, Relaxed));
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.erase();
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_erased_key() {
        let key = std::array::from_fn(|i| i as u8 + 1);
        let secret = Secret::new(&key);
        assert_eq!(secret.read().as_deref(), Some(&key));
        secret.erase();
        assert!(secret.read().is_none());
        assert!(secret.words.iter().all(|word| word.load(Relaxed) == 0));
    }
}
