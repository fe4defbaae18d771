//! Planning is pure, so plans for devices that nobody has here are tested too: every dispatch of every plan stays within
//! the device's limits and its tensors, for the whole case table and for the benchmark's layers.

use crate::common::cases;
use grilly::kernels::{CHOICES, packed_bytes, plan, plan_packing, table};
use grilly::plan::{Dispatch, Limits, Module, Plan, Role};
use grilly::problem::Problem;
use grilly::{Conv2dConfig, PaddingMode, Pass, PassOptions, Precision};
use std::collections::HashSet;

/// Limits of the kind that these devices report.
fn devices() -> Vec<(&'static str, Limits)> {
    let desktop = Limits {
        storage_buffer_range: u64::from(u32::MAX),
        storage_buffer_alignment: 16,
        workgroup_count: [u32::MAX, 65_535],
        workgroup_threads: 1024,
        shared_memory: 48 << 10,
        subgroup: 32,
        subgroup_shuffle: true,
        int64: true,
        buffer_addresses: true,
        push_descriptors: true,
        software: false,
        loop_iterations: u64::MAX,
        concurrent_workgroups: 264,
        tile: None,
        kernel: None,
        flops: 2e12,
    };
    let with = |change: fn(&mut Limits)| {
        let mut limits = desktop.clone();
        change(&mut limits);
        limits
    };
    vec![
        ("NVIDIA H200", desktop.clone()),
        (
            "AMD RX 6750 XT",
            with(|l| {
                (l.storage_buffer_alignment, l.shared_memory, l.subgroup) = (4, 64 << 10, 64);
                (l.workgroup_count, l.concurrent_workgroups, l.flops) = ([65_535; 2], 80, 8e11);
            }),
        ),
        (
            "Intel Arc A770",
            with(|l| {
                (l.storage_buffer_alignment, l.shared_memory, l.subgroup) = (4, 32 << 10, 16);
                (l.storage_buffer_range, l.workgroup_count) = (1 << 30, [65_535; 2]);
                (l.concurrent_workgroups, l.flops) = (64, 6e11);
            }),
        ),
        (
            "Intel Iris Xe",
            with(|l| {
                (l.shared_memory, l.subgroup, l.workgroup_threads) = (32 << 10, 8, 512);
                (l.storage_buffer_range, l.workgroup_count) = (1 << 30, [65_535; 2]);
                (l.concurrent_workgroups, l.flops) = (24, 2e11);
            }),
        ),
        (
            "Qualcomm Adreno 640",
            with(|l| {
                (l.shared_memory, l.subgroup, l.storage_buffer_alignment) = (32 << 10, 64, 64);
                (l.storage_buffer_range, l.workgroup_count) = (1 << 27, [65_535; 2]);
                (l.buffer_addresses, l.push_descriptors) = (false, false);
                (l.concurrent_workgroups, l.flops) = (24, 2e11);
            }),
        ),
        (
            "ARM Mali-G78",
            with(|l| {
                (l.shared_memory, l.subgroup, l.workgroup_threads) = (32 << 10, 16, 512);
                (l.storage_buffer_range, l.storage_buffer_alignment) = (1 << 29, 16);
                (l.workgroup_count, l.buffer_addresses) = ([65_535; 2], false);
                (l.concurrent_workgroups, l.flops) = (24, 2e11);
            }),
        ),
        (
            "Apple M1 through MoltenVK",
            with(|l| {
                (l.shared_memory, l.subgroup, l.push_descriptors) = (32 << 10, 32, true);
                (l.concurrent_workgroups, l.flops) = (24, 2e11);
            }),
        ),
        (
            "llvmpipe",
            with(|l| {
                (l.shared_memory, l.subgroup, l.storage_buffer_range) = (32 << 10, 8, 1 << 27);
                (l.workgroup_count, l.software, l.loop_iterations) = ([65_535; 2], true, 60_000);
                (l.concurrent_workgroups, l.flops) = (2, 4e9);
            }),
        ),
        (
            "a software driver without 64-bit integers",
            with(|l| {
                (l.shared_memory, l.subgroup, l.storage_buffer_range) = (32 << 10, 8, 1 << 27);
                (l.int64, l.software, l.concurrent_workgroups, l.flops) = (false, true, 2, 4e9);
            }),
        ),
        ("the required minimum", desktop.minimum()),
        (
            "the required minimum, 16 KiB exactly, subgroup 4",
            with(|l| {
                *l = l.minimum();
                (l.subgroup, l.concurrent_workgroups, l.flops) = (4, 2, 1e10);
            }),
        ),
    ]
}

