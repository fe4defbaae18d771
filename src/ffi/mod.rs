//! The C ABI. Every function reads flat: check, convert, call, convert back. The cleverness is in [`handle`]
//! (keys instead of pointers), [`desc`] (structures that grow), [`call`] (errors and panics) and [`tensor`].

mod call;
mod desc;
mod handle;
mod tensor;

pub mod buffer;
pub mod context;
pub mod conv2d;
pub mod device;
pub mod elementwise;
pub mod plan;
pub mod ticket;
pub mod types;
pub mod version;
pub mod weights;

pub use handle::{grilly_buffer, grilly_context, grilly_conv2d, grilly_plan, grilly_ticket, grilly_weights};

use crate::error::{Error, Result};

/// Refuses a null out-parameter by name.
fn out<T>(pointer: *mut T, argument: &str) -> Result<*mut T> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{argument} is NULL, expected a place for the result")));
    }
    Ok(pointer)
}

/// A size from C, where it is signed.
fn size(value: i64, argument: impl FnOnce() -> String) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid(format!("{} is {value}, expected no negative size", argument())))
}
