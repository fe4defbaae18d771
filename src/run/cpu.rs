//! Passes on the CPU device: tensors become contiguous slices, by copy only where they are not.

use crate::broadcast::{Broadcast, Source};
use crate::buffer::Storage;
use crate::conv2d::{Backward, Forward, Weight};
use crate::cpu;
use crate::elementwise::Elementwise;
use crate::error::{Error, Result, Status};
use crate::problem::{Pass, Problem};
use crate::tensor::{DeviceTensor, Input, Output};
use crate::weights::Packed;
use ndarray::{ArrayViewD, ArrayViewMutD};
use std::borrow::Cow;
use std::ops::Range;

pub fn forward(machine: &cpu::Machine, problem: &Problem, call: Forward<'_>) -> Result<()> {
    let Forward { x, weight, bias, mut y } = call;
    let bias = bias.as_ref().map(contiguous).transpose()?;
    let (x, weight) = (contiguous(&x)?, weight_values(&weight)?);
    let mut result = Target::new(&mut y, false)?;
    correlate(machine, problem, &x, &weight, bias.as_deref(), result.values())?;
    result.finish();
    Ok(())
}

/// A pass from activations to activations. A transposed convolution takes either for the other: see [`Problem`].
fn correlate(
    machine: &cpu::Machine,
    problem: &Problem,
    source: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    result: &mut [f32],
) -> Result<()> {
    match problem.pass {
        Pass::BackwardInput => cpu::backward_input(machine, problem, source, weight, bias, result),
        _ => cpu::forward(machine, problem, source, weight, bias, result),
    }
}

pub fn backward(machine: &cpu::Machine, problems: &[Option<Problem>; 2], call: Backward<'_>) -> Result<()> {
    let Backward { x, weight, dy, mut dx, mut dweight, mut dbias, accumulate } = call;
    let dy = contiguous(&dy)?;
    let [input_gradient, parameters] = problems;
    if let (Some(problem), Some(dx), Some(weight)) = (input_gradient, &mut dx, &weight) {
        let mut result = Target::new(dx, accumulate.input)?;
        correlate(machine, problem, &dy, &weight_values(weight)?, None, result.values())?;
        result.finish();
    }
    if let Some(problem) = parameters {
        // The bias's gradient alone reads no input.
        let x = x.as_ref().filter(|_| dweight.is_some()).map(contiguous).transpose()?.unwrap_or_default();
        let mut dweight = dweight.as_mut().map(|result| Target::new(result, accumulate.parameters)).transpose()?;
        let mut dbias = dbias.as_mut().map(|result| Target::new(result, accumulate.parameters)).transpose()?;
        let (weight_values, bias_values) = (dweight.as_mut().map(Target::values), dbias.as_mut().map(Target::values));
        let (x, dy) = if problem.transposed { (&dy, &x) } else { (&x, &dy) };
        cpu::backward_weight(machine, problem, x, dy, weight_values, bias_values)?;
        [dweight, dbias].into_iter().flatten().for_each(Target::finish);
    }
    Ok(())
}

pub fn elementwise(machine: &cpu::Machine, problem: &Broadcast, call: &Elementwise<'_>) -> Result<()> {
    let (a, b) = (operand(problem.a, &call.a)?, operand(problem.b, &call.b)?);
    let (memory, range) = memory_of(&call.out)?;
    // SAFETY: as in `contiguous`: this range is this call's alone.
    cpu::elementwise(machine, problem, a, b, unsafe { memory.floats_mut(range) })
}

/// An operand's own memory. What is the result's is read through the result.
fn operand<'a>(source: Source, tensor: &Option<DeviceTensor<'a>>) -> Result<&'a [f32]> {
    match tensor {
        Some(tensor) if source != Source::Result => {
            let (memory, range) = memory_of(tensor)?;
            // SAFETY: as in `contiguous`: nobody writes the range during this call, whose result does not overlap it.
            Ok(unsafe { memory.floats(range) })
        }
        _ => Ok(&[]),
    }
}

