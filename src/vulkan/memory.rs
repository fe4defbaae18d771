//! Device memory: blocks from a pool over gpu-allocator, reused by size class once the GPU is done with them.

use super::crew;
use super::device::Device;
use super::failure;
use super::pinned::{Import, Imported};
use super::queues::{Serials, reached};
use super::recorder::Bound;
use crate::error::{Error, Result, Status};
use crate::pool::size_class;
use ash::vk;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc};
use gpu_allocator::{AllocationError, MemoryLocation};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a block's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// Fastest for the device; the host sees it only where they share memory.
    Device,
    /// Memory of the device that the host writes to, where it sees some: see [`Device::has_upload_memory`].
    Upload,
    /// Memory of the host, which both copy to and from.
    Staging,
    /// Ordinary memory of this process, which the device reaches where it can: see [`super::pinned`].
    Host,
}

impl Home {
    /// Whether its memory is the device's, and counts as such.
    fn is_of_device(self) -> bool {
        matches!(self, Home::Device | Home::Upload)
    }
}

/// A range of device memory with a buffer of its own. Dropped, it returns to its device's pool.
pub struct Block {
    device: Arc<Device>,
    memory: Option<Memory>,
    home: Home,
    bytes: u64,
}

/// What the pool keeps of a block.
struct Memory {
    buffer: vk::Buffer,
    address: u64,
    source: Source,
    class: u64,
}

/// What a block's memory was taken from.
enum Source {
    Allocated(Allocation),
    Imported(Imported),
}

/// A block that returned, and the submissions after which the GPU no longer touches it.
struct Returned {
    memory: Memory,
    serials: Serials,
}

/// What a pool must know of its device.
pub struct PoolProperties {
    /// Buffers have addresses.
    pub buffer_addresses: bool,
    /// The host sees device memory, so [`Home::Device`] blocks are mapped.
    pub unified: bool,
    /// Queue families that use the blocks.
    pub families: Vec<u32>,
    /// How the host's own memory is reached, where it can be.
    pub import: Option<Import>,
    /// Bytes that may be held; 0: as many as there are.
    pub budget: u64,
}

/// Blocks of so many bytes have device memory of their own.
const LARGE: u64 = 16 << 20;

/// The pool of one device.
pub struct Pool {
    allocator: Allocator,
    properties: PoolProperties,
    free: HashMap<(Home, u64), Vec<Returned>>,
    /// What the pool holds and has done.
    pub usage: Usage,
}

/// Figures of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes held of the host's memory, pooled blocks included.
    pub host_bytes_held: u64,
    /// Bytes held of the device's memory, pooled blocks included.
    pub bytes_held: u64,
    /// Bytes of those blocks that are in use.
    pub bytes_in_use: u64,
    /// The most bytes ever held.
    pub bytes_peak: u64,
    /// Blocks in use.
    pub blocks_in_use: u64,
    /// Blocks taken from the device.
    pub allocations: u64,
}

impl Pool {
    pub fn new(desc: &AllocatorCreateDesc, properties: PoolProperties) -> Result<Pool> {
        let allocator =
            Allocator::new(desc).map_err(|error| allocation_failure("opening the device's memory", error))?;
        let budget = if properties.budget == 0 { u64::MAX } else { properties.budget };
        Ok(Pool {
            allocator,
            properties: PoolProperties { budget, ..properties },
            free: HashMap::new(),
            usage: Usage::default(),
        })
    }

    fn take_free(&mut self, home: Home, class: u64, completed: &Serials) -> Option<Memory> {
        let free = self.free.get_mut(&(home, class))?;
        let at = free.iter().rposition(|returned| reached(&returned.serials, completed))?;
        Some(free.swap_remove(at).memory)
    }

