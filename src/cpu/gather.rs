//! A pass as a correlation: every result pixel gathers the source pixels under its taps.
//!
//! The forward pass is one [`Gather`]. So is the input gradient of a convolution of stride 1, with the roles of the
//! channels exchanged and the kernel turned around. With a greater stride the pixels of dx fall into residue classes
//! modulo the stride; the pixels of one class meet the same taps, so each class is a `Gather` with only those, and
//! pixels of a class without taps have gradient zero.

use super::workspace::list;
use crate::error::Result;
use crate::problem::Problem;
use std::ops::Range;

/// One kernel row or column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    /// Its number in the kernel.
    pub(super) kernel: usize,
    /// Which source coordinate it reads for grid coordinate 0.
    pub(super) shift: isize,
}

/// Kernel rows or columns, of which one is as far from the next as any other is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps {
    pub(super) count: usize,
    first: Tap,
    /// From one to the next.
    kernels: usize,
    shifts: isize,
}

impl Taps {
    pub(super) fn get(&self, i: usize) -> Tap {
        Tap { kernel: self.first.kernel + i * self.kernels, shift: self.first.shift + i as isize * self.shifts }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Tap> + Clone + use<> {
        let taps = *self;
        (0..taps.count).map(move |i| taps.get(i))
    }
}

/// Result pixels on a grid, and what they read. Axes are (height, width).
#[derive(Clone, Debug)]
pub(super) struct Gather {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Source channels of a group.
    pub(super) channels: usize,
    /// Result channels of a group.
    pub(super) outputs: usize,
    /// Size of a source plane.
    pub(super) src: [usize; 2],
    /// Size of a result plane.
    pub(super) dst: [usize; 2],
    /// Number of result pixels.
    pub(super) grid: [usize; 2],
    /// Grid coordinate i is result coordinate `origin + spacing·i` …
    pub(super) origin: [usize; 2],
    pub(super) spacing: [usize; 2],
    /// … and a tap reads source coordinate `shift + step·i`, or zero outside of the plane.
    pub(super) step: [usize; 2],
    pub(super) taps: [Taps; 2],
    /// Distance in the weight between result channels, source channels, groups and kernel rows.
    pub(super) weight_output: usize,
    pub(super) weight_channel: usize,
    pub(super) weight_group: usize,
    pub(super) weight_row: usize,
}

impl Gather {
    /// The forward pass; the weight gradient reads `x` the same way.
    pub(super) fn forward(problem: &Problem) -> Gather {
        let sizes = Sizes::of(problem);
        let taps = |axis: usize| Taps {
            count: sizes.kernel[axis],
            first: Tap { kernel: 0, shift: -sizes.padding[axis] },
            kernels: 1,
            shifts: sizes.reach(1, axis),
        };
        let mut gather = Gather {
            batch: problem.n as usize,
            groups: problem.groups as usize,
            channels: sizes.c,
            outputs: sizes.k,
            src: sizes.input,
            dst: sizes.output,
            grid: sizes.output,
            origin: [0, 0],
            spacing: [1, 1],
            step: sizes.stride,
            taps: [taps(0), taps(1)],
            weight_output: sizes.c * sizes.taps(),
            weight_channel: sizes.taps(),
            weight_group: sizes.k * sizes.c * sizes.taps(),
            weight_row: sizes.kernel[1],
        };
        gather.flatten();
        gather
    }

