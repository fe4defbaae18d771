//! Large host tensors travel in pieces, while others are computed on. Whether they do never shows in a result.

use crate::common::call::{Placement, Request, compute, forward};
use crate::common::cases::{Case, spread};
use crate::common::data::{Data, Kind};
use crate::common::rigs::{
    Rig, announce, kernel_rigs, minimum_rigs, rigs, streaming_kernel_rigs, streaming_rigs, sweep,
};
use grilly::{
    Accumulate, Backward, Context, Conv2d, Conv2dConfig, DeviceKind, DeviceTensor, Input, Output, Precision, Weight,
};
use ndarray::{Array, ArrayD, ArrayView, IxDyn};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The rig of the same device that does not stream.
fn plain<'a>(all: &'a [Rig], rig: &Rig) -> &'a Context {
    let same = all.iter().find(|other| other.context.device().index == rig.context.device().index);
    &same.expect("every device is among them").context
}

/// Checks that calls on the streaming rigs give the bits of those on the whole ones, of the same devices; and that some
/// ran in more parts than these have dispatches, unless pieces are larger than the tensors of all cases.
fn same_bits(fact: &str, whole: &[Rig], streaming: &[Rig], cases: &[Case], requests: &[Request], cut: bool) {
    if streaming.is_empty() {
        return announce("streams: no Vulkan device");
    }
    let parts = AtomicU64::new(0);
    let dispatches = |rigs: &[Rig]| -> u64 {
        let vulkan = rigs.iter().filter(|rig| rig.context.device().kind != DeviceKind::Cpu);
        vulkan.map(|rig| rig.context.stats().dispatches).sum()
    };
    let before = dispatches(whole);
    let data = |case: &Case| Data::new(case, Kind::Normal);
    sweep(fact, streaming, cases, data, |rig, case, data| {
        let mut checked = 0;
        let before = rig.context.stats().dispatches;
        for request in requests {
            let expected = compute(plain(whole, rig), case, data, request)?;
            let got = compute(&rig.context, case, data, request)?;
            let bits = |values: &Option<Vec<f32>>| {
                values.as_ref().map(|values| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
            };
            for (got, expected) in got.iter().zip(&expected) {
                if bits(got) != bits(expected) {
                    return Err(format!("{:?}: the bits differ", request.placement));
                }
                checked += usize::from(got.is_some());
            }
        }
        parts.fetch_add(rig.context.stats().dispatches - before, Relaxed);
        Ok(checked)
    });
    let (parts, whole) = (parts.into_inner(), dispatches(whole) - before);
    assert_eq!(parts > whole, cut, "{fact}: {parts} parts of {whole} dispatches");
}

fn same_bits_in_pieces(minimum_limits: bool, piece: u64, cases: &[Case], requests: &[Request]) {
    let whole = if minimum_limits { minimum_rigs() } else { rigs() };
    let streaming = streaming_rigs(piece, minimum_limits);
    same_bits("bits of streamed calls", &whole, &streaming, cases, requests, piece < WHOLE);
}

/// More bytes than the cases' tensors have.
const WHOLE: u64 = 4 << 20;

fn requests() -> Vec<Request> {
    let host = Request::new(Precision::Fp32, Placement::Host);
    vec![
        host,
        Request { accumulate: Accumulate::ALL, packed: true, ..host },
        Request { placement: Placement::Strided(1), planned: true, ..host },
        Request { placement: Placement::Mixed(0b1010_0110), ..host },
    ]
}

#[test]
fn streamed_results_have_the_same_bits() {
    same_bits_in_pieces(false, 1000, &spread(16, &["batch_", "long_"]), &requests()[..1]);
}

#[test]
fn however_a_call_is_made_and_cut() {
    // At last a call as a whole, whose tensors are in memory that both sides see.
    for piece in [100, 5000, WHOLE] {
        same_bits_in_pieces(false, piece, &spread(48, &["batch_"]), &requests());
    }
}

#[test]
fn whichever_kernel_runs() {
    for kernel in ["implicit_gemm_steps", "implicit_gemm_joint_phases", "strips_parts", "segments-backward-weight"] {
        // Joint phases take strides. A software driver compiles for seconds: one case each.
        let name = if kernel == "implicit_gemm_joint_phases" { "transposed_batch_17" } else { "batch_17" };
        let cases = spread(usize::MAX, &[name]);
        let (whole, streaming) = (kernel_rigs(kernel), streaming_kernel_rigs(kernel, 700));
        same_bits("bits of streamed calls", &whole, &streaming, &cases, &requests()[..1], true);
    }
}

#[test]
fn a_device_without_timelines_streams_through_its_one_queue() {
    same_bits_in_pieces(true, 700, &spread(48, &["batch_"]), &requests());
}

fn layer(context: &Context) -> Conv2d {
    let config = Conv2dConfig { padding: [[1, 1]; 2], ..Conv2dConfig::new(6, 10, [3, 3]) };
    Conv2d::new(context, config).expect("a legal layer")
}

const X: [usize; 4] = [7, 6, 12, 11];
const Y: [usize; 4] = [7, 10, 12, 11];

fn numbers(shape: &[usize]) -> ArrayD<f32> {
    let elements = shape.iter().product::<usize>();
    Array::from_iter((0..elements).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5))
        .into_shape_with_order(IxDyn(shape))
        .expect("as many elements")
}

