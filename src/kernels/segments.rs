//! Weight (and bias) gradient along segments of output rows, for the kernels of `shaders/permutations.txt`:
//! `shaders/segments-backward-weight.glsl`.

use super::splits::Reduction;
use super::table::{SEGMENT_SIZES, SEGMENTS_BACKWARD_WEIGHT};
use crate::plan::{Limits, Module, VECTORS_ID, VECTORS_INPUT, VECTORS_OUTPUT};
use crate::problem::Problem;

/// Share of a device's peak that full tiles reach; measured, see docs/performance.md.
const EFFICIENCY: f64 = 0.6;
/// A software driver takes turns at every barrier.
const EFFICIENCY_SOFTWARE: f64 = 0.02;
/// Threads that a unit runs at once, by the registers that they take.
const RESIDENT_THREADS: u64 = 256;

/// A line of the table.
#[derive(Clone, Copy)]
struct Segment {
    index: usize,
    kernel: [u64; 2],
    stride: u64,
    dilation: u64,
    columns: u64,
    lines: u64,
    threads: u64,
    tile_k: u64,
    tile_c: u64,
}

fn segments() -> impl Iterator<Item = Segment> {
    SEGMENT_SIZES.iter().enumerate().map(|(index, sizes)| {
        let [r, s, stride, dilation, columns, lines, threads, tile_k, tile_c, ..] = sizes.map(u64::from);
        Segment { index, kernel: [r, s], stride, dilation, columns, lines, threads, tile_k, tile_c }
    })
}

impl Segment {
    fn fits(&self, problem: &Problem, limits: &Limits) -> bool {
        let module = SEGMENTS_BACKWARD_WEIGHT.tiled(self.index, false);
        self.kernel == [problem.r, problem.s]
            && (self.stride == problem.stride[1])
            && (self.dilation == problem.dilation[1] || problem.s == 1)
            && (self.lines == 1 || [problem.stride[0], problem.dilation[0]] == [self.stride, self.dilation])
            && self.threads <= limits.workgroup_threads.into()
            && module.shared_memory <= limits.shared_memory
    }

    /// Whether a block spans all of an axis (0: rows, 1: columns), of the input as of the output, padded alike at both ends.
    fn has_whole(&self, problem: &Problem, axis: usize) -> bool {
        let [output, input] = [[problem.p, problem.q], [problem.h, problem.w]].map(|sizes| sizes[axis]);
        let padding = (self.kernel[axis] - 1) * self.dilation / 2;
        let span = [self.lines, self.columns][axis];
        [output, input] == [span; 2] && self.stride == 1 && problem.padding[axis] == padding
    }

    /// Blocks of an image.
    fn blocks(&self, problem: &Problem) -> u64 {
        problem.p.div_ceil(self.lines) * problem.q.div_ceil(self.columns)
    }

    /// Tiles of a group's input channels.
    fn tiles_c(&self, problem: &Problem) -> u64 {
        problem.channels_per_group().div_ceil(self.tile_c)
    }

    /// Tiles of all channels.
    fn tiles(&self, problem: &Problem) -> u64 {
        problem.groups * problem.outputs_per_group().div_ceil(self.tile_k) * self.tiles_c(problem)
    }

    /// Operations, those on what does not exist among them.
    fn operations(&self, problem: &Problem) -> f64 {
        let pixels = problem.n * self.blocks(problem) * self.lines * self.columns;
        2.0 * (pixels * self.tiles(problem) * self.tile_k * self.tile_c * problem.taps()) as f64
    }

