//! Correlation through the tile engine: forward pass and input gradient of layers with many channels in a group.
//!
//! Rows of the product are result channels, columns are pixels (of any image: small planes share a panel), and the
//! reduction runs over channels and taps. Each item owns a rectangle of results and sums all of their blocks.

use super::gather::{Gather, Run, Term};
use super::gemm::{Engine, Panels, Sums, block_depth};
use super::isa::Isa;
use super::parallel::{self, Shared, zeroed};
use super::shifted::Shifted;
use crate::error::Result;

/// Sums of an item at most: 1 MiB.
const MAX_SUMS: usize = 1 << 18;
/// Columns of an item at most: with the greatest depth, 1 MiB of packed pixels.
const MAX_COLUMNS: usize = 1024;
/// Fewer columns, or rows, than these would not pay for the packing of the other operand.
const MIN_COLUMNS: usize = 384;
const MIN_ROWS: usize = 128;
/// Items wanted at least for each thread, if that leaves enough to do in each: threads may be held up.
const ITEMS_A_THREAD: usize = 4;
/// Fewest multiplications worth an item of its own.
const MIN_ITEM: usize = 1 << 20;

/// What a result holds before its products are added.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// One value for each result channel.
    Bias(&'a [f32]),
    /// What is there already.
    Old,
}

struct Workspace {
    a: Vec<f32>,
    b: Vec<f32>,
    sums: Sums,
    terms: Vec<Term>,
    runs: Vec<Run>,
    /// Where the panels of B begin, and their rows.
    begins: Vec<usize>,
    rows: Vec<usize>,
}

