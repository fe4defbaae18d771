//! Buffers.

use super::call::call;
use super::handle::{self, grilly_buffer, grilly_context};
use super::out;
use super::types::grilly_status;
use crate::error::{Error, Result};
use crate::{Buffer, Context};
use std::ffi::c_void;
use std::sync::Arc;

/// Allocates `bytes` bytes of zeroed memory on the context's device, from its pool.
///
/// # Safety
/// `buffer` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_create(
    context: *const grilly_context,
    bytes: u64,
    buffer: *mut *mut grilly_buffer,
) -> grilly_status {
    // SAFETY: promised by the caller.
    unsafe { create(context, buffer, |context| context.create_buffer(bytes)) }
}

/// As `grilly_buffer_create`, but the contents are unspecified until they are written, and no time is spent on zeros.
///
/// # Safety
/// `buffer` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_create_uninitialized(
    context: *const grilly_context,
    bytes: u64,
    buffer: *mut *mut grilly_buffer,
) -> grilly_status {
    // SAFETY: promised by the caller.
    unsafe { create(context, buffer, |context| context.create_buffer_uninitialized(bytes)) }
}

/// Allocates `bytes` bytes of the host's memory for arrays of the caller's, from the context's pool, and says where they
/// are; the address is a multiple of 4. The contents are unspecified until they are written.
///
/// Host tensors that lie in such memory are copied to and from the device without a detour, where the device can reach
/// it; on devices that share the host's memory they are not copied at all. The memory stays readable and writable until
/// the handle is destroyed, also after the context was, and in a forked child (where destroying it does nothing). A
/// context holds at most a fourth of the machine's memory so; beyond that this fails with
/// `GRILLY_ERROR_OUT_OF_HOST_MEMORY`. Device tensors cannot lie in it.
///
/// # Safety
/// `buffer` and `data` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_create_host(
    context: *const grilly_context,
    bytes: u64,
    buffer: *mut *mut grilly_buffer,
    data: *mut *mut c_void,
) -> grilly_status {
    call(|call| {
        let (buffer, data) = (out(buffer, "buffer")?, out(data, "data")?);
        let created = call.get(context)?.create_host_buffer(bytes)?;
        let address = created.host_address()?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe {
            buffer.write(handle::insert(Arc::new(created))?);
            data.write(address.cast());
        }
        Ok(())
    })
}

/// # Safety
/// `buffer` is writable.
unsafe fn create(
    context: *const grilly_context,
    buffer: *mut *mut grilly_buffer,
    make: impl FnOnce(&Context) -> Result<Buffer>,
) -> grilly_status {
    call(|call| {
        let buffer = out(buffer, "buffer")?;
        let created = make(&call.get(context)?)?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { buffer.write(handle::insert(Arc::new(created))?) };
        Ok(())
    })
}

/// Bytes of the buffer, as it was created.
///
/// # Safety
/// `bytes` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_size(buffer: *const grilly_buffer, bytes: *mut u64) -> grilly_status {
    call(|call| {
        let bytes = out(bytes, "bytes")?;
        let size = call.get(buffer)?.bytes();
        // SAFETY: not null, and writable as the caller promised.
        unsafe { bytes.write(size) };
        Ok(())
    })
}

/// Copies host memory into the buffer, from byte `offset` on, and waits for it.
///
/// # Safety
/// `data` has `bytes` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_write(
    buffer: *const grilly_buffer,
    offset: u64,
    data: *const c_void,
    bytes: u64,
) -> grilly_status {
    call(|call| {
        let buffer = call.get(buffer)?;
        if bytes == 0 {
            return buffer.write(offset, &[]);
        }
        let length = host_length(data, bytes)?;
        // SAFETY: not null, and as long as the caller promised.
        buffer.write(offset, unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) })
    })
}

/// Copies the buffer's contents from byte `offset` on into host memory, and waits for it.
///
/// # Safety
/// `data` has `bytes` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_buffer_read(
    buffer: *const grilly_buffer,
    offset: u64,
    data: *mut c_void,
    bytes: u64,
) -> grilly_status {
    call(|call| {
        let buffer = call.get(buffer)?;
        if bytes == 0 {
            return buffer.read(offset, &mut []);
        }
        let length = host_length(data, bytes)?;
        // SAFETY: not null, and as long as the caller promised; nothing else may use it during the call.
        buffer.read(offset, unsafe { std::slice::from_raw_parts_mut(data.cast::<u8>(), length) })
    })
}

fn host_length(data: *const c_void, bytes: u64) -> Result<usize> {
    if data.is_null() {
        return Err(Error::invalid(format!("data is NULL, expected {bytes} bytes of host memory")));
    }
    usize::try_from(bytes)
        .ok()
        .filter(|&length| length <= isize::MAX as usize)
        .ok_or_else(|| Error::invalid(format!("bytes is {bytes}, expected at most {}", isize::MAX)))
}

/// Ends the handle; the memory returns to the pool once no call uses it. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_buffer_destroy(buffer: *mut grilly_buffer) -> grilly_status {
    call(|_| handle::remove(buffer).map(drop))
}
