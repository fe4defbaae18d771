//! A context: one device, its memory and its compiled kernels.

use crate::cache_file::CacheFolder;
use crate::cpu;
use crate::devices::{DeviceChoice, DeviceInfo, choose};
use crate::error::{Error, Result, Status};
use crate::kernels;
use crate::os::secure_variable;
use crate::plan::{ALL_VECTORS, Plan};
use crate::problem::Problem;
use crate::vulkan;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What to open.
#[derive(Clone, Default)]
pub struct ContextDesc {
    /// Which device.
    pub device: DeviceChoice,
    /// Bytes of device memory that may be held; 0: as many as there are.
    pub memory_budget: u64,
    /// Threads of the CPU device that may be at work at once, callers' among them; 0: as many as `GRILLY_THREADS` says,
    /// or one for each core.
    pub threads: u32,
    /// Time every submission by the device's own clock, for [`Stats::device_nanoseconds`]. It takes some microseconds a
    /// call.
    pub timestamps: bool,
    /// Use no more of the device than what every device must offer. For tests.
    pub minimum_limits: bool,
    /// For tests, if not 0: a Vulkan device is used as if the host did not see its memory, and host tensors of
    /// more than so many bytes together travel in pieces of so many.
    pub piece_bytes: u64,
    /// For tests and measurements: which tile of `shaders/permutations.txt` to use wherever it can run.
    pub tile: Option<usize>,
    /// For tests and measurements: which of [`crate::kernels::CHOICES`] to use wherever it can run; on the CPU device,
    /// which way of `cpu::Way`.
    pub kernel: Option<&'static str>,
    /// For tests: threads of the CPU device share even work that is too little to be worth it.
    pub share_all_work: bool,
    /// Where a Vulkan driver's compiled pipelines are kept for the next process.
    pub pipeline_cache: CacheFolder,
    /// Receives log messages.
    pub log: Option<Log>,
}

/// How much a log message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// It may interest a person.
    Info,
    /// A person should know, though the call goes on.
    Warning,
    /// A bug of this library or a broken driver.
    Error,
}

/// Receives log messages, from any thread that is inside a call on the context.
#[derive(Clone)]
pub struct Log(Arc<LogFunction>);

type LogFunction = dyn Fn(LogLevel, &str) + Send + Sync;

impl Log {
    /// Wraps a function.
    pub fn new(function: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Log {
        Log(Arc::new(function))
    }
}

/// What a context holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of device memory held, pooled blocks included.
    pub bytes_held: u64,
    /// Bytes of those that are in use.
    pub bytes_in_use: u64,
    /// The most bytes ever held.
    pub bytes_peak: u64,
    /// Blocks in use.
    pub blocks_in_use: u64,
    /// Blocks taken from the device; one reused from the pool does not count.
    pub allocations: u64,
    /// Bytes copied from host tensors to the device.
    pub upload_bytes: u64,
    /// Bytes copied from the device to host tensors.
    pub download_bytes: u64,
    /// Submissions to the device.
    pub submits: u64,
    /// Kernels run.
    pub dispatches: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Nanoseconds that submissions spent on the device, by its own clock; 0 where it has none, or without
    /// [`ContextDesc::timestamps`].
    pub device_nanoseconds: u64,
    /// Bytes of host memory held for [`Context::create_host_buffer`] and for copies, pooled blocks included.
    pub host_bytes_held: u64,
}

/// One device (a Vulkan GPU, or the CPU), its memory pool and its compiled pipelines.
///
/// Cheap to clone; clones are the same context. Any thread may use it, concurrently.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    device: DeviceInfo,
    backend: Backend,
    log: Option<Log>,
    refusal: OnceLock<String>,
    plans: Mutex<HashMap<(Problem, bool), Arc<Ready>>>,
    upload_bytes: AtomicU64,
    download_bytes: AtomicU64,
}

/// A plan, and the pipelines that its dispatches have needed so far.
pub(crate) struct Ready {
    pub plan: Plan,
    /// Of each dispatch, by the tensors that it reaches by elements.
    pipelines: Vec<[OnceLock<vulkan::Pipeline>; 1 + ALL_VECTORS as usize]>,
}

impl Ready {
    fn new(plan: Plan) -> Ready {
        let pipelines = plan.dispatches.iter().map(|_| Default::default()).collect();
        Ready { plan, pipelines }
    }

    /// The pipeline of a dispatch for these misaligned tensors, compiled at the first call.
    pub fn pipeline(&self, device: &vulkan::Device, at: usize, misaligned: u32) -> Result<vulkan::Pipeline> {
        let made = &self.pipelines[at][misaligned as usize];
        if let Some(pipeline) = made.get() {
            return Ok(*pipeline);
        }
        let dispatch = &self.plan.dispatches[at];
        let pipeline = device.pipeline(dispatch.module, &dispatch.by_element(misaligned))?;
        Ok(*made.get_or_init(|| pipeline))
    }

    /// Compiles the pipelines for tensors that are not misaligned.
    pub fn compile(&self, device: &vulkan::Device) -> Result<()> {
        (0..self.pipelines.len()).try_for_each(|at| self.pipeline(device, at, 0).map(drop))
    }
}

/// Where a context computes.
pub(crate) enum Backend {
    Vulkan(Arc<vulkan::Device>),
    Cpu(cpu::Machine),
}

