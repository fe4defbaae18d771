//! What a device can do at best, measured: the figures that a benchmark's results are a share of.

use crate::context::{Backend, Context};
use crate::cpu;
use crate::error::Result;
use crate::kernels::probe::{Probe, copy, fma};
use crate::plan::Role;
use crate::vulkan::{Block, Device, Home, Lane, Recorder};
use std::sync::Arc;
use std::time::Instant;

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
        Backend::Cpu(machine) => {
            let threads = &machine.threads;
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

/// Bytes a second between the host's memory and the device's; 0 where they are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// To the device, alone.
    pub upload: f64,
    /// From the device, alone.
    pub download: f64,
    /// Each way, while both go at once; what goes back in pieces, as calls do that have about as much either way.
    pub both: f64,
}

impl Link {
    /// What the link takes at least for so many bytes up and down, which may go at once.
    pub fn seconds(&self, up: u64, down: u64) -> f64 {
        let at_once = up.min(down);
        let part = |bytes: u64, speed: f64| if speed > 0.0 { bytes as f64 / speed } else { 0.0 };
        part(at_once, self.both) + part(up - at_once, self.upload) + part(down - at_once, self.download)
    }
}

/// Measures the link between host and device, with memory that the device reaches.
///
/// # Errors
/// Whatever copying can raise.
pub fn link(context: &Context) -> Result<Link> {
    const BYTES: u64 = 32 << 20;
    let Backend::Vulkan(device) = context.backend() else { return Ok(Link::default()) };
    if device.is_unified() {
        return Ok(Link::default());
    }
    let host = [Block::new(device, Home::Staging, BYTES)?, Block::new(device, Home::Staging, BYTES)?];
    let own = [Block::new(device, Home::Device, BYTES)?, Block::new(device, Home::Device, BYTES)?];
    let speed = |lanes: &[Lane]| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..2 * RUNS {
            let mut recorders = Vec::new();
            for lane in lanes {
                let recorder = Recorder::on(device, *lane, &[])?;
                match lane {
                    Lane::Download if lanes.len() > 1 => recorder.copy_beside_uploads(own[1].whole(), host[1].whole()),
                    Lane::Download => recorder.copy(own[1].whole(), host[1].whole()),
                    _ => recorder.copy(host[0].whole(), own[0].whole()),
                }
                recorders.push(recorder);
            }
            let started = Instant::now();
            for recorder in &mut recorders {
                recorder.submit()?;
            }
            recorders.iter_mut().try_for_each(Recorder::wait)?;
            times.push(started.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(BYTES as f64 / times[times.len() / 2])
    };
    Ok(Link {
        upload: speed(&[Lane::Upload])?,
        download: speed(&[Lane::Download])?,
        both: speed(&[Lane::Upload, Lane::Download])?,
    })
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
