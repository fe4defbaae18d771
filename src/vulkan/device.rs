//! A logical device, its queue, and what is counted on it.

use super::failure;
use super::instance::{Instance, PhysicalDevice};
use super::logical::{Enabled, Logical};
use super::memory::{Pool, PoolProperties, Usage};
use super::pinned::{Import, Pinned};
use super::pipeline::Pipelines;
use super::queues::{LANES, Lane, Order, Point, Queues, Serials};
use super::recorder::Recording;
use crate::error::{Error, Result, Status};
use crate::plan::Limits;
use ash::{khr, vk};
use gpu_allocator::vulkan::AllocatorCreateDesc;
use gpu_allocator::{AllocationSizes, AllocatorDebugSettings};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bytes of device memory that may be held; 0: as many as there are.
    pub budget: u64,
    /// Time every submission by the device's own clock.
    pub timestamps: bool,
    /// Use nothing beyond what every device must offer.
    pub minimum_limits: bool,
    /// For tests: as if the host did not see the device's memory, and host tensors of more than so many bytes together
    /// travel in pieces of so many.
    pub piece_bytes: u64,
    /// For tests and measurements: see [`Limits::tile`].
    pub tile: Option<usize>,
    /// For tests and measurements: see [`Limits::kernel`].
    pub kernel: Option<&'static str>,
}

/// A logical device and its queues.
pub struct Device {
    logical: Logical,
    push_descriptor: Option<khr::push_descriptor::Device>,
    limits: Limits,
    queues: Queues,
    options: Options,
    unified: bool,
    upload_memory: bool,
    /// Nanoseconds of one timestamp tick, and which bits of a timestamp count; `None` if submissions are not timed.
    timestamps: Option<(f64, u64)>,
    pool: Mutex<Option<Pool>>,
    pinned: Pinned,
    pipelines: Pipelines,
    recordings: [Mutex<Vec<Recording>>; LANES],
    /// Recordings that could not be waited for; they end with the device.
    abandoned: Mutex<Vec<Recording>>,
    counters: AtomicCounters,
}

#[derive(Default)]
struct AtomicCounters {
    dispatches: AtomicU64,
    device_nanoseconds: AtomicU64,
}

/// What a device has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Of its memory pool.
    pub memory: Usage,
    /// Submissions.
    pub submits: u64,
    /// Kernels run.
    pub dispatches: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Nanoseconds spent in submissions, by the device's clock, if they are timed.
    pub device_nanoseconds: u64,
}

impl Device {
    /// Opens a device for compute.
    pub fn new(physical: &PhysicalDevice, options: Options) -> Result<Device> {
        let Options { budget, timestamps, minimum_limits, piece_bytes, tile, kernel } = options;
        let instance = physical.instance;
        let logical = Logical::open(physical, !minimum_limits)?;
        let Enabled { push_descriptors, buffer_addresses, timelines, import_host, layout, .. } = logical.enabled;
        let full = Limits { tile, kernel, ..limits(physical, &logical.enabled)? };
        let queues = Queues::new(&logical.raw, layout, timelines)?;
        // From here on `Drop` destroys what is made, whatever fails.
        let unified = !minimum_limits && piece_bytes == 0 && shares_host_memory(instance, physical);
        let upload_memory = !minimum_limits && !unified && has_memory(instance, physical, UPLOAD_MEMORY);
        let push_descriptor = push_descriptors.then(|| khr::push_descriptor::Device::new(instance.raw(), &logical.raw));
        let device = Device {
            pipelines: Pipelines::default(),
            push_descriptor,
            limits: if minimum_limits { full.minimum() } else { full },
            queues,
            options,
            unified,
            upload_memory,
            timestamps: clock(instance, physical, layout.family(Lane::Compute)).filter(|_| timestamps),
            pool: Mutex::new(None),
            pinned: Pinned::new(),
            recordings: Default::default(),
            abandoned: Mutex::default(),
            counters: AtomicCounters::default(),
            logical,
        };
        let memory = AllocatorCreateDesc {
            instance: instance.raw().clone(),
            device: device.raw().clone(),
            physical_device: physical.raw,
            debug_settings: AllocatorDebugSettings::default(),
            buffer_device_address: buffer_addresses,
            // Small at first, so that a small program takes little; each further block is twice as large.
            allocation_sizes: AllocationSizes::new(8 << 20, 8 << 20)
                .with_max_device_memblock_size(256 << 20)
                .with_max_host_memblock_size(64 << 20),
        };
        let properties = PoolProperties {
            buffer_addresses,
            unified,
            families: layout.families().into_iter().map(|(family, _)| family).collect(),
            import: import_host.then(|| Import::new(instance.raw(), device.raw(), physical.raw)),
            budget,
        };
        *device.pool.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(Pool::new(&memory, properties)?);
        Ok(device)
    }

