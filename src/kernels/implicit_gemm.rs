//! Forward and input gradient as an implicit GEMM: `shaders/lib/implicit_gemm.glsl`.

use super::FLAG_ACCUMULATE;
use super::channels::{Packing, filled};
use super::slices::{Images, Reach, whole};
use super::table::{CONV2D_BACKWARD_INPUT, CONV2D_FORWARD};
use super::tile::{Size, choose};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Role};
use crate::problem::{Pass, Problem};

/// Appends the product of `packed`, a weight in [`super::pack`]'s order, and the source.
pub fn plan(problem: &Problem, limits: &Limits, packed: Operand, plan: &mut Plan) -> Result<()> {
    let forward = problem.pass == Pass::Forward;
    let (kernel, result_plane) = if forward {
        (&CONV2D_FORWARD, problem.p * problem.q)
    } else {
        (&CONV2D_BACKWARD_INPUT, problem.h * problem.w)
    };
    let (result_channels, source_channels) = if forward {
        (problem.outputs_per_group(), problem.channels_per_group())
    } else {
        (problem.channels_per_group(), problem.outputs_per_group())
    };
    let size = Size {
        m: result_channels,
        n: problem.n * result_plane,
        times: problem.groups,
        runs: problem.taps(),
        run: source_channels,
    };
    let (tile, seconds) = choose(&size, limits)?;
    let read = if tile.packs_channels() { filled(problem) } else { problem.clone() };
    let reach = Reach::new(&read, limits, &[("the packed weight", packed.bytes / 4)])?;
    let specialization = if forward { vec![] } else { vec![u32::from(problem.stride == [1, 1])] };
    let (source, binding) = if forward { (Role::Input, 0) } else { (Role::Output, 3) };
    let mut packing = Packing::new(source);
    for images in reach.slices(problem) {
        let mut operands = operands(problem, &images, packed);
        if tile.packs_channels() {
            operands[binding] = Some(packing.plan(problem, limits, &images, reach.addresses, plan)?);
        }
        let dispatch = Dispatch {
            module: kernel.tiled(tile.index, reach.addresses),
            specialization: specialization.clone(),
            operands,
            sizes: sizes(problem, &images),
            tiles: 0..0,
        };
        let columns = (images.count * result_plane).div_ceil(tile.n());
        let share = images.count as f64 / problem.n as f64;
        plan.push(dispatch, size.m.div_ceil(tile.m()) * columns * problem.groups, share * seconds)?;
    }
    Ok(())
}

/// The tensors of a forward pass or an input gradient.
pub fn operands(problem: &Problem, images: &Images, weight: Operand) -> [Option<Operand>; 4] {
    let bias = problem.options.bias.then(|| whole(Role::Bias, problem.bias_elements()));
    [Some(images.input(problem)), Some(weight), bias, Some(images.output(problem))]
}

/// The push constants of a forward pass or an input gradient.
pub fn sizes(problem: &Problem, images: &Images) -> crate::plan::Sizes {
    let mut sizes = images.sizes(problem);
    if problem.options.accumulate {
        sizes.flags |= FLAG_ACCUMULATE;
    }
    sizes
}
