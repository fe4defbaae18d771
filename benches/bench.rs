//! Times the layers of `shapes.json`, forward and both gradients, on one device, beside the device's own measured
//! peaks. Tensors lie on the device; the weight comes raw, so packing it is part of every time.
//!
//! ```text
//! cargo bench --bench bench -- [--device INDEX|cpu] [--json FILE] [--only NAME] [--gflop LIMIT] [--tile N]
//!     [--kernel NAME]
//! ```

mod layers;

use grilly::kernels::CHOICES;
use grilly::{Context, ContextDesc, DeviceChoice, DeviceKind, Result, probe};
use layers::on_device::{DeviceLayer, Tensor};
use layers::{Shape, median, shapes, write_json};
use serde::Serialize;
use std::time::{Duration, Instant};

/// One line of the table.
#[derive(Serialize)]
struct Row {
    shape: String,
    batch: u64,
    pass: &'static str,
    gflop: f64,
    /// Median time by the device's clock; 0 where it has none.
    device_ms: f64,
    /// Median time of the whole call.
    wall_ms: f64,
    tflops: f64,
    share_of_fma_peak: f64,
    gigabytes_per_second: f64,
    share_of_copy_peak: f64,
    /// The tensors of the pass.
    tensor_bytes: u64,
    /// What it takes on the device at most beyond them.
    workspace_bytes: u64,
    runs: usize,
}

#[derive(Serialize)]
struct Report {
    library: &'static str,
    device: String,
    driver: String,
    fma_peak_tflops: f64,
    copy_peak_gigabytes_per_second: f64,
    rows: Vec<Row>,
}

struct Options {
    device: DeviceChoice,
    json: Option<String>,
    only: Option<String>,
    /// The batch is reduced until a pass has no more operations than this.
    gflop: Option<f64>,
    /// Which tile of the GPU engine to use, instead of the one estimated fastest.
    tile: Option<usize>,
    /// Which of the GPU's kernels to use wherever it leads to the result, instead of the one estimated fastest.
    kernel: Option<&'static str>,
}

const PASSES: [&str; 3] = ["forward", "input gradient", "weight gradient"];
/// Clocks need this long to rise.
const WARM_UP: Duration = Duration::from_millis(150);
/// A pass is repeated for about this long.
const MEASURE: Duration = Duration::from_millis(400);
const LEAST_RUNS: usize = 5;
const MIB: f64 = (1 << 20) as f64;

fn main() -> Result<()> {
    let options = options();
    let desc = ContextDesc {
        device: options.device,
        timestamps: true,
        tile: options.tile,
        kernel: options.kernel,
        ..ContextDesc::default()
    };
    let context = Context::new(&desc)?;
    let device = context.device().clone();
    let on_cpu = matches!(device.kind, DeviceKind::Cpu | DeviceKind::Software);
    let limit = options.gflop.unwrap_or(if on_cpu { 1.0 } else { f64::INFINITY }) * 1e9;
    let peaks = probe::peaks(&context)?;
    println!("libgrilly {} on {} ({}; {})", env!("CARGO_PKG_VERSION"), device.name, device.driver, device.note);
    println!("measured peaks: {:.2} TFLOP/s multiply-add, {:.0} GB/s copy", peaks.flops / 1e12, peaks.bytes / 1e9);
    println!(
        "\n{:<18} {:>5} {:<15} {:>9} {:>10} {:>10} {:>8} {:>6} {:>7} {:>6} {:>8} {:>7}",
        "shape",
        "batch",
        "pass",
        "GFLOP",
        "device ms",
        "wall ms",
        "TFLOP/s",
        "of FMA",
        "GB/s",
        "of copy",
        "MiB",
        "+MiB"
    );

    let mut rows = Vec::new();
    for shape in shapes().iter().filter(|shape| options.only.as_ref().is_none_or(|only| *only == shape.name)) {
        for row in time_shape(&context, shape, limit, &peaks)? {
            println!(
                "{:<18} {:>5} {:<15} {:>9.3} {:>10.4} {:>10.4} {:>8.3} {:>5.0}% {:>7.0} {:>5.0}% {:>8.1} {:>7.1}",
                row.shape,
                row.batch,
                row.pass,
                row.gflop,
                row.device_ms,
                row.wall_ms,
                row.tflops,
                100.0 * row.share_of_fma_peak,
                row.gigabytes_per_second,
                100.0 * row.share_of_copy_peak,
                row.tensor_bytes as f64 / MIB,
                row.workspace_bytes as f64 / MIB
            );
            rows.push(row);
        }
    }
    if let Some(path) = options.json {
        let report = Report {
            library: env!("CARGO_PKG_VERSION"),
            device: device.name,
            driver: device.driver,
            fma_peak_tflops: peaks.flops / 1e12,
            copy_peak_gigabytes_per_second: peaks.bytes / 1e9,
            rows,
        };
        write_json(&path, &report);
    }
    Ok(())
}

