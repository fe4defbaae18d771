//! Plans: one pass over one shape, ready to run in pieces.

use super::call::call;
use super::conv2d::input_shape;
use super::handle::{self, grilly_conv2d, grilly_plan};
use super::tensor::IoTensors;
use super::types::*;
use super::{desc, out};
use crate::PassPlan;
use crate::error::Error;
use crate::problem::{Pass, PassOptions};

/// Plans one pass over an input of shape `[N, C, H, W]` and compiles its pipelines, so that running it later does not.
/// `flags` are of `GRILLY_ACCUMULATE_INPUT` and `GRILLY_ACCUMULATE_PARAMETERS` (for the pass that has such gradients),
/// `GRILLY_WITH_BIAS` and `GRILLY_WITH_WEIGHTS`.
///
/// # Safety
/// `input` has 4 readable elements; `plan` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_plan(
    conv: *const grilly_conv2d,
    pass: i32,
    input: *const i64,
    flags: u32,
    plan: *mut *mut grilly_plan,
) -> grilly_status {
    call(|call| {
        let plan = out(plan, "plan")?;
        let conv = call.get(conv)?;
        let pass = match pass {
            GRILLY_PASS_FORWARD => Pass::Forward,
            GRILLY_PASS_BACKWARD_INPUT => Pass::BackwardInput,
            GRILLY_PASS_BACKWARD_WEIGHT => Pass::BackwardWeight,
            other => return Err(Error::invalid(format!("pass is {other}, expected GRILLY_PASS_* (0 to 2)"))),
        };
        let accumulate = match pass {
            Pass::Forward => 0,
            Pass::BackwardInput => GRILLY_ACCUMULATE_INPUT,
            Pass::BackwardWeight => GRILLY_ACCUMULATE_PARAMETERS,
        };
        let gradients = GRILLY_ACCUMULATE_INPUT | GRILLY_ACCUMULATE_PARAMETERS;
        if flags & !(gradients | GRILLY_WITH_BIAS | GRILLY_WITH_WEIGHTS) != 0 {
            return Err(Error::invalid(format!(
                "flags is {flags:#x}, expected bits of GRILLY_ACCUMULATE_*, GRILLY_WITH_BIAS and GRILLY_WITH_WEIGHTS"
            )));
        }
        let options = PassOptions {
            bias: flags & GRILLY_WITH_BIAS != 0,
            skip_weight: false,
            accumulate: flags & accumulate != 0,
        };
        // SAFETY: promised by the caller.
        let shape = unsafe { input_shape(input) }?;
        let created = PassPlan::new(&conv, pass, shape, options, flags & GRILLY_WITH_WEIGHTS != 0)?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { plan.write(handle::insert(created)?) };
        Ok(())
    })
}

/// Sets `struct_size`, and everything else to 0.
///
/// # Safety
/// `info` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_plan_info_init(info: *mut grilly_plan_info, size: usize) {
    // SAFETY: promised by the caller.
    unsafe { desc::init(info, size, desc::zeroed()) };
}

/// What the plan will do.
///
/// # Safety
/// `info` is initialised and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_plan_info_get(plan: *const grilly_plan, info: *mut grilly_plan_info) -> grilly_status {
    call(|call| {
        let plan = call.get(plan)?;
        let value = grilly_plan_info {
            struct_size: 0,
            workspace_bytes: plan.workspace_bytes(),
            dispatches: plan.dispatches(),
            slices: plan.slices(),
            seconds: plan.seconds(),
        };
        // SAFETY: promised by the caller.
        unsafe { desc::write(info, "info", &value) }
    })
}

/// Runs `count` slices of the plan from slice `first` on, and waits for them. Run all of them, in order, for the
/// result; a frame budget may spread them over several calls. A plan of more than one slice run in several calls
/// takes device tensors, the same ones each time. Such a run belongs to one caller: its scratch memory is the plan's,
/// and another run of the same plan in between would overwrite it.
///
/// # Safety
/// As for `grilly_conv2d_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_plan_run(
    plan: *const grilly_plan,
    io: *const grilly_conv2d_io,
    first: u32,
    count: u32,
) -> grilly_status {
    call(|call| {
        let plan = call.get(plan)?;
        // SAFETY: promised by the caller.
        let mut tensors = unsafe { IoTensors::read(call, io) }?;
        match plan.pass() {
            Pass::Forward => plan.run_forward(tensors.forward()?, first, count)?,
            _ => plan.run_backward(tensors.backward()?, first, count)?,
        }
        tensors.finish()
    })
}

/// Ends the handle. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_plan_destroy(plan: *mut grilly_plan) -> grilly_status {
    call(|_| handle::remove(plan).map(drop))
}
