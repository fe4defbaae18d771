//! Convolution layers on any Vulkan GPU, behind a C ABI.
//!
//! The rooms, from the ground up; imports run downwards only:
//!
//! - [`error`], [`config`], [`problem`]: pure arithmetic — what a convolution is, its shapes, costs and argument errors.
//! - `cpu`: the CPU device.

pub mod config;
mod cpu;
pub mod error;
pub mod problem;
