//! Convolutions with one input channel a group: `shaders/lib/depthwise.glsl` and its weight gradient.

use super::implicit_gemm::{operands, sizes};
use super::slices::{Reach, whole};
use super::splits::Reduction;
use super::table::{
    DEPTHWISE_BACKWARD_INPUT, DEPTHWISE_BACKWARD_WEIGHT, DEPTHWISE_BACKWARD_WEIGHT_TAPS as TAPS,
    DEPTHWISE_BACKWARD_WEIGHT_THREADS as THREADS, DEPTHWISE_FORWARD, DEPTHWISE_FORWARD_RUN as RUN,
    DEPTHWISE_FORWARD_THREADS,
};
use crate::error::{Error, Result};
use crate::plan::{Dispatch, Limits, Plan, Role, Walk};
use crate::problem::{Pass, Problem};

// Each of a workgroup's results is written by a thread of its own.
const _: () = assert!(THREADS > TAPS);

/// These kernels move bytes rather than multiply: operations run at a small share of the peak.
const EFFICIENCY: f64 = 0.05;

/// Whether these kernels serve the problem.
pub fn applies(problem: &Problem) -> bool {
    problem.channels_per_group() == 1
}

/// Forward and input gradient.
pub fn plan(problem: &Problem, limits: &Limits, plan: &mut Plan) -> Result<()> {
    let forward = problem.pass == Pass::Forward;
    let kernel = if forward { &DEPTHWISE_FORWARD } else { &DEPTHWISE_BACKWARD_INPUT };
    let (channels, height, width) =
        if forward { (problem.k, problem.p, problem.q) } else { (problem.c, problem.h, problem.w) };
    let outputs = if forward { 1 } else { problem.outputs_per_group() };
    let terms = problem.taps() * outputs;
    // Loops over kernel columns in one over kernel rows in one over output channels, whose exits count as rounds.
    let rounds = outputs.saturating_mul(problem.r.saturating_mul(problem.s + 2).saturating_add(3));
    if rounds > limits.loop_iterations {
        return Err(Error::unsupported(format!(
            "a sum of {terms} terms is too long for this device's loops, which end after {} rounds",
            limits.loop_iterations
        )));
    }
    let reach = Reach::new(problem, limits, &[("the weight", problem.weight_elements())])?;
    for images in reach.slices(problem) {
        let specialization = if forward { vec![] } else { vec![u32::from(problem.stride == [1, 1])] };
        let walk = Walk::by_threads(DEPTHWISE_FORWARD_THREADS, channels * height * width.div_ceil(u64::from(RUN)));
        let share = images.count as f64 / problem.n as f64;
        let dispatch = Dispatch {
            module: kernel.module(reach.addresses),
            specialization,
            operands: operands(problem, &images, whole(Role::Weight, problem.weight_elements())),
            sizes: sizes(problem, &images),
            tiles: 0..0,
        };
        let seconds = share * problem.flops() / (EFFICIENCY * limits.flops);
        plan.push_walking(dispatch, images.count, seconds, walk)?;
    }
    Ok(())
}

/// Weight gradient.
pub fn reduction(problem: &Problem, limits: &Limits) -> Reduction {
    Reduction {
        problem: problem.clone(),
        kernel: &DEPTHWISE_BACKWARD_WEIGHT,
        tile: 0,
        specialization: vec![],
        tiles: problem.k * problem.taps().div_ceil(u64::from(TAPS)),
        bias_slices: 1,
        residents: 0,
        image_units: problem.p * problem.q,
        unit_pixels: 1,
        step: u64::from(THREADS),
        most_units: limits.loop_iterations.saturating_mul(u64::from(THREADS)),
        seconds: problem.flops() / (EFFICIENCY * limits.flops),
        prefers_addresses: false,
        packs_channels: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::{DEPTHWISE_BACKWARD_INPUT_RUN, DEPTHWISE_BACKWARD_INPUT_THREADS};

    #[test]
    fn forward_and_input_gradient_share_their_sizes() {
        assert_eq!(RUN, DEPTHWISE_BACKWARD_INPUT_RUN);
        assert_eq!(DEPTHWISE_FORWARD_THREADS, DEPTHWISE_BACKWARD_INPUT_THREADS);
    }
}
