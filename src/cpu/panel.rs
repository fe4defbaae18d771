//! Tiles of pixels × result channels, every sum in a register, and their way back into planes.

use super::isa::{Isa, Plain, Vector};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

/// The size of an instruction set's tiles.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) isa: Isa,
    /// Result channels of a panel.
    pub(super) width: usize,
    /// Pixels of a tile.
    pub(super) pixels: usize,
}

/// Products of some terms, for whole tiles of pixels and one panel of result channels.
pub(super) struct Kernel<'a> {
    pub(super) src: &'a [f32],
    /// Where each pixel's window begins in `src`; whole tiles.
    pub(super) pixels: &'a [usize],
    /// All tiles, and the terms of each, in order.
    pub(super) stretches: &'a [Stretch],
    pub(super) spans: &'a [Span],
    /// Where in a window each term reads.
    pub(super) terms: &'a [usize],
    /// A panel's width of weights for each term.
    pub(super) weights: &'a [f32],
    /// What the first chain begins with, a panel's width; without, every chain is added to the sums that are there.
    pub(super) start: Option<&'a [f32]>,
}

/// Tiles that sum the same terms.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) tiles: usize,
    /// Which of the spans, one at least.
    pub(super) spans: Range<usize>,
}

/// Terms that follow each other, all in one chain; the chain goes on in the next span unless this one ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) terms: Range<usize>,
    pub(super) ends: bool,
}

impl Panel {
    /// Of any instruction set.
    pub(super) const WIDEST: usize = 32;

    pub(super) fn new(isa: Isa) -> Panel {
        match isa {
            // Half as many registers as lanes need: they share them.
            Isa::Portable => Panel { isa, width: 8, pixels: 4 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Panel { isa, width: 16, pixels: 6 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Panel { isa, width: 32, pixels: 8 },
        }
    }

    /// Computes the first `channels` sums of the panel, or more, for every pixel: `[pixel][width]`.
    pub(super) fn run(&self, kernel: &Kernel<'_>, channels: usize, sums: &mut [f32]) {
        let furthest = |offsets: &[usize]| offsets.iter().max().copied().unwrap_or(0);
        assert!(furthest(kernel.pixels) + furthest(kernel.terms) < kernel.src.len(), "a window ends beyond the pixels");
        assert!(kernel.weights.len() == kernel.terms.len() * self.width, "there is a panel of weights for each term");
        assert!(kernel.start.is_none_or(|start| start.len() == self.width), "a panel begins with its width");
        let tiles: usize = kernel.stretches.iter().map(|stretch| stretch.tiles).sum();
        assert!(kernel.pixels.len() == tiles * self.pixels, "the stretches are all tiles");
        assert!(
            kernel.spans.iter().all(|span| kernel.terms.get(span.terms.clone()).is_some()),
            "a span ends beyond the terms"
        );
        assert!(sums.len() == kernel.pixels.len() * self.width, "there is a panel of sums for each pixel");
        // SAFETY: `Isa` only names instruction sets that this processor was seen to have; every window ends within
        // `src`, and weights, start and sums are as long as a kernel reads and writes, by the assertions above.
        unsafe {
            match self.isa {
                Isa::Portable => portable(kernel, sums),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 if channels <= 8 => avx2::<1>(kernel, sums),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::<2>(kernel, sums),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 if channels <= 16 => avx512::<1>(kernel, sums),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512::<2>(kernel, sums),
            }
        }
    }
}

/// # Safety
/// As [`tiles`].
unsafe fn portable(kernel: &Kernel<'_>, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<Plain, 4, 1, 8>(kernel, sums) }
}

/// # Safety
/// As [`tiles`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const N: usize>(kernel: &Kernel<'_>, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<__m256, 6, N, 16>(kernel, sums) }
}

/// # Safety
/// As [`tiles`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const N: usize>(kernel: &Kernel<'_>, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<__m512, 8, N, 32>(kernel, sums) }
}

