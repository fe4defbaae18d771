//! Correlation of depthwise layers and others with few result channels in a group, which would leave most of a panel
//! empty. A patch with all channels stays in the cache, and no sum leaves its register before it is complete.
//!
//! The vectors run along the pixels of a row, and several result channels share each vector read.

use super::chains::Chains;
use super::dense::{Start, store};
use super::gather::{Gather, Term};
use super::isa::{Isa, Plain, Vector};
use super::parallel::{Shared, for_each};
use super::patch::Patch;
use super::workspace::Workspace;
use super::{Machine, Way};
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// Result channels of a group up to which this is the faster way.
pub(super) const MAX_OUTPUTS: usize = 8;

/// Most pixels that any kernel below computes at a time.
const MAX_LANES: usize = 64;

/// Multiplications that make an item worth fetching.
const ITEM: usize = 1 << 16;

/// One line of pixels for some result channels.
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

/// Adds up the products of `gather` into `dst`. `Ok(false)`: this layer is not for here, and nothing was written.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn correlate(
    machine: &Machine,
    gather: &Gather,
    src: &[f32],
    weight: &[f32],
    start: Start<'_>,
    dst: &mut [f32],
) -> Result<bool> {
    let (pixels, outputs) = (gather.grid[1], gather.outputs);
    let fast = outputs <= MAX_OUTPUTS;
    if !machine.takes(Way::Direct, fast) {
        return Ok(false);
    }
    let mut call = machine.threads.lease();
    let call = &mut *call;
    let Some(patch) = Patch::plan(gather, &mut call.rows)? else { return Ok(false) };
    let offsets = &call.rows[..gather.depth()];
    let bands = gather.grid[0].div_ceil(patch.band);
    let pieces = gather.batch * gather.groups * bands;
    gather.terms(0, gather.depth(), &mut call.terms)?;
    let terms = &call.terms[..];

    // Rows of a dense grid can be computed as one line; the few sums between them are dropped.
    let flat = patch.is_flat(gather) && patch.pitch - pixels < MAX_LANES;
    let lane_pixels = if flat { (patch.band - 1) * patch.pitch + pixels } else { pixels };
    let pitch = lane_pixels.next_multiple_of(MAX_LANES);
    let depth = Chains::new(terms.len(), 1, terms.len(), true).length;
    let kernels = kernels(machine.isa);
    let weights = call.a.room(gather.groups * outputs * terms.len())?;
    pack(gather, weight, terms, kernels.len(), weights);
    let weights = &*weights;

    let piece_work = patch.band * pixels * terms.len() * outputs;
    let pieces_an_item = ITEM.div_ceil(piece_work.max(1));
    let dst = Shared::new(dst);
    let work = |own: &mut Workspace, piece: usize| -> Result<()> {
        let (band, plane) = (piece % bands, piece / bands);
        let (image, group) = (plane / gather.groups, plane % gather.groups);
        let (from, to) = (band * patch.band, gather.grid[0].min((band + 1) * patch.band));
        if from >= to {
            return Ok(());
        }
        let (values, sums) = (own.b.room(patch.len(gather))?, own.sums.room(kernels.len() * pitch)?);
        patch.fill(gather, (image, group), (from, to), src, values);
        for first in (0..outputs).step_by(kernels.len()) {
            let together = kernels.len().min(outputs - first);
            let weights = &weights[(group * outputs + first) * terms.len()..][..together * terms.len()];
            let lines = if flat { 1 } else { to - from };
            let rows_a_line = if flat { to - from } else { 1 };
            for line in 0..lines {
                let job = Line {
                    patch: &values[line * patch.grid_row(gather)..],
                    offsets,
                    weights,
                    depth,
                    pixels: (rows_a_line - 1) * patch.pitch + pixels,
                };
                // SAFETY: `Isa` only names instruction sets that this processor was seen to have.
                unsafe { kernels[together - 1](&job, pitch, sums) };
                for row in 0..rows_a_line {
                    let h = gather.origin[0] + gather.spacing[0] * (from + line + row);
                    for i in 0..together {
                        let sums = &sums[i * pitch + row * patch.pitch..][..pixels];
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
        Ok(())
    };
    for_each(&machine.threads, gather.flops(), pieces.div_ceil(pieces_an_item), |own, item| {
        (item * pieces_an_item..pieces.min((item + 1) * pieces_an_item)).try_for_each(|piece| work(own, piece))
    })?;
    Ok(true)
}

/// The weights of every group, for as many result channels at a time as share vectors: `[term][channel]` for each.
fn pack(gather: &Gather, weight: &[f32], terms: &[Term], together: usize, packed: &mut [f32]) {
    let groups = packed.chunks_exact_mut(gather.outputs * terms.len());
    for (weight, group) in weight.chunks_exact(gather.weight_group).zip(groups) {
        for (channels, packed) in group.chunks_mut(together * terms.len()).enumerate() {
            let weight = &weight[channels * together * gather.weight_output..];
            for (packed, term) in packed.chunks_exact_mut(packed.len() / terms.len()).zip(terms) {
                let column = weight[term.weight..].iter().step_by(gather.weight_output);
                packed.iter_mut().zip(column).for_each(|(to, weight)| *to = *weight);
            }
        }
    }
}

/// Computes a line's sums; those of one result channel are so many elements apart from the next one's.
type Kernel = unsafe fn(&Line<'_>, usize, &mut [f32]);

/// The kernels for 1, 2, … result channels at a time: as many as an instruction set has registers for.
fn kernels(isa: Isa) -> &'static [Kernel] {
    match isa {
        Isa::Portable => &[portable::<1, 4>, portable::<2, 2>, portable::<3, 2>, portable::<4, 2>],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &[avx2::<1, 4>, avx2::<2, 2>, avx2::<3, 2>, avx2::<4, 2>, avx2::<5, 2>, avx2::<6, 2>],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &[
            avx512::<1, 4>,
            avx512::<2, 4>,
            avx512::<3, 4>,
            avx512::<4, 2>,
            avx512::<5, 2>,
            avx512::<6, 2>,
            avx512::<7, 2>,
            avx512::<8, 2>,
        ],
    }
}

/// # Safety
/// As [`pixels`].
unsafe fn portable<const OUTPUTS: usize, const N: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<Plain, OUTPUTS, N>(line, pitch, sums) }
}

/// # Safety
/// As [`pixels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const OUTPUTS: usize, const N: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<__m256, OUTPUTS, N>(line, pitch, sums) }
}

/// # Safety
/// As [`pixels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const OUTPUTS: usize, const N: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pixels::<__m512, OUTPUTS, N>(line, pitch, sums) }
}

