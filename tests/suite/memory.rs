//! What layers take: the seed document's formulas, and a pool that stops asking the device.

use crate::common::call::forward;
use crate::common::rigs::{devices_with, rigs};
use grilly::{ContextDesc, Conv2d, Conv2dConfig, DeviceKind, Input, PaddingMode, Pass, PassOptions, PassPlan, Weights};
use ndarray::{ArrayD, IxDyn};

#[test]
fn sizes_follow_the_seeds_formulas() {
    let layers = [
        (Conv2dConfig::new(64, 128, [3, 3]), [1, 64, 32, 32], 294_912),
        (Conv2dConfig::new(256, 512, [3, 3]), [8, 256, 16, 16], 4_718_592),
        (Conv2dConfig { groups: 256, ..Conv2dConfig::new(256, 256, [3, 3]) }, [1, 256, 16, 16], 9_216),
    ];
    for rig in rigs() {
        for (config, input, weight) in &layers {
            let config = Conv2dConfig { padding: [[1, 1], [1, 1]], ..config.clone() };
            let channels = config.out_channels;
            let sizes = Conv2d::new(&rig.context, config).and_then(|conv| conv.memory(*input)).expect("legal");
            let [n, c, h, w] = *input;
            assert_eq!(sizes.weight, *weight, "{}", rig.name);
            assert_eq!(sizes.bias, channels * 4);
            assert_eq!(sizes.input, n * c * h * w * 4);
            assert_eq!(sizes.output, n * channels * h * w * 4);
        }
    }
}

#[test]
fn paddings_that_take_memory_are_told_beforehand() {
    for rig in rigs() {
        let config = Conv2dConfig { padding: [[1, 1]; 2], ..Conv2dConfig::new(4, 4, [3, 3]) };
        for (padding_mode, least) in [(PaddingMode::Zeros, 0), (PaddingMode::Reflect, 4 * 4 * 102 * 102)] {
            let conv = Conv2d::new(&rig.context, Conv2dConfig { padding_mode, ..config.clone() }).expect("legal");
            let sizes = conv.memory([1, 4, 100, 100]).expect("legal");
            let plan = PassPlan::new(&conv, Pass::Forward, [1, 4, 100, 100], PassOptions::default(), false);
            let planned = plan.expect("legal").workspace_bytes();
            for bytes in
                [sizes.forward_workspace, sizes.backward_input_workspace, sizes.backward_weight_workspace, planned]
            {
                assert!(bytes >= least, "{}, {padding_mode:?}: {bytes} bytes", rig.name);
                assert!(least > 0 || rig.context.device().kind != DeviceKind::Cpu || bytes == 0, "{bytes} bytes");
            }
        }
    }
}

#[test]
fn repeated_forwards_allocate_nothing_after_the_first() {
    for rig in rigs() {
        let conv = Conv2d::new(&rig.context, Conv2dConfig::new(3, 8, [3, 3])).expect("legal");
        let (x, weight) = (ArrayD::ones(IxDyn(&[2, 3, 9, 9])), ArrayD::ones(IxDyn(&[8, 3, 3, 3])));
        let mut y = ArrayD::<f32>::zeros(IxDyn(&[2, 8, 7, 7]));
        let mut run = || {
            forward(&conv, x.view(), &weight, y.view_mut());
            rig.context.stats()
        };
        let first = run();
        let last = (0..100).map(|_| run()).last().expect("a hundred");
        assert_eq!(last.allocations, first.allocations, "{}", rig.name);
        assert_eq!(last.bytes_held, first.bytes_held, "{}", rig.name);
        assert_eq!(last.dispatches - first.dispatches, 100 * first.dispatches, "{}: it did run", rig.name);
    }
}

#[test]
fn submissions_are_timed_where_that_is_asked_for() {
    for timestamps in [false, true] {
        for rig in devices_with(&ContextDesc { timestamps, ..ContextDesc::default() }, "") {
            let conv = Conv2d::new(&rig.context, Conv2dConfig::new(3, 8, [3, 3])).expect("legal");
            let (x, weight) = (ArrayD::ones(IxDyn(&[1, 3, 16, 16])), ArrayD::ones(IxDyn(&[8, 3, 3, 3])));
            let mut y = ArrayD::zeros(IxDyn(&[1, 8, 14, 14]));
            forward(&conv, x.view(), &weight, y.view_mut());
            let timed = rig.context.stats().device_nanoseconds > 0;
            // Of the others, not every device has a clock.
            let has_clock = matches!(rig.context.device().kind, DeviceKind::Discrete | DeviceKind::Software);
            assert!(timestamps || !timed, "{}", rig.name);
            assert!(timed || !timestamps || !has_clock, "{}", rig.name);
        }
    }
}

#[test]
fn a_thousand_lives_leave_no_block_in_use() {
    for rig in rigs() {
        let before = rig.context.stats().blocks_in_use;
        let weight = ArrayD::ones(IxDyn(&[8, 3, 3, 3]));
        for _ in 0..1000 {
            let conv = Conv2d::new(&rig.context, Conv2dConfig::new(3, 8, [3, 3])).expect("legal");
            let buffer = rig.context.create_buffer(4096).expect("a small buffer");
            let packed = Weights::new(&conv, Input::Host(weight.view())).expect("a small weight");
            drop((conv, buffer, packed));
        }
        assert_eq!(rig.context.stats().blocks_in_use, before, "{}", rig.name);
        assert!(rig.context.stats().bytes_held > rig.context.stats().bytes_in_use, "{}: pooled", rig.name);
        assert!(rig.context.stats().allocations < 100, "{}: reused", rig.name);
        rig.context.trim().expect("a trim");
        assert_eq!(rig.context.stats().bytes_held, rig.context.stats().bytes_in_use, "{}: trimmed", rig.name);
    }
}