    /// The input gradient, one `Gather` for each class of pixels that any tap meets. Says too whether there are others.
    pub(super) fn backward_input(problem: &Problem) -> (impl Iterator<Item = Gather>, bool) {
        let sizes = Sizes::of(problem);
        let complete = |axis: usize| sizes.classes(axis).count() == sizes.stride[axis].min(sizes.input[axis]);
        let zeros_elsewhere = !complete(0) || !complete(1);
        let (batch, groups) = (problem.n as usize, problem.groups as usize);
        let pairs = sizes.classes(0).flat_map(move |row| sizes.classes(1).map(move |column| (row, column)));
        let gathers = pairs.map(move |(row, column)| {
            let mut gather = Gather {
                batch,
                groups,
                channels: sizes.k,
                outputs: sizes.c,
                src: sizes.output,
                dst: sizes.input,
                grid: [row.count, column.count],
                origin: [row.first, column.first],
                spacing: sizes.stride,
                step: [1, 1],
                taps: [row.taps, column.taps],
                weight_output: sizes.taps(),
                weight_channel: sizes.c * sizes.taps(),
                weight_group: sizes.k * sizes.c * sizes.taps(),
                weight_row: sizes.kernel[1],
            };
            gather.flatten();
            gather
        });
        (gathers, zeros_elsewhere)
    }

    /// A lone tap that reads the pixel it stands on sees planes as single rows, which pack and store faster.
    fn flatten(&mut self) {
        if self.is_pointwise() {
            let plane = [1, self.src[0] * self.src[1]];
            (self.src, self.dst, self.grid) = (plane, plane, plane);
        }
    }

    /// Whether results are products of the pixel that they stand on alone.
    pub(super) fn is_pointwise(&self) -> bool {
        let lone = self.taps.iter().all(|taps| taps.count == 1 && taps.first.shift == 0);
        let dense = self.step == [1, 1] && self.spacing == [1, 1] && self.origin == [0, 0];
        lone && dense && self.src == self.dst && self.grid == self.src
    }

    /// The least and the greatest source coordinate that a tap reads for grid coordinate 0; `None` without taps.
    pub(super) fn shifts(&self, axis: usize) -> Option<[isize; 2]> {
        let shifts = || self.taps[axis].iter().map(|tap| tap.shift);
        Some([shifts().min()?, shifts().max()?])
    }

    /// Kernel elements that a result reads in each channel.
    pub(super) fn window(&self) -> usize {
        self.taps[0].count * self.taps[1].count
    }

    /// How many products make one result.
    pub(super) fn depth(&self) -> usize {
        self.channels * self.window()
    }

    /// Result pixels of the whole batch, in one channel.
    pub(super) fn pixels(&self) -> usize {
        self.batch * self.grid[0] * self.grid[1]
    }

    /// Multiplications and additions of the block.
    pub(super) fn flops(&self) -> f64 {
        2.0 * (self.pixels() as f64) * (self.depth() as f64) * (self.outputs as f64) * (self.groups as f64)
    }

    /// Where the source plane of a group's channel starts.
    pub(super) fn src_plane(&self, image: usize, group: usize, channel: usize) -> usize {
        ((image * self.groups + group) * self.channels + channel) * self.src[0] * self.src[1]
    }

    /// Where the result plane of a group's channel starts.
    pub(super) fn dst_plane(&self, image: usize, group: usize, output: usize) -> usize {
        ((image * self.groups + group) * self.outputs + output) * self.dst[0] * self.dst[1]
    }

    /// Cuts a range of grid coordinates where other taps read inside the plane, and lists those with each piece: the
    /// middle, for which all do, and every coordinate at a border alone.
    pub(super) fn alike(&self, axis: usize, range: Range<usize>) -> impl Iterator<Item = Alike> + use<> {
        let (taps, step, size) = (self.taps[axis], self.step[axis], self.src[axis] as isize);
        let [least, most] = self.shifts(axis).unwrap_or([0, 0]);
        let steps = |distance: isize| distance.max(0).unsigned_abs().div_ceil(step);
        let middle = steps(-least)..steps(size - most);
        let mut at = range.start;
        std::iter::from_fn(move || {
            let from = at;
            if from >= range.end {
                return None;
            }
            if middle.contains(&from) {
                at = middle.end.min(range.end);
                return Some(Alike { at: from..at, taps: 0..taps.count });
            }
            at += 1;
            let reads = |&i: &usize| (0..size).contains(&(taps.get(i).shift + (from * step) as isize));
            let first = (0..taps.count).find(reads).unwrap_or(0);
            let end = (first..taps.count).rfind(reads).map_or(first, |last| last + 1);
            Some(Alike { at: from..at, taps: first..end })
        })
    }

