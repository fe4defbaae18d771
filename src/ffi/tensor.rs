//! Tensors from C: checked, and turned into the views that the Rust API takes.

use super::call::Call;
use super::handle::{grilly_buffer, grilly_weights};
use super::types::*;
use super::{desc, size};
use crate::error::{Error, Result, Status};
use crate::{Accumulate, Backward, Buffer, DeviceTensor, Forward, Input, Output, Weight, Weights};
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn, ShapeBuilder};
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

const ELEMENT: u64 = size_of::<f32>() as u64;

/// Fills a tensor that views `bytes` bytes of host memory, contiguous and of the given shape.
///
/// # Safety
/// `tensor` is NULL or has `size` writable bytes; `shape` has `rank` readable elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_tensor_init_host(
    tensor: *mut grilly_tensor,
    size: usize,
    data: *mut c_void,
    bytes: u64,
    rank: i32,
    shape: *const i64,
) {
    // SAFETY: promised by the caller.
    let initial = grilly_tensor { data, bytes, ..unsafe { contiguous(rank, shape) } };
    // SAFETY: promised by the caller.
    unsafe { desc::init(tensor, size, initial) };
}

/// Fills a tensor that views a buffer from byte `offset` on, contiguous and of the given shape.
///
/// # Safety
/// `tensor` is NULL or has `size` writable bytes; `shape` has `rank` readable elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_tensor_init_device(
    tensor: *mut grilly_tensor,
    size: usize,
    buffer: *const grilly_buffer,
    offset: u64,
    rank: i32,
    shape: *const i64,
) {
    // SAFETY: promised by the caller.
    let initial = grilly_tensor { buffer, offset, ..unsafe { contiguous(rank, shape) } };
    // SAFETY: promised by the caller.
    unsafe { desc::init(tensor, size, initial) };
}

/// # Safety
/// `shape` is null or has `rank` readable elements.
unsafe fn contiguous(rank: i32, shape: *const i64) -> grilly_tensor {
    let mut tensor = grilly_tensor { rank, ..desc::zeroed() };
    if (1..=4).contains(&rank) && !shape.is_null() {
        let mut stride = 1i64;
        for axis in (0..rank as usize).rev() {
            // SAFETY: below rank.
            tensor.shape[axis] = unsafe { shape.add(axis).read_unaligned() };
            tensor.strides[axis] = stride;
            stride = stride.saturating_mul(tensor.shape[axis].max(1));
        }
    }
    tensor
}

/// Where a checked tensor's elements are.
enum Place {
    Device { buffer: Arc<Buffer>, offset: u64 },
    Host { first: *mut u8, addresses: Range<usize> },
}

/// A checked tensor.
struct Tensor {
    name: &'static str,
    rank: usize,
    /// Sizes of the axes, and elements from one to the next along each.
    shape: [u64; 4],
    strides: [i64; 4],
    place: Place,
    /// Stands in for misaligned host memory.
    aligned: Option<Vec<f32>>,
}

impl Tensor {
    fn new(call: &mut Call, raw: &grilly_tensor, name: &'static str) -> Result<Tensor> {
        if raw.dtype != GRILLY_DTYPE_F32 {
            return Err(Error::invalid(format!("{name}->dtype is {}, expected GRILLY_DTYPE_F32 (0)", raw.dtype)));
        }
        if !(1..=4).contains(&raw.rank) {
            return Err(Error::invalid(format!("{name}->rank is {}, expected 1 to 4", raw.rank)));
        }
        let rank = raw.rank as usize;
        let mut sizes = [0; 4];
        for (axis, to) in sizes[..rank].iter_mut().enumerate() {
            *to = size(raw.shape[axis], || format!("{name}->shape[{axis}]"))?;
        }
        let (shape, strides) = (&sizes[..rank], &raw.strides[..rank]);
        let elements = shape.iter().try_fold(ELEMENT, |bytes, &size| bytes.checked_mul(size));
        if elements.is_none_or(|bytes| bytes > isize::MAX as u64) {
            return Err(Error::invalid(format!("{name} of shape {shape:?} overflows 64-bit byte sizes")));
        }
        let place = match (raw.data.is_null(), raw.buffer.is_null()) {
            (false, false) => {
                return Err(Error::invalid(format!("{name} has both data and buffer, expected one of them")));
            }
            (true, false) => {
                let expected = &contiguous_strides(shape)[..rank];
                let differs = |axis: usize| shape[axis] > 1 && strides[axis] as i128 != i128::from(expected[axis]);
                if (0..rank).any(differs) && !shape.contains(&0) {
                    return Err(Error::invalid(format!(
                        "{name}->strides are {strides:?}, expected {expected:?}: device tensors are contiguous"
                    )));
                }
                Place::Device { buffer: call.get(raw.buffer)?, offset: raw.offset }
            }
            (true, true) if !shape.contains(&0) => {
                return Err(Error::invalid(format!("{name} has neither data nor buffer, expected one of them")));
            }
            (_, true) => host_place(raw, name, shape, strides)?,
        };
        Ok(Tensor { name, rank, shape: sizes, strides: raw.strides, place, aligned: None })
    }

