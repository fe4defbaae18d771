//! Result pixels cut into regions, and what a region reads: a patch of source rows with its padding written out.

use super::bounds::Bounds;
use super::dense::even;
use super::gather::{Alike, Block, Gather};
use super::workspace::Floats;
use crate::error::Result;
use std::ops::Range;

/// How a batch is cut: into groups of whole images, or images into boxes.
pub(super) struct Layout {
    images: usize,
    rows: usize,
    columns: usize,
    /// Whether pixels whose columns are alike stand together.
    sorted: bool,
    /// Regions of the batch.
    pub(super) regions: usize,
    /// Pixels of the largest region.
    pub(super) most_pixels: usize,
    /// Elements of the largest region's patch for one channel.
    pub(super) most_channel: usize,
}

/// A box of result pixels, and the patch that it reads, `[channel][image][row][column]`.
///
/// Pixels are in an order of their own: those whose windows reach beyond the plane at the same rows and columns stand
/// together, so that whole tiles can leave out the products with what is not there.
pub(super) struct Region {
    images: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
    sorted: bool,
    patch: Patch,
}

/// Neighbours in a grid row, whose windows reach into the plane with the same taps.
pub(super) struct Line<'a> {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) columns: &'a Range<usize>,
    taps: [&'a Range<usize>; 2],
}

/// Elements of a cache line.
const LINE: usize = 16;
/// What it costs to begin another row of a patch, in elements that are copied.
const ROW: usize = 12;
/// Terms that a pixel must be able to leave out, to be stored apart from its neighbours.
const LEFT_OUT: usize = 256;
/// Shapes of boxes to choose from.
const BOXES: usize = 8;

/// Sizes of a patch.
struct Patch {
    /// The source row that grid row 0's window begins with, and the column.
    first: [isize; 2],
    /// Rows from a window to the next, and how many there are: rows that no window reads are left out.
    step: usize,
    height: usize,
    rows: usize,
    /// Elements of a row, of an image, and of a channel: the last `usize::MAX` if it is too much to be counted.
    pitch: usize,
    image: usize,
    channel: usize,
}

impl Patch {
    fn new(gather: &Gather, images: usize, rows: usize, columns: usize) -> Patch {
        let [[top, bottom], [left, right]] = [0, 1].map(|axis| gather.shifts(axis).unwrap_or([0, 0]));
        let height = (bottom - top) as usize + 1;
        let step = gather.step[0].min(height);
        let rows = (rows - 1) * step + height;
        let pitch = (columns - 1) * gather.step[1] + (right - left) as usize + 1;
        // A window that is dilated far enough reads less than can be counted of what it spans.
        let image = rows.saturating_mul(pitch);
        // Channels an odd number of cache lines apart do not push each other out of the cache.
        let channel = (images.saturating_mul(image).div_ceil(LINE) | 1).saturating_mul(LINE);
        Patch { first: [top, left], step, height, rows, pitch, image, channel }
    }

    /// The source row in stored row `row`, for a region whose first grid row is `first`.
    fn source(&self, gather: &Gather, first: usize, row: usize) -> isize {
        let row = match gather.step[0] > self.height {
            true => row / self.height * gather.step[0] + row % self.height,
            false => row,
        };
        self.first[0] + (first * gather.step[0] + row) as isize
    }
}

impl Layout {
    /// Regions of about `pixels` pixels.
    pub(super) fn new(gather: &Gather, pixels: usize) -> Layout {
        let ([height, width], batch) = (gather.grid, gather.batch);
        let (images, rows, columns) = if width * height <= pixels {
            (even(batch, pixels / (width * height)), height, width)
        } else {
            let whole = width.div_ceil(pixels);
            let boxes = (whole..whole + BOXES).map(|stretches| {
                let columns = width.div_ceil(stretches);
                (even(height, pixels / columns), columns)
            });
            // The one that copies least for each pixel.
            let cost = |&(rows, columns): &(usize, usize)| {
                let patch = Patch::new(gather, 1, rows, columns);
                (patch.rows * (patch.pitch + ROW)) as f64 / (rows * columns) as f64
            };
            let best = boxes.min_by(|a, b| cost(a).total_cmp(&cost(b)));
            let (rows, columns) = best.unwrap_or((height, width));
            (1, rows, columns)
        };
        let regions = batch.div_ceil(images) * height.div_ceil(rows) * width.div_ceil(columns);
        let most_channel = Patch::new(gather, images, rows, columns).channel;
        let sorted = gather.channels * gather.taps[0].count >= LEFT_OUT;
        Layout { images, rows, columns, sorted, regions, most_pixels: images * rows * columns, most_channel }
    }

