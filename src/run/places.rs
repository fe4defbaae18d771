//! Where a call's tensors lie on a Vulkan device, and how those of the host get there and back.

use crate::buffer::Storage;
use crate::conv2d::{Accumulate, Backward, Forward, Weight};
use crate::error::{Error, Result, Status};
use crate::plan::{Operand, Role};
use crate::problem;
use crate::tensor::{DeviceTensor, Input, Output};
use crate::vulkan::{Block, Bound, Device, Home, HostArray};
use crate::weights::{Packed, Weights};
use std::sync::Arc;

/// Tensors of at most so many bytes, in calls that are not streamed, are not copied by the device: that would take longer
/// to begin than they take to cross.
const DIRECT_BYTES: u64 = 1 << 20;

/// The tensors of a call, forward or backward, in the places where the problem has them.
#[derive(Default)]
pub struct Tensors<'a> {
    x: Option<Input<'a>>,
    weight: Option<Weight<'a>>,
    bias: Option<Input<'a>>,
    y: Option<Output<'a>>,
    dy: Option<Input<'a>>,
    dx: Option<Output<'a>>,
    dweight: Option<Output<'a>>,
    dbias: Option<Output<'a>>,
    accumulate: Accumulate,
}

impl<'a> Tensors<'a> {
    pub fn forward(call: Forward<'a>, transposed: bool) -> Tensors<'a> {
        let tensors = Tensors {
            x: Some(call.x),
            weight: Some(call.weight),
            bias: call.bias,
            y: Some(call.y),
            ..Tensors::default()
        };
        tensors.placed(transposed)
    }

    pub fn backward(call: Backward<'a>, transposed: bool) -> Tensors<'a> {
        let tensors = Tensors {
            // An input that no gradient reads is not uploaded.
            x: call.x.filter(|_| call.dweight.is_some()),
            weight: call.weight.filter(|_| call.dx.is_some()),
            dy: Some(call.dy),
            dx: call.dx,
            dweight: call.dweight,
            dbias: call.dbias,
            accumulate: call.accumulate,
            ..Tensors::default()
        };
        tensors.placed(transposed)
    }

    /// A transposed convolution's problem is that of the convolution whose input gradient it is: see
    /// [`crate::problem::Problem`].
    fn placed(self, transposed: bool) -> Tensors<'a> {
        if !transposed {
            return self;
        }
        Tensors { x: self.dy, y: self.dx, dy: self.x, dx: self.y, ..self }
    }

    /// Whether any tensor lies in host memory.
    pub fn any_on_host(&self) -> bool {
        self.host_bytes() > 0
    }

    /// Bytes of the tensors in host memory.
    pub fn host_bytes(&self) -> u64 {
        let raw = match &self.weight {
            Some(Weight::Raw(raw)) => Some(raw),
            _ => None,
        };
        let inputs = [self.x.as_ref(), self.bias.as_ref(), self.dy.as_ref(), raw].into_iter().flatten();
        let outputs = [&self.y, &self.dx, &self.dweight, &self.dbias].into_iter().flatten();
        let elements = inputs.map(|input| match input {
            Input::Host(view) => view.len(),
            Input::Device(_) => 0,
        });
        let results = outputs.map(|output| match output {
            Output::Host(view) => view.len(),
            Output::Device(_) => 0,
        });
        4 * elements.chain(results).sum::<usize>() as u64
    }
}

impl Weight<'_> {
    /// Whether it was packed earlier.
    pub fn is_packed(&self) -> bool {
        matches!(self, Weight::Packed(_))
    }
}

/// The tensors of a call and their memory on the device.
pub struct Places<'a> {
    pub x: Option<Place<'a>>,
    pub weight: Option<Place<'a>>,
    pub bias: Option<Place<'a>>,
    pub y: Option<Place<'a>>,
    pub dy: Option<Place<'a>>,
    pub dx: Option<Place<'a>>,
    pub dweight: Option<Place<'a>>,
    pub dbias: Option<Place<'a>>,
    packed: Option<&'a Weights>,
}

