//! Convolution layers on any Vulkan GPU, behind a C ABI.
//!
//! A [`Context`] is one device: a Vulkan GPU, or the CPU. A [`Conv2d`] is an immutable, validated convolution on it.
//! Tensors are views of memory that the caller owns, on the host or in a [`Buffer`]. The way of one call:
//!
//! ```text
//! ffi  →  config + shapes  →  Problem  →  Plan  →  record / run  →  result
//!         (pure arithmetic)   (pure)      (device)   (device)
//! ```
//!
//! The rooms, from the ground up; imports run downwards only:
//!
//! - [`error`], [`config`], [`problem`], [`broadcast`], [`plan`]: pure data and arithmetic — what a convolution is,
//!   what it costs, what is illegal, and what a device will be told to do.
//! - `os`: what the standard library lacks; `cache_file`: a file that is believed only if it is whole and ours; `pool`: what memory pools have in common.
//! - `vulkan`: instance, device, memory pool, pipelines, recorder; the only code that names ash.
//! - [`kernels`]: one file per algorithm, from problem to plan.
//! - `cpu`: the CPU device.
//! - `devices`, `context`, `buffer`, `tensor`, `weights`, `conv2d`, `pass_plan`, `ticket`, `elementwise`, `init`: the Rust API.
//! - `run`: a call on either device.
//! - [`ffi`]: the C ABI, all of it.

pub mod broadcast;
pub mod config;
pub mod error;
pub mod ffi;
pub mod init;
pub mod kernels;
pub mod plan;
pub mod probe;
pub mod problem;

mod buffer;
mod cache_file;
mod context;
mod conv2d;
mod cpu;
mod devices;
mod elementwise;
mod os;
mod pass_plan;
mod pool;
mod run;
mod schedule;
mod tensor;
mod ticket;
mod vulkan;
mod weights;

pub use buffer::Buffer;
pub use cache_file::CacheFolder;
pub use config::{Conv2dConfig, PaddingMode, Precision};
pub use context::{Context, ContextDesc, Log, LogLevel, Stats};
pub use conv2d::{Accumulate, Backward, Conv2d, Forward, MemorySizes, Weight};
pub use devices::{DeviceChoice, DeviceInfo, DeviceKind, devices};
pub use elementwise::{Elementwise, ElementwiseOp};
pub use error::{Error, Result, Status};
pub use pass_plan::PassPlan;
pub use problem::{Pass, PassOptions};
pub use tensor::{DeviceTensor, Input, Output};
pub use ticket::Ticket;
pub use weights::Weights;
