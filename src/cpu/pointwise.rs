//! Correlation by kernels of one element that read the pixel they stand on: a product of two matrices.
//!
//! The vectors run along the pixels of a plane, so results are stored where they belong, and are summed there. An item
//! is a block of pixels: in passes over some channels, its pixels are brought side by side in strips as wide as a tile,
//! and a few panels of weights at a time, which stay in the first-level cache, go over strip after strip.

use super::chains::Chains;
use super::dense::{Start, even};
use super::gather::{Gather, Run, Term};
use super::isa::{Isa, Plain, Vector, add_outer_product};
use super::parallel::{Shared, for_each};
use super::workspace::Workspace;
use super::{Machine, Way};
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

/// Packed weights at most, in elements: 8 MiB. More result channels take turns.
const MAX_PACKED: usize = 1 << 21;
/// Channels of a pass at most.
const MAX_PASS: usize = 256;
/// Elements of the panels that go over a strip together: less than half of a first-level cache.
const TOGETHER: usize = 3 << 10;
/// Pixels of an item at most.
const PIXELS: usize = 256;
/// Fewer pixels than these would not pay for the weights that pass by, except for what is left of an image.
const MIN_PIXELS: usize = 64;
/// Items wanted at least, if that leaves enough to do in each: threads may be held up.
const ITEMS: usize = 64;
/// Fewest floating-point operations worth an item of its own.
const MIN_ITEM: f64 = 1e6;
/// Elements of any instruction set's tile.
const LARGEST_TILE: usize = 8 * 32;

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
    let (pixels, channels) = (gather.pixels(), gather.channels);
    let tiles = Tiles::new(machine.isa);
    let pass = even(channels, MAX_PASS);
    let more = matches!(start, Start::Old) || !machine.isa.fuses();
    let chains = Chains::new(channels, channels.div_ceil(pass), pass, more);
    if !gather.is_pointwise()
        || !machine.takes(Way::Pointwise, true)
        || chains.a_total.is_some()
        || channels > MAX_PACKED
    {
        return Ok(false);
    }
    if pixels == 0 {
        return Ok(true);
    }
    let worthwhile = ((gather.flops() / MIN_ITEM) as usize).clamp(1, ITEMS);
    let wanted = pixels.div_ceil(worthwhile).clamp(MIN_PIXELS, PIXELS);
    // Blocks of one image where its strips are nearly full: strips across images store their sums in pieces.
    let plane = gather.dst[1];
    let full = 16 * plane.next_multiple_of(tiles.width) <= 17 * plane;
    let stretch = if full { plane } else { pixels };
    let block = stretch.div_ceil(stretch.div_ceil(wanted)).next_multiple_of(tiles.width);
    let blocks = stretch.div_ceil(block);
    let turn = even(gather.outputs, (MAX_PACKED / channels).max(1)).next_multiple_of(tiles.height);
    let mut call = machine.threads.lease();
    let call = &mut *call;
    gather.terms(0, channels, &mut call.terms)?;
    let dst = Shared::new(dst);
    for group in 0..gather.groups {
        for first in (0..gather.outputs).step_by(turn) {
            let outputs = first..gather.outputs.min(first + turn);
            let weight = &weight[group * gather.weight_group + first * gather.weight_output..];
            let packed = call.a.room(outputs.len() * channels)?;
            pack(gather, weight, &call.terms, pass, tiles.height, packed);
            let job = Job { gather, tiles: &tiles, pass, chain: chains.length, src, weights: packed, start, dst: &dst };
            let flops = gather.flops() / gather.groups as f64 * outputs.len() as f64 / gather.outputs as f64;
            for_each(&machine.threads, flops, pixels / stretch * blocks, |own, item| {
                let (first, from) = (item / blocks * stretch, item % blocks * block);
                job.item(own, group, outputs.clone(), first + from..first + stretch.min(from + block))
            })?;
        }
    }
    Ok(true)
}

