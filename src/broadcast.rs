//! One element-wise operation over arrays that broadcast: pure arithmetic, no device.

use crate::error::{Error, Result};

/// What is computed of each pair of elements.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementwiseOp {
    /// `a`.
    Copy = 0,
    /// `a + b`.
    Add = 1,
    /// `a - b`.
    Subtract = 2,
    /// `a · b`.
    Multiply = 3,
    /// `a / b`.
    Divide = 4,
    /// The larger one; NaN if either is, and +0 is larger than -0.
    Maximum = 5,
    /// The smaller one; NaN if either is, and -0 is smaller than +0.
    Minimum = 6,
    /// 0 where `b <= 0`, else `a`: the gradient of `maximum(x, 0)`, given `a`, that of its result, and `b`, its result.
    ReluBackward = 7,
}

/// Where one operand of each element comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The scalar.
    Scalar,
    /// An array of the result's shape.
    Element,
    /// An array with these strides, in elements; 0 along the axes where its one element serves all.
    Broadcast([u64; 4]),
    /// The result's own memory: what it held before.
    Result,
}

/// An operation with all its sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// What is computed.
    pub op: ElementwiseOp,
    /// The scalar in place of an array that is absent, or else a factor of `b`.
    pub alpha: f32,
    /// Shape of the result; 1 for axes that it does not have.
    pub shape: [u64; 4],
    /// First operand.
    pub a: Source,
    /// Second operand.
    pub b: Source,
}

impl Broadcast {
    /// Elements of the result.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// What `b` is multiplied with before anything else; `None` if with nothing.
    pub fn factor(&self) -> Option<f32> {
        (self.a != Source::Scalar && self.b != Source::Scalar && self.alpha != 1.0).then_some(self.alpha)
    }
}

impl Source {
    /// Elements of the array behind it, given a result that is not empty.
    pub fn elements(&self, shape: [u64; 4]) -> u64 {
        match self {
            Source::Scalar => 0,
            Source::Element | Source::Result => shape.iter().product(),
            Source::Broadcast(strides) => 1 + (0..4).map(|axis| (shape[axis] - 1) * strides[axis]).sum::<u64>(),
        }
    }
}

/// The four sizes of an array of up to four axes, aligned at the innermost one.
pub fn aligned(shape: &[u64]) -> [u64; 4] {
    let mut sizes = [1; 4];
    sizes[4 - shape.len()..].copy_from_slice(shape);
    sizes
}

/// How an array is read for every element of a result.
///
/// # Errors
/// `InvalidArgument` if some axis is neither 1 nor the result's.
pub fn source(name: &str, array: &[u64], result: &[u64]) -> Result<Source> {
    let (sizes, shape) = (aligned(array), aligned(result));
    if array.len() > result.len() || (0..4).any(|axis| sizes[axis] != 1 && sizes[axis] != shape[axis]) {
        return Err(Error::invalid(format!(
            "{name} has shape {array:?}, which does not broadcast to out's {result:?}: each size, counted from the \
             last, must be 1 or out's"
        )));
    }
    if sizes == shape {
        return Ok(Source::Element);
    }
    let mut strides = [0; 4];
    let mut stride = 1;
    for axis in (0..4).rev() {
        if sizes[axis] > 1 {
            strides[axis] = stride;
        }
        stride *= sizes[axis];
    }
    Ok(Source::Broadcast(strides))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_aligned_at_the_innermost_and_repeat_where_their_size_is_1() {
        let cases: [(&[u64], &[u64], Source); 6] = [
            (&[5, 6], &[5, 6], Source::Element),
            (&[6], &[1, 6], Source::Element),
            (&[6], &[2, 5, 6], Source::Broadcast([0, 0, 0, 1])),
            (&[4, 1, 1], &[2, 4, 5, 6], Source::Broadcast([0, 1, 0, 0])),
            (&[2, 1, 5, 1], &[2, 4, 5, 6], Source::Broadcast([5, 0, 1, 0])),
            (&[4, 1], &[4, 0], Source::Broadcast([0, 0, 1, 0])),
        ];
        for (array, result, expected) in cases {
            assert_eq!(source("a", array, result).expect("legal"), expected, "{array:?} to {result:?}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let cases: [(&[u64], &[u64]); 4] = [(&[3], &[4]), (&[2, 4], &[4]), (&[1, 4], &[4]), (&[0], &[1])];
        for (array, result) in cases {
            let error = source("b", array, result).expect_err("does not broadcast");
            assert!(error.message().starts_with("b has shape"), "{error}");
        }
    }
}
