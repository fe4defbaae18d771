//! Calls that are submitted now and waited for later.

use crate::common::rigs::{all_devices, devices_with, minimum_rigs, rigs};
use grilly::{
    Accumulate, Backward, Buffer, Context, ContextDesc, Conv2d, Conv2dConfig, DeviceTensor, Forward, Input, Output,
    Status, Ticket, Weight,
};
use ndarray::{ArrayD, IxDyn};
use std::time::Duration;

const SHAPE: [u64; 4] = [2, 4, 9, 7];
const WEIGHT: [u64; 4] = [4, 4, 3, 3];

fn layer(context: &Context) -> Conv2d {
    let mut config = Conv2dConfig::new(4, 4, [3, 3]);
    config.padding = [[1, 1], [1, 1]];
    Conv2d::new(context, config).expect("legal")
}

/// Small integers, whose sums are exact.
fn numbers(shape: &[u64], seed: usize) -> Vec<f32> {
    (0..shape.iter().product::<u64>() as usize).map(|at| ((at * 7 + seed) % 3) as f32 - 1.0).collect()
}

fn buffer(context: &Context, values: &[f32]) -> Buffer {
    let buffer = context.create_buffer(4 * values.len() as u64).expect("memory");
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    buffer.write(0, &bytes).expect("within");
    buffer
}

fn read(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.bytes() as usize];
    buffer.read(0, &mut bytes).expect("within");
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

fn tensor<'a>(buffer: &'a Buffer, shape: &[u64]) -> DeviceTensor<'a> {
    DeviceTensor::new(buffer, 0, shape).expect("it fits")
}

fn call<'a>(x: &'a Buffer, weight: &'a Buffer, y: &'a Buffer) -> Forward<'a> {
    Forward {
        x: Input::Device(tensor(x, &SHAPE)),
        weight: Weight::Raw(Input::Device(tensor(weight, &WEIGHT))),
        bias: None,
        y: Output::Device(tensor(y, &SHAPE)),
    }
}

#[test]
fn a_chain_under_way_gives_what_waiting_calls_give() {
    for rig in rigs().into_iter().chain(minimum_rigs()) {
        let conv = layer(&rig.context);
        let weight = buffer(&rig.context, &numbers(&WEIGHT, 2));
        let values = || -> Vec<Buffer> { (0..9).map(|_| buffer(&rig.context, &numbers(&SHAPE, 1))).collect() };
        let (waiting, submitted) = (values(), values());
        for at in 0..8 {
            conv.forward(call(&waiting[at], &weight, &waiting[at + 1])).expect("a call");
        }
        let submit = |at: usize| conv.submit_forward(call(&submitted[at], &weight, &submitted[at + 1]));
        let tickets: Vec<Ticket> = (0..8).map(|at| submit(at).expect("a call")).collect();
        tickets.last().expect("eight").wait(Duration::MAX).expect("done");
        for ticket in &tickets {
            ticket.wait(Duration::ZERO).expect("what was submitted earlier is done too, and may be waited for twice");
            ticket.wait(Duration::MAX).expect("done");
        }
        for (one, other) in waiting.iter().zip(&submitted) {
            assert_eq!(read(one), read(other), "{}", rig.name);
        }
    }
}

#[test]
fn gradients_can_be_submitted() {
    for rig in rigs() {
        let conv = layer(&rig.context);
        let [x, dy] = [1, 3].map(|seed| buffer(&rig.context, &numbers(&SHAPE, seed)));
        let weight = buffer(&rig.context, &numbers(&WEIGHT, 2));
        let results: Vec<[Buffer; 2]> = [false, true]
            .map(|submits| {
                let [dx, dweight] = [&SHAPE, &WEIGHT].map(|shape| buffer(&rig.context, &numbers(shape, 5)));
                let backward = Backward {
                    x: Some(Input::Device(tensor(&x, &SHAPE))),
                    weight: Some(Weight::Raw(Input::Device(tensor(&weight, &WEIGHT)))),
                    dy: Input::Device(tensor(&dy, &SHAPE)),
                    dx: Some(Output::Device(tensor(&dx, &SHAPE))),
                    dweight: Some(Output::Device(tensor(&dweight, &WEIGHT))),
                    dbias: None,
                    accumulate: Accumulate::ALL,
                };
                if submits {
                    conv.submit_backward(backward).expect("a call").wait(Duration::MAX).expect("done");
                } else {
                    conv.backward(backward).expect("a call");
                }
                [dx, dweight]
            })
            .into();
        for (one, other) in results[0].iter().zip(&results[1]) {
            assert_eq!(read(one), read(other), "{}", rig.name);
        }
    }
}

#[test]
fn buffers_convolution_and_context_may_go_before_the_ticket() {
    for index in all_devices() {
        let context = crate::common::rigs::open(index, false).expect("it opens");
        let conv = layer(&context);
        let [x, weight, y] = [&SHAPE, &WEIGHT, &SHAPE].map(|shape| buffer(&context, &numbers(shape, 1)));
        let ticket = conv.submit_forward(call(&x, &weight, &y)).expect("a call");
        // Memory of these sizes that is taken now is not that of the call under way, or comes after it.
        drop((x, weight));
        let others = [&SHAPE, &WEIGHT].map(|shape| buffer(&context, &vec![f32::NAN; numbers(shape, 0).len()]));
        ticket.wait(Duration::MAX).expect("done");
        assert!(read(&y).iter().all(|value| value.is_finite()), "it computed from what it was given");
        let last = conv.submit_forward(call(&y, &buffer(&context, &numbers(&WEIGHT, 2)), &others[0])).expect("a call");
        drop((conv, y, others, context));
        last.wait(Duration::MAX).expect("the ticket keeps the device");
        last.wait(Duration::ZERO).expect("done");
    }
}

