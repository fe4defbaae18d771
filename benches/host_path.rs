//! Times what a caller with arrays in host memory sees: from host array to host array, for the layers of `shapes.json`,
//! beside the link's own measured speed; small calls; first calls; and how much device memory a pass takes.
//!
//! ```text
//! cargo bench --bench host_path -- [--device INDEX|cpu] [--json FILE] [--only NAME[,NAME…]] [--piece BYTES]
//!     [--first-calls]
//! ```
//!
//! First calls are of device tensors, and of arrays in ordinary memory; `--first-calls` times nothing else.
//!
//! Arrays lie in ordinary memory ("arrays") or in host buffers ("buffers"), which the device reaches without a detour, or
//! only results lie in buffers ("Python"), as those of the Python package do. PyTorch's analogues are NumPy arrays and
//! pinned tensors.

mod layers;

use grilly::{
    Accumulate, Backward, Buffer, CacheFolder, Context, ContextDesc, Conv2d, DeviceChoice, Forward, Input, Output,
    Result, Weight, probe,
};
use layers::on_device::DeviceLayer;
use layers::{Shape, median, numbers, shapes, write_json};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Row {
    shape: String,
    pass: &'static str,
    /// Bytes from the host, and to it.
    upload_bytes: u64,
    download_bytes: u64,
    /// Median time of a call on ordinary arrays, with results in host buffers, and with all arrays in host buffers.
    arrays_ms: f64,
    python_ms: f64,
    buffers_ms: f64,
    /// What the link takes for the same bytes, both ways at once where there are both.
    link_ms: f64,
    /// The link's time as a share of a call's.
    arrays_share: f64,
    python_share: f64,
    buffers_share: f64,
    /// Device memory at most, beyond the tensors themselves.
    beyond_tensors_mib: f64,
    runs: usize,
}

#[derive(Serialize)]
struct FirstCall {
    shape: String,
    pass: &'static str,
    /// On device tensors, in a context of its own with no cache of compiled pipelines.
    without_cache_ms: f64,
    /// The same in another context, which finds the file that one with a cache wrote.
    with_cache_ms: f64,
    /// The same on ordinary arrays, which adds their way and the staging memory for it.
    arrays_with_cache_ms: f64,
}

#[derive(Serialize)]
struct Report {
    library: &'static str,
    device: String,
    driver: String,
    upload_gigabytes_per_second: f64,
    download_gigabytes_per_second: f64,
    both_gigabytes_per_second_each: f64,
    rows: Vec<Row>,
    tiny: Option<Tiny>,
    first_calls: Vec<FirstCall>,
}

/// Median times of calls of the smallest layer, forward.
#[derive(Clone, Copy, Serialize)]
struct Tiny {
    device_us: f64,
    arrays_us: f64,
}

struct Options {
    device: DeviceChoice,
    json: Option<String>,
    only: Vec<String>,
    piece: u64,
    only_first_calls: bool,
}

impl Options {
    fn open(&self, pipeline_cache: CacheFolder) -> Result<Context> {
        Context::new(&ContextDesc {
            device: self.device,
            piece_bytes: self.piece,
            pipeline_cache,
            ..ContextDesc::default()
        })
    }
}

/// The last is of kernels of those before it.
const PASSES: [&str; 4] = ["forward", "input gradient", "weight gradient", "both gradients"];
const WARM_UP: Duration = Duration::from_millis(150);
const MEASURE: Duration = Duration::from_millis(400);
const LEAST_RUNS: usize = 7;

