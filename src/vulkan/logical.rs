//! Logical devices, which outlive the contexts that use them.
//!
//! One that is in order is not destroyed when its context goes, but waits for the next context on that device. Opening
//! a device takes milliseconds, and ending one is not safe while the program's threads come and go: NVIDIA's driver 580
//! waits in `vkDestroyDevice` for a worker of its own, whose end waits for any thread that is ending, whose end waits
//! for `vkDestroyDevice`. Lost devices are destroyed, since nothing else gives back what they hold.

use super::failure;
use super::instance::{Extensions, Instance, PhysicalDevice, lifecycle};
use super::queues::{LANES, Layout};
use crate::error::{Error, Result, Status};
use ash::{khr, vk};
use std::sync::atomic::{AtomicBool, Ordering};

/// A logical device for one user at a time, who leaves nothing of his own on it.
pub struct Logical {
    opened: Opened,
    lost: AtomicBool,
}

/// A device and how it was opened.
#[derive(Clone)]
pub struct Opened {
    pub raw: ash::Device,
    pub enabled: Enabled,
    instance: &'static Instance,
    physical: vk::PhysicalDevice,
    /// Whether it has what goes beyond what every device must offer.
    optional: bool,
}

/// What a logical device was opened with.
#[derive(Clone, Copy)]
pub struct Enabled {
    pub push_descriptors: bool,
    pub buffer_addresses: bool,
    pub int64: bool,
    pub timelines: bool,
    pub import_host: bool,
    pub layout: Layout,
}

impl Logical {
    /// One that waits, or else a new one, with all that it can do or with as little as every device can.
    pub fn open(physical: &PhysicalDevice, optional: bool) -> Result<Logical> {
        let fits = |device: &Opened| device.physical == physical.raw && device.optional == optional;
        let next = || take(&mut physical.instance.waiting(), fits);
        while let Some(opened) = next() {
            let waiting = Logical { opened, lost: AtomicBool::new(false) };
            // It may have been lost while nobody looked; then its `Drop` destroys it.
            if waiting.settle() {
                return Ok(waiting);
            }
        }
        Ok(Logical { opened: Opened::new(physical, optional)?, lost: AtomicBool::new(false) })
    }

    /// Waits until it has nothing to do, and says whether it is in order.
    pub fn settle(&self) -> bool {
        // SAFETY: whoever has the device is its only user, and submits nothing meanwhile.
        if unsafe { self.raw.device_wait_idle() }.is_err() {
            self.lose();
        }
        !self.is_lost()
    }

    /// Remembers that it was lost.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether it was lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

impl Opened {
    fn new(physical: &PhysicalDevice, optional: bool) -> Result<Opened> {
        let instance = physical.instance;
        let compute = instance
            .compute_queue_family(physical.raw)
            .ok_or_else(|| Error::new(Status::NoDevice, format!("{} has no compute queue", physical.name)))?;
        let extensions = instance.extensions(physical.raw)?;
        let enabled = Enabled::of(physical, compute, &extensions, optional);

        let mut names = Vec::new();
        if enabled.push_descriptors {
            names.push(khr::push_descriptor::NAME.as_ptr());
        }
        if extensions.portability_subset {
            names.push(khr::portability_subset::NAME.as_ptr());
        }
        if enabled.import_host {
            names.push(ash::ext::external_memory_host::NAME.as_ptr());
        }
        let priorities = [1.0; LANES];
        let families = enabled.layout.families();
        let queues: Vec<_> = families
            .into_iter()
            .map(|(family, count)| {
                vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities[..count])
            })
            .collect();
        let mut addresses = vk::PhysicalDeviceBufferDeviceAddressFeatures::default().buffer_device_address(true);
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let features = vk::PhysicalDeviceFeatures::default().shader_int64(enabled.int64);
        let mut create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .enabled_features(&features);
        if enabled.buffer_addresses {
            create = create.push_next(&mut addresses);
        }
        if enabled.timelines {
            create = create.push_next(&mut timeline);
        }
        let alone = lifecycle();
        // SAFETY: the instance is alive, and so are the structures until the call returns; every extension and
        // feature asked for was found.
        let raw = unsafe { instance.raw().create_device(physical.raw, &create, None) };
        drop(alone);
        let raw = raw.map_err(|result| failure("opening the device", result))?;
        Ok(Opened { raw, enabled, instance, physical: physical.raw, optional })
    }
}

