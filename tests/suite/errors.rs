//! Whatever is wrong with a call, the status is the documented one and the message says what was wrong.

use crate::common::cases::{ErrorCase, table};
use crate::common::rigs::{Rig, open, rigs};
use grilly::{
    Accumulate, Backward, Buffer, Conv2d, Conv2dConfig, DeviceTensor, Forward, Input, Output, Precision, Status,
};
use grilly::{Weight, Weights};
use ndarray::ArrayD;

#[test]
fn illegal_configs_and_inputs_are_refused_by_name() {
    let errors = table().errors;
    assert!(errors.len() >= 40, "{} errors", errors.len());
    for rig in rigs() {
        for ErrorCase { case, in_channels, status, message } in &errors {
            let mut config = case.config(Precision::Fp32);
            config.in_channels = *in_channels;
            let outcome = Conv2d::new(&rig.context, config).and_then(|conv| conv.output_shape(case.input()));
            let error = outcome.expect_err(&case.name);
            assert_eq!(error.status().name().to_str(), Ok(format!("GRILLY_ERROR_{status}").as_str()), "{}", case.name);
            assert!(error.message().contains(message), "{}: got {:?}, want {message:?}", case.name, error.message());
        }
    }
}

/// Shapes of a small legal call; a test spoils one of them.
#[derive(Clone)]
struct Shapes {
    x: Vec<usize>,
    weight: Vec<usize>,
    bias: Vec<usize>,
    y: Vec<usize>,
    dy: Vec<usize>,
    dx: Vec<usize>,
    dweight: Vec<usize>,
    dbias: Vec<usize>,
}

fn config() -> Conv2dConfig {
    let mut config = Conv2dConfig::new(4, 6, [3, 3]);
    config.groups = 2;
    config
}

fn legal() -> Shapes {
    let (x, weight, y, bias) = (vec![2, 4, 7, 8], vec![6, 2, 3, 3], vec![2, 6, 5, 6], vec![6]);
    Shapes {
        x: x.clone(),
        weight: weight.clone(),
        bias: bias.clone(),
        y: y.clone(),
        dy: y,
        dx: x,
        dweight: weight,
        dbias: bias,
    }
}

fn forward(rig: &Rig, shapes: &Shapes) -> grilly::Result<()> {
    let [x, weight, bias] =
        [&shapes.x, &shapes.weight, &shapes.bias].map(|shape| ArrayD::<f32>::zeros(shape.as_slice()));
    let mut y = ArrayD::zeros(shapes.y.as_slice());
    Conv2d::new(&rig.context, config())?.forward(Forward {
        x: Input::Host(x.view()),
        weight: Weight::Raw(Input::Host(weight.view())),
        bias: Some(Input::Host(bias.view())),
        y: Output::Host(y.view_mut()),
    })
}

fn backward(rig: &Rig, shapes: &Shapes) -> grilly::Result<()> {
    let [x, weight, dy] = [&shapes.x, &shapes.weight, &shapes.dy].map(|shape| ArrayD::<f32>::zeros(shape.as_slice()));
    let [mut dx, mut dweight, mut dbias] =
        [&shapes.dx, &shapes.dweight, &shapes.dbias].map(|shape| ArrayD::<f32>::zeros(shape.as_slice()));
    Conv2d::new(&rig.context, config())?.backward(Backward {
        x: Some(Input::Host(x.view())),
        weight: Some(Weight::Raw(Input::Host(weight.view()))),
        dy: Input::Host(dy.view()),
        dx: Some(Output::Host(dx.view_mut())),
        dweight: Some(Output::Host(dweight.view_mut())),
        dbias: Some(Output::Host(dbias.view_mut())),
        accumulate: Accumulate::default(),
    })
}

fn assert_invalid(outcome: grilly::Result<()>, what: &str, fragments: &[&str]) {
    let Err(error) = outcome else { panic!("{what}: accepted") };
    assert_eq!(error.status(), Status::InvalidArgument, "{what}: {error}");
    for fragment in fragments {
        assert!(error.message().contains(fragment), "{what}: {:?} does not say {fragment:?}", error.message());
    }
}

