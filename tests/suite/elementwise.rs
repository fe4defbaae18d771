//! Element-wise operations: the defined values bit by bit, broadcasting, in place, and nothing written beside.

use crate::common::guard::{Arena, Place, Slot};
use crate::common::rigs::{Rig, minimum_rigs, rigs};
use grilly::{Buffer, Context, DeviceKind, DeviceTensor, Elementwise, ElementwiseOp as Op, Input, Status};

const OPS: [Op; 8] =
    [Op::Copy, Op::Add, Op::Subtract, Op::Multiply, Op::Divide, Op::Maximum, Op::Minimum, Op::ReluBackward];

/// Both kinds of zeros, infinities, NaN and subnormals, the smallest and the largest, and some ordinary numbers.
const SPECIAL: [f32; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.5,
    -3.75,
    0.1,
    1e-40,
    -1e-40,
    1.5e-45,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    16_777_215.0,
];

/// The definition, one pair at a time.
fn expected(op: Op, a: f32, b: f32) -> f32 {
    let choose = |first: bool| if first { a } else { b };
    match op {
        Op::Copy => a,
        Op::Add => a + b,
        Op::Subtract => a - b,
        Op::Multiply => a * b,
        Op::Divide => a / b,
        Op::Maximum | Op::Minimum if a.is_nan() || b.is_nan() => f32::NAN,
        Op::Maximum => choose(a > b || a == b && a.is_sign_positive()),
        Op::Minimum => choose(a < b || a == b && a.is_sign_negative()),
        Op::ReluBackward if b <= 0.0 => 0.0,
        Op::ReluBackward => a,
    }
}

/// Whether a device may answer `got`: the same bits; any NaN for NaN. A GPU may flush subnormals of arithmetic, and its
/// quotients are within 2.5 units in the last place where the divisor is within 2^±126.
fn allowed(rig: &Rig, op: Op, [a, b]: [f32; 2], got: f32) -> bool {
    let want = expected(op, a, b);
    if got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan() {
        return true;
    }
    let arithmetic = matches!(op, Op::Add | Op::Subtract | Op::Multiply | Op::Divide);
    if rig.context.device().kind == DeviceKind::Cpu || !arithmetic {
        return false;
    }
    let flushed = |value: f32| if value.is_subnormal() { 0.0f32.copysign(value) } else { value };
    let unflushed_or_flushed = [want, flushed(want), flushed(expected(op, flushed(a), flushed(b)))];
    let divisor_in_range = (f32::MIN_POSITIVE..=2f32.powi(126)).contains(&b.abs());
    let close = |want: f32| (f64::from(got) - f64::from(want)).abs() <= 2.5 * f64::from(want.abs() * f32::EPSILON);
    unflushed_or_flushed.into_iter().any(|want| {
        got == want || got.is_nan() && want.is_nan() || op == Op::Divide && (close(want) || !divisor_in_range)
    })
}

/// Which memory the result has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Out {
    Own,
    A,
    B,
}

/// A tensor's shape and values; absent: the scalar.
type Array = Option<(Vec<u64>, Vec<f32>)>;

/// Runs an operation with every tensor between guard bands, the result poisoned.
fn run(
    context: &Context,
    op: Op,
    [a, b]: [&Array; 2],
    alpha: f32,
    shape: &[u64],
    out: Out,
) -> Result<Vec<f32>, String> {
    let mut arena = Arena::default();
    let mut place =
        |array: &Array| array.as_ref().map(|(shape, values)| Slot::new(&mut arena, Place::Device, shape, Some(values)));
    let (a, b) = (place(a), place(b));
    let own = (out == Out::Own).then(|| Slot::new(&mut arena, Place::Device, shape, None));
    let result = own.as_ref().or(if out == Out::A { a.as_ref() } else { b.as_ref() }).expect("an operand to write to");
    arena.upload(context).map_err(|error| error.to_string())?;
    let call = Elementwise {
        op,
        a: a.as_ref().map(|slot| tensor(slot, &arena)),
        b: b.as_ref().map(|slot| tensor(slot, &arena)),
        alpha,
        out: tensor(result, &arena),
    };
    context.elementwise(&call).map_err(|error| error.to_string())?;
    let after = arena.download(&[result])?;
    let Slot::Device { range, .. } = result else { return Err("placed on the device".into()) };
    Ok(after[range.clone()].to_vec())
}

