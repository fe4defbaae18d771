//! The one way into the library from C: errors become codes and a message, panics become errors.

use super::handle::{self, Handle, Object};
use super::types::{GRILLY_OK, grilly_status};
use crate::cpu;
use crate::error::{Error, Result, Status};
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_char;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Bytes of the thread's error message, terminator included. A fixed array has no destructor to run late.
const MESSAGE_BYTES: usize = 1024;

thread_local! {
    static MESSAGE: UnsafeCell<[u8; MESSAGE_BYTES]> = const { UnsafeCell::new([0; MESSAGE_BYTES]) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// What a call looks things up with. It remembers the contexts it touches: a panic ends their work.
#[derive(Default)]
pub struct Call {
    context: Option<crate::Context>,
    /// Those of a call that mixes several, which is an error in the end.
    others: Vec<crate::Context>,
}

impl Call {
    /// The object behind a handle, if its context still works.
    pub fn get<H: Handle>(&mut self, handle: *const H) -> Result<H::Object> {
        let object = handle::get(handle)?;
        let context = match H::wrap(object.clone()) {
            Object::Context(context) => context,
            Object::Buffer(buffer) => buffer.context().clone(),
            Object::Conv2d(conv) => conv.context().clone(),
            Object::Weights(weights) => weights.context().clone(),
            Object::Plan(plan) => plan.context().clone(),
            Object::Ticket(ticket) => ticket.context().clone(),
        };
        context.check_usable()?;
        match &self.context {
            Some(first) if first.is(&context) => {}
            Some(_) => self.others.push(context),
            None => self.context = Some(context),
        }
        Ok(object)
    }
}

/// Runs the body of an exported function.
pub fn call(body: impl FnOnce(&mut Call) -> Result<()>) -> grilly_status {
    silence_panics();
    let mut call = Call::default();
    let nested = INSIDE.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&mut call))).unwrap_or_else(|panic| {
        // A helper's panic comes without the hook's text, since that ran on the helper's thread.
        let what = PANIC.take().or_else(|| text(&*panic)).unwrap_or_else(|| "a panic".into());
        for context in call.context.iter().chain(&call.others) {
            context.refuse_work(&what);
        }
        Err(Error::new(Status::Internal, format!("a bug in libgrilly: {what}")))
    });
    // A context whose handle was destroyed meanwhile ends here; a panic in that must not cross either.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(call)));
    INSIDE.set(nested);
    match outcome {
        Ok(()) => GRILLY_OK,
        Err(error) => {
            set_message(error.message());
            error.status() as grilly_status
        }
    }
}

/// What a panic was raised with, if that is text.
fn text(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<&str>().copied();
    text.map(String::from).or_else(|| panic.downcast_ref::<String>().cloned())
}

/// The message of this thread's latest error, until its next one.
pub fn message() -> *const c_char {
    MESSAGE.try_with(|message| message.get().cast_const().cast::<c_char>()).unwrap_or(c"".as_ptr())
}

fn set_message(text: &str) {
    let mut length = text.len().min(MESSAGE_BYTES - 1);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    let _ = MESSAGE.try_with(|message| {
        // SAFETY: the array belongs to this thread, and no reference to it outlives this block; C only reads it
        // between calls.
        let message = unsafe { &mut *message.get() };
        message[..length].copy_from_slice(&text.as_bytes()[..length]);
        message[length] = 0;
    });
}

/// Keeps the text of panics inside our calls for the error message and off the host's stderr. Panics elsewhere in
/// the process go on to whatever hook was there.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(cpu::HELPER) {
                // The caller whose work it is will raise it again.
            } else if INSIDE.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::super::handle::grilly_context;
    use super::super::types::GRILLY_ERROR_INTERNAL;
    use super::*;
    use crate::context::Backend;
    use crate::{Context, ContextDesc, DeviceChoice};
    use std::sync::Barrier;

    #[test]
    fn a_panic_of_a_helper_ends_its_context() {
        let desc = ContextDesc { device: DeviceChoice::Cpu, threads: 2, ..ContextDesc::default() };
        let context: *mut grilly_context = handle::insert(Context::new(&desc).unwrap()).unwrap();
        let status = call(|call| {
            let context = call.get(context)?;
            let Backend::Cpu(machine) = context.backend() else { unreachable!("it is the CPU's") };
            let both = Barrier::new(2);
            machine.threads.run(2, &|place| {
                both.wait();
                assert!(place == 0, "a helper's bug");
            });
            Ok(())
        });
        assert_eq!(status, GRILLY_ERROR_INTERNAL);
        assert_eq!(call(|call| call.get(context).map(drop)), GRILLY_ERROR_INTERNAL);
        // SAFETY: the thread's own message, which ends with a null byte.
        let message = unsafe { std::ffi::CStr::from_ptr(message()) }.to_str().unwrap();
        assert!(message.contains("refuses further work") && message.contains("a helper's bug"), "{message}");
        handle::remove(context).unwrap();
    }
}
