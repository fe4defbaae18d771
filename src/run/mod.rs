//! Running passes: the same calls, on whichever device the context has.

pub mod cpu;
pub mod elementwise;
pub mod places;
pub mod stream;
pub mod vulkan;

use crate::context::{Backend, Context};
use crate::conv2d::{Backward, Forward};
use crate::cpu::Machine;
use crate::error::Result;
use crate::problem::Problem;

/// Runs a checked forward call.
pub fn forward(context: &Context, problem: &Problem, call: Forward<'_>) -> Result<()> {
    match context.backend() {
        Backend::Vulkan(device) => {
            let pass = vulkan::Pass::new(context, device, problem, call.weight.is_packed())?;
            vulkan::run(context, device, &[pass], places::Tensors::forward(call, problem.transposed))
        }
        Backend::Cpu { threads, memory } => {
            memory.count_work();
            cpu::forward(&Machine::new(threads, memory), problem, call)
        }
    }
}

/// Runs a checked backward call: the problems of the input's gradient and of the parameters', where wanted.
pub fn backward(context: &Context, problems: &[Option<Problem>; 2], call: Backward<'_>) -> Result<()> {
    match context.backend() {
        Backend::Vulkan(device) => {
            let packed = call.weight.as_ref().is_some_and(|weight| weight.is_packed());
            let passes = problems.iter().flatten().map(|problem| vulkan::Pass::new(context, device, problem, packed));
            let passes = passes.collect::<Result<Vec<_>>>()?;
            let transposed = problems.iter().flatten().any(|problem| problem.transposed);
            vulkan::run(context, device, &passes, places::Tensors::backward(call, transposed))
        }
        Backend::Cpu { threads, memory } => {
            memory.count_work();
            cpu::backward(&Machine::new(threads, memory), problems, call)
        }
    }
}
