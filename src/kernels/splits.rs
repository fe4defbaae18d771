//! Splitting the long reduction of a weight (and bias) gradient over workgroups, whatever the kernel.

use super::Kernel;
use super::channels::{Packing, filled};
use super::reduce::{MOST_PARTIAL_BYTES, Sum};
use super::slices::{Reach, whole};
use super::tile::busiest_unit;
use crate::error::{Error, Result};
use crate::plan::{Dispatch, Limits, Operand, Plan, Role, Walk};
use crate::problem::Problem;

/// The kernel of a weight's gradient and its bias's, or of a bias's alone, but for how the reduction is split.
pub struct Reduction {
    /// The problem as the kernel sees it.
    pub problem: Problem,
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Which of its tiles.
    pub tile: usize,
    /// Values of its specialization constants.
    pub specialization: Vec<u32>,
    /// Workgroups of one split.
    pub tiles: u64,
    /// Parts of the bias's gradient that a split writes, one after the other.
    pub bias_slices: u64,
    /// Workgroups that one of the device's units runs at once; 0: many, it does not matter how many.
    pub residents: u64,
    /// Units that an image of the output is summed by.
    pub image_units: u64,
    /// Output pixels of a unit.
    pub unit_pixels: u64,
    /// Units that a workgroup takes at a time.
    pub step: u64,
    /// Units that a workgroup can sum at most.
    pub most_units: u64,
    /// Estimated seconds for the whole reduction where it fills the device.
    pub seconds: f64,
    /// It is faster through addresses than through bindings.
    pub prefers_addresses: bool,
    /// It reads both tensors packed by channels of four.
    pub packs_channels: bool,
}

/// Fewer output pixels than this a split, and summing the splits costs more than it gains.
const LEAST_PIXELS: u64 = 512;
/// More output pixels than this a split, and where chains have 64 products, as those of strips, the sum of the chains grows
/// beyond the accuracy contract.
const MOST_PIXELS: u64 = 1 << 17;
/// Workgroups wanted for each that the device runs at once, where it does not matter how many there are.
const WAVES: u64 = 2;
/// What a further split costs, as a share of a wave.
const SPLIT_COST: f64 = 0.01;

impl Reduction {
    /// Estimated seconds on a device that it may not fill.
    pub fn cost(&self, limits: &Limits) -> f64 {
        let pixels = self.problem.n * self.image_units * self.unit_pixels;
        let splits = self.wanted_splits(limits).min(pixels.div_ceil(LEAST_PIXELS)).max(1);
        let workgroups = (self.tiles * splits).max(1);
        let threads = self.kernel.tiled(self.tile, false).local_size.map(u64::from).iter().product();
        busiest_unit(self.seconds / workgroups as f64, workgroups, threads, limits)
    }

    /// How many splits fill the device.
    fn wanted_splits(&self, limits: &Limits) -> u64 {
        let tiles = self.tiles.max(1);
        let fill = (WAVES * u64::from(limits.concurrent_workgroups)).div_ceil(tiles);
        if self.residents == 0 {
            return fill;
        }
        // Workgroups that last equally long: the last wave should be full.
        let slots = (u64::from(limits.concurrent_workgroups / 2) * self.residents).max(1);
        let time = |splits: u64| {
            (tiles * splits).div_ceil(slots) as f64 / splits as f64
                + SPLIT_COST * splits as f64 * tiles as f64 / slots as f64
        };
        (1..=(2 * slots).div_ceil(tiles)).min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1)
    }
}

