//! The plain data that crosses the C boundary. Every structure that the caller fills begins with its size,
//! so that later versions can grow at the tail.

use std::ffi::{c_char, c_void};

/// Result of a call: `GRILLY_OK` or a positive `GRILLY_ERROR_*` code.
#[allow(non_camel_case_types)]
pub type grilly_status = i32;

/// The call did what it was asked to do.
pub const GRILLY_OK: grilly_status = 0;
/// An argument has a value that is never legal, or does not fit the others.
pub const GRILLY_ERROR_INVALID_ARGUMENT: grilly_status = 1;
/// A handle is null, stale, already destroyed, or of another type.
pub const GRILLY_ERROR_INVALID_HANDLE: grilly_status = 2;
/// The request is legal, but this device cannot serve it.
pub const GRILLY_ERROR_UNSUPPORTED: grilly_status = 3;
/// Host memory is exhausted.
pub const GRILLY_ERROR_OUT_OF_HOST_MEMORY: grilly_status = 4;
/// Device memory, or the context's budget of it, is exhausted.
pub const GRILLY_ERROR_OUT_OF_DEVICE_MEMORY: grilly_status = 5;
/// The device was lost; its context only destroys from now on.
pub const GRILLY_ERROR_DEVICE_LOST: grilly_status = 6;
/// There is no Vulkan loader on this system.
pub const GRILLY_ERROR_NO_VULKAN: grilly_status = 7;
/// No device matches the request.
pub const GRILLY_ERROR_NO_DEVICE: grilly_status = 8;
/// The handle was created before a fork, and this is the child.
pub const GRILLY_ERROR_FORKED: grilly_status = 9;
/// A bug in this library or its driver; the context refuses further work.
pub const GRILLY_ERROR_INTERNAL: grilly_status = 10;
/// The call is still under way; waiting again may succeed.
pub const GRILLY_ERROR_TIMEOUT: grilly_status = 11;

/// `grilly_context_desc.device`: choose by `VK_GPU_INDEX`, else the best GPU, else the CPU.
pub const GRILLY_DEVICE_AUTO: i32 = -1;
/// `grilly_context_desc.device`: the CPU, whatever else there is.
pub const GRILLY_DEVICE_CPU: i32 = -2;

/// A GPU with its own memory.
pub const GRILLY_DEVICE_KIND_DISCRETE: i32 = 0;
/// A GPU that shares the host's memory.
pub const GRILLY_DEVICE_KIND_INTEGRATED: i32 = 1;
/// A GPU of a virtual machine.
pub const GRILLY_DEVICE_KIND_VIRTUAL: i32 = 2;
/// A Vulkan driver that computes on the CPU, such as llvmpipe.
pub const GRILLY_DEVICE_KIND_SOFTWARE: i32 = 3;
/// Some other Vulkan device.
pub const GRILLY_DEVICE_KIND_OTHER: i32 = 4;
/// This library's own CPU device, which needs no Vulkan.
pub const GRILLY_DEVICE_KIND_CPU: i32 = 5;

/// The default accuracy contract.
pub const GRILLY_PRECISION_FP32: i32 = 0;
/// Only fp32 fused multiply-adds.
pub const GRILLY_PRECISION_IEEE: i32 = 1;
/// The accuracy class of TF32.
pub const GRILLY_PRECISION_FAST: i32 = 2;

/// Zeros surround the input.
pub const GRILLY_PADDING_ZEROS: i32 = 0;
/// The input is mirrored at its edge, which is not repeated; each padding is less than that axis's size.
pub const GRILLY_PADDING_REFLECT: i32 = 1;
/// The input's edge is repeated.
pub const GRILLY_PADDING_REPLICATE: i32 = 2;
/// The input repeats from its other side; each padding is at most that axis's size.
pub const GRILLY_PADDING_CIRCULAR: i32 = 3;

/// 32-bit IEEE 754 floating point.
pub const GRILLY_DTYPE_F32: i32 = 0;

/// `y` from `x`, weight and bias.
pub const GRILLY_PASS_FORWARD: i32 = 0;
/// `dx` from `dy` and weight.
pub const GRILLY_PASS_BACKWARD_INPUT: i32 = 1;
/// `dweight` and `dbias` from `x` and `dy`.
pub const GRILLY_PASS_BACKWARD_WEIGHT: i32 = 2;

/// `grilly_conv2d_io.flags`, `grilly_conv2d_plan`: add to `dx` instead of overwriting it.
pub const GRILLY_ACCUMULATE_INPUT: u32 = 1;
/// `grilly_conv2d_io.flags`, `grilly_conv2d_plan`: add to `dweight` and `dbias` instead of overwriting them.
pub const GRILLY_ACCUMULATE_PARAMETERS: u32 = 2;
/// `grilly_conv2d_plan`: a bias is added (forward), or its gradient wanted (backward weight).
pub const GRILLY_WITH_BIAS: u32 = 4;
/// `grilly_conv2d_plan`: the weight comes packed, as a `grilly_weights`.
pub const GRILLY_WITH_WEIGHTS: u32 = 8;

