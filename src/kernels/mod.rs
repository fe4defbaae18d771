//! The kernels: one file per algorithm, each a pure function from a problem to dispatches.

mod depthwise;
mod implicit_gemm;
mod pack;
mod reduce;
mod select;
mod slices;
mod tile;
mod wgrad;

pub use pack::packed_bytes;
pub use select::{plan, plan_packing};

use crate::plan::Module;

/// The compiled modules, a constant each.
pub mod modules {
    use crate::plan::Module;
    include!(concat!(env!("OUT_DIR"), "/kernel_table.rs"));
}

/// A kernel, in the two ways that it can reach its tensors.
struct Kernel {
    bound: &'static Module,
    addressed: &'static Module,
}

impl Kernel {
    fn module(&self, addresses: bool) -> &'static Module {
        if addresses { self.addressed } else { self.bound }
    }
}

static FORWARD: Kernel = Kernel { bound: &modules::CONV2D_FORWARD, addressed: &modules::CONV2D_FORWARD_ADDRESSES };
static BACKWARD_INPUT: Kernel =
    Kernel { bound: &modules::CONV2D_BACKWARD_INPUT, addressed: &modules::CONV2D_BACKWARD_INPUT_ADDRESSES };
static BACKWARD_WEIGHT: Kernel =
    Kernel { bound: &modules::CONV2D_BACKWARD_WEIGHT, addressed: &modules::CONV2D_BACKWARD_WEIGHT_ADDRESSES };
static DEPTHWISE_FORWARD: Kernel =
    Kernel { bound: &modules::DEPTHWISE_FORWARD, addressed: &modules::DEPTHWISE_FORWARD_ADDRESSES };
static DEPTHWISE_BACKWARD_INPUT: Kernel =
    Kernel { bound: &modules::DEPTHWISE_BACKWARD_INPUT, addressed: &modules::DEPTHWISE_BACKWARD_INPUT_ADDRESSES };
static DEPTHWISE_BACKWARD_WEIGHT: Kernel =
    Kernel { bound: &modules::DEPTHWISE_BACKWARD_WEIGHT, addressed: &modules::DEPTHWISE_BACKWARD_WEIGHT_ADDRESSES };
static PACK_WEIGHTS: Kernel = Kernel { bound: &modules::PACK_WEIGHTS, addressed: &modules::PACK_WEIGHTS_ADDRESSES };
static REDUCE_SPLITS: Kernel = Kernel { bound: &modules::REDUCE_SPLITS, addressed: &modules::REDUCE_SPLITS_ADDRESSES };

/// Add to what the result held.
const FLAG_ACCUMULATE: u32 = 1;
/// Weight gradients: only the bias's is wanted.
const FLAG_SKIP_WEIGHT: u32 = 2;

/// Products chained before they join a second total. The bound of the FP32 contract, 8·√K·2⁻²⁴·S, then holds for
/// every finite input up to K = 250,000: a chain of 64 and K/64 additions round at most 64 + K/64 ≤ 8·√K times.
const CHAIN: u32 = 64;
