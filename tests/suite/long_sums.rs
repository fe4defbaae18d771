//! Sums so long, and windows so wide, that loops of drivers, levels of totals, or counts come to their ends.

use crate::common::call::{Placement, Request, check, compute};
use crate::common::cases::{Case, Mode};
use crate::common::contract::Contract;
use crate::common::data::Kind;
use crate::common::reference::prepared;
use crate::common::rigs::{kernel_rigs, rigs};
use grilly::{Conv2d, Conv2dConfig, DeviceKind, Input, Precision, Weights};
use ndarray::{ArrayD, IxDyn};

/// Every device computes a case within the contract, or refuses it, if it is of that kind, in words of which these are
/// some.
fn within_or(case: &Case, kinds: &[Kind], refusal: Option<(DeviceKind, &str)>) {
    let forced = ["strips", "strips_parts"].into_iter().flat_map(kernel_rigs);
    let rigs: Vec<_> = rigs().into_iter().chain(forced).collect();
    for &kind in kinds {
        let contract = match kind {
            Kind::Integers => Contract::Exact,
            Kind::Normal => Contract::Fp32Normal,
            _ => Contract::Fp32,
        };
        let (data, expected) = prepared(kind, false)(case);
        for rig in &rigs {
            let refuses = |(kind, words): (DeviceKind, &str), text: &str| {
                rig.context.device().kind == kind && text.contains(words)
            };
            let results = compute(&rig.context, case, &data, &Request::new(Precision::Fp32, Placement::Host));
            let outcome = match results {
                Ok(results) => check(contract, &expected, &results).map(drop),
                Err(text) if refusal.is_some_and(|refusal| refuses(refusal, &text)) => Ok(()),
                Err(text) => Err(text),
            };
            assert!(outcome.is_ok(), "{}, {kind:?}, on {}: {}", case.name, rig.name, outcome.unwrap_err());
        }
    }
}

/// Of a software driver, which ends loops.
const LOOPS: Option<(DeviceKind, &str)> = Some((DeviceKind::Software, "loops"));

#[test]
fn loops_that_a_driver_ends_early_are_not_begun() {
    for outputs in [10_950, 13_000] {
        within_or(&Case::new("many_outputs_a_channel", [1, 1, 1, 1], outputs, [1, 1]), &[Kind::Integers], LOOPS);
    }
    let mut copies = Case::new("many_copies_of_a_corner", [1, 1, 1, 1], 1, [1, 1]);
    (copies.padding, copies.padding_mode) = ([[22_000, 0], [0, 0]], Mode::Replicate);
    within_or(&copies, &[Kind::Integers], LOOPS);
    let mut strips = Case::new("strips_of_many_channels", [1, 21_000, 8, 8], 1, [7, 7]);
    strips.padding = [[3, 3]; 2];
    within_or(&strips, &[Kind::Integers], LOOPS);
}

#[test]
fn many_chains_in_one_total_are_not_too_many() {
    let mut strips = Case::new("strips_of_8000_channels", [1, 8000, 8, 8], 1, [7, 7]);
    strips.padding = [[3, 3]; 2];
    within_or(&strips, &[Kind::Normal, Kind::OneThenTiny], LOOPS);
    let mut wide = Case::new("wide_patches", [1, 512, 1, 16_801], 16, [1, 1]);
    wide.stride = [1, 2100];
    within_or(&wide, &[Kind::OneThenTiny, Kind::OneThenTinyInput], None);
    // Of which the data follow.
    for name in ["one", "two", "three"] {
        within_or(&Case::new(name, [8, 14_560, 3, 3], 8, [3, 3]), &[Kind::Normal], None);
    }
}

#[test]
fn weights_of_windows_that_span_much_are_packed() {
    for rig in rigs() {
        let wide = (1 << 29) - 1;
        let (dilation, padding) = ([wide; 2], [[wide; 2]; 2]);
        let config = Conv2dConfig { dilation, padding, ..Conv2dConfig::new(16, 16, [3, 3]) };
        let conv = Conv2d::new(&rig.context, config).expect("legal");
        let packed = Weights::new(&conv, Input::Host(ArrayD::ones(IxDyn(&[16, 16, 3, 3])).view()));
        assert!(packed.is_ok(), "{}: {:?}", rig.name, packed.err());
    }
}

#[test]
fn windows_that_span_more_than_can_be_counted_are_refused_or_right() {
    for input in [[1, 32, 1, 1], [16, 1, 1, 1]] {
        let mut case = Case::new("wide_windows", input, 16, [2, 2]);
        (case.dilation, case.padding) = ([(1 << 30) - 1; 2], [[1 << 29, (1 << 29) - 1]; 2]);
        within_or(&case, &[Kind::Integers], Some((DeviceKind::Cpu, "could not allocate")));
    }
}