/// Adds up the products of `gather` into `dst`.
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
) -> Result<()> {
    let engine = Engine::new(isa);
    let (terms, pixels) = (gather.depth(), gather.pixels());
    if pixels == 0 {
        return Ok(());
    }
    let depth = block_depth(terms);
    let threads = parallel::worthwhile(gather.flops(), threads);
    let shifted = Shifted::new(gather);
    let positions = shifted.as_ref().map_or(pixels, |shifted| shifted.positions);

    // Columns first: weights are packed again for each block of them. Then rows, for which pixels are packed again.
    let items = ITEMS_A_THREAD * threads;
    let wanted = (positions * gather.groups).div_ceil(items).max(MIN_ITEM.div_ceil(gather.outputs * terms));
    let columns = even(positions, wanted.clamp(MIN_COLUMNS, MAX_COLUMNS), engine.nr);
    let column_blocks = positions.div_ceil(columns);
    let wanted = if gather.flops() < 2.0 * (items * MIN_ITEM) as f64 {
        1
    } else {
        items.div_ceil(column_blocks * gather.groups)
    };
    let rows = gather.outputs.div_ceil(wanted).max(MIN_ROWS).min(MAX_SUMS / columns);
    let rows = even(gather.outputs, rows, engine.mr);
    let row_blocks = gather.outputs.div_ceil(rows);

    // A block of terms may begin and end inside a channel.
    let taps = gather.taps[0].len() * gather.taps[1].len();
    let most_channels = gather.channels.min(depth / taps + 2);

    let workspace = || {
        Ok(Workspace {
            a: zeroed(rows * depth)?,
            b: zeroed(match &shifted {
                Some(shifted) => shifted.span(columns) * most_channels,
                None => columns * depth,
            })?,
            sums: Sums::new(rows * columns, terms.div_ceil(depth))?,
            terms: Vec::new(),
            runs: Vec::new(),
            begins: engine.every_nr(columns / engine.nr),
            rows: engine.every_nr(depth),
        })
    };
    let dst = Shared::new(dst);
    let items = gather.groups * row_blocks * column_blocks;
    parallel::for_each(items, threads, workspace, |own, item| {
        let (group, block) = (item / (row_blocks * column_blocks), item % (row_blocks * column_blocks));
        let first_row = block / column_blocks * rows;
        let first_pixel = block % column_blocks * columns;
        let last_row = gather.outputs.min(first_row + rows);
        let last_pixel = positions.min(first_pixel + columns);
        match &shifted {
            Some(shifted) => shifted.runs(gather, first_pixel, last_pixel, engine.nr, &mut own.runs),
            None => gather.runs(first_pixel, last_pixel, engine.nr, &mut own.runs),
        }

        let row_panels = (last_row - first_row).div_ceil(engine.mr);
        let column_panels = (last_pixel - first_pixel).div_ceil(engine.nr);
        own.sums.start(row_panels * column_panels * engine.mr * engine.nr);
        for first in (0..terms).step_by(depth) {
            let last = terms.min(first + depth);
            gather.terms(first, last, &mut own.terms);
            let a = &mut own.a[..row_panels * engine.mr * own.terms.len()];
            let rows = Rows { gather, group, first: first_row, last: last_row };
            rows.pack(weight, &own.terms, engine.mr, a);
            let pixels = Pixels { gather, group, src };
            let panels = match &shifted {
                Some(shifted) => {
                    let span = shifted.span(column_panels * engine.nr);
                    pixels.shift(shifted, &own.terms, first_pixel, span, &mut own.b, &mut own.rows);
                    Panels { values: &own.b, begins: &own.begins[..column_panels], rows: &own.rows }
                }
                None => {
                    let b = &mut own.b[..column_panels * engine.nr * own.terms.len()];
                    pixels.pack(&own.terms, &own.runs, engine.nr, b);
                    own.begins.clear();
                    own.begins.extend((0..column_panels).map(|panel| panel * engine.nr * own.terms.len()));
                    Panels { values: b, begins: &own.begins, rows: &own.rows[..own.terms.len()] }
                }
            };
            engine.multiply(a, panels, own.sums.next_block());
        }

        let sums = own.sums.finish();
        for run in &own.runs {
            let (panel, inside) = (run.at / engine.nr, run.at % engine.nr);
            for output in first_row..last_row {
                let row = panel * row_panels * engine.mr + (output - first_row);
                let sums = &sums[row * engine.nr + inside..][..run.len];
                let plane = gather.dst_plane(run.image, group, output);
                let line = plane + (gather.origin[0] + gather.spacing[0] * run.row) * gather.dst[1];
                let at = line + gather.origin[1] + gather.spacing[1] * run.column;
                let initial = match start {
                    Start::Bias(bias) => bias[group * gather.outputs + output],
                    Start::Zero | Start::Old => 0.0,
                };
                let keep = matches!(start, Start::Old);
                // SAFETY: an item alone owns its pixels of its channels of its group.
                unsafe { store(&dst, at, gather.spacing[1], sums, initial, keep) };
            }
        }
        Ok(())
    })
}

/// Writes a run of results, `spacing` apart.
///
/// # Safety
/// No other thread may reach the elements `at`, `at + spacing`, … of `dst`.
#[inline]
pub(super) unsafe fn store(dst: &Shared<'_, f32>, at: usize, spacing: usize, sums: &[f32], initial: f32, keep: bool) {
    if spacing == 1 {
        // SAFETY: the caller's promise.
        let dst = unsafe { dst.slice(at, sums.len()) };
        for (dst, sum) in dst.iter_mut().zip(sums) {
            *dst = if keep { *dst } else { initial } + sum;
        }
        return;
    }
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        let dst = &mut unsafe { dst.slice(at + i * spacing, 1) }[0];
        *dst = if keep { *dst } else { initial } + sum;
    }
}

/// Cuts `size` into equal pieces of at most about `most`, each but the last a multiple of `unit`.
pub(super) fn even(size: usize, most: usize, unit: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1))).next_multiple_of(unit)
}

/// The result channels of an item.
struct Rows<'a> {
    gather: &'a Gather,
    group: usize,
    first: usize,
    last: usize,
}

