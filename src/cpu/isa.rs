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
const PORTABLE_FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

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

    /// Whether a multiplication and an addition are rounded once.
    pub(super) fn fuses(self) -> bool {
        self != Isa::Portable || PORTABLE_FUSES
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

/// A register of numbers, in the kernels' terms. A kernel is written once for any `Vector` and compiled once for each
/// instruction set, inside a function that enables it.
pub(super) trait Vector: Copy {
    const LANES: usize;

    /// # Safety
    /// As for every function here: the processor has the vector's instructions.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `LANES` elements can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `LANES` elements can be written.
    unsafe fn store(self, to: *mut f32);

    /// `self·b + c`
    ///
    /// # Safety
    /// See `splat`.
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;

    /// # Safety
    /// See `splat`.
    unsafe fn add(self, b: Self) -> Self;

    /// The first `count` lanes, and zeros (whatever the others held).
    ///
    /// # Safety
    /// See `splat`.
    unsafe fn first(self, count: usize) -> Self;
}

/// Adds the products of `ROWS` values, from `a` on, with `N` vectors, from `b` on: one term of a tile of sums.
///
/// # Safety
/// The processor has `V`; the values and the vectors can be read.
#[inline(always)]
pub(super) unsafe fn add_outer_product<V: Vector, const ROWS: usize, const N: usize>(
    sums: &mut [[V; N]; ROWS],
    a: *const f32,
    b: *const f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut row = [V::splat(0.0); N];
        for (v, row) in row.iter_mut().enumerate() {
            *row = V::load(b.add(v * V::LANES));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let value = V::splat(*a.add(i));
            for (sum, &row) in sums.iter_mut().zip(&row) {
                *sum = value.multiply_add(row, *sum);
            }
        }
    }
}

/// Eight lanes for the compiler to make of what it can.
pub(super) type Plain = [f32; 8];

impl Vector for Plain {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an unaligned read of plain data.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise; an unaligned write of plain data.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| if PORTABLE_FUSES { self[i].mul_add(b[i], c[i]) } else { self[i] * b[i] + c[i] })
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + b[i])
    }

    #[inline(always)]
    unsafe fn first(self, count: usize) -> Self {
        std::array::from_fn(|i| if i < count { self[i] } else { 0.0 })
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($type:ident, $lanes:literal, $splat:ident, $load:ident, $store:ident, $multiply_add:ident, $add:ident,
         |$value:ident, $count:ident| $first:expr) => {
            impl Vector for $type {
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise about the processor.
                    unsafe { $splat(value) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller's promises about the processor and the pointer.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller's promises about the processor and the pointer.
                    unsafe { $store(to, self) }
                }

                #[inline(always)]
                unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
                    // SAFETY: the caller's promise about the processor.
                    unsafe { $multiply_add(self, b, c) }
                }

                #[inline(always)]
                unsafe fn add(self, b: Self) -> Self {
                    // SAFETY: the caller's promise about the processor.
                    unsafe { $add(self, b) }
                }

                #[inline(always)]
                unsafe fn first(self, $count: usize) -> Self {
                    let $value = self;
                    // SAFETY: the caller's promise about the processor.
                    unsafe { $first }
                }
            }
        };
    }

    #[rustfmt::skip]
    vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps,
        |value, count| {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes);
            _mm256_and_ps(value, _mm256_castsi256_ps(kept))
        });
    #[rustfmt::skip]
    vector!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps,
        |value, count| _mm512_maskz_mov_ps(((1u32 << count.min(16)) - 1) as u16, value));
}

/// Multiplies and adds in registers, in more chains than any processor's latency needs, with the best instructions
/// here; returns how many operations that was. For measuring.
pub(super) fn fma_rounds(rounds: usize) -> f64 {
    match Isa::detect() {
        // SAFETY: `detect` found the instructions.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { fma_rounds_avx512(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { fma_rounds_avx2(rounds) },
        // SAFETY: needs no instructions beyond the target's.
        Isa::Portable => unsafe { fma_chains::<Plain>(rounds) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn fma_rounds_avx512(rounds: usize) -> f64 {
    // SAFETY: the instructions are enabled.
    unsafe { fma_chains::<std::arch::x86_64::__m512>(rounds) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn fma_rounds_avx2(rounds: usize) -> f64 {
    // SAFETY: the instructions are enabled.
    unsafe { fma_chains::<std::arch::x86_64::__m256>(rounds) }
}

/// # Safety
/// The processor has the vector's instructions.
#[inline(always)]
unsafe fn fma_chains<V: Vector>(rounds: usize) -> f64 {
    const CHAINS: usize = 12;
    // SAFETY: the caller's promise.
    unsafe {
        let factor = V::splat(std::hint::black_box(0.999));
        let mut sums = [V::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.multiply_add(factor, factor);
            }
        }
        let mut lanes = [0.0f32; 16];
        for sum in sums {
            sum.store(lanes.as_mut_ptr());
            std::hint::black_box(&lanes);
        }
    }
    2.0 * (rounds * CHAINS * V::LANES) as f64
}
