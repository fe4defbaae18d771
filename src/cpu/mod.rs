//! The CPU device: every pass of every problem, on the context's threads, with the same bits for any number of
//! them.
//!
//! - `gather`: a pass as a correlation over pixels and taps; forward and input gradient are the same thing.
//! - `dense`: forward and input gradient with many result channels, by the tiles of `panel` over a `region`'s patch
//!   and packed `weights`; `bounds` says which products with padding they leave out.
//! - `weight_gradient`: through the tile engine `gemm`, from pixels laid out by `interleaved`.
//! - `pointwise`: forward and input gradient of kernels of one element.
//! - `direct`, `direct_weight_gradient`: depthwise layers and small groups; `patch` pads for them.
//! - `chains`: how sums are cut, so that they are exact enough.
//! - `elementwise`: operations on pairs of elements.
//! - `pad`: what surrounds an input where zeros do not.
//! - `isa`, `threads`, `parallel`, `workspace`: which instructions, which threads, their work and their memory.
//!
//! Slices are contiguous: x and dx are N C H W, weight and dweight K C/g R S, y and dy N K P Q.

mod bounds;
mod chains;
mod dense;
mod direct;
mod direct_weight_gradient;
mod elementwise;
mod gather;
mod gemm;
mod interleaved;
mod isa;
mod memory;
mod pad;
mod panel;
mod parallel;
mod patch;
mod pointwise;
pub(crate) mod probe;
mod region;
#[cfg(test)]
mod tests;
mod threads;
mod weight_gradient;
mod weights;
mod workspace;

pub(crate) use elementwise::elementwise;
pub(crate) use memory::{Memory, Pool};
pub(crate) use threads::{HELPER, Threads};

use crate::error::{Error, Result};
use crate::problem::Problem;
use dense::Start;
use gather::Gather;
use isa::Isa;
use std::sync::Arc;

/// What passes are computed with: this processor, and a context's threads and memory.
pub(crate) struct Machine {
    isa: Isa,
    pub(crate) threads: Threads,
    pub(crate) memory: Arc<Pool>,
    forced: Option<Way>,
}

/// Ways to compute a pass, each with a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `dense`; weight gradients as `weight_gradient` packs them.
    Dense,
    /// `pointwise`; else as `Dense`.
    Pointwise,
    /// `direct` and `direct_weight_gradient`.
    Direct,
    /// `weight_gradient` of pixels that `interleaved` lays out; else as `Dense`.
    Interleaved,
}

impl Way {
    /// The way of that name.
    pub(crate) fn named(name: &str) -> Option<Way> {
        match name {
            "dense" => Some(Way::Dense),
            "pointwise" => Some(Way::Pointwise),
            "direct" => Some(Way::Direct),
            "interleaved" => Some(Way::Interleaved),
            _ => None,
        }
    }
}

impl Machine {
    /// `forced`: the way to take wherever it leads to the result, instead of the fastest.
    pub(crate) fn new(threads: Threads, memory: Pool, forced: Option<Way>) -> Machine {
        Machine { isa: Isa::detect(), threads, memory: Arc::new(memory), forced }
    }

    /// Whether to go a way that is usually taken where it is `fast`.
    fn takes(&self, way: Way, fast: bool) -> bool {
        self.forced.map_or(fast, |forced| forced == way)
    }
}

/// Bytes of the pool's memory that a pass takes beside its tensors: for the padded input, or its gradient.
pub fn workspace_bytes(problem: &Problem) -> u64 {
    problem.padded().map_or(0, |padded| 4 * padded.input_elements())
}

