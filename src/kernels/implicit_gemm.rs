//! Forward and input gradient as an implicit GEMM: `shaders/lib/implicit_gemm.glsl`.

use super::channels::{Packing, filled};
use super::reduce::{self, Bias, Sum};
use super::slices::{Images, MAX_ELEMENTS, Reach, whole};
use super::table::{CONV2D_BACKWARD_INPUT, CONV2D_FORWARD};
use super::tile::{Chosen, Size, Takers, choose};
use super::{FLAG_ACCUMULATE, Kernel, SPLITS_UNIT};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Role, Sizes, VECTORS_ID, VECTORS_INPUT, VECTORS_OUTPUT, Walk};
use crate::problem::{Pass, Problem};

/// What [`Limits::kernel`] calls the blocks of any steps.
pub const STEPS: &str = "implicit_gemm_steps";
/// What it calls input gradients that take all phases of a stride at once.
pub const JOINT_PHASES: &str = "implicit_gemm_joint_phases";

/// What it calls the reading of raw weights.
pub const RAW: &str = "implicit_gemm_raw";

/// What it calls sums in parts that a further dispatch adds.
pub const SPLITS: &str = "implicit_gemm_splits";

/// All of them.
pub(super) const NAMES: [&str; 4] = [STEPS, JOINT_PHASES, RAW, SPLITS];

/// Into how many parts these are split at most, if it is that name's doing.
const SPLITS_BY_NAME: u64 = 3;

/// Terms of a sum at most for which one wave of workgroups reads raw weights in the time that packing takes.
const MOST_RAW_TERMS: u64 = 160;

/// How a problem is served on a device.
pub struct Choice {
    way: Way,
    chosen: Chosen,
}

impl Choice {
    /// Estimated time.
    pub fn seconds(&self) -> f64 {
        self.chosen.seconds
    }

    /// Whether a raw weight is read as it is, instead of being packed first: where packing would only copy it, and where
    /// there is so little to do that a further dispatch takes longer than reading the weight's rows element by element.
    pub fn reads_raw(&self, problem: &Problem, limits: &Limits) -> bool {
        let Size { m, n, runs, run, .. } = self.way.size;
        let tile = &self.chosen.tile;
        let tiles = m.div_ceil(tile.m()) * n.div_ceil(tile.n()) * problem.groups * self.way.phases.count;
        let short = tiles <= u64::from(limits.concurrent_workgroups / 2) && runs * run <= MOST_RAW_TERMS;
        let packed_already = problem.pass == Pass::BackwardInput && problem.taps() == 1;
        !tile.own_columns() && (short || packed_already || limits.kernel == Some(RAW))
    }
}

/// What a block of the reduction is made of, and what is a row of the result.
struct Way {
    size: Size,
    /// The result's pixels, as the way takes them.
    phases: Phases,
    name: &'static str,
}

/// Whether blocks take channels of one tap, or any steps of all taps, which serves few channels; whether phases are
/// taken apart, or together, which serves few result channels; and with which tile.
///
/// # Errors
/// `Unsupported` if no tile can be run.
pub fn choice(problem: &Problem, limits: &Limits) -> Result<Choice> {
    let kernel = kernel_for(problem);
    let chosen = |way: Way| choose(kernel, &way.size, limits).map(|chosen| Choice { way, chosen });
    let cost = |choice: &Choice| if limits.kernel == Some(choice.way.name) { 0.0 } else { choice.seconds() };
    let mut by_taps = Way::by_taps(problem);
    if let Some(name @ (RAW | SPLITS)) = limits.kernel {
        by_taps.size.takers = Takers::Shared;
        let mut choice = chosen(by_taps)?;
        if name == SPLITS {
            choice.chosen.splits = choice.chosen.tile.most_splits(&choice.way.size).min(SPLITS_BY_NAME);
        }
        return Ok(choice);
    }
    let by_taps = chosen(by_taps)?;
    // A software driver has to compile a pipeline for each way, and only has kernels fit for the first.
    let others = [Way::by_steps(problem), Way::joint_phases(problem)].into_iter().flatten();
    let offered = others.filter(|way| !limits.software || limits.kernel == Some(way.name));
    let others = offered.filter_map(|way| chosen(way).ok());
    Ok(others.fold(by_taps, |best, other| if cost(&other) < cost(&best) { other } else { best }))
}

impl Way {
    fn by_taps(problem: &Problem) -> Way {
        let (result_channels, source_channels) = channels(problem);
        let phases = Phases::of(problem);
        let size = Size {
            m: result_channels,
            n: problem.n * phases.cells,
            // Each tap belongs to one phase.
            times: problem.groups,
            runs: problem.taps(),
            run: source_channels,
            rounds: phases.rounds,
            listed: 0,
            takers: Takers::All,
            transposing: false,
            // The estimate knows nothing of phases, which are tiles of their own.
            splittable: if phases.count == 1 { results(problem) } else { 0 },
        };
        Way { size, phases, name: "implicit_gemm" }
    }