fn tensor<'a>(slot: &'a Slot, arena: &'a Arena) -> DeviceTensor<'a> {
    match slot.input(arena).expect("fits") {
        Input::Device(tensor) => tensor,
        Input::Host(_) => panic!("all of them were placed on the device"),
    }
}

/// Every pair of special values, as two columns; repeated so that it takes more than one workgroup and block.
fn pairs() -> [Vec<f32>; 2] {
    let pair = |at: usize| [SPECIAL[at / SPECIAL.len() % SPECIAL.len()], SPECIAL[at % SPECIAL.len()]];
    let count = 7 * SPECIAL.len() * SPECIAL.len() + 5;
    [0, 1].map(|side| (0..count).map(|at| pair(at)[side]).collect())
}

#[test]
fn every_pair_of_special_values_gives_the_defined_one() {
    let [x, y] = pairs();
    let shape = vec![x.len() as u64];
    for rig in &rigs() {
        for op in OPS {
            let (a, b) =
                (Some((shape.clone(), x.clone())), Some((shape.clone(), y.clone())).filter(|_| op != Op::Copy));
            for out in [Out::Own, Out::A, Out::B] {
                if out == Out::B && op == Op::Copy {
                    continue;
                }
                let got = run(&rig.context, op, [&a, &b], 1.0, &shape, out).expect("runs");
                for (at, &got) in got.iter().enumerate() {
                    let pair = [x[at], y[at]];
                    let want = expected(op, pair[0], pair[1]);
                    assert!(allowed(rig, op, pair, got), "{}: {op:?} of {pair:?} is {got:?}, not {want:?}", rig.name);
                }
            }
        }
    }
}

#[test]
fn a_scalar_stands_in_for_either_operand_and_scales_the_second() {
    let shape = [2, 3, 5];
    let values: Vec<f32> = (0..30).map(|at| at as f32 * 0.37 - 4.0).collect();
    let others: Vec<f32> = (0..30).map(|at| 3.0 - at as f32 * 0.21).collect();
    let (a, b) = (Some((shape.to_vec(), values.clone())), Some((shape.to_vec(), others.clone())));
    for rig in &rigs() {
        for op in OPS {
            for alpha in [0.0, -0.3, 2.0, f32::INFINITY] {
                let mut cases = vec![(&a, &None, Out::Own), (&a, &None, Out::A)];
                if op == Op::Copy {
                    cases.push((&None, &None, Out::Own));
                } else {
                    cases.extend([(&None, &b, Out::B), (&a, &b, Out::Own), (&a, &b, Out::A), (&a, &b, Out::B)]);
                }
                for (a, b, out) in cases {
                    let got = run(&rig.context, op, [a, b], alpha, &shape, out).expect("runs");
                    for (at, &got) in got.iter().enumerate() {
                        let x = if a.is_some() { values[at] } else { alpha };
                        let factor = if a.is_some() { alpha } else { 1.0 };
                        let y = if b.is_some() { factor * others[at] } else { alpha };
                        let told = (op, alpha, out, x, y, got);
                        assert!(allowed(rig, op, [x, y], got), "{}: {told:?}", rig.name);
                    }
                }
            }
        }
    }
}

#[test]
fn operands_broadcast_to_the_result_as_numpys_do() {
    let shapes: [(&[u64], &[u64], &[u64]); 8] = [
        (&[2, 3, 4, 5], &[5], &[2, 3, 4, 5]),
        (&[2, 3, 4, 5], &[3, 1, 1], &[2, 3, 4, 5]),
        (&[1, 3, 1, 5], &[2, 1, 4, 1], &[2, 3, 4, 5]),
        (&[1], &[7, 1], &[7, 11]),
        (&[300], &[300, 1], &[300, 300]),
        (&[1], &[1], &[2, 3]),
        (&[3, 0], &[1], &[3, 0]),
        (&[9, 1], &[9, 1, 130], &[9, 9, 130]),
    ];
    let filled = |shape: &[u64], step: f32| -> Array {
        let count = shape.iter().product::<u64>();
        Some((shape.to_vec(), (0..count).map(|at| at as f32 * step).collect()))
    };
    for rig in rigs().iter().chain(&minimum_rigs()) {
        for (left, right, shape) in shapes {
            let (a, b) = (filled(left, 1.0), filled(right, -1000.0));
            let got = run(&rig.context, Op::Subtract, [&a, &b], 1.0, shape, Out::Own).expect("runs");
            let view = |array: &Array| {
                let (shape, values) = array.clone().expect("given");
                let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
                ndarray::ArrayD::from_shape_vec(sizes, values).expect("as many as the shape has")
            };
            let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
            let (a, b) = (view(&a), view(&b));
            let (a, b) = (a.broadcast(sizes.clone()).expect("legal"), b.broadcast(sizes).expect("legal"));
            let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            assert_eq!(got, want, "{}: {left:?} - {right:?} to {shape:?}", rig.name);
        }
    }
}

