//! Every case of the table, on every device: forward, input gradient, weight gradient and bias gradient are within
//! the accuracy contract, whatever the data.

use crate::common::call::{Placement, Request, check, compute};
use crate::common::cases::{Case, spread, table};
use crate::common::contract::Contract;
use crate::common::data::{ADVERSARIAL, Data, Kind};
use crate::common::reference::{Expected, prepared};
use crate::common::repeats::the_same_bits;
use crate::common::rigs::{Rig, announce, kernel_rigs, minimum_rigs, shared_rigs, sweep, tile_rigs};
use grilly::kernels::CHOICES;
use grilly::kernels::table::TILE_SIZES;
use grilly::{Accumulate, Precision};

/// Long sums and shapes that only some kernels take: part of every spread.
const TELLING: [&str; 4] = ["long_", "one_pixel_output", "batch_0", "padding_larger_than_kernel"];
/// The same but for long sums, which take a software driver long with most of the kernels that it would not choose.
const BRIEF: [&str; 3] = ["one_pixel_output", "batch_0", "padding_larger_than_kernel"];
/// And so many channels that sums can be split along them, and rows and planes that blocks of pixels span.
const WIDE: [&str; 6] = [BRIEF[0], BRIEF[1], BRIEF[2], "channels_130_to_130", "groups_2_channels_32", "whole_"];

fn holds(
    contract: Contract,
    request: Request,
) -> impl Fn(&Rig, &Case, &(Data, [Expected; 4])) -> Result<usize, String> {
    move |rig, case, (data, expected)| check(contract, expected, &compute(&rig.context, case, data, &request)?)
}

/// `with` says what is special about the devices.
fn small_integers_are_exact(with: &str, rigs: &[Rig], cases: &[Case]) {
    sweep(
        &format!("IEEE in device memory on small integers{with}, exactly equal"),
        rigs,
        cases,
        prepared(Kind::Integers, false),
        holds(Contract::Exact, Request::new(Precision::Ieee, Placement::Device)),
    );
}

#[test]
fn fp32_meets_its_contract_on_every_case() {
    sweep(
        "FP32 from host memory on N(0,1)",
        shared_rigs(),
        &table().cases,
        prepared(Kind::Normal, false),
        holds(Contract::Fp32Normal, Request::new(Precision::Fp32, Placement::Host)),
    );
}

#[test]
fn small_integers_are_exact_under_ieee_on_every_case() {
    small_integers_are_exact("", shared_rigs(), &table().cases);
}

#[test]
fn every_tile_is_exact_on_small_integers_and_gives_the_same_bits_every_time() {
    let cases = spread(90, &BRIEF);
    for tile in 0..TILE_SIZES.len() {
        let rigs = tile_rigs(tile);
        small_integers_are_exact(&format!(" with tile {tile}"), &rigs, &cases);
        // Device tensors begin on no boundary, and are stored by elements; those of the host by vectors, where they fit.
        let host = Request::new(Precision::Ieee, Placement::Host);
        sweep(
            &format!("IEEE added to small integers in host memory with tile {tile}, exactly equal"),
            &rigs,
            &cases,
            prepared(Kind::Integers, true),
            holds(Contract::Exact, Request { accumulate: Accumulate::ALL, ..host }),
        );
        the_same_bits(&rigs, &cases);
    }
}

#[test]
fn every_kernel_is_exact_on_small_integers_keeps_infinities_apart_and_gives_the_same_bits_every_time() {
    let cases = spread(90, &WIDE);
    for kernel in CHOICES {
        let rigs = kernel_rigs(kernel);
        small_integers_are_exact(&format!(" with {kernel}"), &rigs, &cases);
        sweep(
            &format!("FP32 on NonFinite with {kernel}"),
            &rigs,
            &cases,
            prepared(Kind::NonFinite, false),
            holds(Contract::Fp32, Request::new(Precision::Fp32, Placement::Host)),
        );
        the_same_bits(&rigs, &cases);
    }
}

#[test]
fn ieee_meets_its_contract() {
    sweep(
        "IEEE on N(0,1)",
        shared_rigs(),
        &spread(4, &TELLING),
        prepared(Kind::Normal, false),
        holds(Contract::Ieee, Request::new(Precision::Ieee, Placement::Host)),
    );
}

#[test]
fn fast_is_of_the_class_of_tf32() {
    sweep(
        "FAST on N(0,1)",
        shared_rigs(),
        &spread(3, &TELLING),
        prepared(Kind::Normal, false),
        holds(Contract::FastNormal, Request::new(Precision::Fast, Placement::Device)),
    );
}

#[test]
fn adversarial_data_stay_within_the_contract() {
    for kind in ADVERSARIAL {
        let telling = if matches!(kind, Kind::OneThenTiny | Kind::OneThenTinyInput) { &TELLING[..] } else { &BRIEF };
        sweep(
            &format!("FP32 and IEEE on {kind:?}"),
            shared_rigs(),
            &spread(32, telling),
            prepared(kind, false),
            |rig, case, (data, expected)| {
                let mut checked = 0;
                for (precision, contract) in [(Precision::Fp32, Contract::Fp32), (Precision::Ieee, Contract::Ieee)] {
                    let results = compute(&rig.context, case, data, &Request::new(precision, Placement::Device))?;
                    checked += check(contract, expected, &results).map_err(|text| format!("{precision:?}: {text}"))?;
                }
                Ok(checked)
            },
        );
    }
}

#[test]
fn a_device_with_only_the_required_limits_meets_the_contract() {
    let rigs = minimum_rigs();
    if rigs.is_empty() {
        announce("conformance: no Vulkan device whose limits could be lowered");
        return;
    }
    sweep(
        "FP32 on N(0,1)",
        &rigs,
        &spread(4, &TELLING),
        prepared(Kind::Normal, false),
        holds(Contract::Fp32Normal, Request::new(Precision::Fp32, Placement::Device)),
    );
}