    fn by_steps(problem: &Problem) -> Option<Way> {
        let (_, source_channels) = channels(problem);
        let Way { size, phases, .. } = Way::by_taps(problem);
        let size = Size {
            runs: phases.count,
            run: (problem.taps() * source_channels).div_ceil(phases.count),
            listed: phases.most_taps * source_channels,
            takers: Takers::Shared,
            splittable: 0,
            ..size
        };
        (size.listed > 1).then_some(Way { size, phases, name: STEPS })
    }

    fn joint_phases(problem: &Problem) -> Option<Way> {
        let (result_channels, _) = channels(problem);
        let Way { size, phases, .. } = Way::by_taps(problem);
        let count = problem.stride[0] * problem.stride[1];
        // Kernels count rows in 32 bits, those of phases beyond the height or width included.
        let rows = count.checked_mul(result_channels.next_multiple_of(4)).filter(|&rows| rows <= MAX_ELEMENTS)?;
        let taps = |axis: usize, kernel: u64| {
            let (stride, padding) = (problem.stride[axis], problem.padding[axis]);
            (padding.next_multiple_of(stride) - padding + kernel - 1) / stride + 1
        };
        let size = Size {
            m: rows,
            runs: taps(0, problem.r) * taps(1, problem.s),
            rounds: 0,
            takers: Takers::SharedByFours,
            splittable: 0,
            ..size
        };
        let applies = problem.pass == Pass::BackwardInput && count > 1 && problem.dilation == [1, 1];
        applies.then_some(Way { size, phases: Phases { count: 1, ..phases }, name: JOINT_PHASES })
    }

    /// The result's flag, if every four neighbouring pixels are four neighbouring elements of it.
    fn result_vectors(&self, problem: &Problem) -> u32 {
        let (plane, flag) = match problem.pass {
            Pass::Forward => (problem.p * problem.q, VECTORS_OUTPUT),
            _ => (problem.h * problem.w, VECTORS_INPUT),
        };
        let in_order = self.phases.count == 1 && self.name != JOINT_PHASES;
        if in_order && plane.is_multiple_of(4) { flag } else { 0 }
    }
}

fn kernel_for(problem: &Problem) -> &'static Kernel {
    if problem.pass == Pass::Forward { &CONV2D_FORWARD } else { &CONV2D_BACKWARD_INPUT }
}

/// Elements of the result of a forward pass or an input gradient.
pub fn results(problem: &Problem) -> u64 {
    if problem.pass == Pass::Forward { problem.output_elements() } else { problem.input_elements() }
}

/// Channels of the result and of the source in a group.
fn channels(problem: &Problem) -> (u64, u64) {
    let channels = (problem.outputs_per_group(), problem.channels_per_group());
    if problem.pass == Pass::Forward { channels } else { (channels.1, channels.0) }
}

/// Appends the product of the weight and the source. The weight is packed in [`super::pack`]'s order, or raw if the
/// choice may read it so, as its role says.
///
/// # Errors
/// `Unsupported` for tensors beyond this device's reach.
pub fn plan(problem: &Problem, limits: &Limits, choice: &Choice, weight: Operand, plan: &mut Plan) -> Result<()> {
    let Choice { way: Way { size, phases, name }, chosen: Chosen { tile, splits, seconds } } = choice;
    let kernel = kernel_for(problem);
    let (_, source_channels) = channels(problem);
    let read = if tile.packs_channels() { filled(problem) } else { problem.clone() };
    let reach = Reach::new(&read, limits, &[("the weight", weight.bytes / 4)])?;
    let (source, binding) = if problem.pass == Pass::Forward { (Role::Input, 0) } else { (Role::Output, 3) };
    // Parts of a sum are neither added to what was there, nor is a bias to them.
    let mut computed = problem.clone();
    if *splits > 1 {
        (computed.options.bias, computed.options.accumulate) = (false, false);
    }
    let mut packing = Packing::new(source);
    for images in reach.slices(problem) {
        let mut operands = operands(&computed, &images, weight);
        let parts = (*splits > 1).then(|| Parts::new(problem, &images, *splits, plan));
        if let Some(parts) = &parts {
            operands[3 - binding] = Some(parts.partial);
        }
        if tile.packs_channels() {
            operands[binding] = Some(packing.plan(problem, limits, &images, reach.addresses, plan)?);
        }
        let module = kernel.tiled(tile.index, reach.addresses || tile.prefers_addresses(limits));
        let value = |id: &u32| match *id {
            0 => source_channels.is_multiple_of(u64::from(tile.block)).into(),
            1 => tile.listed(size).max(1) as u32,
            2 => (*name == JOINT_PHASES).into(),
            3 => (weight.role != Role::Weight).into(),
            4 => (*splits > 1).into(),
            VECTORS_ID => choice.way.result_vectors(problem),
            id => unreachable!("{} has no constant {id}", module.name),
        };
        let mut sizes = Sizes { extra: phases.tap_steps, ..sizes(&computed, &images) };
        if parts.is_some() {
            sizes.flags += *splits as u32 * SPLITS_UNIT;
        }
        let dispatch = Dispatch {
            module,
            specialization: module.specialization_ids.iter().map(value).collect(),
            operands,
            sizes,
            tiles: 0..0,
        };
        let step = size.m.div_ceil(tile.m()) * phases.count;
        let walk = Walk { tiles: step, units: tile.n(), image_units: phases.cells };
        let share = images.count as f64 / problem.n as f64;
        match problem.groups * splits {
            1 => plan.push_walking(dispatch, images.count, share * seconds, walk)?,
            // Groups and parts of a sum come one after the other, each with all images.
            walks => plan.push(dispatch, walk.tiles_of(images.count) * walks, share * seconds)?,
        }
        if let Some(parts) = &parts {
            parts.add(problem, limits, reach.addresses, plan)?;
        }
    }
    Ok(())
}