fn weight_values<'a>(weight: &'a Weight<'_>) -> Result<Cow<'a, [f32]>> {
    match weight {
        Weight::Raw(raw) => contiguous(raw),
        Weight::Packed(weights) => match &weights.packed {
            Packed::Cpu(values) => Ok(Cow::Borrowed(values)),
            Packed::Raw(_) | Packed::Ordered { .. } => Err(not_here()),
        },
    }
}

/// The elements in row-major order, copied only where they are not so already.
pub fn contiguous<'a>(input: &'a Input<'_>) -> Result<Cow<'a, [f32]>> {
    match input {
        Input::Device(tensor) => {
            let (memory, range) = memory_of(tensor)?;
            // SAFETY: the buffer's contract: nobody writes the range during this call, and `check_overlap` saw to it
            // that this call does not either.
            Ok(Cow::Borrowed(unsafe { memory.floats(range) }))
        }
        Input::Host(view) => match view.as_slice() {
            Some(values) => Ok(Cow::Borrowed(values)),
            None => Ok(Cow::Owned(gathered(view.view())?)),
        },
    }
}

/// The elements in row-major order, in memory of their own.
pub fn copied(input: &Input<'_>) -> Result<Vec<f32>> {
    let from = contiguous(input)?;
    let mut values = zeros(from.len())?;
    values.copy_from_slice(&from);
    Ok(values)
}

/// Where a result is computed: in place, or in a copy that is written back.
enum Target<'a, 'b> {
    InPlace(&'a mut [f32]),
    Copied { values: Vec<f32>, view: &'a mut ArrayViewMutD<'b, f32> },
}

impl<'a, 'b> Target<'a, 'b> {
    fn new(output: &'a mut Output<'b>, accumulate: bool) -> Result<Target<'a, 'b>> {
        match output {
            Output::Device(tensor) => {
                let (memory, range) = memory_of(tensor)?;
                // SAFETY: as in `contiguous`: this range is this call's alone.
                Ok(Target::InPlace(unsafe { memory.floats_mut(range) }))
            }
            Output::Host(view) => {
                if view.is_standard_layout() {
                    return view.as_slice_mut().map(Target::InPlace).ok_or_else(not_here);
                }
                let values = if accumulate { gathered(view.view())? } else { zeros(view.len())? };
                Ok(Target::Copied { values, view })
            }
        }
    }

    fn values(&mut self) -> &mut [f32] {
        match self {
            Target::InPlace(values) => values,
            Target::Copied { values, .. } => values,
        }
    }

    fn finish(self) {
        if let Target::Copied { values, view } = self
            && let Ok(from) = ArrayViewD::from_shape(view.raw_dim(), &values)
        {
            view.assign(&from);
        }
    }
}

fn memory_of<'a>(tensor: &DeviceTensor<'a>) -> Result<(&'a cpu::Memory, Range<usize>)> {
    let Storage::Cpu(memory) = tensor.buffer().storage() else { return Err(not_here()) };
    let begin = (tensor.offset() / 4) as usize;
    Ok((memory, begin..begin + (tensor.bytes() / 4) as usize))
}

fn gathered(view: ArrayViewD<'_, f32>) -> Result<Vec<f32>> {
    let mut values = zeros(view.len())?;
    contiguous_view(&view, &mut values)?.assign(&view);
    Ok(values)
}

fn contiguous_view<'a>(like: &ArrayViewD<'_, f32>, values: &'a mut [f32]) -> Result<ArrayViewMutD<'a, f32>> {
    ArrayViewMutD::from_shape(like.raw_dim(), values).map_err(|_| not_here())
}

fn zeros(length: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(length)
        .map_err(|_| Error::new(Status::OutOfHostMemory, format!("no host memory for a copy of {length} elements")))?;
    values.resize(length, 0.0);
    Ok(values)
}

fn not_here() -> Error {
    Error::new(Status::Internal, "a tensor's memory is not this device's")
}