fn problems(config: &Conv2dConfig, input: [u64; 4]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pass in [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight] {
        for (bias, skip_weight, accumulate) in [(true, false, false), (false, false, true), (true, true, false)] {
            let options = PassOptions { bias, skip_weight, accumulate };
            problems.push(Problem::new(config, input, pass, options).expect("cases are legal"));
        }
    }
    problems
}

/// Large layers, which the case table cannot hold: the benchmark's, and tensors beyond every binding.
fn large_layers() -> Vec<(Conv2dConfig, [u64; 4])> {
    let layer = |channels: [u64; 2], kernel: u64, groups: u64, input: [u64; 3]| {
        let padding = [[kernel / 2; 2]; 2];
        let config = Conv2dConfig { padding, groups, ..Conv2dConfig::new(channels[0], channels[1], [kernel; 2]) };
        (config, [input[0], channels[0], input[1], input[2]])
    };
    let changed = |mut layer: (Conv2dConfig, [u64; 4]), change: fn(&mut Conv2dConfig)| {
        change(&mut layer.0);
        layer
    };
    vec![
        layer([64, 64], 3, 1, [32, 56, 56]),
        layer([3, 64], 7, 1, [32, 224, 224]),
        layer([512, 512], 3, 1, [64, 28, 28]),
        layer([64, 64], 3, 1, [16, 224, 224]),
        layer([128, 128], 3, 32, [32, 56, 56]),
        layer([192, 192], 5, 192, [32, 28, 28]),
        layer([1, 1], 3, 1, [3, 4000, 4000]),
        layer([16, 16], 3, 16, [1, 3000, 1000]),
        layer([2000, 2000], 1, 1, [1, 8, 8]),
        layer([64, 64], 3, 1, [4000, 56, 56]),
        layer([25_000, 8], 3, 1, [1, 2, 2]),      // sums of 225,000 terms
        layer([2740, 2740], 1, 1, [300, 16, 16]), // partial sums of its slices beyond 128 MiB together
        changed(layer([64, 64], 3, 1, [4000, 56, 56]), |c| c.padding_mode = PaddingMode::Reflect),
        changed(layer([16, 16], 3, 16, [1, 3000, 1000]), |c| c.padding_mode = PaddingMode::Circular),
        changed(layer([64, 64], 3, 1, [16, 224, 224]), |c| (c.transposed, c.stride) = (true, [2, 2])),
        changed(layer([1, 1], 3, 1, [3, 4000, 4000]), |c| c.transposed = true),
    ]
}

/// Whether a module declares a capability of SPIR-V.
fn declares(module: &Module, capability: u32) -> bool {
    const HEADER_WORDS: usize = 5;
    let words = module.spirv.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).skip(HEADER_WORDS);
    let (heads, operands) = (words.clone().step_by(2), words.skip(1).step_by(2));
    let mut declared = heads.zip(operands).take_while(|(head, _)| *head == 2 << 16 | OP_CAPABILITY);
    declared.any(|(_, operand)| operand == capability)
}

const OP_CAPABILITY: u32 = 17;
const CAPABILITY_INT64: u32 = 11;
const CAPABILITY_SHUFFLE: u32 = 65;