fn options() -> Options {
    let mut options =
        Options { device: DeviceChoice::Auto, json: None, only: None, gflop: None, tile: None, kernel: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| usage(&word));
        match word.as_str() {
            "--device" if value == "cpu" => options.device = DeviceChoice::Cpu,
            "--device" => options.device = DeviceChoice::Index(value.parse().unwrap_or_else(|_| usage(&value))),
            "--json" => options.json = Some(value),
            "--only" => options.only = Some(value),
            "--gflop" => options.gflop = Some(value.parse().unwrap_or_else(|_| usage(&value))),
            "--tile" => options.tile = Some(value.parse().unwrap_or_else(|_| usage(&value))),
            "--kernel" => {
                options.kernel = Some(CHOICES.into_iter().find(|&name| name == value).unwrap_or_else(|| usage(&value)));
            }
            _ => usage(&word),
        }
    }
    options
}

fn usage(word: &str) -> ! {
    eprintln!(
        "did not understand `{word}`; usage: [--device INDEX|cpu] [--json FILE] [--only NAME] [--gflop LIMIT] [--tile N] \
         [--kernel NAME]"
    );
    std::process::exit(2)
}

fn flops(layer: &DeviceLayer) -> f64 {
    let [_, c, r, s] = layer.conv.config().weight_shape();
    2.0 * layer.y.shape.iter().product::<u64>() as f64 * (c * r * s) as f64
}

/// What a pass reads and writes.
fn tensor_bytes(layer: &DeviceLayer, pass: &str) -> u64 {
    let tensors: &[&Tensor] = match pass {
        "forward" => &[&layer.x, &layer.weight, &layer.bias, &layer.y],
        "input gradient" => &[&layer.dy, &layer.weight, &layer.dx],
        _ => &[&layer.x, &layer.dy, &layer.dweight, &layer.dbias],
    };
    tensors.iter().map(|tensor| tensor.buffer.bytes()).sum()
}

/// Bytes that a pass must move at least.
fn bytes(layer: &DeviceLayer) -> f64 {
    let tensors = [&layer.x, &layer.weight, &layer.y];
    4.0 * tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum::<u64>() as f64
}

fn time_shape(context: &Context, shape: &Shape, limit: f64, peaks: &probe::Peaks) -> Result<Vec<Row>> {
    let one = DeviceLayer::new(context, shape, 1)?;
    let batch = ((limit / flops(&one)) as u64).clamp(1, shape.n);
    drop(one);
    let layer = DeviceLayer::new(context, shape, batch)?;
    PASSES
        .iter()
        .map(|pass| {
            // What was freed stays in the context's pool, so what a pass adds to it is the most that it ever had.
            context.trim()?;
            let held = context.stats().bytes_held;
            let started = Instant::now();
            while started.elapsed() < WARM_UP {
                layer.run(pass)?;
            }
            let (mut device, mut wall) = (Vec::new(), Vec::new());
            let started = Instant::now();
            while wall.len() < LEAST_RUNS || started.elapsed() < MEASURE {
                let before = context.stats().device_nanoseconds;
                let run = Instant::now();
                layer.run(pass)?;
                wall.push(run.elapsed().as_secs_f64());
                device.push((context.stats().device_nanoseconds - before) as f64 * 1e-9);
            }
            let (device, wall_median) = (median(&mut device), median(&mut wall));
            let seconds = if device > 0.0 { device } else { wall_median };
            let work = flops(&layer);
            let (speed, traffic) = (work / seconds, bytes(&layer) / seconds);
            Ok(Row {
                shape: shape.name.clone(),
                batch,
                pass,
                gflop: work / 1e9,
                device_ms: device * 1e3,
                wall_ms: wall_median * 1e3,
                tflops: speed / 1e12,
                share_of_fma_peak: speed / peaks.flops,
                gigabytes_per_second: traffic / 1e9,
                share_of_copy_peak: traffic / peaks.bytes,
                tensor_bytes: tensor_bytes(&layer, pass),
                workspace_bytes: context.stats().bytes_held - held,
                runs: wall.len(),
            })
        })
        .collect()
}
