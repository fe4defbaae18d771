//! The CPU device: every pass of every problem, on as many threads as the caller grants, with the same bits for any
//! number of them.
//!
//! - `gather`: a pass as a correlation over pixels and taps; forward and input gradient are the same thing.
//! - `dense`, `weight_gradient`: through the tile engine `gemm`.
//! - `direct`, `direct_weight_gradient`: without it, for depthwise layers and small groups; `patch` pads for them.
//! - `elementwise`: operations on pairs of elements.
//! - `isa`, `parallel`: which instructions, which threads.
//!
//! Slices are contiguous: x and dx are N C H W, weight and dweight K C/g R S, y and dy N K P Q.

mod dense;
mod direct;
mod direct_weight_gradient;
mod elementwise;
mod gather;
mod gemm;
mod isa;
mod memory;
mod parallel;
mod patch;
pub(crate) mod probe;
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

/// `y` from `x`, weight and bias.
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
    let start = bias.map_or(Start::Zero, Start::Bias);
    correlate(isa, &Gather::forward(problem), x, weight, start, y, threads)
}

/// `dx` from `dy` and weight.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward_input(
    problem: &Problem,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    threads: usize,
) -> Result<()> {
    backward_input_on(Isa::detect(), problem, dy, weight, dx, threads)
}

fn backward_input_on(
    isa: Isa,
    problem: &Problem,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    threads: usize,
) -> Result<()> {
    fits("dy", dy, problem.output_elements())?;
    fits("weight", weight, problem.weight_elements())?;
    fits("dx", dx, problem.input_elements())?;
    let (mut gathers, zeros_elsewhere) = Gather::backward_input(problem);
    if zeros_elsewhere && !problem.options.accumulate {
        dx.fill(0.0);
    }
    let start = if problem.options.accumulate { Start::Old } else { Start::Zero };
    gathers.try_for_each(|gather| correlate(isa, &gather, dy, weight, start, dx, threads))
}

/// The gradients of weight and bias, those that are wanted, from `x` and `dy`.
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
    fits("dy", dy, problem.output_elements())?;
    let accumulate = problem.options.accumulate;
    let gather = Gather::forward(problem);
    if let Some(dweight) = dweight {
        fits("x", x, problem.input_elements())?;
        fits("dweight", dweight, problem.weight_elements())?;
        if !direct_weight_gradient::weight_gradient(isa, &gather, x, dy, accumulate, dweight, threads)? {
            weight_gradient::dense(isa, &gather, x, dy, accumulate, dweight, threads)?;
        }
    }
    if let Some(dbias) = dbias {
        fits("dbias", dbias, problem.k)?;
        weight_gradient::bias(&gather, dy, accumulate, dbias, threads)?;
    }
    Ok(())
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