/// Checks one plan, and returns how many dispatches it has.
fn check(plan: &Plan, problem: &Problem, limits: &Limits, packed: u64) -> Result<usize, String> {
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
    let mut covered = 0;
    for slice in &plan.slices {
        ensure(slice.start == covered && slice.end > slice.start, "slices cover the dispatches in order")?;
        covered = slice.end;
    }
    ensure(covered == plan.dispatches.len(), "slices cover every dispatch")?;
    for dispatch in &plan.dispatches {
        let module = dispatch.module;
        let tiles = u64::from(dispatch.tiles.end - dispatch.tiles.start);
        let [max_x, max_y] = limits.workgroup_count.map(u64::from);
        ensure(tiles > 0, "a dispatch has work")?;
        ensure(!declares(module, CAPABILITY_INT64) || limits.int64, "64-bit integers only where there are any")?;
        ensure(!declares(module, CAPABILITY_SHUFFLE) || limits.subgroup_shuffle, "shuffles only where there are any")?;
        ensure(tiles.div_ceil(tiles.min(max_x)) <= max_y, "the grid fits")?;
        ensure(module.local_size.iter().product::<u32>() <= limits.workgroup_threads, "threads fit")?;
        // Arrays of one entry by default: an implicit GEMM's list of steps, and where parts of strips meet.
        let (length_id, entry) = match module.name {
            name if name.starts_with("conv2d-") => (1, 16),
            name if name.starts_with("strips-") => (5, 4),
            _ => (u32::MAX, 0),
        };
        ensure(dispatch.specialization.len() == module.specialization_ids.len(), "every constant has a value")?;
        let more = constant(dispatch, length_id).map_or(0, |length| entry * (length - 1));
        ensure(module.shared_memory + more <= limits.shared_memory, "shared memory fits")?;
        ensure(module.push_constant_bytes <= 128, "push constants fit")?;
        ensure(module.bindings.len() <= 8, "bindings fit")?;
        let addressed = module.bindings.is_empty();
        ensure(!addressed || limits.buffer_addresses, "addresses only where there are any")?;
        ensure(dispatch.operands.iter().any(Option::is_some), "something to work on")?;
        for (slot, operand) in dispatch.operands.iter().enumerate() {
            let Some(operand) = operand else { continue };
            let size = match operand.role {
                Role::Input => 4 * problem.input_elements(),
                Role::Output => 4 * problem.output_elements(),
                Role::Weight => 4 * problem.weight_elements(),
                Role::Bias => 4 * problem.bias_elements(),
                Role::Packed => packed,
                Role::Workspace => plan.workspace,
            };
            ensure(operand.offset % 4 == 0, "operands are aligned")?;
            ensure(operand.offset + operand.bytes <= size, &format!("operand {slot} lies within its tensor"))?;
            let reach = operand.bytes + limits.storage_buffer_alignment;
            ensure(addressed || reach <= limits.storage_buffer_range, "what is bound fits a binding")?;
            ensure(operand.bytes / 4 <= i32::MAX as u64, "32-bit indices reach every element")?;
        }
    }
    Ok(plan.dispatches.len())
}

#[test]
fn every_plan_stays_within_its_devices_limits() {
    let mut layers: Vec<(Conv2dConfig, [u64; 4])> =
        cases::table().cases.iter().map(|case| (case.config(Precision::Fp32), case.input())).collect();
    layers.extend(large_layers());
    // Strips that threads share take shared memory by their window, and choose themselves for small layers only.
    let shared =
        devices().into_iter().map(|(device, limits)| (device, Limits { kernel: Some("strips_parts"), ..limits }));
    for (device, limits) in devices().into_iter().chain(shared) {
        let (mut dispatches, mut refused) = (0, 0);
        for (config, input) in &layers {
            for problem in problems(config, *input) {
                for prepacked in [false, true] {
                    match plan(&problem, &limits, prepacked) {
                        Ok(plan) => {
                            dispatches += check(&plan, &problem, &limits, packed_bytes(&problem))
                                .unwrap_or_else(|what| panic!("{device}: {problem:?}: broken: {what}"));
                        }
                        // Without addresses, what one binding cannot reach is refused by name.
                        Err(error) => {
                            assert!(!limits.buffer_addresses, "{device}: {problem:?}: {error}");
                            assert!(error.message().contains("binds at most"), "{error}");
                            refused += 1;
                        }
                    }
                }
                if problem.pass != Pass::BackwardWeight
                    && let Ok(packing) = plan_packing(&problem, &limits)
                {
                    check(&packing, &problem, &limits, packed_bytes(&problem)).expect("packing stays within limits");
                }
            }
        }
        println!("{device}: {dispatches} dispatches within limits, {refused} problems refused");
        assert!(dispatches > 15_000, "{device}: only {dispatches}");
    }
}

