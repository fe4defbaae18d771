//! The bias's gradient on its own: `shaders/conv2d-backward-bias.glsl`.

use super::splits::Reduction;
use super::table::{CONV2D_BACKWARD_BIAS, CONV2D_BACKWARD_BIAS_THREADS as THREADS};
use crate::plan::{Limits, VECTORS_OUTPUT};
use crate::problem::{PassOptions, Problem};

/// Pixels that a workgroup sums in a few microseconds, so that fewer gain nothing.
const LEAST_PIXELS: u64 = 1 << 14;
/// Elements that a thread reads at once.
const RUN: u64 = 4;

/// The kernel, for any shape.
pub fn reduction(problem: &Problem, limits: &Limits) -> Reduction {
    let plane = problem.p * problem.q;
    let options = PassOptions { bias: true, skip_weight: true, ..problem.options };
    Reduction {
        problem: Problem { options, ..problem.clone() },
        kernel: &CONV2D_BACKWARD_BIAS,
        tile: 0,
        specialization: vec![if plane.is_multiple_of(RUN) { VECTORS_OUTPUT } else { 0 }],
        tiles: problem.k,
        bias_slices: 1,
        residents: 0,
        image_units: plane,
        unit_pixels: 1,
        least_pixels: LEAST_PIXELS,
        step: RUN,
        most_units: limits.loop_iterations.saturating_mul(u64::from(THREADS)),
        seconds: (problem.n * problem.k * plane) as f64 / limits.flops,
        prefers_addresses: limits.prefers_addresses(),
        packs_channels: false,
    }
}
