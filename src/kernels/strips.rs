//! Depthwise layers, groups of few channels and small layers by strips of pixels, for the kernels that
//! `shaders/permutations.txt` lists: `shaders/lib/strips.glsl`.

use super::depthwise;
use super::implicit_gemm::{operands, results, sizes};
use super::slices::Reach;
use super::splits::Reduction;
use super::table::{
    STRIP_SIZES, STRIPS_BACKWARD_INPUT, STRIPS_BACKWARD_WEIGHT, STRIPS_FORWARD, STRIPS_FORWARD_THREADS as THREADS,
    WINDOW_SIZES,
};
use super::tile::busiest_unit;
use crate::error::Result;
use crate::plan::{
    ALL_VECTORS, Dispatch, Limits, Module, Operand, Plan, Role, VECTORS_ID, VECTORS_INPUT, VECTORS_OUTPUT, Walk,
};
use crate::problem::{Pass, Problem};

/// What [`Limits::kernel`] calls forward passes and input gradients by strips.
pub const NAME: &str = "strips";
/// What it calls those whose strips are shared by as many threads as can.
pub const PARTS: &str = "strips_parts";
/// Threads that share a strip at most.
const MOST_PARTS: u64 = 16;

/// Share of a device's peak that forward passes and input gradients reach.
const RESULTS_EFFICIENCY: f64 = 0.2;
const RESULTS_EFFICIENCY_SOFTWARE: f64 = 0.04;
/// The same of weight gradients.
const EFFICIENCY: f64 = 0.2;
/// Weight gradients of groups with several channels read both planes again for each pair.
const PAIRS_EFFICIENCY: f64 = 0.1;
/// A software driver reads vectors thread by thread.
const EFFICIENCY_SOFTWARE: f64 = 0.01;
/// Products that `shaders/lib/strips_results.glsl` chains before it adds them to a total.
const CHAIN: u64 = 64;
/// Chains that may meet in one total: each product meets fewer roundings than 8·√K, and of random numbers the Frobenius
/// error, which grows with the root of their number, was 1.6e-6 with 8000 and 1.2e-6 with 4100. Loops of so many rounds
/// no driver ends.
const MOST_CHAINS: u64 = 2048;
/// Columns of the source that are read before and after a strip's own.
const MARGIN: u64 = 4;

/// A size of the list that fits a problem.
struct Window {
    index: usize,
    stride: u64,
    rows: u64,
    columns: u64,
    /// Threads of a workgroup.
    threads: u64,
}

/// How a forward pass or an input gradient is served.
pub struct Choice {
    window: Window,
    /// Threads that share a strip.
    parts: u64,
    /// Estimated time.
    pub seconds: f64,
}

/// The cheapest way, if there is a kernel for the problem.
pub fn choice(problem: &Problem, limits: &Limits) -> Option<Choice> {
    let window = window(problem, limits)?;
    let sources = sources(problem);
    let fits =
        |parts: &u64| *parts == 1 || *parts <= sources && 4 * window.shared_floats() <= limits.shared_memory.into();
    let mut offered = (0..=MOST_PARTS.ilog2()).map(|power| 1 << power).filter(fits);
    let cost = |parts: u64| seconds(problem, &window, parts, limits);
    let parts = match limits.kernel {
        Some(PARTS) => offered.next_back()?,
        // Cores of a software driver share evenly without.
        _ if limits.software => offered.next()?,
        _ => offered.min_by(|&a, &b| cost(a).total_cmp(&cost(b)))?,
    };
    Some(Choice { seconds: seconds(problem, &window, parts, limits), window, parts })
}

fn seconds(problem: &Problem, window: &Window, parts: u64, limits: &Limits) -> f64 {
    let efficiency = if limits.software { RESULTS_EFFICIENCY_SOFTWARE } else { RESULTS_EFFICIENCY };
    let sources = sources(problem);
    // Strips at the edges compute what does not exist.
    let strip = problem.flops() / results(problem) as f64 * (window.rows * window.columns) as f64;
    // Adding the parts takes about as long as another source channel.
    let share = (sources.div_ceil(parts) + u64::from(parts > 1)) as f64 / sources as f64;
    let workgroup = f64::from(THREADS) * strip * share / efficiency;
    let workgroups = (problem.n * window.strips(problem)).div_ceil(u64::from(THREADS) / parts);
    busiest_unit(workgroup, workgroups, THREADS.into(), limits) / limits.flops
}