/// `N` vectors of pixels of `OUTPUTS` channels at a time: the sums of a block stay in registers, in enough chains to hide
/// what an addition takes.
///
/// # Safety
/// The processor has `V`.
#[inline(always)]
unsafe fn pixels<V: Vector, const OUTPUTS: usize, const N: usize>(line: &Line<'_>, pitch: usize, sums: &mut [f32]) {
    let weights = line.weights.as_chunks::<OUTPUTS>().0;
    let lanes = N * V::LANES;
    let furthest = line.offsets.iter().max().copied().unwrap_or(0) + line.pixels.next_multiple_of(lanes);
    assert!(furthest <= line.patch.len(), "a line reads beyond its patch");
    assert!((OUTPUTS - 1) * pitch + line.pixels.next_multiple_of(lanes) <= sums.len(), "a line's sums do not fit");
    for first in (0..line.pixels).step_by(lanes) {
        // SAFETY: the processor has `V` by the caller's promise; every vector read ends within `furthest`, and every
        // vector written within the room for sums, by the assertions above.
        unsafe {
            let patch = line.patch.as_ptr().add(first);
            let mut totals = [[V::splat(0.0); N]; OUTPUTS];
            for (offsets, weights) in line.offsets.chunks(line.depth).zip(weights.chunks(line.depth)) {
                let mut block = [[V::splat(0.0); N]; OUTPUTS];
                for (&offset, weights) in offsets.iter().zip(weights) {
                    let mut values = [V::splat(0.0); N];
                    for (v, value) in values.iter_mut().enumerate() {
                        *value = V::load(patch.add(offset + v * V::LANES));
                    }
                    for (block, &weight) in block.iter_mut().zip(weights) {
                        let weight = V::splat(weight);
                        for (sum, &value) in block.iter_mut().zip(&values) {
                            *sum = weight.multiply_add(value, *sum);
                        }
                    }
                }
                for (total, block) in totals.as_flattened_mut().iter_mut().zip(block.as_flattened()) {
                    *total = total.add(*block);
                }
            }
            for (i, totals) in totals.iter().enumerate() {
                for (v, &total) in totals.iter().enumerate() {
                    total.store(sums.as_mut_ptr().add(i * pitch + first + v * V::LANES));
                }
            }
        }
    }
}
