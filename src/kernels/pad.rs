//! Padding an input with copies of its own elements, and the gradient of that: `shaders/pad-input.glsl`.

use super::FLAG_ACCUMULATE;
use super::slices::Reach;
use super::table::{PAD_INPUT, PAD_INPUT_THREADS as THREADS};
use crate::config::PaddingMode;
use crate::error::{Error, Result};
use crate::plan::{Dispatch, Limits, Operand, Plan, Role, Walk};
use crate::problem::{Pass, Problem};

/// Appends the copy of the input to byte `workspace` of the scratch memory, where it becomes that of `padded`; for an
/// input gradient, the way back.
pub fn plan(problem: &Problem, padded: &Problem, limits: &Limits, workspace: u64, plan: &mut Plan) -> Result<()> {
    let fold = problem.pass == Pass::BackwardInput;
    if fold {
        check_loops(problem, limits)?;
    }
    let copy = Problem { k: problem.c, p: padded.h, q: padded.w, ..problem.clone() };
    let reach = Reach::new(&copy, limits, &[("one image of the padded input", copy.c * copy.p * copy.q)])?;
    for images in reach.slices(&copy) {
        let (input, output) = (images.input(&copy), images.output(&copy));
        let mut sizes = images.sizes(&copy);
        sizes.flags = if problem.options.accumulate { FLAG_ACCUMULATE } else { 0 };
        sizes.extra = [mode(problem.padding_mode), u32::from(fold)];
        let dispatch = Dispatch {
            module: PAD_INPUT.module(reach.addresses),
            specialization: vec![],
            operands: [
                Some(input),
                None,
                None,
                Some(Operand { role: Role::Workspace, offset: workspace + output.offset, ..output }),
            ],
            sizes,
            tiles: 0..0,
        };
        let image = copy.c * if fold { copy.h * copy.w } else { copy.p * copy.q };
        let walk = Walk::by_threads(THREADS, image);
        plan.push_walking(dispatch, images.count, output.bytes as f64 / limits.flops, walk)?;
    }
    Ok(())
}

/// As the shader numbers them.
fn mode(mode: PaddingMode) -> u32 {
    match mode {
        PaddingMode::Zeros => 0,
        PaddingMode::Reflect => 1,
        PaddingMode::Replicate => 2,
        PaddingMode::Circular => 3,
    }
}

/// The element at a corner has the most copies.
fn check_loops(problem: &Problem, limits: &Limits) -> Result<()> {
    let copies = |axis: usize| 1 + problem.padding[axis] + problem.padding_end[axis];
    // A round for each copy, and two for each row of them. In the other modes there are at most nine.
    if problem.padding_mode == PaddingMode::Replicate
        && copies(0).saturating_mul(copies(1) + 2) > limits.loop_iterations
    {
        return Err(Error::unsupported(format!(
            "the gradient of a corner sums {} copies, too many for this device's loops, which end after {} rounds",
            copies(0) * copies(1),
            limits.loop_iterations
        )));
    }
    Ok(())
}
