//! Summing the splits of a reduction in their order: `shaders/reduce-splits.glsl`.

use super::FLAG_ACCUMULATE;
use super::table::{REDUCE_SPLITS, REDUCE_SPLITS_THREADS as THREADS};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Sizes};

/// Bytes of partial sums beyond which splitting stops; any binding reaches as many.
pub(super) const MOST_PARTIAL_BYTES: u64 = 64 << 20;
/// A thread's share of an element's splits, beyond which others help it, where they are not busy with elements of their own.
const MOST_SPLITS: u64 = 4;
/// Threads that share an element's splits at most.
const MOST_SUMMERS: u64 = 32;
const _: () = assert!(MOST_SUMMERS <= THREADS as u64);
/// Threads that keep a device busy.
const ENOUGH_THREADS: u64 = 1 << 17;

/// A bias to be added to every plane of a result.
pub struct Bias {
    pub values: Operand,
    /// Channels before they repeat, and elements of a plane.
    pub channels: u64,
    pub plane: u64,
}

/// A sum of partial results.
pub struct Sum {
    pub partial: Operand,
    pub splits: u64,
    pub bias: Option<Bias>,
    pub result: Operand,
    /// Add to what the result held.
    pub accumulate: bool,
    /// Reach the tensors through addresses.
    pub addresses: bool,
}

/// Appends `result = Σ partial + bias`. Nothing for an empty result.
pub fn plan(sum: Sum, limits: &Limits, plan: &mut Plan) -> Result<()> {
    let Sum { partial, splits, bias, result, accumulate, addresses } = sum;
    if result.bytes == 0 {
        return Ok(());
    }
    let elements = result.bytes / 4;
    let mut summers = 1;
    while splits > MOST_SPLITS * summers && summers < MOST_SUMMERS && elements * summers < ENOUGH_THREADS {
        summers *= 2;
    }
    let mut problem = [0; 17];
    if let Some(Bias { channels, plane, .. }) = bias {
        (problem[4], problem[5], problem[16]) = (channels as u32, plane as u32, 1); // K, P, has_bias
    }
    let dispatch = Dispatch {
        module: REDUCE_SPLITS.module(addresses),
        specialization: vec![summers as u32],
        operands: [(splits > 0).then_some(partial), None, bias.map(|bias| bias.values), Some(result)],
        sizes: Sizes {
            problem,
            flags: if accumulate { FLAG_ACCUMULATE } else { 0 },
            extra: [splits as u32, elements as u32],
        },
        tiles: 0..0,
    };
    plan.push(dispatch, elements.div_ceil(u64::from(THREADS) / summers), (splits * elements) as f64 / limits.flops)
}