    pub(super) fn raw(&self) -> &ash::Device {
        &self.logical.raw
    }

    pub(super) fn push_descriptor(&self) -> Option<&khr::push_descriptor::Device> {
        self.push_descriptor.as_ref()
    }

    pub(super) fn pipelines(&self) -> &Pipelines {
        &self.pipelines
    }

    /// The family whose queues a lane's commands go to.
    pub(super) fn queue_family(&self, lane: Lane) -> u32 {
        self.queues.layout().family(lane)
    }

    /// Whether submissions of different lanes can run at once.
    pub(super) fn overlaps(&self) -> bool {
        self.queues.overlaps()
    }

    /// The lanes that kernels take turns on: those of one fill units that the last ones of another leave idle. Only one
    /// where submissions are timed, for times of work that overlaps do not add up.
    pub fn computing_lanes(&self) -> &'static [Lane] {
        let several = self.overlaps() && self.timestamps.is_none();
        if several { &[Lane::Compute, Lane::Beside] } else { &[Lane::Compute] }
    }

    /// The newest submission of a lane.
    pub fn latest(&self, lane: Lane) -> Point {
        Point { lane, serial: self.submitted()[lane as usize] }
    }

    /// Whether the host sees the memory of tensors.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Whether the host can write to some of the device's memory ([`super::Home::Upload`]), though not read it at speed.
    pub fn has_upload_memory(&self) -> bool {
        self.upload_memory
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Host memory that the device can reach.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    pub(super) fn timestamps(&self) -> Option<(f64, u64)> {
        self.timestamps
    }

    /// What planning must know.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The memory pool.
    pub(super) fn pool(&self) -> PoolGuard<'_> {
        PoolGuard(self.pool.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// Gives pooled memory back that the GPU is done with.
    pub fn trim(&self) {
        let completed = self.observed();
        self.pool().trim(self.raw(), &completed);
    }

    pub(super) fn recordings(&self, lane: Lane) -> MutexGuard<'_, Vec<Recording>> {
        self.recordings[lane as usize].lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(super) fn abandon(&self, recording: Recording) {
        self.abandoned.lock().unwrap_or_else(|poison| poison.into_inner()).push(recording);
    }

    /// The newest submission of each lane.
    pub(super) fn submitted(&self) -> Serials {
        self.queues.submitted()
    }

    /// Of each lane, up to where submissions are known to be done.
    pub(super) fn completed(&self) -> Serials {
        self.queues.completed()
    }

    /// See [`Queues::needs_barrier`].
    pub(super) fn needs_barrier(&self, lane: Lane, after: &Serials) -> bool {
        self.queues.needs_barrier(lane, after)
    }

    /// As [`Device::completed`], after asking.
    pub(super) fn observed(&self) -> Serials {
        self.queues.observe(self.raw());
        self.completed()
    }

    /// Waits for everything that was submitted so far.
    pub(super) fn drain(&self) -> Result<()> {
        let drained = self.queues.drain(self.raw());
        drained.map_err(|result| self.note(failure("waiting for work", result)))
    }

    /// Submits to a lane.
    pub(super) fn submit(
        &self,
        lane: Lane,
        commands: vk::CommandBuffer,
        fence: vk::Fence,
        order: &Order,
    ) -> Result<Point> {
        self.check()?;
        let submitted = self.queues.submit(self.raw(), lane, commands, fence, order);
        submitted.map_err(|result| self.note(failure("submitting work", result)))
    }

    /// Waits for a submission, whose fence this is where there are no timelines, at most so long, and awake for a while;
    /// says whether it is done.
    pub(super) fn wait(&self, point: Point, fence: vk::Fence, timeout: Duration, patience: Duration) -> Result<bool> {
        let done = self.wait_for(point, fence, timeout, patience);
        let done = done.map_err(|result| self.note(failure("waiting for work", result)))?;
        if done {
            self.queues.complete(point);
        }
        Ok(done)
    }

    fn wait_for(
        &self,
        point: Point,
        fence: vk::Fence,
        timeout: Duration,
        patience: Duration,
    ) -> std::result::Result<bool, vk::Result> {
        let done = || self.queues.is_done(self.raw(), point, fence);
        if done()? {
            return Ok(true);
        }
        // A software driver needs the core itself.
        let awake = if self.limits.software { Duration::ZERO } else { patience.min(timeout) };
        let began = Instant::now();
        while began.elapsed() < awake {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
            if done()? {
                return Ok(true);
            }
        }
        let left = timeout.saturating_sub(awake);
        if left.is_zero() { Ok(false) } else { self.queues.sleep(self.raw(), point, fence, left) }
    }

    /// Refuses work on a lost device.
    pub fn check(&self) -> Result<()> {
        if self.logical.is_lost() {
            return Err(Error::new(
                Status::DeviceLost,
                "the device was lost earlier; destroy this context and create another",
            ));
        }
        Ok(())
    }

    /// Remembers a lost device.
    pub(super) fn note(&self, error: Error) -> Error {
        if error.status() == Status::DeviceLost {
            self.logical.lose();
        }
        error
    }

    pub(super) fn count(&self, dispatches: u64, nanoseconds: u64) {
        self.counters.dispatches.fetch_add(dispatches, Ordering::Relaxed);
        self.counters.device_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What the device has done so far.
    pub fn counters(&self) -> Counters {
        Counters {
            memory: self.pool().usage,
            submits: self.submitted().iter().sum(),
            dispatches: self.counters.dispatches.load(Ordering::Relaxed),
            pipelines: self.pipelines.compiled(),
            device_nanoseconds: self.counters.device_nanoseconds.load(Ordering::Relaxed),
        }
    }
}

/// The pool, which exists from `Device::new` to `Drop`.
pub(super) struct PoolGuard<'a>(MutexGuard<'a, Option<Pool>>);

impl std::ops::Deref for PoolGuard<'_> {
    type Target = Pool;
    fn deref(&self) -> &Pool {
        self.0.as_ref().expect("the pool lives as long as the device")
    }
}

