//! Passes on a Vulkan device: host tensors are brought there, plans recorded and submitted slice by slice, results
//! brought back.

use crate::buffer::Storage;
use crate::config::Conv2dConfig;
use crate::context::Context;
use crate::conv2d::{Accumulate, Backward, Forward, Weight};
use crate::error::{Error, Result, Status};
use crate::kernels;
use crate::plan::{Operand, Plan, Role};
use crate::problem::{self, PassOptions, Problem};
use crate::tensor::{DeviceTensor, Input, Output};
use crate::vulkan::{Block, Bound, Device, Home, Recorder};
use crate::weights::{Packed, Weights};
use ndarray::{ArrayViewD, ArrayViewMutD};
use std::ops::Range;
use std::sync::Arc;

/// A planned pass and the slices of it to run.
pub struct Pass {
    pub kind: problem::Pass,
    pub plan: Arc<Plan>,
    pub slices: Range<usize>,
}

impl Pass {
    /// All of a problem.
    pub fn new(context: &Context, device: &Device, problem: &Problem, prepacked: bool) -> Result<Pass> {
        let plan = context.plan(device, problem, prepacked)?;
        let slices = 0..plan.slices.len();
        Ok(Pass { kind: problem.pass, plan, slices })
    }
}

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

    /// A transposed convolution's problem is that of the convolution whose input gradient it is: see [`Problem`].
    fn placed(self, transposed: bool) -> Tensors<'a> {
        if !transposed {
            return self;
        }
        Tensors { x: self.dy, y: self.dx, dy: self.x, dx: self.y, ..self }
    }

    /// Whether any tensor lies in host memory.
    pub fn any_on_host(&self) -> bool {
        let inputs = [&self.x, &self.bias, &self.dy];
        let outputs = [&self.y, &self.dx, &self.dweight, &self.dbias];
        inputs.into_iter().flatten().any(|input| matches!(input, Input::Host(_)))
            || outputs.into_iter().flatten().any(|output| matches!(output, Output::Host(_)))
            || matches!(self.weight, Some(Weight::Raw(Input::Host(_))))
    }
}

impl Weight<'_> {
    /// Whether it was packed earlier.
    pub fn is_packed(&self) -> bool {
        matches!(self, Weight::Packed(_))
    }
}

/// Runs whole passes with scratch memory from the pool.
pub fn run(context: &Context, device: &Arc<Device>, passes: &[Pass], tensors: Tensors<'_>) -> Result<()> {
    // Passes follow one another, so they can share their scratch memory.
    let bytes = passes.iter().map(|pass| pass.plan.workspace).max().unwrap_or(0);
    let workspace = if bytes > 0 { Some(Block::new(device, Home::Device, bytes)?) } else { None };
    run_with(context, device, passes, tensors, workspace.as_ref())
}

/// Runs passes with scratch memory of the caller's.
pub fn run_with(
    context: &Context,
    device: &Arc<Device>,
    passes: &[Pass],
    mut tensors: Tensors<'_>,
    workspace: Option<&Block>,
) -> Result<()> {
    let x = tensors.x.as_ref().map(|input| Place::of_input(device, input)).transpose()?;
    let bias = tensors.bias.as_ref().map(|input| Place::of_input(device, input)).transpose()?;
    let dy = tensors.dy.as_ref().map(|input| Place::of_input(device, input)).transpose()?;
    let (raw, packed) = match &tensors.weight {
        Some(Weight::Raw(raw)) => (Some(Place::of_input(device, raw)?), None),
        Some(Weight::Packed(weights)) => (None, Some(*weights)),
        None => (None, None),
    };
    let Accumulate { input: to_dx, parameters: to_parameters } = tensors.accumulate;
    // The place of y is that of a transposed convolution's dx.
    let y = tensors.y.as_ref().map(|output| Place::of_output(device, output, to_dx)).transpose()?;
    let dx = tensors.dx.as_ref().map(|output| Place::of_output(device, output, to_dx)).transpose()?;
    let dweight = tensors.dweight.as_ref().map(|output| Place::of_output(device, output, to_parameters)).transpose()?;
    let dbias = tensors.dbias.as_ref().map(|output| Place::of_output(device, output, to_parameters)).transpose()?;

    let mut recorder = Recorder::new(device)?;
    let mut uploaded = 0;
    for place in [&x, &bias, &dy, &raw, &y, &dx, &dweight, &dbias].into_iter().flatten() {
        uploaded += place.arrive(&recorder);
    }
    for pass in passes {
        let roles = Roles {
            input: if pass.kind == problem::Pass::BackwardInput { dx.as_ref() } else { x.as_ref() },
            weight: if pass.kind == problem::Pass::BackwardWeight { dweight.as_ref() } else { raw.as_ref() },
            bias: if pass.kind == problem::Pass::BackwardWeight { dbias.as_ref() } else { bias.as_ref() },
            output: if pass.kind == problem::Pass::Forward { y.as_ref() } else { dy.as_ref() },
            packed,
            workspace,
        };
        for (index, slice) in pass.plan.slices[pass.slices.clone()].iter().enumerate() {
            if index > 0 {
                recorder.submit()?;
                recorder.wait()?;
                recorder = Recorder::new(device)?;
            }
            for dispatch in &pass.plan.dispatches[slice.clone()] {
                let mut operands = [None; 4];
                for (bound, operand) in operands.iter_mut().zip(&dispatch.operands) {
                    *bound = operand.map(|operand| roles.bound(pass.kind, &operand)).transpose()?;
                }
                recorder.dispatch(dispatch, &operands)?;
            }
        }
    }
    recorder.barrier();
    let mut departures = Vec::new();
    for place in [&y, &dx, &dweight, &dbias] {
        departures.push(place.as_ref().map(|place| place.depart(device, &recorder)).transpose()?.flatten());
    }
    recorder.submit()?;
    recorder.wait()?;

    let mut downloaded = 0;
    let outputs =
        [(y, &mut tensors.y), (dx, &mut tensors.dx), (dweight, &mut tensors.dweight), (dbias, &mut tensors.dbias)];
    for ((place, output), departure) in outputs.into_iter().zip(departures) {
        if let (Some(place), Some(Output::Host(view))) = (place, output) {
            download(departure.as_ref().unwrap_or(place.bound().block), view)?;
            downloaded += 4 * view.len() as u64;
        }
    }
    context.count_transfers(uploaded, downloaded);
    Ok(())
}

