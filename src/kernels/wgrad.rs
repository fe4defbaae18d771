//! Weight (and bias) gradient with a split reduction: `shaders/conv2d-backward-weight.glsl`.

use super::channels::{Packing, filled};
use super::slices::{Reach, whole};
use super::table::CONV2D_BACKWARD_WEIGHT;
use super::tile::{Size, choose};
use super::{FLAG_SKIP_WEIGHT, Kernel, reduce};
use crate::error::{Error, Result};
use crate::plan::{Dispatch, Limits, Operand, Plan, Role};
use crate::problem::Problem;

/// The part of a weight gradient's kernel that does not depend on how the reduction is split.
pub struct Columns {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Which of its tiles.
    pub tile: usize,
    /// Values of its specialization constants.
    pub specialization: Vec<u32>,
    /// Workgroups of one split.
    pub tiles: u64,
    /// Units that an image of the output is summed by.
    pub image_units: u64,
    /// Output pixels of a unit.
    pub unit_pixels: u64,
    /// Units that a workgroup takes at a time.
    pub step: u64,
    /// Units that a workgroup can sum at most.
    pub most_units: u64,
    /// Estimated seconds for the whole reduction.
    pub seconds: f64,
    /// It reads both tensors packed by channels of four.
    pub packs_channels: bool,
}

/// Fewer output pixels than this a split, and summing the splits costs more than it gains.
const LEAST_PIXELS: u64 = 512;
/// More output pixels than this a split, and the sum of its chains of 64 grows beyond the accuracy contract.
const MOST_PIXELS: u64 = 1 << 17;
/// Bytes of partial sums beyond which splitting stops.
const MOST_PARTIAL_BYTES: u64 = 64 << 20;
/// Workgroups wanted for each that the device runs at once.
const WAVES: u64 = 2;

/// The tiled kernel, for any shape.
pub fn plan(problem: &Problem, limits: &Limits, plan: &mut Plan) -> Result<()> {
    let weights = if problem.options.skip_weight { 0 } else { problem.channels_per_group() * problem.taps() };
    let size = Size {
        m: problem.outputs_per_group(),
        n: weights + u64::from(problem.options.bias),
        times: problem.groups,
        runs: 1,
        run: problem.n * problem.p * problem.q,
        rounds: 0,
        transposing: true,
    };
    // Splitting fills the device whatever the tile, so the waves of one split do not count, nor does its length.
    let unlimited = Limits { concurrent_workgroups: 1, loop_iterations: u64::MAX, ..limits.clone() };
    let (tile, seconds) = choose(&CONV2D_BACKWARD_WEIGHT, &size, &unlimited)?;
    let columns = if tile.packs_channels() && !problem.options.skip_weight {
        filled(problem).channels_per_group() * problem.taps() + u64::from(problem.options.bias)
    } else {
        size.n
    };
    let columns = Columns {
        kernel: &CONV2D_BACKWARD_WEIGHT,
        tile: tile.index,
        specialization: vec![],
        tiles: size.m.div_ceil(tile.m()) * columns.div_ceil(tile.n()) * problem.groups,
        image_units: problem.p * problem.q,
        unit_pixels: 1,
        step: u64::from(tile.block),
        most_units: tile.most_terms(limits),
        seconds,
        packs_channels: tile.packs_channels(),
    };
    plan_splits(problem, limits, &columns, plan).map(drop)
}

