//! Structures that grow: reading the caller's version of one, and writing one the size that the caller knows.

use crate::error::{Error, Result};
use std::mem::{offset_of, size_of};

/// A structure that begins with `struct_size`, and is made of integers and pointers for which zero bytes are legal.
///
/// # Safety
/// The type is `repr(C)`, its first field is `struct_size: usize`, and every field may hold zero bytes.
pub unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size in the first version that had it.
    const FIRST_SIZE: usize;
}

macro_rules! sized {
    ($($name:ident until $last:ident: $last_type:ty),* $(,)?) => { $(
        // SAFETY: each is repr(C) in types.rs, begins with struct_size, and holds integers, floats, raw pointers
        // and optional function pointers only.
        unsafe impl Versioned for super::types::$name {
            const NAME: &'static str = stringify!($name);
            const FIRST_SIZE: usize = offset_of!(super::types::$name, $last) + size_of::<$last_type>();
        }
    )* };
}
sized! {
    grilly_context_desc until log_user: *mut std::ffi::c_void,
    grilly_device_info until note: [std::ffi::c_char; 512],
    grilly_conv2d_desc until reserved: i32,
    grilly_tensor until strides: [i64; 4],
    grilly_conv2d_io until reserved: u32,
    grilly_memory until backward_weight_workspace: u64,
    grilly_plan_info until seconds: f64,
    grilly_stats until host_bytes_held: u64,
}

/// A size that no version will ever have is memory that was never initialised; reading that far could crash.
const MOST_BYTES: usize = 1 << 16;

/// Copies the caller's structure; what it is too short to have stays zero.
///
/// # Safety
/// `from` is null, or points to a structure of at least the `struct_size` bytes that it begins with.
pub unsafe fn read<T: Versioned>(from: *const T, argument: &str) -> Result<T> {
    // SAFETY: passed on.
    let size = unsafe { checked_size(from, argument) }?;
    // SAFETY: the caller's structure has `size` bytes; T may hold zero bytes.
    unsafe {
        let bytes = from.cast::<u8>();
        for at in size_of::<T>()..size {
            if bytes.add(at).read() != 0 {
                return Err(Error::invalid(format!(
                    "{argument}->struct_size is {size}, but this library knows {} bytes of {} and byte {at} is not 0",
                    size_of::<T>(),
                    T::NAME
                )));
            }
        }
        let mut value = std::mem::zeroed::<T>();
        std::ptr::copy_nonoverlapping(bytes, (&raw mut value).cast::<u8>(), size.min(size_of::<T>()));
        Ok(value)
    }
}

/// Writes a result into the caller's structure, whose `struct_size` stays as it is.
///
/// # Safety
/// As for [`read`], and the structure is writable.
pub unsafe fn write<T: Versioned>(to: *mut T, argument: &str, value: &T) -> Result<()> {
    // SAFETY: passed on.
    let size = unsafe { checked_size(to.cast_const(), argument) }?;
    let skip = size_of::<usize>();
    // SAFETY: both have at least the lesser of the two sizes, and the first field is the usize that is left alone.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.add(skip), to.cast::<u8>().add(skip), size.min(size_of::<T>()) - skip);
    }
    Ok(())
}

/// Fills a structure of which the caller's version has `size` bytes: what this library does not know of it becomes
/// zero. Null is ignored, and so is a size that no version has.
///
/// # Safety
/// `to` is null or has `size` writable bytes.
pub unsafe fn init<T: Versioned>(to: *mut T, size: usize, value: T) {
    if to.is_null() || !(T::FIRST_SIZE..=MOST_BYTES).contains(&size) {
        return;
    }
    let known = size.min(size_of::<T>());
    // SAFETY: promised by the caller; both structures have `known` bytes, and the first field is a usize.
    unsafe {
        let bytes = to.cast::<u8>();
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(&value).cast::<u8>(), bytes, known);
        std::ptr::write_bytes(bytes.add(known), 0, size - known);
        to.cast::<usize>().write_unaligned(size);
    }
}

/// A structure of zeros with its size set.
pub fn zeroed<T: Versioned>() -> T {
    // SAFETY: T may hold zero bytes and begins with the usize that is set.
    unsafe {
        let mut value = std::mem::zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

/// # Safety
/// As for [`read`].
unsafe fn checked_size<T: Versioned>(pointer: *const T, argument: &str) -> Result<usize> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{argument} is NULL, expected a {}", T::NAME)));
    }
    // SAFETY: every such structure begins with its size.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if !(T::FIRST_SIZE..=MOST_BYTES).contains(&size) {
        return Err(Error::invalid(format!(
            "{argument}->struct_size is {size}, expected sizeof({}) = {}: was it initialised?",
            T::NAME,
            size_of::<T>()
        )));
    }
    Ok(size)
}
