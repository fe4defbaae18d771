//! Which kernels serve a problem on a device.

use super::{depthwise, implicit_gemm, pack, wgrad};
use crate::error::Result;
use crate::plan::{Limits, Operand, Plan, Role};
use crate::problem::{Pass, Problem};

/// Plans a whole pass. With `prepacked`, the weight comes as [`Role::Packed`]; otherwise raw, as [`Role::Weight`].
///
/// # Errors
/// `Unsupported` for tensors beyond this device's reach.
pub fn plan(problem: &Problem, limits: &Limits, prepacked: bool) -> Result<Plan> {
    let mut plan = Plan::new(limits);
    if problem.pass == Pass::BackwardWeight {
        if problem.options.skip_weight && !problem.options.bias {
            return Ok(plan);
        }
        if depthwise::applies(problem) {
            depthwise::plan_backward_weight(problem, limits, &mut plan)?;
        } else {
            wgrad::plan(problem, limits, &mut plan)?;
        }
        return Ok(plan);
    }
    if problem.n == 0 {
        return Ok(plan);
    }
    if depthwise::applies(problem) {
        depthwise::plan(problem, limits, &mut plan)?;
        return Ok(plan);
    }
    let bytes = pack::packed_bytes(problem);
    let packed = if prepacked {
        Operand { role: Role::Packed, offset: 0, bytes }
    } else {
        let packed = Operand { role: Role::Workspace, offset: plan.reserve(bytes), bytes };
        pack::plan(problem, limits, packed, &mut plan)?;
        packed
    };
    implicit_gemm::plan(problem, limits, packed, &mut plan)?;
    Ok(plan)
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