/// The parts of a split sum, for some images.
struct Parts {
    partial: Operand,
    result: Operand,
    splits: u64,
}

impl Parts {
    fn new(problem: &Problem, images: &Images, splits: u64, plan: &mut Plan) -> Parts {
        let result = if problem.pass == Pass::Forward { images.output(problem) } else { images.input(problem) };
        let bytes = splits * result.bytes;
        Parts { partial: Operand { role: Role::Workspace, offset: plan.reserve(bytes), bytes }, result, splits }
    }

    /// Appends `result = Σ parts + bias`.
    fn add(&self, problem: &Problem, limits: &Limits, addresses: bool, plan: &mut Plan) -> Result<()> {
        let (channels, plane) = match problem.pass {
            Pass::Forward => (problem.k, problem.p * problem.q),
            _ => (problem.c, problem.h * problem.w),
        };
        let values = whole(Role::Bias, problem.bias_elements());
        let bias = problem.options.bias.then_some(Bias { values, channels, plane });
        let Parts { partial, result, splits } = *self;
        let sum = Sum { partial, splits, bias, result, accumulate: problem.options.accumulate, addresses };
        reduce::plan(sum, limits, plan)
    }
}

/// How result pixels are taken, phase by phase; see `shaders/lib/phases.glsl`.
struct Phases {
    count: u64,
    /// Pixels of an image that a phase has at most.
    cells: u64,
    /// From one of a phase's taps to the next, along each axis.
    tap_steps: [u32; 2],
    /// Taps that a phase has at most.
    most_taps: u64,
    /// Rounds of loops in which a thread finds its phase's first taps.
    rounds: u64,
}

impl Phases {
    fn of(problem: &Problem) -> Phases {
        if problem.pass == Pass::Forward {
            return Phases {
                count: 1,
                cells: problem.p * problem.q,
                tap_steps: [1, 1],
                most_taps: problem.taps(),
                rounds: 0,
            };
        }
        let [h, w] = [0, 1].map(|axis| problem.stride[axis] / gcd(problem.stride[axis], problem.dilation[axis]));
        Phases {
            // A phase beyond the height or width has no pixel.
            count: problem.stride[0].min(problem.h) * problem.stride[1].min(problem.w),
            cells: problem.h.div_ceil(problem.stride[0]) * problem.w.div_ceil(problem.stride[1]),
            tap_steps: [h as u32, w as u32], // sizes were checked to fit 31 bits
            most_taps: problem.r.div_ceil(h) * problem.s.div_ceil(w),
            rounds: h.min(problem.r) + w.min(problem.s),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The tensors of a forward pass or an input gradient.
pub fn operands(problem: &Problem, images: &Images, weight: Operand) -> [Option<Operand>; 4] {
    let bias = problem.options.bias.then(|| whole(Role::Bias, problem.bias_elements()));
    [Some(images.input(problem)), Some(weight), bias, Some(images.output(problem))]
}

/// The push constants of a forward pass or an input gradient.
pub fn sizes(problem: &Problem, images: &Images) -> Sizes {
    let mut sizes = images.sizes(problem);
    if problem.options.accumulate {
        sizes.flags |= FLAG_ACCUMULATE;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Conv2dConfig;
    use crate::problem::PassOptions;

    #[test]
    fn joint_phases_are_not_offered_for_more_rows_than_kernels_count() {
        let joint = |stride| {
            let config = Conv2dConfig { stride, ..Conv2dConfig::new(22324, 1, [1, 1]) };
            let problem = Problem::new(&config, [1, 22324, 1, 1], Pass::BackwardInput, PassOptions::default());
            Way::joint_phases(&problem.unwrap()).is_some()
        };
        assert!(joint([2, 2]));
        // Their rows are 4 modulo 2^64.
        assert!(!joint([429_509_837, 1_923_865]));
    }
}
