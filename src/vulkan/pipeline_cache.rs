//! What a driver compiled, kept on disk for the next process: see [`crate::cache_file`].
//!
//! The file is read when a device is opened, and written after the submission that used new pipelines, together with what
//! other processes have put there since. It belongs to a device, a driver, and the kernels of this version of the
//! library.

use super::device::Device;
use super::instance::PhysicalDevice;
use crate::cache_file::{CacheFile, CacheFolder};
use ash::vk;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A driver's cache, and its file.
pub struct PipelineCache {
    raw: vk::PipelineCache,
    owner: Owner,
    /// `None` once it could not be written: trying again would cost every call.
    file: Mutex<Option<CacheFile>>,
    grown: AtomicBool,
}

impl PipelineCache {
    pub(super) fn raw(&self) -> vk::PipelineCache {
        self.raw
    }

    /// A pipeline was compiled, which the file may lack.
    pub(super) fn note_growth(&self) {
        self.grown.store(true, Ordering::Release);
    }

    /// # Safety
    /// Nothing on the device uses it any more.
    pub(super) unsafe fn destroy(&self, device: &ash::Device) {
        // SAFETY: promised by the caller.
        unsafe { device.destroy_pipeline_cache(self.raw, None) };
    }
}

impl Device {
    /// Takes what earlier processes compiled, and keeps what this one will. Says what it found. It never fails: without
    /// a cache, everything is compiled anew.
    pub fn open_pipeline_cache(&self, physical: &PhysicalDevice, folder: &CacheFolder) -> String {
        let Some(file) = CacheFile::new(folder, &key(physical)) else {
            return "compiled pipelines are not kept on disk".into();
        };
        let path = file.path().display().to_string();
        let owner = Owner::of(physical);
        let (bytes, found) = match owner.read(&file) {
            Ok(bytes) => {
                let found = format!("{} bytes of compiled pipelines from {path}", bytes.len());
                (bytes, found)
            }
            Err(reason) => (Vec::new(), format!("no compiled pipelines from {path}: {reason}")),
        };
        let Ok(raw) = self.create_cache(&bytes).or_else(|_| self.create_cache(&[])) else {
            return "compiled pipelines are not kept: the driver gives no cache".into();
        };
        let cache = PipelineCache { raw, owner, file: Mutex::new(Some(file)), grown: AtomicBool::new(false) };
        if let Err(surplus) = self.pipelines().set_cache(cache) {
            // SAFETY: nobody has seen it.
            unsafe { surplus.destroy(self.raw()) };
        }
        found
    }

    /// Writes the cache's file if pipelines were compiled since.
    pub(super) fn save_pipelines(&self) {
        let Some(cache) = self.pipelines().cache() else { return };
        // Nearly every call ends here.
        if !cache.grown.load(Ordering::Acquire) || !cache.grown.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut file = cache.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &*file else { return };
        let there = cache.owner.read(open).unwrap_or_default();
        let written = self.merged(&there, cache.raw).map_err(|result| result.to_string()).and_then(|bytes| {
            // What came out of the file is not worth writing again.
            if bytes == there { Ok(()) } else { open.write(&bytes) }
        });
        if written.is_err() {
            *file = None;
        }
    }

    fn create_cache(&self, bytes: &[u8]) -> Result<vk::PipelineCache, vk::Result> {
        let info = vk::PipelineCacheCreateInfo::default().initial_data(bytes);
        // SAFETY: the bytes live until the call returns. They are what this driver wrote, as far as can be known.
        unsafe { self.raw().create_pipeline_cache(&info, None) }
    }

    /// What both a file and a cache have: several processes may have compiled different pipelines since they read it.
    fn merged(&self, there: &[u8], cache: vk::PipelineCache) -> Result<Vec<u8>, vk::Result> {
        // A cache that others compile with may be read at any time, but not be merged into.
        let both = self.create_cache(there).or_else(|_| self.create_cache(&[]))?;
        // SAFETY: both caches live, and nobody else knows the new one.
        unsafe {
            let bytes = self
                .raw()
                .merge_pipeline_caches(both, &[cache])
                .and_then(|()| self.raw().get_pipeline_cache_data(both));
            self.raw().destroy_pipeline_cache(both, None);
            bytes
        }
    }
}

/// What a cache depends on.
fn key(physical: &PhysicalDevice) -> Vec<u8> {
    let mut ids = vk::PhysicalDeviceIDProperties::default();
    let mut chain = vk::PhysicalDeviceProperties2::default().push_next(&mut ids);
    // SAFETY: the structures are chained as Vulkan 1.1 allows, which every device in use has.
    unsafe { physical.instance.raw().get_physical_device_properties2(physical.raw, &mut chain) };
    let mut key = Vec::new();
    physical.ids().iter().for_each(|id| key.extend_from_slice(&id.to_le_bytes()));
    key.extend_from_slice(&physical.properties.pipeline_cache_uuid);
    key.extend_from_slice(&ids.device_uuid);
    key.extend_from_slice(&ids.driver_uuid);
    key.extend_from_slice(&[size_of::<usize>() as u8]);
    for text in [physical.driver.as_str(), env!("CARGO_PKG_VERSION"), env!("GRILLY_SHADERS")] {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key
}

/// Whose caches a driver takes.
struct Owner {
    vendor: u32,
    device: u32,
    uuid: [u8; vk::UUID_SIZE],
}

impl Owner {
    fn of(physical: &PhysicalDevice) -> Owner {
        let properties = &physical.properties;
        Owner { vendor: properties.vendor_id, device: properties.device_id, uuid: properties.pipeline_cache_uuid }
    }

    fn read(&self, file: &CacheFile) -> Result<Vec<u8>, String> {
        let bytes = file.read()?;
        if self.wrote(&bytes) { Ok(bytes) } else { Err("the driver wrote it for another device".into()) }
    }

    /// Whether a driver's data begin with the header that Vulkan prescribes, for this device. Drivers check it as well;
    /// some are said not to.
    fn wrote(&self, data: &[u8]) -> bool {
        let word = |at: usize| data.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
        word(0).is_some_and(|length| length >= 32 && length as usize <= data.len())
            && word(4) == Some(vk::PipelineCacheHeaderVersion::ONE.as_raw() as u32)
            && word(8) == Some(self.vendor)
            && word(12) == Some(self.device)
            && data.get(16..32) == Some(&self.uuid)
    }
}