/// A program with ever new shapes must not hold ever more plans.
const MOST_PLANS: usize = 1024;

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    /// `NoDevice` if the device asked for does not exist or cannot be used; `InvalidArgument` for a `GRILLY_THREADS` that
    /// is no number of threads.
    pub fn new(desc: &ContextDesc) -> Result<Context> {
        let chosen = choose(desc.device)?;
        let mut cache = None;
        let backend = match chosen.vulkan {
            Some(physical) => {
                let options = vulkan::Options {
                    budget: desc.memory_budget,
                    timestamps: desc.timestamps,
                    minimum_limits: desc.minimum_limits,
                    piece_bytes: desc.piece_bytes,
                    tile: desc.tile,
                    kernel: desc.kernel,
                };
                let device = vulkan::Device::new(&physical, options)?;
                cache = Some(device.open_pipeline_cache(&physical, &desc.pipeline_cache));
                Backend::Vulkan(Arc::new(device))
            }
            None => {
                let most = threads(desc.threads, secure_variable(THREADS))?;
                let threads = cpu::Threads::new(most).sharing_all_work(desc.share_all_work);
                let forced = desc.kernel.and_then(cpu::Way::named);
                Backend::Cpu(cpu::Machine::new(threads, cpu::Pool::new(desc.memory_budget), forced))
            }
        };
        let context = Context(Arc::new(Inner {
            device: chosen.info,
            backend,
            log: desc.log.clone(),
            refusal: OnceLock::new(),
            plans: Mutex::default(),
            upload_bytes: AtomicU64::new(0),
            download_bytes: AtomicU64::new(0),
        }));
        let device = context.device();
        context.log(LogLevel::Info, &format!("computing on {} ({}): {}", device.name, device.driver, device.note));
        if let Some(found) = cache {
            context.log(LogLevel::Info, &found);
        }
        Ok(context)
    }

    /// The device, and in its note how it came to be chosen.
    pub fn device(&self) -> &DeviceInfo {
        &self.0.device
    }

    /// What the context holds and has done so far.
    pub fn stats(&self) -> Stats {
        let mut stats = match &self.0.backend {
            Backend::Vulkan(device) => {
                let counters = device.counters();
                Stats {
                    host_bytes_held: counters.memory.host_bytes_held,
                    bytes_held: counters.memory.bytes_held,
                    bytes_in_use: counters.memory.bytes_in_use,
                    bytes_peak: counters.memory.bytes_peak,
                    blocks_in_use: counters.memory.blocks_in_use,
                    allocations: counters.memory.allocations,
                    submits: counters.submits,
                    dispatches: counters.dispatches,
                    pipelines: counters.pipelines,
                    device_nanoseconds: counters.device_nanoseconds,
                    ..Stats::default()
                }
            }
            Backend::Cpu(machine) => machine.memory.stats(),
        };
        stats.upload_bytes = self.0.upload_bytes.load(Ordering::Relaxed);
        stats.download_bytes = self.0.download_bytes.load(Ordering::Relaxed);
        stats
    }

    /// Gives pooled memory that nothing uses back to the device.
    ///
    /// # Errors
    /// None today; a device that must be asked first may have some.
    pub fn trim(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Vulkan(device) => device.trim(),
            Backend::Cpu(machine) => {
                machine.threads.trim();
                machine.memory.trim();
            }
        }
        Ok(())
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    pub(crate) fn is(&self, other: &Context) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn log(&self, level: LogLevel, message: &str) {
        if let Some(log) = &self.0.log {
            (log.0)(level, message);
        }
    }

    pub(crate) fn count_transfers(&self, uploaded: u64, downloaded: u64) {
        self.0.upload_bytes.fetch_add(uploaded, Ordering::Relaxed);
        self.0.download_bytes.fetch_add(downloaded, Ordering::Relaxed);
    }

    /// Ends this context's work after a panic: its state can no longer be trusted.
    pub(crate) fn refuse_work(&self, reason: &str) {
        self.log(LogLevel::Error, &format!("this context refuses further work: {reason}"));
        let _ = self.0.refusal.set(reason.to_string());
    }

    /// Whether the context still works.
    pub(crate) fn check_usable(&self) -> Result<()> {
        match self.0.refusal.get() {
            Some(reason) => Err(Error::new(
                Status::Internal,
                format!("this context refuses further work after a bug in libgrilly: {reason}"),
            )),
            None => Ok(()),
        }
    }

    /// The plan for a problem on a Vulkan device, made once.
    pub(crate) fn plan(&self, device: &vulkan::Device, problem: &Problem, prepacked: bool) -> Result<Arc<Ready>> {
        let key = (problem.clone(), prepacked);
        let mut plans = self.0.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&key) {
            return Ok(plan.clone());
        }
        let plan = kernels::plan(problem, device.limits(), prepacked)?;
        let plan = Arc::new(Ready::new(plan));
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(key, plan.clone());
        Ok(plan)
    }
}

/// The environment variable that says how many threads the CPU device has where its descriptor does not.
const THREADS: &str = "GRILLY_THREADS";

fn threads(asked: u32, variable: Option<std::ffi::OsString>) -> Result<usize> {
    match (asked, variable) {
        (0, None) => Ok(cpu::Threads::available()),
        (0, Some(text)) => {
            let text = text.to_string_lossy();
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let count = text.parse::<u32>().ok().filter(|&count| digits && count > 0);
            let illegal = || Error::invalid(format!("{THREADS} is \"{text}\", expected 1 to {}", u32::MAX));
            Ok(count.ok_or_else(illegal)? as usize)
        }
        (asked, _) => Ok(asked as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_then_the_environment_then_the_processor_say_how_many_threads() {
        assert_eq!(threads(3, Some("5".into())), Ok(3));
        assert_eq!(threads(0, Some("5".into())), Ok(5));
        assert_eq!(threads(0, None), Ok(cpu::Threads::available()));
        for illegal in ["", "0", "+2", "-1", "two", "4294967296"] {
            let error = threads(0, Some(illegal.into())).unwrap_err();
            assert_eq!(error.message(), format!("GRILLY_THREADS is \"{illegal}\", expected 1 to 4294967295"));
        }
    }
}
