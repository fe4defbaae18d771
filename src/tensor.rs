//! Views of arrays that the caller owns: strided host arrays, or ranges of buffers.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use ndarray::{ArrayViewD, ArrayViewMutD};

/// A contiguous float32 array in row-major order inside a buffer.
#[derive(Clone, Copy)]
pub struct DeviceTensor<'a> {
    buffer: &'a Buffer,
    offset: u64,
    shape: [u64; 4],
    rank: usize,
}

impl<'a> DeviceTensor<'a> {
    /// The array of the given shape (1 to 4 axes) from byte `offset` of a buffer on.
    ///
    /// # Errors
    /// `InvalidArgument` if `offset` is no multiple of 4, or the array does not fit into the buffer.
    pub fn new(buffer: &'a Buffer, offset: u64, shape: &[u64]) -> Result<DeviceTensor<'a>> {
        if shape.is_empty() || shape.len() > 4 {
            return Err(Error::invalid(format!("a tensor has {} axes, expected 1 to 4", shape.len())));
        }
        if buffer.is_of_host() {
            return Err(Error::invalid("the buffer is memory of the host: pass its address in a host tensor"));
        }
        if !offset.is_multiple_of(4) {
            return Err(Error::invalid(format!("offset is {offset}, expected a multiple of 4")));
        }
        let bytes = shape.iter().try_fold(4u64, |bytes, &size| bytes.checked_mul(size));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        if end.is_none_or(|end| end > buffer.bytes()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {shape:?} at offset {offset} does not fit into the buffer's {} bytes",
                buffer.bytes()
            )));
        }
        let mut sizes = [1; 4];
        sizes[..shape.len()].copy_from_slice(shape);
        Ok(DeviceTensor { buffer, offset, shape: sizes, rank: shape.len() })
    }

    /// The buffer.
    pub fn buffer(&self) -> &'a Buffer {
        self.buffer
    }

    /// Bytes from the buffer's start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape[..self.rank]
    }

    /// Bytes of the array.
    pub fn bytes(&self) -> u64 {
        4 * self.shape().iter().product::<u64>()
    }

    /// Refuses a tensor in another context's buffer.
    pub(crate) fn check_context(&self, name: &str, context: &crate::Context) -> Result<()> {
        if !self.buffer.context().is(context) {
            return Err(Error::invalid(format!("{name} lies in a buffer of another context")));
        }
        Ok(())
    }

    pub(crate) fn overlaps(&self, other: &DeviceTensor<'_>) -> bool {
        self.bytes() > 0
            && other.bytes() > 0
            && std::ptr::eq(self.buffer, other.buffer)
            && self.offset < other.offset + other.bytes()
            && other.offset < self.offset + self.bytes()
    }
}

/// An array that a call reads.
pub enum Input<'a> {
    /// In host memory, with any strides.
    Host(ArrayViewD<'a, f32>),
    /// On the device.
    Device(DeviceTensor<'a>),
}

/// An array that a call writes, and reads first where it accumulates.
pub enum Output<'a> {
    /// In host memory, with any strides.
    Host(ArrayViewMutD<'a, f32>),
    /// On the device.
    Device(DeviceTensor<'a>),
}

/// A tensor's shape, where it is.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    Host(&'a [usize]),
    Device(&'a [u64]),
}

impl Shape<'_> {
    /// The sizes, if there are so many.
    pub(crate) fn sizes<const RANK: usize>(self) -> Option<[u64; RANK]> {
        match self {
            Shape::Host(shape) => shape.try_into().ok().map(|sizes: [usize; RANK]| sizes.map(|size| size as u64)),
            Shape::Device(shape) => shape.try_into().ok(),
        }
    }

    pub(crate) fn is(self, expected: &[u64]) -> bool {
        match self {
            Shape::Host(shape) => shape.iter().map(|&size| size as u64).eq(expected.iter().copied()),
            Shape::Device(shape) => shape == expected,
        }
    }
}

impl std::fmt::Debug for Shape<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shape::Host(shape) => shape.fmt(f),
            Shape::Device(shape) => shape.fmt(f),
        }
    }
}

impl Input<'_> {
    pub(crate) fn shape(&self) -> Shape<'_> {
        match self {
            Input::Host(view) => Shape::Host(view.shape()),
            Input::Device(tensor) => Shape::Device(tensor.shape()),
        }
    }

    /// Checks the shape and, on the device, whose buffer it is.
    pub(crate) fn check(&self, name: &str, expected: &[u64], context: &crate::Context) -> Result<()> {
        check(name, self.shape(), expected)?;
        match self {
            Input::Device(tensor) => tensor.check_context(name, context),
            Input::Host(_) => Ok(()),
        }
    }
}

impl Output<'_> {
    pub(crate) fn shape(&self) -> Shape<'_> {
        match self {
            Output::Host(view) => Shape::Host(view.shape()),
            Output::Device(tensor) => Shape::Device(tensor.shape()),
        }
    }

    /// Checks the shape and, on the device, whose buffer it is.
    pub(crate) fn check(&self, name: &str, expected: &[u64], context: &crate::Context) -> Result<()> {
        check(name, self.shape(), expected)?;
        match self {
            Output::Device(tensor) => tensor.check_context(name, context),
            Output::Host(_) => Ok(()),
        }
    }
}

fn check(name: &str, shape: Shape<'_>, expected: &[u64]) -> Result<()> {
    if !shape.is(expected) {
        return Err(Error::invalid(format!("{name} has shape {shape:?}, expected {expected:?}")));
    }
    Ok(())
}

/// Refuses results on the device that overlap each other or an input. Host arrays cannot: Rust's borrows forbid it, and
/// the C API checks.
pub(crate) fn check_overlap(
    outputs: &[(&str, Option<&Output<'_>>)],
    inputs: &[(&str, Option<&Input<'_>>)],
) -> Result<()> {
    let written = outputs.iter().filter_map(|(name, output)| match output {
        Some(Output::Device(tensor)) => Some((*name, tensor)),
        _ => None,
    });
    let read = inputs.iter().filter_map(|(name, input)| match input {
        Some(Input::Device(tensor)) => Some((*name, tensor)),
        _ => None,
    });
    for (at, (name, output)) in written.clone().enumerate() {
        let mut others = written.clone().skip(at + 1).chain(read.clone());
        if let Some((other, _)) = others.find(|(_, other)| output.overlaps(other)) {
            return Err(Error::invalid(format!(
                "{name} overlaps {other} in their buffer; a result needs memory of its own"
            )));
        }
    }
    Ok(())
}
