//! Memory on a context's device.

use crate::context::{Backend, Context};
use crate::cpu;
use crate::error::{Error, Result};
use crate::run::copies;
use crate::vulkan::{Block, Bound, Home, HostArray, Recorder};
use std::sync::Arc;

/// Memory on a context's device.
///
/// Any thread may hold it. The caller orders access to its contents: while one call writes a range, no other may touch
/// that range.
pub struct Buffer {
    context: Context,
    bytes: u64,
    /// It was made for arrays of the host's.
    of_host: bool,
    storage: Storage,
}

pub(crate) enum Storage {
    Vulkan(Block),
    /// Host memory, which a Vulkan device may reach.
    Host(Arc<Block>),
    Cpu(cpu::Memory),
}

impl Context {
    /// Allocates zeroed memory on the device, from its pool.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 bytes; `OutOfDeviceMemory` or `OutOfHostMemory`.
    pub fn create_buffer(&self, bytes: u64) -> Result<Buffer> {
        let mut buffer = self.create_buffer_uninitialized(bytes)?;
        match &mut buffer.storage {
            Storage::Cpu(memory) => memory.zero(),
            Storage::Host(_) => {}
            Storage::Vulkan(block) => {
                let mut recorder = Recorder::new(block.device())?;
                recorder.zero(block);
                recorder.submit()?;
                recorder.wait()?;
            }
        }
        Ok(buffer)
    }

    /// As [`Context::create_buffer`], but without waiting for zeros: the contents are unspecified until written.
    ///
    /// # Errors
    /// As [`Context::create_buffer`].
    pub fn create_buffer_uninitialized(&self, bytes: u64) -> Result<Buffer> {
        check_size(bytes)?;
        let storage = match self.backend() {
            Backend::Vulkan(device) => Storage::Vulkan(Block::new(device, Home::Device, bytes)?),
            Backend::Cpu(machine) => Storage::Cpu(cpu::Memory::new(&machine.memory, bytes)?),
        };
        Ok(Buffer { context: self.clone(), bytes, of_host: false, storage })
    }
}

impl Context {
    /// Memory of the host for arrays of the caller's, from a pool: see [`Buffer::host_address`]. Host tensors that lie
    /// in it are copied to and from the device without a detour, if the device can reach it; on devices that share the
    /// host's memory they are not copied at all. Its contents are unspecified until written. It outlives the context,
    /// and a fork. It is no memory for device tensors.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 bytes; `OutOfHostMemory` also beyond a fourth of the machine's memory.
    pub fn create_host_buffer(&self, bytes: u64) -> Result<Buffer> {
        check_size(bytes)?;
        let storage = match self.backend() {
            Backend::Vulkan(device) => {
                let block = Arc::new(Block::new(device, Home::Host, bytes)?);
                if let Some(start) = block.mapped().filter(|_| block.has_buffer()) {
                    device.pinned().insert(start as usize, &block);
                }
                Storage::Host(block)
            }
            Backend::Cpu(machine) => Storage::Cpu(cpu::Memory::new(&machine.memory, bytes)?),
        };
        Ok(Buffer { context: self.clone(), bytes, of_host: true, storage })
    }
}

fn check_size(bytes: u64) -> Result<()> {
    if bytes == 0 || bytes > i64::MAX as u64 {
        return Err(Error::invalid(format!("bytes is {bytes}, expected 1 to {}", i64::MAX)));
    }
    Ok(())
}

impl Buffer {
    /// The address of the first byte of a buffer from [`Context::create_host_buffer`].
    ///
    /// # Errors
    /// `InvalidArgument` for memory of the device.
    pub fn host_address(&self) -> Result<*mut u8> {
        let start = match &self.storage {
            Storage::Host(block) => block.mapped(),
            Storage::Cpu(memory) if self.of_host => Some(memory.start()),
            Storage::Cpu(_) | Storage::Vulkan(_) => None,
        };
        start.ok_or_else(|| Error::invalid("the buffer is memory of the device, expected one of the host"))
    }

    /// The context that it belongs to.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Bytes, as it was created.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_of_host(&self) -> bool {
        self.of_host
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Copies host memory into the buffer, from byte `offset` on, and waits for it.
    ///
    /// # Errors
    /// `InvalidArgument` if the range is not within the buffer.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        self.context.count_transfers(data.len() as u64, 0);
        let bytes = data.len() as u64;
        match &self.storage {
            Storage::Cpu(memory) => memory.write(offset, data),
            Storage::Host(block) => block.write(offset, data)?,
            Storage::Vulkan(block) if block.is_mapped() => block.write(offset, data)?,
            Storage::Vulkan(block) => {
                let to = Bound { block, offset, bytes };
                if let Some(array) = HostArray::reading_words(data) {
                    return copies::write(block.device(), array, to);
                }
                let staging = Block::new(block.device(), Home::Staging, bytes)?;
                staging.write(0, data)?;
                let mut recorder = Recorder::new(block.device())?;
                recorder.copy(Bound { block: &staging, offset: 0, bytes }, to);
                recorder.submit()?;
                recorder.wait()?;
            }
        }
        Ok(())
    }

    /// Copies the contents from byte `offset` on into host memory, and waits for it.
    ///
    /// # Errors
    /// `InvalidArgument` if the range is not within the buffer.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.check(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        self.context.count_transfers(0, data.len() as u64);
        let bytes = data.len() as u64;
        match &self.storage {
            Storage::Cpu(memory) => memory.read(offset, data),
            Storage::Host(block) => block.read(offset, data)?,
            Storage::Vulkan(block) if block.is_mapped() => block.read(offset, data)?,
            Storage::Vulkan(block) => {
                let from = Bound { block, offset, bytes };
                if let Some(array) = HostArray::writing_words(data) {
                    return copies::read(block.device(), from, array);
                }
                let staging = Block::new(block.device(), Home::Staging, bytes)?;
                let mut recorder = Recorder::new(block.device())?;
                recorder.copy(from, Bound { block: &staging, offset: 0, bytes });
                recorder.submit()?;
                recorder.wait()?;
                staging.read(0, data)?;
            }
        }
        Ok(())
    }

    fn check(&self, offset: u64, length: usize) -> Result<()> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(Error::invalid(format!(
                "bytes {offset} to {offset} + {length} are not within the buffer's {}",
                self.bytes
            )));
        }
        Ok(())
    }
}
