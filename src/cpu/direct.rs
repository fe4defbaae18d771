//! Correlation without a product of matrices, for depthwise layers and others with few results in a group: a packed
//! panel would serve too few rows to be worth its packing.
//!
//! The vectors run along the pixels of a row, and several result channels share each vector read.

use super::dense::{Start, store};
use super::gather::{Gather, Term};
use super::gemm::block_depth;
use super::isa::{Isa, Plain, Vector};
use super::parallel::{self, Shared, zeroed};
use super::patch::Patch;
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// Result channels of a group up to which this is the faster way.
pub(super) const MAX_OUTPUTS: usize = 8;

/// Result channels that share the vectors read.
const TOGETHER: usize = 4;

/// Widest vector of pixels of any kernel below.
const MAX_LANES: usize = 32;

/// Multiplications that make an item worth fetching.
const ITEM: usize = 1 << 16;

/// One line of pixels for up to `TOGETHER` result channels.
struct Line<'a> {
    patch: &'a [f32],
    /// Where each term reads for the first pixel.
    offsets: &'a [usize],
    /// Weights of each term, one for each result channel.
    weights: &'a [f32],
    /// Terms summed in one chain.
    depth: usize,
    pixels: usize,
}

struct Workspace {
    patch: Vec<f32>,
    weights: Vec<f32>,
    sums: Vec<f32>,
}

/// Adds up the products of `gather` into `dst`. `Ok(false)`: this layer is not for here, and nothing was written.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn correlate(
    isa: Isa,
    gather: &Gather,
    src: &[f32],
    weight: &[f32],
    start: Start<'_>,
    dst: &mut [f32],
    threads: usize,
) -> Result<bool> {
    let (pixels, outputs) = (gather.grid[1], gather.outputs);
    if outputs > MAX_OUTPUTS {
        return Ok(false);
    }
    let Some(patch) = Patch::plan(gather)? else { return Ok(false) };
    let mut terms: Vec<Term> = Vec::new();
    gather.terms(0, gather.depth(), &mut terms);

    // Rows of a dense grid can be computed as one line; the few sums between them are dropped.
    let flat = patch.is_flat(gather) && patch.pitch - pixels < MAX_LANES;
    let lane_pixels = if flat { (patch.band - 1) * patch.pitch + pixels } else { pixels };
    let pitch = lane_pixels.next_multiple_of(MAX_LANES);
    let depth = block_depth(terms.len());
    let workspace = || {
        Ok(Workspace {
            patch: zeroed(patch.len(gather))?,
            weights: zeroed(TOGETHER * terms.len())?,
            sums: zeroed(TOGETHER * pitch)?,
        })
    };

    let bands = gather.grid[0].div_ceil(patch.band);
    let pieces = gather.batch * gather.groups * bands;
    let piece_work = patch.band * pixels * terms.len() * outputs;
    let pieces_an_item = ITEM.div_ceil(piece_work.max(1));
    let dst = Shared::new(dst);
    let work = |own: &mut Workspace, piece: usize| {
        let (band, plane) = (piece % bands, piece / bands);
        let (image, group) = (plane / gather.groups, plane % gather.groups);
        let (from, to) = (band * patch.band, gather.grid[0].min((band + 1) * patch.band));
        if from >= to {
            return;
        }
        patch.fill(gather, (image, group), (from, to), src, &mut own.patch);
        for first in (0..outputs).step_by(TOGETHER) {
            let together = TOGETHER.min(outputs - first);
            let filters = group * gather.weight_group + first * gather.weight_output;
            for (weights, term) in own.weights.chunks_exact_mut(together).zip(&terms) {
                for (i, to) in weights.iter_mut().enumerate() {
                    *to = weight[filters + i * gather.weight_output + term.weight];
                }
            }
            let weights = &own.weights[..together * terms.len()];
            let lines = if flat { 1 } else { to - from };
            let rows_a_line = if flat { to - from } else { 1 };
            for line in 0..lines {
                let job = Line {
                    patch: &own.patch[line * patch.grid_row(gather)..],
                    offsets: &patch.offsets,
                    weights,
                    depth,
                    pixels: (rows_a_line - 1) * patch.pitch + pixels,
                };
                run(isa, together, &job, pitch, &mut own.sums);
                for row in 0..rows_a_line {
                    let h = gather.origin[0] + gather.spacing[0] * (from + line + row);
                    for i in 0..together {
                        let sums = &own.sums[i * pitch + row * patch.pitch..][..pixels];
                        let at = gather.dst_plane(image, group, first + i) + h * gather.dst[1] + gather.origin[1];
                        let initial = match start {
                            Start::Bias(bias) => bias[group * outputs + first + i],
                            Start::Zero | Start::Old => 0.0,
                        };
                        // SAFETY: a piece alone owns its rows of its channels of its image.
                        unsafe { store(&dst, at, gather.spacing[1], sums, initial, matches!(start, Start::Old)) };
                    }
                }
            }
        }
    };
    let threads = parallel::worthwhile(gather.flops(), threads);
    parallel::for_each(pieces.div_ceil(pieces_an_item), threads, workspace, |own, item| {
        (item * pieces_an_item..pieces.min((item + 1) * pieces_an_item)).for_each(|piece| work(own, piece));
        Ok(())
    })?;
    Ok(true)
}