/// Plain contexts of every device, and those whose host tensors travel in pieces, or at once.
fn all_rigs() -> Vec<Rig> {
    let streaming = [(1000, false), (1000, true), (4 << 20, false)];
    let streaming = streaming.into_iter().flat_map(|(piece, minimum_limits)| streaming_rigs(piece, minimum_limits));
    rigs().into_iter().chain(streaming).collect()
}

#[test]
fn arrays_in_host_buffers_are_read_and_written_in_place() {
    for rig in all_rigs() {
        let (conv, x, weight) = (layer(&rig.context), numbers(&X), numbers(&[10, 6, 3, 3]));
        let mut expected = ArrayD::<f32>::zeros(IxDyn(&Y));
        forward(&conv, x.view(), &weight, expected.view_mut());

        // Neither array begins where its buffer does.
        let buffers = [x.len(), expected.len()]
            .map(|elements| rig.context.create_host_buffer(4 * elements as u64 + 64).expect("host memory"));
        buffers[0].write(12, &x.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>()).expect("it fits");
        let [from, to] = buffers.each_ref().map(|buffer| buffer.host_address().expect("host memory"));
        // SAFETY: the buffers have room for the arrays behind what is skipped, which keeps them aligned.
        let (x_view, mut y_view) = unsafe {
            let x_view = ArrayView::from_shape_ptr(IxDyn(&X), from.add(12).cast::<f32>().cast_const());
            (x_view, ndarray::ArrayViewMut::from_shape_ptr(IxDyn(&Y), to.add(16).cast::<f32>()))
        };
        y_view.fill(f32::NAN);
        forward(&conv, x_view.view(), &weight, y_view.view_mut());
        assert_eq!(y_view, expected, "{}", rig.name);
        let mut bytes = vec![0; 4 * expected.len()];
        buffers[1].read(16, &mut bytes).expect("it is there");
        assert_eq!(bytes, expected.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>(), "{}", rig.name);
    }
}

#[test]
fn results_that_go_back_in_several_copies_come_whole() {
    let (x, weight) = (numbers(&[4, 6, 160, 161]), numbers(&[10, 6, 3, 3]));
    let y = [4, 10, 160, 161];
    let whole = streaming_rigs(16 << 20, false);
    for rig in streaming_rigs(2 << 20, false) {
        let nothing = || ArrayD::from_elem(IxDyn(&y), f32::NAN);
        let (mut expected, mut got) = (nothing(), nothing());
        forward(&layer(plain(&whole, &rig)), x.view(), &weight, expected.view_mut());
        forward(&layer(&rig.context), x.view(), &weight, got.view_mut());
        assert_eq!(got, expected, "{}", rig.name);

        let buffer = rig.context.create_host_buffer(4 * got.len() as u64).expect("host memory");
        let to = buffer.host_address().expect("host memory").cast::<f32>();
        // SAFETY: the buffer has room for the array, and is its own.
        let mut in_buffer = unsafe { ndarray::ArrayViewMut::from_shape_ptr(IxDyn(&y), to) };
        in_buffer.fill(f32::NAN);
        forward(&layer(&rig.context), x.view(), &weight, in_buffer.view_mut());
        assert_eq!(in_buffer, expected, "{}, in a host buffer", rig.name);
    }
}

