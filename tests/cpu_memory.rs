//! The CPU device's memory: what a thread works in is bounded, and calls allocate nothing once it is there.

use grilly::ffi::{context::*, conv2d::*, types::*};
use grilly::{
    Backward, Context, ContextDesc, Conv2d, Conv2dConfig, DeviceChoice, Forward, Input, Output, Status, Weight,
};
use ndarray::{ArrayD, IxDyn};
use serde::Deserialize;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator, counting for the whole process, and without memory for more than [`LARGEST`] bytes at once.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(usize::MAX);

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    if bytes > 0 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: it is the system's, which keeps an allocator's promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST.load(Relaxed) {
            return null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is counted is the process's, so tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A layer of the benchmark.
#[derive(Deserialize)]
struct Shape {
    name: String,
    n: u64,
    c: u64,
    h: u64,
    w: u64,
    k: u64,
    kernel: [u64; 2],
    stride: u64,
    padding: [u64; 2],
    dilation: u64,
    groups: u64,
}

/// Those of the benchmark, with so much of the batch that a pass is quick.
fn shapes() -> Vec<Shape> {
    let mut shapes: Vec<Shape> =
        serde_json::from_str(include_str!("../benches/shapes.json")).expect("shapes.json follows the struct above");
    for shape in &mut shapes {
        let [n, k, p, q] = shape.output();
        let flops = 2 * n * k * p * q * shape.c / shape.groups * shape.kernel.iter().product::<u64>();
        shape.n = (shape.n * 100_000_000 / flops).clamp(1, shape.n);
    }
    shapes
}

impl Shape {
    fn config(&self) -> Conv2dConfig {
        Conv2dConfig {
            stride: [self.stride; 2],
            padding: self.padding.map(|size| [size; 2]),
            dilation: [self.dilation; 2],
            groups: self.groups,
            ..Conv2dConfig::new(self.c, self.k, self.kernel)
        }
    }

    fn input(&self) -> [u64; 4] {
        [self.n, self.c, self.h, self.w]
    }

    fn weight(&self) -> [u64; 4] {
        [self.k, self.c / self.groups, self.kernel[0], self.kernel[1]]
    }

    fn output(&self) -> [u64; 4] {
        grilly::problem::output_shape(&self.config(), self.input()).expect("a legal layer")
    }
}

/// The tensors of a layer's three passes.
struct Tensors {
    x: ArrayD<f32>,
    weight: ArrayD<f32>,
    bias: ArrayD<f32>,
    y: ArrayD<f32>,
    dx: ArrayD<f32>,
    dweight: ArrayD<f32>,
    dbias: ArrayD<f32>,
}

impl Tensors {
    fn new(shape: &Shape) -> Tensors {
        let ones = |sizes: &[u64]| ArrayD::ones(IxDyn(&sizes.iter().map(|&size| size as usize).collect::<Vec<_>>()));
        Tensors {
            x: ones(&shape.input()),
            weight: ones(&shape.weight()),
            bias: ones(&[shape.k]),
            y: ones(&shape.output()),
            dx: ones(&shape.input()),
            dweight: ones(&shape.weight()),
            dbias: ones(&[shape.k]),
        }
    }

    fn forward(&mut self, conv: &Conv2d) {
        conv.forward(Forward {
            x: Input::Host(self.x.view()),
            weight: Weight::Raw(Input::Host(self.weight.view())),
            bias: Some(Input::Host(self.bias.view())),
            y: Output::Host(self.y.view_mut()),
        })
        .expect("a forward pass");
    }

    fn backward(&mut self, conv: &Conv2d, input: bool) {
        conv.backward(Backward {
            x: Some(Input::Host(self.x.view())),
            weight: Some(Weight::Raw(Input::Host(self.weight.view()))),
            dy: Input::Host(self.y.view()),
            dx: input.then(|| Output::Host(self.dx.view_mut())),
            dweight: (!input).then(|| Output::Host(self.dweight.view_mut())),
            dbias: (!input).then(|| Output::Host(self.dbias.view_mut())),
            accumulate: Default::default(),
        })
        .expect("a backward pass");
    }
}

#[test]
fn a_thread_works_in_16_mib_at_most_whichever_way_it_goes() {
    const MOST: isize = 16 << 20;
    let _turn = alone();
    for way in [None, Some("dense"), Some("pointwise"), Some("direct"), Some("interleaved")] {
        for shape in shapes() {
            let mut tensors = Tensors::new(&shape);
            for pass in ["forward", "input gradient", "weight gradient"] {
                let desc = ContextDesc { device: DeviceChoice::Cpu, threads: 1, kernel: way, ..ContextDesc::default() };
                let context = Context::new(&desc).expect("the CPU device");
                let conv = Conv2d::new(&context, shape.config()).expect("a legal layer");
                let before = LIVE.load(Relaxed);
                PEAK.store(before, Relaxed);
                match pass {
                    "forward" => tensors.forward(&conv),
                    _ => tensors.backward(&conv, pass == "input gradient"),
                }
                let used = PEAK.load(Relaxed) - before;
                assert!((1..=MOST).contains(&used), "{}, {pass}, {way:?}: {used} bytes", shape.name);
            }
        }
    }
}

#[test]
fn memory_that_there_is_none_of_is_an_error() {
    let _alone = alone();
    let context = Context::new(&ContextDesc { device: DeviceChoice::Cpu, ..ContextDesc::default() }).expect("a CPU");
    let conv = Conv2d::new(&context, Conv2dConfig::new(200_000, 1, [3, 3])).expect("legal");
    let mut refused = 0;
    let (x, mut y) = (ArrayD::<f32>::ones(IxDyn(&[1, 200_000, 3, 3])), ArrayD::<f32>::zeros(IxDyn(&[1, 1, 1, 1])));
    let weight = ArrayD::<f32>::ones(IxDyn(&[1, 200_000, 3, 3]));
    let mut forward = || {
        conv.forward(Forward {
            x: Input::Host(x.view()),
            weight: Weight::Raw(Input::Host(weight.view())),
            bias: None,
            y: Output::Host(y.view_mut()),
        })
    };
    for power in 16..27 {
        LARGEST.store(1 << power, Relaxed);
        let outcome = forward();
        LARGEST.store(usize::MAX, Relaxed);
        let status = outcome.map_err(|error| error.status());
        assert!(matches!(status, Ok(()) | Err(Status::OutOfHostMemory)), "2^{power} bytes: {status:?}");
        refused += usize::from(status.is_err());
        context.trim().expect("a trim");
    }
    assert!(refused > 5, "the lists of 1.8 million terms are larger than 2 MiB");
    forward().expect("there is memory again");
    assert_eq!(y[[0, 0, 0, 0]], 1.8e6);
}

/// A tensor of the C ABI over an array.
fn c_tensor(array: &mut ArrayD<f32>) -> grilly_tensor {
    let mut shape = [1i64; 4];
    let mut strides = [1i64; 4];
    for (axis, (size, stride)) in array.shape().iter().zip(array.strides()).enumerate() {
        (shape[axis], strides[axis]) = (*size as i64, *stride as i64);
    }
    grilly_tensor {
        struct_size: size_of::<grilly_tensor>(),
        data: array.as_mut_ptr().cast::<c_void>(),
        bytes: 4 * array.len() as u64,
        buffer: null(),
        offset: 0,
        dtype: GRILLY_DTYPE_F32,
        rank: array.ndim() as i32,
        shape,
        strides,
    }
}

#[test]
fn c_calls_allocate_nothing_once_their_workspace_is_there() {
    let _turn = alone();
    for threads in [1, 2] {
        for shape in shapes() {
            let mut tensors = Tensors::new(&shape);
            let Tensors { x, weight, bias, y, dx, dweight, dbias } = &mut tensors;
            let [x, weight, bias, y, dx, dweight, dbias] = [x, weight, bias, y, dx, dweight, dbias].map(c_tensor);
            let ones = |size: u64| [size as i64; 2];
            // SAFETY: every pointer is to a local variable that lives on, and every tensor is over an array that does.
            unsafe {
                let mut context_desc = std::mem::zeroed::<grilly_context_desc>();
                grilly_context_desc_init(&raw mut context_desc, size_of::<grilly_context_desc>());
                (context_desc.device, context_desc.threads) = (GRILLY_DEVICE_CPU, threads);
                let mut context = null_mut();
                assert_eq!(grilly_context_create(&raw const context_desc, &raw mut context), GRILLY_OK);
                let mut desc = std::mem::zeroed::<grilly_conv2d_desc>();
                grilly_conv2d_desc_init(&raw mut desc, size_of::<grilly_conv2d_desc>());
                (desc.in_channels, desc.out_channels) = (shape.c as i64, shape.k as i64);
                desc.kernel = shape.kernel.map(|size| size as i64);
                (desc.stride, desc.dilation, desc.groups) =
                    (ones(shape.stride), ones(shape.dilation), shape.groups as i64);
                desc.padding_begin = shape.padding.map(|size| size as i64);
                desc.padding_end = desc.padding_begin;
                let mut conv = null_mut();
                assert_eq!(grilly_conv2d_create(context, &raw const desc, &raw mut conv), GRILLY_OK);
                let mut forward = std::mem::zeroed::<grilly_conv2d_io>();
                grilly_conv2d_io_init(&raw mut forward, size_of::<grilly_conv2d_io>());
                let mut backward = forward;
                (forward.x, forward.weight, forward.bias, forward.y) = (&x, &weight, &bias, &y);
                (backward.x, backward.weight, backward.dy) = (&x, &weight, &y);
                (backward.dx, backward.dweight, backward.dbias) = (&dx, &dweight, &dbias);
                let allocations = || {
                    let before = ALLOCATIONS.load(Relaxed);
                    assert_eq!(grilly_conv2d_forward(conv, &raw const forward), GRILLY_OK);
                    assert_eq!(grilly_conv2d_backward(conv, &raw const backward), GRILLY_OK);
                    ALLOCATIONS.load(Relaxed) - before
                };
                // Which thread takes which item, and so when it has all that it needs, is chance. The test runner's own
                // thread allocates as well, when it reports the test before.
                let mut quiet = 0;
                for _ in 0..if threads == 1 { 10 } else { 100 } {
                    quiet = if allocations() == 0 { quiet + 1 } else { 0 };
                    if quiet == 3 {
                        break;
                    }
                }
                assert_eq!(quiet, 3, "{} on {threads} threads", shape.name);
                assert_eq!(grilly_conv2d_destroy(conv), GRILLY_OK);
                assert_eq!(grilly_context_destroy(context), GRILLY_OK);
            }
        }
    }
}
