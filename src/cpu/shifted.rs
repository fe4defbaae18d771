//! Pixels in one line: planes with zeros between their rows, and between the images, so that a tap reads every pixel
//! of the line at the same distance. What a tap reads is then a panel of B as it lies; nothing is packed tap by tap.
//!
//! Where a row ends and the next one begins there are positions without a result. Their sums are computed and unused,
//! so this is for planes whose rows are long enough.

use super::gather::{Gather, Run, Term};

/// Positions for each result pixel, beyond which packing every tap costs less than the sums that nobody uses.
const MOST_POSITIONS: f64 = 1.16;

/// The line of a layer whose taps step by single pixels.
pub(super) struct Shifted {
    /// Positions from a row to the next.
    row: usize,
    /// Positions from an image to the next.
    image: usize,
    /// The least and the greatest distance at which a tap reads.
    reach: [isize; 2],
    /// Positions of the whole batch.
    pub(super) positions: usize,
}

impl Shifted {
    /// `None` where the layer is better packed.
    pub(super) fn new(gather: &Gather) -> Option<Shifted> {
        // Zeros after each row (and image) serve as those before the next.
        let pitch = |axis: usize| {
            let [least, most] = gather.shifts(axis)?;
            let (src, grid) = (gather.src[axis] as isize, gather.grid[axis] as isize);
            let zeros = 0.max(-least).max(grid + most - src);
            Some(((src + zeros).max(grid) as usize, [least, most]))
        };
        let ((rows, down), (row, right)) = (pitch(0)?, pitch(1)?);
        let image = rows.checked_mul(row)?;
        let positions = gather.batch.checked_mul(image)?;
        let worthwhile = positions as f64 <= MOST_POSITIONS * gather.pixels() as f64;
        let reach = [0, 1].map(|end| down[end] * row as isize + right[end]);
        (gather.step == [1, 1] && worthwhile).then_some(Shifted { row, image, reach, positions })
    }

    /// Elements of the line that the results of `positions` positions read.
    pub(super) fn span(&self, positions: usize) -> usize {
        positions + (self.reach[1] - self.reach[0]) as usize
    }

    /// Where a term begins in a line that was filled from its channel on.
    pub(super) fn start(&self, term: &Term) -> usize {
        (term.shift[0] * self.row as isize + term.shift[1] - self.reach[0]) as usize
    }

    /// Fills `line` with what the results from position `first` on read of one channel, whose plane in the group begins
    /// at `plane`.
    pub(super) fn fill(
        &self,
        gather: &Gather,
        group: usize,
        src: &[f32],
        plane: usize,
        first: usize,
        line: &mut [f32],
    ) {
        let [height, width] = gather.src;
        let begin = first as isize + self.reach[0];
        // The batch stands after zeros that are as long as an image.
        let mut at = (begin + self.image as isize) as usize;
        let mut rest = line;
        while !rest.is_empty() {
            let (image, row, column) = (at / self.image, at % self.image / self.row, at % self.row);
            let (part, after) = rest.split_at_mut((self.row - column).min(rest.len()));
            let exists = (1..=gather.batch).contains(&image) && row < height;
            let count = if exists { width.saturating_sub(column).min(part.len()) } else { 0 };
            let (values, zeros) = part.split_at_mut(count);
            if count > 0 {
                let from = gather.src_plane(image - 1, group, 0) + plane + row * width + column;
                values.copy_from_slice(&src[from..from + count]);
            }
            zeros.fill(0.0);
            at += self.row - column;
            rest = after;
        }
    }

    /// The results among positions `first..last`, in runs that cross neither a grid row nor a multiple of `width`.
    pub(super) fn runs(&self, gather: &Gather, first: usize, last: usize, width: usize, list: &mut Vec<Run>) {
        list.clear();
        let mut at = first;
        while at < last {
            let (image, row, column) = (at / self.image, at % self.image / self.row, at % self.row);
            let in_row = self.row - column;
            let results = if row < gather.grid[0] { gather.grid[1].saturating_sub(column) } else { 0 };
            let in_panel = width - (at - first) % width;
            if results == 0 {
                at += in_row;
                continue;
            }
            let len = results.min(in_panel).min(last - at);
            list.push(Run { at: at - first, len, image, row, column });
            at += len;
        }
    }
}