fn main() -> Result<()> {
    let options = options();
    let context = options.open(CacheFolder::Usual)?;
    let device = context.device().clone();
    println!("libgrilly {} on {} ({}; {})", env!("CARGO_PKG_VERSION"), device.name, device.driver, device.note);
    let link = probe::link(&context)?;
    println!(
        "link: {:.1} GB/s up, {:.1} GB/s down, {:.1} GB/s each way at once; 0 where there is none",
        link.upload / 1e9,
        link.download / 1e9,
        link.both / 1e9
    );
    let wanted = |shape: &Shape| options.only.is_empty() || options.only.contains(&shape.name);
    let chosen: Vec<_> = shapes().into_iter().filter(wanted).collect();
    // Before anything else: what the driver compiled for this process would help them.
    let first_calls = first_calls(&options, &chosen)?;
    let (mut rows, mut small) = (Vec::new(), None);
    if !options.only_first_calls {
        rows = times(&options, &chosen, &link)?;
        let Tiny { device_us, arrays_us } = *small.insert(tiny(&context)?);
        println!("\ntiny: {device_us:.1} µs on device tensors, {arrays_us:.1} µs on host arrays");
    }
    if let Some(path) = options.json {
        let report = Report {
            library: env!("CARGO_PKG_VERSION"),
            device: device.name,
            driver: device.driver,
            upload_gigabytes_per_second: link.upload / 1e9,
            download_gigabytes_per_second: link.download / 1e9,
            both_gigabytes_per_second_each: link.both / 1e9,
            rows,
            tiny: small,
            first_calls,
        };
        write_json(&path, &report);
    }
    Ok(())
}

/// What calls take that are not the first.
fn times(options: &Options, shapes: &[Shape], link: &probe::Link) -> Result<Vec<Row>> {
    println!(
        "\n{:<18} {:<15} {:>7} {:>7} {:>9} {:>9} {:>10} {:>8} {:>6} {:>6} {:>7} {:>6}",
        "shape",
        "pass",
        "MB up",
        "MB down",
        "arrays ms",
        "Python ms",
        "buffers ms",
        "link ms",
        "arrays",
        "Python",
        "buffers",
        "+MiB"
    );
    let mut rows = Vec::new();
    for shape in shapes {
        for pass in PASSES {
            let row = time(&options.open(CacheFolder::Usual)?, shape, pass, link)?;
            println!(
                "{:<18} {:<15} {:>7.2} {:>7.2} {:>9.3} {:>9.3} {:>10.3} {:>8.3} {:>5.0}% {:>5.0}% {:>6.0}% {:>6.1}",
                row.shape,
                row.pass,
                row.upload_bytes as f64 / 1e6,
                row.download_bytes as f64 / 1e6,
                row.arrays_ms,
                row.python_ms,
                row.buffers_ms,
                row.link_ms,
                100.0 * row.arrays_share,
                100.0 * row.python_share,
                100.0 * row.buffers_share,
                row.beyond_tensors_mib
            );
            rows.push(row);
        }
    }
    Ok(rows)
}

fn options() -> Options {
    let mut options =
        Options { device: DeviceChoice::Auto, json: None, only: Vec::new(), piece: 0, only_first_calls: false };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if word == "--first-calls" {
            options.only_first_calls = true;
            continue;
        }
        let value = words.next().unwrap_or_else(|| usage(&word));
        match word.as_str() {
            "--device" if value == "cpu" => options.device = DeviceChoice::Cpu,
            "--device" => options.device = DeviceChoice::Index(value.parse().unwrap_or_else(|_| usage(&value))),
            "--json" => options.json = Some(value),
            "--only" => options.only.extend(value.split(',').map(String::from)),
            "--piece" => options.piece = value.parse().unwrap_or_else(|_| usage(&value)),
            _ => usage(&word),
        }
    }
    options
}

fn usage(word: &str) -> ! {
    eprintln!(
        "did not understand `{word}`; usage: [--device INDEX|cpu] [--json FILE] [--only NAME[,NAME…]] [--piece BYTES] \
         [--first-calls]"
    );
    std::process::exit(2)
}

/// An array in memory of either kind.
enum Array {
    Own(ArrayD<f32>),
    Buffer(Buffer, Vec<usize>),
}

