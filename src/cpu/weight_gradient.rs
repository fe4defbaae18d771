//! Weight gradient through the tile engine, and the bias gradient of every layer.
//!
//! Rows of the product are result channels, columns are elements of a filter (channel, kernel row, kernel column), and
//! the reduction runs over the pixels of the batch. It is cut into parts, so that a small filter still makes work for
//! many threads; their sums meet in float64, in order.

use super::dense::even;
use super::gather::{Gather, Run, Term};
use super::gemm::{Engine, Panels, Sums, block_depth};
use super::isa::Isa;
use super::parallel::{self, Shared, zeroed};
use crate::error::Result;

/// Result channels of an item at most.
const MAX_ROWS: usize = 256;
/// Filter elements of an item at most.
const MAX_COLUMNS: usize = 384;
/// Items wanted at least, by cutting the reduction.
const ITEMS: usize = 16;
/// Blocks of a part at least.
const MIN_BLOCKS: usize = 8;

struct Workspace {
    a: Vec<f32>,
    b: Vec<f32>,
    sums: Sums,
    terms: Vec<Term>,
    runs: Vec<Run>,
}

/// The weight gradient of the layer whose forward pass is `gather`.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn dense(
    isa: Isa,
    gather: &Gather,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dweight: &mut [f32],
    threads: usize,
) -> Result<()> {
    let engine = Engine::new(isa);
    let (filter, pixels) = (gather.depth(), gather.pixels());
    let depth = block_depth(pixels);
    let packed = engine.packed_rows(depth);
    let blocks = pixels.div_ceil(depth);

    let rows = even(gather.outputs, MAX_ROWS, engine.mr);
    let columns = even(filter, MAX_COLUMNS, engine.nr);
    let (row_blocks, column_blocks) = (gather.outputs.div_ceil(rows), filter.div_ceil(columns));
    let tiles = gather.groups * row_blocks * column_blocks;
    let parts = ITEMS.div_ceil(tiles).min(blocks / MIN_BLOCKS).max(1);
    let part_blocks = blocks.div_ceil(parts);

    let workspace = || {
        Ok(Workspace {
            a: zeroed(rows * depth)?,
            b: zeroed(columns * depth)?,
            sums: Sums::new(rows * columns, part_blocks)?,
            terms: Vec::new(),
            runs: Vec::new(),
        })
    };
    let elements = dweight.len();
    let mut partial = zeroed(if parts > 1 { parts * elements } else { 0 })?;
    let threads = parallel::worthwhile(gather.flops(), threads);
    {
        let result = Shared::new(if parts > 1 { &mut partial } else { &mut *dweight });
        parallel::for_each(tiles * parts, threads, workspace, |own, item| {
            let (part, tile) = (item / tiles, item % tiles);
            let (group, tile) = (tile / (row_blocks * column_blocks), tile % (row_blocks * column_blocks));
            let (first_row, first_column) = (tile / column_blocks * rows, tile % column_blocks * columns);
            let last_row = gather.outputs.min(first_row + rows);
            let last_column = filter.min(first_column + columns);
            let row_panels = (last_row - first_row).div_ceil(engine.mr);
            let column_panels = (last_column - first_column).div_ceil(engine.nr);
            gather.terms(first_column, last_column, &mut own.terms);
            own.sums.start(row_panels * column_panels * engine.mr * engine.nr);
            for block in part * part_blocks..blocks.min((part + 1) * part_blocks) {
                let (first, last) = (block * depth, pixels.min((block + 1) * depth));
                let len = last - first;
                gather.runs(first, last, usize::MAX, &mut own.runs);
                let a = &mut own.a[..row_panels * engine.mr * len];
                pack_rows(gather, group, first_row..last_row, dy, &own.runs, engine.mr, a);
                let b = &mut own.b[..column_panels * engine.nr * len];
                pack_columns(gather, group, x, &own.terms, &own.runs, engine.nr, b);
                let panels = Panels { values: b, count: column_panels, step: engine.nr * len, rows: &packed[..len] };
                engine.multiply(a, panels, own.sums.next_block());
            }
            let sums = own.sums.finish();
            for output in first_row..last_row {
                let to = part * elements + group * gather.weight_group + output * gather.weight_output + first_column;
                // SAFETY: an item alone owns its rectangle of its group's filters, in its part.
                let to = unsafe { result.slice(to, last_column - first_column) };
                for (panel, to) in to.chunks_mut(engine.nr).enumerate() {
                    let row = panel * row_panels * engine.mr + (output - first_row);
                    let keep = accumulate && parts == 1;
                    for (to, sum) in to.iter_mut().zip(&sums[row * engine.nr..]) {
                        *to = if keep { *to } else { 0.0 } + sum;
                    }
                }
            }
            Ok(())
        })?;
    }
    if parts > 1 {
        for (i, to) in dweight.iter_mut().enumerate() {
            let sum: f64 = (0..parts).map(|part| f64::from(partial[part * elements + i])).sum();
            *to = (f64::from(if accumulate { *to } else { 0.0 }) + sum) as f32;
        }
    }
    Ok(())
}

