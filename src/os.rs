//! What the standard library does not offer of the operating system.

use std::ffi::{CStr, OsString};

/// An environment variable, unless this process runs with rights that its caller lacks.
pub fn secure_variable(name: &CStr) -> Option<OsString> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        use std::os::unix::ffi::OsStringExt;
        // SAFETY: the name ends with a null byte. The result is copied at once; a host that changes its environment
        // from another thread meanwhile breaks the rule that every use of getenv lives under.
        unsafe {
            let value = libc::secure_getenv(name.as_ptr());
            (!value.is_null()).then(|| OsString::from_vec(CStr::from_ptr(value).to_bytes().to_vec()))
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    std::env::var_os(name.to_str().ok()?)
}
