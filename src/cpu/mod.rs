//! The CPU device: every pass of every problem, on as many threads as the caller grants, with the same bits for any
//! number of them.
//!
//! - `gather`: a pass as a correlation over pixels and taps; forward and input gradient are the same thing.
//! - `dense`, `weight_gradient`: through the tile engine `gemm`.
//! - `direct`, `direct_weight_gradient`: without it, for depthwise layers and small groups; `patch` pads for them.
//! - `elementwise`: operations on pairs of elements.
//! - `pad`: what surrounds an input where zeros do not.
//! - `shifted`, `interleaved`: pixels laid out so that those two need not pack them tap by tap.
//! - `isa`, `parallel`: which instructions, which threads.
//!
//! Slices are contiguous: x and dx are N C H W, weight and dweight K C/g R S, y and dy N K P Q.

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
mod parallel;
mod patch;
pub(crate) mod probe;
mod shifted;
#[cfg(test)]
mod tests;
mod weight_gradient;

pub(crate) use elementwise::elementwise;
pub(crate) use memory::{Memory, Pool};

use crate::error::{Error, Result};
use crate::problem::Problem;
use dense::Start;
use gather::Gather;
use isa::Isa;

/// As many threads as the system says this process may keep busy.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a forward pass makes of `x`: `y`, with the bias or added to what it held.
///
/// # Errors
/// `InvalidArgument` for a slice of the wrong length, `OutOfHostMemory` for want of workspace.
pub(crate) fn forward(
    problem: &Problem,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    threads: usize,
) -> Result<()> {
    forward_on(Isa::detect(), problem, x, weight, bias, y, threads)
}

fn forward_on(
    isa: Isa,
    problem: &Problem,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    threads: usize,
) -> Result<()> {
    fits("x", x, problem.input_elements())?;
    fits("weight", weight, problem.weight_elements())?;
    fits("y", y, problem.output_elements())?;
    bias.map_or(Ok(()), |bias| fits("bias", bias, problem.k))?;
    if let Some(padded) = problem.padded() {
        let x = pad::pad(problem, &padded, x, threads)?;
        return forward_on(isa, &padded, &x, weight, bias, y, threads);
    }
    correlate(isa, &Gather::forward(problem), x, weight, start(problem, bias), y, threads)
}

/// What an input gradient makes of `dy`: `dx`, with a bias (a transposed convolution's) or added to what it held.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward_input(
    problem: &Problem,
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    dx: &mut [f32],
    threads: usize,
) -> Result<()> {
    backward_input_on(Isa::detect(), problem, dy, weight, bias, dx, threads)
}

fn backward_input_on(
    isa: Isa,
    problem: &Problem,
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    dx: &mut [f32],
    threads: usize,
) -> Result<()> {
    fits("dy", dy, problem.output_elements())?;
    fits("weight", weight, problem.weight_elements())?;
    fits("dx", dx, problem.input_elements())?;
    bias.map_or(Ok(()), |bias| fits("bias", bias, problem.c))?;
    if let Some(mut padded) = problem.padded() {
        padded.options.accumulate = false;
        let mut gradient = parallel::zeroed(padded.input_elements() as usize)?;
        backward_input_on(isa, &padded, dy, weight, bias, &mut gradient, threads)?;
        return pad::fold(problem, &padded, &gradient, dx, threads);
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
    gathers.try_for_each(|gather| correlate(isa, &gather, dy, weight, start, dx, threads))
}

/// The gradients of weight and bias, those that are wanted, from `x` and `dy`. A bias's needs only the tensor that it
/// was added to.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward_weight(
    problem: &Problem,
    x: &[f32],
    dy: &[f32],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
    threads: usize,
) -> Result<()> {
    backward_weight_on(Isa::detect(), problem, x, dy, dweight, dbias, threads)
}

fn backward_weight_on(
    isa: Isa,
    problem: &Problem,
    x: &[f32],
    dy: &[f32],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
    threads: usize,
) -> Result<()> {
    let accumulate = problem.options.accumulate;
    if let Some(dbias) = dbias {
        fits("dbias", dbias, problem.bias_elements())?;
        let (name, sums_of, elements) =
            if problem.transposed { ("x", x, problem.input_elements()) } else { ("dy", dy, problem.output_elements()) };
        fits(name, sums_of, elements)?;
        weight_gradient::bias(problem.n as usize, sums_of, accumulate, dbias, threads)?;
    }
    let Some(dweight) = dweight else { return Ok(()) };
    fits("x", x, problem.input_elements())?;
    fits("dy", dy, problem.output_elements())?;
    fits("dweight", dweight, problem.weight_elements())?;
    if let Some(padded) = problem.padded() {
        let x = pad::pad(problem, &padded, x, threads)?;
        return backward_weight_on(isa, &padded, &x, dy, Some(dweight), None, threads);
    }
    let gather = Gather::forward(problem);
    if direct_weight_gradient::weight_gradient(isa, &gather, x, dy, accumulate, dweight, threads)? {
        return Ok(());
    }
    weight_gradient::dense(isa, &gather, x, dy, accumulate, dweight, threads)
}

fn start<'a>(problem: &Problem, bias: Option<&'a [f32]>) -> Start<'a> {
    match bias {
        Some(bias) => Start::Bias(bias),
        None if problem.options.accumulate => Start::Old,
        None => Start::Zero,
    }
}

fn correlate(
    isa: Isa,
    gather: &Gather,
    src: &[f32],
    weight: &[f32],
    start: Start<'_>,
    dst: &mut [f32],
    threads: usize,
) -> Result<()> {
    if direct::correlate(isa, gather, src, weight, start, dst, threads)? {
        return Ok(());
    }
    dense::correlate(isa, gather, src, weight, start, dst, threads)
}

fn fits(name: &str, slice: &[f32], elements: u64) -> Result<()> {
    if slice.len() as u64 == elements {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} has {} elements, expected {elements}", slice.len())))
}