#[test]
fn results_are_put_back_while_threads_fetch_more() {
    // More pieces than the ring has, of so many bytes that several threads copy each; and both ways in the same array.
    let shape = [48, 8, 64, 64];
    let (dy, weight) = (numbers(&shape), numbers(&[8, 8, 1, 1]));
    let dx = |context: &Context| {
        let conv = Conv2d::new(context, Conv2dConfig::new(8, 8, [1, 1])).expect("a legal layer");
        let mut dx = dy.mapv(|value| value * 3.0);
        conv.backward(Backward {
            x: None,
            weight: Some(Weight::Raw(Input::Host(weight.view()))),
            dy: Input::Host(dy.view()),
            dx: Some(Output::Host(dx.view_mut())),
            dweight: None,
            dbias: None,
            accumulate: Accumulate::ALL,
        })
        .expect("a legal call");
        dx
    };
    let whole = streaming_rigs(16 << 20, false);
    for rig in streaming_rigs(300 << 10, false) {
        assert!(dx(&rig.context) == dx(plain(&whole, &rig)), "{}", rig.name);
    }
}

#[test]
fn host_buffers_outlive_their_context_and_come_from_a_pool() {
    for rig in all_rigs() {
        let buffer = rig.context.create_host_buffer(100_000).expect("host memory");
        buffer.write(99_990, &[1, 2, 3, 4]).expect("within");
        let first = buffer.host_address().expect("host memory") as usize;
        drop(buffer);
        let (before, again) = (rig.context.stats(), rig.context.create_host_buffer(99_999).expect("host memory"));
        assert_eq!(again.host_address().expect("host memory") as usize, first, "{}: pooled", rig.name);
        assert_eq!(rig.context.stats().allocations, before.allocations, "{}", rig.name);
        assert!(again.write(99_990, &[0; 10]).is_err(), "{}: beyond its end", rig.name);
        assert!(DeviceTensor::new(&again, 0, &[8]).is_err(), "{}: it is the host's", rig.name);
        let of_device = rig.context.create_buffer(64).expect("device memory");
        assert!(of_device.host_address().is_err(), "{}: it is the device's", rig.name);
        drop(rig.context);
        let mut bytes = [0; 4];
        again.read(99_990, &mut bytes).expect("within");
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert!(first.is_multiple_of(4));
    }
}

#[test]
fn large_calls_allocate_nothing_after_the_first() {
    for rig in all_rigs() {
        let (conv, x, weight) = (layer(&rig.context), numbers(&X), numbers(&[10, 6, 3, 3]));
        let mut y = ArrayD::<f32>::zeros(IxDyn(&Y));
        let mut run = || {
            forward(&conv, x.view(), &weight, y.view_mut());
            rig.context.stats()
        };
        let (first, last) = (run(), (0..50).map(|_| run()).last().expect("fifty"));
        assert_eq!(last.allocations, first.allocations, "{}", rig.name);
        assert_eq!(last.blocks_in_use, first.blocks_in_use, "{}", rig.name);
        assert_eq!(last.host_bytes_held, first.host_bytes_held, "{}", rig.name);
    }
}

#[test]
fn small_host_tensors_count_as_memory_of_the_device() {
    for rig in streaming_rigs(4 << 20, false) {
        let (conv, x, weight) = (layer(&rig.context), numbers(&X), numbers(&[10, 6, 3, 3]));
        let mut y = ArrayD::<f32>::zeros(IxDyn(&Y));
        forward(&conv, x.view(), &weight, y.view_mut());
        let held = rig.context.stats().bytes_held;
        assert!(held >= 4 * (x.len() + weight.len()) as u64, "{}: {held} bytes held", rig.name);
    }
}
