//! Weight gradient through the tile engine, and the bias gradient of every layer.
//!
//! Rows of the product are result channels, columns are elements of a filter (channel, kernel row, kernel column), and
//! the reduction runs over the pixels of the batch. It is cut into parts, so that a small filter still makes work for
//! many threads; their sums meet in float64, in order.

use super::Machine;
use super::gather::{Gather, Run, Term};
use super::gemm::{Engine, Panels, Sums, block_depth};
use super::interleaved::{BLOCKS_TOGETHER, Interleaved};
use super::parallel::{Shared, for_each};
use super::workspace::Workspace;
use crate::error::Result;

/// Sums of an item at most: 1 MiB.
const MAX_SUMS: usize = 1 << 18;
/// Result channels of an item at most.
const MAX_ROWS: usize = 256;
/// Filter elements of an item, if all taps of a panel of channels are not more.
const COLUMNS: usize = 384;
/// Items wanted at least, by cutting the reduction.
const ITEMS: usize = 16;
/// Blocks of a part at least.
const MIN_BLOCKS: usize = 8;

/// The weight gradient of the layer whose forward pass is `gather`.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn dense(
    machine: &Machine,
    gather: &Gather,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dweight: &mut [f32],
) -> Result<()> {
    let engine = Engine::new(machine.isa);
    let (filter, pixels) = (gather.depth(), gather.pixels());
    let depth = block_depth(pixels);
    let blocks = pixels.div_ceil(depth);

    // Columns are elements of a filter, or whole channels where those are interleaved.
    let taps = gather.window();
    let interleaved = Interleaved::new(machine, gather, engine.nr, MAX_SUMS / engine.mr);
    let (units, unit_columns) = if interleaved.is_some() { (gather.channels, taps) } else { (filter, 1) };
    let width = even(units, (COLUMNS / unit_columns).max(engine.nr), engine.nr);
    let columns = width * unit_columns;
    let rows = even(gather.outputs, MAX_ROWS.min(MAX_SUMS / columns), engine.mr);
    let (row_blocks, column_blocks) = (gather.outputs.div_ceil(rows), units.div_ceil(width));
    let tiles = gather.groups * row_blocks * column_blocks;
    let parts = ITEMS.div_ceil(tiles).min(blocks / MIN_BLOCKS).max(1);
    let part_blocks = blocks.div_ceil(parts);

    let elements = dweight.len();
    let mut call = machine.threads.lease();
    let partial = call.sums.room(if parts > 1 { parts * elements } else { 0 })?;
    {
        let result = Shared::new(if parts > 1 { &mut *partial } else { &mut *dweight });
        for_each(&machine.threads, gather.flops(), tiles * parts, |own: &mut Workspace, item| {
            let (part, tile) = (item / tiles, item % tiles);
            let (group, tile) = (tile / (row_blocks * column_blocks), tile % (row_blocks * column_blocks));
            let (first_row, first_unit) = (tile / column_blocks * rows, tile % column_blocks * width);
            let last_row = gather.outputs.min(first_row + rows);
            let last_unit = units.min(first_unit + width);
            let row_panels = (last_row - first_row).div_ceil(engine.mr);
            let column_panels = (last_unit - first_unit).div_ceil(engine.nr) * unit_columns;
            let mut sums = Sums::start(
                row_panels * column_panels * engine.mr * engine.nr,
                part_blocks,
                &mut own.sums,
                &mut own.totals,
            )?;
            if interleaved.is_none() {
                gather.terms(first_unit, last_unit, &mut own.terms)?;
            }
            let last_block = blocks.min((part + 1) * part_blocks);
            for block in part * part_blocks..last_block {
                let (first, last) = (block * depth, pixels.min((block + 1) * depth));
                let len = last - first;
                let inside = (block - part * part_blocks) % BLOCKS_TOGETHER;
                if let (Some(interleaved), 0) = (&interleaved, inside) {
                    let last = pixels.min(last_block.min(block + BLOCKS_TOGETHER) * depth);
                    gather.runs(first, last, usize::MAX, &mut own.runs);
                    let channels = first_unit..last_unit;
                    let (begins, rows) = (&mut own.begins, &mut own.rows);
                    let (b, segments) = (&mut own.b, &mut own.segments);
                    interleaved.lay_out(gather, group, x, channels, &own.runs, b, segments, begins, rows)?;
                }
                gather.runs(first, last, usize::MAX, &mut own.runs);
                let panels = match &interleaved {
                    Some(_) => {
                        let rows = &own.rows[inside * depth..][..len];
                        Panels { values: &own.b, begins: &own.begins, rows }
                    }
                    None => {
                        let b = own.b.room(column_panels * engine.nr * len)?;
                        pack_columns(gather, group, x, &own.terms, &own.runs, engine.nr, b);
                        own.begins.clear();
                        own.begins.extend((0..column_panels).map(|panel| panel * engine.nr * len));
                        own.rows.clear();
                        own.rows.extend((0..len).map(|at| at * engine.nr));
                        Panels { values: b, begins: &own.begins, rows: &own.rows }
                    }
                };
                let a = own.a.room(row_panels * engine.mr * len)?;
                let rows = Rows { gather, group, first: first_row, last: last_row };
                rows.pack(dy, &own.runs, engine.mr, a);
                engine.multiply(a, panels, sums.next_block());
            }
            let sums = sums.finish();
            let keep = accumulate && parts == 1;
            for output in first_row..last_row {
                let to = part * elements + group * gather.weight_group + output * gather.weight_output;
                let (first, last) = (first_unit * unit_columns, last_unit * unit_columns);
                // SAFETY: an item alone owns its rectangle of its group's filters, in its part.
                let to = unsafe { result.slice(to + first, last - first) };
                for panel in 0..column_panels {
                    let row = panel * row_panels * engine.mr + (output - first_row);
                    let sums = &sums[row * engine.nr..][..engine.nr];
                    // A panel is one tap of as many channels, or as many filter elements.
                    let begin = panel / unit_columns * engine.nr * unit_columns + panel % unit_columns;
                    let to = to[begin..].iter_mut().step_by(unit_columns);
                    to.zip(sums).for_each(|(to, sum)| *to = if keep { *to } else { 0.0 } + sum);
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

/// Cuts `size` into equal pieces of at most about `most`, each but the last a multiple of `unit`.
fn even(size: usize, most: usize, unit: usize) -> usize {
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
    /// Packs dy into panels of `mr` channels, pixel after pixel; rows beyond the last channel are zero.
    fn pack(&self, dy: &[f32], runs: &[Run], mr: usize, a: &mut [f32]) {
        let len = runs.last().map_or(0, |run| run.at + run.len);
        for (panel, a) in a.chunks_exact_mut(mr * len).enumerate() {
            let first = self.first + panel * mr;
            match mr {
                6 if first + 6 <= self.last => self.panel::<6>(first, dy, runs, a),
                8 if first + 8 <= self.last => self.panel::<8>(first, dy, runs, a),
                _ => {
                    a.fill(0.0);
                    for output in first..self.last.min(first + mr) {
                        for run in runs {
                            let lane = a[run.at * mr + output - first..].iter_mut().step_by(mr);
                            lane.zip(self.line(dy, run, output)).for_each(|(a, dy)| *a = *dy);
                        }
                    }
                }
            }
        }
    }

    /// A full panel of a usual height, unrolled.
    #[inline(always)]
    fn panel<const MR: usize>(&self, first: usize, dy: &[f32], runs: &[Run], a: &mut [f32]) {
        for run in runs {
            let lines: [&[f32]; MR] = std::array::from_fn(|row| self.line(dy, run, first + row));
            let a = &mut a[run.at * MR..][..run.len * MR];
            for (i, a) in a.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
                *a = std::array::from_fn(|row| lines[row][i]);
            }
        }
    }

    fn line<'a>(&self, dy: &'a [f32], run: &Run, output: usize) -> &'a [f32] {
        let plane = self.gather.dst_plane(run.image, self.group, output);
        &dy[plane + run.row * self.gather.dst[1] + run.column..][..run.len]
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
pub(super) fn bias(machine: &Machine, batch: usize, dy: &[f32], accumulate: bool, dbias: &mut [f32]) -> Result<()> {
    let channels = dbias.len();
    let plane = dy.len().checked_div(batch * channels).unwrap_or(0);
    let result = Shared::new(dbias);
    let work = |_: &mut Workspace, channel: usize| {
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
    for_each(&machine.threads, dy.len() as f64, channels, work)
}
