//! Convolutions with one input channel a group: `shaders/lib/depthwise.glsl` and its weight gradient.

use super::implicit_gemm::{operands, sizes};
use super::slices::{Reach, whole};
use super::wgrad::{self, Columns};
use super::{CHAIN, DEPTHWISE_BACKWARD_INPUT, DEPTHWISE_BACKWARD_WEIGHT, DEPTHWISE_FORWARD};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Plan, Role};
use crate::problem::{Pass, Problem};

const THREADS: u32 = 64;
/// Neighbouring results of one thread.
const RUN: u32 = 4;
/// Kernel elements that a weight gradient's workgroup sums at once.
const TAPS: u32 = 9;
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
    let reach = Reach::new(problem, limits, &[("the weight", problem.weight_elements())])?;
    for images in reach.slices(problem) {
        let mut specialization = vec![THREADS, RUN, CHAIN];
        if !forward {
            specialization.push(u32::from(problem.stride == [1, 1]));
        }
        let threads = images.count * channels * height * width.div_ceil(u64::from(RUN));
        let share = images.count as f64 / problem.n as f64;
        let dispatch = Dispatch {
            module: kernel.module(reach.addresses),
            specialization,
            operands: operands(problem, &images, whole(Role::Weight, problem.weight_elements())),
            sizes: sizes(problem, &images),
            tiles: 0..0,
        };
        plan.push(
            dispatch,
            threads.div_ceil(u64::from(THREADS)),
            share * problem.flops() / (EFFICIENCY * limits.flops),
        )?;
    }
    Ok(())
}

/// Weight gradient.
pub fn plan_backward_weight(problem: &Problem, limits: &Limits, plan: &mut Plan) -> Result<()> {
    let tap_blocks = if problem.options.skip_weight { 1 } else { problem.taps().div_ceil(u64::from(TAPS)) };
    let columns = Columns {
        kernel: &DEPTHWISE_BACKWARD_WEIGHT,
        specialization: vec![THREADS, TAPS, CHAIN],
        tiles: problem.k * tap_blocks,
        step: u64::from(THREADS),
        seconds: problem.flops() / (EFFICIENCY * limits.flops),
    };
    wgrad::plan_splits(problem, limits, &columns, plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::modules;

    #[test]
    fn shared_memory_fits_the_required_minimum() {
        assert!(4 * THREADS * (TAPS + 1) <= 16 << 10);
        assert_eq!(modules::DEPTHWISE_BACKWARD_WEIGHT.specialization_ids, [0, 1, 2]);
        assert!(Pass::Forward != Pass::BackwardInput && THREADS > TAPS);
    }
}