    /// Channel, kernel row and kernel column of terms `first..last` of the reduction, which runs over them in that order.
    pub(super) fn places(&self, first: usize, last: usize) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [rows, columns] = self.taps.map(|taps| taps.count);
        let begin = [first / columns / rows, first / columns % rows, first % columns];
        let next = move |&[channel, row, column]: &[usize; 3]| match (column + 1 < columns, row + 1 < rows) {
            (true, _) => Some([channel, row, column + 1]),
            (_, true) => Some([channel, row + 1, 0]),
            _ => Some([channel + 1, 0, 0]),
        };
        std::iter::successors(Some(begin), next).take(last - first)
    }

    /// Lists terms `first..last` of the reduction.
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub(super) fn terms(&self, first: usize, last: usize, terms: &mut Vec<Term>) -> Result<()> {
        let listed = self.places(first, last).map(|[channel, row, column]| {
            let (row, column) = (self.taps[0].get(row), self.taps[1].get(column));
            Term {
                plane: channel * self.src[0] * self.src[1],
                shift: [row.shift, column.shift],
                weight: channel * self.weight_channel + row.kernel * self.weight_row + column.kernel,
            }
        });
        list(terms, last - first, listed)
    }

    /// Cuts pixels `first..last` of the batch into runs that cross neither a grid row nor a multiple of `width`.
    pub(super) fn runs(&self, first: usize, last: usize, width: usize, list: &mut Vec<Run>) {
        list.clear();
        let mut at = first;
        while at < last {
            let (line, column) = (at / self.grid[1], at % self.grid[1]);
            let in_panel = width - (at - first) % width;
            let len = in_panel.min(self.grid[1] - column).min(last - at);
            list.push(Run { at: at - first, len, image: line / self.grid[0], row: line % self.grid[0], column });
            at += len;
        }
    }
}

/// Terms of whole channels, or of a part of one; one tap's after the other's.
pub(super) struct Block {
    pub(super) channels: Range<usize>,
    pub(super) taps: Range<usize>,
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.channels.len() * self.taps.len()
    }

    /// Where its terms are among those of all passes.
    pub(super) fn terms(&self, gather: &Gather) -> Range<usize> {
        let first = self.channels.start * gather.window() + self.taps.start;
        first..first + self.len()
    }
}

/// Grid coordinates of one axis, for which the same taps read inside the plane.
pub(super) struct Alike {
    pub(super) at: Range<usize>,
    pub(super) taps: Range<usize>,
}

/// One term of the reduction, within its group and image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// Where its source plane starts.
    pub(super) plane: usize,
    /// The source pixel it reads for grid pixel (0, 0).
    pub(super) shift: [isize; 2],
    /// Where its weight is.
    pub(super) weight: usize,
}

/// Consecutive pixels of one grid row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Its place among the pixels listed.
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Run {
    /// What the run reads for one term: how many zeros first, then which elements of the source plane (`step` apart).
    /// Zeros fill up the rest.
    #[inline]
    pub(super) fn reads(&self, gather: &Gather, shift: [isize; 2]) -> (usize, usize, usize) {
        let row = shift[0] + (self.row * gather.step[0]) as isize;
        if row < 0 || row as usize >= gather.src[0] {
            return (self.len, 0, 0);
        }
        let column = shift[1] + (self.column * gather.step[1]) as isize;
        let (step, width) = (gather.step[1], gather.src[1] as isize);
        // Most layers take single steps, and a division costs more than the copy of a short run.
        let steps = |distance: usize| if step == 1 { distance } else { distance.div_ceil(step) };
        let zeros = if column < 0 { steps(column.unsigned_abs()).min(self.len) } else { 0 };
        let first = column + (zeros * step) as isize;
        let count = if first >= width { 0 } else { steps((width - first) as usize).min(self.len - zeros) };
        (zeros, if count == 0 { 0 } else { row as usize * gather.src[1] + first as usize }, count)
    }
}

