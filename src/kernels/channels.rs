//! Packing a tensor by channels of four, for tiles that read it so: `shaders/pack-channels.glsl`.

use super::slices::Images;
use super::table::{PACK_CHANNELS, PACK_CHANNELS_THREADS as THREADS};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Operand, Plan, Role, Walk};
use crate::problem::Problem;

/// The problem whose input and output have whole vectors of channels in each group, as the packed tensors have.
pub fn filled(problem: &Problem) -> Problem {
    Problem {
        c: problem.groups * problem.channels_per_group().next_multiple_of(4),
        k: problem.groups * problem.outputs_per_group().next_multiple_of(4),
        ..problem.clone()
    }
}

/// The part of `tensor`, [`Role::Input`] or [`Role::Output`], that belongs to `images`.
fn part(problem: &Problem, images: &Images, tensor: Role) -> Operand {
    if tensor == Role::Output { images.output(problem) } else { images.input(problem) }
}

/// Packs one tensor, [`Role::Input`] or [`Role::Output`], for one run of images after the other, in the same scratch
/// memory.
pub struct Packing {
    tensor: Role,
    room: Option<Operand>,
}

impl Packing {
    pub fn new(tensor: Role) -> Packing {
        Packing { tensor, room: None }
    }

    /// Appends the packing of the images' part; returns where it lies. The first images are the most.
    pub fn plan(
        &mut self,
        problem: &Problem,
        limits: &Limits,
        images: &Images,
        addresses: bool,
        plan: &mut Plan,
    ) -> Result<Operand> {
        let bytes = part(&filled(problem), images, self.tensor).bytes;
        let room =
            *self.room.get_or_insert_with(|| Operand { role: Role::Workspace, offset: plan.reserve(bytes), bytes });
        let packed = Operand { bytes, ..room };
        let mut sizes = images.sizes(problem);
        sizes.extra = [u32::from(self.tensor == Role::Output), 0];
        let dispatch = Dispatch {
            module: PACK_CHANNELS.module(addresses),
            specialization: vec![],
            operands: [Some(part(problem, images, self.tensor)), None, None, Some(packed)],
            sizes,
            tiles: 0..0,
        };
        let walk = Walk::by_threads(THREADS, bytes / 16 / images.count);
        plan.push_walking(dispatch, images.count, bytes as f64 / limits.flops, walk)?;
        Ok(packed)
    }
}
