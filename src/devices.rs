//! Which devices there are, and which one a context gets.

use crate::error::{Error, Result, Status};
use crate::os::secure_variable;
use crate::vulkan::{Instance, PhysicalDevice};
use ash::vk::PhysicalDeviceType;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// A Vulkan driver that computes on the CPU, such as llvmpipe.
    Software,
    /// Some other Vulkan device.
    Other,
    /// This library's own CPU device, which needs no Vulkan.
    Cpu,
}

/// A device, as [`devices`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Position in the list; of Vulkan devices also the value for `VK_GPU_INDEX`.
    pub index: u32,
    /// What it is.
    pub kind: DeviceKind,
    /// PCI vendor; 0 for the CPU device.
    pub vendor_id: u32,
    /// PCI device; 0 for the CPU device.
    pub device_id: u32,
    /// The driver's own version number; 0 for the CPU device.
    pub driver_version: u32,
    /// The Vulkan version it offers, packed as Vulkan does; 0 for the CPU device.
    pub api_version: u32,
    /// Bytes of device memory; 0 where that is unknown.
    pub memory_bytes: u64,
    /// Its name.
    pub name: String,
    /// Its driver's name and version.
    pub driver: String,
    /// Listed: why it cannot be used, or is not chosen by itself. Of a context: how it came to be chosen.
    pub note: String,
}

/// Which device a context should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `VK_GPU_INDEX` if that is set; else the best Vulkan GPU; else the CPU.
    #[default]
    Auto,
    /// The CPU, whatever else there is.
    Cpu,
    /// A position in [`devices`].
    Index(u32),
}

/// All devices: Vulkan's in Vulkan's order, then the CPU device. Without Vulkan, the CPU device's note says why.
pub fn devices() -> Vec<DeviceInfo> {
    Found::new().infos()
}

/// The device chosen, and its Vulkan side if it has one.
pub(crate) struct Chosen {
    pub info: DeviceInfo,
    pub vulkan: Option<PhysicalDevice>,
}

/// Follows a choice, the environment and the ranking.
pub(crate) fn choose(choice: DeviceChoice) -> Result<Chosen> {
    Found::new().choose(choice, secure_variable("VK_GPU_INDEX"), allows_software())
}

/// What Vulkan showed.
struct Found {
    physical: Vec<PhysicalDevice>,
    absence: Option<Error>,
}

impl Found {
    fn new() -> Found {
        match Instance::get().and_then(Instance::physical_devices) {
            Ok(physical) => {
                let none = physical.is_empty();
                let absence = none.then(|| Error::new(Status::NoDevice, "the Vulkan drivers show no device"));
                Found { physical, absence }
            }
            Err(error) => Found { physical: Vec::new(), absence: Some(error) },
        }
    }

    fn infos(&self) -> Vec<DeviceInfo> {
        let mut infos: Vec<_> =
            (0..).zip(&self.physical).map(|(index, physical)| vulkan_info(index, physical)).collect();
        infos.push(cpu_info(infos.len() as u32, self.absence.as_ref().map_or("", Error::message)));
        infos
    }

    fn choose(mut self, choice: DeviceChoice, variable: Option<std::ffi::OsString>, software: bool) -> Result<Chosen> {
        let cpu = self.physical.len();
        let (index, reason) = match (choice, variable) {
            (DeviceChoice::Cpu, _) => (cpu, "asked for".to_string()),
            (DeviceChoice::Index(index), _) => (index as usize, format!("asked for by index {index}")),
            (DeviceChoice::Auto, Some(text)) => {
                let text = text.to_string_lossy().into_owned();
                (self.by_variable(&text)?, format!("asked for by VK_GPU_INDEX={text}"))
            }
            (DeviceChoice::Auto, None) => self.best(software),
        };
        if index > cpu {
            return Err(Error::new(
                Status::NoDevice,
                format!("device index is {index}, expected 0 to {cpu} ({} is the CPU device)", cpu),
            ));
        }
        if index == cpu {
            return Ok(Chosen { info: cpu_info(cpu as u32, &reason), vulkan: None });
        }
        let physical = self.physical.swap_remove(index);
        if let Some(refusal) = &physical.refusal {
            return Err(Error::new(Status::NoDevice, format!("{} cannot be used: {refusal}", physical.name)));
        }
        let info = DeviceInfo { note: reason, ..vulkan_info(index as u32, &physical) };
        Ok(Chosen { info, vulkan: Some(physical) })
    }