impl Array {
    fn new(context: &Context, shape: &[u64], in_buffer: bool) -> Result<Array> {
        let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        let values =
            ArrayD::from_shape_vec(IxDyn(&sizes), numbers(sizes.iter().product(), 1)).expect("as many numbers");
        if !in_buffer {
            return Ok(Array::Own(values));
        }
        let mut array = Array::Buffer(context.create_host_buffer(4 * values.len() as u64)?, sizes);
        array.view_mut().assign(&values);
        Ok(array)
    }

    fn view(&self) -> ArrayViewD<'_, f32> {
        match self {
            Array::Own(values) => values.view(),
            Array::Buffer(buffer, shape) => {
                let first = buffer.host_address().expect("a host buffer").cast::<f32>();
                // SAFETY: the buffer was made for so many elements, and is this array's alone.
                unsafe { ArrayViewD::from_shape_ptr(IxDyn(shape), first.cast_const()) }
            }
        }
    }

    fn view_mut(&mut self) -> ArrayViewMutD<'_, f32> {
        match self {
            Array::Own(values) => values.view_mut(),
            Array::Buffer(buffer, shape) => {
                let first = buffer.host_address().expect("a host buffer").cast::<f32>();
                // SAFETY: as in `view`.
                unsafe { ArrayViewMutD::from_shape_ptr(IxDyn(shape), first) }
            }
        }
    }
}

struct Layer {
    conv: Conv2d,
    x: Array,
    weight: Array,
    bias: Array,
    y: Array,
    dy: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
}

/// Which of a layer's arrays lie in host buffers.
#[derive(Clone, Copy, PartialEq)]
enum InBuffers {
    None,
    Results,
    All,
}

impl Layer {
    fn new(context: &Context, shape: &Shape, in_buffers: InBuffers) -> Result<Layer> {
        let conv = Conv2d::new(context, shape.config())?;
        let x = [shape.n, shape.c, shape.h, shape.w];
        let y = conv.output_shape(x)?;
        let input = |shape: &[u64]| Array::new(context, shape, in_buffers == InBuffers::All);
        let result = |shape: &[u64]| Array::new(context, shape, in_buffers != InBuffers::None);
        let weight = shape.config().weight_shape();
        Ok(Layer {
            x: input(&x)?,
            weight: input(&weight)?,
            bias: input(&[shape.k])?,
            y: result(&y)?,
            dy: input(&y)?,
            dx: result(&x)?,
            dweight: result(&weight)?,
            dbias: result(&[shape.k])?,
            conv,
        })
    }

    fn run(&mut self, pass: &str) -> Result<()> {
        if pass == "forward" {
            return self.conv.forward(Forward {
                x: Input::Host(self.x.view()),
                weight: Weight::Raw(Input::Host(self.weight.view())),
                bias: Some(Input::Host(self.bias.view())),
                y: Output::Host(self.y.view_mut()),
            });
        }
        let (input, parameters) = (pass != "weight gradient", pass != "input gradient");
        self.conv.backward(Backward {
            x: parameters.then(|| Input::Host(self.x.view())),
            weight: input.then(|| Weight::Raw(Input::Host(self.weight.view()))),
            dy: Input::Host(self.dy.view()),
            dx: input.then(|| Output::Host(self.dx.view_mut())),
            dweight: parameters.then(|| Output::Host(self.dweight.view_mut())),
            dbias: parameters.then(|| Output::Host(self.dbias.view_mut())),
            accumulate: Accumulate::default(),
        })
    }
}

fn repeat(mut run: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let started = Instant::now();
    while started.elapsed() < WARM_UP {
        run()?;
    }
    let mut times = Vec::new();
    let started = Instant::now();
    while times.len() < LEAST_RUNS || started.elapsed() < MEASURE {
        let one = Instant::now();
        run()?;
        times.push(one.elapsed().as_secs_f64());
    }
    Ok(times)
}