#[test]
fn tensors_of_a_wrong_shape_are_named() {
    type Spoil = fn(&mut Shapes);
    type Pass = fn(&Rig, &Shapes) -> grilly::Result<()>;
    let table: [(Pass, Spoil, &str, &str); 16] = [
        (forward, |s| s.x = vec![2, 5, 7, 8], "5 channels", "in_channels = 4"),
        (forward, |s| s.x = vec![2, 4, 7], "x", "[2, 4, 7]"),
        (forward, |s| s.x = vec![2, 4, 2, 8], "kernel spans 3", "axis 2"),
        (forward, |s| s.weight = vec![6, 4, 3, 3], "weight", "[6, 4, 3, 3]"),
        (forward, |s| s.weight = vec![6, 2, 9], "weight", "[6, 2, 9]"),
        (forward, |s| s.bias = vec![5], "bias", "[5]"),
        (forward, |s| s.bias = vec![6, 1], "bias", "[6, 1]"),
        (forward, |s| s.y = vec![2, 6, 5, 5], "y", "[2, 6, 5, 5]"),
        (forward, |s| s.y = vec![1, 6, 5, 6], "y", "[1, 6, 5, 6]"),
        (backward, |s| s.x = vec![3, 4, 7, 8], "[3, ", "[2, "),
        (backward, |s| s.dy = vec![2, 6, 5, 5], "dy", "[2, 6, 5, 5]"),
        (backward, |s| s.dy = vec![2, 3, 5, 6], "dy", "[2, 3, 5, 6]"),
        (backward, |s| s.dx = vec![2, 4, 8, 7], "[2, 4, 8, 7]", "[2, "),
        (backward, |s| s.weight = vec![4, 2, 3, 3], "weight", "[4, 2, 3, 3]"),
        (backward, |s| s.dweight = vec![6, 2, 3], "dweight", "[6, 2, 3]"),
        (backward, |s| s.dbias = vec![], "dbias", "[]"),
    ];
    for rig in rigs() {
        forward(&rig, &legal()).expect("legal");
        backward(&rig, &legal()).expect("legal");
        for (pass, spoil, name, shape) in table {
            let mut shapes = legal();
            spoil(&mut shapes);
            assert_invalid(pass(&rig, &shapes), &format!("{name} {shape} on {}", rig.name), &[name, shape]);
        }
    }
}

#[test]
fn a_backward_call_must_bring_what_its_gradients_read() {
    let shapes = legal();
    let [x, weight, dy] = [&shapes.x, &shapes.weight, &shapes.dy].map(|shape| ArrayD::<f32>::zeros(shape.as_slice()));
    for rig in rigs() {
        let conv = Conv2d::new(&rig.context, config()).expect("legal");
        let (mut dx, mut dweight) = (x.clone(), weight.clone());
        let call = |dx, dweight, x: Option<_>, weight: Option<_>| {
            let dy = Input::Host(dy.view());
            conv.backward(Backward { x, weight, dy, dx, dweight, dbias: None, accumulate: Accumulate::default() })
        };
        let dx = Some(Output::Host(dx.view_mut()));
        assert_invalid(call(dx, None, Some(Input::Host(x.view())), None), "dx without weight", &["weight"]);
        let dweight = Some(Output::Host(dweight.view_mut()));
        let raw = Some(Weight::Raw(Input::Host(weight.view())));
        assert_invalid(call(None, dweight, None, raw), "dweight without x", &["x"]);
    }
}

#[test]
fn device_tensors_must_be_aligned_and_inside_their_buffer() {
    for rig in rigs() {
        let buffer = rig.context.create_buffer(4 * 24).expect("small");
        let tensor = |offset, shape: &[u64]| DeviceTensor::new(&buffer, offset, shape).map(drop);
        assert_eq!(tensor(0, &[1, 2, 3, 4]), Ok(()));
        assert_eq!(tensor(4, &[23]), Ok(()));
        let illegal: [(&str, u64, &[u64]); 8] = [
            ("misaligned by 1", 1, &[2]),
            ("misaligned by 2", 2, &[2]),
            ("one element too long", 0, &[25]),
            ("pushed over the end", 4, &[1, 2, 3, 4]),
            ("begins after the end", 100, &[1]),
            ("offset near the end of 64 bits", u64::MAX - 3, &[1]),
            ("product beyond 64 bits", 0, &[1 << 32, 1 << 32, 4]),
            ("bytes beyond 64 bits", 0, &[1 << 62]),
        ];
        for (what, offset, shape) in illegal {
            assert_invalid(tensor(offset, shape), &format!("{what} on {}", rig.name), &[]);
        }
        for (offset, bytes) in [(93, 4), (97, 0), (u64::MAX, 1), (0, 97)] {
            let mut data = vec![0; bytes];
            assert_invalid(buffer.write(offset, &data), &format!("write of {bytes} at {offset}"), &[]);
            assert_invalid(buffer.read(offset, &mut data), &format!("read of {bytes} at {offset}"), &[]);
        }
        let mut untouched = vec![1; 96];
        buffer.read(0, &mut untouched).expect("in range");
        assert_eq!(untouched, [0; 96], "a fresh buffer is zeroed, and refused writes leave no trace");
    }
}

