//! Passes on a Vulkan device: host tensors are brought there, plans recorded and submitted, results brought back.

use super::places::{Place, Places, Tensors};
use super::stream;
use crate::config::Conv2dConfig;
use crate::context::{Context, Ready};
use crate::error::Result;
use crate::kernels;
use crate::plan::Role;
use crate::problem::{self, PassOptions, Problem};
use crate::tensor::Input;
use crate::ticket::Ticket;
use crate::vulkan::{Block, Bound, Device, Home, Recorder};
use crate::weights::Packed;
use std::ops::Range;
use std::sync::Arc;

/// A planned pass and the slices of it to run.
pub struct Pass {
    pub kind: problem::Pass,
    pub ready: Arc<Ready>,
    pub slices: Range<usize>,
    /// Images of the batch.
    pub images: u64,
    /// Bytes of one image of the input, and of the output.
    pub image_bytes: [u64; 2],
}

impl Pass {
    /// All of a problem.
    pub fn new(context: &Context, device: &Device, problem: &Problem, prepacked: bool) -> Result<Pass> {
        let ready = context.plan(device, problem, prepacked)?;
        let slices = 0..ready.plan.slices.len();
        Ok(Pass::of_slices(problem, ready, slices))
    }

    /// Some slices of a plan.
    pub fn of_slices(problem: &Problem, ready: Arc<Ready>, slices: Range<usize>) -> Pass {
        let image = |elements: u64| 4 * elements.checked_div(problem.n).unwrap_or(0);
        Pass {
            kind: problem.pass,
            ready,
            slices,
            images: problem.n,
            image_bytes: [image(problem.input_elements()), image(problem.output_elements())],
        }
    }

    fn is_whole(&self) -> bool {
        self.slices.len() == self.ready.plan.slices.len()
    }
}

/// Runs whole passes with scratch memory from the pool.
pub fn run(context: &Context, device: &Arc<Device>, passes: &[Pass], tensors: Tensors<'_>) -> Result<()> {
    let workspace = workspace(device, passes)?;
    run_with(context, device, passes, tensors, workspace.as_ref())
}

/// Submits whole passes on device tensors; with host tensors it runs them, since only it knows when those are ready.
///
/// Nothing here outlives the submission but the recordings: memory that is dropped while it is in use goes back to the
/// pool with the serial of the newest submission, and is not given out before that is done.
pub fn submit(context: &Context, device: &Arc<Device>, passes: &[Pass], mut tensors: Tensors<'_>) -> Result<Ticket> {
    if tensors.any_on_host() {
        run(context, device, passes, tensors)?;
        return Ok(Ticket::new(context, Vec::new()));
    }
    let workspace = workspace(device, passes)?;
    let workspaces = workspaces(passes, workspace.as_ref());
    let places = Places::new(device, &mut tensors, true)?;
    let mut flight = Flight::new(device, usize::MAX)?;
    flight.record(passes, &places, &workspaces)?;
    Ok(Ticket::new(context, flight.submit()?))
}

/// Scratch memory for passes that may run side by side.
pub fn workspace(device: &Arc<Device>, passes: &[Pass]) -> Result<Option<Block>> {
    let bytes = passes.iter().map(|pass| pass.ready.plan.workspace.next_multiple_of(ALIGNMENT)).sum::<u64>();
    if bytes > 0 { Block::new(device, Home::Device, bytes).map(Some) } else { Ok(None) }
}

const ALIGNMENT: u64 = 256;

/// The scratch memory of each pass, in that of all.
pub fn workspaces<'a>(passes: &[Pass], all: Option<&'a Block>) -> [Option<Bound<'a>>; 2] {
    let mut offset = 0;
    let mut parts = [None; 2];
    for (part, pass) in parts.iter_mut().zip(passes) {
        let bytes = pass.ready.plan.workspace;
        *part = all.map(|block| Bound { block, offset, bytes });
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    parts
}

/// Runs passes with scratch memory of the caller's, as [`workspace`] makes it.
pub fn run_with(
    context: &Context,
    device: &Arc<Device>,
    passes: &[Pass],
    mut tensors: Tensors<'_>,
    workspace: Option<&Block>,
) -> Result<()> {
    let pieces = stream::pieces(device, passes, tensors.host_bytes());
    let streams = pieces.filter(|_| passes.iter().all(Pass::is_whole));
    let places = Places::new(device, &mut tensors, streams.is_none())?;
    let workspaces = workspaces(passes, workspace);
    let moved = match streams {
        Some(pieces) => stream::run(device, passes, &places, &workspaces, pieces)?,
        None => run_at_once(device, passes, &places, &workspaces)?,
    };
    context.count_transfers(moved.uploaded, moved.downloaded);
    Ok(())
}

/// Bytes that came from the host, and that went there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    pub uploaded: u64,
    pub downloaded: u64,
}

