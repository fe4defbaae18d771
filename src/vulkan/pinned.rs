//! Ordinary memory of this process that the device reaches too, for arrays of the caller's.
//!
//! It is mapped like any other memory and then imported into the device, if the device can do that. So an array in it
//! outlives the device and a fork, and the device copies from and to it without a detour. Pages are touched once, and
//! importing pins them, which takes about as long as copying them: such memory is worth keeping, and is pooled.

use super::memory::Block;
use crate::error::{Error, Result, Status};
use crate::os::{self, Mapping};
use ash::vk;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// Host memory may be held up to this share of what the machine has: what is pinned, nobody else can have.
const SHARE: u64 = 4;

/// How host memory is imported into a device.
pub struct Import {
    extension: ash::ext::external_memory_host::Device,
    types: vk::PhysicalDeviceMemoryProperties,
    alignment: u64,
}

/// Memory of the process, and the device's view of it.
pub struct Imported {
    pub mapping: Mapping,
    /// Null where the device cannot reach it.
    pub buffer: vk::Buffer,
    pub address: u64,
    memory: vk::DeviceMemory,
}

impl Import {
    /// Of a device that has VK_EXT_external_memory_host enabled.
    pub fn new(instance: &ash::Instance, device: &ash::Device, physical: vk::PhysicalDevice) -> Import {
        let mut limits = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut limits);
        // SAFETY: the physical device has the extension that the structure belongs to.
        let types = unsafe {
            instance.get_physical_device_properties2(physical, &mut properties);
            instance.get_physical_device_memory_properties(physical)
        };
        Import {
            extension: ash::ext::external_memory_host::Device::new(instance, device),
            types,
            alignment: limits.min_imported_host_pointer_alignment,
        }
    }
}

impl Imported {
    /// Memory for a buffer as `create` has it, imported if the device can. Of the pool's memory of this kind, `held` bytes
    /// are held already.
    ///
    /// # Errors
    /// `OutOfHostMemory` beyond the share of the machine's memory that this may take, or if there is none.
    pub fn new(
        device: &ash::Device,
        import: Option<&Import>,
        create: vk::BufferCreateInfo<'_>,
        held: u64,
    ) -> Result<Imported> {
        let class = create.size;
        let most = os::physical_memory() / SHARE;
        if class > most.saturating_sub(held) {
            return Err(Error::new(
                Status::OutOfHostMemory,
                format!("{class} bytes more than the {held} held exceed a {SHARE}th of this machine's memory"),
            ));
        }
        let alignment = import.map_or(os::PAGE, |import| import.alignment.max(os::PAGE));
        let mapping = Mapping::new(class.next_multiple_of(alignment)).ok_or_else(|| {
            Error::new(Status::OutOfHostMemory, format!("no host memory for an array of {class} bytes"))
        })?;
        let mut imported =
            Imported { mapping, buffer: vk::Buffer::null(), address: 0, memory: vk::DeviceMemory::null() };
        // A device that cannot is no error: such an array is copied like any other.
        if let Some(import) = import.filter(|import| (imported.mapping.start() as u64).is_multiple_of(import.alignment))
            && imported.import(device, import, create).is_err()
        {
            imported.forget(device);
        }
        Ok(imported)
    }