    fn shape(&self) -> &[u64] {
        &self.shape[..self.rank]
    }

    fn strides(&self) -> &[i64] {
        &self.strides[..self.rank]
    }

    fn elements(&self) -> usize {
        self.shape().iter().product::<u64>() as usize
    }

    fn device<'a>(&self, buffer: &'a Buffer, offset: u64) -> Result<DeviceTensor<'a>> {
        DeviceTensor::new(buffer, offset, self.shape())
            .map_err(|error| Error::new(error.status(), format!("{}: {}", self.name, error.message())))
    }

    /// The address of every element of a host tensor, in row-major order.
    fn addresses(&self, first: *mut u8) -> impl Iterator<Item = *mut u8> + use<'_> {
        let mut index = [0u64; 4];
        (0..self.elements()).map(move |_| {
            let offset: i64 = index.iter().zip(self.strides()).map(|(&at, &stride)| at as i64 * stride).sum();
            for axis in (0..self.rank).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
            first.wrapping_offset(offset as isize * size_of::<f32>() as isize)
        })
    }

    /// Brings misaligned host memory into an aligned copy.
    fn align(&mut self) -> Result<()> {
        let Place::Host { first, .. } = self.place else { return Ok(()) };
        if first.cast::<f32>().is_aligned() || self.elements() == 0 {
            return Ok(());
        }
        let mut values = Vec::new();
        values.try_reserve_exact(self.elements()).map_err(|_| {
            Error::new(Status::OutOfHostMemory, format!("no host memory for an aligned copy of {}", self.name))
        })?;
        // SAFETY: host_place checked that every element lies in the caller's memory.
        values.extend(self.addresses(first).map(|address| unsafe { address.cast::<f32>().read_unaligned() }));
        self.aligned = Some(values);
        Ok(())
    }

    fn view(&self) -> Result<Input<'_>> {
        if let Some(values) = &self.aligned {
            return ArrayViewD::from_shape(self.row_major(), values).map(Input::Host).map_err(internal);
        }
        Ok(match &self.place {
            Place::Device { buffer, offset } => Input::Device(self.device(buffer, *offset)?),
            Place::Host { first, .. } => {
                let (pointer, shape, inverted) = self.layout(first.cast::<f32>());
                // SAFETY: host_place checked that every element lies in the caller's memory, and `align` that it is
                // aligned; the caller leaves it alone during the call.
                let mut view = unsafe { ArrayViewD::from_shape_ptr(shape, pointer.cast_const()) };
                inverted.for_each(|axis| view.invert_axis(axis));
                Input::Host(view)
            }
        })
    }

    fn view_mut(&mut self) -> Result<Output<'_>> {
        let shape = self.row_major();
        if self.aligned.is_some() {
            let values = self.aligned.as_deref_mut().unwrap_or_default();
            return ArrayViewMutD::from_shape(shape, values).map(Output::Host).map_err(internal);
        }
        Ok(match &self.place {
            Place::Device { buffer, offset } => Output::Device(self.device(buffer, *offset)?),
            Place::Host { first, .. } => {
                let (pointer, shape, inverted) = self.layout(first.cast::<f32>());
                // SAFETY: as in `view`; and check_outputs refused elements that overlap each other or other tensors.
                let mut view = unsafe { ArrayViewMutD::from_shape_ptr(shape, pointer) };
                inverted.for_each(|axis| view.invert_axis(axis));
                Output::Host(view)
            }
        })
    }

    fn row_major(&self) -> IxDyn {
        IxDyn(&self.shape.map(|size| size as usize)[..self.rank])
    }

    /// ndarray wants non-negative strides: start at the lowest address, and turn those axes round afterwards.
    fn layout(&self, first: *mut f32) -> (*mut f32, ndarray::StrideShape<IxDyn>, impl Iterator<Item = Axis> + use<'_>) {
        let mut pointer = if self.elements() == 0 { std::ptr::dangling_mut() } else { first };
        let mut strides = [0; 4];
        if self.elements() > 0 {
            for ((&size, &stride), to) in self.shape().iter().zip(self.strides()).zip(&mut strides) {
                if stride < 0 {
                    pointer = pointer.wrapping_offset((size as i64 - 1) as isize * stride as isize);
                }
                *to = stride.unsigned_abs() as usize;
            }
        }
        let inverted = self.strides().iter().enumerate().filter(|(_, stride)| **stride < 0).map(|(axis, _)| Axis(axis));
        (pointer, self.row_major().strides(IxDyn(&strides[..self.rank])), inverted)
    }

    /// Writes an aligned copy back to where it came from.
    fn finish(&self) {
        if let (Place::Host { first, .. }, Some(values)) = (&self.place, &self.aligned) {
            for (address, value) in self.addresses(*first).zip(values) {
                // SAFETY: host_place checked that every element lies in the caller's memory.
                unsafe { address.cast::<f32>().write_unaligned(*value) };
            }
        }
    }
}

