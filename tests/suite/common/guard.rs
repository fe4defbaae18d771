//! Tensors that lie between guard bands, so that a stray write (or a stray read) shows.

use grilly::{Buffer, Context, DeviceTensor, Input, Output};
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn, ShapeBuilder};
use std::ops::Range;

/// A NaN with a bit pattern of its own: whoever reads it poisons a result, whoever overwrites it is found out.
const POISON: f32 = f32::from_bits(0x7fc5_a5a5);

/// Elements before and after each tensor; odd, so that tensors begin on no boundary.
const GUARD: usize = 37;

/// How a host tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Contiguous,
    /// N, H, W, C in memory.
    ChannelsLast,
    /// The axes in reverse order.
    Transposed,
    /// Every third element of rows that have a gap between them.
    Gapped,
    /// Contiguous, but every axis runs backwards.
    Reversed,
}

pub const LAYOUTS: [Layout; 5] =
    [Layout::Contiguous, Layout::ChannelsLast, Layout::Transposed, Layout::Gapped, Layout::Reversed];

/// Where a tensor of a call lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Host(Layout),
    Device,
}

/// A tensor on the host.
pub struct HostTensor {
    backing: Vec<f32>,
    shape: Vec<usize>,
    strides: Vec<usize>,
    reversed: bool,
}

impl HostTensor {
    fn new(shape: &[usize], layout: Layout) -> HostTensor {
        let mut order: Vec<usize> = (0..shape.len()).collect();
        match layout {
            Layout::ChannelsLast if shape.len() == 4 => order = vec![0, 2, 3, 1],
            Layout::Transposed => order.reverse(),
            _ => {}
        }
        let (mut step, gap) = if layout == Layout::Gapped { (3, 5) } else { (1, 0) };
        let mut strides = vec![0; shape.len()];
        for (place, &axis) in order.iter().rev().enumerate() {
            strides[axis] = step;
            step = step * shape[axis] + if place == 0 { gap } else { 0 };
        }
        // ndarray wants memory for the other axes even if one is empty.
        let extent =
            1 + shape.iter().zip(&strides).map(|(&size, stride)| size.saturating_sub(1) * stride).sum::<usize>();
        let backing = vec![POISON; GUARD + extent + GUARD];
        HostTensor { backing, shape: shape.to_vec(), strides, reversed: layout == Layout::Reversed }
    }

    fn view(&self) -> ArrayViewD<'_, f32> {
        let shape = IxDyn(&self.shape).strides(IxDyn(&self.strides));
        let inside = &self.backing[GUARD..self.backing.len() - GUARD];
        let mut view = ArrayViewD::from_shape(shape, inside).expect("the backing covers the view");
        if self.reversed {
            (0..self.shape.len()).for_each(|axis| view.invert_axis(Axis(axis)));
        }
        view
    }

    fn view_mut(&mut self) -> ArrayViewMutD<'_, f32> {
        let shape = IxDyn(&self.shape).strides(IxDyn(&self.strides));
        let end = self.backing.len() - GUARD;
        let mut view = ArrayViewMutD::from_shape(shape, &mut self.backing[GUARD..end]).expect("and no strides overlap");
        if self.reversed {
            (0..self.shape.len()).for_each(|axis| view.invert_axis(Axis(axis)));
        }
        view
    }

    /// The values, if nothing around them was touched.
    fn take(mut self) -> Result<Vec<f32>, String> {
        let values = self.view().iter().copied().collect();
        self.view_mut().fill(POISON);
        match self.backing.iter().position(|value| value.to_bits() != POISON.to_bits()) {
            None => Ok(values),
            Some(at) => Err(format!("wrote {:?} outside the tensor, {at} elements into its memory", self.backing[at])),
        }
    }
}

/// One buffer that holds every device tensor of a call, with guard bands between.
#[derive(Default)]
pub struct Arena {
    image: Vec<f32>,
    buffer: Option<Buffer>,
}