    fn create(&mut self, device: &ash::Device, home: Home, class: u64) -> Result<Memory> {
        if home == Home::Host {
            let (import, held) = (self.properties.import.as_ref(), self.usage.host_bytes_held);
            let imported = Imported::new(device, import, self.buffer_create(class), held)?;
            self.usage.allocations += 1;
            self.usage.host_bytes_held += class;
            let (buffer, address) = (imported.buffer, imported.address);
            return Ok(Memory { buffer, address, source: Source::Imported(imported), class });
        }
        let (budget, usage) = (self.properties.budget, &self.usage);
        if home.is_of_device() && class > budget.saturating_sub(usage.bytes_held) {
            return Err(Error::new(
                Status::OutOfDeviceMemory,
                format!(
                    "{class} bytes more than the {} held exceed the context's memory_budget of {budget}",
                    usage.bytes_held
                ),
            ));
        }
        let create = self.buffer_create(class);
        // SAFETY: the device is alive, and so is every structure until its call returns. The buffer is bound to memory
        // that its own requirements asked for, and destroyed if anything fails.
        unsafe {
            let buffer = device.create_buffer(&create, None).map_err(|result| failure("creating a buffer", result))?;
            let allocation = self.allocator.allocate(&AllocationCreateDesc {
                name: match home {
                    Home::Device | Home::Upload => "grilly tensor",
                    Home::Staging | Home::Host => "grilly staging",
                },
                requirements: device.get_buffer_memory_requirements(buffer),
                location: match home {
                    Home::Device if !self.properties.unified => MemoryLocation::GpuOnly,
                    Home::Upload => MemoryLocation::CpuToGpu,
                    _ => MemoryLocation::GpuToCpu,
                },
                linear: true,
                // A large tensor in memory of its own takes no more than it needs.
                allocation_scheme: if class >= LARGE {
                    AllocationScheme::DedicatedBuffer(buffer)
                } else {
                    AllocationScheme::GpuAllocatorManaged
                },
            });
            let allocation = match allocation {
                Ok(allocation) => allocation,
                Err(error) => {
                    device.destroy_buffer(buffer, None);
                    return Err(allocation_failure(&format!("allocating {class} bytes"), error));
                }
            };
            if let Err(result) = device.bind_buffer_memory(buffer, allocation.memory(), allocation.offset()) {
                device.destroy_buffer(buffer, None);
                let _ = self.allocator.free(allocation);
                return Err(failure("binding a buffer's memory", result));
            }
            let address = if self.properties.buffer_addresses {
                device.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(buffer))
            } else {
                0
            };
            let usage = &mut self.usage;
            usage.allocations += 1;
            if home.is_of_device() {
                usage.bytes_held += class;
                usage.bytes_peak = usage.bytes_peak.max(usage.bytes_held);
            } else {
                usage.host_bytes_held += class;
            }
            Ok(Memory { buffer, address, source: Source::Allocated(allocation), class })
        }
    }

    fn buffer_create(&self, bytes: u64) -> vk::BufferCreateInfo<'_> {
        let mut usage = vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST;
        if self.properties.buffer_addresses {
            usage |= vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        }
        let create = vk::BufferCreateInfo::default().size(bytes).usage(usage);
        let families = &self.properties.families;
        if families.len() > 1 {
            // Ranges of one buffer are copied and computed on at the same time.
            create.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(families)
        } else {
            create
        }
    }

    /// Gives back the free blocks that the GPU is done with.
    pub fn trim(&mut self, device: &ash::Device, completed: &Serials) {
        for ((home, _), free) in self.free.iter_mut() {
            for returned in free.extract_if(.., |returned| reached(&returned.serials, completed)) {
                let Memory { buffer, source, class, .. } = returned.memory;
                if home.is_of_device() {
                    self.usage.bytes_held -= class;
                } else {
                    self.usage.host_bytes_held -= class;
                }
                match source {
                    Source::Imported(imported) => imported.free(device),
                    Source::Allocated(allocation) => {
                        // SAFETY: the GPU is done with the buffer, and nothing else knows it any more.
                        unsafe { device.destroy_buffer(buffer, None) };
                        let _ = self.allocator.free(allocation);
                    }
                }
            }
        }
    }
}

impl Block {
    /// A block of at least `bytes` bytes, from the pool if it has one. Its contents are whatever they were.
    ///
    /// # Errors
    /// `OutOfDeviceMemory` or `OutOfHostMemory`, after the pool was trimmed, everything under way was waited for, and the
    /// request was tried again.
    pub fn new(device: &Arc<Device>, home: Home, bytes: u64) -> Result<Block> {
        let class = size_class(bytes);
        let known = device.pool().take_free(home, class, &device.completed());
        let memory = known.map_or_else(|| Block::take(device, home, class), Ok)?;
        let mut pool = device.pool();
        pool.usage.blocks_in_use += 1;
        if home.is_of_device() {
            pool.usage.bytes_in_use += class;
        }
        Ok(Block { device: device.clone(), memory: Some(memory), home, bytes })
    }

    /// Memory where no free block is known to serve.
    fn take(device: &Device, home: Home, class: u64) -> Result<Memory> {
        let take = |pool: &mut Pool, completed: &Serials| match pool.take_free(home, class, completed) {
            Some(memory) => Ok(memory),
            None => pool.create(device.raw(), home, class),
        };
        let mut taken = take(&mut device.pool(), &device.observed());
        // First what is free gives way, then what the GPU still uses.
        for waits in [false, true] {
            let exhausted =
                |error: &Error| matches!(error.status(), Status::OutOfDeviceMemory | Status::OutOfHostMemory);
            if !taken.as_ref().is_err_and(exhausted) {
                break;
            }
            if waits {
                // Waiting frees nothing of what is in use.
                if !device.pool().free.values().any(|free| !free.is_empty()) {
                    break;
                }
                device.drain()?;
            }
            let (mut pool, completed) = (device.pool(), device.observed());
            pool.trim(device.raw(), &completed);
            taken = take(&mut pool, &completed);
        }
        taken
    }

