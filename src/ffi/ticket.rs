//! Calls that are submitted, and waited for later.

use super::call::call;
use super::handle::{self, grilly_conv2d, grilly_ticket};
use super::out;
use super::tensor::IoTensors;
use super::types::*;
use std::time::Duration;

/// As `grilly_conv2d_forward`, but does not wait: the results are there once `grilly_ticket_wait` says so.
///
/// Calls of a context whose tensors all lie in buffers run in the order of their submission, so the result of one may
/// be an operand of the next without a wait between them; any number may be under way. Until a call is done, its
/// buffers may be given to further such calls and may be destroyed, but must not be read, written, or given to a call
/// with host tensors.
///
/// With any tensor in host memory, and on the CPU device, the call is done when this returns, and so is the ticket.
///
/// # Safety
/// As for `grilly_conv2d_forward`; `ticket` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_submit_forward(
    conv: *const grilly_conv2d,
    io: *const grilly_conv2d_io,
    ticket: *mut *mut grilly_ticket,
) -> grilly_status {
    call(|call| {
        let ticket = out(ticket, "ticket")?;
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let mut tensors = unsafe { IoTensors::read(call, io) }?;
        let submitted = conv.submit_forward(tensors.forward()?)?;
        tensors.finish()?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { ticket.write(handle::insert(submitted.into())?) };
        Ok(())
    })
}

/// As `grilly_conv2d_backward`, but does not wait: see `grilly_conv2d_submit_forward`.
///
/// # Safety
/// As for `grilly_conv2d_submit_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_submit_backward(
    conv: *const grilly_conv2d,
    io: *const grilly_conv2d_io,
    ticket: *mut *mut grilly_ticket,
) -> grilly_status {
    call(|call| {
        let ticket = out(ticket, "ticket")?;
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let mut tensors = unsafe { IoTensors::read(call, io) }?;
        let submitted = conv.submit_backward(tensors.backward()?)?;
        tensors.finish()?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { ticket.write(handle::insert(submitted.into())?) };
        Ok(())
    })
}

/// Waits until a submitted call is done, at most so many nanoseconds: 0 only asks, and `UINT64_MAX` is as long as it
/// takes. Fails with `GRILLY_ERROR_TIMEOUT` if it is still under way, after which it may be waited for again, and with
/// `GRILLY_ERROR_DEVICE_LOST` if it will never be done. Of a call that is done it succeeds at once, any number of
/// times.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_ticket_wait(ticket: *const grilly_ticket, nanoseconds: u64) -> grilly_status {
    call(|call| {
        let forever = nanoseconds == u64::MAX;
        call.get(ticket)?.wait(if forever { Duration::MAX } else { Duration::from_nanos(nanoseconds) })
    })
}

/// Ends the handle, and waits for its call if that is still under way. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_ticket_destroy(ticket: *mut grilly_ticket) -> grilly_status {
    call(|_| handle::remove(ticket).map(drop))
}