/// `grilly_elementwise`: copies `a`, or fills with `alpha` where `a` is NULL; `b` is NULL.
pub const GRILLY_OP_COPY: i32 = 0;
/// `a + alpha · b`.
pub const GRILLY_OP_ADD: i32 = 1;
/// `a - alpha · b`.
pub const GRILLY_OP_SUBTRACT: i32 = 2;
/// `a · (alpha · b)`.
pub const GRILLY_OP_MULTIPLY: i32 = 3;
/// `a / (alpha · b)`.
pub const GRILLY_OP_DIVIDE: i32 = 4;
/// The larger of `a` and `alpha · b`; NaN if either is, and +0 is larger than -0.
pub const GRILLY_OP_MAXIMUM: i32 = 5;
/// The smaller of `a` and `alpha · b`; NaN if either is, and -0 is smaller than +0.
pub const GRILLY_OP_MINIMUM: i32 = 6;
/// 0 where `alpha · b <= 0`, else `a`: the gradient of `y = maximum(x, 0)` from `a = dy` and `b = y`.
pub const GRILLY_OP_RELU_BACKWARD: i32 = 7;

/// `grilly_context_desc.flags`: use no more of the device than what every device must offer. For tests.
pub const GRILLY_CONTEXT_MINIMUM_LIMITS: u32 = 1;
/// `grilly_context_desc.flags`: time every submission by the device's own clock, for `grilly_stats.device_nanoseconds`. It
/// takes some microseconds a call.
pub const GRILLY_CONTEXT_TIMESTAMPS: u32 = 2;

/// Something that may interest a person.
pub const GRILLY_LOG_INFO: i32 = 0;
/// Something that a person should know, though the call goes on.
pub const GRILLY_LOG_WARNING: i32 = 1;
/// A bug of this library or a broken driver.
pub const GRILLY_LOG_ERROR: i32 = 2;

/// Receives log messages, from any thread that is inside a call on the context. `message` is UTF-8, ends with a
/// null byte, and is valid during the call only. It must not call back into this library.
#[allow(non_camel_case_types)]
pub type grilly_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// What to open. Fill it with `grilly_context_desc_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_context_desc {
    /// `sizeof(grilly_context_desc)`.
    pub struct_size: usize,
    /// Index of a device as `grilly_device_info_get` counts, `GRILLY_DEVICE_AUTO` or `GRILLY_DEVICE_CPU`.
    pub device: i32,
    /// `GRILLY_CONTEXT_*` bits.
    pub flags: u32,
    /// Threads of the CPU device that may be at work at once, the callers' own among them; 0: as many as the environment
    /// variable `GRILLY_THREADS` says, or one for each core.
    pub threads: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Bytes of device memory that the context may hold; 0: as many as there are.
    pub memory_budget: u64,
    /// Receives log messages; NULL: silence.
    pub log: grilly_log_fn,
    /// Passed to `log`.
    pub log_user: *mut c_void,
}

/// A device. Fill `struct_size` with `grilly_device_info_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_device_info {
    /// `sizeof(grilly_device_info)`.
    pub struct_size: usize,
    /// Position in the enumeration.
    pub index: u32,
    /// `GRILLY_DEVICE_KIND_*`.
    pub kind: i32,
    /// PCI vendor, 0 for the CPU device.
    pub vendor_id: u32,
    /// PCI device, 0 for the CPU device.
    pub device_id: u32,
    /// The driver's own version number.
    pub driver_version: u32,
    /// The Vulkan version that the device offers, as `VK_MAKE_API_VERSION` packs it; 0 for the CPU device.
    pub api_version: u32,
    /// Bytes of device memory; 0 where that is unknown.
    pub memory_bytes: u64,
    /// The device's name, UTF-8.
    pub name: [c_char; 256],
    /// The driver's name and version, UTF-8.
    pub driver: [c_char; 256],
    /// Of an enumerated device: why it cannot be used, or is not chosen by itself; empty if neither.
    /// Of a context's device: how it came to be chosen.
    pub note: [c_char; 512],
}

/// A convolution. Fill it with `grilly_conv2d_desc_init` first. Pairs are (height, width).
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_conv2d_desc {
    /// `sizeof(grilly_conv2d_desc)`.
    pub struct_size: usize,
    /// Channels of the input; a multiple of `groups`.
    pub in_channels: i64,
    /// Channels of the output; a multiple of `groups`.
    pub out_channels: i64,
    /// Kernel size, at least 1.
    pub kernel: [i64; 2],
    /// Step between output pixels, at least 1.
    pub stride: [i64; 2],
    /// Elements before each axis (top, left). Of a transposed convolution, what its output loses there.
    pub padding_begin: [i64; 2],
    /// Elements after each axis (bottom, right).
    pub padding_end: [i64; 2],
    /// Distance between kernel elements, at least 1; 1 skips none.
    pub dilation: [i64; 2],
    /// Independent blocks of channels, at least 1.
    pub groups: i64,
    /// Transposed: rows and columns added after each axis of the output (bottom, right); less than the stride or the
    /// dilation. Otherwise 0.
    pub output_padding: [i64; 2],
    /// `GRILLY_PRECISION_*`.
    pub precision: i32,
    /// `GRILLY_PADDING_*`; a transposed convolution has `GRILLY_PADDING_ZEROS`.
    pub padding_mode: i32,
    /// 1: a transposed convolution, the input gradient of one from `out_channels` to `in_channels`; 0: none.
    pub transposed: i32,
    /// Must be 0.
    pub reserved: i32,
}

