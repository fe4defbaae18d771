//! What a driver compiled, kept on disk for the next process: see [`crate::cache_file`].
//!
//! The file is read when a device is opened, and written after the submission that used new pipelines. It belongs to a
//! device, a driver, and the kernels of this version of the library.

use super::device::Device;
use super::instance::PhysicalDevice;
use crate::cache_file::{CacheFile, CacheFolder};
use ash::vk;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A driver's cache, and its file.
pub struct PipelineCache {
    raw: vk::PipelineCache,
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
        let read = file.read().and_then(|bytes| match is_of(&bytes, physical) {
            true => Ok(bytes),
            false => Err("the driver wrote it for another device".into()),
        });
        let (bytes, found) = match read {
            Ok(bytes) => {
                let found = format!("{} bytes of compiled pipelines from {path}", bytes.len());
                (bytes, found)
            }
            Err(reason) => (Vec::new(), format!("no compiled pipelines from {path}: {reason}")),
        };
        let create = |bytes: &[u8]| {
            // SAFETY: the bytes live until the call returns. They are what this driver wrote, as far as can be known.
            unsafe {
                self.raw().create_pipeline_cache(&vk::PipelineCacheCreateInfo::default().initial_data(bytes), None)
            }
        };
        let Ok(raw) = create(&bytes).or_else(|_| create(&[])) else {
            return "compiled pipelines are not kept: the driver gives no cache".into();
        };
        let cache = PipelineCache { raw, file: Mutex::new(Some(file)), grown: AtomicBool::new(false) };
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
        // SAFETY: the cache lives as long as the device; the driver orders access to it.
        let bytes = unsafe { self.raw().get_pipeline_cache_data(cache.raw) };
        // What came out of the file is not worth writing again.
        let written = bytes.map_err(|result| result.to_string()).and_then(|bytes| match open.read() {
            Ok(there) if there == bytes => Ok(()),
            _ => open.write(&bytes),
        });
        if written.is_err() {
            *file = None;
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

/// Whether a driver's data begin with the header that Vulkan prescribes, for this device. Drivers check it as well; some
/// are said not to.
fn is_of(data: &[u8], physical: &PhysicalDevice) -> bool {
    let properties = &physical.properties;
    let word = |at: usize| data.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    word(0).is_some_and(|length| length >= 32 && length as usize <= data.len())
        && word(4) == Some(vk::PipelineCacheHeaderVersion::ONE.as_raw() as u32)
        && word(8) == Some(properties.vendor_id)
        && word(12) == Some(properties.device_id)
        && data.get(16..32) == Some(&properties.pipeline_cache_uuid)
}
