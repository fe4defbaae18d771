//! Element-wise operations on device tensors: checked, then run.

use crate::broadcast::{Broadcast, Source, aligned, source};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::run;
use crate::tensor::DeviceTensor;

pub use crate::broadcast::ElementwiseOp;

/// One element-wise operation: `out = op(a, alpha · b)`.
#[derive(Clone, Copy)]
pub struct Elementwise<'a> {
    /// What is computed of each pair of elements.
    pub op: ElementwiseOp,
    /// First operand; `None`: `alpha` in its place.
    pub a: Option<DeviceTensor<'a>>,
    /// Second operand; `None`: `alpha` in its place.
    pub b: Option<DeviceTensor<'a>>,
    /// In place of an absent operand; where both are there, a factor of `b`, rounded before the operation.
    pub alpha: f32,
    /// The result. `a` and `b` broadcast to its shape, as in NumPy. It may be the very memory of either, in place.
    pub out: DeviceTensor<'a>,
}

impl Context {
    /// Computes an element-wise operation on tensors of this context, and waits for it.
    ///
    /// # Errors
    /// `InvalidArgument` for shapes that do not broadcast, tensors of another context, an `out` that overlaps an
    /// operand without being the same, and operands that the operation does not have; `Unsupported` beyond the
    /// device's reach.
    pub fn elementwise(&self, call: &Elementwise<'_>) -> Result<()> {
        let problem = self.check_elementwise(call)?;
        if problem.elements() == 0 {
            return Ok(());
        }
        run::elementwise::run(self, &problem, call)
    }

    fn check_elementwise(&self, call: &Elementwise<'_>) -> Result<Broadcast> {
        let Elementwise { op, a, b, alpha, out } = *call;
        match (op, a.is_some(), b.is_some()) {
            (ElementwiseOp::Copy, _, true) => Err(Error::invalid("b is given, but a copy reads only a")),
            (ElementwiseOp::Copy, _, false) | (_, true, _) | (_, _, true) => Ok(()),
            (op, false, false) => Err(Error::invalid(format!("a and b are both absent; {op:?} needs one of them"))),
        }?;
        out.check_context("out", self)?;
        let operand = |name: &str, tensor: Option<DeviceTensor<'_>>| {
            let Some(tensor) = tensor else { return Ok(Source::Scalar) };
            tensor.check_context(name, self)?;
            let found = source(name, tensor.shape(), out.shape())?;
            if !out.overlaps(&tensor) {
                return Ok(found);
            }
            if found == Source::Element && tensor.offset() == out.offset() {
                return Ok(Source::Result);
            }
            Err(Error::invalid(format!(
                "out overlaps {name} in their buffer, expected the very same memory or none of it"
            )))
        };
        Ok(Broadcast { op, alpha, shape: aligned(out.shape()), a: operand("a", a)?, b: operand("b", b)? })
    }
}
