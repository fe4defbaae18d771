//! The bias's gradient on its own: `shaders/conv2d-backward-bias.glsl`.

use super::splits::Reduction;
use super::table::{CONV2D_BACKWARD_BIAS, CONV2D_BACKWARD_BIAS_THREADS as THREADS};
use crate::plan::{Limits, VECTORS_OUTPUT};
use crate::problem::Problem;

/// Elements that a thread reads at once.
const RUN: u64 = 4;

/// The kernel, for any shape.
pub fn reduction(mut problem: Problem, limits: &Limits) -> Reduction {
    problem.options.skip_weight = true;
    let plane = problem.p * problem.q;
    Reduction {
        kernel: &CONV2D_BACKWARD_BIAS,
        tile: 0,
        specialization: vec![if plane.is_multiple_of(RUN) { VECTORS_OUTPUT } else { 0 }],
        tiles: problem.k,
        bias_slices: 1,
        residents: 0,
        image_units: plane,
        unit_pixels: 1,
        step: RUN,
        most_units: limits.loop_iterations.saturating_mul(u64::from(THREADS)),
        seconds: (problem.n * problem.k * plane) as f64 / limits.flops,
        prefers_addresses: limits.prefers_addresses(),
        packs_channels: false,
        problem,
    }
}