impl std::ops::Deref for Logical {
    type Target = Opened;
    fn deref(&self) -> &Opened {
        &self.opened
    }
}

impl Drop for Logical {
    fn drop(&mut self) {
        if self.settle() {
            self.instance.waiting().push(self.opened.clone());
        } else {
            let _alone = lifecycle();
            // SAFETY: its user has destroyed everything made of it.
            unsafe { self.raw.destroy_device(None) };
        }
    }
}

fn take(waiting: &mut Vec<Opened>, fits: impl Fn(&Opened) -> bool) -> Option<Opened> {
    waiting.iter().position(fits).map(|at| waiting.swap_remove(at))
}

impl Enabled {
    fn of(physical: &PhysicalDevice, compute: u32, extensions: &Extensions, optional: bool) -> Enabled {
        if !optional {
            return Enabled {
                push_descriptors: false,
                buffer_addresses: false,
                int64: false,
                timelines: false,
                import_host: false,
                layout: Layout::single(compute),
            };
        }
        let instance = physical.instance.raw();
        let mut addresses = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
        let mut timelines = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        if physical.properties.api_version >= vk::API_VERSION_1_2 {
            let mut features =
                vk::PhysicalDeviceFeatures2::default().push_next(&mut addresses).push_next(&mut timelines);
            // SAFETY: the structures are chained as the specification allows for a 1.2 device.
            unsafe { instance.get_physical_device_features2(physical.raw, &mut features) };
        }
        let timelines = timelines.timeline_semaphore == vk::TRUE;
        // SAFETY: the physical device comes from this instance, which is alive.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical.raw) };
        Enabled {
            push_descriptors: extensions.push_descriptor,
            buffer_addresses: addresses.buffer_device_address == vk::TRUE,
            // SAFETY: the physical device comes from this instance, which is alive.
            int64: unsafe { instance.get_physical_device_features(physical.raw) }.shader_int64 == vk::TRUE,
            timelines,
            import_host: extensions.external_memory_host,
            layout: if timelines { Layout::choose(&families, compute) } else { Layout::single(compute) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<PhysicalDevice> {
        let instance = Instance::get().expect("these tests need a Vulkan driver");
        let devices = instance.physical_devices().expect("devices can be listed");
        devices.into_iter().filter(|device| device.refusal.is_none()).collect()
    }

    // One test, since others would take what waits.
    #[test]
    fn a_device_in_order_waits_for_the_next_user_with_the_same_wishes() {
        for physical in &devices() {
            let open = |optional| Logical::open(physical, optional).expect("the device can be opened");
            let waits = |handle| physical.instance.waiting().iter().any(|device| device.raw.handle() == handle);
            let (first, second) = (open(true), open(true));
            let (one, other) = (first.raw.handle(), second.raw.handle());
            assert_ne!(one, other, "each has one user");

            drop(first);
            assert!(waits(one));
            let least = open(false);
            assert_ne!(least.raw.handle(), one);
            let Enabled { push_descriptors, buffer_addresses, int64, timelines, import_host, layout: _ } =
                least.enabled;
            assert!(!(push_descriptors || buffer_addresses || int64 || timelines || import_host));
            let third = open(true);
            assert!(third.raw.handle() == one && !waits(one));

            second.lose();
            drop(second);
            assert!(!waits(other), "a lost device is destroyed");
        }
    }
}