/// The residue class of one axis of dx: which coordinates, and which taps meet them.
#[derive(Clone, Copy)]
struct Class {
    first: usize,
    count: usize,
    taps: Taps,
}

/// The problem's numbers in machine words. `Problem::new` bounded every product of them that is formed here.
#[derive(Clone, Copy)]
struct Sizes {
    c: usize,
    k: usize,
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [isize; 2],
    dilation: [usize; 2],
}

impl Sizes {
    fn of(problem: &Problem) -> Sizes {
        let pair = |sizes: [u64; 2]| sizes.map(|size| size as usize);
        Sizes {
            c: problem.channels_per_group() as usize,
            k: problem.outputs_per_group() as usize,
            input: pair([problem.h, problem.w]),
            output: pair([problem.p, problem.q]),
            kernel: pair([problem.r, problem.s]),
            stride: pair(problem.stride),
            padding: problem.padding.map(|size| size as isize),
            dilation: pair(problem.dilation),
        }
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// How far a kernel element is from the first.
    fn reach(&self, kernel: usize, axis: usize) -> isize {
        (kernel * self.dilation[axis]) as isize
    }

    /// The classes of an axis that any tap meets: h = first + stride·i is met by r when h + padding − r·dilation is a
    /// multiple of the stride, and the quotient is the coordinate of dy. The taps of a class are a fixed period apart.
    fn classes(self, axis: usize) -> impl Iterator<Item = Class> {
        let (stride, kernel) = (self.stride[axis], self.kernel[axis]);
        let common = common_divisor(stride, self.dilation[axis]);
        let period = stride / common;
        (0..kernel.min(period)).filter_map(move |leader| {
            let first = (self.reach(leader, axis) - self.padding[axis]).rem_euclid(stride as isize);
            let shift = (first + self.padding[axis] - self.reach(leader, axis)) / stride as isize;
            let taps = Taps {
                count: (kernel - leader).div_ceil(period),
                first: Tap { kernel: leader, shift },
                kernels: period,
                shifts: -((self.dilation[axis] / common) as isize),
            };
            let first = first as usize;
            (first < self.input[axis]).then(|| Class {
                first,
                count: (self.input[axis] - first).div_ceil(stride),
                taps,
            })
        })
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Conv2dConfig;
    use crate::problem::{Pass, PassOptions};

    #[test]
    fn coordinates_are_alike_whose_taps_read_the_same() {
        for (size, kernel, stride, padding, dilation) in [
            (7, 3, 1, 1, 1),
            (9, 3, 2, 1, 1),
            (9, 5, 1, 4, 2),
            (5, 4, 3, 3, 1),
            (2, 3, 1, 5, 2),
            (6, 1, 1, 0, 1),
            (8, 2, 3, 0, 1),
        ] {
            let mut config = Conv2dConfig::new(1, 1, [1, kernel]);
            (config.stride, config.padding, config.dilation) = ([1, stride], [[0, 0], [padding; 2]], [1, dilation]);
            let input = [1, 1, 1, size];
            let problem = Problem::new(&config, input, Pass::Forward, PassOptions::default()).unwrap();
            for gather in Gather::backward_input(&problem).0.chain([Gather::forward(&problem)]) {
                for range in [0..gather.grid[1], 1..gather.grid[1].max(2) - 1] {
                    let mut next = range.start;
                    for alike in gather.alike(1, range.clone()) {
                        assert_eq!(alike.at.start, next);
                        next = alike.at.end;
                        for at in alike.at {
                            let reads = |i: usize| gather.taps[1].get(i).shift + (gather.step[1] * at) as isize;
                            let inside = |&i: &usize| (0..gather.src[1] as isize).contains(&reads(i));
                            let taps: Vec<usize> = (0..gather.taps[1].count).filter(inside).collect();
                            assert_eq!(alike.taps.clone().collect::<Vec<_>>(), taps, "{problem:?} at {at}");
                        }
                    }
                    assert_eq!(next, range.end.max(range.start));
                }
            }
        }
    }
}