/// Splits the reduction, and sums the splits where there is more than one. Plans nothing, and returns false, for a
/// kernel that would need addresses and does not take any.
pub fn plan_splits(problem: &Problem, limits: &Limits, columns: &Columns, plan: &mut Plan) -> Result<bool> {
    let weights = if problem.options.skip_weight { 0 } else { problem.weight_elements() };
    let biases = if problem.options.bias { problem.k } else { 0 };
    let read = if columns.packs_channels { filled(problem) } else { problem.clone() };
    let reach = Reach::new(&read, limits, &[("the weight's gradient", weights)])?;
    let images: Vec<_> = reach.slices(problem).collect();

    // Every slice of the batch has at least one split; beyond that, as many as fill the device.
    let units = columns.image_units;
    let wanted = (WAVES * u64::from(limits.concurrent_workgroups)).div_ceil(columns.tiles.max(1));
    let affordable = MOST_PARTIAL_BYTES / 4 / (weights + biases).max(1);
    let most = wanted.min(affordable).max(1);
    let longest = columns.most_units / columns.step * columns.step;
    let least = LEAST_PIXELS.div_ceil(columns.unit_pixels);
    let even = (problem.n * units).div_ceil(most).max(least).next_multiple_of(columns.step);
    let split_units = even.min(longest).min(MOST_PIXELS / columns.unit_pixels);
    let splits_of = |count: u64| (count * units).div_ceil(split_units);
    let splits: u64 = images.iter().map(|part| splits_of(part.count)).sum();

    // Every slice of the batch adds a partial sum, so together they may reach beyond a binding where no tensor does.
    let partial_elements = splits.saturating_mul(weights.max(biases));
    let addresses = reach.addresses_for(partial_elements, limits).ok_or_else(|| {
        Error::unsupported(format!(
            "the weight's gradient takes {splits} partial sums of {} bytes each, more than this device binds at most",
            4 * weights.max(biases)
        ))
    })?;
    if addresses && !columns.kernel.takes_addresses() {
        return Ok(false);
    }

    let direct = splits == 1 && !problem.options.accumulate;
    let (weight_at, bias_at) = if direct {
        (whole(Role::Weight, weights), whole(Role::Bias, biases))
    } else {
        (partial(plan, splits * weights), partial(plan, splits * biases))
    };
    let (mut input_packing, mut output_packing) = (Packing::new(Role::Input), Packing::new(Role::Output));
    let mut first_split = 0;
    for part in &images {
        let (mut input, mut output) = (part.input(problem), part.output(problem));
        if columns.packs_channels {
            if !problem.options.skip_weight {
                input = input_packing.plan(problem, limits, part, addresses, plan)?;
            }
            output = output_packing.plan(problem, limits, part, addresses, plan)?;
        }
        let part_splits = splits_of(part.count);
        let mut sizes = part.sizes(problem);
        sizes.flags = if problem.options.skip_weight { FLAG_SKIP_WEIGHT } else { 0 };
        sizes.extra = [split_units as u32, 0];
        let share = part.count as f64 / problem.n as f64;
        let dispatch = Dispatch {
            module: columns.kernel.tiled(columns.tile, addresses),
            specialization: columns.specialization.clone(),
            operands: [
                (!problem.options.skip_weight).then_some(input),
                slice_of(weight_at, first_split, part_splits, weights),
                slice_of(bias_at, first_split, part_splits, biases),
                Some(output),
            ],
            sizes,
            tiles: 0..0,
        };
        plan.push(dispatch, columns.tiles * part_splits, share * columns.seconds)?;
        first_split += part_splits;
    }
    if !direct {
        reduce::plan(problem, limits, addresses, weight_at, whole(Role::Weight, weights), splits, plan)?;
        reduce::plan(problem, limits, addresses, bias_at, whole(Role::Bias, biases), splits, plan)?;
    }
    Ok(true)
}

fn partial(plan: &mut Plan, elements: u64) -> Operand {
    Operand { role: Role::Workspace, offset: plan.reserve(4 * elements), bytes: 4 * elements }
}

/// The slices that one dispatch's splits write; none where that gradient is not wanted.
fn slice_of(results: Operand, first_split: u64, splits: u64, elements: u64) -> Option<Operand> {
    (elements > 0).then_some(Operand {
        offset: results.offset + 4 * first_split * elements,
        bytes: 4 * splits * elements,
        ..results
    })
}
