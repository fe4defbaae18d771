//! Pixels with their channels side by side, for weight gradients: what a pixel's window holds of a panel of channels at
//! one tap is then a row of B as it lies, and pixels are laid out once for all taps.

use super::gather::{Gather, Run};
use super::isa::Isa;
use super::panel::{TURNED, transpose};
use super::workspace::Floats;
use super::{Machine, Way};
use crate::error::Result;
use std::ops::Range;

/// Blocks of the reduction that are laid out together, so that they share what surrounds their pixels.
pub(super) const BLOCKS_TOGETHER: usize = 4;
/// Columns of whole panels for each channel, beyond which packing every filter element costs less than the sums that
/// nobody uses.
const MOST_COLUMNS: f64 = 1.16;
/// Positions of a window and a step, beyond which too much is laid out that nobody reads.
const MOST_SPAN: usize = 1 << 16;
/// Channels that are brought side by side at once: a cache line. Panels are whole multiples of it.
const LANES: usize = 16;

/// How x is laid out: `[panel of channels][position][nr]`, where the positions of an image's rows, `nr` apart, include
/// the zeros around them.
pub(super) struct Interleaved {
    isa: Isa,
    nr: usize,
    /// [`Gather::shifts`] of each axis.
    reach: [[isize; 2]; 2],
}

/// Consecutive grid rows of one image, and the position of the first of them.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    image: usize,
    first: usize,
    last: usize,
    position: usize,
}

impl Interleaved {
    /// `None` where filter elements are better packed. One panel of channels has `most_columns` columns at most.
    pub(super) fn new(machine: &Machine, gather: &Gather, nr: usize, most_columns: usize) -> Option<Interleaved> {
        let reach = [gather.shifts(0)?, gather.shifts(1)?];
        let columns = gather.channels.next_multiple_of(nr);
        let fast = columns as f64 <= MOST_COLUMNS * gather.channels as f64;
        let panel = gather.window() * nr;
        let span = |[first, last]: [isize; 2], step: usize| (last - first) as usize + step;
        let apart = span(reach[0], gather.step[0]).saturating_mul(span(reach[1], gather.step[1])) > MOST_SPAN;
        let fits = panel <= most_columns && nr.is_multiple_of(LANES) && !apart;
        (fits && machine.takes(Way::Interleaved, fast)).then_some(Interleaved { isa: machine.isa, nr, reach })
    }