impl Rows<'_> {
    /// Packs weights into panels of `mr` channels; rows beyond the last channel are zero and their sums unused.
    fn pack(&self, weight: &[f32], terms: &[Term], mr: usize, a: &mut [f32]) {
        for (panel, a) in a.chunks_exact_mut(mr * terms.len()).enumerate() {
            let first = self.first + panel * mr;
            let rows = mr.min(self.last - first);
            let weight = &weight[self.group * self.gather.weight_group + first * self.gather.weight_output..];
            match (rows, mr) {
                (6, 6) => self.panel::<6>(weight, terms, a),
                (8, 8) => self.panel::<8>(weight, terms, a),
                _ => {
                    for (a, term) in a.chunks_exact_mut(mr).zip(terms) {
                        a.fill(0.0);
                        let column = weight[term.weight..].iter().step_by(self.gather.weight_output);
                        a[..rows].iter_mut().zip(column).for_each(|(a, weight)| *a = *weight);
                    }
                }
            }
        }
    }

    /// A full panel of a usual height, unrolled.
    #[inline(always)]
    fn panel<const MR: usize>(&self, weight: &[f32], terms: &[Term], a: &mut [f32]) {
        for (a, term) in a.as_chunks_mut::<MR>().0.iter_mut().zip(terms) {
            let column = &weight[term.weight..][..(MR - 1) * self.gather.weight_output + 1];
            *a = std::array::from_fn(|row| column[row * self.gather.weight_output]);
        }
    }
}

/// The source pixels of an item.
struct Pixels<'a> {
    gather: &'a Gather,
    group: usize,
    src: &'a [f32],
}

impl Pixels<'_> {
    /// Lays out the channels of the terms in lines of `span` positions, and notes where each term begins.
    fn shift(
        &self,
        shifted: &Shifted,
        terms: &[Term],
        first: usize,
        span: usize,
        b: &mut [f32],
        begins: &mut Vec<usize>,
    ) {
        begins.clear();
        let mut lines = b.chunks_exact_mut(span);
        let (mut plane, mut begin) = (None, 0);
        for term in terms {
            if plane != Some(term.plane) {
                begin = if plane.is_some() { begin + span } else { 0 };
                plane = Some(term.plane);
                if let Some(line) = lines.next() {
                    shifted.fill(self.gather, self.group, self.src, term.plane, first, line);
                }
            }
            begins.push(begin + shifted.start(term));
        }
    }

    /// Packs what the pixels of `runs` read into panels of `nr` pixels. Columns beyond the last pixel keep what they
    /// held; their sums are unused.
    fn pack(&self, terms: &[Term], runs: &[Run], nr: usize, b: &mut [f32]) {
        let gather = self.gather;
        let step = gather.step[1];
        for run in runs {
            let src = &self.src[gather.src_plane(run.image, self.group, 0)..];
            let (panel, inside) = (run.at / nr, run.at % nr);
            let b = b[panel * nr * terms.len()..][..nr * terms.len()].chunks_exact_mut(nr);
            for (b, term) in b.zip(terms) {
                let b = &mut b[inside..inside + run.len];
                let (zeros, from, count) = run.reads(gather, term.shift);
                if count < run.len {
                    b.fill(0.0);
                    if count == 0 {
                        continue;
                    }
                }
                let b = &mut b[zeros..zeros + count];
                let src = &src[term.plane + from..][..(count - 1) * step + 1];
                if step == 1 {
                    copy(b, src);
                } else {
                    b.iter_mut().zip(src.iter().step_by(step)).for_each(|(b, src)| *b = *src);
                }
            }
        }
    }
}

/// Copies a run of a panel's width or less, without a call: it is too short to pay for one.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    fn pieces<const N: usize>(to: &mut [f32], from: &[f32]) -> bool {
        // The first N and the last N, which may overlap.
        if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
            *to = *from;
        }
        if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
            *to = *from;
        }
        (N..=2 * N).contains(&to.len())
    }
    let done = pieces::<16>(to, from) || pieces::<8>(to, from) || pieces::<4>(to, from);
    if !done {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}