impl Arena {
    /// Offsets are a multiple of 4 bytes, as required, and never of 8: no kernel may count on more.
    fn place(&mut self, len: usize) -> Range<usize> {
        let begin = (self.image.len() + GUARD) | 1;
        self.image.resize(begin + len + GUARD, POISON);
        begin..begin + len
    }

    /// Call after the last tensor was placed.
    pub fn upload(&mut self, context: &Context) -> grilly::Result<()> {
        if !self.image.is_empty() {
            let mut bytes = vec![0; 4 * self.image.len()];
            for (word, value) in bytes.chunks_exact_mut(4).zip(&self.image) {
                word.copy_from_slice(&value.to_le_bytes());
            }
            let buffer = context.create_buffer(bytes.len() as u64)?;
            buffer.write(0, &bytes)?;
            self.buffer = Some(buffer);
        }
        Ok(())
    }

    /// Reads everything back; what was not an output must still be what was uploaded.
    pub fn download(&self, outputs: &[&Slot]) -> Result<Vec<f32>, String> {
        let Some(buffer) = &self.buffer else { return Ok(vec![]) };
        let mut bytes = vec![0; 4 * self.image.len()];
        buffer.read(0, &mut bytes).map_err(|error| format!("reading back: {error}"))?;
        let after: Vec<f32> =
            bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().expect("4 bytes"))).collect();
        let mut masked = after.clone();
        for slot in outputs {
            if let Slot::Device { range, .. } = slot {
                masked[range.clone()].copy_from_slice(&self.image[range.clone()]);
            }
        }
        match masked.iter().zip(&self.image).position(|(now, before)| now.to_bits() != before.to_bits()) {
            None => Ok(after),
            Some(at) => Err(format!("wrote {:?} outside the outputs, at element {at} of the buffer", masked[at])),
        }
    }
}

/// A tensor of a call, wherever it is.
pub enum Slot {
    Host(HostTensor),
    Device { range: Range<usize>, shape: Vec<u64> },
}

impl Slot {
    /// A tensor with the given values, or poisoned.
    pub fn new(arena: &mut Arena, place: Place, shape: &[u64], values: Option<&[f32]>) -> Slot {
        let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        match place {
            Place::Host(layout) => {
                let mut tensor = HostTensor::new(&sizes, layout);
                if let Some(values) = values {
                    tensor.view_mut().iter_mut().zip(values).for_each(|(to, from)| *to = *from);
                }
                Slot::Host(tensor)
            }
            Place::Device => {
                let range = arena.place(sizes.iter().product());
                if let Some(values) = values {
                    arena.image[range.clone()].copy_from_slice(values);
                }
                Slot::Device { range, shape: shape.to_vec() }
            }
        }
    }

    pub fn input<'a>(&'a self, arena: &'a Arena) -> grilly::Result<Input<'a>> {
        Ok(match self {
            Slot::Host(tensor) => Input::Host(tensor.view()),
            Slot::Device { range, shape } => Input::Device(device_tensor(arena, range, shape)?),
        })
    }

    pub fn output<'a>(&'a mut self, arena: &'a Arena) -> grilly::Result<Output<'a>> {
        Ok(match self {
            Slot::Host(tensor) => Output::Host(tensor.view_mut()),
            Slot::Device { range, shape } => Output::Device(device_tensor(arena, range, shape)?),
        })
    }

    /// The values, given what the arena's buffer now holds.
    pub fn take(self, downloaded: &[f32]) -> Result<Vec<f32>, String> {
        match self {
            Slot::Host(tensor) => tensor.take(),
            Slot::Device { range, .. } => Ok(downloaded[range].to_vec()),
        }
    }
}

fn device_tensor<'a>(arena: &'a Arena, range: &Range<usize>, shape: &[u64]) -> grilly::Result<DeviceTensor<'a>> {
    let buffer = arena.buffer.as_ref().expect("uploaded before use");
    DeviceTensor::new(buffer, 4 * range.start as u64, shape)
}