impl<'a> Places<'a> {
    /// `at_once`: the tensors of the host do not travel in pieces.
    pub fn new(device: &Arc<Device>, tensors: &'a mut Tensors<'_>, at_once: bool) -> Result<Places<'a>> {
        let Tensors { x, weight, bias, y, dy, dx, dweight, dbias, accumulate } = tensors;
        let of_input = |input: &'a Input<'_>| Place::of_input(device, input, at_once);
        let input = |input: &'a Option<Input<'_>>| input.as_ref().map(of_input).transpose();
        let output = |output: &'a mut Option<Output<'_>>, accumulate| {
            output.as_mut().map(|output| Place::of_output(device, output, accumulate, at_once)).transpose()
        };
        let (weight, packed) = match weight {
            Some(Weight::Raw(weight)) => (Some(of_input(weight)?), None),
            Some(Weight::Packed(weights)) => (None, Some(*weights)),
            None => (None, None),
        };
        Ok(Places {
            x: input(x)?,
            weight,
            bias: input(bias)?,
            // The place of y is that of a transposed convolution's dx.
            y: output(y, accumulate.input)?,
            dy: input(dy)?,
            dx: output(dx, accumulate.input)?,
            dweight: output(dweight, accumulate.parameters)?,
            dbias: output(dbias, accumulate.parameters)?,
            packed,
        })
    }

    /// Every tensor that there is.
    pub fn all(&self) -> impl Iterator<Item = &Place<'a>> {
        let Places { x, weight, bias, y, dy, dx, dweight, dbias, packed: _ } = self;
        [weight, bias, dweight, dbias, x, dy, y, dx].into_iter().flatten()
    }

    /// The tensors that have a part for each image.
    pub fn batched(&self) -> impl Iterator<Item = &Place<'a>> {
        [&self.x, &self.dy, &self.y, &self.dx].into_iter().flatten()
    }

    /// The others.
    pub fn parameters(&self) -> impl Iterator<Item = &Place<'a>> {
        [&self.weight, &self.bias, &self.dweight, &self.dbias].into_iter().flatten()
    }

    /// The tensor with a part for each image that a pass writes.
    pub fn result(&self, pass: problem::Pass) -> Option<&Place<'a>> {
        match pass {
            problem::Pass::Forward => self.y.as_ref(),
            problem::Pass::BackwardInput => self.dx.as_ref(),
            problem::Pass::BackwardWeight => None,
        }
    }

    /// The memory of a plan's operand. `workspace` is that of the pass.
    pub fn bound<'b>(
        &'b self,
        pass: problem::Pass,
        operand: &Operand,
        workspace: Option<Bound<'b>>,
    ) -> Result<Bound<'b>> {
        use problem::Pass::{BackwardInput, BackwardWeight, Forward};
        let whole = |block: &'b Block| Bound { block, offset: operand.offset, bytes: operand.bytes };
        let place = |place: &'b Option<Place<'a>>| place.as_ref().map(|place| place.part(operand));
        let packed = self.packed.map(|weights| &weights.packed);
        match (operand.role, packed) {
            (Role::Input, _) => place(if pass == BackwardInput { &self.dx } else { &self.x }),
            (Role::Bias, _) => place(if pass == BackwardWeight { &self.dbias } else { &self.bias }),
            (Role::Output, _) => place(if pass == Forward { &self.y } else { &self.dy }),
            (Role::Weight, _) if pass == BackwardWeight => place(&self.dweight),
            (Role::Weight, Some(Packed::Raw(block))) => Some(whole(block)),
            (Role::Weight, _) => place(&self.weight),
            (Role::Packed, Some(Packed::Ordered { forward, .. })) if pass == Forward => Some(whole(forward)),
            (Role::Packed, Some(Packed::Ordered { backward_input, .. })) => Some(whole(backward_input)),
            (Role::Packed, _) => None,
            (Role::Workspace, _) => workspace.map(|workspace| workspace.range(operand.offset, operand.bytes)),
        }
        .ok_or_else(|| Error::new(Status::Internal, format!("{pass:?} has no memory for {:?}", operand.role)))
    }
}

/// The memory of a device tensor.
pub fn bound<'a>(tensor: &DeviceTensor<'a>) -> Result<Bound<'a>> {
    match tensor.buffer().storage() {
        Storage::Vulkan(block) => Ok(Bound { block, offset: tensor.offset(), bytes: tensor.bytes() }),
        Storage::Host(_) | Storage::Cpu(_) => {
            Err(Error::new(Status::Internal, "a tensor's memory is not this device's"))
        }
    }
}

