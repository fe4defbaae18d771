//! The devices under test, and the loop over cases × devices.

use super::cases::Case;
use grilly::kernels::table::TILE_SIZES;
use grilly::{Context, ContextDesc, DeviceChoice, DeviceKind, Status};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, Once, OnceLock};

const FAILURES_SHOWN: usize = 10;
/// Threads, results of a thread along m and n, threads along n, steps and subgroup of the tile 32x32x16.
const SMALL_TILE: [u32; 6] = [64, 4, 4, 8, 16, 0];

/// A device under test.
pub struct Rig {
    pub name: String,
    pub context: Context,
    desc: ContextDesc,
    twin: OnceLock<Box<Rig>>,
}

impl Rig {
    pub fn open(name: String, desc: &ContextDesc) -> grilly::Result<Rig> {
        Ok(Rig { name, context: Context::new(desc)?, desc: desc.clone(), twin: OnceLock::new() })
    }

    fn is_forced(&self) -> bool {
        self.desc.tile.is_some() || self.desc.kernel.is_some()
    }

    /// The same device for a sweep's other thread, in a context of its own: what a software driver has to compile for one
    /// context it compiles on one core.
    fn twin(&self) -> &Rig {
        self.twin.get_or_init(|| Box::new(self.again()))
    }

    /// The same device in a new context.
    pub fn again(&self) -> Rig {
        Rig::open(self.name.clone(), &self.desc).expect("it was opened before")
    }
}

/// The CPU device and every Vulkan device. Where a Vulkan device is required (in CI), its absence is a failure.
pub fn rigs() -> Vec<Rig> {
    devices_with(&ContextDesc::default(), "")
}

/// The same, opened once: the tests of a program share their contexts, and so what drivers compiled for them.
pub fn shared_rigs() -> &'static [Rig] {
    static RIGS: OnceLock<Vec<Rig>> = OnceLock::new();
    RIGS.get_or_init(rigs)
}

/// The Vulkan devices once more, planned for as if each offered only what is required of a GPU.
pub fn minimum_rigs() -> Vec<Rig> {
    vulkan_only(devices_with(&ContextDesc { minimum_limits: true, ..ContextDesc::default() }, ", minimum limits"))
}

/// The Vulkan devices once more, with host tensors that travel in pieces of so many bytes.
pub fn streaming_rigs(piece_bytes: u64, minimum_limits: bool) -> Vec<Rig> {
    let desc = ContextDesc { piece_bytes, minimum_limits, ..ContextDesc::default() };
    vulkan_only(devices_with(&desc, &format!(", in pieces of {piece_bytes} bytes")))
}

/// The Vulkan devices once more, with this tile of the engine wherever it can run.
pub fn tile_rigs(tile: usize) -> Vec<Rig> {
    let desc = ContextDesc { tile: Some(tile), ..ContextDesc::default() };
    vulkan_only(devices_with(&desc, &format!(", tile {tile}")))
}

/// The Vulkan devices once more, with this kernel wherever there is a choice; on a software driver, which compiles for
/// seconds, all in one small tile.
pub fn kernel_rigs(kernel: &'static str) -> Vec<Rig> {
    kernel_rigs_with(kernel, &ContextDesc::default(), "")
}

/// The same, with host tensors that travel in pieces of so many bytes.
pub fn streaming_kernel_rigs(kernel: &'static str, piece_bytes: u64) -> Vec<Rig> {
    let desc = ContextDesc { piece_bytes, ..ContextDesc::default() };
    kernel_rigs_with(kernel, &desc, &format!(", in pieces of {piece_bytes} bytes"))
}

fn kernel_rigs_with(kernel: &'static str, desc: &ContextDesc, suffix: &str) -> Vec<Rig> {
    let small = TILE_SIZES.iter().position(|sizes| *sizes == SMALL_TILE).expect("the small tile is there");
    let desc = ContextDesc { kernel: Some(kernel), ..desc.clone() };
    let mut rigs = vulkan_only(devices_with(&desc, &format!(", {kernel}{suffix}")));
    for rig in rigs.iter_mut().filter(|rig| rig.context.device().kind == DeviceKind::Software) {
        let desc = ContextDesc { tile: Some(small), ..rig.desc.clone() };
        *rig = Rig::open(format!("{} in tile {small}", rig.name), &desc).expect("it was opened before");
    }
    rigs
}

fn vulkan_only(mut rigs: Vec<Rig>) -> Vec<Rig> {
    rigs.retain(|rig| rig.context.device().kind != DeviceKind::Cpu);
    rigs
}

