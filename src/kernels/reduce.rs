//! Summing the splits of a reduction in their order: `shaders/reduce-splits.glsl`.

use super::FLAG_ACCUMULATE;
use super::table::{REDUCE_SPLITS, REDUCE_SPLITS_RUN as RUN};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Sizes};
use crate::problem::Problem;

/// Appends `result = Σ partial`, or `+=` where the problem accumulates. Nothing for an empty result.
pub fn plan(
    problem: &Problem,
    limits: &Limits,
    addresses: bool,
    partial: Operand,
    result: Operand,
    splits: u64,
    plan: &mut Plan,
) -> Result<()> {
    if result.bytes == 0 {
        return Ok(());
    }
    let elements = result.bytes / 4;
    let dispatch = Dispatch {
        module: REDUCE_SPLITS.module(addresses),
        specialization: vec![],
        operands: [(splits > 0).then_some(partial), None, None, Some(result)],
        sizes: Sizes {
            flags: if problem.options.accumulate { FLAG_ACCUMULATE } else { 0 },
            extra: [splits as u32, elements as u32],
            ..Sizes::default()
        },
        tiles: 0..0,
    };
    plan.push(dispatch, elements.div_ceil(u64::from(RUN)), (splits * elements) as f64 / limits.flops)
}