/// Appends a forward pass or an input gradient. The weight is raw, or packed in [`super::pack`]'s order, as its role says.
///
/// # Errors
/// `Unsupported` for tensors beyond this device's reach.
pub fn plan(problem: &Problem, limits: &Limits, choice: &Choice, weight: Operand, plan: &mut Plan) -> Result<()> {
    let Choice { window, parts, seconds } = choice;
    let kernel = if problem.pass == Pass::Forward { &STRIPS_FORWARD } else { &STRIPS_BACKWARD_INPUT };
    let reach = Reach::new(problem, limits, &[("the weight", weight.bytes / 4)])?;
    let module = kernel.tiled(window.index, reach.addresses || limits.prefers_addresses());
    for images in reach.slices(problem) {
        let dispatch = Dispatch {
            module,
            specialization: specialization(problem, limits, module, window, weight.role == Role::Packed, *parts),
            operands: operands(problem, &images, weight),
            sizes: sizes(problem, &images),
            tiles: 0..0,
        };
        let share = images.count as f64 / problem.n as f64;
        let strips = u64::from(THREADS) / parts;
        let walk = Walk { tiles: 1, units: strips, image_units: window.strips(problem) };
        plan.push_walking(dispatch, images.count, share * seconds, walk)?;
    }
    Ok(())
}

impl Window {
    /// Floats of shared memory in which a workgroup's parts of strips meet.
    fn shared_floats(&self) -> u64 {
        self.rows * self.columns * u64::from(THREADS + 1)
    }

    /// Strips of an image of the result.
    fn strips(&self, problem: &Problem) -> u64 {
        let (channels, height, width) = match problem.pass {
            Pass::BackwardInput => (problem.c, problem.h, problem.w),
            _ => (problem.k, problem.p, problem.q),
        };
        channels * height.div_ceil(self.rows) * width.div_ceil(self.columns)
    }
}

fn window(problem: &Problem, limits: &Limits) -> Option<Window> {
    let backward_input = problem.pass == Pass::BackwardInput;
    let listed = |[r, s, stride]: [u32; 3]| {
        [r, s].map(u64::from) == [problem.r, problem.s] && problem.stride == [u64::from(stride); 2]
    };
    let (index, [stride, rows, threads]) = if problem.pass == Pass::BackwardWeight {
        let mut sizes = WINDOW_SIZES.into_iter().enumerate();
        let (index, [.., stride, rows, threads]) = sizes.find(|(_, [r, s, stride, ..])| listed([*r, *s, *stride]))?;
        (index, [stride, rows, threads])
    } else {
        let sizes = STRIP_SIZES.into_iter().enumerate().filter(|(_, [r, s, stride, _])| listed([*r, *s, *stride]));
        // Where a result has few products, short strips have more loads under way; long ones read fewer lines twice.
        let short = sources(problem) == 1 && (!limits.software || by_name(problem, limits));
        let (index, [.., stride, rows]) = sizes.max_by_key(|(_, [.., rows])| if short { !rows } else { *rows })?;
        (index, [stride, rows, THREADS])
    };
    let [stride, rows, threads] = [stride, rows, threads].map(u64::from);
    let columns = if backward_input { 4 * stride } else { 4 };
    // Columns that the strip reads beyond its own, before and after.
    let (before, after) = if backward_input {
        (problem.s.saturating_sub(1 + problem.padding[1]), problem.padding[1])
    } else {
        (problem.padding[1], (problem.s - 1).saturating_sub(problem.padding[1] + stride - 1))
    };
    let margin = if backward_input { MARGIN * stride } else { MARGIN };
    let chains = sources(problem).div_ceil((CHAIN / problem.taps()).max(1));
    let fits = problem.dilation == [1, 1]
        && (chains <= MOST_CHAINS || problem.pass == Pass::BackwardWeight)
        && before <= margin
        && after <= margin
        && (!limits.software || by_name(problem, limits) || pays_on_software(problem))
        && threads <= limits.workgroup_threads.into();
    fits.then_some(Window { index, stride, rows, columns, threads })
}

