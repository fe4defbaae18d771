//! However a convolution is called, it is the same convolution: strided, mixed and device tensors, packed weights,
//! gradients alone or added to others.

use crate::common::call::{Placement, Request, Wanted, check, compute};
use crate::common::cases::{Case, elements, spread};
use crate::common::contract::Contract;
use crate::common::data::{Data, Generator, Kind};
use crate::common::guard::LAYOUTS;
use crate::common::reference::{Expected, Reference, prepared};
use crate::common::repeats::the_same_bits;
use crate::common::rigs::{kernel_rigs, shared_rigs, sweep};
use grilly::{Accumulate, Conv2d, Conv2dConfig, DeviceTensor, Forward, Input, Output, Precision, Weight};
use ndarray::{ArrayD, IxDyn};

const SMALL: [&str; 3] = ["batch_", "one_pixel_", "one_dimensional_"];

fn normal(case: &Case) -> (Data, [Expected; 4]) {
    prepared(Kind::Normal, false)(case)
}

/// As different from case to case as chance makes it, and the same in every run.
fn some_mixture(case: &Case) -> Placement {
    Placement::Mixed(Generator::new(case.seed()).bits() as u32)
}

#[test]
fn strided_host_views_are_read_and_written_in_place() {
    sweep("host views of every layout", shared_rigs(), &spread(12, &SMALL), normal, |rig, case, (data, expected)| {
        let mut checked = 0;
        for first in 0..LAYOUTS.len() {
            let request = Request::new(Precision::Fp32, Placement::Strided(first));
            let results = compute(&rig.context, case, data, &request)?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("layout {first}: {text}"))?;
        }
        Ok(checked)
    });
}

#[test]
fn host_and_device_tensors_mix_in_one_call() {
    sweep("mixed calls", shared_rigs(), &spread(8, &SMALL), normal, |rig, case, (data, expected)| {
        let request = Request::new(Precision::Fp32, some_mixture(case));
        check(Contract::Fp32, expected, &compute(&rig.context, case, data, &request)?)
    });
}

#[test]
fn gradients_add_to_what_is_there_when_asked() {
    let accumulating = prepared(Kind::Normal, true);
    sweep("accumulated gradients", shared_rigs(), &spread(9, &SMALL), accumulating, |rig, case, (data, expected)| {
        let mut checked = 0;
        for placement in [Placement::Host, Placement::Device, Placement::Strided(1), some_mixture(case)] {
            let request = Request { accumulate: Accumulate::ALL, ..Request::new(Precision::Fp32, placement) };
            let results = compute(&rig.context, case, data, &request)?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("{placement:?}: {text}"))?;
        }
        Ok(checked)
    });
}

#[test]
fn gradients_of_input_and_parameters_accumulate_apart() {
    let apart = |case: &Case| {
        let data = Data::new(case, Kind::Normal);
        let [y, dx, dweight, dbias] = Reference::new(case, &data, false).all();
        let [_, dx_added, dweight_added, dbias_added] = Reference::new(case, &data, true).all();
        (data, [[y.clone(), dx_added, dweight, dbias], [y, dx, dweight_added, dbias_added]])
    };
    sweep("accumulated apart", shared_rigs(), &spread(18, &SMALL), apart, |rig, case, (data, expected)| {
        let mut checked = 0;
        for (input, expected) in [true, false].into_iter().zip(expected) {
            let accumulate = Accumulate { input, parameters: !input };
            let request = Request { accumulate, ..Request::new(Precision::Fp32, some_mixture(case)) };
            checked += check(Contract::Fp32, expected, &compute(&rig.context, case, data, &request)?)?;
        }
        Ok(checked)
    });
}

#[test]
fn integers_accumulate_exactly_under_ieee() {
    let accumulating = prepared(Kind::Integers, true);
    sweep(
        "accumulated integers",
        shared_rigs(),
        &spread(9, &["long_"]),
        accumulating,
        |rig, case, (data, expected)| {
            let request = Request { accumulate: Accumulate::ALL, ..Request::new(Precision::Ieee, some_mixture(case)) };
            check(Contract::Exact, expected, &compute(&rig.context, case, data, &request)?)
        },
    );
}

