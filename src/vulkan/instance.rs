//! The loader, an instance, and the physical devices it shows.

use super::failure;
use super::logical::Opened;
use crate::error::{Error, Result, Status};
use ash::{khr, vk};
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The Vulkan version that a device must offer.
const REQUIRED_VERSION: u32 = vk::API_VERSION_1_1;
/// The highest version that this code knows how to use.
const KNOWN_VERSION: u32 = vk::API_VERSION_1_3;

/// Names a loader to use instead of the system's.
const LOADER_VARIABLE: &str = "GRILLY_VULKAN_LOADER";

/// The process's instance: made at the first call, kept until the process ends. When a last instance goes, the loader
/// unloads the driver, whose threads and thread-local data may not be gone yet.
pub struct Instance {
    raw: ash::Instance,
    waiting: Mutex<Vec<Opened>>,
}

/// A device that the instance shows.
pub struct PhysicalDevice {
    pub(super) instance: &'static Instance,
    pub(super) raw: vk::PhysicalDevice,
    pub(super) properties: vk::PhysicalDeviceProperties,
    /// Its name.
    pub name: String,
    /// Its driver's name and version.
    pub driver: String,
    /// Bytes of device-local memory.
    pub memory_bytes: u64,
    /// Why this library cannot use it.
    pub refusal: Option<String>,
}

/// What a process has of Vulkan. A forked child has none of its parent's: a lock that another thread held while it forked
/// would never open for the child.
struct Process {
    id: u32,
    /// The loader is opened once and never closed: drivers leave threads behind that must keep their code.
    entry: OnceLock<std::result::Result<ash::Entry, String>>,
    instance: Mutex<Option<&'static Instance>>,
}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());

impl Process {
    fn current() -> &'static Process {
        let id = std::process::id();
        loop {
            let known = PROCESS.load(Ordering::Acquire);
            // SAFETY: the pointer is null or came from `Box::leak` below.
            if let Some(process) = unsafe { known.as_ref() }
                && process.id == id
            {
                return process;
            }
            let fresh: *mut Process =
                Box::leak(Box::new(Process { id, entry: OnceLock::new(), instance: Mutex::new(None) }));
            // A lost race leaves a few bytes behind and takes the winner's.
            let _ = PROCESS.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn entry(&'static self) -> Result<&'static ash::Entry> {
        let entry = self.entry.get_or_init(|| {
            let named = crate::os::secure_variable(LOADER_VARIABLE);
            // SAFETY: loading a Vulkan loader runs its initialisers, which is what it is for.
            let loaded = unsafe { named.map_or_else(|| ash::Entry::load(), |path| ash::Entry::load_from(path)) };
            loaded.map_err(|error| error.to_string())
        });
        entry.as_ref().map_err(|error| Error::new(Status::NoVulkan, format!("no Vulkan loader: {error}")))
    }
}

/// Held while the instance or a device comes or goes. Vulkan allows devices to come and go from several threads at once,
/// but with NVIDIA's driver 580 and loader 1.3.239 programs that did so, and opened an instance for each, ended in a
/// corrupted heap at times.
pub(super) fn lifecycle() -> MutexGuard<'static, Option<&'static Instance>> {
    Process::current().instance.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    /// The process's instance. A failure is not kept: a driver may be installed while the process runs.
    ///
    /// # Errors
    /// `NoVulkan` without a loader, `NoDevice` without a driver.
    pub fn get() -> Result<&'static Instance> {
        let mut kept = lifecycle();
        if let Some(instance) = *kept {
            return Ok(instance);
        }
        let instance: &'static Instance = Box::leak(Box::new(Instance::new(Process::current().entry()?)?));
        *kept = Some(instance);
        Ok(instance)
    }

    fn new(entry: &ash::Entry) -> Result<Instance> {
        // SAFETY: the entry is loaded and never unloaded.
        let offered = unsafe { entry.try_enumerate_instance_version() };
        let offered =
            offered.map_err(|result| failure("asking for its version", result))?.unwrap_or(vk::API_VERSION_1_0);
        if offered < REQUIRED_VERSION {
            return Err(Error::new(
                Status::NoVulkan,
                format!("the Vulkan loader offers {}, expected at least 1.1", version_text(offered)),
            ));
        }
        let application = vk::ApplicationInfo::default().engine_name(c"libgrilly").api_version(KNOWN_VERSION);
        // Without this extension the loader hides devices that are not fully conformant, such as MoltenVK's.
        // SAFETY: the entry is loaded and never unloaded.
        let offered = unsafe { entry.enumerate_instance_extension_properties(None) }.unwrap_or_default();
        let portability = khr::portability_enumeration::NAME;
        let shown = offered.iter().any(|extension| extension.extension_name_as_c_str() == Ok(portability));
        let names = if shown { vec![portability.as_ptr()] } else { vec![] };
        let flags = if shown { vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR } else { Default::default() };
        let create = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&names)
            .flags(flags);
        // SAFETY: the structures live until the call returns.
        let raw = unsafe { entry.create_instance(&create, None) }.map_err(|result| match result {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => {
                Error::new(Status::NoDevice, "the Vulkan loader found no driver (ERROR_INCOMPATIBLE_DRIVER)")
            }
            other => failure("creating an instance", other),
        })?;
        Ok(Instance { raw, waiting: Mutex::default() })
    }