/// What a forward pass makes of `x`: `y`, with the bias or added to what it held.
///
/// # Errors
/// `InvalidArgument` for a slice of the wrong length, `OutOfHostMemory` for want of workspace.
pub(crate) fn forward(
    machine: &Machine,
    problem: &Problem,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<()> {
    fits("x", x, problem.input_elements())?;
    fits("weight", weight, problem.weight_elements())?;
    fits("y", y, problem.output_elements())?;
    bias.map_or(Ok(()), |bias| fits("bias", bias, problem.k))?;
    if let Some(padded) = problem.padded() {
        let x = pad::pad(machine, problem, &padded, x)?;
        return forward(machine, &padded, &x, weight, bias, y);
    }
    correlate(machine, &Gather::forward(problem), x, weight, start(problem, bias), y)
}

/// What an input gradient makes of `dy`: `dx`, with a bias (a transposed convolution's) or added to what it held.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward_input(
    machine: &Machine,
    problem: &Problem,
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    dx: &mut [f32],
) -> Result<()> {
    fits("dy", dy, problem.output_elements())?;
    fits("weight", weight, problem.weight_elements())?;
    fits("dx", dx, problem.input_elements())?;
    bias.map_or(Ok(()), |bias| fits("bias", bias, problem.c))?;
    if let Some(mut padded) = problem.padded() {
        padded.options.accumulate = false;
        let mut gradient = Memory::new(&machine.memory, 4 * padded.input_elements())?;
        let elements = padded.input_elements() as usize;
        backward_input(machine, &padded, dy, weight, bias, &mut gradient.own()[..elements])?;
        return pad::fold(machine, problem, &padded, &gradient.own()[..elements], dx);
    }
    let (mut gathers, misses_some) = Gather::backward_input(problem);
    let start = start(problem, bias);
    if misses_some {
        match start {
            Start::Old => {}
            Start::Zero => dx.fill(0.0),
            Start::Bias(bias) => {
                let channels = dx.chunks_exact_mut((problem.h * problem.w) as usize);
                channels.zip(bias.iter().cycle()).for_each(|(channel, &bias)| channel.fill(bias));
            }
        }
    }
    gathers.try_for_each(|gather| correlate(machine, &gather, dy, weight, start, dx))
}

/// The gradients of weight and bias, those that are wanted, from `x` and `dy`. A bias's needs only the tensor that it
/// was added to.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward_weight(
    machine: &Machine,
    problem: &Problem,
    x: &[f32],
    dy: &[f32],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) -> Result<()> {
    let accumulate = problem.options.accumulate;
    if let Some(dbias) = dbias {
        fits("dbias", dbias, problem.bias_elements())?;
        let (name, sums_of, elements) =
            if problem.transposed { ("x", x, problem.input_elements()) } else { ("dy", dy, problem.output_elements()) };
        fits(name, sums_of, elements)?;
        weight_gradient::bias(machine, problem.n as usize, sums_of, accumulate, dbias)?;
    }
    let Some(dweight) = dweight else { return Ok(()) };
    fits("x", x, problem.input_elements())?;
    fits("dy", dy, problem.output_elements())?;
    fits("dweight", dweight, problem.weight_elements())?;
    if let Some(padded) = problem.padded() {
        let x = pad::pad(machine, problem, &padded, x)?;
        return backward_weight(machine, &padded, &x, dy, Some(dweight), None);
    }
    let gather = Gather::forward(problem);
    if direct_weight_gradient::weight_gradient(machine, &gather, x, dy, accumulate, dweight)? {
        return Ok(());
    }
    weight_gradient::dense(machine, &gather, x, dy, accumulate, dweight)
}

fn start<'a>(problem: &Problem, bias: Option<&'a [f32]>) -> Start<'a> {
    match bias {
        Some(bias) => Start::Bias(bias),
        None if problem.options.accumulate => Start::Old,
        None => Start::Zero,
    }
}

fn correlate(
    machine: &Machine,
    gather: &Gather,
    src: &[f32],
    weight: &[f32],
    start: Start<'_>,
    dst: &mut [f32],
) -> Result<()> {
    if direct::correlate(machine, gather, src, weight, start, dst)?
        || pointwise::correlate(machine, gather, src, weight, start, dst)?
    {
        return Ok(());
    }
    dense::correlate(machine, gather, src, weight, start, dst)
}

fn fits(name: &str, slice: &[f32], elements: u64) -> Result<()> {
    if slice.len() as u64 == elements {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} has {} elements, expected {elements}", slice.len())))
}