/// Packs a weight for both of its uses.
pub fn pack(context: &Context, device: &Arc<Device>, config: &Conv2dConfig, weight: Input<'_>) -> Result<Packed> {
    // The smallest input there can be: packing depends on the weight alone.
    let smallest = Conv2dConfig { padding: [[0, 0]; 2], ..config.direct() };
    let input = [1, smallest.in_channels, smallest.window(0), smallest.window(1)];
    let problem = |pass| Problem::new(&smallest, input, pass, PassOptions::default());
    let raw = Place::of_input(device, &weight)?;
    let mut recorder = Recorder::new(device)?;
    let uploaded = raw.arrive(&recorder);
    let mut pack_for = |pass| -> Result<Option<Block>> {
        let problem = problem(pass)?;
        let bytes = kernels::packed_bytes(&problem);
        if bytes == 0 {
            return Ok(None);
        }
        let block = Block::new(device, Home::Device, bytes)?;
        for dispatch in &kernels::plan_packing(&problem, device.limits())?.dispatches {
            let operands = dispatch.operands.map(|operand| {
                operand.map(|operand| match operand.role {
                    Role::Packed => Bound { block: &block, offset: operand.offset, bytes: operand.bytes },
                    _ => raw.part(&operand),
                })
            });
            recorder.dispatch(dispatch, &operands)?;
        }
        Ok(Some(block))
    };
    let orders = (pack_for(problem::Pass::Forward)?, pack_for(problem::Pass::BackwardInput)?);
    let packed = if let (Some(forward), Some(backward_input)) = orders {
        Packed::Ordered { forward, backward_input }
    } else {
        let bytes = config.weight_bytes();
        let copy = Block::new(device, Home::Device, bytes)?;
        recorder.barrier();
        recorder.copy(raw.bound(), Bound { block: &copy, offset: 0, bytes });
        Packed::Raw(copy)
    };
    recorder.submit()?;
    recorder.wait()?;
    context.count_transfers(uploaded, 0);
    Ok(packed)
}

/// The memories that a plan's operands are ranges of.
struct Roles<'a> {
    input: Option<&'a Place<'a>>,
    weight: Option<&'a Place<'a>>,
    bias: Option<&'a Place<'a>>,
    output: Option<&'a Place<'a>>,
    packed: Option<&'a Weights>,
    workspace: Option<&'a Block>,
}

impl<'a> Roles<'a> {
    fn bound(&self, pass: problem::Pass, operand: &Operand) -> Result<Bound<'a>> {
        let whole = |block: &'a Block| Bound { block, offset: operand.offset, bytes: operand.bytes };
        let packed = self.packed.map(|weights| &weights.packed);
        match (operand.role, packed) {
            (Role::Input, _) => self.input.map(|place| place.part(operand)),
            // The weight's gradient never lies in a packed weight.
            (Role::Weight, Some(Packed::Raw(block))) if pass != problem::Pass::BackwardWeight => Some(whole(block)),
            (Role::Weight, _) => self.weight.map(|place| place.part(operand)),
            (Role::Bias, _) => self.bias.map(|place| place.part(operand)),
            (Role::Output, _) => self.output.map(|place| place.part(operand)),
            (Role::Packed, Some(Packed::Ordered { forward, .. })) if pass == problem::Pass::Forward => {
                Some(whole(forward))
            }
            (Role::Packed, Some(Packed::Ordered { backward_input, .. })) => Some(whole(backward_input)),
            (Role::Packed, _) => None,
            (Role::Workspace, _) => self.workspace.map(whole),
        }
        .ok_or_else(|| Error::new(Status::Internal, format!("{pass:?} has no memory for {:?}", operand.role)))
    }
}