fn time(context: &Context, shape: &Shape, pass: &'static str, link: &probe::Link) -> Result<Row> {
    let mut layer = Layer::new(context, shape, InBuffers::None)?;
    layer.run(pass)?;
    let before = context.stats();
    layer.run(pass)?;
    let after = context.stats();
    let (up, down) = (after.upload_bytes - before.upload_bytes, after.download_bytes - before.download_bytes);
    // In a fresh context nothing else was held.
    let beyond = after.bytes_peak as f64 - (up + down) as f64;
    let mut times = repeat(|| layer.run(pass))?;
    let (arrays, runs) = (median(&mut times), times.len());
    drop(layer);
    let repeated = |in_buffers| -> Result<f64> {
        let mut layer = Layer::new(context, shape, in_buffers)?;
        Ok(median(&mut repeat(|| layer.run(pass))?))
    };
    let (python, buffers) = (repeated(InBuffers::Results)?, repeated(InBuffers::All)?);
    let seconds = link.seconds(up, down);
    Ok(Row {
        shape: shape.name.clone(),
        pass,
        upload_bytes: up,
        download_bytes: down,
        arrays_ms: arrays * 1e3,
        python_ms: python * 1e3,
        buffers_ms: buffers * 1e3,
        link_ms: seconds * 1e3,
        arrays_share: seconds / arrays,
        python_share: seconds / python,
        buffers_share: seconds / buffers,
        beyond_tensors_mib: beyond.max(0.0) / f64::from(1 << 20),
        runs,
    })
}

/// Microseconds of a forward call of the smallest layer, on device tensors and on host arrays.
fn tiny(context: &Context) -> Result<Tiny> {
    let shape = shapes().into_iter().find(|shape| shape.name == "tiny").expect("there is one called tiny");
    let layer = DeviceLayer::new(context, &shape, shape.n)?;
    let mut on_device = repeat(|| layer.run("forward"))?;
    let mut layer = Layer::new(context, &shape, InBuffers::None)?;
    let mut on_host = repeat(|| layer.run("forward"))?;
    Ok(Tiny { device_us: median(&mut on_device) * 1e6, arrays_us: median(&mut on_host) * 1e6 })
}

/// The first calls of contexts without and with a cache of compiled pipelines. A driver may keep a cache of its own
/// beside ours; each layer comes first without, so that what the driver keeps helps it least.
fn first_calls(options: &Options, shapes: &[Shape]) -> Result<Vec<FirstCall>> {
    println!(
        "\n{:<18} {:<15} {:>14} {:>14} {:>18}",
        "first call of", "pass", "no cache, ms", "cached, ms", "cached, arrays, ms"
    );
    let folder = std::env::temp_dir().join(format!("grilly-first-calls-{}", std::process::id()));
    let kept = || CacheFolder::At(folder.clone());
    let mut calls = Vec::new();
    for shape in shapes {
        for pass in &PASSES[..3] {
            let on_device = |cache: CacheFolder| {
                let context = options.open(cache)?;
                let layer = DeviceLayer::new(&context, shape, shape.n)?;
                milliseconds(|| layer.run(pass))
            };
            let without_cache_ms = on_device(CacheFolder::Off)?;
            on_device(kept())?;
            let with_cache_ms = on_device(kept())?;
            let mut arrays = Layer::new(&options.open(kept())?, shape, InBuffers::None)?;
            let arrays_with_cache_ms = milliseconds(|| arrays.run(pass))?;
            println!(
                "{:<18} {pass:<15} {without_cache_ms:>14.1} {with_cache_ms:>14.1} {arrays_with_cache_ms:>18.1}",
                shape.name
            );
            calls.push(FirstCall {
                shape: shape.name.clone(),
                pass,
                without_cache_ms,
                with_cache_ms,
                arrays_with_cache_ms,
            });
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(calls)
}

/// How long it takes.
fn milliseconds(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    run()?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