/// While a batch is on its way from the host, what is there already is computed on: that takes kernels which say how they
/// go through their images.
#[test]
fn kernels_go_through_their_images_in_order() {
    for (device, limits) in devices() {
        let mut walking = 0;
        for (config, input) in large_layers() {
            for problem in problems(&config, input) {
                let Ok(plan) = plan(&problem, &limits, false) else { continue };
                for (at, dispatch) in plan.dispatches.iter().enumerate() {
                    let images_of = |role, elements: u64| {
                        let operand = dispatch.operands.iter().flatten().find(|operand| operand.role == role)?;
                        Some(operand.bytes / (4 * elements / problem.n))
                    };
                    let images = images_of(Role::Input, problem.input_elements())
                        .or_else(|| images_of(Role::Output, problem.output_elements()));
                    // Sums of parts, here of single images, and the groups of a dense layer each go through all images.
                    let name = dispatch.module.name;
                    let grouped = name.starts_with("conv2d-") && problem.groups > 1;
                    let apart = name.starts_with("reduce-splits") || grouped || problem.n == 1;
                    let (Some(images), false) = (images, apart) else { continue };
                    let what = format!("{device}: {problem:?}: {name}");
                    let walk = plan.walk(at).unwrap_or_else(|| panic!("{what} does not say how"));
                    let end = u64::from(dispatch.tiles.end);
                    assert!(end <= walk.tiles_of(images), "{what}: more tiles than its images have");
                    assert!(end == walk.tiles_of(images) || plan.dispatches[at + 1].tiles.start == dispatch.tiles.end);
                    walking += 1;
                }
            }
        }
        assert!(walking > 100, "{device}: only {walking}");
    }
}

#[test]
fn long_work_is_cut_into_short_submissions() {
    let (config, input) = &large_layers()[2];
    for (device, limits) in devices() {
        let problem = Problem::new(config, *input, Pass::Forward, PassOptions::default()).expect("legal");
        let plan = plan(&problem, &limits, false).expect("fits every device");
        let least = (plan.seconds / 0.25).floor() as usize;
        assert!(plan.slices.len() >= least, "{device}: {} s in {} slices", plan.seconds, plan.slices.len());
    }
}

/// The seed document's facts about its shaders, asserted from the compiled modules themselves.
#[test]
fn the_general_kernels_keep_the_seeds_interface() {
    let kernels = [
        (&table::CONV2D_FORWARD, "conv2d-forward", vec![0, 1, 2, 3]),
        (&table::CONV2D_BACKWARD_INPUT, "conv2d-backward-input", vec![0, 1, 2, 3]),
        (&table::CONV2D_BACKWARD_WEIGHT, "conv2d-backward-weight", vec![0, 1, 2, 3]),
    ];
    for (kernel, name, bindings) in kernels {
        assert!(
            std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders")).join(format!("{name}.glsl")).exists()
        );
        let mut modules = 0;
        for module in kernel.modules() {
            assert!(module.name.starts_with(name), "{}", module.name);
            let seventeen: Vec<u32> = (0..17).map(|at| 4 * at).collect();
            assert_eq!(module.push_constant_offsets[..17], seventeen, "{}: 17 uints, 68 bytes", module.name);
            assert!(module.bindings == bindings || module.name.ends_with(".addresses"), "{}", module.name);
            // The seed has 64 invocations; the tile for subgroups of 8, for software drivers, shares nothing among them.
            let fewest = if declares(module, CAPABILITY_SHUFFLE) { 8 } else { 64 };
            assert!(module.local_size[0] >= fewest, "{}: {fewest} invocations or more", module.name);
            modules += 1;
        }
        assert!(modules >= 2, "{name}");
    }
}