/// Computes a line's sums; those of one result channel are `pitch` apart from the next one's.
fn run(isa: Isa, together: usize, line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    let kernels: [Kernel; TOGETHER] = match isa {
        Isa::Portable => [portable::<1>, portable::<2>, portable::<3>, portable::<4>],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => [avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => [avx512::<1>, avx512::<2>, avx512::<3>, avx512::<4>],
    };
    // SAFETY: `Isa` only names instruction sets that this processor was seen to have.
    unsafe { kernels[together - 1](line, pitch, sums) }
}

type Kernel = unsafe fn(&Line<'_>, usize, &mut [f32]);

/// # Safety
/// As [`pixels`].
unsafe fn portable<const OUTPUTS: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<Plain, OUTPUTS>(line, pitch, sums) }
}

/// # Safety
/// As [`pixels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const OUTPUTS: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<__m256, OUTPUTS>(line, pitch, sums) }
}

/// # Safety
/// As [`pixels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const OUTPUTS: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<__m512, OUTPUTS>(line, pitch, sums) }
}

/// Two vectors of pixels of `OUTPUTS` channels at a time: the sums of a block stay in registers.
///
/// # Safety
/// The processor has `V`.
#[inline(always)]
unsafe fn pixels<V: Vector, const OUTPUTS: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    let weights = line.weights.as_chunks::<OUTPUTS>().0;
    let lanes = 2 * V::LANES;
    let furthest = line.offsets.iter().max().copied().unwrap_or(0) + line.pixels.next_multiple_of(lanes);
    assert!(furthest <= line.patch.len(), "a line reads beyond its patch");
    assert!((OUTPUTS - 1) * pitch + line.pixels.next_multiple_of(lanes) <= sums.len(), "a line's sums do not fit");
    for first in (0..line.pixels).step_by(lanes) {
        // SAFETY: the processor has `V` by the caller's promise; every vector read ends within `furthest`, and every
        // vector written within the room for sums, by the assertions above.
        unsafe {
            let patch = line.patch.as_ptr().add(first);
            let mut totals = [[V::splat(0.0); 2]; OUTPUTS];
            for (offsets, weights) in line.offsets.chunks(line.depth).zip(weights.chunks(line.depth)) {
                let mut block = [[V::splat(0.0); 2]; OUTPUTS];
                for (&offset, weights) in offsets.iter().zip(weights) {
                    let values = [V::load(patch.add(offset)), V::load(patch.add(offset + V::LANES))];
                    for i in 0..OUTPUTS {
                        let weight = V::splat(weights[i]);
                        block[i][0] = weight.multiply_add(values[0], block[i][0]);
                        block[i][1] = weight.multiply_add(values[1], block[i][1]);
                    }
                }
                for i in 0..OUTPUTS {
                    totals[i] = [totals[i][0].add(block[i][0]), totals[i][1].add(block[i][1])];
                }
            }
            for (i, total) in totals.into_iter().enumerate() {
                let to = sums.as_mut_ptr().add(i * pitch + first);
                total[0].store(to);
                total[1].store(to.add(V::LANES));
            }
        }
    }
}