    /// Bytes asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn buffer(&self) -> vk::Buffer {
        self.memory.as_ref().map_or(vk::Buffer::null(), |memory| memory.buffer)
    }

    /// The address of its first byte for shaders; 0 without buffer addresses.
    pub(super) fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.address)
    }

    /// The host's pointer to its first byte, if the host sees it.
    pub fn mapped(&self) -> Option<*mut u8> {
        match &self.memory.as_ref()?.source {
            Source::Allocated(allocation) => Some(allocation.mapped_ptr()?.as_ptr().cast()),
            Source::Imported(imported) => Some(imported.mapping.start()),
        }
    }

    /// Whether the host can read and write it directly.
    pub fn is_mapped(&self) -> bool {
        self.mapped().is_some()
    }

    /// Whether the device can reach it, as it can all but some of [`Home::Host`].
    pub fn has_buffer(&self) -> bool {
        self.buffer() != vk::Buffer::null()
    }

    /// The device it came from.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// All of it.
    pub fn whole(&self) -> Bound<'_> {
        Bound { block: self, offset: 0, bytes: self.bytes }
    }

    /// Copies from the host into a mapped block. Whoever uses the range must have been waited for.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let to = self.range(offset, data.len())?;
        // SAFETY: `range` checked that the bytes lie in the mapping; the slice is host memory of its own.
        unsafe { crew::copy(data.as_ptr(), to, data.len()) };
        Ok(())
    }

    /// Copies from a mapped block to the host. Whoever wrote the range must have been waited for.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let from = self.range(offset, data.len())?;
        // SAFETY: as in `write`.
        unsafe { crew::copy(from, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    /// The first elements of a mapped block, which has at least so many.
    pub fn mapped_floats(&self, length: usize) -> Result<*mut f32> {
        Ok(self.range(0, 4 * length)?.cast())
    }

    fn range(&self, offset: u64, length: usize) -> Result<*mut u8> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.bytes);
        let start = self.mapped().filter(|_| inside).ok_or_else(|| {
            Error::new(
                Status::Internal,
                format!("bytes {offset}+{length} of a {}-byte {:?} block", self.bytes, self.home),
            )
        })?;
        Ok(start.wrapping_add(offset as usize))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        if let Source::Imported(imported) = &memory.source {
            self.device.pinned().forget(imported.mapping.start() as usize);
        }
        let serials = self.device.submitted();
        let mut pool = self.device.pool();
        pool.usage.blocks_in_use -= 1;
        if self.home.is_of_device() {
            pool.usage.bytes_in_use -= memory.class;
        }
        pool.free.entry((self.home, memory.class)).or_default().push(Returned { memory, serials });
    }
}

fn allocation_failure(doing: &str, error: AllocationError) -> Error {
    match error {
        AllocationError::OutOfMemory => {
            Error::new(Status::OutOfDeviceMemory, format!("device memory is exhausted while {doing}"))
        }
        // gpu-allocator passes on the names of other results.
        AllocationError::Internal(text) if text.contains("ERROR_TOO_MANY_OBJECTS") => {
            Error::new(Status::OutOfDeviceMemory, format!("the driver has no more allocations while {doing}"))
        }
        AllocationError::Internal(text) if text.contains("ERROR_OUT_OF_HOST_MEMORY") => {
            Error::new(Status::OutOfHostMemory, format!("host memory is exhausted while {doing}"))
        }
        AllocationError::FailedToMap(reason) => {
            Error::new(Status::OutOfHostMemory, format!("mapping failed while {doing}: {reason}"))
        }
        other => Error::new(Status::Internal, format!("gpu-allocator failed while {doing}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_driver_refuses_is_not_called_a_bug() {
        for (result, status) in [
            (vk::Result::ERROR_OUT_OF_HOST_MEMORY, Status::OutOfHostMemory),
            (vk::Result::ERROR_TOO_MANY_OBJECTS, Status::OutOfDeviceMemory),
            (vk::Result::ERROR_UNKNOWN, Status::Internal),
        ] {
            // As gpu-allocator 0.28 has it.
            let error = AllocationError::Internal(format!("Unexpected error in vkAllocateMemory: {result:?}"));
            assert_eq!(allocation_failure("allocating", error).status(), status, "{result:?}");
        }
    }
}
