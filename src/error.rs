//! The one error type, and the one list of status codes that C sees.

use std::fmt;

/// What kind of failure an [`Error`] is. The discriminants are the `GRILLY_ERROR_*` codes of the C API.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// An argument has a value that is never legal, or does not fit the others.
    InvalidArgument = 1,
    /// A handle is null, stale, already destroyed, or of another type.
    InvalidHandle = 2,
    /// The request is legal, but this device cannot serve it.
    Unsupported = 3,
    /// Host memory is exhausted.
    OutOfHostMemory = 4,
    /// Device memory, or the context's budget of it, is exhausted.
    OutOfDeviceMemory = 5,
    /// The device was lost; its context only destroys from now on.
    DeviceLost = 6,
    /// There is no Vulkan loader on this system.
    NoVulkan = 7,
    /// No device matches the request.
    NoDevice = 8,
    /// The handle was created before a fork, and this is the child.
    Forked = 9,
    /// A bug in this library: a panic was caught, or the driver broke the specification.
    Internal = 10,
    /// The call is still under way; waiting again may succeed.
    Timeout = 11,
}

impl Status {
    /// The C name of this code.
    pub const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Status::InvalidArgument => c"GRILLY_ERROR_INVALID_ARGUMENT",
            Status::InvalidHandle => c"GRILLY_ERROR_INVALID_HANDLE",
            Status::Unsupported => c"GRILLY_ERROR_UNSUPPORTED",
            Status::OutOfHostMemory => c"GRILLY_ERROR_OUT_OF_HOST_MEMORY",
            Status::OutOfDeviceMemory => c"GRILLY_ERROR_OUT_OF_DEVICE_MEMORY",
            Status::DeviceLost => c"GRILLY_ERROR_DEVICE_LOST",
            Status::NoVulkan => c"GRILLY_ERROR_NO_VULKAN",
            Status::NoDevice => c"GRILLY_ERROR_NO_DEVICE",
            Status::Forked => c"GRILLY_ERROR_FORKED",
            Status::Internal => c"GRILLY_ERROR_INTERNAL",
            Status::Timeout => c"GRILLY_ERROR_TIMEOUT",
        }
    }

    /// Every status, in the order of its code.
    pub const ALL: [Status; 11] = [
        Status::InvalidArgument,
        Status::InvalidHandle,
        Status::Unsupported,
        Status::OutOfHostMemory,
        Status::OutOfDeviceMemory,
        Status::DeviceLost,
        Status::NoVulkan,
        Status::NoDevice,
        Status::Forked,
        Status::Internal,
        Status::Timeout,
    ];
}

/// A failure: its [`Status`], and a sentence that names the argument, its value and what is legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given kind.
    pub fn new(status: Status, message: impl Into<String>) -> Error {
        Error { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(Status::InvalidArgument, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Error {
        Error::new(Status::Unsupported, message)
    }

    /// What kind of failure this is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
