//! The layers that benchmarks time, and what they have in common.

pub mod on_device;

use grilly::Conv2dConfig;
use serde::{Deserialize, Serialize};

/// One of the layers.
#[derive(Clone, Deserialize)]
pub struct Shape {
    pub name: String,
    pub n: u64,
    pub c: u64,
    pub h: u64,
    pub w: u64,
    pub k: u64,
    pub kernel: [u64; 2],
    pub stride: u64,
    pub padding: [u64; 2],
    pub dilation: u64,
    pub groups: u64,
}

impl Shape {
    pub fn config(&self) -> Conv2dConfig {
        Conv2dConfig {
            stride: [self.stride; 2],
            padding: self.padding.map(|both| [both; 2]),
            dilation: [self.dilation; 2],
            groups: self.groups,
            ..Conv2dConfig::new(self.c, self.k, self.kernel)
        }
    }
}

/// All layers of `shapes.json`.
pub fn shapes() -> Vec<Shape> {
    serde_json::from_str(include_str!("../shapes.json")).expect("shapes.json is well formed")
}

/// Small numbers in no order: zeros would flatter a device's power budget.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes a report as JSON, and says so.
pub fn write_json(path: &str, report: &impl Serialize) {
    let text = serde_json::to_string_pretty(report).expect("plain data");
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("\nwritten to {path}");
}