/// Tile after tile of `PIXELS` pixels and the first `N` vectors of a panel of `WIDTH` channels.
///
/// # Safety
/// The processor has `V`. Every sum of one of `pixels` and one of `terms` is below `src`'s length; there are `WIDTH`
/// weights for each term, `WIDTH` sums for each pixel and in `start`; `pixels` are whole tiles, as many as those of the
/// stretches; spans end within `terms`.
#[inline(always)]
unsafe fn tiles<V: Vector, const PIXELS: usize, const N: usize, const WIDTH: usize>(
    kernel: &Kernel<'_>,
    sums: &mut [f32],
) {
    let spans = kernel
        .stretches
        .iter()
        .flat_map(|stretch| std::iter::repeat_n(&kernel.spans[stretch.spans.clone()], stretch.tiles));
    let tiles = kernel.pixels.as_chunks::<PIXELS>().0.iter().zip(sums.chunks_exact_mut(PIXELS * WIDTH));
    for ((pixels, sums), spans) in tiles.zip(spans) {
        // SAFETY: by the caller's promises, and `sums` has a panel's width for each pixel of the tile.
        unsafe {
            let windows: [*const f32; PIXELS] = std::array::from_fn(|i| kernel.src.as_ptr().wrapping_add(pixels[i]));
            let sums = sums.as_mut_ptr();
            let mut begin = kernel.start;
            let mut tile = [[V::splat(0.0); N]; PIXELS];
            if let Some(start) = begin {
                for v in 0..N {
                    let start = V::load(start.as_ptr().add(v * V::LANES));
                    for sums in &mut tile {
                        sums[v] = start;
                    }
                }
            }
            for span in spans {
                let terms = kernel.terms.get_unchecked(span.terms.clone());
                let mut weights = kernel.weights.as_ptr().add(span.terms.start * WIDTH);
                // By fours, unrolled: what the loop itself takes is a sixth of a term.
                let (fours, rest) = terms.as_chunks::<4>();
                for four in fours {
                    for (i, &term) in four.iter().enumerate() {
                        add_term(&mut tile, &windows, term, weights.add(i * WIDTH));
                    }
                    weights = weights.add(4 * WIDTH);
                }
                for &term in rest {
                    add_term(&mut tile, &windows, term, weights);
                    weights = weights.add(WIDTH);
                }
                if !span.ends {
                    continue;
                }
                // By reference: sums that an iterator moves go through memory.
                for (i, tile) in tile.iter().enumerate() {
                    for (v, &sum) in tile.iter().enumerate() {
                        let to = sums.add(i * WIDTH + v * V::LANES);
                        if begin.is_some() { sum.store(to) } else { V::load(to).add(sum).store(to) }
                    }
                }
                begin = None;
                tile = [[V::splat(0.0); N]; PIXELS];
            }
        }
    }
}

/// Adds the products of each pixel at one term with `N` vectors of weights.
///
/// # Safety
/// The processor has `V`; `term` can be read in every window, and the vectors at `weights`.
#[inline(always)]
unsafe fn add_term<V: Vector, const PIXELS: usize, const N: usize>(
    tile: &mut [[V; N]; PIXELS],
    windows: &[*const f32; PIXELS],
    term: usize,
    weights: *const f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut row = [V::splat(0.0); N];
        for (v, row) in row.iter_mut().enumerate() {
            *row = V::load(weights.add(v * V::LANES));
        }
        for (sums, window) in tile.iter_mut().zip(windows) {
            let value = V::splat(*window.add(term));
            for (sum, &row) in sums.iter_mut().zip(&row) {
                *sum = value.multiply_add(row, *sum);
            }
        }
    }
}

/// Rows and columns that [`transpose`] turns.
pub(super) const TURNED: usize = 8;

/// Turns the rows of so many squares below each other, one at least, `width` apart, into columns, in rows `to_row` apart:
/// the squares come to lie side by side.
///
/// # Safety
/// At `to` there is room for `TURNED` rows of `squares * TURNED` elements, and nobody else uses it.
#[inline(always)]
pub(super) unsafe fn transpose(isa: Isa, from: &[f32], width: usize, squares: usize, to: *mut f32, to_row: usize) {
    let from = &from[..(squares * TURNED - 1) * width + TURNED];
    match isa {
        Isa::Portable => {
            for (square, i) in (0..squares).flat_map(|square| (0..TURNED).map(move |i| (square * TURNED, i))) {
                let row: [f32; TURNED] = std::array::from_fn(|j| from[(square + j) * width + i]);
                // SAFETY: the caller's promise; plain data, wherever it lies.
                unsafe { to.add(i * to_row + square).cast::<[f32; TURNED]>().write_unaligned(row) };
            }
        }
        // SAFETY: both have AVX; the rows are there, as the slice above saw to, and the caller promised the others.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { turn(from.as_ptr(), width, squares, to, to_row) },
    }
}

