//! Running passes: the same calls, on whichever device the context has.

pub mod copies;
pub mod cpu;
pub mod elementwise;
pub mod places;
pub mod stream;
pub mod vulkan;

use crate::context::{Backend, Context};
use crate::conv2d::{Backward, Forward};
use crate::error::Result;
use crate::problem::Problem;
use crate::ticket::Ticket;
use crate::vulkan::Device;

/// Runs a checked forward call.
pub fn forward(context: &Context, problem: &Problem, call: Forward<'_>) -> Result<()> {
    match context.backend() {
        Backend::Vulkan(device) => {
            let pass = vulkan::Pass::new(context, device, problem, call.weight.is_packed())?;
            vulkan::run(context, device, &[pass], places::Tensors::forward(call, problem.transposed))
        }
        Backend::Cpu(machine) => {
            machine.memory.count_work();
            cpu::forward(machine, problem, call)
        }
    }
}

/// Submits a checked forward call, or runs it where it cannot be left alone.
pub fn submit_forward(context: &Context, problem: &Problem, call: Forward<'_>) -> Result<Ticket> {
    if let Backend::Vulkan(device) = context.backend() {
        let pass = vulkan::Pass::new(context, device, problem, call.weight.is_packed())?;
        return vulkan::submit(context, device, &[pass], places::Tensors::forward(call, problem.transposed));
    }
    forward(context, problem, call)?;
    Ok(Ticket::new(context, Vec::new()))
}

/// Runs a checked backward call: the problems of the input's gradient and of the parameters', where wanted.
pub fn backward(context: &Context, problems: &[Option<Problem>; 2], call: Backward<'_>) -> Result<()> {
    match context.backend() {
        Backend::Vulkan(device) => {
            let passes = backward_passes(context, device, problems, &call)?;
            vulkan::run(context, device, &passes, places::Tensors::backward(call, transposed(problems)))
        }
        Backend::Cpu(machine) => {
            machine.memory.count_work();
            cpu::backward(machine, problems, call)
        }
    }
}

/// Submits a checked backward call, or runs it where it cannot be left alone.
pub fn submit_backward(context: &Context, problems: &[Option<Problem>; 2], call: Backward<'_>) -> Result<Ticket> {
    if let Backend::Vulkan(device) = context.backend() {
        let passes = backward_passes(context, device, problems, &call)?;
        return vulkan::submit(context, device, &passes, places::Tensors::backward(call, transposed(problems)));
    }
    backward(context, problems, call)?;
    Ok(Ticket::new(context, Vec::new()))
}

fn backward_passes(
    context: &Context,
    device: &Device,
    problems: &[Option<Problem>; 2],
    call: &Backward<'_>,
) -> Result<Vec<vulkan::Pass>> {
    let packed = call.weight.as_ref().is_some_and(|weight| weight.is_packed());
    let passes = problems.iter().flatten().map(|problem| vulkan::Pass::new(context, device, problem, packed));
    passes.collect()
}

fn transposed(problems: &[Option<Problem>; 2]) -> bool {
    problems.iter().flatten().any(|problem| problem.transposed)
}
