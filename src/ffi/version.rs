//! Versions, status names and error messages.

use super::call;
use super::types::{GRILLY_OK, grilly_status};
use crate::error::Status;
use std::ffi::c_char;

/// This library's version, for example `"0.1.0"`. Valid for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_version_string() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// The name of a status code, for example `"GRILLY_ERROR_DEVICE_LOST"`. Valid for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_status_string(status: grilly_status) -> *const c_char {
    if status == GRILLY_OK {
        return c"GRILLY_OK".as_ptr();
    }
    let known = Status::ALL.into_iter().find(|known| *known as grilly_status == status);
    known.map_or(c"unknown grilly_status", Status::name).as_ptr()
}

/// What went wrong in this thread's latest failed call: a sentence that names the argument, its value and what is
/// legal. Empty before the first failure; valid until this thread's next one.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_last_error_message() -> *const c_char {
    call::message()
}