/// Splits the reduction, and returns the sums of splits that are to be planned after it: one for each gradient that the
/// kernel does not write itself. Plans nothing, and returns `None`, for a kernel that would need addresses and does not
/// take any.
///
/// # Errors
/// `Unsupported` for tensors beyond this device's reach.
pub fn plan(reduction: &Reduction, limits: &Limits, plan: &mut Plan) -> Result<Option<Vec<Sum>>> {
    let problem = &reduction.problem;
    let weights = if problem.options.skip_weight { 0 } else { problem.weight_elements() };
    let biases = if problem.options.bias { problem.k } else { 0 };
    let split_biases = reduction.bias_slices * biases;
    let read = if reduction.packs_channels { filled(problem) } else { problem.clone() };
    let reach = Reach::new(&read, limits, &[("the weight's gradient", weights)])?;
    let images: Vec<_> = reach.slices(problem).collect();

    // Every slice of the batch has at least one split; beyond that, as many as fill the device.
    let units = reduction.image_units;
    let wanted = reduction.wanted_splits(limits);
    let affordable = MOST_PARTIAL_BYTES / 4 / (weights + split_biases).max(1);
    let most = wanted.min(affordable).max(1);
    let longest = reduction.most_units / reduction.step * reduction.step;
    let least = LEAST_PIXELS.div_ceil(reduction.unit_pixels);
    let even = (problem.n * units).div_ceil(most).max(least).next_multiple_of(reduction.step);
    let split_units = even.min(longest).min(MOST_PIXELS / reduction.unit_pixels);
    let splits_of = |count: u64| (count * units).div_ceil(split_units);
    let splits: u64 = images.iter().map(|part| splits_of(part.count)).sum();

    // Every slice of the batch adds a partial sum, so together they may reach beyond a binding where no tensor does.
    let partial_elements = splits.saturating_mul(weights.max(split_biases));
    let addresses = reach.addresses_for(partial_elements, limits).ok_or_else(|| {
        Error::unsupported(format!(
            "a gradient takes {splits} partial sums of {} bytes each, more than this device binds at most",
            4 * weights.max(split_biases)
        ))
    })?;
    let addresses = addresses || reduction.prefers_addresses;
    if addresses && !reduction.kernel.takes_addresses() {
        return Ok(None);
    }

    let accumulate = problem.options.accumulate;
    let mut sums = Vec::new();
    let mut result_at = |role: Role, elements: u64, splits: u64| {
        let result = whole(role, elements);
        if (splits == 1 && !accumulate) || elements == 0 {
            return result;
        }
        let bytes = 4 * splits * elements;
        let partial = Operand { role: Role::Workspace, offset: plan.reserve(bytes), bytes };
        sums.push(Sum { partial, splits, bias: None, result, accumulate, addresses });
        partial
    };
    let weight_at = result_at(Role::Weight, weights, splits);
    let bias_at = result_at(Role::Bias, biases, splits * reduction.bias_slices);
    let (mut input_packing, mut output_packing) = (Packing::new(Role::Input), Packing::new(Role::Output));
    let mut first_split = 0;
    for part in &images {
        let (mut input, mut output) = (part.input(problem), part.output(problem));
        if reduction.packs_channels {
            input = input_packing.plan(problem, limits, part, addresses, plan)?;
            output = output_packing.plan(problem, limits, part, addresses, plan)?;
        }
        let part_splits = splits_of(part.count);
        let mut sizes = part.sizes(problem);
        sizes.extra = [split_units as u32, 0];
        let share = part.count as f64 / problem.n as f64;
        let dispatch = Dispatch {
            module: reduction.kernel.tiled(reduction.tile, addresses),
            specialization: reduction.specialization.clone(),
            operands: [
                (!problem.options.skip_weight).then_some(input),
                slice_of(weight_at, first_split, part_splits, weights),
                slice_of(bias_at, first_split, part_splits, split_biases),
                Some(output),
            ],
            sizes,
            tiles: 0..0,
        };
        let walk = Walk { tiles: reduction.tiles, units: split_units, image_units: units };
        plan.push_walking(dispatch, part.count, share * reduction.seconds, walk)?;
        first_split += part_splits;
    }
    Ok(Some(sums))
}

/// The slices that one dispatch's splits write; none where that gradient is not wanted.
fn slice_of(results: Operand, first_split: u64, splits: u64, elements: u64) -> Option<Operand> {
    (elements > 0).then_some(Operand {
        offset: results.offset + 4 * first_split * elements,
        bytes: 4 * splits * elements,
        ..results
    })
}
