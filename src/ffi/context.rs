//! Contexts.

use super::call::call;
use super::handle::{self, grilly_context};
use super::types::*;
use super::{desc, device, out};
use crate::error::{Error, Status};
use crate::{Context, ContextDesc, DeviceChoice, LogLevel};
use std::ffi::{CString, c_void};

/// Sets `struct_size`, automatic choice of the device, and everything else to 0.
///
/// # Safety
/// `desc` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_context_desc_init(desc: *mut grilly_context_desc, size: usize) {
    let initial = grilly_context_desc { device: GRILLY_DEVICE_AUTO, ..desc::zeroed() };
    // SAFETY: promised by the caller.
    unsafe { desc::init(desc, size, initial) };
}

/// Opens a device. `desc` may be NULL for the defaults.
///
/// The device is `desc->device` if that is an index; else `VK_GPU_INDEX` if that is set; else the best Vulkan GPU
/// (discrete, then integrated, then virtual); else the CPU. A software Vulkan driver is only chosen by its index or
/// with `ALLOW_CPU_VULKAN=1`. `grilly_context_device_info` tells what was chosen, and why.
///
/// Fails with `GRILLY_ERROR_NO_DEVICE` if the device asked for does not exist or cannot be used.
///
/// # Safety
/// `desc` is NULL or initialised; `context` is writable; the log function stays callable until every handle of this
/// context is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_context_create(
    desc: *const grilly_context_desc,
    context: *mut *mut grilly_context,
) -> grilly_status {
    call(|_| {
        let context = out(context, "context")?;
        let desc = if desc.is_null() {
            grilly_context_desc { device: GRILLY_DEVICE_AUTO, ..desc::zeroed() }
        } else {
            // SAFETY: promised by the caller.
            unsafe { desc::read(desc, "desc") }?
        };
        if desc.reserved != 0 {
            return Err(Error::invalid(format!("desc->reserved is {}, expected 0", desc.reserved)));
        }
        let flags = desc.flags;
        if flags & !(GRILLY_CONTEXT_MINIMUM_LIMITS | GRILLY_CONTEXT_TIMESTAMPS) != 0 {
            return Err(Error::invalid(format!("desc->flags is {flags:#x}, expected GRILLY_CONTEXT_* bits")));
        }
        let created = Context::new(&ContextDesc {
            device: match desc.device {
                GRILLY_DEVICE_AUTO => DeviceChoice::Auto,
                GRILLY_DEVICE_CPU => DeviceChoice::Cpu,
                index => DeviceChoice::Index(u32::try_from(index).map_err(|_| {
                    Error::new(
                        Status::NoDevice,
                        format!("desc->device is {index}, expected an index, GRILLY_DEVICE_AUTO or GRILLY_DEVICE_CPU"),
                    )
                })?),
            },
            memory_budget: desc.memory_budget,
            threads: desc.threads,
            timestamps: flags & GRILLY_CONTEXT_TIMESTAMPS != 0,
            minimum_limits: flags & GRILLY_CONTEXT_MINIMUM_LIMITS != 0,
            log: logger(&desc),
            ..ContextDesc::default()
        })?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { context.write(handle::insert(created)?) };
        Ok(())
    })
}

fn logger(desc: &grilly_context_desc) -> Option<crate::Log> {
    struct User(*mut c_void);
    // SAFETY: the log function's contract says that it may be called from any thread.
    unsafe impl Send for User {}
    // SAFETY: as above.
    unsafe impl Sync for User {}
    let (function, user) = (desc.log?, User(desc.log_user));
    Some(crate::Log::new(move |level: LogLevel, message: &str| {
        let user = &user;
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        let level = match level {
            LogLevel::Info => GRILLY_LOG_INFO,
            LogLevel::Warning => GRILLY_LOG_WARNING,
            LogLevel::Error => GRILLY_LOG_ERROR,
        };
        // SAFETY: the caller of `grilly_context_create` promised a callable function for the context's life.
        unsafe { function(user.0, level, message.as_ptr()) };
    }))
}

/// The device that a context uses, and in `note` how it came to be chosen.
///
/// # Safety
/// `info` is initialised and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_context_device_info(
    context: *const grilly_context,
    info: *mut grilly_device_info,
) -> grilly_status {
    call(|call| {
        let context = call.get(context)?;
        // SAFETY: promised by the caller.
        unsafe { desc::write(info, "info", &device::describe(context.device())) }
    })
}

/// Sets `struct_size`, and everything else to 0.
///
/// # Safety
/// `stats` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_stats_init(stats: *mut grilly_stats, size: usize) {
    // SAFETY: promised by the caller.
    unsafe { desc::init(stats, size, desc::zeroed()) };
}

/// What the context holds and has done so far.
///
/// # Safety
/// `stats` is initialised and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_context_stats(
    context: *const grilly_context,
    stats: *mut grilly_stats,
) -> grilly_status {
    call(|call| {
        let now = call.get(context)?.stats();
        let value = grilly_stats {
            struct_size: 0,
            bytes_held: now.bytes_held,
            bytes_in_use: now.bytes_in_use,
            bytes_peak: now.bytes_peak,
            blocks_in_use: now.blocks_in_use,
            allocations: now.allocations,
            upload_bytes: now.upload_bytes,
            download_bytes: now.download_bytes,
            submits: now.submits,
            dispatches: now.dispatches,
            pipelines: now.pipelines,
            device_nanoseconds: now.device_nanoseconds,
            host_bytes_held: now.host_bytes_held,
        };
        // SAFETY: promised by the caller.
        unsafe { desc::write(stats, "stats", &value) }
    })
}

/// Gives pooled memory that nothing uses back to the device.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_context_trim(context: *const grilly_context) -> grilly_status {
    call(|call| call.get(context)?.trim())
}

/// Ends the handle. The device closes once every buffer, convolution, weight and plan of the context is destroyed
/// too. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_context_destroy(context: *mut grilly_context) -> grilly_status {
    call(|_| handle::remove(context).map(drop))
}