impl std::ops::DerefMut for PoolGuard<'_> {
    fn deref_mut(&mut self) -> &mut Pool {
        self.0.as_mut().expect("the pool lives as long as the device")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the device any more: blocks, recorders and pipelines keep it alive. A lost device
        // fails the wait, and its objects may be destroyed all the same.
        unsafe {
            self.logical.settle();
            let mut abandoned = self.abandoned.lock().unwrap_or_else(|poison| poison.into_inner());
            let idle = self
                .recordings
                .iter()
                .map(|list| std::mem::take(&mut *list.lock().unwrap_or_else(|poison| poison.into_inner())));
            for recording in idle.flatten().chain(abandoned.drain(..)) {
                recording.destroy(self.raw());
            }
            drop(abandoned);
            self.queues.destroy(self.raw());
            self.pipelines.destroy(self.raw());
            let pool = self.pool.lock().unwrap_or_else(|poison| poison.into_inner()).take();
            if let Some(mut pool) = pool {
                pool.trim(self.raw(), &[u64::MAX; LANES]);
                drop(pool);
            }
        }
    }
}

/// Memory of the device that the host writes to.
const UPLOAD_MEMORY: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::DEVICE_LOCAL.as_raw()
        | vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw()
        | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// Whether tensors can live in memory that the host reads and writes at full speed.