/// As [`transpose`].
///
/// # Safety
/// The processor has AVX; `squares * TURNED` rows can be read, and `TURNED` rows of as many elements written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn turn(from: *const f32, from_row: usize, squares: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::*;
    for (square, j) in (0..squares).flat_map(|square| [(square, 0), (square, 4)]) {
        // SAFETY: the caller's promises.
        unsafe {
            let from = from.add(square * TURNED * from_row + j);
            // Rows i and i+4 in the halves of one register, pairs of elements, then pairs of pairs.
            let half = |i: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(i * from_row)));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((i + 4) * from_row)))
            };
            let (a, b, c, d) = (half(0), half(1), half(2), half(3));
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            let to = to.add(j * to_row + square * TURNED);
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab, cd));
            _mm256_storeu_ps(to.add(to_row), _mm256_shuffle_ps::<0xEE>(ab, cd));
            _mm256_storeu_ps(to.add(2 * to_row), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * to_row), _mm256_shuffle_ps::<0xEE>(ab_high, cd_high));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_adds_the_exact_products_of_small_integers() {
        for isa in Isa::available() {
            let panel = Panel::new(isa);
            let src: Vec<f32> = (0..200).map(|i| (i % 11) as f32 - 5.0).collect();
            let pixels: Vec<usize> = (0..3 * panel.pixels).map(|i| i * 7 % 90).collect();
            let terms: Vec<usize> = (0..13).map(|i| i * 5 % 60).collect();
            let weights: Vec<f32> = (0..terms.len() * panel.width).map(|i| (i % 7) as f32 - 3.0).collect();
            let span = |terms, ends| Span { terms, ends };
            let spans = [span(0..3, false), span(4..5, true), span(5..13, true), span(0..6, true), span(9..9, true)];
            let stretches = [Stretch { tiles: 1, spans: 0..3 }, Stretch { tiles: 2, spans: 3..5 }];
            let start: Vec<f32> = (0..panel.width).map(|i| i as f32).collect();
            for (channels, begin) in [(panel.width, Some(&start[..])), (1, Some(&start[..])), (panel.width, None)] {
                let kernel = Kernel {
                    src: &src,
                    pixels: &pixels,
                    stretches: &stretches,
                    spans: &spans,
                    terms: &terms,
                    weights: &weights,
                    start: begin,
                };
                let mut sums = vec![100.0; pixels.len() * panel.width];
                panel.run(&kernel, channels, &mut sums);
                for (i, (&pixel, sums)) in pixels.iter().zip(sums.chunks(panel.width)).enumerate() {
                    let stretch = if i < panel.pixels { 0..3 } else { 3..5 };
                    for channel in 0..channels {
                        let summed = |t: usize| spans[stretch.clone()].iter().any(|span| span.terms.contains(&t));
                        let products = terms.iter().enumerate().filter(|&(t, _)| summed(t));
                        let products = products.map(|(t, term)| src[pixel + term] * weights[t * panel.width + channel]);
                        let before = begin.map_or(100.0, |begin| begin[channel]);
                        assert_eq!(sums[channel], before + products.sum::<f32>(), "{isa:?} {channels}");
                    }
                }
            }
        }
    }

    #[test]
    fn transposing_moves_every_element_and_nothing_else() {
        const ROW: usize = 30;
        for (isa, squares) in Isa::available().into_iter().flat_map(|isa| (1..=3).map(move |squares| (isa, squares))) {
            let from: Vec<f32> = (0..24 * 20).map(|i| i as f32).collect();
            let mut to = [[-1.0; ROW]; 9];
            // SAFETY: there is room for three squares.
            unsafe { transpose(isa, &from, 20, squares, to.as_flattened_mut().as_mut_ptr(), ROW) };
            for (i, j) in (0..9).flat_map(|i| (0..ROW).map(move |j| (i, j))) {
                let expected = if i < 8 && j < 8 * squares { from[j * 20 + i] } else { -1.0 };
                assert_eq!(to[i][j], expected, "{isa:?}, {squares} squares, row {i}, element {j}");
            }
        }
    }
}