    /// A region, and for each of its pixels where the window begins in the patch; the last one is repeated to whole
    /// tiles. Lists what these read, too.
    pub(super) fn region(
        &self,
        gather: &Gather,
        number: usize,
        tile: usize,
        windows: &mut Vec<usize>,
        bounds: &mut Vec<Bounds>,
    ) -> Region {
        let ([height, width], batch) = (gather.grid, gather.batch);
        let (bands, stretches) = (height.div_ceil(self.rows), width.div_ceil(self.columns));
        let part = |at: usize, size: usize, all: usize| at * size..all.min((at + 1) * size);
        let images = part(number / stretches / bands, self.images, batch);
        let rows = part(number / stretches % bands, self.rows, height);
        let columns = part(number % stretches, self.columns, width);
        let patch = Patch::new(gather, images.len(), rows.len(), columns.len());
        let region = Region { images, rows, columns, sorted: self.sorted, patch };
        windows.clear();
        bounds.clear();
        region.lines(gather, |line| {
            let Patch { image, step, pitch, .. } = region.patch;
            let begin = (line.image - region.images.start) * image + (line.row - region.rows.start) * step * pitch;
            let before = windows.len();
            let columns = line.columns.clone().map(|column| column - region.columns.start);
            windows.extend(columns.map(|column| begin + column * gather.step[1]));
            Bounds::add(bounds, tile, before..windows.len(), line.taps);
        });
        let last = windows[windows.len() - 1];
        windows.resize(windows.len().next_multiple_of(tile), last);
        region
    }
}

impl Region {
    /// Lists where in a window the terms of a block read.
    pub(super) fn offsets(&self, gather: &Gather, block: &Block, offsets: &mut Vec<usize>) {
        let [top, left] = self.patch.first;
        offsets.clear();
        for [_, row, column] in gather.places(block.taps.start, block.taps.end) {
            let [row, column] = [gather.taps[0].get(row).shift - top, gather.taps[1].get(column).shift - left];
            let tap = row as usize * self.patch.pitch + column as usize;
            offsets.extend((0..block.channels.len()).map(|channel| channel * self.patch.channel + tap));
        }
    }

    /// Fills the patch with the channels of a block.
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub(super) fn fill(
        &self,
        gather: &Gather,
        group: usize,
        block: &Block,
        src: &[f32],
        patch: &mut Floats,
    ) -> Result<()> {
        let Patch { pitch, rows, image: image_len, channel: channel_len, .. } = self.patch;
        let [height, width] = gather.src;
        let patch = patch.room(block.channels.len() * channel_len)?;
        let left = self.patch.first[1] + (self.columns.start * gather.step[1]) as isize;
        let zeros = (-left).clamp(0, pitch as isize) as usize;
        let from = (left + zeros as isize) as usize;
        let count = width.saturating_sub(from).min(pitch - zeros);
        // Rows above the plane, those inside it, and those below.
        let source = |row: usize| self.patch.source(gather, self.rows.start, row);
        let above = (0..rows).take_while(|&row| source(row) < 0).count();
        let inside = (above..rows).take_while(|&row| source(row) < height as isize && count > 0).count();
        for (channel, patch) in block.channels.clone().zip(patch.chunks_exact_mut(channel_len)) {
            for (image, patch) in self.images.clone().zip(patch.chunks_exact_mut(image_len)) {
                let plane = &src[gather.src_plane(image, group, channel)..][..height * width];
                let (before, lines) = patch.split_at_mut(above * pitch);
                let (lines, after) = lines.split_at_mut(inside * pitch);
                before.fill(0.0);
                after.fill(0.0);
                for (row, line) in (above..).zip(lines.chunks_exact_mut(pitch)) {
                    clear(&mut line[..zeros]);
                    clear(&mut line[zeros + count..]);
                    copy(&mut line[zeros..zeros + count], &plane[source(row) as usize * width + from..][..count]);
                }
            }
        }
        Ok(())
    }

    /// Visits all pixels in their order.
    pub(super) fn lines(&self, gather: &Gather, mut visit: impl FnMut(Line<'_>)) {
        let mut piece = |rows: &Alike, columns: &Alike| {
            for image in self.images.clone() {
                for row in rows.at.clone() {
                    visit(Line { image, row, columns: &columns.at, taps: [&rows.taps, &columns.taps] });
                }
            }
        };
        let all = Alike { at: self.columns.clone(), taps: 0..gather.taps[1].count };
        for rows in gather.alike(0, self.rows.clone()) {
            if self.sorted {
                gather.alike(1, self.columns.clone()).for_each(|columns| piece(&rows, &columns));
            } else {
                piece(&rows, &all);
            }
        }
    }
}

/// Zeros a piece that is mostly of one element or two, which is no work for a function of the C library.
#[inline(always)]
fn clear(piece: &mut [f32]) {
    match piece {
        [] => {}
        [one] => *one = 0.0,
        [one, two] => (*one, *two) = (0.0, 0.0),
        more => more.fill(0.0),
    }
}

/// Copies a line, a short one without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    const PIECE: usize = 8;
    if (PIECE..=8 * PIECE).contains(&to.len()) {
        for (to, from) in to.as_chunks_mut::<PIECE>().0.iter_mut().zip(from.as_chunks::<PIECE>().0) {
            *to = *from;
        }
        // The last piece may overlap the one before.
        if let (Some(to), Some(from)) = (to.last_chunk_mut::<PIECE>(), from.last_chunk::<PIECE>()) {
            *to = *from;
        }
        return;
    }
    to.copy_from_slice(from);
}
