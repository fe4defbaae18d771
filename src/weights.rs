//! A weight packed once, for callers who use it many times.

use crate::context::{Backend, Context};
use crate::conv2d::Conv2d;
use crate::error::{Error, Result};
use crate::run;
use crate::tensor::Input;
use crate::vulkan::Block;

/// A weight in the order that the kernels of a device read, for forward and backward calls.
///
/// The order depends on the weight's shape and groups alone, so one serves every convolution that shares those.
pub struct Weights {
    context: Context,
    shape: [u64; 4],
    groups: u64,
    pub(crate) packed: Packed,
}

/// What a device keeps of a weight.
pub(crate) enum Packed {
    /// As it came, for kernels that read it so.
    Raw(Block),
    /// One order for forward, one for the input's gradient.
    Ordered { forward: Block, backward_input: Block },
    /// The CPU's copy.
    Cpu(Vec<f32>),
}

impl Weights {
    /// Packs a weight of the convolution's weight shape. Later changes of the raw weight do not show.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong shape, `OutOfDeviceMemory` or `OutOfHostMemory`.
    pub fn new(conv: &Conv2d, weight: Input<'_>) -> Result<Weights> {
        let context = conv.context().clone();
        let shape = conv.config().weight_shape();
        weight.check("weight", &shape, &context)?;
        let packed = match context.backend() {
            Backend::Vulkan(device) => run::vulkan::pack(&context, device, conv.config(), weight)?,
            Backend::Cpu(_) => Packed::Cpu(run::cpu::copied(&weight)?),
        };
        Ok(Weights { context, shape, groups: conv.config().groups, packed })
    }

    /// The context that it belongs to.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether it was packed for convolutions like this one.
    pub(crate) fn check(&self, conv: &Conv2d) -> Result<()> {
        let (shape, groups) = (conv.config().weight_shape(), conv.config().groups);
        if (self.shape, self.groups) != (shape, groups) {
            return Err(Error::invalid(format!(
                "the packed weight has shape {:?} and {} groups, expected {shape:?} and {groups}",
                self.shape, self.groups
            )));
        }
        if !self.context.is(conv.context()) {
            return Err(Error::invalid("the packed weight belongs to another context"));
        }
        Ok(())
    }
}