fn internal(error: ndarray::ShapeError) -> Error {
    Error::new(Status::Internal, error.to_string())
}

fn contiguous_strides(shape: &[u64]) -> [u64; 4] {
    let mut stride = 1u64;
    let mut strides = [0; 4];
    for axis in (0..shape.len()).rev() {
        strides[axis] = stride;
        stride = stride.saturating_mul(shape[axis].max(1));
    }
    strides
}

/// Checks that every element lies within the caller's bytes.
fn host_place(raw: &grilly_tensor, name: &str, shape: &[u64], strides: &[i64]) -> Result<Place> {
    let (mut lowest, mut highest) = (i128::from(raw.offset), i128::from(raw.offset) + i128::from(ELEMENT));
    if shape.contains(&0) {
        highest = lowest;
    } else {
        for (&size, &stride) in shape.iter().zip(strides) {
            let reach = (i128::from(size) - 1).saturating_mul(i128::from(stride)).saturating_mul(i128::from(ELEMENT));
            lowest = lowest.saturating_add(reach.min(0));
            highest = highest.saturating_add(reach.max(0));
        }
        if lowest < 0 || highest > i128::from(raw.bytes) || raw.bytes > isize::MAX as u64 {
            return Err(Error::invalid(format!(
                "{name} of shape {shape:?} and strides {strides:?} reaches bytes {lowest} to {highest}, \
                 expected within its {} bytes",
                raw.bytes
            )));
        }
    }
    let start = raw.data as usize;
    Ok(Place::Host {
        first: raw.data.cast::<u8>().wrapping_add(raw.offset as usize),
        addresses: start.wrapping_add(lowest as usize)..start.wrapping_add(highest as usize),
    })
}

/// A tensor that is only read.
pub struct ReadTensor(Tensor);

impl ReadTensor {
    /// # Safety
    /// A host tensor has the bytes that it claims, and nothing writes them while this lives.
    pub unsafe fn new(call: &mut Call, raw: &grilly_tensor, name: &'static str) -> Result<ReadTensor> {
        let mut tensor = Tensor::new(call, raw, name)?;
        tensor.align()?;
        Ok(ReadTensor(tensor))
    }