/// A one-channel 1×1 convolution of 16 elements: x, y, dy and dx may lie anywhere in one buffer.
struct Pointwise<'a> {
    conv: Conv2d,
    weight: DeviceTensor<'a>,
    buffer: &'a Buffer,
}

impl Pointwise<'_> {
    fn at(&self, element: u64) -> DeviceTensor<'_> {
        DeviceTensor::new(self.buffer, 4 * element, &[1, 1, 4, 4]).expect("inside")
    }

    fn forward(&self, x: u64, y: DeviceTensor<'_>) -> grilly::Result<()> {
        let weight = Weight::Raw(Input::Device(self.weight));
        self.conv.forward(Forward { x: Input::Device(self.at(x)), weight, bias: None, y: Output::Device(y) })
    }

    fn backward(&self, dy: u64, dx: u64, dweight: u64, accumulate: bool) -> grilly::Result<()> {
        let dweight = DeviceTensor::new(self.buffer, 4 * dweight, &[1, 1, 1, 1]).expect("inside");
        self.conv.backward(Backward {
            x: Some(Input::Device(self.at(0))),
            weight: Some(Weight::Raw(Input::Device(self.weight))),
            dy: Input::Device(self.at(dy)),
            dx: Some(Output::Device(self.at(dx))),
            dweight: Some(Output::Device(dweight)),
            dbias: None,
            accumulate: if accumulate { Accumulate::ALL } else { Accumulate::default() },
        })
    }
}

#[test]
fn an_output_may_not_overlap_another_tensor_on_the_device() {
    for rig in rigs() {
        let buffer = rig.context.create_buffer(4 * 128).expect("small");
        let conv = Conv2d::new(&rig.context, Conv2dConfig::new(1, 1, [1, 1])).expect("legal");
        let weight = DeviceTensor::new(&buffer, 4 * 120, &[1, 1, 1, 1]).expect("inside");
        let calls = Pointwise { conv, weight, buffer: &buffer };
        calls.forward(0, calls.at(16)).expect("neighbours do not overlap");
        calls.backward(16, 32, 48, false).expect("neighbours do not overlap");
        let overlaps: [(&str, grilly::Result<()>); 8] = [
            ("y on x", calls.forward(0, calls.at(0))),
            ("y on the last element of x", calls.forward(0, calls.at(15))),
            ("y on the first element of x", calls.forward(15, calls.at(0))),
            ("y on the weight", calls.forward(0, calls.at(105))),
            ("dx on dy", calls.backward(16, 31, 60, false)),
            ("dx on x", calls.backward(16, 1, 60, true)),
            ("dweight on dx", calls.backward(16, 32, 47, false)),
            ("dweight on dy", calls.backward(16, 32, 16, false)),
        ];
        for (what, outcome) in overlaps {
            assert_invalid(outcome, &format!("{what} on {}", rig.name), &["overlap"]);
        }
        let other = rig.context.create_buffer(64).expect("small");
        let y = DeviceTensor::new(&other, 0, &[1, 1, 4, 4]).expect("inside");
        calls.forward(0, y).expect("equal offsets in two buffers do not overlap");
    }
}

#[test]
fn buffers_and_weights_of_another_context_or_layer_are_refused() {
    for (rig, stranger) in rigs().into_iter().zip(rigs()) {
        let buffer = stranger.context.create_buffer(4 * 128).expect("small");
        let conv = Conv2d::new(&rig.context, Conv2dConfig::new(1, 1, [1, 1])).expect("legal");
        let weight = DeviceTensor::new(&buffer, 4 * 120, &[1, 1, 1, 1]).expect("inside");
        let calls = Pointwise { conv, weight, buffer: &buffer };
        assert_invalid(calls.forward(0, calls.at(16)), &format!("foreign buffers on {}", rig.name), &["context"]);

        let shapes = legal();
        let array = ArrayD::<f32>::zeros(shapes.weight.as_slice());
        let layer = Conv2d::new(&rig.context, config()).expect("legal");
        let packed = Weights::new(&layer, Input::Host(array.view())).expect("legal");
        let x = Input::Device(calls.at(0));
        let y = Output::Device(calls.at(16));
        let outcome = calls.conv.forward(Forward { x, weight: Weight::Packed(&packed), bias: None, y });
        assert_invalid(outcome, &format!("packed weights of another layer on {}", rig.name), &[]);
    }
}

#[test]
fn a_device_that_does_not_exist_is_refused() {
    let index = grilly::devices().len() as u32;
    for device in [index, u32::MAX] {
        let error = open(device, false).err().expect("out of range");
        assert!(matches!(error.status(), Status::NoDevice | Status::InvalidArgument), "{error}");
        assert!(error.message().contains(&device.to_string()), "{error}");
    }
}