    pub(super) fn raw(&self) -> &ash::Instance {
        &self.raw
    }

    /// Logical devices that nobody uses now.
    pub(super) fn waiting(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All devices, in Vulkan's order, which `VK_GPU_INDEX` counts.
    pub fn physical_devices(&'static self) -> Result<Vec<PhysicalDevice>> {
        let _alone = lifecycle();
        // SAFETY: the instance lives as long as the process.
        let devices = unsafe { self.raw.enumerate_physical_devices() };
        let devices = devices.map_err(|result| failure("enumerating devices", result))?;
        Ok(devices.into_iter().map(|raw| self.describe(raw)).collect())
    }

    fn describe(&'static self, raw: vk::PhysicalDevice) -> PhysicalDevice {
        // SAFETY: `raw` comes from this instance, which is alive. Driver properties are asked of 1.2 devices only.
        unsafe {
            let properties = self.raw.get_physical_device_properties(raw);
            let mut driver = format!("driver {:#x}", properties.driver_version);
            if properties.api_version >= vk::API_VERSION_1_2 {
                let mut named = vk::PhysicalDeviceDriverProperties::default();
                let mut chain = vk::PhysicalDeviceProperties2::default().push_next(&mut named);
                self.raw.get_physical_device_properties2(raw, &mut chain);
                driver = format!("{} {}", text(named.driver_name_as_c_str()), text(named.driver_info_as_c_str()));
            }
            let memory = self.raw.get_physical_device_memory_properties(raw);
            let memory_bytes = memory
                .memory_heaps_as_slice()
                .iter()
                .filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
                .map(|heap| heap.size)
                .sum();
            let refusal = if properties.api_version < REQUIRED_VERSION {
                Some(format!("it offers Vulkan {}, expected at least 1.1", version_text(properties.api_version)))
            } else if self.compute_queue_family(raw).is_none() {
                Some("it has no compute queue".to_string())
            } else {
                None
            };
            PhysicalDevice {
                instance: self,
                raw,
                properties,
                name: text(properties.device_name_as_c_str()),
                driver,
                memory_bytes,
                refusal,
            }
        }
    }

    /// A family with compute, one without graphics if there is one: it is not held up by drawing.
    pub(super) fn compute_queue_family(&self, raw: vk::PhysicalDevice) -> Option<u32> {
        // SAFETY: `raw` comes from this instance, which is alive.
        let families = unsafe { self.raw.get_physical_device_queue_family_properties(raw) };
        let compute = |family: &vk::QueueFamilyProperties| family.queue_flags.contains(vk::QueueFlags::COMPUTE);
        let dedicated = |family: &vk::QueueFamilyProperties| !family.queue_flags.contains(vk::QueueFlags::GRAPHICS);
        families
            .iter()
            .position(|family| compute(family) && dedicated(family))
            .or_else(|| families.iter().position(compute))
            .map(|family| family as u32)
    }

    pub(super) fn extensions(&self, raw: vk::PhysicalDevice) -> Result<Extensions> {
        // SAFETY: `raw` comes from this instance, which is alive.
        let found = unsafe { self.raw.enumerate_device_extension_properties(raw) };
        let found = found.map_err(|result| failure("listing extensions", result))?;
        let has = |name: &CStr| found.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
        Ok(Extensions {
            push_descriptor: has(khr::push_descriptor::NAME),
            shader_sm_builtins: has(ash::nv::shader_sm_builtins::NAME),
            shader_core_properties: has(ash::amd::shader_core_properties::NAME),
            portability_subset: has(khr::portability_subset::NAME),
            external_memory_host: has(ash::ext::external_memory_host::NAME),
        })
    }
}

/// Optional extensions that this code has a use for.
pub(super) struct Extensions {
    pub push_descriptor: bool,
    pub shader_sm_builtins: bool,
    pub shader_core_properties: bool,
    pub portability_subset: bool,
    pub external_memory_host: bool,
}

impl PhysicalDevice {
    /// What kind of device it says it is.
    pub fn kind(&self) -> vk::PhysicalDeviceType {
        self.properties.device_type
    }

    /// PCI vendor and device, driver version, Vulkan version.
    pub fn ids(&self) -> [u32; 4] {
        let p = &self.properties;
        [p.vendor_id, p.device_id, p.driver_version, p.api_version]
    }
}

fn text(name: std::result::Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn version_text(version: u32) -> String {
    format!("{}.{}", vk::api_version_major(version), vk::api_version_minor(version))
}
