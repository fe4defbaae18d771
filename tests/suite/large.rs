//! Tensors beyond 128 MiB, the largest binding that Vulkan promises: llvmpipe offers no more, so on it every one of
//! these has to be cut into ranges.

use crate::common::call::{Placement, Request, check, compute};
use crate::common::cases::{Case, Mode, elements};
use crate::common::contract::Contract;
use crate::common::data::{Data, Kind};
use crate::common::reference::Reference;
use crate::common::rigs::{rigs, sweep};
use grilly::Precision;

/// Elements of float32 in 128 MiB.
const BINDING: usize = 32 << 20;

fn holds(case: &Case, big: impl Fn(&Case) -> usize, placements: &[Placement]) {
    assert!(big(case) > BINDING, "{} has only {} elements", case.name, big(case));
    let prepare = |case: &Case| {
        let data = Data::new(case, Kind::Uniform);
        let expected = Reference::new(case, &data, false).some(sample);
        (data, expected)
    };
    sweep("beyond 128 MiB", &rigs(), std::slice::from_ref(case), prepare, |rig, case, (data, expected)| {
        let mut checked = 0;
        for &placement in placements {
            let results = compute(&rig.context, case, data, &Request::new(Precision::Fp32, placement))?;
            checked += check(Contract::Fp32, expected, &results).map_err(|text| format!("{placement:?}: {text}"))?;
        }
        Ok(checked)
    });
}

/// Both ends, the surroundings of the boundary, and some elements spread over the rest.
fn sample(len: usize) -> Option<Vec<usize>> {
    const EACH: usize = 500;
    if len < 8 * EACH {
        return None;
    }
    let near = |middle: usize| middle.saturating_sub(EACH)..(middle + EACH).min(len);
    let spread = (0..4 * EACH).map(|i| (i as u64 * len as u64 / (4 * EACH as u64)) as usize);
    let mut at: Vec<usize> = near(0).chain(near(BINDING)).chain(near(len)).chain(spread).collect();
    at.sort_unstable();
    at.dedup();
    Some(at)
}

#[test]
fn one_image_larger_than_a_binding() {
    let case = Case::new("image_of_136_mib", [1, 1100, 180, 180], 2, [2, 1]);
    holds(&case, |case| elements(&case.input()[1..]), &[Placement::Host]);
}

#[test]
fn one_depthwise_image_larger_than_a_binding() {
    let mut case = Case::new("depthwise_image_of_131_mib", [1, 2100, 128, 128], 2100, [3, 3]);
    (case.padding, case.groups) = ([[1, 1]; 2], 2100);
    holds(&case, |case| elements(&case.input()[1..]), &[Placement::Host]);
}

#[test]
fn one_plane_larger_than_a_binding() {
    let mut case = Case::new("plane_of_128.3_mib", [1, 1, 5800, 5800], 1, [2, 1]);
    case.stride = [3, 3];
    holds(&case, |case| elements(&case.input()[2..]), &[Placement::Host]);
}

#[test]
fn one_weight_gradient_larger_than_a_binding() {
    let case = Case::new("weight_of_137_mib", [1, 6000, 2, 1], 6000, [1, 1]);
    holds(&case, |case| elements(&case.weight()), &[Placement::Host]);
}

#[test]
fn a_batch_larger_than_a_binding() {
    let mut case = Case::new("batch_of_137_mib", [36, 1, 1000, 1000], 1, [1, 3]);
    (case.padding, case.stride) = ([[0, 0], [1, 1]], [3, 3]);
    holds(&case, |case| elements(&case.input()), &[Placement::Host, Placement::Device]);
}

#[test]
fn a_batch_of_results_larger_than_a_binding() {
    let case = Case::new("results_of_137_mib", [9, 1, 1000, 1000], 4, [1, 1]);
    holds(&case, |case| elements(&[case.n, case.k, case.h, case.w]), &[Placement::Device]);
}

#[test]
fn a_padded_batch_larger_than_a_binding() {
    let mut case = Case::new("replicated_batch_of_137_mib", [36, 1, 1000, 1000], 1, [1, 3]);
    (case.padding, case.padding_mode, case.stride) = ([[0, 0], [1, 1]], Mode::Replicate, [3, 3]);
    holds(&case, |case| elements(&case.input()), &[Placement::Device]);
}

#[test]
fn a_plane_that_only_its_padding_makes_larger_than_a_binding() {
    let mut case = Case::new("plane_of_127.9_mib_reflected", [1, 1, 5780, 5800], 1, [2, 1]);
    (case.padding, case.padding_mode, case.stride) = ([[10, 10], [0, 0]], Mode::Reflect, [3, 3]);
    let padded = |case: &Case| ((case.h + 20) * case.w) as usize;
    assert!(elements(&case.input()) < BINDING);
    holds(&case, padded, &[Placement::Host]);
}

#[test]
fn a_depthwise_image_larger_than_a_binding_in_device_memory() {
    let mut case = Case::new("depthwise_image_of_145_mib", [1, 38, 1000, 1000], 38, [2, 2]);
    case.groups = 38;
    case.stride = [2, 2];
    holds(&case, |case| elements(&case.input()[1..]), &[Placement::Device]);
}
