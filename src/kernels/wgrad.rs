//! Weight (and bias) gradient as a product of matrices: `shaders/conv2d-backward-weight.glsl`.

use super::channels::filled;
use super::splits::Reduction;
use super::table::CONV2D_BACKWARD_WEIGHT;
use super::tile::{Chosen, Size, Takers, choose};
use crate::error::Result;
use crate::plan::Limits;
use crate::problem::Problem;

/// The tiled kernel, for any shape.
///
/// # Errors
/// `Unsupported` if no tile can be run.
pub fn reduction(problem: &Problem, limits: &Limits) -> Result<Reduction> {
    let weights = problem.channels_per_group() * problem.taps();
    let size = Size {
        m: problem.outputs_per_group(),
        n: weights + u64::from(problem.options.bias),
        times: problem.groups,
        runs: 1,
        run: problem.n * problem.p * problem.q,
        rounds: 0,
        listed: 0,
        takers: Takers::All,
        transposing: true,
        splittable: 0,
    };
    // Splitting fills the device whatever the tile, so the waves of one split do not count, nor does its length.
    let unlimited = Limits { concurrent_workgroups: 1, loop_iterations: u64::MAX, ..limits.clone() };
    let Chosen { tile, seconds, .. } = choose(&CONV2D_BACKWARD_WEIGHT, &size, &unlimited)?;
    let columns = if tile.packs_channels() {
        filled(problem).channels_per_group() * problem.taps() + u64::from(problem.options.bias)
    } else {
        size.n
    };
    Ok(Reduction {
        problem: problem.clone(),
        kernel: &CONV2D_BACKWARD_WEIGHT,
        tile: tile.index,
        specialization: vec![],
        tiles: size.m.div_ceil(tile.m()) * columns.div_ceil(tile.n()) * problem.groups,
        bias_slices: 1,
        residents: 0,
        image_units: problem.p * problem.q,
        unit_pixels: 1,
        step: u64::from(tile.block),
        most_units: tile.most_terms(limits),
        seconds,
        prefers_addresses: false,
        packs_channels: tile.packs_channels(),
    })
}