    fn import(
        &mut self,
        device: &ash::Device,
        import: &Import,
        create: vk::BufferCreateInfo<'_>,
    ) -> std::result::Result<(), vk::Result> {
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let create = create.size(self.mapping.bytes()).push_next(&mut external);
        let addressed = create.usage.contains(vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS);
        // SAFETY: the device is alive, and so are the structures until their calls return; the mapping is aligned as the
        // extension asks, and outlives the memory object that is made of it.
        unsafe {
            let mut known = vk::MemoryHostPointerPropertiesEXT::default();
            let ask = import.extension.fp().get_memory_host_pointer_properties_ext;
            ask(device.handle(), kind, self.mapping.start().cast(), &mut known).result()?;
            self.buffer = device.create_buffer(&create, None)?;
            let needs = device.get_buffer_memory_requirements(self.buffer);
            let bits = known.memory_type_bits & needs.memory_type_bits;
            let visible = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let cached = visible | vk::MemoryPropertyFlags::HOST_CACHED;
            let with = |wanted: vk::MemoryPropertyFlags| {
                let mut kinds = import.types.memory_types_as_slice().iter().enumerate();
                kinds.position(|(at, kind)| bits >> at & 1 == 1 && kind.property_flags.contains(wanted))
            };
            let index = with(cached).or_else(|| with(visible)).filter(|_| needs.size <= self.mapping.bytes());
            let index = index.ok_or(vk::Result::ERROR_FEATURE_NOT_PRESENT)?;
            let mut pointer = vk::ImportMemoryHostPointerInfoEXT::default()
                .handle_type(kind)
                .host_pointer(self.mapping.start().cast());
            let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
            let mut allocate = vk::MemoryAllocateInfo::default()
                .allocation_size(self.mapping.bytes())
                .memory_type_index(index as u32)
                .push_next(&mut pointer);
            if addressed {
                allocate = allocate.push_next(&mut flags);
            }
            self.memory = device.allocate_memory(&allocate, None)?;
            device.bind_buffer_memory(self.buffer, self.memory, 0)?;
            if addressed {
                let info = vk::BufferDeviceAddressInfo::default().buffer(self.buffer);
                self.address = device.get_buffer_device_address(&info);
            }
        }
        Ok(())
    }

    /// Ends the device's view.
    fn forget(&mut self, device: &ash::Device) {
        // SAFETY: the device is done with the buffer; null handles are ignored.
        unsafe {
            device.destroy_buffer(self.buffer, None);
            device.free_memory(self.memory, None);
        }
        (self.buffer, self.memory) = (vk::Buffer::null(), vk::DeviceMemory::null());
    }

    /// Gives the memory back. The device is done with it.
    pub fn free(mut self, device: &ash::Device) {
        self.forget(device);
    }
}

/// The blocks of such memory that a device reaches, by their addresses.
pub struct Pinned<B = Block> {
    blocks: RwLock<BTreeMap<usize, Weak<B>>>,
}

impl<B> Pinned<B> {
    pub fn new() -> Pinned<B> {
        Pinned { blocks: RwLock::default() }
    }

    /// Remembers a block, until it is forgotten.
    pub fn insert(&self, start: usize, block: &Arc<B>) {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner).insert(start, Arc::downgrade(block));
    }

    /// A block calls this when it ends.
    pub fn forget(&self, start: usize) {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
    }

    /// The last block that begins there or before, and how far before, if it reaches so far.
    pub fn find(&self, start: usize, reaches: impl FnOnce(&B, u64) -> bool) -> Option<(Arc<B>, u64)> {
        let (block, offset) = {
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            let (first, block) = blocks.range(..=start).next_back()?;
            (block.upgrade()?, (start - first) as u64)
        };
        // Without the lock: if another thread lets go of the block meanwhile, it ends here, and is forgotten.
        reaches(&block, offset).then_some((block, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// A block that begins at 100.
    struct Fake(Arc<Pinned<Fake>>);

    impl Drop for Fake {
        fn drop(&mut self) {
            self.0.forget(100);
        }
    }

    #[test]
    fn a_block_may_end_while_it_is_looked_at() {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let pinned = Arc::new(Pinned::new());
            let block = Arc::new(Fake(pinned.clone()));
            pinned.insert(100, &block);
            assert!(pinned.find(99, |_, _| true).is_none());
            assert_eq!(pinned.find(107, |_, offset| offset == 7).map(|(_, offset)| offset), Some(7));
            // As its owner on another thread might.
            let let_go = |_: &Fake, _| {
                drop(block);
                false
            };
            assert!(pinned.find(107, let_go).is_none());
            assert!(pinned.find(107, |_, _| true).is_none());
            send.send(()).unwrap();
        });
        assert_eq!(receive.recv_timeout(Duration::from_secs(20)), Ok(()), "it waits for its own lock");
    }
}
