//! The Vulkan engine: the only code that names ash.

mod crew;
mod device;
mod host_array;
mod instance;
mod logical;
mod memory;
mod pinned;
mod pipeline;
mod pipeline_cache;
mod queues;
mod recorder;
mod streaming_copy;

pub use device::{Device, Options};
pub use host_array::HostArray;
pub use instance::{Instance, PhysicalDevice};
pub use memory::{Block, Home};
pub use pipeline::Pipeline;
pub use queues::{Lane, Point};
pub use recorder::{Bound, Recorder};

use crate::error::{Error, Status};
use ash::vk;

/// What a Vulkan result code means to a caller. `doing` completes "the driver failed while …".
fn failure(doing: &str, result: vk::Result) -> Error {
    let status = match result {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY => Status::OutOfHostMemory,
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_TOO_MANY_OBJECTS => Status::OutOfDeviceMemory,
        vk::Result::ERROR_DEVICE_LOST => Status::DeviceLost,
        vk::Result::ERROR_INCOMPATIBLE_DRIVER
        | vk::Result::ERROR_EXTENSION_NOT_PRESENT
        | vk::Result::ERROR_FEATURE_NOT_PRESENT
        | vk::Result::ERROR_INITIALIZATION_FAILED => Status::NoDevice,
        _ => Status::Internal,
    };
    Error::new(status, format!("the Vulkan driver failed while {doing}: {result}"))
}