/// A view of an array that the caller owns: host memory, or a range of a buffer. Fill it with
/// `grilly_tensor_init_host` or `grilly_tensor_init_device`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_tensor {
    /// `sizeof(grilly_tensor)`.
    pub struct_size: usize,
    /// Host memory, of any alignment; NULL for a device tensor.
    pub data: *mut c_void,
    /// Bytes of the host memory; every element must lie within them.
    pub bytes: u64,
    /// Device memory; NULL for a host tensor.
    pub buffer: *const super::handle::grilly_buffer,
    /// Bytes from the start of either memory to element 0; of a buffer, a multiple of 4.
    pub offset: u64,
    /// `GRILLY_DTYPE_*`.
    pub dtype: i32,
    /// Axes used of `shape` and `strides`, 1 to 4.
    pub rank: i32,
    /// Sizes, outermost first.
    pub shape: [i64; 4],
    /// Elements between neighbours along each axis. Host tensors may have any that stay within `bytes`, zero
    /// included for inputs; device tensors are contiguous.
    pub strides: [i64; 4],
}

/// The tensors of one call. Fill it with `grilly_conv2d_io_init` first; NULL means absent, or not wanted.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_conv2d_io {
    /// `sizeof(grilly_conv2d_io)`.
    pub struct_size: usize,
    /// Input, `[N, C, H, W]`.
    pub x: *const grilly_tensor,
    /// Weight, `[K, C / groups, R, S]`; of a transposed convolution `[C, K / groups, R, S]`.
    pub weight: *const grilly_tensor,
    /// Bias, `[K]`.
    pub bias: *const grilly_tensor,
    /// Output, `[N, K, P, Q]`.
    pub y: *const grilly_tensor,
    /// Gradient with respect to the output.
    pub dy: *const grilly_tensor,
    /// Gradient with respect to the input.
    pub dx: *const grilly_tensor,
    /// Gradient with respect to the weight.
    pub dweight: *const grilly_tensor,
    /// Gradient with respect to the bias.
    pub dbias: *const grilly_tensor,
    /// A packed weight, instead of `weight`.
    pub prepared: *const super::handle::grilly_weights,
    /// `GRILLY_ACCUMULATE_*` bits.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// Sizes in bytes of a convolution's tensors, as float32. Fill `struct_size` with `grilly_memory_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_memory {
    /// `sizeof(grilly_memory)`.
    pub struct_size: usize,
    /// `out_channels · (in_channels / groups) · kernel height · kernel width · 4`.
    pub weight: u64,
    /// `out_channels · 4`.
    pub bias: u64,
    /// `N · C · H · W · 4`.
    pub input: u64,
    /// `N · K · P · Q · 4`.
    pub output: u64,
    /// Scratch memory of a forward pass on this device.
    pub forward_workspace: u64,
    /// Scratch memory of an input gradient.
    pub backward_input_workspace: u64,
    /// Scratch memory of a weight and bias gradient.
    pub backward_weight_workspace: u64,
}

/// What a plan will do. Fill `struct_size` with `grilly_plan_info_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_plan_info {
    /// `sizeof(grilly_plan_info)`.
    pub struct_size: usize,
    /// Bytes of scratch memory.
    pub workspace_bytes: u64,
    /// Kernels run.
    pub dispatches: u32,
    /// Pieces that `grilly_plan_run` can run one at a time; 0 where there is nothing to do.
    pub slices: u32,
    /// Estimated time on the device, in seconds.
    pub seconds: f64,
}

/// What a context holds and has done. Fill `struct_size` with `grilly_stats_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct grilly_stats {
    /// `sizeof(grilly_stats)`.
    pub struct_size: usize,
    /// Bytes of device memory held, pooled blocks included.
    pub bytes_held: u64,
    /// Bytes of those that are in use.
    pub bytes_in_use: u64,
    /// The most bytes ever held.
    pub bytes_peak: u64,
    /// Blocks in use.
    pub blocks_in_use: u64,
    /// Blocks taken from the device since the context was created; a block reused from the pool does not count.
    pub allocations: u64,
    /// Bytes copied from host tensors to the device.
    pub upload_bytes: u64,
    /// Bytes copied from the device to host tensors.
    pub download_bytes: u64,
    /// Submissions to the device.
    pub submits: u64,
    /// Kernels run.
    pub dispatches: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Nanoseconds that submissions spent on the device, by its own clock; 0 where it has none, or without
    /// `GRILLY_CONTEXT_TIMESTAMPS`.
    pub device_nanoseconds: u64,
    /// Bytes of host memory held for `grilly_buffer_create_host` and for copies, pooled blocks included.
    pub host_bytes_held: u64,
}