#[test]
fn each_gradient_can_be_asked_for_alone() {
    let none = Wanted { dx: false, dweight: false, dbias: false };
    let wishes = [
        Wanted { dx: true, ..none },
        Wanted { dweight: true, ..none },
        Wanted { dbias: true, ..none },
        Wanted { dweight: true, dbias: true, ..none },
        Wanted { dx: true, dbias: true, ..none },
    ];
    // A bias's gradient alone is split where a channel has many pixels.
    let cases = spread(12, &[&SMALL[..], &["many_pixels"]].concat());
    sweep("gradients alone", shared_rigs(), &cases, normal, |rig, case, (data, expected)| {
        let mut checked = 0;
        for wanted in wishes {
            let request = Request { wanted, ..Request::new(Precision::Fp32, some_mixture(case)) };
            let results = compute(&rig.context, case, data, &request)?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("{wanted:?}: {text}"))?;
        }
        Ok(checked)
    });
}

#[test]
fn packed_weights_give_what_raw_ones_give() {
    sweep("packed weights", shared_rigs(), &spread(9, &SMALL), normal, |rig, case, (data, expected)| {
        let mut checked = 0;
        for placement in [Placement::Host, Placement::Device, Placement::Strided(2)] {
            let request = Request { packed: true, ..Request::new(Precision::Fp32, placement) };
            let results = compute(&rig.context, case, data, &request)?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("{placement:?}: {text}"))?;
        }
        Ok(checked)
    });
}

#[test]
fn strips_take_packed_weights_too() {
    sweep(
        "packed weights by strips",
        &[kernel_rigs("strips"), kernel_rigs("strips_parts")].into_iter().flatten().collect::<Vec<_>>(),
        &spread(90, &["groups_"]),
        normal,
        |rig, case, (data, exact)| {
            let request = Request { packed: true, ..Request::new(Precision::Fp32, Placement::Device) };
            check(Contract::Fp32, exact, &compute(&rig.context, case, data, &request)?)
        },
    );
}

#[test]
fn plans_give_what_calls_give() {
    sweep("plans", shared_rigs(), &spread(9, &SMALL), normal, |rig, case, (data, expected)| {
        let mut checked = 0;
        for packed in [false, true] {
            let request = Request { planned: true, packed, ..Request::new(Precision::Fp32, some_mixture(case)) };
            let results = compute(&rig.context, case, data, &request)?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("packed {packed}: {text}"))?;
        }
        Ok(checked)
    });
}

#[test]
fn the_same_call_gives_the_same_bits() {
    the_same_bits(shared_rigs(), &spread(8, &["long_"]));
}

#[test]
fn a_result_that_begins_on_no_boundary_has_one_pipeline_of_its_own_and_not_a_second_one() {
    for rig in shared_rigs() {
        let compiled = |offset: u64| {
            let rig = rig.again();
            let depthwise = Conv2dConfig { groups: 8, padding: [[1, 1], [1, 1]], ..Conv2dConfig::new(8, 8, [3, 3]) };
            let conv = Conv2d::new(&rig.context, depthwise).expect("legal");
            let shape = [2, 8, 16, 16];
            let buffer = rig.context.create_buffer(offset + 4 * elements(&shape) as u64).expect("a small buffer");
            let (x, weight) = (ArrayD::ones(IxDyn(&[2, 8, 16, 16])), ArrayD::ones(IxDyn(&[8, 1, 3, 3])));
            conv.forward(Forward {
                x: Input::Host(x.view()),
                weight: Weight::Raw(Input::Host(weight.view())),
                bias: None,
                y: Output::Device(DeviceTensor::new(&buffer, offset, &shape).expect("it has room")),
            })
            .expect("legal");
            rig.context.stats().pipelines
        };
        assert_eq!(compiled(4), compiled(16), "{}", rig.name);
    }
}
