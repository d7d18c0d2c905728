//! The memory of the table, and prefetching: the only unsafe code beside the vector instructions.
#![allow(unsafe_code)]

use std::ops::Deref;

#[cfg(not(loom))]
pub(super) use huge::Lines;
#[cfg(loom)]
pub(super) use model::Lines;

/// What a table is made of.
///
/// # Safety
/// All-zero bytes are a valid value, alignment is at most that of a huge page, and nothing needs to be dropped.
pub(super) unsafe trait Zeroed: Default {}

// SAFETY: an atomic integer.
unsafe impl Zeroed for crate::sync::atomic::AtomicU32 {}
// SAFETY: `repr(C)`, of atomic integers only.
unsafe impl Zeroed for crate::leg::Leg {}
// SAFETY: `repr(C)`, of atomic integers only.
unsafe impl Zeroed for super::bucket::Bucket {}

#[cfg(not(loom))]
mod huge {
    use super::{Deref, Zeroed};
    use fastpath::memory::Mapping;
    use std::marker::PhantomData;

    /// A zeroed slice on huge pages, where they can be had.
    pub struct Lines<T> {
        mapping: Mapping,
        length: usize,
        of: PhantomData<T>,
    }

    // SAFETY: the mapping belongs to this value alone, as that of a `Box<[T]>` would.
    unsafe impl<T: Send> Send for Lines<T> {}
    // SAFETY: as above; only shared references are given out.
    unsafe impl<T: Sync> Sync for Lines<T> {}

    impl<T: Zeroed> Lines<T> {
        /// Reserves `length` of them; the kernel backs them as they are touched.
        pub fn new(length: usize) -> std::io::Result<Self> {
            let bytes = length
                .checked_mul(size_of::<T>())
                .ok_or(std::io::ErrorKind::OutOfMemory)?;
            Ok(Self {
                mapping: Mapping::new(bytes)?,
                length,
                of: PhantomData,
            })
        }
    }

    impl<T> Lines<T> {
        /// See [`Mapping::populate`].
        pub fn populate(&self) {
            self.mapping.populate();
        }
    }

    impl<T> Deref for Lines<T> {
        type Target = [T];

        #[inline(always)]
        fn deref(&self) -> &[T] {
            // SAFETY: the mapping has so many bytes, zeroed, aligned to a page, and lives as long as `self`; zeroed
            // bytes are a valid `T` by `Zeroed`, without which no value of this type is made.
            unsafe { std::slice::from_raw_parts(self.mapping.base().as_ptr().cast(), self.length) }
        }
    }
}

/// A model's atomics are more than their bits.
#[cfg(loom)]
mod model {
    use super::{Deref, Zeroed};

    pub struct Lines<T>(Box<[T]>);

    impl<T: Zeroed> Lines<T> {
        pub fn new(length: usize) -> std::io::Result<Self> {
            Ok(Self((0..length).map(|_| T::default()).collect()))
        }

        pub fn populate(&self) {}
    }

    impl<T> Deref for Lines<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

/// Asks for the line at `place`.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch changes nothing but caches and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