#[test]
fn what_a_call_under_way_may_use_is_no_longer_in_the_way_when_it_is_done() {
    let desc = ContextDesc { memory_budget: 8 << 20, ..ContextDesc::default() };
    let minimum = ContextDesc { minimum_limits: true, ..desc.clone() };
    for rig in devices_with(&desc, "").into_iter().chain(devices_with(&minimum, ", minimum limits")) {
        let conv = layer(&rig.context);
        let [x, weight, y] = [&SHAPE, &WEIGHT, &SHAPE].map(|shape| buffer(&rig.context, &numbers(shape, 1)));
        let ticket = conv.submit_forward(call(&x, &weight, &y)).expect("a call");
        // Nobody waits for it, and each of these goes after it was submitted.
        for round in 0..100 {
            let taken = rig.context.create_buffer_uninitialized(1 << 20);
            assert!(taken.is_ok(), "{}, round {round}: {:?}", rig.name, taken.err());
        }
        ticket.wait(Duration::MAX).expect("done");
        rig.context.trim().expect("a trim");
        let stats = rig.context.stats();
        assert_eq!(stats.bytes_held, stats.bytes_in_use, "{}", rig.name);
    }
}

#[test]
fn an_unwaited_ticket_waits_when_it_goes() {
    for rig in rigs() {
        let conv = layer(&rig.context);
        let [x, weight, y] = [&SHAPE, &WEIGHT, &SHAPE].map(|shape| buffer(&rig.context, &numbers(shape, 1)));
        let before = rig.context.stats().blocks_in_use;
        for _ in 0..40 {
            drop(conv.submit_forward(call(&x, &weight, &y)).expect("a call"));
        }
        let submitted = read(&y);
        conv.forward(call(&x, &weight, &y)).expect("a call");
        assert_eq!(submitted, read(&y), "{}", rig.name);
        assert_eq!(rig.context.stats().blocks_in_use, before, "{}", rig.name);
    }
}

#[test]
fn with_host_tensors_the_call_is_done_at_once() {
    for rig in rigs() {
        let conv = layer(&rig.context);
        let array = |shape: &[u64], seed| {
            let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
            ArrayD::from_shape_vec(IxDyn(&sizes), numbers(shape, seed)).expect("as many")
        };
        let (x, weight) = (array(&SHAPE, 1), array(&WEIGHT, 2));
        let run = |y: &mut ArrayD<f32>, submits: bool| {
            let call = Forward {
                x: Input::Host(x.view()),
                weight: Weight::Raw(Input::Host(weight.view())),
                bias: None,
                y: Output::Host(y.view_mut()),
            };
            if submits {
                conv.submit_forward(call).expect("a call").wait(Duration::ZERO).expect("done already");
            } else {
                conv.forward(call).expect("a call");
            }
        };
        let (mut expected, mut y) = (array(&SHAPE, 3), array(&SHAPE, 4));
        run(&mut expected, false);
        run(&mut y, true);
        assert_eq!(y, expected, "{}", rig.name);
    }
}

#[test]
fn a_long_call_is_told_from_one_that_is_done() {
    for rig in rigs().into_iter().filter(|rig| rig.context.device().kind != grilly::DeviceKind::Cpu) {
        let mut config = Conv2dConfig::new(64, 64, [3, 3]);
        config.padding = [[1, 1], [1, 1]];
        let (shape, conv) = ([8, 64, 64, 64], Conv2d::new(&rig.context, config.clone()).expect("legal"));
        let memory = |shape: &[u64]| rig.context.create_buffer(4 * shape.iter().product::<u64>()).expect("memory");
        let weight_shape = config.weight_shape();
        let (x, weight, y) = (memory(&shape), memory(&weight_shape), memory(&shape));
        let submit = || {
            conv.submit_forward(Forward {
                x: Input::Device(tensor(&x, &shape)),
                weight: Weight::Raw(Input::Device(tensor(&weight, &weight_shape))),
                bias: None,
                y: Output::Device(tensor(&y, &shape)),
            })
        };
        // One that is asked at once is nearly always still under way; a thread may be held up, but not every time.
        let under_way = |timeout: Duration| {
            (0..100).any(|_| {
                let ticket = submit().expect("a call");
                let asked = ticket.wait(timeout);
                ticket.wait(Duration::MAX).expect("done");
                ticket.wait(Duration::ZERO).expect("done");
                asked.is_err_and(|error| error.status() == Status::Timeout)
            })
        };
        assert!(under_way(Duration::ZERO) && under_way(Duration::from_nanos(1)), "{}", rig.name);
    }
}

#[test]
fn wrong_calls_give_no_ticket() {
    for rig in rigs() {
        let conv = layer(&rig.context);
        let [x, weight] = [&SHAPE, &WEIGHT].map(|shape| buffer(&rig.context, &numbers(shape, 1)));
        let refused = conv.submit_forward(call(&x, &weight, &x)).map(drop).expect_err("y is x");
        assert_eq!(refused.status(), Status::InvalidArgument);
    }
}
