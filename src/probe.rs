//! What a device can do at best, measured: the figures that a benchmark's results are a share of.

use crate::context::{Backend, Context};
use crate::cpu;
use crate::error::Result;
use crate::kernels::probe::{Probe, copy, fma};
use crate::plan::Role;
use crate::vulkan::{Block, Device, Home, Recorder};
use std::sync::Arc;

/// Measured peaks of a device.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// fp32 operations a second, a fused multiply-add counted as two.
    pub flops: f64,
    /// Bytes a second of a copy, read and written bytes counted.
    pub bytes: f64,
}

/// Measures the peaks of a context's device; takes about a second.
///
/// # Errors
/// Whatever running kernels can raise.
pub fn peaks(context: &Context) -> Result<Peaks> {
    match context.backend() {
        Backend::Cpu { threads, .. } => {
            Ok(Peaks { flops: cpu::probe::flops(threads), bytes: cpu::probe::bytes(threads) })
        }
        Backend::Vulkan(device) => {
            let limits = device.limits();
            let rounds = if limits.software { 1 << 12 } else { 1 << 14 };
            let elements = if limits.software { 8 << 20 } else { 256 << 20 };
            let elements = (elements as u64).min(limits.storage_buffer_range / 4 - 64);
            Ok(Peaks { flops: best(device, &fma(limits, rounds)?)?, bytes: best(device, &copy(limits, elements)?)? })
        }
    }
}

/// Runs that are timed; the best counts, because a peak is asked for.
const RUNS: usize = 10;

fn best(device: &Arc<Device>, probe: &Probe) -> Result<f64> {
    let [input, output] = probe.bytes;
    let (input, output) = (Block::new(device, Home::Device, input)?, Block::new(device, Home::Device, output)?);
    let mut recorder = Recorder::new(device)?;
    recorder.zero(&input);
    recorder.submit()?;
    recorder.wait()?;
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let before = device.counters().device_nanoseconds;
        let started = std::time::Instant::now();
        let mut recorder = Recorder::new(device)?;
        for dispatch in &probe.plan.dispatches {
            let operands = dispatch.operands.map(|operand| {
                operand.map(|operand| if operand.role == Role::Input { input.whole() } else { output.whole() })
            });
            recorder.dispatch(dispatch, &operands)?;
        }
        recorder.submit()?;
        recorder.wait()?;
        let on_device = (device.counters().device_nanoseconds - before) as f64 * 1e-9;
        let seconds = if on_device > 0.0 { on_device } else { started.elapsed().as_secs_f64() };
        fastest = fastest.min(seconds);
    }
    Ok(probe.amount / fastest)
}