    fn by_variable(&self, text: &str) -> Result<usize> {
        let count = self.physical.len();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let index = text.parse::<usize>().ok().filter(|&index| digits && index < count);
        index.ok_or_else(|| {
            let legal = match (&self.absence, count) {
                (Some(absence), _) => format!("but there is no Vulkan device: {}", absence.message()),
                (None, 1) => "expected 0, the only Vulkan device".to_string(),
                (None, _) => format!("expected 0 to {}", count - 1),
            };
            Error::new(Status::NoDevice, format!("VK_GPU_INDEX is \"{text}\", {legal}"))
        })
    }

    /// The best device, and why.
    fn best(&self, software: bool) -> (usize, String) {
        let rank = |physical: &PhysicalDevice| match kind(physical) {
            _ if physical.refusal.is_some() => None,
            DeviceKind::Discrete => Some(0),
            DeviceKind::Integrated => Some(1),
            DeviceKind::Virtual => Some(2),
            DeviceKind::Other => Some(3),
            DeviceKind::Software if software => Some(4),
            _ => None,
        };
        let best = self.physical.iter().enumerate().filter_map(|(at, physical)| Some((rank(physical)?, at))).min();
        if let Some((rank, at)) = best {
            let reason = if rank == 4 { "allowed by ALLOW_CPU_VULKAN=1" } else { "the best Vulkan GPU" };
            return (at, reason.to_string());
        }
        let passed_over: Vec<String> = self
            .infos()
            .iter()
            .filter(|info| !info.note.is_empty())
            .map(|info| match info.kind {
                DeviceKind::Cpu => info.note.clone(),
                _ => format!("{}: {}", info.name, info.note),
            })
            .collect();
        (self.physical.len(), format!("Vulkan was passed over: {}", passed_over.join("; ")))
    }
}

/// Whether a software driver may be chosen without naming it.
fn allows_software() -> bool {
    secure_variable("ALLOW_CPU_VULKAN").is_some_and(|value| value == "1")
}

fn kind(physical: &PhysicalDevice) -> DeviceKind {
    match physical.kind() {
        PhysicalDeviceType::DISCRETE_GPU => DeviceKind::Discrete,
        PhysicalDeviceType::INTEGRATED_GPU => DeviceKind::Integrated,
        PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::Virtual,
        PhysicalDeviceType::CPU => DeviceKind::Software,
        _ => DeviceKind::Other,
    }
}

fn vulkan_info(index: u32, physical: &PhysicalDevice) -> DeviceInfo {
    let [vendor_id, device_id, driver_version, api_version] = physical.ids();
    let kind = kind(physical);
    let note = match (&physical.refusal, kind) {
        (Some(refusal), _) => refusal.clone(),
        (None, DeviceKind::Software) => {
            "a software driver, chosen only by its index or with ALLOW_CPU_VULKAN=1".to_string()
        }
        _ => String::new(),
    };
    DeviceInfo {
        index,
        kind,
        vendor_id,
        device_id,
        driver_version,
        api_version,
        memory_bytes: physical.memory_bytes,
        name: physical.name.clone(),
        driver: physical.driver.clone(),
        note,
    }
}

fn cpu_info(index: u32, note: &str) -> DeviceInfo {
    DeviceInfo {
        index,
        kind: DeviceKind::Cpu,
        vendor_id: 0,
        device_id: 0,
        driver_version: 0,
        api_version: 0,
        memory_bytes: 0,
        name: "CPU".to_string(),
        driver: concat!("libgrilly ", env!("CARGO_PKG_VERSION")).to_string(),
        note: note.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_vulkan() -> Found {
        let absence = Some(Error::new(Status::NoVulkan, "no Vulkan loader: not found"));
        Found { physical: Vec::new(), absence }
    }

    #[test]
    fn without_vulkan_the_cpu_is_chosen_and_says_why() {
        let chosen = without_vulkan().choose(DeviceChoice::Auto, None, false).unwrap();
        assert_eq!(chosen.info.kind, DeviceKind::Cpu);
        assert_eq!(chosen.info.note, "Vulkan was passed over: no Vulkan loader: not found");
    }

    #[test]
    fn an_index_that_does_not_exist_is_an_error() {
        let error = without_vulkan().choose(DeviceChoice::Index(1), None, false).err().unwrap();
        assert_eq!(error.status(), Status::NoDevice);
        assert_eq!(error.message(), "device index is 1, expected 0 to 0 (0 is the CPU device)");
        for text in ["99", "", " 0", "+0", "0x0", "-1"] {
            let error = without_vulkan().choose(DeviceChoice::Auto, Some(text.into()), false).err().unwrap();
            assert_eq!(error.status(), Status::NoDevice);
            assert!(error.message().starts_with(&format!("VK_GPU_INDEX is \"{text}\"")), "{error}");
        }
    }
}
