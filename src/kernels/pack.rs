//! Bringing a weight into the order that an implicit GEMM reads: `shaders/pack-weights.glsl`.

use super::depthwise;
use super::slices::{Images, Reach, whole};
use super::table::{PACK_WEIGHTS, PACK_WEIGHTS_SIDE as SIDE};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Role};
use crate::problem::{Pass, Problem};

/// Bytes of the problem's weight once packed. A depthwise weight is used as it is.
pub fn packed_bytes(problem: &Problem) -> u64 {
    if depthwise::applies(problem) {
        return 0;
    }
    let (results, terms) = shape(problem);
    4 * problem.groups * terms * results
}

/// Result channels of a group, in whole vectors, and terms that each sums.
fn shape(problem: &Problem) -> (u64, u64) {
    let (results, reduced) = match problem.pass {
        Pass::BackwardInput => (problem.channels_per_group(), problem.outputs_per_group()),
        _ => (problem.outputs_per_group(), problem.channels_per_group()),
    };
    (results.next_multiple_of(4), problem.taps() * reduced)
}

/// Appends `packed = weight`, in the order `[group][tap][reduced channel][result channel]`.
pub fn plan(problem: &Problem, limits: &Limits, packed: Operand, plan: &mut Plan) -> Result<()> {
    let elements = problem.weight_elements();
    // The weight alone decides how it is reached; input and output are not touched.
    let empty = Problem { n: 0, ..problem.clone() };
    let reach = Reach::new(&empty, limits, &[("the weight", elements.max(packed.bytes / 4))])?;
    let mut sizes = Images { begin: 0, count: 0 }.sizes(problem);
    sizes.extra = [u32::from(problem.pass == Pass::BackwardInput), 0];
    // A software driver takes turns at every barrier, and its threads load and store one by one. Where a tile is asked for,
    // it does as GPUs do: so tests see both ways.
    let through_shared = !limits.software || limits.tile.is_some();
    let dispatch = Dispatch {
        module: PACK_WEIGHTS.module(reach.addresses),
        specialization: vec![u32::from(through_shared)],
        operands: [Some(whole(Role::Weight, elements)), None, None, Some(packed)],
        sizes,
        tiles: 0..0,
    };
    let (results, terms) = shape(problem);
    let squares = results.div_ceil(u64::from(SIDE)) * terms.div_ceil(u64::from(SIDE)) * problem.groups;
    plan.push(dispatch, squares, packed.bytes as f64 / limits.flops)
}
