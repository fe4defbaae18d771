//! Which kernels serve a problem on a device.

use super::implicit_gemm::Choice;
use super::reduce::{self, Sum};
use super::slices::whole;
use super::splits::{self, Reduction};
use super::{bias, depthwise, implicit_gemm, pack, pad, segments, strips, wgrad};
use crate::error::{Error, Result};
use crate::plan::{Limits, Operand, Plan, Role};
use crate::problem::{Pass, PassOptions, Problem};

/// Plans a whole pass. With `prepacked`, the weight comes as [`Role::Packed`]; otherwise raw, as [`Role::Weight`].
///
/// # Errors
/// `Unsupported` for tensors beyond this device's reach.
pub fn plan(problem: &Problem, limits: &Limits, prepacked: bool) -> Result<Plan> {
    let mut plan = Plan::new(limits);
    let reads_input = problem.pass != Pass::BackwardWeight || !problem.options.skip_weight;
    match problem.padded().filter(|_| reads_input) {
        Some(padded) => plan_padded(problem, padded, limits, prepacked, &mut plan)?,
        None => plan_unpadded(problem, limits, prepacked, &mut plan)?,
    }
    Ok(plan)
}

/// Pads the input into scratch memory and goes on from there, or computes the padded input's gradient there and folds
/// it.
fn plan_padded(
    problem: &Problem,
    mut padded: Problem,
    limits: &Limits,
    prepacked: bool,
    plan: &mut Plan,
) -> Result<()> {
    let workspace = plan.reserve(4 * padded.input_elements());
    let fold = problem.pass == Pass::BackwardInput;
    if fold {
        padded.options.accumulate = false;
    } else {
        pad::plan(problem, &padded, limits, workspace, plan)?;
    }
    let first = plan.dispatches.len();
    plan_unpadded(&padded, limits, prepacked, plan)?;
    relocate(plan, first, Role::Input, Role::Workspace, workspace);
    if fold {
        pad::plan(problem, &padded, limits, workspace, plan)?;
    }
    Ok(())
}

fn plan_unpadded(problem: &Problem, limits: &Limits, prepacked: bool, plan: &mut Plan) -> Result<()> {
    if problem.pass == Pass::BackwardWeight {
        return plan_backward_weight(problem, limits, plan);
    }
    if problem.n == 0 {
        return Ok(());
    }
    let raw = whole(Role::Weight, problem.weight_elements());
    let strips = strips::choice(problem, limits);
    if depthwise::applies(problem) {
        return match strips {
            Some(strips) => strips::plan(problem, limits, &strips, raw, plan),
            None => depthwise::plan(problem, limits, plan),
        };
    }
    let bytes = pack::packed_bytes(problem);
    let weight = if prepacked { Operand { role: Role::Packed, offset: 0, bytes } } else { raw };
    let choice = implicit_gemm::choice(problem, limits);
    let dense = choice.as_ref().map_or(f64::INFINITY, Choice::seconds);
    let strips = strips.filter(|strips| match limits.kernel {
        Some(strips::NAME | strips::PARTS) => true,
        Some(name) if implicit_gemm::NAMES.contains(&name) => false,
        _ => strips.seconds < dense,
    });
    if let Some(strips) = strips {
        return strips::plan(problem, limits, &strips, weight, plan);
    }
    let choice = choice?;
    let weight = if prepacked || choice.reads_raw(problem, limits) {
        weight
    } else {
        let packed = Operand { role: Role::Workspace, offset: plan.reserve(bytes), bytes };
        pack::plan(problem, limits, packed, plan)?;
        packed
    };
    implicit_gemm::plan(problem, limits, &choice, weight, plan)
}

fn plan_backward_weight(problem: &Problem, limits: &Limits, plan: &mut Plan) -> Result<()> {
    let PassOptions { bias, skip_weight, .. } = problem.options;
    let bias_alone = bias && (skip_weight || problem.transposed);
    let mut sums = Vec::new();
    if bias_alone {
        let first = plan.dispatches.len();
        let summed = if problem.transposed { bias_over_input(problem) } else { problem.clone() };
        sums.extend(plan_any(&[bias::reduction(summed, limits)], limits, plan)?);
        if problem.transposed {
            relocate(plan, first, Role::Output, Role::Input, 0);
        }
    }
    if !skip_weight {
        let options = PassOptions { bias: bias && !bias_alone, ..problem.options };
        let problem = Problem { options, ..problem.clone() };
        sums.extend(plan_any(&reductions(&problem, limits)?, limits, plan)?);
    }
    // Last: until then, a kernel follows the one before through its images.
    sums.into_iter().try_for_each(|sum| reduce::plan(sum, limits, plan))
}

/// Plans the first of the kernels that this device can run.
fn plan_any(kernels: &[Reduction], limits: &Limits, plan: &mut Plan) -> Result<Vec<Sum>> {
    for kernel in kernels {
        if let Some(sums) = splits::plan(kernel, limits, plan)? {
            return Ok(sums);
        }
    }
    Err(Error::unsupported("this device runs none of the gradient's kernels on tensors of this size"))
}

/// The kernels that compute a weight's gradient, and the bias's if it is asked for, the cheapest first.
fn reductions(problem: &Problem, limits: &Limits) -> Result<Vec<Reduction>> {
    let any = if depthwise::applies(problem) {
        depthwise::reduction(problem, limits)
    } else {
        wgrad::reduction(problem, limits)?
    };
    let mut kernels: Vec<_> = [strips::reduction(problem, limits), segments::reduction(problem, limits), Some(any)]
        .into_iter()
        .flatten()
        .collect();
    let cost = |kernel: &Reduction| if limits.kernel == Some(kernel.kernel.name()) { 0.0 } else { kernel.cost(limits) };
    kernels.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    Ok(kernels)
}

/// The convolution of one channel whose output is a transposed one's, this problem's input; their biases' gradients are
/// the same.
fn bias_over_input(problem: &Problem) -> Problem {
    Problem {
        c: 1,
        k: problem.c,
        p: problem.h,
        q: problem.w,
        r: 1,
        s: 1,
        stride: [1, 1],
        padding: [0, 0],
        padding_end: [0, 0],
        dilation: [1, 1],
        groups: 1,
        transposed: false,
        ..problem.clone()
    }
}

/// Moves what the dispatches from `first` on find in one memory to another, `offset` bytes further.
fn relocate(plan: &mut Plan, first: usize, from: Role, to: Role, offset: u64) {
    let operands = plan.dispatches[first..].iter_mut().flat_map(|dispatch| dispatch.operands.iter_mut().flatten());
    for operand in operands.filter(|operand| operand.role == from) {
        operand.role = to;
        operand.offset += offset;
    }
}

/// Plans only the packing of a weight for the problem's pass, from [`Role::Weight`] to [`Role::Packed`].
///
/// # Errors
/// `Unsupported` for a weight beyond this device's reach.
pub fn plan_packing(problem: &Problem, limits: &Limits) -> Result<Plan> {
    let mut plan = Plan::new(limits);
    let bytes = pack::packed_bytes(problem);
    if bytes > 0 {
        pack::plan(problem, limits, Operand { role: Role::Packed, offset: 0, bytes }, &mut plan)?;
    }
    Ok(plan)
}
