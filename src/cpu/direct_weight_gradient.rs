//! Weight gradient of depthwise layers and others with few result channels in a group, without packing.
//!
//! The vectors run along the pixels of a row of dy; each of a few taps keeps a vector of sums. These chains are short,
//! and all that follows them is summed in float64, in an order that the problem alone decides.

use super::direct::MAX_OUTPUTS;
use super::gather::Gather;
use super::isa::{Isa, Plain, Vector};
use super::parallel::{Shared, for_each};
use super::patch::Patch;
use super::workspace::{Workspace, room};
use super::{Machine, Way};
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// Taps whose sums share each vector of dy.
const TOGETHER: usize = 9;

/// Items wanted at least, by cutting the batch.
const ITEMS: usize = 32;

/// Float64 sums of all items together at most: 4 MiB.
const MAX_SUMS: usize = 1 << 19;

/// One band of one plane of dy, for up to `TOGETHER` taps.
struct Band<'a> {
    dy: &'a [f32],
    patch: &'a [f32],
    /// Elements of the patch between rows of dy.
    row: usize,
    pixels: usize,
    /// Products summed in one chain.
    depth: usize,
}

/// The weight gradient of the layer whose forward pass is `gather`. `Ok(false)`: this layer is not for here, and
/// nothing was written.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn weight_gradient(
    machine: &Machine,
    gather: &Gather,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dweight: &mut [f32],
) -> Result<bool> {
    let (outputs, filter, pixels) = (gather.outputs, gather.depth(), gather.grid[1]);
    let fast = outputs <= MAX_OUTPUTS;
    if dweight.len() > MAX_SUMS || !machine.takes(Way::Direct, fast) {
        return Ok(false);
    }
    let mut call = machine.threads.lease();
    let call = &mut *call;
    let Some(patch) = Patch::plan(gather, &mut call.rows)? else { return Ok(false) };
    let offsets = &call.rows[..filter];
    let kernel: Kernel = match machine.isa {
        Isa::Portable => portable,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512,
    };
    // A chain may have 8·√K roundings; half of it is plenty, and 16 are allowed from K = 4 on (fewer terms make no
    // longer chains).
    let depth = (4.0 * (gather.pixels() as f64).sqrt()).clamp(16.0, 256.0) as usize;

    let wanted = ITEMS.div_ceil(gather.groups).min(MAX_SUMS / dweight.len().max(1)).min(gather.batch).max(1);
    let images = gather.batch.div_ceil(wanted);
    let parts = gather.batch.div_ceil(images.max(1));
    let elements = dweight.len();
    let partial = room(&mut call.doubles, parts * elements)?;
    partial.fill(0.0);
    let sums = Shared::new(partial);
    let work = |own: &mut Workspace, item: usize| {
        let values = own.b.room(patch.len(gather))?;
        let (part, group) = (item / gather.groups, item % gather.groups);
        let first = part * elements + group * gather.weight_group;
        // SAFETY: an item alone owns its group's filters, in its part.
        let sums = unsafe { sums.slice(first, outputs * filter) };
        for image in part * images..gather.batch.min((part + 1) * images) {
            for from in (0..gather.grid[0]).step_by(patch.band) {
                let to = gather.grid[0].min(from + patch.band);
                patch.fill(gather, (image, group), (from, to), x, values);
                for (output, sums) in sums.chunks_exact_mut(filter).enumerate() {
                    let plane = gather.dst_plane(image, group, output);
                    let dy = &dy[plane + from * pixels..plane + to * pixels];
                    let band = Band { dy, patch: values, row: patch.grid_row(gather), pixels, depth };
                    for (offsets, sums) in offsets.chunks(TOGETHER).zip(sums.chunks_mut(TOGETHER)) {
                        let mut taps = [offsets[0]; TOGETHER];
                        taps[..offsets.len()].copy_from_slice(offsets);
                        let mut found = [0f64; TOGETHER];
                        // SAFETY: `Isa` only names instruction sets that this processor was seen to have.
                        unsafe { kernel(&band, &taps, &mut found) };
                        sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
                    }
                }
            }
        }
        Ok(())
    };
    for_each(&machine.threads, gather.flops(), parts * gather.groups, work)?;
    for (i, to) in dweight.iter_mut().enumerate() {
        let sum: f64 = (0..parts).map(|part| partial[part * elements + i]).sum();
        *to = (f64::from(if accumulate { *to } else { 0.0 }) + sum) as f32;
    }
    Ok(true)
}