/// The CPU device and every Vulkan device, opened so, with something said of it behind their names.
pub fn devices_with(desc: &ContextDesc, suffix: &str) -> Vec<Rig> {
    let devices = grilly::devices();
    let cpus = devices.iter().filter(|device| device.kind == DeviceKind::Cpu).count();
    assert_eq!(cpus, 1, "there is exactly one CPU device");
    let mut rigs = vec![];
    for (index, device) in devices.iter().enumerate() {
        let desc = ContextDesc { device: DeviceChoice::Index(index as u32), ..desc.clone() };
        match Rig::open(format!("{}{suffix}", device.name), &desc) {
            Ok(rig) => {
                assert_eq!(rig.context.device().name, device.name, "the context is on the device that was asked for");
                rigs.push(rig);
            }
            // A GPU that lacks what is required is listed, but cannot be tested.
            Err(error) if error.status() == Status::NoDevice => {
                announce(&format!("conformance: NOT TESTED: {}: {error}", device.name));
            }
            Err(error) => panic!("no context on {}: {error}", device.name),
        }
    }
    if rigs.iter().all(|rig| rig.context.device().kind == DeviceKind::Cpu) {
        assert!(!vulkan_is_required(), "no Vulkan device, but CI or GRILLY_REQUIRE_VULKAN=1 demands one");
        static ONCE: Once = Once::new();
        ONCE.call_once(|| announce("conformance: NO VULKAN DEVICE: ONLY THE CPU DEVICE IS TESTED"));
    }
    rigs
}

/// Indices of the devices that can be used.
pub fn all_devices() -> Vec<u32> {
    rigs().iter().map(|rig| rig.context.device().index).collect()
}

/// A context on the device of that index.
pub fn open(index: u32, minimum_limits: bool) -> grilly::Result<Context> {
    Context::new(&ContextDesc { device: DeviceChoice::Index(index), minimum_limits, ..ContextDesc::default() })
}

/// CI sets CI=true; GRILLY_REQUIRE_VULKAN=1 asks for the same at home.
pub fn vulkan_is_required() -> bool {
    in_ci() || std::env::var("GRILLY_REQUIRE_VULKAN").is_ok_and(|value| value == "1")
}

pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Past the test harness, which hides what passing tests print.
pub fn announce(line: &str) {
    // Nothing is lost if stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Computes every case on every device. `prepare` does, once a case, what devices share; `attempt` returns how many
/// results it checked. All failures are collected; a sweep that checked nothing fails.
pub fn sweep<Shared>(
    fact: &str,
    rigs: &[Rig],
    cases: &[Case],
    prepare: impl Fn(&Case) -> Shared + Sync,
    attempt: impl Fn(&Rig, &Case, &Shared) -> Result<usize, String> + Sync,
) {
    let taken = AtomicUsize::new(0);
    let checked: Vec<AtomicUsize> = rigs.iter().map(|_| AtomicUsize::new(0)).collect();
    let failures = Mutex::new(vec![]);
    let work = |from_the_end: bool| {
        for nth in 0.. {
            if taken.fetch_add(1, Relaxed) >= cases.len() {
                break;
            }
            let case = &cases[if from_the_end { cases.len() - 1 - nth } else { nth }];
            let shared = prepare(case);
            for (rig, checked) in rigs.iter().zip(&checked) {
                let rig = if from_the_end { rig.twin() } else { rig };
                // A panic must not hide which case it was.
                let outcome = catch_unwind(AssertUnwindSafe(|| attempt(rig, case, &shared)));
                match outcome.unwrap_or_else(|_| Err("panicked, as told above".into())) {
                    Ok(results) => drop(checked.fetch_add(results, Relaxed)),
                    Err(text) => {
                        failures.lock().expect("not poisoned").push(format!("{} on {}: {text}", case.name, rig.name))
                    }
                }
            }
        }
    };
    // From both ends, so that the two rarely need the same kernel for the first time. Where one kernel is forced they would.
    std::thread::scope(|scope| {
        if !rigs.iter().any(Rig::is_forced) {
            scope.spawn(|| work(true));
        }
        work(false);
    });

    for (rig, checked) in rigs.iter().zip(&checked) {
        let results = checked.load(Relaxed);
        let each = match cases.len() {
            count if count > 0 && results % count == 0 => format!("{count} cases x {} results", results / count),
            count => format!("{count} cases, {results} results"),
        };
        announce(&format!("conformance: {each} on {}: {fact}", rig.name));
    }
    let mut failures = failures.into_inner().expect("not poisoned");
    failures.sort();
    let shown: Vec<_> = failures.iter().take(FAILURES_SHOWN).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), cases.len() * rigs.len(), shown.join("\n"));
    assert!(!rigs.is_empty() && checked.iter().all(|checked| checked.load(Relaxed) > 0), "nothing was checked: {fact}");
}