/// The block that an array lies in, and where, if the device reaches it.
fn pinned(device: &Device, array: &HostArray<'_>) -> Option<(Arc<Block>, u64)> {
    let first = array.contiguous()?;
    let bytes = 4 * array.elements() as u64;
    device.pinned().find(first as usize, |block, offset| offset + bytes <= block.bytes())
}

/// Where a tensor lies on the device.
pub struct Place<'a> {
    memory: Memory<'a>,
    host: Option<Host<'a>>,
}

enum Memory<'a> {
    /// A host tensor's.
    Own(Block),
    /// A host tensor's own memory, which the device reaches: the block, and where in it.
    Pinned(Arc<Block>, u64),
    /// A device tensor's.
    Buffer(Bound<'a>),
}

/// The host's side of a tensor that is moved.
pub struct Host<'a> {
    pub array: HostArray<'a>,
    /// The block that the array lies in, and where, if the device can copy from and to it without staging memory.
    pub pinned: Option<(Arc<Block>, u64)>,
    /// Its values are needed on the device.
    pub arrives: bool,
    /// Its values are the device's in the end.
    pub departs: bool,
}

impl<'a> Place<'a> {
    pub fn of_input(device: &Arc<Device>, input: &'a Input<'_>, at_once: bool) -> Result<Place<'a>> {
        match input {
            Input::Device(tensor) => Place::of_tensor(tensor),
            Input::Host(view) => Place::of_host(device, HostArray::reading(view), true, false, at_once),
        }
    }

    /// With `accumulate` the result begins as what the tensor holds.
    fn of_output(
        device: &Arc<Device>,
        output: &'a mut Output<'_>,
        accumulate: bool,
        at_once: bool,
    ) -> Result<Place<'a>> {
        match output {
            Output::Device(tensor) => Place::of_tensor(tensor),
            Output::Host(view) => Place::of_host(device, HostArray::writing(view), accumulate, true, at_once),
        }
    }

    fn of_tensor(tensor: &DeviceTensor<'a>) -> Result<Place<'a>> {
        Ok(Place { memory: Memory::Buffer(bound(tensor)?), host: None })
    }

    /// In memory of its own, or where the array lies. If tensors travel at once, a small one that only arrives is written
    /// to the device's memory by the host, and one that departs is in the host's, where kernels reach it.
    fn of_host(
        device: &Arc<Device>,
        array: HostArray<'a>,
        arrives: bool,
        departs: bool,
        at_once: bool,
    ) -> Result<Place<'a>> {
        let bytes = 4 * array.elements() as u64;
        let pinned = pinned(device, &array);
        let direct = at_once && bytes <= DIRECT_BYTES && device.has_upload_memory();
        // A kernel reads and writes vectors at multiples of 16 bytes only; its other variant would be compiled first.
        let in_place = |offset: u64| device.is_unified() || direct && !arrives && offset.is_multiple_of(16);
        if let Some((block, offset)) = &pinned
            && in_place(*offset)
        {
            return Ok(Place { memory: Memory::Pinned(block.clone(), *offset), host: None });
        }
        let home = match direct {
            true if departs => Home::Staging,
            true => Home::Upload,
            false => Home::Device,
        };
        let memory = Memory::Own(Block::new(device, home, bytes)?);
        Ok(Place { memory, host: Some(Host { array, pinned, arrives, departs }) })
    }

    /// An array that is brought to memory of the device, or that is brought from there.
    pub fn moving(device: &Device, array: HostArray<'a>, memory: Bound<'a>, arrives: bool) -> Place<'a> {
        let pinned = pinned(device, &array);
        let host = Host { array, pinned, arrives, departs: !arrives };
        Place { memory: Memory::Buffer(memory), host: Some(host) }
    }

    /// The host's side, of a tensor that is moved.
    pub fn host(&self) -> Option<&Host<'a>> {
        self.host.as_ref()
    }

    /// All of it.
    pub fn whole(&self) -> Bound<'_> {
        match &self.memory {
            Memory::Own(block) => block.whole(),
            Memory::Pinned(block, offset) => Bound { block, offset: *offset, bytes: block.bytes() - offset },
            Memory::Buffer(bound) => *bound,
        }
    }

    /// What an operand of a plan is of it.
    pub fn part(&self, operand: &Operand) -> Bound<'_> {
        self.range(operand.offset, operand.bytes)
    }

    /// Some bytes of it.
    pub fn range(&self, offset: u64, bytes: u64) -> Bound<'_> {
        self.whole().range(offset, bytes)
    }
}