    fn specialization(&self, problem: &Problem, module: &Module) -> Vec<u32> {
        let vectors = |whole: bool, flag: u32| if whole { flag } else { 0 };
        let aligned = |sizes: &[u64]| sizes.iter().all(|size| size.is_multiple_of(4));
        let value = |id: &u32| match *id {
            0 => (problem.p.is_multiple_of(self.lines) && problem.q.is_multiple_of(self.columns)).into(),
            1 => problem.outputs_per_group().is_multiple_of(self.tile_k).into(),
            2 => problem.channels_per_group().is_multiple_of(self.tile_c).into(),
            3 => self.has_whole(problem, 1).into(),
            4 => (self.has_whole(problem, 0) && self.has_whole(problem, 1)).into(),
            VECTORS_ID => {
                vectors(aligned(&[problem.q, self.columns]), VECTORS_OUTPUT)
                    | vectors(aligned(&[problem.w, self.columns, problem.padding[1]]), VECTORS_INPUT)
            }
            id => unreachable!("{} has no constant {id}", module.name),
        };
        module.specialization_ids.iter().map(value).collect()
    }
}

/// The kernel, if there is one for this window.
pub fn reduction(problem: &Problem, limits: &Limits) -> Option<Reduction> {
    let problem = flattened(problem);
    let fitting = segments().filter(|segment| segment.fits(&problem, limits));
    let best = fitting.min_by(|a, b| a.operations(&problem).total_cmp(&b.operations(&problem)))?;
    let module = SEGMENTS_BACKWARD_WEIGHT.tiled(best.index, false);
    // A round a block, one a line of it and (VECTORS_IN_LOOP) a vector of a long line, and what surrounds them.
    let vectors = if best.columns > 28 { best.columns.div_ceil(4) } else { 0 };
    let rounds = best.lines * (1 + vectors) + 2;
    let efficiency = if limits.software { EFFICIENCY_SOFTWARE } else { EFFICIENCY };
    Some(Reduction {
        kernel: &SEGMENTS_BACKWARD_WEIGHT,
        tile: best.index,
        specialization: best.specialization(&problem, module),
        tiles: best.tiles(&problem),
        bias_slices: best.tiles_c(&problem),
        residents: (RESIDENT_THREADS / best.threads).max(1),
        image_units: best.blocks(&problem),
        unit_pixels: best.lines * best.columns,
        step: 1,
        most_units: limits.loop_iterations / rounds,
        seconds: best.operations(&problem) / (efficiency * limits.flops),
        prefers_addresses: limits.prefers_addresses(),
        packs_channels: false,
        problem,
    })
}

/// Where every output pixel reads one input pixel at its own place, an image is one row.
fn flattened(problem: &Problem) -> Problem {
    let pointwise = problem.taps() == 1 && problem.stride == [1, 1] && [problem.p, problem.q] == [problem.h, problem.w];
    if !pointwise || problem.padding != [0, 0] {
        return problem.clone();
    }
    let pixels = problem.h * problem.w;
    Problem { h: 1, w: pixels, p: 1, q: pixels, ..problem.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_what_the_kernel_relies_on() {
        for sizes in SEGMENT_SIZES {
            let [r, s, stride, dilation, columns, lines, threads, tile_k, tile_c, thread_k, thread_c] = sizes;
            assert!(
                lines <= 2 || [r, stride, dilation] == [3, 1, 1],
                "only a plane's first and last line reach padding"
            );
            assert!(columns * lines <= 64, "the shortest chain has 64 products");
            assert_eq!(threads, tile_k / thread_k * (tile_c / thread_c), "every thread has channels");
            assert!(threads.is_multiple_of(tile_k), "threads share the bias's channels evenly");
            assert!(tile_c.is_multiple_of(4), "rows of a workgroup's results are whole vectors");
            assert!((tile_k / thread_k).is_multiple_of(8), "threads lie in patches of 8 x 4");
            let loaded_at_once = |items: u32| threads / items.next_power_of_two().max(4);
            let quads = columns.div_ceil(4);
            let of_dy = if columns.is_multiple_of(4) { quads } else { lines * columns };
            let of_x = if s == 1 && stride == 1 { quads } else { (columns - 1) * stride + (s - 1) * dilation + 1 };
            assert!(tile_k.is_multiple_of(loaded_at_once(of_dy)), "threads share dy's channels evenly");
            assert!(tile_c.is_multiple_of(loaded_at_once(of_x)), "and x's");
        }
    }
}
