//! Enumerating devices.

use super::call::call;
use super::types::{grilly_device_info, grilly_status};
use super::{desc, out};
use crate::error::Error;
use crate::{DeviceInfo, DeviceKind};
use std::ffi::c_char;

/// How many devices there are: Vulkan's, in Vulkan's order (which is also that of `VK_GPU_INDEX`), then the CPU device.
///
/// # Safety
/// `count` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_device_count(count: *mut u32) -> grilly_status {
    call(|_| {
        let count = out(count, "count")?;
        let devices = crate::devices();
        // SAFETY: not null, and writable as the caller promised.
        unsafe { count.write(devices.len() as u32) };
        Ok(())
    })
}

/// Sets `struct_size`, and everything else to 0.
///
/// # Safety
/// `info` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_device_info_init(info: *mut grilly_device_info, size: usize) {
    // SAFETY: promised by the caller.
    unsafe { desc::init(info, size, desc::zeroed()) };
}

/// Describes one device.
///
/// # Safety
/// `info` is initialised and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_device_info_get(index: u32, info: *mut grilly_device_info) -> grilly_status {
    call(|_| {
        let devices = crate::devices();
        let device = devices.get(index as usize).ok_or_else(|| {
            Error::invalid(format!("index is {index}, expected 0 to {} (devices found)", devices.len() - 1))
        })?;
        // SAFETY: promised by the caller.
        unsafe { desc::write(info, "info", &describe(device)) }
    })
}

pub(super) fn describe(device: &DeviceInfo) -> grilly_device_info {
    let mut info: grilly_device_info = desc::zeroed();
    info.index = device.index;
    info.kind = match device.kind {
        DeviceKind::Discrete => super::types::GRILLY_DEVICE_KIND_DISCRETE,
        DeviceKind::Integrated => super::types::GRILLY_DEVICE_KIND_INTEGRATED,
        DeviceKind::Virtual => super::types::GRILLY_DEVICE_KIND_VIRTUAL,
        DeviceKind::Software => super::types::GRILLY_DEVICE_KIND_SOFTWARE,
        DeviceKind::Other => super::types::GRILLY_DEVICE_KIND_OTHER,
        DeviceKind::Cpu => super::types::GRILLY_DEVICE_KIND_CPU,
    };
    info.vendor_id = device.vendor_id;
    info.device_id = device.device_id;
    info.driver_version = device.driver_version;
    info.api_version = device.api_version;
    info.memory_bytes = device.memory_bytes;
    copy_text(&mut info.name, &device.name);
    copy_text(&mut info.driver, &device.driver);
    copy_text(&mut info.note, &device.note);
    info
}

/// Copies as much as fits, cut between characters, with a terminator.
fn copy_text(to: &mut [c_char], text: &str) {
    let mut length = text.len().min(to.len() - 1);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    for (to, byte) in to.iter_mut().zip(&text.as_bytes()[..length]) {
        *to = *byte as c_char;
    }
}
