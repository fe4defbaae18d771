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

#[cfg(unix)]
mod files {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    /// Refuses what is not this user's own, or what others may write to, or is neither a folder nor a plain file as it
    /// should be.
    pub fn check_private(found: &Metadata, folder: bool) -> Result<(), String> {
        // SAFETY: geteuid only reads.
        let user = unsafe { libc::geteuid() };
        let right = if folder { found.is_dir() } else { found.is_file() };
        if !right {
            return Err(format!("it is no {}", if folder { "folder" } else { "plain file" }));
        }
        if found.uid() != user {
            return Err(format!("it belongs to user {}, not to {user}", found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!("others may write to it (mode {:o})", found.mode() & 0o777));
        }
        Ok(())
    }

    /// Opens a file to read, but follows no link to it, and waits for no pipe.
    pub fn open_no_link(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
    }

    /// Makes a file that was not there, for this user alone.
    pub fn create_private(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// Makes a folder for this user alone, unless there is one, and those that it is in.
    pub fn create_private_folder(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }
}

#[cfg(not(unix))]
mod files {
    use std::fs::{File, Metadata, OpenOptions, create_dir_all};
    use std::io;
    use std::path::Path;

    /// Refuses what is neither a folder nor a plain file as it should be. A user's own folders are his alone here.
    pub fn check_private(found: &Metadata, folder: bool) -> Result<(), String> {
        let right = if folder { found.is_dir() } else { found.is_file() };
        right.then_some(()).ok_or_else(|| "it is of another kind".to_string())
    }

    /// Opens a file to read.
    pub fn open_no_link(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Makes a file that was not there.
    pub fn create_private(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Makes a folder, unless there is one, and those that it is in.
    pub fn create_private_folder(path: &Path) -> io::Result<()> {
        create_dir_all(path)
    }
}

pub(crate) use files::{check_private, create_private, create_private_folder, open_no_link};

/// Bytes of a page, or of several: what addresses of mappings are multiples of.
pub(crate) const PAGE: u64 = 4096;

/// Anonymous memory of this process, which begins at a page.
pub struct Mapping {
    start: *mut u8,
    bytes: u64,
}

// SAFETY: it owns its memory, as a Box of bytes does.
unsafe impl Send for Mapping {}
// SAFETY: as above; what it points to is only reached through the pointer.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// As it was asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(unix)]
mod system {
    use super::Mapping;

    impl Mapping {
        /// Zeroed memory of a multiple of [`super::PAGE`] bytes; `None` where there is none.
        pub fn new(bytes: u64) -> Option<Mapping> {
            let length = usize::try_from(bytes).ok().filter(|&length| length > 0)?;
            // SAFETY: a new private mapping, which nothing else knows.
            let start = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if start == libc::MAP_FAILED {
                return None;
            }
            #[cfg(any(target_os = "linux", target_os = "android"))]
            // SAFETY: the mapping is ours; the advice changes no contents, and may be ignored.
            unsafe {
                libc::madvise(start, length, libc::MADV_HUGEPAGE)
            };
            Some(Mapping { start: start.cast(), bytes })
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`, of this length.
            unsafe { libc::munmap(self.start.cast(), self.bytes as usize) };
        }
    }

    /// Bytes of memory that the machine has.
    pub fn physical_memory() -> u64 {
        // SAFETY: sysconf only reads.
        let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(page).unwrap_or(0))
    }
}

#[cfg(not(unix))]
mod system {
    use super::{Mapping, PAGE};
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(bytes: u64) -> Option<Layout> {
        Layout::from_size_align(usize::try_from(bytes).ok()?, PAGE as usize).ok()
    }

    impl Mapping {
        /// Zeroed memory of a multiple of [`PAGE`] bytes; `None` where there is none.
        pub fn new(bytes: u64) -> Option<Mapping> {
            let layout = layout(bytes).filter(|layout| layout.size() > 0)?;
            // SAFETY: the size is not zero.
            let start = unsafe { alloc_zeroed(layout) };
            (!start.is_null()).then_some(Mapping { start, bytes })
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            if let Some(layout) = layout(self.bytes) {
                // SAFETY: allocated by `new` with this layout.
                unsafe { dealloc(self.start, layout) };
            }
        }
    }

    /// Unknown here; a size that many machines have.
    pub fn physical_memory() -> u64 {
        8 << 30
    }
}

pub use system::physical_memory;
