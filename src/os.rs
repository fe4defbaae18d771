//! What the standard library does not offer of the operating system.

use std::ffi::OsString;

/// An environment variable, unless this process runs with rights that its caller lacks (as `secure_getenv`).
pub fn secure_variable(name: &str) -> Option<OsString> {
    if elevated() { None } else { std::env::var_os(name) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn elevated() -> bool {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn elevated() -> bool {
    false
}