fn shares_host_memory(instance: &Instance, physical: &PhysicalDevice) -> bool {
    let shares = matches!(physical.kind(), vk::PhysicalDeviceType::INTEGRATED_GPU | vk::PhysicalDeviceType::CPU);
    shares && has_memory(instance, physical, UPLOAD_MEMORY | vk::MemoryPropertyFlags::HOST_CACHED)
}

fn has_memory(instance: &Instance, physical: &PhysicalDevice, wanted: vk::MemoryPropertyFlags) -> bool {
    // SAFETY: the physical device comes from this instance, which is alive.
    let memory = unsafe { instance.raw().get_physical_device_memory_properties(physical.raw) };
    memory.memory_types_as_slice().iter().any(|kind| kind.property_flags.contains(wanted))
}

/// Nanoseconds of a tick of the device's clock, and which bits of a timestamp count.
fn clock(instance: &Instance, physical: &PhysicalDevice, family: u32) -> Option<(f64, u64)> {
    // SAFETY: the physical device comes from this instance, which is alive.
    let families = unsafe { instance.raw().get_physical_device_queue_family_properties(physical.raw) };
    let bits = families.get(family as usize)?.timestamp_valid_bits;
    let period = f64::from(physical.properties.limits.timestamp_period);
    let mask = u64::MAX.checked_shr(64 - bits)?;
    (bits > 0 && period > 0.0).then_some((period, mask))
}

fn limits(physical: &PhysicalDevice, enabled: &Enabled) -> Result<Limits> {
    let instance = physical.instance;
    let extensions = instance.extensions(physical.raw)?;
    let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
    let mut multiprocessors = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut cores = vk::PhysicalDeviceShaderCorePropertiesAMD::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut subgroups);
    if extensions.shader_sm_builtins {
        properties = properties.push_next(&mut multiprocessors);
    }
    if extensions.shader_core_properties {
        properties = properties.push_next(&mut cores);
    }
    // SAFETY: the structures chained belong to Vulkan 1.1 or to extensions that were found.
    unsafe { instance.raw().get_physical_device_properties2(physical.raw, &mut properties) };

    let software = physical.kind() == vk::PhysicalDeviceType::CPU;
    let units = if multiprocessors.shader_sm_count > 0 {
        multiprocessors.shader_sm_count
    } else if cores.compute_units_per_shader_array > 0 {
        cores.shader_engine_count * cores.shader_arrays_per_engine_count * cores.compute_units_per_shader_array
    } else {
        match physical.kind() {
            vk::PhysicalDeviceType::DISCRETE_GPU => 48,
            vk::PhysicalDeviceType::CPU => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            _ => 12,
        }
    };
    // A unit sustains at least this; low on purpose.
    let unit_flops = if software { 1e10 } else { 2e10 };
    let limits = &physical.properties.limits;
    Ok(Limits {
        storage_buffer_range: u64::from(limits.max_storage_buffer_range),
        storage_buffer_alignment: limits.min_storage_buffer_offset_alignment.max(4),
        workgroup_count: [limits.max_compute_work_group_count[0], limits.max_compute_work_group_count[1]],
        workgroup_threads: limits.max_compute_work_group_invocations.min(limits.max_compute_work_group_size[0]),
        shared_memory: limits.max_compute_shared_memory_size,
        subgroup: subgroups.subgroup_size,
        subgroup_shuffle: subgroups.supported_stages.contains(vk::ShaderStageFlags::COMPUTE)
            && subgroups.supported_operations.contains(vk::SubgroupFeatureFlags::SHUFFLE),
        int64: enabled.int64,
        buffer_addresses: enabled.buffer_addresses,
        push_descriptors: enabled.push_descriptors,
        software,
        tile: None,
        kernel: None,
        loop_iterations: if software { 60_000 } else { u64::MAX },
        concurrent_workgroups: if software { units } else { 2 * units },
        flops: unit_flops * f64::from(units),
    })
}
