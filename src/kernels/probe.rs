//! Kernels that measure a device's peaks: `shaders/probe-fma.glsl`, `shaders/probe-copy.glsl`.

use super::slices::whole;
use super::table::{
    PROBE_COPY, PROBE_COPY_RUN as RUN, PROBE_COPY_THREADS, PROBE_FMA, PROBE_FMA_CHAINS as CHAINS, PROBE_FMA_THREADS,
};
use crate::error::Result;
use crate::plan::{Dispatch, Limits, Plan, Role, Sizes};

/// A measurement: what to run, and how much work it is.
pub struct Probe {
    /// The dispatch.
    pub plan: Plan,
    /// Floating-point operations, or bytes read plus bytes written.
    pub amount: f64,
    /// Bytes of input, and of output.
    pub bytes: [u64; 2],
}

/// Fused multiply-adds in registers, `rounds` rounds of them.
pub fn fma(limits: &Limits, rounds: u32) -> Result<Probe> {
    let tiles = u64::from(limits.concurrent_workgroups) * if limits.software { 1 } else { 16 };
    let elements = tiles * u64::from(PROBE_FMA_THREADS);
    let mut plan = Plan::new(limits);
    let dispatch = Dispatch {
        module: PROBE_FMA.module(false),
        specialization: vec![],
        operands: [None, None, None, Some(whole(Role::Output, elements))],
        sizes: Sizes { extra: [rounds, 0], ..Sizes::default() },
        tiles: 0..0,
    };
    plan.push(dispatch, tiles, 0.0)?;
    let amount = elements as f64 * f64::from(rounds) * f64::from(CHAINS) * 8.0;
    Ok(Probe { plan, amount, bytes: [4, 4 * elements] })
}

/// A copy of `elements` elements.
pub fn copy(limits: &Limits, elements: u64) -> Result<Probe> {
    let mut plan = Plan::new(limits);
    let dispatch = Dispatch {
        module: PROBE_COPY.module(false),
        specialization: vec![],
        operands: [Some(whole(Role::Input, elements)), None, None, Some(whole(Role::Output, elements))],
        sizes: Sizes { extra: [elements as u32, 0], ..Sizes::default() },
        tiles: 0..0,
    };
    plan.push(dispatch, elements.div_ceil(u64::from(PROBE_COPY_THREADS * RUN)), 0.0)?;
    Ok(Probe { plan, amount: 8.0 * elements as f64, bytes: [4 * elements; 2] })
}