/// Records everything, host tensors' copies included, and waits for it once.
fn run_at_once(
    device: &Arc<Device>,
    passes: &[Pass],
    places: &Places<'_>,
    workspaces: &[Option<Bound<'_>>; 2],
) -> Result<Moved> {
    let mut moved = Moved::default();
    let mut flight = Flight::new(device, MOST_IN_FLIGHT)?;
    let mut staging = Vec::new();
    for place in places.all() {
        moved.uploaded += arrive(device, &flight.recorder, place, &mut staging)?;
    }
    flight.record(passes, places, workspaces)?;
    if places.all().filter_map(Place::host).any(|host| host.departs) {
        flight.recorder.barrier();
    }
    let mut departures = Vec::new();
    for place in places.all() {
        depart(device, &flight.recorder, place, &mut departures)?;
    }
    flight.finish()?;
    for Departure { place, staging } in &departures {
        let Some(host) = place.host() else { continue };
        let block = staging.as_ref().unwrap_or(place.whole().block);
        let elements = host.array.elements();
        // SAFETY: `mapped_floats` checked that the block has so many elements, and the device is done with it.
        unsafe { host.array.scatter(0..elements, block.mapped_floats(elements)?) };
    }
    let bytes = places.all().filter_map(Place::host).filter(|host| host.departs).map(|host| host.array.elements());
    moved.downloaded = 4 * bytes.sum::<usize>() as u64;
    Ok(moved)
}

/// Slices that are recorded before the oldest is waited for.
const MOST_IN_FLIGHT: usize = 8;

/// Submissions under way, and the recording of the next.
pub struct Flight {
    device: Arc<Device>,
    recorder: Recorder,
    submitted: Vec<Recorder>,
    most: usize,
}

impl Flight {
    /// Nothing is under way yet. Of more than `most` submissions the oldest is waited for.
    pub fn new(device: &Arc<Device>, most: usize) -> Result<Flight> {
        Ok(Flight { device: device.clone(), recorder: Recorder::new(device)?, submitted: Vec::new(), most })
    }

    /// Records passes; all of their slices but the last are submitted.
    pub fn record(&mut self, passes: &[Pass], places: &Places<'_>, workspaces: &[Option<Bound<'_>>; 2]) -> Result<()> {
        for (pass, workspace) in passes.iter().zip(workspaces) {
            let plan = &pass.ready.plan;
            for (index, slice) in plan.slices[pass.slices.clone()].iter().enumerate() {
                if index > 0 {
                    self.next()?;
                }
                for at in slice.clone() {
                    let operands = operands(pass, at, places, *workspace)?;
                    self.recorder.barrier_for(&operands);
                    record(&mut self.recorder, pass, at, plan.dispatches[at].tiles.clone(), &operands)?;
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.recorder.submit()?;
        if self.submitted.len() >= self.most {
            self.submitted.remove(0).wait()?;
        }
        let next = Recorder::new(&self.device)?;
        self.submitted.push(std::mem::replace(&mut self.recorder, next));
        Ok(())
    }

    /// Submits the rest, and gives all that is under way.
    fn submit(mut self) -> Result<Vec<Recorder>> {
        self.recorder.submit()?;
        let Flight { mut submitted, recorder, .. } = self;
        submitted.push(recorder);
        Ok(submitted)
    }

    /// Submits the rest and waits for everything.
    fn finish(mut self) -> Result<()> {
        self.recorder.submit()?;
        self.recorder.wait()?;
        self.submitted.iter_mut().try_for_each(Recorder::wait)
    }
}

/// The memories of a pass's dispatch.
pub fn operands<'a>(
    pass: &Pass,
    at: usize,
    places: &'a Places<'_>,
    workspace: Option<Bound<'a>>,
) -> Result<[Option<Bound<'a>>; 4]> {
    let mut operands = [None; 4];
    for (bound, operand) in operands.iter_mut().zip(&pass.ready.plan.dispatches[at].operands) {
        *bound = match operand {
            Some(operand) => Some(places.bound(pass.kind, operand, workspace)?),
            None => None,
        };
    }
    Ok(operands)
}

/// Records some tiles of a pass's dispatch.
pub fn record(
    recorder: &mut Recorder,
    pass: &Pass,
    at: usize,
    tiles: Range<u32>,
    operands: &[Option<Bound<'_>>; 4],
) -> Result<()> {
    let dispatch = &pass.ready.plan.dispatches[at];
    let misaligned = Recorder::misaligned(dispatch, operands);
    let pipeline = pass.ready.pipeline(recorder.device(), at, misaligned)?;
    recorder.dispatch_part(&pipeline, dispatch, tiles, operands)
}

/// Brings a host tensor's values to the device: at once where the host sees the memory, else by a recorded copy, out of
/// staging memory if need be. Returns the bytes.
fn arrive(device: &Arc<Device>, recorder: &Recorder, place: &Place<'_>, staging: &mut Vec<Block>) -> Result<u64> {
    let Some(host) = place.host().filter(|host| host.arrives) else { return Ok(0) };
    let (to, elements) = (place.whole(), host.array.elements());
    if to.block.is_mapped() {
        // SAFETY: `mapped_floats` checked that there is room; the block is this call's own.
        unsafe { host.array.gather(0..elements, to.block.mapped_floats(elements)?) };
    } else if let Some((block, offset)) = &host.pinned {
        recorder.copy(Bound { block, offset: *offset, bytes: to.bytes }, to);
    } else if to.bytes > 0 {
        let block = Block::new(device, Home::Staging, to.bytes)?;
        // SAFETY: as above.
        unsafe { host.array.gather(0..elements, block.mapped_floats(elements)?) };
        recorder.copy(block.whole(), to);
        staging.push(block);
    }
    Ok(to.bytes)
}

/// A result that the host must copy out of mapped memory: the staging block, or else the tensor's own.
struct Departure<'a, 'b> {
    place: &'b Place<'a>,
    staging: Option<Block>,
}

/// Records what brings a result into memory that the host sees, and notes what it must copy then.
fn depart<'a, 'b>(
    device: &Arc<Device>,
    recorder: &Recorder,
    place: &'b Place<'a>,
    departures: &mut Vec<Departure<'a, 'b>>,
) -> Result<()> {
    let Some(host) = place.host().filter(|host| host.departs) else { return Ok(()) };
    let from = place.whole();
    if from.block.is_mapped() {
        departures.push(Departure { place, staging: None });
    } else if let Some((block, offset)) = &host.pinned {
        recorder.copy(from, Bound { block, offset: *offset, bytes: from.bytes });
    } else if from.bytes > 0 {
        let staging = Block::new(device, Home::Staging, from.bytes)?;
        recorder.copy(from, staging.whole());
        departures.push(Departure { place, staging: Some(staging) });
    }
    Ok(())
}

/// Packs a weight for both of its uses.
pub fn pack(context: &Context, device: &Arc<Device>, config: &Conv2dConfig, weight: Input<'_>) -> Result<Packed> {
    // The smallest input there can be: packing depends on the weight alone.
    let smallest = Conv2dConfig { padding: [[0, 0]; 2], dilation: [1, 1], ..config.direct() };
    let input = [1, smallest.in_channels, smallest.window(0), smallest.window(1)];
    let problem = |pass| Problem::new(&smallest, input, pass, PassOptions::default());
    let raw = Place::of_input(device, &weight, true)?;
    let mut recorder = Recorder::new(device)?;
    let mut staging = Vec::new();
    let uploaded = arrive(device, &recorder, &raw, &mut staging)?;
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
        recorder.copy(raw.range(0, bytes), Bound { block: &copy, offset: 0, bytes });
        Packed::Raw(copy)
    };
    recorder.submit()?;
    recorder.wait()?;
    context.count_transfers(uploaded, 0);
    Ok(packed)
}
