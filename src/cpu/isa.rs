//! Which vector instructions to use, found out at run time.

/// An instruction set for which there are kernels. Values other than `Portable` exist only where it was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// Whatever the compiler's target has.
    Portable,
    /// 8 lanes and fused multiply-adds.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Whether the compiler's own target fuses a multiplication and an addition; where not, `mul_add` is a slow call.
pub(super) const PORTABLE_FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

impl Isa {
    /// The best one here.
    pub(super) fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Every one here, the best first.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Isa> {
        #[cfg(target_arch = "x86_64")]
        match Isa::detect() {
            Isa::Avx512 => return vec![Isa::Avx512, Isa::Avx2, Isa::Portable],
            Isa::Avx2 => return vec![Isa::Avx2, Isa::Portable],
            Isa::Portable => {}
        }
        vec![Isa::Portable]
    }
}

/// `a·b + c`, fused or not.
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