    /// As the Rust API takes it.
    pub fn input(&self) -> Result<Input<'_>> {
        self.0.view()
    }
}

/// A tensor that must lie in a buffer.
pub struct BufferTensor {
    tensor: Tensor,
    buffer: Arc<Buffer>,
    offset: u64,
}

impl BufferTensor {
    /// The tensor, or `None` for NULL.
    ///
    /// # Safety
    /// `raw` is null or initialised.
    pub unsafe fn read(call: &mut Call, raw: *const grilly_tensor, name: &'static str) -> Result<Option<BufferTensor>> {
        if raw.is_null() {
            return Ok(None);
        }
        // SAFETY: promised by the caller.
        let tensor = Tensor::new(call, &unsafe { desc::read(raw, name) }?, name)?;
        let Place::Device { buffer, offset } = &tensor.place else {
            return Err(Error::invalid(format!("{name} lies in host memory, expected a buffer")));
        };
        Ok(Some(BufferTensor { buffer: buffer.clone(), offset: *offset, tensor }))
    }

    /// As the Rust API takes it.
    pub fn view(&self) -> Result<DeviceTensor<'_>> {
        self.tensor.device(&self.buffer, self.offset)
    }
}

/// All tensors of one call.
pub struct IoTensors {
    x: Option<Tensor>,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    y: Option<Tensor>,
    dy: Option<Tensor>,
    dx: Option<Tensor>,
    dweight: Option<Tensor>,
    dbias: Option<Tensor>,
    prepared: Option<Arc<Weights>>,
    accumulate: Accumulate,
}

impl IoTensors {
    /// # Safety
    /// `io` is null or initialised, and its host tensors have the bytes that they claim, used by nobody else while
    /// this lives.
    pub unsafe fn read(call: &mut Call, io: *const grilly_conv2d_io) -> Result<IoTensors> {
        // SAFETY: promised by the caller.
        let io = unsafe { desc::read(io, "io") }?;
        if io.flags & !(GRILLY_ACCUMULATE_INPUT | GRILLY_ACCUMULATE_PARAMETERS) != 0 || io.reserved != 0 {
            return Err(Error::invalid(format!(
                "io->flags is {:#x} and io->reserved {}, expected GRILLY_ACCUMULATE_* bits, and 0",
                io.flags, io.reserved
            )));
        }
        let mut tensor = |pointer: *const grilly_tensor, name: &'static str| -> Result<Option<Tensor>> {
            if pointer.is_null() {
                return Ok(None);
            }
            // SAFETY: promised by the caller.
            Tensor::new(call, &unsafe { desc::read(pointer, name) }?, name).map(Some)
        };
        let (x, weight, bias) = (tensor(io.x, "x")?, tensor(io.weight, "weight")?, tensor(io.bias, "bias")?);
        let (y, dy, dx) = (tensor(io.y, "y")?, tensor(io.dy, "dy")?, tensor(io.dx, "dx")?);
        let (dweight, dbias) = (tensor(io.dweight, "dweight")?, tensor(io.dbias, "dbias")?);
        let prepared = if io.prepared.is_null() { None } else { Some(call.get::<grilly_weights>(io.prepared)?) };
        let accumulate = Accumulate {
            input: io.flags & GRILLY_ACCUMULATE_INPUT != 0,
            parameters: io.flags & GRILLY_ACCUMULATE_PARAMETERS != 0,
        };
        Ok(IoTensors { x, weight, bias, y, dy, dx, dweight, dbias, prepared, accumulate })
    }

    /// The tensors of a forward call; gradients are ignored.
    pub fn forward(&mut self) -> Result<Forward<'_>> {
        let weight = weight_tensor(&self.weight, &self.prepared)?;
        check_outputs([&self.y], [&self.x, weight, &self.bias])?;
        align([&mut self.x, &mut self.weight, &mut self.bias, &mut self.y])?;
        let y = self.y.as_mut().ok_or_else(|| missing("y"))?;
        Ok(Forward {
            x: required(&self.x, "x")?.view()?,
            weight: weight_view(&self.weight, &self.prepared)?.ok_or_else(|| missing("weight"))?,
            bias: self.bias.as_ref().map(Tensor::view).transpose()?,
            y: y.view_mut()?,
        })
    }

    /// The tensors of a backward call; `y` and `bias` are ignored.
    pub fn backward(&mut self) -> Result<Backward<'_>> {
        let weight = weight_tensor(&self.weight, &self.prepared)?;
        check_outputs([&self.dx, &self.dweight, &self.dbias], [&self.x, weight, &self.dy])?;
        align([&mut self.x, &mut self.weight, &mut self.dy, &mut self.dx, &mut self.dweight, &mut self.dbias])?;
        Ok(Backward {
            x: self.x.as_ref().map(Tensor::view).transpose()?,
            weight: weight_view(&self.weight, &self.prepared)?,
            dy: required(&self.dy, "dy")?.view()?,
            dx: self.dx.as_mut().map(Tensor::view_mut).transpose()?,
            dweight: self.dweight.as_mut().map(Tensor::view_mut).transpose()?,
            dbias: self.dbias.as_mut().map(Tensor::view_mut).transpose()?,
            accumulate: self.accumulate,
        })
    }

    /// Writes results back to misaligned host memory.
    pub fn finish(&self) -> Result<()> {
        [&self.y, &self.dx, &self.dweight, &self.dbias].into_iter().flatten().for_each(Tensor::finish);
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("io->{name} is NULL, but this call needs it"))
}