/// The value of a specialization constant, if the dispatch's kernel has it.
fn constant(dispatch: &Dispatch, id: u32) -> Option<u32> {
    let at = dispatch.module.specialization_ids.iter().position(|&other| other == id)?;
    Some(dispatch.specialization[at])
}

#[test]
fn raw_weights_and_split_sums_are_planned_where_they_are_named() {
    let gpu = devices().remove(0).1;
    for (name, id, value) in [("implicit_gemm_raw", 3, 0), ("implicit_gemm_splits", 4, 1)] {
        let limits = Limits { kernel: Some(name), ..gpu.clone() };
        for kernel in [&table::CONV2D_FORWARD, &table::CONV2D_BACKWARD_INPUT] {
            let takes = |dispatch: &Dispatch| {
                let of_kernel = kernel.modules().any(|module| module.name == dispatch.module.name);
                of_kernel && constant(dispatch, id) == Some(value)
            };
            let cases = cases::table().cases;
            let problems = cases.iter().flat_map(|case| problems(&case.config(Precision::Fp32), case.input()));
            let taken = problems.filter(|problem| plan(problem, &limits, false).unwrap().dispatches.iter().any(takes));
            let taken = taken.count();
            assert!(taken >= 30, "{taken} of the table's problems take {name}");
        }
    }
}

/// Every module that has no addresses and computes convolutions runs somewhere in the table of cases, on a GPU or on a
/// software driver, when its tile or its file is asked for.
#[test]
fn every_module_is_reached_by_the_table_of_cases() {
    let gpu = devices().remove(0).1;
    let software = Limits { subgroup: 8, software: true, ..gpu.clone() };
    let asked = |limits: &Limits| -> Vec<Limits> {
        let tiles = (0..table::TILE_SIZES.len()).map(|tile| Limits { tile: Some(tile), ..limits.clone() });
        tiles.chain(CHOICES.map(|kernel| Limits { kernel: Some(kernel), ..limits.clone() })).collect()
    };
    let mut reached = HashSet::new();
    for limits in asked(&gpu).iter().chain(&asked(&software)) {
        for case in &cases::table().cases {
            for problem in problems(&case.config(Precision::Fp32), case.input()) {
                let plan = plan(&problem, limits, false).expect("the table's cases can be planned");
                reached.extend(plan.dispatches.iter().map(|dispatch| dispatch.module.name));
            }
        }
    }
    let all = [
        &table::CONV2D_FORWARD,
        &table::CONV2D_BACKWARD_INPUT,
        &table::CONV2D_BACKWARD_WEIGHT,
        &table::CONV2D_BACKWARD_BIAS,
        &table::DEPTHWISE_FORWARD,
        &table::DEPTHWISE_BACKWARD_INPUT,
        &table::DEPTHWISE_BACKWARD_WEIGHT,
        &table::STRIPS_FORWARD,
        &table::STRIPS_BACKWARD_INPUT,
        &table::STRIPS_BACKWARD_WEIGHT,
        &table::SEGMENTS_BACKWARD_WEIGHT,
    ];
    let missing: Vec<_> = all
        .into_iter()
        .flat_map(|kernel| kernel.modules())
        .filter(|module| !module.bindings.is_empty() && !reached.contains(module.name))
        .map(|module| module.name)
        .collect();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
}
