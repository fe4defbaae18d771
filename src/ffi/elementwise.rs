//! Element-wise operations on device tensors.

use super::call::call;
use super::handle::grilly_context;
use super::tensor::BufferTensor;
use super::types::*;
use crate::error::{Error, Result};
use crate::{Elementwise, ElementwiseOp};

/// `out = op(a, alpha · b)`, and waits for it; `op` is one of `GRILLY_OP_*`. `a` or `b` may be NULL: `alpha` stands in
/// its place then, and is no factor.
///
/// All tensors lie in buffers of `context`. `a` and `b` broadcast to the shape of `out` as NumPy's arrays do: their
/// sizes, counted from the last axis, are 1 or those of `out`. `out` may be the same memory as `a` or `b`, to work in
/// place; it may not overlap them otherwise.
///
/// `alpha · b` is rounded before the operation. With `alpha` 1, sums, differences, products, maxima and minima are the
/// IEEE 754 results, bit by bit; a GPU may take subnormal operands and results of arithmetic for zeros, and its
/// quotients are within 2.5 units in the last place.
///
/// # Safety
/// `a` and `b` are NULL or initialised; `out` is initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_elementwise(
    context: *const grilly_context,
    op: i32,
    a: *const grilly_tensor,
    b: *const grilly_tensor,
    alpha: f32,
    out: *const grilly_tensor,
) -> grilly_status {
    call(|call| {
        let context = call.get(context)?;
        let op = operation(op)?;
        // SAFETY: promised by the caller.
        let (a, b, out) = unsafe {
            (
                BufferTensor::read(call, a, "a")?,
                BufferTensor::read(call, b, "b")?,
                BufferTensor::read(call, out, "out")?
                    .ok_or_else(|| Error::invalid("out is NULL, expected a tensor"))?,
            )
        };
        context.elementwise(&Elementwise {
            op,
            a: a.as_ref().map(BufferTensor::view).transpose()?,
            b: b.as_ref().map(BufferTensor::view).transpose()?,
            alpha,
            out: out.view()?,
        })
    })
}

fn operation(op: i32) -> Result<ElementwiseOp> {
    Ok(match op {
        GRILLY_OP_COPY => ElementwiseOp::Copy,
        GRILLY_OP_ADD => ElementwiseOp::Add,
        GRILLY_OP_SUBTRACT => ElementwiseOp::Subtract,
        GRILLY_OP_MULTIPLY => ElementwiseOp::Multiply,
        GRILLY_OP_DIVIDE => ElementwiseOp::Divide,
        GRILLY_OP_MAXIMUM => ElementwiseOp::Maximum,
        GRILLY_OP_MINIMUM => ElementwiseOp::Minimum,
        GRILLY_OP_RELU_BACKWARD => ElementwiseOp::ReluBackward,
        other => return Err(Error::invalid(format!("op is {other}, expected GRILLY_OP_* (0 to 7)"))),
    })
}