fn required<'a>(tensor: &'a Option<Tensor>, name: &str) -> Result<&'a Tensor> {
    tensor.as_ref().ok_or_else(|| missing(name))
}

fn weight_tensor<'a>(raw: &'a Option<Tensor>, prepared: &Option<Arc<Weights>>) -> Result<&'a Option<Tensor>> {
    if raw.is_some() && prepared.is_some() {
        return Err(Error::invalid("io has both weight and prepared, expected one of them"));
    }
    Ok(raw)
}

fn weight_view<'a>(raw: &'a Option<Tensor>, prepared: &'a Option<Arc<Weights>>) -> Result<Option<Weight<'a>>> {
    Ok(match (raw, prepared) {
        (_, Some(prepared)) => Some(Weight::Packed(prepared)),
        (Some(raw), None) => Some(Weight::Raw(raw.view()?)),
        (None, None) => None,
    })
}

fn align<const N: usize>(tensors: [&mut Option<Tensor>; N]) -> Result<()> {
    tensors.into_iter().flatten().try_for_each(Tensor::align)
}

/// Refuses results in host memory that overlap each other, another tensor, or themselves. Those on the device are
/// checked by the Rust API.
fn check_outputs<const N: usize, const M: usize>(
    outputs: [&Option<Tensor>; N],
    inputs: [&Option<Tensor>; M],
) -> Result<()> {
    let host = |tensor: &Tensor| match &tensor.place {
        Place::Host { addresses, .. } => Some(addresses.clone()),
        Place::Device { .. } => None,
    };
    for (position, output) in outputs.iter().enumerate() {
        let Some(output) = output else { continue };
        let Some(range) = host(output) else { continue };
        if output.elements() == 0 {
            continue;
        }
        let others = outputs[position + 1..].iter().chain(&inputs).filter_map(|other| other.as_ref());
        for other in others {
            if host(other).is_some_and(|theirs| range.start < theirs.end && theirs.start < range.end) {
                return Err(Error::invalid(format!(
                    "{} overlaps {} in host memory; a result needs memory of its own",
                    output.name, other.name
                )));
            }
        }
        let mut axes = [(0, 1); 4];
        for (axis, (&size, &stride)) in axes.iter_mut().zip(output.shape().iter().zip(output.strides())) {
            *axis = (stride.unsigned_abs(), size);
        }
        axes.sort_unstable();
        let mut reach = 0u64;
        for (stride, size) in axes.into_iter().filter(|(_, size)| *size > 1) {
            if stride <= reach {
                return Err(Error::invalid(format!(
                    "{}->strides are {:?}, so elements of the result overlap",
                    output.name,
                    output.strides()
                )));
            }
            reach += stride * (size - 1);
        }
    }
    Ok(())
}