/// Vulkan promises bindings of 128 MiB; llvmpipe has no larger ones.
#[test]
fn tensors_beyond_the_largest_binding_are_computed_whole() {
    let row = (32u64 << 20) + 77;
    let check = |rig: &Rig, buffer: &Buffer, want: &[(u64, f32)]| {
        for &(at, want) in want {
            assert_eq!(read(buffer, at), want, "{}: element {at}", rig.name);
        }
    };
    for rig in rigs().iter().chain(&minimum_rigs()) {
        let [rows, one] = [2 * row, row].map(|elements| rig.context.create_buffer(4 * elements).expect("memory"));
        let out = DeviceTensor::new(&rows, 0, &[2, row]).expect("fits");
        let fill = Elementwise { op: Op::Copy, a: None, b: None, alpha: 3.0, out };
        rig.context.elementwise(&fill).expect("fills");
        rig.context.elementwise(&Elementwise { op: Op::Multiply, a: Some(out), alpha: -0.5, ..fill }).expect("scales");
        check(rig, &rows, &[0, row - 78, row - 1, row, 2 * row - 1].map(|at| (at, -1.5)));

        // A row that is beyond it itself needs addresses.
        one.write(4 * (row - 1), &7f32.to_ne_bytes()).expect("within");
        let b = DeviceTensor::new(&one, 0, &[row]).expect("fits");
        match rig.context.elementwise(&Elementwise { op: Op::Add, a: Some(out), b: Some(b), alpha: 1.0, out }) {
            Ok(()) => check(rig, &rows, &[(0, -1.5), (row - 1, 5.5), (row, -1.5), (2 * row - 1, 5.5)]),
            Err(error) => {
                assert!(rig.name.contains("minimum limits"), "{}: {error}", rig.name);
                assert_eq!(error.status(), Status::Unsupported);
                assert!(error.message().contains("no buffer addresses"), "{error}");
            }
        }
    }
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let rigs = rigs();
    let rig = &rigs[0];
    let (buffer, foreign) = (rig.context.create_buffer(400).expect("memory"), rigs[rigs.len() - 1].context.clone());
    let foreign = foreign.create_buffer(400).expect("memory");
    let tensor = |at: u64, shape: &[u64]| DeviceTensor::new(&buffer, at, shape).expect("fits");
    let elsewhere = DeviceTensor::new(&foreign, 0, &[4]).expect("fits");
    let out = tensor(0, &[4]);
    let add = Elementwise { op: Op::Add, a: Some(out), b: None, alpha: 1.0, out };
    let table = [
        (Elementwise { a: Some(tensor(100, &[5])), ..add }, "a has shape [5]"),
        (Elementwise { a: Some(tensor(100, &[2, 4])), ..add }, "a has shape [2, 4]"),
        (Elementwise { b: Some(tensor(8, &[4])), ..add }, "out overlaps b"),
        (Elementwise { a: Some(tensor(0, &[1])), ..add }, "out overlaps a"),
        (Elementwise { a: None, ..add }, "a and b are both absent"),
        (Elementwise { op: Op::Copy, b: Some(out), ..add }, "b is given"),
        (Elementwise { b: Some(elsewhere), ..add }, "b lies in a buffer of another context"),
        (Elementwise { out: elsewhere, a: None, b: Some(out), ..add }, "out lies in a buffer of another context"),
    ];
    let one_device = rigs.len() == 1;
    for (call, message) in table.into_iter().filter(|(_, message)| !one_device || !message.contains("another")) {
        let error = rig.context.elementwise(&call).expect_err(message);
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.message().starts_with(message), "{error}");
    }
    rig.context.elementwise(&add).expect("the call that was spoilt");
}

fn read(buffer: &Buffer, element: u64) -> f32 {
    let mut bytes = [0; 4];
    buffer.read(4 * element, &mut bytes).expect("within");
    f32::from_ne_bytes(bytes)
}