type Kernel = unsafe fn(&Band<'_>, &[usize; TOGETHER], &mut [f64; TOGETHER]);

/// # Safety
/// As [`taps`].
unsafe fn portable(band: &Band<'_>, offsets: &[usize; TOGETHER], found: &mut [f64; TOGETHER]) {
    // SAFETY: the caller's promise.
    unsafe { taps::<Plain>(band, offsets, found) }
}

/// # Safety
/// As [`taps`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(band: &Band<'_>, offsets: &[usize; TOGETHER], found: &mut [f64; TOGETHER]) {
    // SAFETY: the caller's promise.
    unsafe { taps::<__m256>(band, offsets, found) }
}

/// # Safety
/// As [`taps`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(band: &Band<'_>, offsets: &[usize; TOGETHER], found: &mut [f64; TOGETHER]) {
    // SAFETY: the caller's promise.
    unsafe { taps::<__m512>(band, offsets, found) }
}

/// Adds each tap's sum of dy·x over the band to `found`.
///
/// # Safety
/// The processor has `V`.
#[inline(always)]
unsafe fn taps<V: Vector>(band: &Band<'_>, offsets: &[usize; TOGETHER], found: &mut [f64; TOGETHER]) {
    let rows = band.dy.len() / band.pixels;
    let furthest = offsets.iter().max().copied().unwrap_or(0) + rows.saturating_sub(1) * band.row;
    assert!(furthest + band.pixels.next_multiple_of(V::LANES) <= band.patch.len(), "a row reads beyond its patch");
    let whole = band.pixels / V::LANES * V::LANES;
    let rest = band.pixels - whole;
    // SAFETY: the processor has `V` by the caller's promise; no vector of x ends beyond what was asserted, and those of
    // dy end within their row or are read from a copy.
    unsafe {
        let mut sums = [V::splat(0.0); TOGETHER];
        let mut steps = 0;
        for (row, dy) in band.dy.chunks_exact(band.pixels).enumerate() {
            let x = band.patch.as_ptr().add(row * band.row);
            for first in (0..whole).step_by(V::LANES) {
                let dy = V::load(dy.as_ptr().add(first));
                for i in 0..TOGETHER {
                    sums[i] = dy.multiply_add(V::load(x.add(offsets[i] + first)), sums[i]);
                }
                steps += 1;
                if steps == band.depth {
                    settle(&mut sums, found);
                    steps = 0;
                }
            }
            if rest > 0 {
                // Lanes beyond the row are cut off on both sides: x may hold anything there.
                let mut last = [0f32; 16];
                last[..rest].copy_from_slice(&dy[whole..]);
                let dy = V::load(last.as_ptr());
                for i in 0..TOGETHER {
                    sums[i] = dy.multiply_add(V::load(x.add(offsets[i] + whole)).first(rest), sums[i]);
                }
                steps += 1;
                if steps == band.depth {
                    settle(&mut sums, found);
                    steps = 0;
                }
            }
        }
        settle(&mut sums, found);
    }
}

/// Moves the vectors' sums to `found`.
///
/// # Safety
/// The processor has `V`.
#[inline(always)]
unsafe fn settle<V: Vector>(sums: &mut [V; TOGETHER], found: &mut [f64; TOGETHER]) {
    for i in 0..TOGETHER {
        let mut lanes = [0f32; 16];
        // SAFETY: the processor has `V` by the caller's promise, and no vector has more than 16 lanes.
        unsafe {
            sums[i].store(lanes.as_mut_ptr());
            sums[i] = V::splat(0.0);
        }
        found[i] += lanes[..V::LANES].iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
}