fn by_name(problem: &Problem, limits: &Limits) -> bool {
    match limits.kernel {
        Some(NAME | PARTS) => problem.pass != Pass::BackwardWeight,
        name => name == Some(STRIPS_BACKWARD_WEIGHT.name()) && problem.pass == Pass::BackwardWeight,
    }
}

/// A software driver takes seconds to compile a pipeline, so depthwise layers get strips only where these are several
/// times as fast as what serves any of them: with rows of whole vectors.
fn pays_on_software(problem: &Problem) -> bool {
    !depthwise::applies(problem) || vectors(problem) == ALL_VECTORS
}

/// The tensors whose rows are whole vectors.
fn vectors(problem: &Problem) -> u32 {
    let whole = |width: u64, flag: u32| if width.is_multiple_of(4) { flag } else { 0 };
    whole(problem.w, VECTORS_INPUT) | whole(problem.q, VECTORS_OUTPUT)
}

/// Weight gradient, if there is a kernel for it. Each pair of an input and an output channel of a group is summed on its
/// own, so it is for few of them.
pub fn reduction(problem: &Problem, limits: &Limits) -> Option<Reduction> {
    let window = window(problem, limits)?;
    let module = STRIPS_BACKWARD_WEIGHT.tiled(window.index, false);
    let efficiency = match problem.channels_per_group() {
        1 => EFFICIENCY,
        _ if limits.software => EFFICIENCY_SOFTWARE,
        _ => PAIRS_EFFICIENCY,
    };
    Some(Reduction {
        problem: problem.clone(),
        kernel: &STRIPS_BACKWARD_WEIGHT,
        tile: window.index,
        specialization: specialization(problem, limits, module, &window, false, 1),
        tiles: problem.k * problem.channels_per_group(),
        bias_slices: 1,
        residents: 0,
        image_units: problem.p.div_ceil(window.rows) * problem.q.div_ceil(window.columns),
        unit_pixels: window.rows * window.columns,
        step: window.threads,
        // A round a strip, and a few to sum what the threads have.
        most_units: (limits.loop_iterations / 2).saturating_mul(window.threads),
        seconds: problem.flops() / (efficiency * limits.flops),
        prefers_addresses: false,
        packs_channels: false,
    })
}

/// Source channels of a group.
fn sources(problem: &Problem) -> u64 {
    if problem.pass == Pass::BackwardInput { problem.outputs_per_group() } else { problem.channels_per_group() }
}

/// Values for the module's constants; see `shaders/lib/strips.glsl`.
fn specialization(
    problem: &Problem,
    limits: &Limits,
    module: &Module,
    window: &Window,
    packed: bool,
    parts: u64,
) -> Vec<u32> {
    let beyond = |rows: u64| rows.wrapping_sub(problem.padding[0]) & (window.stride - 1);
    let value = |id: &u32| match *id {
        0 => problem.padding[1] as u32,
        1 => (problem.r - 1 - beyond(problem.r - 1)) as u32,
        2 => (sources(problem) > 1).into(),
        3 => packed.into(),
        4 => parts as u32,
        5 if parts > 1 => window.shared_floats() as u32,
        5 => 1,
        VECTORS_ID if limits.software && vectors(problem) != ALL_VECTORS => 0,
        VECTORS_ID => vectors(problem),
        id => unreachable!("{} has no constant {id}", module.name),
    };
    module.specialization_ids.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::STRIPS_BACKWARD_INPUT_THREADS;

    #[test]
    fn forward_and_input_gradient_share_their_workgroups() {
        assert_eq!(THREADS, STRIPS_BACKWARD_INPUT_THREADS);
    }

    #[test]
    fn sizes_keep_what_their_kernels_rely_on() {
        for [r, s, stride, rows] in STRIP_SIZES {
            assert!(r * s <= 64, "a chain has at most 64 products");
            assert!(matches!(stride, 1 | 2) && rows % stride == 0, "strips of an input gradient begin at one phase");
        }
        for [r, s, stride, rows, threads] in WINDOW_SIZES {
            assert!(4 * rows <= 64, "a chain has at most 64 products");
            assert!(matches!(stride, 1 | 2), "the margins are for these");
            assert!(r * s < threads, "a thread for each result");
        }
    }
}