    /// Lays out what the pixels of `runs` read of some channels; notes where the panels begin, tap after tap for each
    /// panel of channels, and where in them the rows of the pixels do.
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    #[allow(clippy::too_many_arguments)] // what is read, then what is written
    pub(super) fn lay_out(
        &self,
        gather: &Gather,
        group: usize,
        x: &[f32],
        channels: Range<usize>,
        runs: &[Run],
        b: &mut Floats,
        segments: &mut Vec<Segment>,
        begins: &mut Vec<usize>,
        rows: &mut Vec<usize>,
    ) -> Result<()> {
        let (Some(head), Some(tail)) = (runs.first(), runs.last()) else { return Ok(()) };
        // Of a long row only the part that is read; of several rows all of it.
        let alone = (head.image, head.row) == (tail.image, tail.row);
        let columns = if alone { head.column..tail.column + tail.len } else { 0..gather.grid[1] };
        let [[top, bottom], [left, right]] = self.reach;
        let width = (columns.len() - 1) * gather.step[1] + (right - left) as usize + 1;
        let height = |rows: usize| (rows - 1) * gather.step[0] + (bottom - top) as usize + 1;

        segments.clear();
        let mut positions = 0;
        rows.clear();
        for run in runs {
            match segments.last_mut() {
                Some(segment) if segment.image == run.image => segment.last = run.row,
                last => {
                    positions += last.map_or(0, |segment| height(segment.last + 1 - segment.first) * width);
                    segments.push(Segment { image: run.image, first: run.row, last: run.row, position: positions });
                }
            }
            let segment = &segments[segments.len() - 1];
            let line = segment.position + (run.row - segment.first) * gather.step[0] * width;
            let first = line + (run.column - columns.start) * gather.step[1];
            rows.extend((0..run.len).map(|i| (first + i * gather.step[1]) * self.nr));
        }
        positions += segments.last().map_or(0, |segment| height(segment.last + 1 - segment.first) * width);

        let panels = channels.len().div_ceil(self.nr);
        b.room(panels * positions * self.nr)?;
        begins.clear();
        for panel in 0..panels {
            let taps = gather.taps[0].iter().flat_map(|row| gather.taps[1].iter().map(move |column| (row, column)));
            begins.extend(taps.map(|(row, column)| {
                let shift = (row.shift - top) as usize * width + (column.shift - left) as usize;
                (panel * positions + shift) * self.nr
            }));
            let begin = channels.start + panel * self.nr;
            let panel_channels = begin..channels.end.min(begin + self.nr);
            for segment in &*segments {
                let lines = b[(panel * positions + segment.position) * self.nr..].chunks_exact_mut(width * self.nr);
                let first = (segment.first * gather.step[0]) as isize + top;
                for (line, row) in lines.take(height(segment.last + 1 - segment.first)).zip(first..) {
                    let column = (columns.start * gather.step[1]) as isize + left;
                    let plane = gather.src_plane(segment.image, group, 0);
                    self.line(gather, &x[plane..], panel_channels.clone(), [row, column], line);
                }
            }
        }
        Ok(())
    }

    /// Fills one row of positions from source coordinates `at` on.
    fn line(&self, gather: &Gather, x: &[f32], channels: Range<usize>, at: [isize; 2], line: &mut [f32]) {
        let [height, width] = gather.src.map(|size| size as isize);
        let positions = (line.len() / self.nr) as isize;
        if !(0..height).contains(&at[0]) {
            line.fill(0.0);
            return;
        }
        let begin = (-at[1]).clamp(0, positions) as usize;
        let end = (width - at[1]).clamp(begin as isize, positions) as usize;
        line[..begin * self.nr].fill(0.0);
        line[end * self.nr..].fill(0.0);
        if begin == end {
            return;
        }
        let line = &mut line[begin * self.nr..end * self.nr];
        let plane = gather.src[0] * gather.src[1];
        let source = |channel: usize| channel * plane + (at[0] * width + at[1] + begin as isize) as usize;
        for first in (0..self.nr).step_by(LANES) {
            let lanes = channels.start + first..channels.end.min(channels.start + first + LANES);
            if lanes.len() == LANES {
                let turned = line.len() / self.nr / TURNED * TURNED;
                for i in (0..turned).step_by(TURNED) {
                    let (from, to) = (&x[source(lanes.start) + i..], &mut line[i * self.nr + first..]);
                    let to = &mut to[..(TURNED - 1) * self.nr + LANES];
                    // SAFETY: `to` has TURNED rows of LANES elements, `nr` apart.
                    unsafe { transpose(self.isa, from, plane, LANES / TURNED, to.as_mut_ptr(), self.nr) };
                }
                let sources: [&[f32]; LANES] = std::array::from_fn(|lane| &x[source(lanes.start + lane)..]);
                for (i, position) in line.chunks_exact_mut(self.nr).enumerate().skip(turned) {
                    position[first..first + LANES].copy_from_slice(&sources.map(|source| source[i]));
                }
                continue;
            }
            for position in line.chunks_exact_mut(self.nr) {
                position[first..first + LANES].fill(0.0);
            }
            for (lane, channel) in lanes.enumerate() {
                let to = line[first + lane..].iter_mut().step_by(self.nr);
                to.zip(&x[source(channel)..]).for_each(|(to, x)| *to = *x);
            }
        }
    }
}