/// The memory of a device tensor.
pub fn bound<'a>(tensor: &DeviceTensor<'a>) -> Result<Bound<'a>> {
    match tensor.buffer().storage() {
        Storage::Vulkan(block) => Ok(Bound { block, offset: tensor.offset(), bytes: tensor.bytes() }),
        Storage::Cpu(_) => Err(Error::new(Status::Internal, "a tensor's memory is not this device's")),
    }
}

/// Where a tensor lies on the device.
struct Place<'a> {
    memory: Memory<'a>,
    /// Staging memory that must be copied into a block of our own first.
    arrival: Option<Block>,
    /// Bytes that came from the host.
    uploaded: u64,
}

enum Memory<'a> {
    /// A host tensor's.
    Own(Block),
    /// A device tensor's.
    Buffer(Bound<'a>),
}

impl<'a> Place<'a> {
    fn of_input(device: &Arc<Device>, input: &Input<'a>) -> Result<Place<'a>> {
        match input {
            Input::Device(tensor) => Place::of_tensor(tensor),
            Input::Host(view) => Place::holding(device, Some(view.view()), view.len()),
        }
    }

    /// With `accumulate` the result begins as what the tensor holds.
    fn of_output(device: &Arc<Device>, output: &Output<'a>, accumulate: bool) -> Result<Place<'a>> {
        match output {
            Output::Device(tensor) => Place::of_tensor(tensor),
            Output::Host(view) => Place::holding(device, accumulate.then(|| view.view()), view.len()),
        }
    }

    fn of_tensor(tensor: &DeviceTensor<'a>) -> Result<Place<'a>> {
        Ok(Place { memory: Memory::Buffer(bound(tensor)?), arrival: None, uploaded: 0 })
    }

    /// A block for `elements`, and the values that it begins with.
    fn holding(device: &Arc<Device>, values: Option<ArrayViewD<'_, f32>>, elements: usize) -> Result<Place<'a>> {
        let bytes = 4 * elements as u64;
        let mut block = Block::new(device, Home::Device, bytes)?;
        let mut arrival = None;
        let uploaded = if values.is_some() { bytes } else { 0 };
        if let Some(values) = values {
            if block.is_mapped() {
                upload(&mut block, values)?;
            } else {
                let mut staging = Block::new(device, Home::Upload, bytes)?;
                upload(&mut staging, values)?;
                arrival = Some(staging);
            }
        }
        Ok(Place { memory: Memory::Own(block), arrival, uploaded })
    }

    /// Records the copy out of staging memory, and says how many bytes came from the host.
    fn arrive(&self, recorder: &Recorder) -> u64 {
        if let Some(staging) = &self.arrival {
            recorder.copy(staging.whole(), self.bound());
        }
        self.uploaded
    }

    /// Records the copy into staging memory where the host cannot read the block itself.
    fn depart(&self, device: &Arc<Device>, recorder: &Recorder) -> Result<Option<Block>> {
        let Memory::Own(block) = &self.memory else { return Ok(None) };
        if block.is_mapped() {
            return Ok(None);
        }
        let staging = Block::new(device, Home::Download, block.bytes())?;
        recorder.copy(block.whole(), staging.whole());
        Ok(Some(staging))
    }

    fn bound(&self) -> Bound<'_> {
        match &self.memory {
            Memory::Own(block) => block.whole(),
            Memory::Buffer(bound) => *bound,
        }
    }

    fn part(&self, operand: &Operand) -> Bound<'_> {
        let whole = self.bound();
        Bound { offset: whole.offset + operand.offset, bytes: operand.bytes, ..whole }
    }
}

fn upload(block: &mut Block, values: ArrayViewD<'_, f32>) -> Result<()> {
    let to = block.floats_mut(values.len())?;
    ArrayViewMutD::from_shape(values.raw_dim(), to).map_err(internal)?.assign(&values);
    Ok(())
}

fn download(block: &Block, values: &mut ArrayViewMutD<'_, f32>) -> Result<()> {
    let from = block.floats(values.len())?;
    let from = ArrayViewD::from_shape(values.raw_dim(), from).map_err(internal)?;
    values.assign(&from);
    Ok(())
}

fn internal(error: ndarray::ShapeError) -> Error {
    Error::new(Status::Internal, error.to_string())
}
