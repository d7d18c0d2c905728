//! How to look up: in portable code, or as wide as the processor can.

/// A way of looking up that this processor has.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// One packet and one pattern at a time.
    Portable,
    /// 8 packets, 8 patterns.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 16 packets, 8 patterns.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// The proof that the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// The proof that the processor has AVX-512 with F, BW and VL.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Way {
    /// Those of this processor, the fastest last.
    pub fn all() -> Vec<Way> {
        let mut ways = vec![Way::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("popcnt");
            ways.extend(avx2.then_some(Way::Avx2(Avx2(()))));
            ways.extend(avx512.then_some(Way::Avx512(Avx512(()))));
        }
        ways
    }

    /// The fastest of this processor.
    pub fn best() -> Way {
        Way::all().pop().unwrap_or(Way::Portable)
    }
}