/// Packs dy into panels of `mr` channels, pixel after pixel; rows beyond the last channel are zero.
fn pack_rows(
    gather: &Gather,
    group: usize,
    rows: std::ops::Range<usize>,
    dy: &[f32],
    runs: &[Run],
    mr: usize,
    a: &mut [f32],
) {
    let len = runs.last().map_or(0, |run| run.at + run.len);
    for (panel, a) in a.chunks_exact_mut(mr * len).enumerate() {
        for row in 0..mr {
            let output = rows.start + panel * mr + row;
            if output >= rows.end {
                a[row..].iter_mut().step_by(mr).for_each(|a| *a = 0.0);
                continue;
            }
            for run in runs {
                let from = gather.dst_plane(run.image, group, output) + run.row * gather.dst[1] + run.column;
                let lane = a[run.at * mr + row..].iter_mut().step_by(mr);
                lane.zip(&dy[from..from + run.len]).for_each(|(a, dy)| *a = *dy);
            }
        }
    }
}

/// Packs what the pixels of `runs` read from x into panels of `nr` filter elements, pixel after pixel. Columns beyond
/// the last element keep what they held; their sums are unused.
fn pack_columns(gather: &Gather, group: usize, x: &[f32], terms: &[Term], runs: &[Run], nr: usize, b: &mut [f32]) {
    let len = runs.last().map_or(0, |run| run.at + run.len);
    let step = gather.step[1];
    for (terms, b) in terms.chunks(nr).zip(b.chunks_exact_mut(nr * len)) {
        for run in runs {
            let x = &x[gather.src_plane(run.image, group, 0)..];
            let b = &mut b[run.at * nr..][..run.len * nr];
            for (column, term) in terms.iter().enumerate() {
                let (zeros, from, count) = run.reads(gather, term.shift);
                let mut lane = b[column..].iter_mut().step_by(nr);
                lane.by_ref().take(zeros).for_each(|b| *b = 0.0);
                let x = x[term.plane + from..].iter().step_by(step);
                lane.by_ref().take(count).zip(x).for_each(|(b, x)| *b = *x);
                lane.for_each(|b| *b = 0.0);
            }
        }
    }
}

/// The bias gradient: each channel's sum of dy over the batch, in float64.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn bias(batch: usize, dy: &[f32], accumulate: bool, dbias: &mut [f32], threads: usize) -> Result<()> {
    let channels = dbias.len();
    let plane = dy.len().checked_div(batch * channels).unwrap_or(0);
    let result = Shared::new(dbias);
    let work = |_: &mut (), channel: usize| {
        let mut lanes = [0f64; 16];
        for image in 0..batch {
            let (whole, rest) = dy[(image * channels + channel) * plane..][..plane].as_chunks::<16>();
            for dy in whole {
                lanes.iter_mut().zip(dy).for_each(|(lane, &dy)| *lane += f64::from(dy));
            }
            lanes.iter_mut().zip(rest).for_each(|(lane, &dy)| *lane += f64::from(dy));
        }
        // SAFETY: an item alone owns its channel.
        let to = &mut unsafe { result.slice(channel, 1) }[0];
        *to = (f64::from(if accumulate { *to } else { 0.0 }) + lanes.iter().sum::<f64>()) as f32;
        Ok(())
    };
    parallel::for_each(channels, parallel::worthwhile(dy.len() as f64, threads), || Ok(()), work)
}