/// The weights of some result channels: pass after pass, in it panel after panel of `height` channels (the last one may
/// have fewer), in it term after term.
fn pack(gather: &Gather, weight: &[f32], terms: &[Term], pass: usize, height: usize, packed: &mut [f32]) {
    let outputs = packed.len() / terms.len();
    let mut rest = packed;
    for terms in terms.chunks(pass) {
        for first in (0..outputs).step_by(height) {
            let rows = height.min(outputs - first);
            let (panel, others) = rest.split_at_mut(rows * terms.len());
            let weight = &weight[first * gather.weight_output..];
            for (to, term) in panel.chunks_exact_mut(rows).zip(terms) {
                let column = weight[term.weight..].iter().step_by(gather.weight_output);
                to.iter_mut().zip(column).for_each(|(to, weight)| *to = *weight);
            }
            rest = others;
        }
    }
}

/// What the items of a call share.
struct Job<'a> {
    gather: &'a Gather,
    tiles: &'a Tiles,
    pass: usize,
    chain: usize,
    src: &'a [f32],
    weights: &'a [f32],
    start: Start<'a>,
    dst: &'a Shared<'a, f32>,
}

impl Job<'_> {
    /// Computes some result channels of some pixels of the batch.
    fn item(&self, own: &mut Workspace, group: usize, outputs: Range<usize>, pixels: Range<usize>) -> Result<()> {
        let (gather, Tiles { height, width, .. }) = (self.gather, *self.tiles);
        gather.runs(pixels.start, pixels.end, usize::MAX, &mut own.runs);
        // Strips an odd number of cache lines apart do not push each other out of the cache.
        let strip = (self.pass | 1) * width;
        let strips = own.b.room(pixels.len().div_ceil(width) * strip)?;
        let mut packed = self.weights;
        for first in (0..gather.channels).step_by(self.pass) {
            let terms = self.pass.min(gather.channels - first);
            self.bring(group, first..first + terms, &own.runs, strip, strips);
            let (weights, later) = packed.split_at(outputs.len() * terms);
            packed = later;
            let together = (TOGETHER / (height * terms)).max(1) * height;
            for rows in (0..outputs.len()).step_by(together) {
                let rows = rows..outputs.len().min(rows + together);
                let mut places = own.runs.iter().copied();
                let mut run = places.next();
                for (pixel, strip) in (0..pixels.len()).step_by(width).zip(strips.chunks_exact(strip)) {
                    // The strip's pixels may be of one image, or of several.
                    let count = width.min(pixels.len() - pixel);
                    while let Some(here) = run
                        && here.at + here.len <= pixel
                    {
                        run = places.next();
                    }
                    let Some(here) = run else { break };
                    let whole = count == width && here.at + here.len >= pixel + width;
                    for panel in rows.clone().step_by(height) {
                        let height = height.min(rows.end - panel);
                        let product = Product {
                            a: &weights[panel * terms..(panel + height) * terms],
                            b: &strip[..terms * width],
                            chain: self.chain,
                            begin: self.begin(first, group, outputs.start + panel),
                        };
                        let row = |run: &Run, i: usize| {
                            gather.dst_plane(run.image, group, outputs.start + panel + i) + run.column
                        };
                        if whole {
                            let plane = gather.dst[1];
                            // SAFETY: an item alone owns its pixels of its channels.
                            let c = unsafe { self.dst.rows(row(&here, 0) + pixel - here.at, height, plane, width) };
                            // SAFETY: as above; there are `height` rows.
                            unsafe { self.tiles.run(height, &product, c, plane) };
                            continue;
                        }
                        let mut tile = [0.0; LARGEST_TILE];
                        let pieces = || {
                            let later = places.clone();
                            std::iter::once(here).chain(later).take_while(move |run| run.at < pixel + count)
                        };
                        let each = |run: &Run| {
                            let (from, to) = (run.at.max(pixel), (run.at + run.len).min(pixel + count));
                            (from - run.at, from - pixel, to - from)
                        };
                        for i in 0..height {
                            for run in pieces() {
                                let (skip, at, len) = each(&run);
                                // SAFETY: as above.
                                let dst = unsafe { self.dst.slice(row(&run, i) + skip, len) };
                                tile[i * width + at..][..len].copy_from_slice(dst);
                            }
                        }
                        // SAFETY: the tile is this thread's own, and as large as any.
                        unsafe { self.tiles.run(height, &product, tile.as_mut_ptr(), width) };
                        for i in 0..height {
                            for run in pieces() {
                                let (skip, at, len) = each(&run);
                                // SAFETY: as above.
                                let dst = unsafe { self.dst.slice(row(&run, i) + skip, len) };
                                dst.copy_from_slice(&tile[i * width + at..][..len]);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What sums begin with in the pass from channel `first` on.
    fn begin(&self, first: usize, group: usize, output: usize) -> Begin<'_> {
        match self.start {
            _ if first > 0 => Begin::There,
            Start::Old => Begin::There,
            Start::Zero => Begin::Zero,
            Start::Bias(bias) => Begin::Bias(&bias[group * self.gather.outputs + output..]),
        }
    }

    /// Brings the pixels of some channels into strips, `strip` elements apart: `[strip][channel][width]`. Those beyond
    /// the last pixel are zero.
    fn bring(&self, group: usize, channels: Range<usize>, runs: &[Run], strip: usize, strips: &mut [f32]) {
        let width = self.tiles.width;
        let pixels = runs.last().map_or(0, |run| run.at + run.len);
        if !pixels.is_multiple_of(width) {
            strips[pixels / width * strip..].fill(0.0);
        }
        for (term, channel) in channels.enumerate() {
            for run in runs {
                let mut from = &self.src[self.gather.src_plane(run.image, group, channel) + run.column..][..run.len];
                let mut at = run.at;
                while !from.is_empty() {
                    let (inside, to) = (at % width, &mut strips[at / width * strip + term * width..][..width]);
                    let count = from.len().min(width - inside);
                    match (width, count) {
                        (16, 16) => copy::<16>(to, from),
                        (32, 32) => copy::<32>(to, from),
                        _ => to[inside..inside + count].copy_from_slice(&from[..count]),
                    }
                    from = &from[count..];
                    at += count;
                }
            }
        }
    }
}

/// Copies so many elements without a call.
#[inline(always)]
fn copy<const COUNT: usize>(to: &mut [f32], from: &[f32]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<COUNT>(), from.first_chunk::<COUNT>()) {
        *to = *from;
    }
}

/// What the first chain of a tile's sums begins with.
#[derive(Clone, Copy)]
enum Begin<'a> {
    Zero,
    /// A value for each row.
    Bias(&'a [f32]),
    /// It is added to the sums that are there, as every later one is.
    There,
}

/// A product of a panel of weights and a strip of pixels.
struct Product<'a> {
    /// Weights of the rows, for each term.
    a: &'a [f32],
    /// Pixels, for each term.
    b: &'a [f32],
    /// Terms summed in one chain.
    chain: usize,
    begin: Begin<'a>,
}

/// Computes a tile at a place, whose rows are so many elements apart.
type Tile = unsafe fn(&Product<'_>, *mut f32, usize);

/// The tiles of an instruction set.
#[derive(Clone, Copy)]
struct Tiles {
    /// Rows at most.
    height: usize,
    /// Pixels.
    width: usize,
    /// Those of 1, 2, … rows.
    kernels: &'static [Tile],
}

impl Tiles {
    fn new(isa: Isa) -> Tiles {
        let (width, kernels): (usize, &'static [Tile]) = match isa {
            Isa::Portable => (16, &[portable::<1>, portable::<2>, portable::<3>, portable::<4>]),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (16, &[avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>]),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (
                32,
                &[
                    avx512::<1>,
                    avx512::<2>,
                    avx512::<3>,
                    avx512::<4>,
                    avx512::<5>,
                    avx512::<6>,
                    avx512::<7>,
                    avx512::<8>,
                ],
            ),
        };
        Tiles { height: kernels.len(), width, kernels }
    }

    /// Computes a tile of `rows` rows.
    ///
    /// # Safety
    /// There are so many rows of `width` elements at `c`, `row` elements apart, and nobody else uses them.
    unsafe fn run(&self, rows: usize, product: &Product<'_>, c: *mut f32, row: usize) {
        assert!(product.a.len() * self.width == product.b.len() * rows, "there are weights and pixels for each term");
        assert!(product.chain > 0, "chains have terms");
        if let Begin::Bias(bias) = product.begin {
            assert!(bias.len() >= rows, "there is a bias for each row");
        }
        // SAFETY: `Isa` only names instruction sets that this processor was seen to have; operands are as long as the
        // kernel reads, by the assertions above, and the caller promised the rows.
        unsafe { self.kernels[rows - 1](product, c, row) }
    }
}

/// # Safety
/// As [`tile`].
unsafe fn portable<const ROWS: usize>(product: &Product<'_>, c: *mut f32, row: usize) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Plain, ROWS>(product, c, row) }
}

/// # Safety
/// As [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize>(product: &Product<'_>, c: *mut f32, row: usize) {
    // SAFETY: the caller's promise.
    unsafe { tile::<__m256, ROWS>(product, c, row) }
}

/// # Safety
/// As [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize>(product: &Product<'_>, c: *mut f32, row: usize) {
    // SAFETY: the caller's promise.
    unsafe { tile::<__m512, ROWS>(product, c, row) }
}

/// A tile of `ROWS` rows of two vectors, every sum in a register.
///
/// # Safety
/// The processor has `V`; there are `ROWS` weights, and two vectors of pixels, for each term, as many biases as rows if
/// there are any, and two vectors in each row of `c`.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize>(product: &Product<'_>, c: *mut f32, row: usize) {
    const VECTORS: usize = 2;
    // SAFETY: the caller's promises.
    unsafe {
        let mut b = product.b.as_ptr();
        let mut begin = product.begin;
        for weights in product.a.as_chunks::<ROWS>().0.chunks(product.chain) {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            if let Begin::Bias(bias) = begin {
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = [V::splat(*bias.get_unchecked(i)); VECTORS];
                }
            }
            // By fours, unrolled: what the loop itself takes is a sixth of a term.
            let (fours, rest) = weights.as_chunks::<4>();
            for four in fours {
                for (i, weights) in four.iter().enumerate() {
                    add_outer_product(&mut sums, weights.as_ptr(), b.add(i * VECTORS * V::LANES));
                }
                b = b.add(4 * VECTORS * V::LANES);
            }
            for weights in rest {
                add_outer_product(&mut sums, weights.as_ptr(), b);
                b = b.add(VECTORS * V::LANES);
            }
            // By reference: sums that an iterator moves go through memory.
            for (i, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let to = c.add(i * row + v * V::LANES);
                    if matches!(begin, Begin::There) { V::load(to).add(sum).store(to) } else { sum.store(to) }
                }
            }
            begin = Begin::There;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_adds_the_exact_products_of_small_integers() {
        const TERMS: usize = 13;
        for isa in Isa::available() {
            let tiles = Tiles::new(isa);
            let b: Vec<f32> = (0..TERMS * tiles.width).map(|i| (i % 7) as f32 - 3.0).collect();
            let bias: Vec<f32> = (0..tiles.height).map(|i| 10.0 * i as f32).collect();
            for rows in 1..=tiles.height {
                let a: Vec<f32> = (0..TERMS * rows).map(|i| (i % 11) as f32 - 5.0).collect();
                for (begin, before) in [(Begin::Zero, 0.0), (Begin::Bias(&bias), 0.0), (Begin::There, 100.0)] {
                    let row = tiles.width + 3;
                    let mut c = vec![100.0; rows * row];
                    let product = Product { a: &a, b: &b, chain: 5, begin };
                    // SAFETY: there are as many rows.
                    unsafe { tiles.run(rows, &product, c.as_mut_ptr(), row) };
                    for (i, j) in (0..rows).flat_map(|i| (0..row).map(move |j| (i, j))) {
                        let products =
                            (0..TERMS).map(|term| a[term * rows + i] * b[term * tiles.width + j % tiles.width]);
                        let bias = if matches!(begin, Begin::Bias(_)) { bias[i] } else { 0.0 };
                        let expected = if j < tiles.width { before + bias + products.sum::<f32>() } else { 100.0 };
                        assert_eq!(c[i * row + j], expected, "{isa:?}, {rows} rows, element {i}, {j}");
                    }
                }
            }
        }
    }
}
