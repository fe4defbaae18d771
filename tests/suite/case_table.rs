//! The committed case table is the one that the generator writes, and it covers what it claims to cover.

use crate::common::cases::{Case, Mode, table};
use crate::common::rigs::{announce, in_ci};
use std::collections::HashSet;
use std::process::Command;

#[test]
fn the_committed_table_is_what_the_generator_writes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/generate_cases.py");
    match Command::new("python3").arg(script).arg("--check").output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if in_ci() => panic!("python3 does not run: {error}"),
        Err(error) => {
            announce(&format!("case table: NOT CHECKED against its generator: python3 does not run: {error}"))
        }
    }
}

#[test]
fn there_are_at_least_620_cases_with_names_of_their_own() {
    let cases = table().cases;
    let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert!(cases.len() >= 620, "{} cases", cases.len());
    assert_eq!(names.len(), cases.len());
}

#[test]
fn output_shapes_agree_with_the_library() {
    for case in table().cases {
        let config = case.config(grilly::Precision::Fp32);
        assert_eq!(config.validate(), Ok(()), "{}", case.name);
        assert_eq!(grilly::problem::output_shape(&config, case.input()), Ok(case.output()), "{}", case.name);
    }
}

#[test]
fn the_table_covers_the_situations_that_have_code_of_their_own() {
    type Fact = fn(&Case) -> bool;
    let multiplier = |case: &Case| if case.groups == case.c && case.c > 1 { case.k / case.c } else { 0 };
    let facts: [(&str, Fact); 32] = [
        ("an empty batch", |case| case.n == 0),
        ("one dimension", |case| case.h == 1 && case.kernel[0] == 1 && case.kernel[1] > 1),
        ("channels off every tile", |case| case.c == 127 && case.k == 130),
        ("a kernel of 1x7", |case| case.kernel == [1, 7]),
        ("a kernel of 7x1", |case| case.kernel == [7, 1]),
        ("a kernel of 3x5", |case| case.kernel == [3, 5]),
        ("an even kernel", |case| case.kernel == [4, 4]),
        ("strides that differ", |case| case.stride == [3, 2]),
        ("asymmetric padding", |case| case.padding.iter().all(|[begin, end]| begin != end)),
        ("padding of one side only", |case| case.padding == [[0, 0], [0, 2]]),
        ("padding larger than the kernel", |case| (0..2).all(|axis| case.padding[axis][0] > case.kernel[axis])),
        ("a stride larger than the kernel", |case| (0..2).all(|axis| case.stride[axis] > case.kernel[axis])),
        ("dilation 2", |case| case.dilation == [2, 2]),
        ("dilations that differ", |case| case.dilation == [1, 3]),
        ("dilation with stride", |case| case.dilation == [2, 2] && case.stride == [2, 2]),
        ("groups", |case| case.groups > 1 && case.groups < case.c && case.groups < case.k),
        ("depthwise", |case| case.groups == case.c && case.groups == case.k && case.c > 1),
        ("one pixel of output", |case| case.output()[2..] == [1, 1] && case.kernel == [7, 5]),
        ("a long forward sum", |case| case.c / case.groups * case.kernel[0] * case.kernel[1] >= 4608),
        ("a long input gradient sum", |case| case.k / case.groups * case.kernel[0] * case.kernel[1] >= 4608),
        ("a long weight gradient sum", |case| case.n * case.output()[2] * case.output()[3] >= 50_000),
        ("no bias", |case| !case.bias),
        ("mirrored padding as far as it goes", |case| {
            case.padding_mode == Mode::Reflect && case.padding == [[case.h - 1; 2], [case.w - 1; 2]]
        }),
        ("circular padding as far as it goes", |case| {
            case.padding_mode == Mode::Circular && case.padding == [[case.h; 2], [case.w; 2]]
        }),
        ("replicated padding beyond the input", |case| {
            case.padding_mode == Mode::Replicate && case.padding[0][0] > case.h && case.padding[1][0] > case.w
        }),
        ("a padding mode without padding", |case| case.padding_mode != Mode::Zeros && case.padding == [[0, 0], [0, 0]]),
        ("a depthwise convolution with a padding mode", |case| {
            case.padding_mode != Mode::Zeros && case.groups == case.c && case.c > 1
        }),
        ("a transposed convolution", |case| case.transposed && case.groups == 1 && case.c > 1 && case.k > 1),
        ("a transposed depthwise convolution", |case| case.transposed && case.groups == case.k && case.k > 1),
        ("output padding", |case| (0..2).all(|axis| (1..case.stride[axis]).contains(&case.output_padding[axis]))),
        ("output padding of a stride or more", |case| {
            (0..2).all(|axis| case.transposed && case.output_padding[axis] >= case.stride[axis])
        }),
        ("pixels of a transposed convolution's output that no tap meets", |case| {
            (0..2).all(|axis| case.transposed && case.stride[axis] > case.kernel[axis])
        }),
    ];
    let cases = table().cases;
    for (what, fact) in facts {
        assert!(cases.iter().any(fact), "no case has {what}");
    }
    for wanted in 1..=3 {
        assert!(cases.iter().any(|case| multiplier(case) == wanted), "no depthwise case has multiplier {wanted}");
    }
    for size in 1..=7 {
        assert!(cases.iter().any(|case| case.kernel == [size, size]), "no case has a kernel of {size}x{size}");
    }
}
