//! An element-wise operation on either device.

use super::{cpu, places};
use crate::broadcast::Broadcast;
use crate::context::{Backend, Context};
use crate::elementwise::Elementwise;
use crate::error::{Error, Result, Status};
use crate::kernels;
use crate::plan::{Operand, Role};
use crate::tensor::DeviceTensor;
use crate::vulkan::{Device, Recorder};
use std::sync::Arc;

/// Runs a checked operation.
pub fn run(context: &Context, problem: &Broadcast, call: &Elementwise<'_>) -> Result<()> {
    match context.backend() {
        Backend::Vulkan(device) => on_vulkan(device, problem, call),
        Backend::Cpu(machine) => {
            machine.memory.count_work();
            cpu::elementwise(machine, problem, call)
        }
    }
}

fn on_vulkan(device: &Arc<Device>, problem: &Broadcast, call: &Elementwise<'_>) -> Result<()> {
    let plan = kernels::plan_elementwise(problem, device.limits())?;
    let bound = |operand: Operand| {
        let tensor: Option<&DeviceTensor<'_>> = match operand.role {
            Role::Input => call.a.as_ref(),
            Role::Weight => call.b.as_ref(),
            _ => Some(&call.out),
        };
        let missing = || Error::new(Status::Internal, format!("the operation has no memory for {:?}", operand.role));
        let whole = places::bound(tensor.ok_or_else(missing)?)?;
        Ok(whole.range(operand.offset, operand.bytes))
    };
    for slice in &plan.slices {
        let mut recorder = Recorder::new(device)?;
        for dispatch in &plan.dispatches[slice.clone()] {
            let mut operands = [None; 4];
            for (place, operand) in operands.iter_mut().zip(dispatch.operands) {
                *place = operand.map(bound).transpose()?;
            }
            recorder.dispatch(dispatch, &operands)?;
        }
        recorder.submit()?;
        recorder.wait()?;
    }
    Ok(())
}
